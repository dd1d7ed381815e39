/* SPDX-License-Identifier: Apache-2.0 */
#include "nat_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define FIRST_PORT   5000u /* local port of a peer's socket */
#define SOCKETS      8u
#define COORDINATION 100u
#define START_MS     1000u

static const struct nat_address public_host = {0x0afe0001, 3478};

struct peer {
    struct sim_peer_setup setup;
    struct nat_box box;
    struct nat_profile *profile;
    char id[24];
    uint16_t sockets[SOCKETS]; /* open local ports, the first one for the whole session */
    size_t socket_count;
    /* the round that is on */
    bool in_round;
    uint32_t attempt, round; /* `round` tells a late event from one of this round */
    uint16_t from;           /* local port that it fires from */
    struct nat_address to[NAT_PORTS_MAX];
    size_t to_count;
    bool heard, confirmed;
};

struct pair {
    UT_hash_handle hh; /* by number */
    uint32_t number;
    struct peer peers[2]; /* by role */
    char session_id[32];
    size_t session_id_len;
    uint32_t events; /* that are on their way */
    bool punch;
    uint64_t asked_at;
    struct sim_result result;
    sim_done done;
    void *context;
};

enum event_kind {
    REQUEST,
    TOLD,    /* PUNCH_COORDINATE has arrived */
    FIRE,    /* a shot is due */
    OVER,    /* patience with the round is */
    PACKET,  /* a packet is at the box of `role` */
    REPORTED /* a report is at the coordinator */
};

struct event {
    uint64_t at, number;
    enum event_kind kind;
    struct pair *pair;
    int role;
    uint32_t round;
    struct nat_address from; /* PACKET */
    uint16_t external;
    bool answer;
    enum nat_report report; /* REPORTED */
    /* TOLD */
    uint32_t attempt;
    uint16_t ports[NAT_PORTS_MAX], local_port;
    size_t port_count;
    int64_t punch_time;
};

struct sim {
    struct nat_coordinator *nat;
    uint64_t now;
    uint32_t one_way_ms;
    uint32_t next_pair;
    uint64_t next_event;
    struct pair *pairs;
    struct event *events; /* a heap, the earliest on top */
    size_t event_count, event_capacity;
};

static struct nat_now clock_of(const struct sim *sim)
{
    return (struct nat_now){sim->now, (int64_t)sim->now};
}

/* ---- Events ---- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->number < b->number;
}

static void event_add(struct sim *sim, struct event event)
{
    size_t i = sim->event_count++;

    if (i == sim->event_capacity) {
        sim->event_capacity = i > 0 ? 2 * i : 256;
        sim->events = realloc(sim->events, sim->event_capacity * sizeof *sim->events);
        if (sim->events == NULL)
            abort();
    }
    event.number = sim->next_event++;
    event.pair->events++;
    for (; i > 0 && is_before(&event, &sim->events[(i - 1) / 2]); i = (i - 1) / 2)
        sim->events[i] = sim->events[(i - 1) / 2];
    sim->events[i] = event;
}

static struct event event_take(struct sim *sim)
{
    struct event first = sim->events[0], last = sim->events[--sim->event_count];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < sim->event_count) {
        if (child + 1 < sim->event_count && is_before(&sim->events[child + 1], &sim->events[child]))
            child++;
        if (!is_before(&sim->events[child], &last))
            break;
        sim->events[i] = sim->events[child];
        i = child;
    }
    sim->events[i] = last;
    return first;
}

/* ---- Peers ---- */

static void send_packet(struct sim *sim, struct pair *pair, int role, uint16_t internal,
                        struct nat_address to, bool answer)
{
    struct nat_box *box = &pair->peers[role].box;
    uint16_t external = nat_box_send(box, sim->now, internal, &to);

    if (to.ip != pair->peers[!role].box.ip)
        return;
    event_add(sim, (struct event){
                       .at = sim->now + sim->one_way_ms,
                       .kind = PACKET,
                       .pair = pair,
                       .role = !role,
                       .from = {box->ip, external},
                       .external = to.port,
                       .answer = answer,
                   });
}

static void report(struct sim *sim, struct pair *pair, int role, enum nat_report value)
{
    event_add(sim, (struct event){.at = sim->now + sim->one_way_ms,
                                  .kind = REPORTED,
                                  .pair = pair,
                                  .role = role,
                                  .report = value});
}

