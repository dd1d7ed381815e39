/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/lookup.h"

#include "base/table.h"
#include "macula/dht.h"
#include "macula/profile_term.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#define FUTURE_TOLERANCE 60 /* s: a profile from further ahead is not believed to be new */

struct cached_profile {
    struct nat_profile *profile;
    uint64_t until;
    UT_hash_handle hh;
    size_t id_len;
    uint8_t id[];
};

/* One peer that is being looked up. */
struct flight {
    struct lookup *lookup;
    struct ask *cache_ask; /* while they are under way */
    struct ask *dht_ask;
    bool cache_asked, dht_asked;
    uint64_t deadline;
    uv_timer_t timer; /* half-time, then the deadline */
    struct lookup_waiter *waiters;
    uint64_t mark;              /* of the services at the start */
    bool is_waiting;            /* for them to be settled for it */
    struct flight *prev, *next; /* as long as it is */
    UT_hash_handle hh;
    uint32_t caller;
    size_t id_len;
    uint8_t id[];
};

static uint64_t now(const struct lookup *lookup)
{
    return uv_now(lookup->services->node->loop);
}

void lookup_init(struct lookup *lookup, struct services *services, struct calls *calls,
                 struct profile_cache *embedded, uint64_t timeout_ms, uint64_t cache_ttl_ms)
{
    *lookup = (struct lookup){
        .services = services,
        .calls = calls,
        .embedded = embedded,
        .timeout_ms = timeout_ms,
        .cache_ttl_ms = cache_ttl_ms,
    };
}

/* --- the short-lived cache --- */

static void cached_remove(struct lookup *lookup, struct cached_profile *p)
{
    HASH_DEL(lookup->cached, p);
    lookup->cached_bytes -= nat_profile_source(p->profile).len;
    nat_profile_unref(p->profile);
    free(p);
}

/* All live equally long, and the table keeps them in the order in which they came. */
void lookup_drop_expired(struct lookup *lookup)
{
    while (lookup->cached && lookup->cached->until <= now(lookup))
        cached_remove(lookup, lookup->cached);
}

static struct cached_profile *cached_find(struct lookup *lookup, struct slice id)
{
    struct cached_profile *p;

    HASH_FIND(hh, lookup->cached, id.data, id.len, p);
    return p;
}

static void cached_add(struct lookup *lookup, struct slice id, struct nat_profile *profile)
{
    if (lookup->cache_ttl_ms == 0)
        return;
    lookup_drop_expired(lookup);
    lookup_forget(lookup, &id);
    while (lookup->cached && (HASH_COUNT(lookup->cached) >= LOOKUP_CACHE_MAX_ENTRIES ||
                              lookup->cached_bytes > LOOKUP_CACHE_MAX_BYTES))
        cached_remove(lookup, lookup->cached);
    struct cached_profile *p = malloc(sizeof *p + id.len);
    if (!p)
        return;
    p->profile = nat_profile_ref(profile);
    p->until = now(lookup) + lookup->cache_ttl_ms;
    p->id_len = id.len;
    if (id.len)
        memcpy(p->id, id.data, id.len);
    HASH_ADD(hh, lookup->cached, id, p->id_len, p);
    if (!table_has(p->hh)) {
        nat_profile_unref(p->profile);
        free(p);
        return;
    }
    lookup->cached_bytes += nat_profile_source(profile).len;
}

void lookup_forget(struct lookup *lookup, const struct slice *id)
{
    struct cached_profile *p;

    if (!id) {
        while (lookup->cached)
            cached_remove(lookup, lookup->cached);
    } else if ((p = cached_find(lookup, *id)) != NULL) {
        cached_remove(lookup, p);
    }
}

static struct nat_profile *find_embedded(struct lookup *lookup, struct slice id)
{
    bool stale;
    struct nat_profile *profile = profile_cache_find(lookup->embedded, id, &stale);

    if (profile)
        lookup->counters.from_embedded_cache++;
    else
        lookup->counters.unknown++;
    return profile;
}

/* --- flights --- */

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void flight_stop_waiting(struct flight *f)
{
    if (f->is_waiting)
        DL_DELETE(f->lookup->waiting, f);
    f->is_waiting = false;
}

static void flight_cancel_asks(struct flight *f)
{
    if (f->cache_ask)
        ask_cancel(f->cache_ask);
    if (f->dht_ask)
        ask_cancel(f->dht_ask);
    f->cache_ask = f->dht_ask = NULL;
}

