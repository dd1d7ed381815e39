/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/coordinator.h"

#include "macula/profile_term.h"
#include "macula/session_term.h"
#include "nat/nat_expect.h"
#include "term/term_write.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <openssl/rand.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#define TICK_SESSIONS    100     /* at a time, then the clock is looked at */
#define TICK_NS          1000000 /* of a turn for what is due */
#define NEVER            UINT64_MAX
#define NS_PER_MS        1000000
#define CLOCK_READING_NS 1000 /* from reading one clock to reading the next, most often */
#define NS_PER_S         INT64_C(1000000000)
#define CROWD_MIN        10000 /* sessions whose memory is worth looking for */

/*
 * The clock of the timers, set so at the start that it turns to a new millisecond together with
 * wall time: a punch is executing as soon as the time that its peers were told has come.
 */
static uint64_t aligned_ns(const struct coordinator *co)
{
    return uv_hrtime() + co->phase_ns;
}

static int64_t wall_ns(void)
{
    struct timespec wall;

    clock_gettime(CLOCK_REALTIME, &wall);
    return (int64_t)wall.tv_sec * NS_PER_S + wall.tv_nsec;
}

struct nat_now coordinator_now(const struct coordinator *co)
{
    int64_t wall = wall_ns();
    uint64_t monotonic = aligned_ns(co);
    /* Wall time may have been adjusted since. What is told is never done before its millisecond. */
    bool is_ahead = monotonic % NS_PER_MS > (uint64_t)wall % NS_PER_MS + CLOCK_READING_NS;

    return (struct nat_now){
        .monotonic_ms = monotonic / NS_PER_MS + is_ahead,
        .unix_ms = wall / NS_PER_MS,
    };
}

int coordinator_draw(struct coordinator *co, uint8_t out[static NAT_RANDOM_LEN])
{
    if (co->random_left < NAT_RANDOM_LEN) {
        if (RAND_bytes(co->random, sizeof co->random) != 1)
            return -EIO;
        co->random_left = sizeof co->random;
    }
    co->random_left -= NAT_RANDOM_LEN;
    memcpy(out, co->random + co->random_left, NAT_RANDOM_LEN);
    if (co->random_left >= (size_t)2 * NAT_RANDOM_LEN)
        nat_expect(co->nat, co->random + co->random_left - (size_t)2 * NAT_RANDOM_LEN);
    return 0;
}

/* --- actions --- */

static void set_timer(struct coordinator *co);

/*
 * The allocator gives freed memory back by itself only from its end. When most sessions of a crowd
 * are gone it is told to look everywhere, which takes some ten milliseconds for a million; and once
 * more when the last one has gone, as hash tables keep their size until then.
 */
