/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded `macula_nat_cache`: profiles that were put here, for use without a macula node.
 *
 * A registered gen_server with the answers of v0.14.3: an entry is fresh until its TTL is over,
 * stale for a minute more, then gone; at most 10,000 entries, oldest out first. Ages are counted on
 * the monotonic clock.
 */
#ifndef MACULA_NAT_CACHE_H
#define MACULA_NAT_CACHE_H

#include "macula_nat.h"
#include "otp/gen_server.h"
#include "otp/rpc.h"

#define NAT_CACHE_MAX_ENTRIES   10000
#define NAT_CACHE_MAX_BYTES     ((size_t)256 << 20) /* of profiles, all entries together */
#define NAT_CACHE_DEFAULT_TTL   300                 /* s, of put/2 */
#define NAT_CACHE_STALE_SECONDS 60

struct nat_cache_entry;

struct nat_cache {
    struct gen_server server; /* first */
    struct nat_cache_entry *by_id;
    struct nat_cache_entry *oldest; /* in order of their last put */
    size_t count, bytes;
    uint64_t hits, misses, evictions;
    uint64_t refused; /* puts of what is no profile */
    /* Told of every change to an entry, or to all (no id), so that copies elsewhere can be dropped.
     */
    void (*changed)(void *ctx, const struct slice *id);
    void *changed_ctx;
};

/* Returns 0 or -ENOMEM. */
int nat_cache_start(struct nat_cache *cache, struct node *node);
void nat_cache_free(struct nat_cache *cache);

/* The profile under an id while it is fresh or stale (no reference is taken), or NULL. */
struct nat_profile *nat_cache_find(struct nat_cache *cache, struct slice id, bool *stale);
/* Drops what has expired; called about once a minute. */
void nat_cache_sweep(struct nat_cache *cache);

#endif