/* Takes the flight out of the table and tells everybody who waits for it. */
static void flight_end(struct flight *f, struct nat_profile *profile)
{
    flight_stop_waiting(f);
    flight_cancel_asks(f);
    HASH_DEL(f->lookup->flights, f);
    uv_close((uv_handle_t *)&f->timer, on_timer_closed);
    while (f->waiters) {
        struct lookup_waiter *w = f->waiters;
        DL_DELETE(f->waiters, w);
        w->done(w, profile);
    }
}

static void flight_end_found(struct flight *f, struct nat_profile *profile)
{
    cached_add(f->lookup, (struct slice){f->id, f->id_len}, profile);
    flight_end(f, profile);
    nat_profile_unref(profile);
}

static void flight_advance(struct flight *f);

/* {ok, Profile, fresh | stale} or not_found */
static enum ask_verdict judge_cache(struct slice answer)
{
    struct cursor c = cursor_of(answer);

    if (cursor_is_atom(&c, "not_found"))
        return ASK_CALLER;
    return cursor_tuple(&c, 3) && cursor_is_atom(&c, "ok") ? ASK_ACCEPT : ASK_NEXT;
}

static int build_cache(void *ctx, struct buffer *b)
{
    struct flight *f = ctx;

    term_put_tuple(b, 2);
    term_put_atom(b, "get");
    term_put_binary(b, (struct slice){f->id, f->id_len});
    return 0;
}

static void on_cache_done(void *ctx, bool answered, struct slice answer)
{
    struct flight *f = ctx;
    struct cursor c = cursor_of(answer);
    struct nat_profile *profile = NULL;
    struct slice map;

    f->cache_ask = NULL;
    if (answered && cursor_tuple(&c, 3) && cursor_is_atom(&c, "ok") && cursor_term(&c, &map) &&
        profile_from_term(&profile, map) == 0) {
        f->lookup->counters.from_macula_nat_cache++;
        flight_end_found(f, profile);
        return;
    }
    flight_advance(f);
}

static int build_dht(void *ctx, struct buffer *b)
{
    struct flight *f = ctx;
    uint8_t key[DHT_KEY_SIZE];

    int error = dht_key(key, "nat.profile.", (struct slice){f->id, f->id_len}, (struct slice){0});
    if (error)
        return error;
    dht_put_find(b, key);
    return 0;
}

/* Anyone can write to the DHT: of what is usable and of this peer, the newest that is not from the
 * future. */
static struct nat_profile *newest_profile(struct flight *f, struct slice answer)
{
    struct dht_values values = {.left = 0};
    struct nat_profile *profile;
    int64_t best_date = INT64_MIN;
    struct slice map, best = {0};
    bool found = false;

    while (dht_next_value(answer, &values, &map)) {
        struct nat_profile_fields fields;
        if (profile_from_term(&profile, map) != 0)
            continue;
        nat_profile_get(profile, &fields);
        int64_t date =
            fields.detected_at > (int64_t)time(NULL) + FUTURE_TOLERANCE ? 0 : fields.detected_at;
        if (slice_equal(slice_of_nat(fields.node_id), (struct slice){f->id, f->id_len}) &&
            (!found || date > best_date)) {
            best = map;
            best_date = date;
            found = true;
        }
        nat_profile_unref(profile);
    }
    return found && profile_from_dht(&profile, best) == 0 ? profile : NULL;
}

static void on_dht_done(void *ctx, bool answered, struct slice answer)
{
    struct flight *f = ctx;
    struct nat_profile *profile = answered ? newest_profile(f, answer) : NULL;

    f->dht_ask = NULL;
    if (profile) {
        f->lookup->counters.from_dht++;
        flight_end_found(f, profile);
        return;
    }
    flight_advance(f);
}

static const struct ask_kind ask_cache = {SERVICE_CACHE, SERVICES_MAX_TRIES, build_cache,
                                          judge_cache, on_cache_done};
static const struct ask_kind ask_dht = {SERVICE_ROUTING, SERVICES_MAX_TRIES, build_dht, dht_judge,
                                        on_dht_done};

static uint64_t time_left(const struct flight *f)
{
    return f->deadline > now(f->lookup) ? f->deadline - now(f->lookup) : 0;
}

/* Asks the next source; false if no other can be asked. */
static bool ask_next_source(struct flight *f)
{
    struct lookup *l = f->lookup;

    if (!f->cache_asked) {
        f->cache_asked = true;
        f->cache_ask = ask_start(l->services, l->calls, &ask_cache, f->caller, time_left(f), f);
        if (f->cache_ask)
            return true;
        l->counters.overloaded += services_count(l->services, SERVICE_CACHE) > 0;
    }
    if (!f->dht_asked) {
        f->dht_asked = true;
        f->dht_ask = ask_start(l->services, l->calls, &ask_dht, f->caller, time_left(f), f);
        if (f->dht_ask)
            return true;
        l->counters.overloaded += services_count(l->services, SERVICE_ROUTING) > 0;
    }
    return false;
}