static void give_memory_back(struct coordinator *co)
{
    const struct nat_counters *n = nat_counters(co->nat);
    uint64_t count = n->ended;

    for (int i = 0; i < NAT_LIVE_STATES; i++)
        count += n->live[i];
    if (count > co->crowd)
        co->crowd = count;
    bool most_are_gone = co->crowd >= CROWD_MIN && count <= co->crowd / 8;
    if (!most_are_gone && !(co->some_stayed && count == 0))
        return;
    co->crowd = count;
    co->some_stayed = count > 0;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

static void take_actions(struct coordinator *co)
{
    struct nat_action action;

    while (nat_next_action(co->nat, &action)) {
        switch (action.type) {
        case NAT_COORDINATE:
            delivery_start(&co->deliveries, &action);
            break;
        case NAT_NOTIFY:
            notifier_take(&co->notifier, &action);
            break;
        case NAT_RELEASE_WATCHER:
            watcher_give_back(&co->watchers, action.watcher);
            break;
        }
    }
}

/*
 * As long as this took, nothing more is due: sessions that retry again and again have at most half
 * of the time. What had waited for the end of a suspension came before what became due meanwhile.
 */
static void take_due(struct coordinator *co)
{
    uint64_t start = aligned_ns(co), end;
    bool is_more;

    if (co->server.is_suspended || co->server.deferred || start < co->rest_until_ns ||
        nat_next_deadline(co->nat) > start / NS_PER_MS)
        return;
    do {
        is_more = nat_tick(co->nat, coordinator_now(co), TICK_SESSIONS);
        take_actions(co);
        end = aligned_ns(co);
    } while (is_more && end - start < TICK_NS);
    co->rest_until_ns = end + (end - start);
    give_memory_back(co);
    set_timer(co);
}

/* In every turn, as under load the loop's own timers lag behind by a millisecond or two. */
static void on_turn(uv_check_t *turn)
{
    struct coordinator *co = turn->data;

    take_due(co);
    listings_go_on(co);
    notifier_go_on(&co->notifier);
}

static void on_timer(uv_timer_t *timer)
{
    struct coordinator *co = timer->data;

    co->timer_at = NEVER;
    take_due(co);
    set_timer(co);
}

static void set_timer(struct coordinator *co)
{
    uint64_t at = nat_next_deadline(co->nat);
    uint64_t rested = co->rest_until_ns / NS_PER_MS + 1;

    if (at < rested)
        at = rested;
    if (co->server.is_suspended || at >= co->timer_at)
        return;
    co->timer_at = at;
    /* Never 0: libuv would run it again at once, and nobody else would get a turn. */
    uint64_t now = aligned_ns(co) / NS_PER_MS;
    uv_timer_start(&co->timer, on_timer, at > now ? at - now : 1, 0);
}

void coordinator_act(struct coordinator *co)
{
    take_actions(co);
    set_timer(co);
}

/* --- the process --- */

static void reply_unknown(struct coordinator *co, const struct caller *caller)
{
    co->counters.unknown_requests++;
    reply_error(caller, "unknown_request");
}

static void attach(struct coordinator *co, const struct caller *caller, struct slice id)
{
    /* Nobody speaks for a process of another node. */
    if (caller->is_foreign) {
        co->counters.foreign_mailboxes++;
        reply_error(caller, "foreign");
        return;
    }
    int error = mailbox_attach(&co->mailboxes, id, &caller->pid);
    if (error) {
        reply_error(caller, "overloaded");
        return;
    }
    reply_atom(caller, "ok");
    clocks_measure(&co->clocks, caller->pid.node);
}

static void detach(struct coordinator *co, const struct caller *caller, struct slice id)
{
    if (caller->is_foreign)
        co->counters.foreign_mailboxes++;
    else
        mailbox_detach(&co->mailboxes, id, &caller->pid);
    reply_atom(caller, "ok");
}

/* {attach_peer, PeerId} and {detach_peer, PeerId}: about the process that calls. */
static bool take_mailbox_call(struct coordinator *co, const struct caller *caller, struct cursor c)
{
    bool attaches = cursor_is_atom(&c, "attach_peer");
    struct slice id;

    if (!attaches && !cursor_is_atom(&c, "detach_peer"))
        return false;
    if (!cursor_binary(&c, &id) || id.len > NAT_ID_MAX)
        reply_bad_argument(co, caller, slice_of("peer_id"));
    else if (attaches)
        attach(co, caller, id);
    else
        detach(co, caller, id);
    return true;
}

static void on_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    struct coordinator *co = (struct coordinator *)gs;
    struct cursor c = cursor_of(request);
    int arity = 0;

    if (cursor_is_atom(&c, "get_pending")) {
        listing_start(co, caller);
        return;
    }
    if (cursor_any_tuple(&c, &arity)) {
        if (arity == 4 && cursor_is_atom(&c, "request_connection")) {
            request_connection(co, caller, c);
            return;
        }
        if (arity == 2 && take_mailbox_call(co, caller, c))
            return;
    }
    reply_unknown(co, caller);
}

static void on_cast(struct gen_server *gs, struct slice request)
{
    struct coordinator *co = (struct coordinator *)gs;
    struct cursor c = cursor_of(request);

    if (cursor_tuple(&c, 4)) {
        if (cursor_is_atom(&c, "coordinate_punch")) {
            request_coordinate(co, c);
            return;
        }
        if (cursor_is_atom(&c, "report_result")) {
            request_report(co, c);
            return;
        }
    }
    co->counters.ignored_messages++;
}

static void on_info(struct gen_server *gs, struct slice message)
{
    struct coordinator *co = (struct coordinator *)gs;
    (void)message;

    co->counters.ignored_messages++;
}

