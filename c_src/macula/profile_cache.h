/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded `macula_nat_cache`: profiles that were put here, for use without a macula node.
 *
 * A registered gen_server with the answers of v0.14.3: an entry is fresh until its TTL is over,
 * stale for a minute more, then gone; at most 10,000 entries, oldest out first. Ages are counted on
 * the monotonic clock.
 */
#ifndef MACULA_PROFILE_CACHE_H
#define MACULA_PROFILE_CACHE_H

#include "base/counters.h"
#include "macula_nat.h"
#include "otp/gen_server.h"
#include "otp/rpc.h"

#define PROFILE_CACHE_MAX_ENTRIES   10000
#define PROFILE_CACHE_MAX_BYTES     ((size_t)256 << 20) /* of profiles, all entries together */
#define PROFILE_CACHE_DEFAULT_TTL   300                 /* s, of put/2 */
#define PROFILE_CACHE_STALE_SECONDS 60

/* clang-format off */
#define PROFILE_CACHE_STATS(X) /* since the last clear */ \
    X(hits, COUNTER, "Profiles asked for and found in the embedded cache") \
    X(misses, COUNTER, "Profiles asked for and not found in the embedded cache") \
    X(evictions, COUNTER, "Profiles that left the embedded cache to make room for others")
#define PROFILE_CACHE_COUNTERS(X) \
    X(cache_puts_refused, COUNTER, "Puts into the embedded cache of what is no profile")
/* clang-format on */

struct profile_cache_stats {
    PROFILE_CACHE_STATS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(profile_cache_stats, PROFILE_CACHE_STATS)

struct profile_cache_counters {
    PROFILE_CACHE_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(profile_cache_counters, PROFILE_CACHE_COUNTERS)

struct profile_cache_entry;

struct profile_cache {
    struct gen_server server; /* first */
    struct profile_cache_entry *by_id;
    struct profile_cache_entry *oldest; /* in order of their last put */
    size_t count, bytes;
    struct profile_cache_stats stats;
    struct profile_cache_counters counters;
    /* Called at every change to an entry, or to all (no id), so that copies elsewhere can be
     * dropped.
     */
    void (*changed)(void *ctx, const struct slice *id);
    void *changed_ctx;
};

/* Returns 0 or -ENOMEM. */
int profile_cache_start(struct profile_cache *cache, struct node *node);
void profile_cache_free(struct profile_cache *cache);

/* The profile under an id while it is fresh or stale (no reference is taken), or NULL. */
struct nat_profile *profile_cache_find(struct profile_cache *cache, struct slice id, bool *stale);
/* Drops what has expired; called about once a minute. */
void profile_cache_sweep(struct profile_cache *cache);

#endif
