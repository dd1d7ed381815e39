/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/coordinator.h"

#include "macula/counters_term.h"
#include "macula/machine_counters.h"

#include <stddef.h>
#include <string.h>

/* --- calls and casts --- */

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
static bool handle_mailbox_call(struct coordinator *co, const struct caller *caller,
                                struct cursor c)
{
    bool attaches = cursor_is_atom(&c, "attach_peer");
    struct slice id;

    if (!attaches && !cursor_is_atom(&c, "detach_peer"))
        return false;
    if (!cursor_binary(&c, &id) || id.len > NAT_ID_MAX)
        request_refuse(&co->requests, caller, slice_of("peer_id"));
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
        listing_start(&co->listings, caller);
        return;
    }
    if (cursor_any_tuple(&c, &arity)) {
        if (arity == 4 && cursor_is_atom(&c, "request_connection")) {
            request_connection(&co->requests, caller, c);
            return;
        }
        if (arity == 2 && handle_mailbox_call(co, caller, c))
            return;
    }
    co->counters.unknown_requests++;
    reply_error(caller, "unknown_request");
}

static void on_cast(struct gen_server *gs, struct connection *via, struct slice request)
{
    struct coordinator *co = (struct coordinator *)gs;
    struct cursor c = cursor_of(request);

    if (cursor_tuple(&c, 4)) {
        if (cursor_is_atom(&c, "coordinate_punch")) {
            request_coordinate(&co->requests, via, c);
            return;
        }
        if (cursor_is_atom(&c, "report_result")) {
            request_report(&co->requests, via, c);
            return;
        }
    }
    co->counters.ignored_messages++;
}

static void on_info(struct gen_server *gs, struct connection *via, struct slice message)
{
    struct coordinator *co = (struct coordinator *)gs;
    (void)via;
    (void)message;

    co->counters.ignored_messages++;
}

/* --- suspension --- */

static void on_suspended(struct gen_server *gs, bool suspended)
{
    struct coordinator *co = (struct coordinator *)gs;

    if (suspended) {
        driver_pause(&co->driver);
        requests_pause(&co->requests);
    } else {
        requests_resume(&co->requests);
    }
}

/* What waited for the end of a suspension came before what became due meanwhile. */
static void on_caught_up(struct gen_server *gs)
{
    driver_resume(&((struct coordinator *)gs)->driver);
}

/* --- counters and state --- */

static void visit_waiting(const struct coordinator *co, const struct counters_visitor *v)
{
    const struct nat_counters *n = nat_counters(co->driver.nat);

    counters_show(v, "punch_time", GAUGE, n->live[NAT_COORDINATING],
                  "Sessions that wait for their punch time");
    counters_show(v, "results", GAUGE, n->live[NAT_EXECUTING],
                  "Sessions that wait for the results of their peers");
    counters_show(v, "lookups", GAUGE, lookup_in_flight(&co->lookup),
                  "Peers whose profiles are being looked up");
    counters_show(v, "requests", GAUGE, co->requests.waiting_count,
                  "Requests that wait for profiles");
    counters_show(v, "deliveries", GAUGE, co->deliveries.count,
                  "Deliveries of PUNCH_COORDINATE under way");
    counters_show(v, "calls", GAUGE, co->calls.in_flight, "Calls to other nodes without an answer");
    counters_show(v, "notifications", GAUGE, co->notifier.count,
                  "Notifications that wait for their turn");
}

void coordinator_visit_counters(const struct coordinator *co, const struct counters_visitor *v)
{
    counters_group(v, "services");
    services_visit(&co->services, v);
    counters_show(v, "mailboxes", GAUGE, mailboxes_count(&co->mailboxes), "Peers with a mailbox");
    counters_group(v, "lookups");
    lookup_counters_visit(&co->lookup.counters, v);
    counters_group(v, "calls");
    call_counters_visit(&co->calls.counters, v);
    counters_group(v, "sessions");
    machine_sessions_visit(nat_counters(co->driver.nat), v);
    counters_group(v, "waiting_for");
    visit_waiting(co, v);
    counters_group(v, "counters");
    request_counters_visit(&co->requests.counters, v);
    machine_counters_visit(nat_counters(co->driver.nat), v);
    delivery_counters_visit(&co->deliveries.counters, v);
    notifier_counters_visit(&co->notifier.counters, v);
    listing_counters_visit(&co->listings.counters, v);
    profile_cache_counters_visit(&co->cache->counters, v);
    coordinator_counters_visit(&co->counters, v);
    counters_group(v, "network");
    counters_show(v, "connections", GAUGE, HASH_COUNT(co->node->by_name), "Nodes connected");
    node_counters_visit(&co->node->counters, v);
}

