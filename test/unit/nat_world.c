/* SPDX-License-Identifier: Apache-2.0 */
#include "nat_world.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

struct nat_bytes bytes_of(const char *text)
{
    return (struct nat_bytes){text, strlen(text)};
}

static struct nat_profile *make(enum nat_policy mapping, enum nat_policy filtering,
                                enum nat_policy allocation, const char *ip)
{
    struct nat_profile_fields fields = {
        .mapping = mapping,
        .filtering = filtering,
        .allocation = allocation,
        .reflexive_ip = bytes_of(ip),
        .reflexive_port = 4000,
    };
    struct nat_profile *profile = NULL;

    ck_assert_int_eq(nat_profile_create(&profile, &fields), 0);
    return profile;
}

void world_init(struct world *world)
{
    memset(world, 0, sizeof *world);
    nat_config_init(&world->config);
    memset(world->config.hash_key, 7, sizeof world->config.hash_key);
    world->now = (struct nat_now){.monotonic_ms = 5000000, .unix_ms = 1700000000123};
    world->easy = make(NAT_POLICY_EI, NAT_POLICY_PD, NAT_POLICY_PP, "192.0.2.1");
    world->cone = make(NAT_POLICY_EI, NAT_POLICY_EI, NAT_POLICY_PP, "2001:db8::1");
    world->open = make(NAT_POLICY_HD, NAT_POLICY_PD, NAT_POLICY_RD, "192.0.2.2");
    world->symmetric = make(NAT_POLICY_PD, NAT_POLICY_PD, NAT_POLICY_RD, "192.0.2.3");
}

void world_start(struct world *world)
{
    ck_assert_int_eq(nat_coordinator_create(&world->nat, &world->config), 0);
}

void world_free(struct world *world)
{
    const struct nat_counters *counters = nat_counters(world->nat);

    world_forget(world);
    world->now.monotonic_ms += world->config.session_ttl_s * 1000 + 2 * NAT_SWEEP_MS;
    for (int i = 0; i < 2; i++) {
        while (nat_tick(world->nat, world->now, 100)) {
            world_drain(world);
            world_forget(world);
        }
        world_drain(world);
        world_forget(world);
        world->now.monotonic_ms += world->config.session_ttl_s * 1000 + NAT_SWEEP_MS + 1;
    }
    for (int i = 0; i < NAT_LIVE_STATES; i++)
        ck_assert_uint_eq(counters->live[i], 0);
    ck_assert_uint_eq(counters->ended, 0);
    ck_assert_uint_eq(counters->profile_bytes, 0);
    ck_assert_uint_eq(counters->peers, 0);
    ck_assert_uint_eq(counters->pairs, 0);
    ck_assert(nat_next_deadline(world->nat) == UINT64_MAX);
    for (size_t i = 0; i < WORLD_TOKENS; i++)
        ck_assert_int_eq(world->held[i], 0);
    nat_coordinator_free(world->nat);
    nat_profile_unref(world->easy);
    nat_profile_unref(world->open);
    nat_profile_unref(world->cone);
    nat_profile_unref(world->symmetric);
}

void world_pass(struct world *world, uint64_t ms)
{
    uint64_t end = world->now.monotonic_ms + ms;

    while (nat_next_deadline(world->nat) <= end) {
        uint64_t due = nat_next_deadline(world->nat);

        if (due > world->now.monotonic_ms) {
            world->now.unix_ms += (int64_t)(due - world->now.monotonic_ms);
            world->now.monotonic_ms = due;
        }
        nat_tick(world->nat, world->now, 7);
        world_drain(world);
    }
    world->now.unix_ms += (int64_t)(end - world->now.monotonic_ms);
    world->now.monotonic_ms = end;
}

/* An assertion of Check that holds costs a write to a file, which adds up where years are played.
 */
static void must(bool holds, const char *what)
{
    if (!holds)
        ck_abort_msg("%s", what);
}

static void copy(char *out, size_t size, struct nat_bytes bytes)
{
    must(bytes.len < size, "a text is too long for the record");
    if (bytes.len > 0)
        memcpy(out, bytes.data, bytes.len);
    out[bytes.len] = '\0';
}

