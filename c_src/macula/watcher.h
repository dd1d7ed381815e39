/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that asked to be notified of a session, as the tokens that the NAT library keeps for
 * us.
 *
 * The library tells two watchers apart by their tokens, so a process has one token however many
 * sessions it watches: the table counts how often it was given out. The table owns the pids; a
 * token is good until it was freed as often.
 */
#ifndef MACULA_WATCHER_H
#define MACULA_WATCHER_H

#include "term/cursor.h"

struct watchers {
    struct watcher *by_pid;
};

/* Frees what is left: tokens of sessions that lived to the end. */
void watchers_free(struct watchers *all);

/* The token of a process, or 0 without memory. */
uint64_t watcher_token(struct watchers *all, const struct pid *pid);
const struct pid *watcher_pid(uint64_t token);
void watcher_free(struct watchers *all, uint64_t token);

#endif
