/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/line_out.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define WINDOW_MS   1000
#define KIND_SIZE   32
#define PEER_SIZE   256
#define ELLIPSIS    "..."
#define PREFIX_SIZE 48
#define ABOUT_SIZE  72
#define ABOUT_MAX   3
#define ENDING_SIZE (64 + ABOUT_MAX * (ABOUT_SIZE + 2))

/* Kind and peer, each with its ending 0. Longer strings share the pair of their beginning. */
struct key {
    char text[KIND_SIZE + PEER_SIZE];
    size_t peer_at;
    size_t len;
};

/* How many lines were suppressed, and what the first few different ones were about. */
struct suppressed {
    uint64_t count;
    unsigned about_count;
    char about[ABOUT_MAX][ABOUT_SIZE];
};

/* A kind of line from one peer, remembered for WINDOW_MS after its line was written. */
struct pair {
    struct key key;
    int level;
    uint64_t since_ms;
    struct suppressed suppressed;
    UT_hash_handle hh;
    struct pair *next_free;
};

/* Nothing is written before log_init(): LOG_EMERG is below every level in use. */
static int threshold = LOG_EMERG;

/* uthash lists the pairs in the order they were added, so the head is always the one that expires
 * first. */
static struct pair pool[LOG_PAIRS_MAX];
static struct pair *free_pairs;
static struct pair *pairs;
static struct {
    uint64_t since_ms;
    uint64_t suppressed;
} surplus; /* lines that found the table full */
static struct line_out destination;
static uint64_t dropped; /* lines that it did not take */

