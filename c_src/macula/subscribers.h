/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that asked to be notified of sessions, as the tokens that the NAT library keeps for us
 * (its watchers).
 *
 * One process has one token however many sessions it asked about, so that the library sees that it
 * is the same. A token counts its references and lives until the last one is given back.
 */
#ifndef MACULA_SUBSCRIBERS_H
#define MACULA_SUBSCRIBERS_H

#include "term/cursor.h"

#define SUBSCRIBERS_MAX       250000
#define SUBSCRIBERS_BYTES_MAX ((size_t)64 << 20)

struct subscriber;

struct subscribers {
    struct subscriber *by_pid;
    size_t bytes;
};

/* Returns a reference to the token of a process; 0 if there are SUBSCRIBERS_MAX, or would be more
 * than SUBSCRIBERS_BYTES_MAX, or without memory. */
uint64_t subscriber_ref(struct subscribers *all, const struct pid *pid);
void subscriber_unref(struct subscribers *all, uint64_t token);
const struct pid *subscriber_pid(uint64_t token);
void subscribers_free(struct subscribers *all);

#endif
