/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that asked to be notified of sessions, as the tokens that the NAT library keeps for us.
 *
 * One process has one token however many sessions it watches, so that the library sees that it is
 * the same. A token lives until it was given back as often as it was taken.
 */
#ifndef MACULA_WATCHER_H
#define MACULA_WATCHER_H

#include "term/cursor.h"

#define WATCHERS_MAX       250000
#define WATCHERS_BYTES_MAX ((size_t)64 << 20)

struct watcher;

struct watchers {
    struct watcher *by_pid;
    size_t bytes;
};

/* Takes the token of a process; 0 if there are WATCHERS_MAX, or would be more than
 * WATCHERS_BYTES_MAX, or without memory. */
uint64_t watcher_take(struct watchers *all, const struct pid *pid);
void watcher_give_back(struct watchers *all, uint64_t token);
const struct pid *watcher_pid(uint64_t token);
void watchers_free(struct watchers *all);

#endif