static void round_end(struct sim *sim, struct pair *pair, int role)
{
    struct peer *peer = &pair->peers[role];

    if (!peer->in_round)
        return;
    peer->in_round = false;
    if (!peer->confirmed)
        report(sim, pair, role, NAT_REPORT_FAILURE);
}

/* Opens a fresh socket; a peer that has no place for one more stays with the first. */
static uint16_t open_socket(struct peer *peer, uint16_t port)
{
    for (size_t i = 0; i < peer->socket_count; i++)
        if (peer->sockets[i] == port)
            return port;
    if (peer->socket_count == SOCKETS)
        return peer->sockets[0];
    peer->sockets[peer->socket_count++] = port;
    return port;
}

static uint64_t fire_time(const struct sim *sim, const struct peer *peer, int64_t punch_time)
{
    int64_t at = punch_time;

    if (peer->attempt == 0 || !peer->setup.recovers)
        at += peer->setup.skew_ms;
    return at > (int64_t)sim->now ? (uint64_t)at : sim->now;
}

static void round_start(struct sim *sim, const struct event *told)
{
    struct peer *peer = &told->pair->peers[told->role];
    uint32_t ip = told->pair->peers[!told->role].box.ip;
    uint64_t at;

    round_end(sim, told->pair, told->role);
    peer->in_round = true;
    peer->heard = peer->confirmed = false;
    peer->attempt = told->attempt;
    peer->round++;
    peer->from = peer->sockets[0];
    if (told->local_port != 0 && !peer->setup.plain)
        peer->from = open_socket(peer, told->local_port);
    peer->to_count = told->port_count;
    for (size_t i = 0; i < told->port_count; i++)
        peer->to[i] = (struct nat_address){ip, told->ports[i]};
    at = fire_time(sim, peer, told->punch_time);
    event_add(
        sim,
        (struct event){
            .at = at, .kind = FIRE, .pair = told->pair, .role = told->role, .round = peer->round});
    event_add(sim, (struct event){.at = at + SIM_ROUND_MS,
                                  .kind = OVER,
                                  .pair = told->pair,
                                  .role = told->role,
                                  .round = peer->round});
}

static void fire(struct sim *sim, const struct event *event)
{
    struct peer *peer = &event->pair->peers[event->role];
    struct event again = *event;

    if (!peer->in_round || peer->round != event->round || peer->confirmed)
        return;
    for (size_t i = 0; i < peer->to_count; i++)
        send_packet(sim, event->pair, event->role, peer->from, peer->to[i], peer->heard);
    again.at += SIM_EVERY_MS;
    event_add(sim, again);
}

static void confirm(struct sim *sim, struct pair *pair, int role)
{
    struct peer *peer = &pair->peers[role];

    if (peer->confirmed)
        return;
    peer->confirmed = true;
    if (pair->peers[!role].confirmed && !pair->result.connected) {
        pair->result.connected = true;
        pair->result.attempt = peer->attempt;
        pair->result.duration_ms = sim->now - pair->asked_at;
    }
    report(sim, pair, role, NAT_REPORT_SUCCESS);
}

/* From the first packet on a peer talks to where it came from, through the socket it came to. */
static void take_packet(struct sim *sim, const struct event *event)
{
    struct peer *peer = &event->pair->peers[event->role];
    struct nat_address from = event->from;
    uint16_t internal = nat_box_receive(&peer->box, sim->now, &from, event->external);
    bool is_open = false, was_confirmed = peer->confirmed;

    for (size_t i = 0; i < peer->socket_count; i++)
        is_open = is_open || peer->sockets[i] == internal;
    if (internal == 0 || !is_open || peer->round == 0)
        return;
    peer->heard = true;
    peer->from = internal;
    peer->to[0] = from;
    peer->to_count = 1;
    if (event->answer)
        confirm(sim, event->pair, event->role);
    if (!event->answer || !was_confirmed)
        send_packet(sim, event->pair, event->role, internal, from, true);
}

/* ---- The coordinator ---- */

static void tell(struct sim *sim, const struct nat_action *action, struct pair *pair)
{
    struct event told = {
        .at = sim->now + sim->one_way_ms,
        .kind = TOLD,
        .pair = pair,
        .role = action->role,
        .attempt = action->session.attempts,
        .local_port = action->local_port,
        .port_count = action->port_count,
        .punch_time = action->punch_time,
    };

    memcpy(told.ports, action->peer_ports, sizeof told.ports);
    event_add(sim, told);
}

