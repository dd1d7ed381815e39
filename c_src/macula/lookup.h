/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where profiles come from: the node's own short-lived cache, macula_nat_cache of a macula node,
 * the DHT, the embedded cache, in this order.
 *
 * A question is answered at once or later, never by waiting; a peer is looked up once at a time
 * however many ask. A source that is silent for half of the time limit is not given up, but the
 * next one is asked beside it; the first profile counts. What was found is kept for a moment,
 * misses are not.
 */
#ifndef MACULA_LOOKUP_H
#define MACULA_LOOKUP_H

#include "base/counters.h"
#include "macula/ask.h"
#include "macula/profile_cache.h"
#include "macula_nat.h"

#define LOOKUP_CACHE_MAX_ENTRIES 65536
#define LOOKUP_CACHE_MAX_BYTES   ((size_t)256 << 20)
/* Lookups under way, about 1 kB each; of any more the profile counts as unknown unless the embedded
 * cache has it. Two for each of 4,096 requests in flight are an eighth of them. */
#define LOOKUP_MAX_FLIGHTS 65536

/* clang-format off */
#define LOOKUP_COUNTERS(X) \
    X(from_own_cache, COUNTER, "Profiles found in the node's own short-lived cache") \
    X(from_macula_nat_cache, COUNTER, "Profiles found in macula_nat_cache of a macula node") \
    X(from_dht, COUNTER, "Profiles found in the DHT") \
    X(from_embedded_cache, COUNTER, "Profiles found in the embedded macula_nat_cache") \
    X(unknown, COUNTER, "Profiles that were found nowhere") \
    X(overloaded, COUNTER, \
      "Lookups that were one too many, and sources not asked because their nodes were all busy")
/* clang-format on */

struct lookup_counters {
    LOOKUP_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(lookup_counters, LOOKUP_COUNTERS)

struct cached_profile;
struct flight;

struct lookup {
    struct services *services;
    struct calls *calls;
    struct profile_cache *embedded;
    uint64_t timeout_ms;
    uint64_t cache_ttl_ms;
    /* The old module could not read what a real DHT answers, and its callers still cannot: a peer
     * that only the DHT knows is then unknown. */
    bool without_dht;
    struct cached_profile *cached; /* by id, oldest first */
    size_t cached_bytes;
    struct flight *flights; /* by id */
    struct flight *waiting; /* those that wait for services to be settled, oldest first */
    struct lookup_counters counters;
};

/* Somebody who waits for a profile; part of a larger struct of the asker's. */
struct lookup_waiter {
    /* `profile` (NULL: unknown) is the waiter's only if it takes a reference. */
    void (*done)(struct lookup_waiter *waiter, struct nat_profile *profile);
    struct lookup_waiter *prev, *next;
};

void lookup_init(struct lookup *lookup, struct services *services, struct calls *calls,
                 struct profile_cache *embedded, uint64_t timeout_ms, uint64_t cache_ttl_ms);
/* Forgets everything; waiters are not called. */
void lookup_free(struct lookup *lookup);

/* The profile (no reference is taken; NULL: unknown) if it is known without asking anybody; else
 * false. */
bool lookup_known(struct lookup *lookup, struct slice id, struct nat_profile **profile);

/*
 * Asks for the profile of a peer. True: the answer is known now, in `*profile` (NULL: unknown; no
 * reference is taken). False: it comes to the waiter, which must stay where it is until then,
 * perhaps before this returns. `caller` is the origin of the node whose services are preferred, and
 * which is asked too if the one asked first knows nothing.
 */
bool lookup_profile(struct lookup *lookup, struct slice id, uint32_t caller,
                    struct nat_profile **profile, struct lookup_waiter *waiter);

/* An entry of the embedded cache has changed (NULL: all): no copy of it stays. */
void lookup_forget(struct lookup *lookup, const struct slice *id);
/* Copies whose time is over go with the next lookup; this is for when there is none. */
void lookup_drop_expired(struct lookup *lookup);
/* Services came or went: lookups that wait for that go on. */
void lookup_note_services(struct lookup *lookup);
size_t lookup_in_flight(const struct lookup *lookup);

#endif
