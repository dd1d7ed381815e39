/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"
#include "nat/nat_prefetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void nat_config_init(struct nat_config *config)
{
    *config = (struct nat_config){
        .rules = NAT_RULES_DOCUMENTED,
        .max_punch_attempts = 3,
        .punch_timeout_ms = 5000,
        .coordination_delay_ms = 100,
        .session_ttl_s = 300,
        .max_sessions = 1000000,
        .max_profile_bytes = UINT64_C(512) << 20,
        .max_id_bytes = UINT64_C(512) << 20,
    };
}

int nat_coordinator_create(struct nat_coordinator **out, const struct nat_config *config)
{
    struct nat_coordinator *c;

    if (config->punch_timeout_ms == 0)
        return -EINVAL;
    c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->config = *config;
    for (int i = 0; i < NAT_TIMERS; i++)
        c->timers[i].place = NAT_PLACE_TIMER;
    c->sweep_at = NAT_NO_DEADLINE;
    nat_queue_init(&c->queue);
    *out = c;
    return 0;
}

static void drop_watchers(struct nat_coordinator *c, struct nat_session *session)
{
    c->counters.id_bytes -= session->watcher_count * sizeof *session->watchers;
    struct nat_watcher *watcher, *next;

    LL_FOREACH_SAFE (session->watchers, watcher, next)
        free(watcher);
    session->watchers = NULL;
    session->watcher_count = 0;
}

void nat_coordinator_free(struct nat_coordinator *c)
{
    if (!c)
        return;
    nat_queue_free(c);
    while (c->live) {
        drop_watchers(c, c->live);
        nat_session_drop(c, c->live);
    }
    while (c->ended)
        nat_session_drop(c, c->ended);
    for (int i = 0; i < NAT_TIMERS; i++)
        free(c->timers[i].entries);
    free(c);
}

void nat_options_init(const struct nat_coordinator *c, struct nat_options *options)
{
    *options = (struct nat_options){
        .max_punch_attempts = c->config.max_punch_attempts,
        .punch_timeout_ms = c->config.punch_timeout_ms,
        .allow_relay = true,
    };
}

enum nat_argument nat_request_check(const struct nat_request *request)
{
    struct nat_bytes a = request->initiator_id, b = request->target_id;

    if (a.len > NAT_ID_MAX)
        return NAT_ARGUMENT_INITIATOR_ID;
    if (b.len > NAT_ID_MAX)
        return NAT_ARGUMENT_TARGET_ID;
    if (a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0))
        return NAT_ARGUMENT_TARGET_ID;
    if (request->options.punch_timeout_ms == 0)
        return NAT_ARGUMENT_PUNCH_TIMEOUT;
    return NAT_ARGUMENT_NONE;
}

/* The next session to be evicted was last used when it came: fetches it until the next request
 * wants it. */
static NAT_PREFETCH void expect_eviction(const struct nat_coordinator *c)
{
    if (!c->pending)
        return;
    nat_prefetch_removal(c->pending);
    /* This one itself is there by now: it was asked for the last time. This is for the next time.
     */
    nat_prefetch_session(c->pending->pending_next);
}

static bool has_too_much(const struct nat_coordinator *c)
{
    return nat_live_count(c) > c->config.max_sessions ||
           c->counters.profile_bytes > c->config.max_profile_bytes ||
           c->counters.id_bytes > c->config.max_id_bytes;
}

/* Sessions that have ended are remembered only as long as there is room. */
static void forget_ended(struct nat_coordinator *c)
{
    while (c->ended && c->counters.id_bytes > c->config.max_id_bytes)
        nat_session_drop(c, c->ended);
}

/*
 * Drops pending sessions, the oldest first, until no more live than may. The caller of such a one
 * has long been answered, and most likely nobody will ever report on it.
 */
static void evict(struct nat_coordinator *c, const struct nat_session *newest)
{
    while (c->pending && c->pending != newest && has_too_much(c)) {
        if (nat_session_prepare(c, c->pending) < 0)
            return; /* there is one too many until the next request */
        nat_session_drop(c, c->pending);
        c->counters.evicted++;
        expect_eviction(c);
    }
}

/* Opens a session with the strategy, and sends a hole punch on its way. */
static int open_session(struct nat_coordinator *c, struct nat_now now,
                        const struct nat_request *request, const struct nat_bytes *id,
                        struct nat_peer *const peers[2], enum nat_strategy strategy,
                        struct nat_session **out)
{
    struct nat_session *session;
    int error;

    forget_ended(c);
    if (!c->pending && (nat_live_count(c) >= c->config.max_sessions || has_too_much(c)))
        return -ENOBUFS;
    error = nat_session_create(c, now, request, id, peers, &session);
    if (error < 0)
        return error;
    error = nat_session_prepare(c, session);
    if (error == 0 && strategy == NAT_HOLE_PUNCH)
        error = nat_session_let_punch(c, session);
    if (error == 0)
        error = nat_session_watch(c, session, &request->options);
    if (error < 0) {
        nat_session_drop(c, session);
        return error;
    }
    session->strategy = (uint8_t)strategy;
    nat_queue_notify(c, session);
    if (strategy == NAT_HOLE_PUNCH) {
        nat_machine_coordinate(c, now, session);
        nat_queue_notify(c, session);
    }
    if (c->sweep_at == NAT_NO_DEADLINE)
        c->sweep_at = now.monotonic_ms + NAT_SWEEP_MS;
    evict(c, session);
    *out = session;
    return 0;
}