static void take_actions(struct sim *sim)
{
    struct nat_action action;
    struct pair *pair;
    uint32_t number;

    while (nat_next_action(sim->nat, &action)) {
        if (action.type == NAT_RELEASE_WATCHER)
            continue;
        memcpy(&number, (const char *)action.session.initiator_id.data + 1, sizeof number);
        HASH_FIND(hh, sim->pairs, &number, sizeof number, pair);
        if (pair == NULL)
            continue;
        if (action.type == NAT_COORDINATE) {
            tell(sim, &action, pair);
        } else {
            pair->session_id_len = action.session.session_id.len;
            memcpy(pair->session_id, action.session.session_id.data, pair->session_id_len);
            pair->result.state = action.session.state;
            pair->result.ended = action.session.result != NAT_RESULT_NONE;
        }
    }
}

/* A direct connection is tried at the known port by both, as the open one of them is known to. */
static void try_direct(struct sim *sim, struct pair *pair)
{
    for (int role = 0; role < 2; role++) {
        struct event told = {.kind = TOLD, .pair = pair, .role = role, .port_count = 1};
        struct nat_profile_fields fields;

        nat_profile_get(pair->peers[!role].profile, &fields);
        told.at = sim->now + sim->one_way_ms;
        told.ports[0] = (uint16_t)fields.reflexive_port;
        told.punch_time = (int64_t)told.at;
        event_add(sim, told);
    }
}

static void learn_address(struct sim *sim, struct peer *peer)
{
    struct nat_address host = public_host;
    uint16_t port = nat_box_send(&peer->box, sim->now, peer->sockets[0], &host);
    struct nat_type type = peer->setup.type;
    char ip[16];
    struct nat_profile_fields fields = {
        .node_id = {peer->id, 2},
        .mapping = type.mapping,
        .filtering = type.filtering,
        .allocation = type.allocation,
        .can_receive_unsolicited = type.mapping == NAT_POLICY_EI && type.filtering == NAT_POLICY_EI,
        .requires_relay = type.mapping == NAT_POLICY_PD && type.allocation == NAT_POLICY_RD,
        .has_port_delta = type.allocation == NAT_POLICY_PC,
        .port_delta = 1,
        .reflexive_port = port,
    };

    nat_box_receive(&peer->box, sim->now, &host, port);
    fields.reflexive_ip.data = ip;
    fields.reflexive_ip.len =
        (size_t)snprintf(ip, sizeof ip, "203.0.%u.%u", peer->box.ip >> 8 & 255, peer->box.ip & 255);
    if (nat_profile_create(&peer->profile, &fields) < 0)
        abort();
}

static void ask(struct sim *sim, struct pair *pair)
{
    struct nat_session_view view = {.strategy = NAT_HOLE_PUNCH};
    struct nat_request request = {
        .initiator_id = {pair->peers[0].id, 1 + sizeof pair->number},
        .target_id = {pair->peers[1].id, 1 + sizeof pair->number},
    };
    int status;

    for (int role = 0; role < 2; role++)
        learn_address(sim, &pair->peers[role]);
    pair->asked_at = sim->now;
    request.initiator_profile = pair->peers[0].profile;
    request.target_profile = pair->peers[1].profile;
    memcpy(request.random, &pair->number, sizeof pair->number);
    nat_options_init(sim->nat, &request.options);
    request.options.has_watcher = true;
    status = pair->punch ? nat_coordinate(sim->nat, clock_of(sim), &request, NULL)
                         : nat_request(sim->nat, clock_of(sim), &request, &view);
    if (status < 0)
        abort();
    pair->result.strategy = view.strategy;
    take_actions(sim);
    if (view.strategy == NAT_DIRECT)
        try_direct(sim, pair);
}

static void take_report(struct sim *sim, const struct event *event)
{
    struct pair *pair = event->pair;

    nat_report(sim->nat, clock_of(sim), (struct nat_bytes){pair->session_id, pair->session_id_len},
               (struct nat_bytes){pair->peers[event->role].id, 1 + sizeof pair->number},
               event->report);
    take_actions(sim);
}

/* ---- The whole ---- */

struct sim *sim_create(enum nat_rules rules, uint32_t one_way_ms)
{
    struct sim *sim = calloc(1, sizeof *sim);
    struct nat_config config;