static void on_suspended(struct gen_server *gs, bool suspended)
{
    struct coordinator *co = (struct coordinator *)gs;

    if (suspended)
        return;
    set_timer(co);
    requests_resume(co);
}

static void put_state(struct gen_server *gs, struct buffer *b)
{
    status_put((struct coordinator *)gs, b);
}

static const struct gen_server_callbacks callbacks = {
    .call = on_call,
    .cast = on_cast,
    .info = on_info,
    .put_state = put_state,
    .suspended = on_suspended,
};

static void on_services_changed(void *ctx)
{
    lookup_note_services(&((struct coordinator *)ctx)->lookup);
}

static void on_cache_changed(void *ctx, const struct slice *id)
{
    lookup_forget(&((struct coordinator *)ctx)->lookup, id);
}

void coordinator_take_up(struct coordinator *co, struct connection *c)
{
    services_take_up(&co->services, c);
}

void coordinator_take_down(struct coordinator *co, struct connection *c)
{
    services_take_down(&co->services, c);
    notifier_take_down(&co->notifier, c);
    watches_take_connection_down(c);
    clocks_take_down(&co->clocks, slice_of(c->name));
}

void coordinator_options_init(struct coordinator_options *options)
{
    *options = (struct coordinator_options){
        .lookup_timeout_ms = 2000,
        .profile_cache_ttl_ms = 2000,
    };
    nat_config_init(&options->nat);
}

int coordinator_start(struct coordinator *co, struct node *node, struct profile_cache *cache,
                      const struct coordinator_options *options)
{
    memset(co, 0, sizeof *co);
    co->node = node;
    co->cache = cache;
    co->options = *options;
    co->timer_at = NEVER;
    if (RAND_bytes(co->options.nat.hash_key, sizeof co->options.nat.hash_key) != 1)
        return -EIO;
    int error = nat_coordinator_create(&co->nat, &co->options.nat);
    if (error)
        return error;
    error = gen_server_start(&co->server, node, "macula_nat_coordinator", &callbacks);
    if (error)
        return error;
    watches_init(&co->watches, node, &co->server.process);
    error = calls_start(&co->calls, node, &co->watches);
    if (error)
        return error;
    services_init(&co->services, node, &co->watches, options->preferred_nodes,
                  options->preferred_count);
    co->services.changed = on_services_changed;
    co->services.ctx = co;
    lookup_init(&co->lookup, &co->services, &co->calls, cache, options->lookup_timeout_ms,
                options->profile_cache_ttl_ms);
    co->lookup.without_dht = options->is_compatible;
    cache->changed = on_cache_changed;
    cache->changed_ctx = co;
    mailboxes_init(&co->mailboxes, node, &co->watches);
    clocks_init(&co->clocks, node, &co->calls);
    notifier_init(&co->notifier, node, &co->watchers);
    deliveries_init(&co->deliveries, &co->services, &co->calls, &co->mailboxes, &co->clocks,
                    co->nat);
    co->deliveries.reads_no_dht = options->is_compatible;
    co->phase_ns = ((uint64_t)wall_ns() - uv_hrtime()) % NS_PER_MS;
    uv_timer_init(node->loop, &co->timer);
    co->timer.data = co;
    uv_check_init(node->loop, &co->turn);
    co->turn.data = co;
    uv_check_start(&co->turn, on_turn);
    uv_idle_init(node->loop, &co->listing_turn);
    co->listing_turn.data = co;
    set_timer(co);
    return 0;
}

void coordinator_close(struct coordinator *co)
{
    uv_close((uv_handle_t *)&co->timer, NULL);
    uv_close((uv_handle_t *)&co->turn, NULL);
    uv_close((uv_handle_t *)&co->listing_turn, NULL);
    notifier_close(&co->notifier);
    deliveries_free(&co->deliveries);
    clocks_free(&co->clocks);
    requests_free(co);
    services_free(&co->services);
}

void coordinator_free(struct coordinator *co)
{
    listings_free(co);
    notifier_free(&co->notifier);
    mailboxes_free(&co->mailboxes);
    nat_coordinator_free(co->nat);
    watchers_free(&co->watchers);
}
