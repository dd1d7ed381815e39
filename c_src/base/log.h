/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line on a descriptor (stderr) for one event, with UTC time and level. Much of what
 * is logged was caused, and partly worded, by other nodes. So every line is escaped and bounded, a
 * kind of line from one peer appears at most once a second, and a reader that has stopped costs
 * lines, never time: what cannot be written at once is dropped and counted.
 *
 * The log keeps one state for the whole program. It belongs to the thread of the
 * event loop. It owns no memory of its callers: every string is copied or written before the call
 * returns. The flags of the descriptor are not touched, as its open file is shared with whoever
 * started the program.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <syslog.h>

/* Longest line written, with its newline. Below PIPE_BUF: it goes out whole or not at all. */
#define LOG_LINE_MAX 2048

/* Pairs of kind and peer told apart within one second; lines of any more are only counted. */
#define LOG_PAIRS_MAX 256

/*
 * Starts the log on the descriptor `fd`, which stays the caller's. `level` is the last one of
 * LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO and LOG_DEBUG (syslog.h) that is written. May be
 * called again to change either.
 */
void log_init(int level, int fd);

/* Writes the counts of lines that were suppressed or dropped and have not been logged yet, and
 * forgets all pairs. */
void log_free(void);

/*
 * Logs one event. `kind` names the kind of line (a short constant such as "handshake"), `peer` whom
 * it is about (a node name, or an IP address before there is one). NULL as `peer`: an event of this
 * node itself, which is never suppressed; whatever another node can cause needs a peer. What the
 * line says is composed as by printf(3), and only if it is to be written; control characters,
 * invalid UTF-8 and backslashes in it are escaped, and it is cut at LOG_LINE_MAX.
 */
#define log_event(level, kind, peer, ...) log_event_about(level, kind, peer, NULL, __VA_ARGS__)

/*
 * The same. `about` is what this very line is about where a peer may cause many that differ in it
 * (the name that somebody claims, the id of a session), or NULL: the count of the lines that were
 * suppressed names the first few.
 */
void log_event_about(int level, const char *kind, const char *peer, const char *about,
                     const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Whether lines of this level are written, so that a caller can spare itself the work of composing
 * one. */
bool log_writes(int level);

/* log_event() at `now_ms`, milliseconds of a monotonic clock: with it tests need no waiting. */
void log_event_at(uint64_t now_ms, int level, const char *kind, const char *peer, const char *about,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));

/*
 * Copies the 0-ended `text` to `out` with control characters, invalid UTF-8 and backslashes as \xNN
 * or \\. What does not fit is cut and ends in "...". Returns the length written; `size` must be at
 * least 4.
 */
size_t log_escape(char *out, size_t size, const char *text);

/* "error", "warning", "notice", "info" or "debug"; `level` is one of those of log_init(). */
const char *log_level_name(int level);

#endif