static void put_state(struct gen_server *gs, struct buffer *b)
{
    const struct coordinator *co = (const struct coordinator *)gs;
    struct counters_term counters;
    struct term_map map;

    term_open_map(&map, b);
    coordinator_options_put(&co->options, &map);
    term_put_key(&map, "clocks");
    clocks_put(&co->clocks, b);
    counters_term_open(&counters, &map);
    coordinator_visit_counters(co, &counters.visitor);
    counters_term_close(&counters);
    term_close_map(&map);
}

/* --- the parts --- */

static const struct gen_server_callbacks callbacks = {
    .call = on_call,
    .cast = on_cast,
    .info = on_info,
    .put_state = put_state,
    .suspended = on_suspended,
    .caught_up = on_caught_up,
};

static void on_services_changed(void *ctx)
{
    lookup_note_services(&((struct coordinator *)ctx)->lookup);
}

static void on_cache_changed(void *ctx, const struct slice *id)
{
    lookup_forget(&((struct coordinator *)ctx)->lookup, id);
}

static void on_turn(uv_check_t *turn)
{
    struct coordinator *co = turn->data;

    driver_tick(&co->driver);
    listings_go_on(&co->listings);
    notifier_go_on(&co->notifier);
}

static struct coordinator *coordinator_of(struct node_observer *observer)
{
    return (struct coordinator *)((char *)observer - offsetof(struct coordinator, observer));
}

static void on_node_up(struct node_observer *observer, struct connection *c)
{
    services_node_up(&coordinator_of(observer)->services, c);
}

static void on_node_down(struct node_observer *observer, struct connection *c)
{
    struct coordinator *co = coordinator_of(observer);

    services_node_down(&co->services, c);
    notifier_node_down(&co->notifier, c);
    clocks_node_down(&co->clocks, slice_of(c->name));
}

/* The parts that know other nodes. */
static void init_network(struct coordinator *co)
{
    const struct coordinator_options *o = &co->options;

    services_init(&co->services, &co->server.process, o->preferred_nodes, o->preferred_count);
    co->services.changed = on_services_changed;
    co->services.ctx = co;
    lookup_init(&co->lookup, &co->services, &co->calls, co->cache, o->lookup_timeout_ms,
                o->profile_cache_ttl_ms);
    co->lookup.without_dht = o->is_compatible;
    co->cache->changed = on_cache_changed;
    co->cache->changed_ctx = co;
    mailboxes_init(&co->mailboxes, &co->server.process);
    clocks_init(&co->clocks, co->node, &co->calls);
    notifier_init(&co->notifier, co->node, &co->subscribers);
    deliveries_init(&co->deliveries, &co->services, &co->calls, &co->mailboxes, &co->clocks,
                    co->driver.nat);
    co->deliveries.reads_no_dht = o->is_compatible;
}

int coordinator_start(struct coordinator *co, struct node *node, struct profile_cache *cache,
                      const struct coordinator_options *options)
{
    memset(co, 0, sizeof *co);
    co->node = node;
    co->cache = cache;
    co->options = *options;
    int error = driver_start(&co->driver, node->loop, &options->nat, &co->deliveries, &co->notifier,
                             &co->subscribers);
    if (error)
        return error;
    error = gen_server_start(&co->server, node, "macula_nat_coordinator", &callbacks);
    if (error) {
        driver_close(&co->driver);
        return error;
    }
    error = calls_start(&co->calls, node);
    if (error) {
        gen_server_stop(&co->server, "shutdown");
        driver_close(&co->driver);
        return error;
    }
    init_network(co);
    requests_init(&co->requests, node, &co->driver, &co->lookup);
    listings_init(&co->listings, node, co->driver.nat);
    uv_check_init(node->loop, &co->turn);
    co->turn.data = co;
    uv_check_start(&co->turn, on_turn);
    co->observer = (struct node_observer){.on_up = on_node_up, .on_down = on_node_down};
    node_observe(node, &co->observer);
    return 0;
}

void coordinator_close(struct coordinator *co)
{
    node_stop_observing(co->node, &co->observer);
    driver_close(&co->driver);
    uv_close((uv_handle_t *)&co->turn, NULL);
    listings_close(&co->listings);
    notifier_close(&co->notifier);
    deliveries_free(&co->deliveries);
    clocks_free(&co->clocks);
    lookup_free(&co->lookup);
    requests_free(&co->requests);
    services_free(&co->services);
    calls_stop(&co->calls);
}

void coordinator_free(struct coordinator *co)
{
    listings_free(&co->listings);
    notifier_free(&co->notifier);
    mailboxes_free(&co->mailboxes);
    driver_free(&co->driver);
    subscribers_free(&co->subscribers);
}