static void unref_peers(struct nat_coordinator *c, struct nat_peer *const peers[2])
{
    nat_peer_unref(c, peers[NAT_INITIATOR]);
    nat_peer_unref(c, peers[NAT_TARGET]);
}

/* Takes references to both. */
static int get_peers(struct nat_coordinator *c, const struct nat_request *request,
                     struct nat_peer *peers[2])
{
    peers[NAT_INITIATOR] = nat_peer_get(c, request->initiator_id);
    peers[NAT_TARGET] = nat_peer_get(c, request->target_id);
    if (peers[NAT_INITIATOR] && peers[NAT_TARGET])
        return 0;
    unref_peers(c, peers);
    return -ENOMEM;
}

static int join(struct nat_coordinator *c, struct nat_session *session,
                const struct nat_request *request)
{
    int error = nat_session_prepare(c, session);

    if (error == 0)
        error = nat_session_watch(c, session, &request->options);
    if (error < 0)
        return error;
    c->counters.joins++;
    return 0;
}

static int request_new(struct nat_coordinator *c, struct nat_now now,
                       const struct nat_request *request, struct nat_peer *const peers[2],
                       struct nat_session **session)
{
    enum nat_strategy strategy =
        nat_strategy_choose(c->config.rules, request->initiator_profile, request->target_profile);
    int error;

    if (strategy == NAT_RELAY && !request->options.allow_relay) {
        c->counters.relay_refused++;
        return -ENETUNREACH;
    }
    error = open_session(c, now, request, NULL, peers, strategy, session);
    c->counters.overloaded += error == -ENOBUFS;
    return error;
}

int nat_request(struct nat_coordinator *c, struct nat_now now, const struct nat_request *request,
                struct nat_session_view *view)
{
    struct nat_session *session;
    struct nat_peer *peers[2];
    int error;

    if (nat_request_check(request) != NAT_ARGUMENT_NONE) {
        c->counters.requests_bad++;
        return -EINVAL;
    }
    if (get_peers(c, request, peers) < 0)
        return -ENOMEM;
    session = nat_pair_newest_punch(c, peers[NAT_TARGET], peers[NAT_INITIATOR]);
    if (session)
        error = join(c, session, request);
    else
        error = request_new(c, now, request, peers, &session);
    unref_peers(c, peers);
    if (error < 0)
        return error;
    nat_session_show(session, view);
    c->counters.answers[session->strategy]++;
    return 0;
}

static bool is_id(const struct nat_peer *peer, struct nat_bytes id)
{
    return peer->hh.keylen == id.len && (id.len == 0 || memcmp(peer->id, id.data, id.len) == 0);
}

static int restart(struct nat_coordinator *c, struct nat_now now, struct nat_session *session,
                   const struct nat_request *request)
{
    const struct nat_peer *initiator = session->peers[NAT_INITIATOR];
    const struct nat_peer *target = session->peers[NAT_TARGET];
    bool same = is_id(initiator, request->initiator_id) && is_id(target, request->target_id);
    bool swapped = is_id(initiator, request->target_id) && is_id(target, request->initiator_id);
    bool was_coordinating = session->state == NAT_COORDINATING;
    int error;

    if (!nat_session_is_live(session)) {
        c->counters.coordinates_ended++;
        return -ESTALE;
    }
    if (!same && !swapped) {
        c->counters.coordinates_foreign++;
        return -EACCES;
    }
    error = nat_session_prepare(c, session);
    if (error == 0)
        error = nat_session_let_punch(c, session);
    if (error == 0)
        error = nat_session_watch(c, session, &request->options);
    if (error < 0)
        return error;
    if (request->initiator_profile)
        nat_session_keep_profile(c, session, swapped ? NAT_TARGET : NAT_INITIATOR,
                                 request->initiator_profile);
    if (request->target_profile)
        nat_session_keep_profile(c, session, swapped ? NAT_INITIATOR : NAT_TARGET,
                                 request->target_profile);
    for (int i = 0; i < NAT_REPORTERS; i++)
        session->failures[i] = session->attempts;
    nat_machine_coordinate(c, now, session);
    if (!was_coordinating)
        nat_queue_notify(c, session);
    c->counters.coordinates_restarted++;
    return 0;
}

int nat_coordinate(struct nat_coordinator *c, struct nat_now now, const struct nat_request *request,
                   const struct nat_bytes *session_id)
{
    struct nat_session *session = NULL;
    struct nat_peer *peers[2];
    int error;

    if (nat_request_check(request) != NAT_ARGUMENT_NONE ||
        (session_id && (session_id->len == 0 || session_id->len > NAT_ID_MAX))) {
        c->counters.coordinates_bad++;
        return -EINVAL;
    }
    if (session_id)
        session = nat_session_lookup(c, *session_id);
    if (session)
        return restart(c, now, session, request);
    if (get_peers(c, request, peers) < 0)
        return -ENOMEM;
    error = open_session(c, now, request, session_id, peers, NAT_HOLE_PUNCH, &session);
    unref_peers(c, peers);
    c->counters.coordinates_made += error == 0;
    c->counters.coordinates_overloaded += error == -ENOBUFS;
    return error;
}

int nat_session_find(struct nat_coordinator *c, struct nat_bytes session_id,
                     struct nat_session_view *view)
{
    const struct nat_session *session = nat_session_lookup(c, session_id);

    if (!session)
        return -ENOENT;
    nat_session_show(session, view);
    return 0;
}

const struct nat_counters *nat_counters(const struct nat_coordinator *c)
{
    return &c->counters;
}