const char *log_level_name(int level)
{
    static const char *const names[] = {
        [LOG_ERR] = "error", [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
        [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
    };

    return names[level];
}

/*
 * Size of the character at `s` if it may be shown, else 0. Not shown are control characters, line
 * separators, and the marks that change the direction of text and so can make a line read as
 * another.
 */
static size_t printable_size(const uint8_t *s, size_t len)
{
    uint32_t c;
    size_t size = utf8_next(s, len, &c);

    if (size == 0 || c < 0x20 || c == '\\' || (c >= 0x7f && c < 0xa0) ||
        (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
        (c >= 0x2066 && c <= 0x2069))
        return 0;
    return size;
}

size_t log_escape(char *out, size_t size, const char *text)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t left = strlen(text);
    size_t at = 0;
    size_t cut = 0; /* the last place where the ellipsis still fits */

    while (left > 0) {
        char escaped[5];
        size_t taken = printable_size(s, left);
        size_t len = taken;
        const char *piece = (const char *)s;

        if (taken == 0) {
            len = (size_t)snprintf(escaped, sizeof escaped, *s == '\\' ? "\\\\" : "\\x%02x", *s);
            piece = escaped;
            taken = 1;
        }
        if (at + len >= size) {
            memcpy(out + cut, ELLIPSIS, sizeof ELLIPSIS);
            return cut + sizeof ELLIPSIS - 1;
        }
        memcpy(out + at, piece, len);
        at += len;
        s += taken;
        left -= taken;
        if (at + sizeof ELLIPSIS <= size)
            cut = at;
    }
    out[at] = 0;
    return at;
}

static size_t format_prefix(char out[static PREFIX_SIZE], int level)
{
    struct timespec now;
    struct tm utc;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t at = strftime(out, PREFIX_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
    at += (size_t)snprintf(out + at, PREFIX_SIZE - at, ".%03dZ %s ", (int)(now.tv_nsec / 1000000),
                           log_level_name(level));
    return at;
}

static void suppress(struct suppressed *s, const char *about)
{
    char cut[ABOUT_SIZE];

    s->count++;
    if (!about || s->about_count == ABOUT_MAX)
        return;
    snprintf(cut, sizeof cut, "%s", about);
    for (unsigned i = 0; i < s->about_count; i++)
        if (strcmp(s->about[i], cut) == 0)
            return;
    memcpy(s->about[s->about_count++], cut, sizeof cut);
}

/* ": a, b, c and so on", or nothing. */
static void format_about(char out[static ENDING_SIZE], const struct suppressed *s)
{
    size_t at = 0;

    out[0] = 0;
    for (unsigned i = 0; i < s->about_count; i++)
        at +=
            (size_t)snprintf(out + at, ENDING_SIZE - at, "%s%s", i == 0 ? ": " : ", ", s->about[i]);
    if (s->count > s->about_count && s->about_count == ABOUT_MAX)
        snprintf(out + at, ENDING_SIZE - at, " ...");
}

/* Writes one line of time, level, `text` and, unless NULL, of how many lines like it were
 * suppressed. */
static void emit(int level, const char *text, const struct suppressed *suppressed)
{
    char line[LOG_LINE_MAX];
    char about[ENDING_SIZE];
    char ending[2 * ENDING_SIZE + 64] = "";
    size_t ending_len;

    if (dropped > 0) {
        size_t len = format_prefix(line, LOG_WARNING);
        len += (size_t)snprintf(line + len, sizeof line - len,
                                "%llu log lines dropped: stderr took no more\n",
                                (unsigned long long)dropped);
        if (line_out_write(&destination, line, len))
            dropped = 0;
    }
    if (suppressed && suppressed->count > 0) {
        char told[sizeof ending];

        format_about(about, suppressed);
        snprintf(told, sizeof told, " (%llu like it suppressed%s)",
                 (unsigned long long)suppressed->count, about);
        log_escape(ending, sizeof ending - 1, told);
    }
    ending_len = strlen(ending);
    ending[ending_len++] = '\n';
    size_t at = format_prefix(line, level);
    at += log_escape(line + at, sizeof line - at - ending_len, text);
    memcpy(line + at, ending, ending_len);
    if (!line_out_write(&destination, line, at + ending_len))
        dropped++;
}

static void forget(struct pair *pair)
{
    HASH_DEL(pairs, pair);
    pair->next_free = free_pairs;
    free_pairs = pair;
}

static void tell_surplus(void)
{
    char text[96];

    if (surplus.suppressed == 0)
        return;
    snprintf(text, sizeof text, "%llu lines of further peers suppressed",
             (unsigned long long)surplus.suppressed);
    surplus.suppressed = 0;
    emit(LOG_WARNING, text, NULL);
}

/* Forgets the pairs whose second is over, and says how many of their lines were suppressed. */
static void expire(uint64_t now_ms)
{
    while (pairs && now_ms - pairs->since_ms >= WINDOW_MS) {
        struct pair *pair = pairs;

        if (pair->suppressed.count > 0) {
            char about[ENDING_SIZE];
            char text[KIND_SIZE + PEER_SIZE + sizeof about + 64];

            format_about(about, &pair->suppressed);
            snprintf(text, sizeof text, "%s: %llu more from %s suppressed%s", pair->key.text,
                     (unsigned long long)pair->suppressed.count, pair->key.text + pair->key.peer_at,
                     about);
            emit(pair->level, text, NULL);
        }
        forget(pair);
    }
    if (now_ms - surplus.since_ms >= WINDOW_MS)
        tell_surplus();
}

static size_t put_part(char *to, size_t size, const char *part)
{
    size_t len = strnlen(part, size - 1);

    memcpy(to, part, len);
    to[len] = 0;
    return len + 1;
}

/*
 * Whether a line of `kind` from `peer` may appear now. If so, *suppressed tells of those that might
 * not since the last one. Asked before the line is composed: what a peer repeats must cost next to
 * nothing.
 */
static bool admit(uint64_t now_ms, int level, const char *kind, const char *peer, const char *about,
                  struct suppressed *suppressed)
{
    struct key key;
    struct pair *pair;

    key.peer_at = put_part(key.text, KIND_SIZE, kind);
    key.len = key.peer_at + put_part(key.text + key.peer_at, PEER_SIZE, peer);
    HASH_FIND(hh, pairs, key.text, key.len, pair);
    if (pair && now_ms - pair->since_ms < WINDOW_MS) {
        suppress(&pair->suppressed, about);
        return false;
    }
    if (pair) {
        *suppressed = pair->suppressed;
        forget(pair);
    }
    expire(now_ms);
    if (!free_pairs) {
        if (surplus.suppressed++ == 0)
            surplus.since_ms = now_ms;
        return false;
    }
    pair = free_pairs;
    free_pairs = pair->next_free;
    *pair = (struct pair){.key = key, .level = level, .since_ms = now_ms};
    HASH_ADD_KEYPTR(hh, pairs, pair->key.text, pair->key.len, pair);
    if (pair->hh.tbl)
        return true;
    /* Without memory no line of its kind could be suppressed: it counts as one of too many peers.
     */
    pair->next_free = free_pairs;
    free_pairs = pair;
    if (surplus.suppressed++ == 0)
        surplus.since_ms = now_ms;
    return false;
}

__attribute__((format(printf, 6, 0))) static void log_at(uint64_t now_ms, int level,
                                                         const char *kind, const char *peer,
                                                         const char *about, const char *format,
                                                         va_list arguments)
{
    char text[LOG_LINE_MAX];
    struct suppressed suppressed = {.count = 0};

    if (!peer)
        expire(now_ms);
    else if (!admit(now_ms, level, kind, peer, about, &suppressed))
        return;
    vsnprintf(text, sizeof text, format, arguments);
    emit(level, text, &suppressed);
}

void log_event_at(uint64_t now_ms, int level, const char *kind, const char *peer, const char *about,
                  const char *format, ...)
{
    va_list arguments;

    if (level > threshold)
        return;
    va_start(arguments, format);
    log_at(now_ms, level, kind, peer, about, format, arguments);
    va_end(arguments);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

void log_event_about(int level, const char *kind, const char *peer, const char *about,
                     const char *format, ...)
{
    va_list arguments;

    if (level > threshold)
        return;
    va_start(arguments, format);
    log_at(now(), level, kind, peer, about, format, arguments);
    va_end(arguments);
}

bool log_writes(int level)
{
    return level <= threshold;
}

void log_init(int level, int fd)
{
    if (!free_pairs && !pairs) {
        for (size_t i = 0; i < LOG_PAIRS_MAX; i++) {
            pool[i].next_free = free_pairs;
            free_pairs = &pool[i];
        }
    }
    line_out_close(&destination);
    line_out_open(&destination, fd);
    threshold = level;
}

void log_free(void)
{
    while (pairs)
        expire(pairs->since_ms + WINDOW_MS);
    tell_surplus();
    line_out_close(&destination);
    threshold = LOG_EMERG;
}
