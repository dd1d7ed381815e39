/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches from memory what will be used soon: in a table of a million sessions nothing is in any
 * cache. All that looks into uthash's tables for this is here.
 *
 * Inlined always: gcc drops a call of a function that does nothing but this, as one without effect.
 */
#ifndef NAT_PREFETCH_H
#define NAT_PREFETCH_H

#include "nat/nat_internal.h"

#define NAT_PREFETCH inline __attribute__((always_inline))
#define CACHE_LINE   64u /* bytes; nothing but speed depends on it */

/* The bucket for a hash in the table that `head` is the head of; NULL if there is no table yet. */
static inline const UT_hash_bucket *nat_bucket_of(const struct nat_session *head, uint32_t hash)
{
    const UT_hash_table *table = head ? head->hh.tbl : NULL;

    return table ? &table->buckets[hash & (table->num_buckets - 1)] : NULL;
}

static NAT_PREFETCH void nat_prefetch_session(const struct nat_session *session)
{
    const char *bytes = (const char *)session;

    if (!session)
        return;
    for (size_t at = 0; at < sizeof *session; at += CACHE_LINE)
        __builtin_prefetch(bytes + at, 1);
    __builtin_prefetch(bytes + sizeof *session - 1, 1);
}

/* What taking a session out of its table will touch. */
static NAT_PREFETCH void nat_prefetch_removal(const struct nat_session *session)
{
    __builtin_prefetch(nat_bucket_of(session, session->hh.hashv), 1);
    __builtin_prefetch(session->hh.next, 1);
    __builtin_prefetch(session->hh.hh_next, 1);
    __builtin_prefetch(session->hh.hh_prev, 1);
}

#endif
