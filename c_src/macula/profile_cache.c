/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/profile_cache.h"

#include "base/log.h"
#include "macula/counters_term.h"
#include "macula/profile_term.h"
#include "term/term_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

/* Every request looks here for two peers, and a chain is walked from one cache miss to the next. */
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 5U

struct profile_cache_entry {
    struct nat_profile *profile;
    uint64_t put_at; /* loop time, ms */
    uint64_t ttl;    /* s */
    struct profile_cache_entry *prev, *next;
    UT_hash_handle hh;
    size_t id_len;
    uint8_t id[];
};

static uint64_t now_ms(struct profile_cache *cache)
{
    return uv_now(cache->server.process.node->loop);
}

static uint64_t age_seconds(struct profile_cache *cache, const struct profile_cache_entry *e)
{
    return (now_ms(cache) - e->put_at) / 1000;
}

static void entry_remove(struct profile_cache *cache, struct profile_cache_entry *e)
{
    HASH_DEL(cache->by_id, e);
    DL_DELETE(cache->oldest, e);
    cache->count--;
    cache->bytes -= nat_profile_source(e->profile).len;
    nat_profile_unref(e->profile);
    free(e);
}

static struct profile_cache_entry *entry_find(struct profile_cache *cache, struct slice id)
{
    struct profile_cache_entry *e;

    HASH_FIND(hh, cache->by_id, id.data, id.len, e);
    return e;
}

static void note_change(struct profile_cache *cache, const struct slice *id)
{
    if (cache->changed)
        cache->changed(cache->changed_ctx, id);
}

struct nat_profile *profile_cache_find(struct profile_cache *cache, struct slice id, bool *stale)
{
    struct profile_cache_entry *e = entry_find(cache, id);

    if (!e || age_seconds(cache, e) > e->ttl + PROFILE_CACHE_STALE_SECONDS)
        return NULL;
    *stale = age_seconds(cache, e) > e->ttl;
    return e->profile;
}

void profile_cache_sweep(struct profile_cache *cache)
{
    struct profile_cache_entry *e, *next;

    DL_FOREACH_SAFE (cache->oldest, e, next)
        if (age_seconds(cache, e) > e->ttl + PROFILE_CACHE_STALE_SECONDS)
            entry_remove(cache, e);
}

static bool is_full(const struct profile_cache *cache)
{
    return cache->count >= PROFILE_CACHE_MAX_ENTRIES || cache->bytes > PROFILE_CACHE_MAX_BYTES;
}

static int put(struct profile_cache *cache, struct slice id, struct slice map, int64_t ttl)
{
    struct nat_profile *profile = NULL;
    struct cursor c = cursor_of(map);
    struct buffer dated;
    int pairs;

    if (!cursor_map(&c, &pairs))
        return -EINVAL;
    buffer_init(&dated);
    profile_put_dated(&dated, map, ttl, (int64_t)time(NULL));
    int error = dated.overflow ? -ENOMEM : profile_from_term(&profile, buffer_slice(&dated));
    buffer_free(&dated);
    if (error)
        return error;
    struct profile_cache_entry *old = entry_find(cache, id);
    struct profile_cache_entry *e = calloc(1, sizeof *e + id.len);
    if (!e) {
        nat_profile_unref(profile);
        return -ENOMEM;
    }
    e->profile = profile;
    e->put_at = now_ms(cache);
    e->ttl = (uint64_t)ttl;
    e->id_len = id.len;
    memcpy(e->id, id.data, id.len);
    HASH_ADD(hh, cache->by_id, id, e->id_len, e);
    if (!table_has(e->hh)) {
        nat_profile_unref(profile);
        free(e);
        return -ENOMEM;
    }
    /* The old one goes when the new one is there for sure. */
    if (old)
        entry_remove(cache, old);
    while (cache->oldest && is_full(cache)) {
        entry_remove(cache, cache->oldest);
        cache->stats.evictions++;
    }
    DL_APPEND(cache->oldest, e);
    cache->count++;
    cache->bytes += nat_profile_source(profile).len;
    note_change(cache, &id);
    return 0;
}

/* --- the process --- */