static void record(struct world *world, const struct nat_action *action)
{
    struct event *event = &world->events[world->event_count++];

    *event = (struct event){
        .type = action->type,
        .profiles = {action->session.initiator_profile, action->session.target_profile},
        .strategy = action->session.strategy,
        .state = action->session.state,
        .result = action->session.result,
        .attempts = action->session.attempts,
        .watcher = action->watcher,
        .port_count = action->port_count,
        .role = action->role,
        .punch_time = action->punch_time,
    };
    copy(event->session_id, sizeof event->session_id, action->session.session_id);
    copy(event->initiator_id, sizeof event->initiator_id, action->session.initiator_id);
    copy(event->target_id, sizeof event->target_id, action->session.target_id);
    copy(event->recipient_id, sizeof event->recipient_id, action->recipient_id);
    copy(event->peer_id, sizeof event->peer_id, action->peer_id);
    copy(event->peer_host, sizeof event->peer_host, action->peer_host);
    memcpy(event->ports, action->peer_ports, sizeof event->ports);
}

void world_drain(struct world *world)
{
    struct nat_action action;

    while (nat_next_action(world->nat, &action)) {
        must(action.watcher < WORLD_TOKENS, "a token that nobody gave");
        if (action.type == NAT_NOTIFY)
            must(world->held[action.watcher] > 0, "news for a token that is not held");
        if (action.type == NAT_RELEASE_WATCHER)
            must(--world->held[action.watcher] >= 0, "a token is given back too often");
        must(world->event_count < WORLD_EVENTS, "too many events for the record");
        record(world, &action);
    }
}

void world_forget(struct world *world)
{
    world->event_count = 0;
}

struct nat_request world_ask(struct world *world, const char *initiator, const char *target)
{
    struct nat_request request = {
        .initiator_id = bytes_of(initiator),
        .target_id = bytes_of(target),
    };

    nat_options_init(world->nat, &request.options);
    world->random++;
    memcpy(request.random, &world->random, sizeof world->random);
    return request;
}

static void hold(struct world *world, const struct nat_request *request, int status)
{
    if (status == 0 && request->options.has_watcher)
        world->held[request->options.watcher]++;
}

int world_request(struct world *world, const struct nat_request *request, char *id)
{
    struct nat_session_view view;
    int status = nat_request(world->nat, world->now, request, &view);

    hold(world, request, status);
    if (status == 0 && id != NULL)
        copy(id, NAT_ID_MAX + 1, view.session_id);
    world_drain(world);
    return status;
}

int world_coordinate(struct world *world, const struct nat_request *request, const char *id)
{
    struct nat_bytes given = bytes_of(id != NULL ? id : "");
    int status = nat_coordinate(world->nat, world->now, request, id != NULL ? &given : NULL);

    hold(world, request, status);
    world_drain(world);
    return status;
}

int world_report(struct world *world, const char *id, const char *reporter, enum nat_report report)
{
    int status = nat_report(world->nat, world->now, bytes_of(id), bytes_of(reporter), report);

    world_drain(world);
    return status;
}

void world_punch(struct world *world, const char *initiator, const char *target, uint64_t token,
                 char *id)
{
    struct nat_request request = world_ask(world, initiator, target);

    request.options.has_watcher = true;
    request.options.watcher = token;
    ck_assert_int_eq(world_request(world, &request, id), 0);
}

void check_session(int line, struct world *world, const char *id, enum nat_state state,
                   enum nat_strategy strategy, uint32_t attempts, enum nat_result result)
{
    struct nat_session_view view;

    ck_assert_msg(nat_session_find(world->nat, bytes_of(id), &view) == 0, "line %d: no session",
                  line);
    ck_assert_msg(view.state == state, "line %d: state is %d", line, view.state);
    ck_assert_msg(view.strategy == strategy, "line %d: strategy is %d", line, view.strategy);
    ck_assert_msg(view.attempts == attempts, "line %d: attempts is %u", line, view.attempts);
    ck_assert_msg(view.result == result, "line %d: result is %d", line, view.result);
}

size_t world_count(const struct world *world, enum nat_action_type type)
{
    size_t count = 0;

    for (size_t i = 0; i < world->event_count; i++)
        count += world->events[i].type == type;
    return count;
}

const char *world_story(const struct world *world, uint64_t watcher)
{
    static char story[WORLD_EVENTS + 1];
    size_t len = 0;

    for (size_t i = 0; i < world->event_count; i++)
        if (world->events[i].type == NAT_NOTIFY && world->events[i].watcher == watcher)
            story[len++] = "pce+-"[world->events[i].state];
    story[len] = '\0';
    return story;
}

const struct event *world_message(const struct world *world, size_t n)
{
    for (size_t i = 0; i < world->event_count; i++)
        if (world->events[i].type == NAT_COORDINATE && n-- == 0)
            return &world->events[i];
    ck_abort_msg("no such message");
    return NULL;
}