    if (sim == NULL)
        return NULL;
    nat_config_init(&config);
    config.rules = rules;
    config.coordination_delay_ms = COORDINATION;
    sim->now = START_MS;
    sim->one_way_ms = one_way_ms;
    if (nat_coordinator_create(&sim->nat, &config) < 0) {
        free(sim);
        return NULL;
    }
    return sim;
}

static void pair_free(struct sim *sim, struct pair *pair)
{
    HASH_DELETE(hh, sim->pairs, pair);
    for (int role = 0; role < 2; role++)
        nat_profile_unref(pair->peers[role].profile);
    free(pair);
}

void sim_free(struct sim *sim)
{
    struct pair *pair, *next;

    if (sim == NULL)
        return;
    HASH_ITER (hh, sim->pairs, pair, next)
        pair_free(sim, pair);
    nat_coordinator_free(sim->nat);
    free(sim->events);
    free(sim);
}

void sim_add(struct sim *sim, uint32_t after_ms, const struct sim_peer_setup *initiator,
             const struct sim_peer_setup *target, bool punch, sim_done done, void *context)
{
    struct pair *pair = calloc(1, sizeof *pair);

    if (pair == NULL)
        abort();
    pair->number = sim->next_pair++;
    pair->punch = punch;
    pair->done = done;
    pair->context = context;
    for (int role = 0; role < 2; role++) {
        struct peer *peer = &pair->peers[role];

        peer->setup = role == NAT_INITIATOR ? *initiator : *target;
        nat_box_init(&peer->box, peer->setup.type, peer->setup.affine, peer->setup.bare,
                     0xcb000000u + 2 * pair->number + (uint32_t)role,
                     2 * pair->number + (uint32_t)role + 1);
        peer->id[0] = role == NAT_INITIATOR ? 'a' : 'b';
        memcpy(peer->id + 1, &pair->number, sizeof pair->number);
        peer->sockets[peer->socket_count++] = FIRST_PORT;
    }
    HASH_ADD(hh, sim->pairs, number, sizeof pair->number, pair);
    event_add(sim, (struct event){.at = sim->now + after_ms, .kind = REQUEST, .pair = pair});
}

static void happen(struct sim *sim, const struct event *event)
{
    switch (event->kind) {
    case REQUEST:
        ask(sim, event->pair);
        break;
    case TOLD:
        round_start(sim, event);
        break;
    case FIRE:
        fire(sim, event);
        break;
    case OVER:
        if (event->pair->peers[event->role].round == event->round)
            round_end(sim, event->pair, event->role);
        break;
    case PACKET:
        take_packet(sim, event);
        break;
    case REPORTED:
        take_report(sim, event);
        break;
    }
}

static void tick(struct sim *sim)
{
    while (nat_tick(sim->nat, clock_of(sim), 1000))
        take_actions(sim);
    take_actions(sim);
}

void sim_run(struct sim *sim)
{
    while (sim->event_count > 0) {
        uint64_t deadline = nat_next_deadline(sim->nat);
        struct event event;

        if (deadline <= sim->events[0].at) {
            sim->now = deadline > sim->now ? deadline : sim->now;
            tick(sim);
            continue;
        }
        event = event_take(sim);
        sim->now = event.at;
        happen(sim, &event);
        if (--event.pair->events == 0) {
            event.pair->done(event.pair->context, &event.pair->result);
            pair_free(sim, event.pair);
        }
    }
}

void sim_rest(struct sim *sim, uint64_t ms)
{
    uint64_t end = sim->now + ms, deadline;

    while ((deadline = nat_next_deadline(sim->nat)) <= end) {
        sim->now = deadline > sim->now ? deadline : sim->now;
        tick(sim);
    }
    sim->now = end;
}

const struct nat_counters *sim_counters(const struct sim *sim)
{
    return nat_counters(sim->nat);
}

static void keep(void *context, const struct sim_result *result)
{
    *(struct sim_result *)context = *result;
}

struct sim_result sim_pair(enum nat_rules rules, uint32_t one_way_ms,
                           const struct sim_peer_setup *initiator,
                           const struct sim_peer_setup *target, bool punch)
{
    struct sim_result result = {0};
    struct sim *sim = sim_create(rules, one_way_ms);

    if (sim == NULL)
        abort();
    sim_add(sim, 0, initiator, target, punch, keep, &result);
    sim_run(sim);
    sim_free(sim);
    return result;
}