static void reply_get(struct profile_cache *cache, const struct caller *caller,
                      const struct slice *id)
{
    bool stale;
    struct nat_profile *profile = id ? profile_cache_find(cache, *id, &stale) : NULL;
    struct reply reply;

    if (!profile) {
        cache->stats.misses++;
        reply_atom(caller, "not_found");
        return;
    }
    cache->stats.hits++;
    if (!reply_open(&reply, caller))
        return;
    term_put_tuple(reply.out, 3);
    term_put_atom(reply.out, "ok");
    profile_put(reply.out, profile);
    term_put_atom(reply.out, stale ? "stale" : "fresh");
    reply_close(&reply);
}

static void put_stats(struct gen_server *gs, struct buffer *b)
{
    struct profile_cache *cache = (struct profile_cache *)gs;
    const struct profile_cache_stats *stats = &cache->stats;
    uint64_t total = stats->hits + stats->misses;
    struct counters_term counters;
    struct term_map map;

    term_open_map(&map, b);
    counters_term_open(&counters, &map);
    counters_show(&counters.visitor, "size", GAUGE, cache->count, "Profiles in the embedded cache");
    profile_cache_stats_visit(stats, &counters.visitor);
    counters_term_close(&counters);
    term_put_key(&map, "max_entries");
    term_put_int(b, PROFILE_CACHE_MAX_ENTRIES);
    term_put_key(&map, "hit_rate");
    term_put_float(b, total ? (double)stats->hits / (double)total : 0.0);
    term_close_map(&map);
}

static void on_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    struct profile_cache *cache = (struct profile_cache *)gs;
    struct cursor c = cursor_of(request);
    struct slice id;
    struct reply reply;

    if (cursor_is_atom(&c, "stats")) {
        if (!reply_open(&reply, caller))
            return;
        put_stats(gs, reply.out);
        reply_close(&reply);
    } else if (cursor_tuple(&c, 2) && cursor_is_atom(&c, "get")) {
        /* What is no binary is as little in the cache as an id that is not there. */
        reply_get(cache, caller, cursor_binary(&c, &id) ? &id : NULL);
    } else {
        reply_error(caller, "unknown_request");
    }
}

static void clear(struct profile_cache *cache)
{
    while (cache->oldest)
        entry_remove(cache, cache->oldest);
    cache->stats = (struct profile_cache_stats){0};
    note_change(cache, NULL);
}

static void on_cast(struct gen_server *gs, struct connection *via, struct slice request)
{
    struct profile_cache *cache = (struct profile_cache *)gs;
    struct cursor c = cursor_of(request);
    struct slice id, map;
    int64_t ttl;
    int arity;

    if (cursor_is_atom(&c, "clear")) {
        clear(cache);
        return;
    }
    if (!cursor_any_tuple(&c, &arity))
        return;
    if (arity == 2 && cursor_is_atom(&c, "invalidate") && cursor_binary(&c, &id)) {
        struct profile_cache_entry *e = entry_find(cache, id);
        if (e)
            entry_remove(cache, e);
        note_change(cache, &id);
    } else if (arity == 4 && cursor_is_atom(&c, "put")) {
        bool ok = cursor_binary(&c, &id) && id.len <= NAT_ID_MAX && cursor_term(&c, &map) &&
                  cursor_int(&c, &ttl) && ttl > 0 && ttl <= UINT32_MAX;
        int error = ok ? put(cache, id, map, ttl) : -EINVAL;
        if (error) {
            cache->counters.cache_puts_refused++;
            log_event(LOG_WARNING, "cache", via ? via->name : gs->process.node->name,
                      error == -ENOMEM
                          ? "no memory for a put, which was ignored"
                          : "a put that is not an id, a profile and a TTL was ignored");
        }
    }
}

static void on_info(struct gen_server *gs, struct connection *via, struct slice message)
{
    (void)gs;
    (void)via;
    (void)message;
}

static const struct gen_server_callbacks callbacks = {
    .call = on_call,
    .cast = on_cast,
    .info = on_info,
    .put_state = put_stats,
};

int profile_cache_start(struct profile_cache *cache, struct node *node)
{
    memset(cache, 0, sizeof *cache);
    return gen_server_start(&cache->server, node, "macula_nat_cache", &callbacks);
}

void profile_cache_free(struct profile_cache *cache)
{
    cache->changed = NULL;
    clear(cache);
}