/* A source has had its say or its time, or there was none: on to the next, or to the end. */
static void flight_advance(struct flight *f)
{
    flight_stop_waiting(f);
    if (ask_next_source(f) || f->cache_ask || f->dht_ask)
        return;
    flight_end(f, find_embedded(f->lookup, (struct slice){f->id, f->id_len}));
}

static void on_flight_timer(uv_timer_t *timer)
{
    struct flight *f = timer->data;

    if (time_left(f) == 0) {
        flight_end(f, find_embedded(f->lookup, (struct slice){f->id, f->id_len}));
        return;
    }
    uv_timer_start(timer, on_flight_timer, time_left(f), 0);
    flight_advance(f);
}

/* It is known where to ask first: a node has a cache, or none has. */
static bool may_begin(const struct flight *f)
{
    const struct services *services = f->lookup->services;

    return services_count(services, SERVICE_CACHE) > 0 || services_are_settled(services, f->mark);
}

static struct flight *flight_new(struct lookup *lookup, struct slice id, uint32_t caller)
{
    bool is_one_too_many = HASH_COUNT(lookup->flights) >= LOOKUP_MAX_FLIGHTS;
    struct flight *f = is_one_too_many ? NULL : calloc(1, sizeof *f + id.len);

    if (!f)
        return NULL;
    f->id_len = id.len;
    if (id.len)
        memcpy(f->id, id.data, id.len);
    HASH_ADD(hh, lookup->flights, id, f->id_len, f);
    if (!table_has(f->hh)) {
        free(f);
        return NULL;
    }
    f->caller = caller;
    f->lookup = lookup;
    f->dht_asked = lookup->without_dht;
    f->deadline = now(lookup) + lookup->timeout_ms;
    f->mark = services_mark(lookup->services);
    uv_timer_init(lookup->services->node->loop, &f->timer);
    f->timer.data = f;
    uv_timer_start(&f->timer, on_flight_timer, lookup->timeout_ms / 2, 0);
    return f;
}

/* No node has a service, and none is still to say whether it has: the usual case without a macula
 * node. */
static bool has_no_source(const struct lookup *lookup)
{
    return services_are_settled(lookup->services, services_mark(lookup->services)) &&
           services_count(lookup->services, SERVICE_CACHE) == 0 &&
           (lookup->without_dht || services_count(lookup->services, SERVICE_ROUTING) == 0);
}

bool lookup_known(struct lookup *lookup, struct slice id, struct nat_profile **profile)
{
    lookup_drop_expired(lookup);
    struct cached_profile *cached = cached_find(lookup, id);

    if (cached) {
        lookup->counters.from_own_cache++;
        *profile = cached->profile;
        return true;
    }
    if (!has_no_source(lookup))
        return false;
    *profile = find_embedded(lookup, id);
    return true;
}

bool lookup_profile(struct lookup *lookup, struct slice id, uint32_t caller,
                    struct nat_profile **profile, struct lookup_waiter *waiter)
{
    struct flight *f = NULL;

    if (lookup_known(lookup, id, profile))
        return true;
    HASH_FIND(hh, lookup->flights, id.data, id.len, f);
    bool is_new = !f;
    if (is_new)
        f = flight_new(lookup, id, caller);
    if (!f) {
        lookup->counters.overloaded++;
        *profile = find_embedded(lookup, id);
        return true;
    }
    DL_APPEND(f->waiters, waiter);
    if (is_new && may_begin(f)) {
        flight_advance(f);
    } else if (is_new) {
        f->is_waiting = true;
        DL_APPEND(lookup->waiting, f);
    }
    return false;
}

/* Those that wait stand in the order of their marks. What follows from an answer may end others. */
void lookup_note_services(struct lookup *lookup)
{
    while (lookup->waiting && may_begin(lookup->waiting))
        flight_advance(lookup->waiting);
}

size_t lookup_in_flight(const struct lookup *lookup)
{
    return HASH_COUNT(lookup->flights);
}

void lookup_free(struct lookup *lookup)
{
    while (lookup->flights) {
        lookup->flights->waiters = NULL;
        flight_end(lookup->flights, NULL);
    }
    lookup_forget(lookup, NULL);
}
