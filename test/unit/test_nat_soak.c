/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator against a model of it that is as simple as can be: an array of sessions that is
 * searched from end to end. Random commands go to both, and after each all that can be seen must be
 * equal. A failure prints the seed.
 */
#include "nat_world.h"
#include "suites.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS  512
#define PEERS     4
#define TOKENS    3
#define MAX_LIVE  12
#define TTL_MS    70000
#define DELAY_MS  100
#define NEVER     UINT64_MAX
#define SEQUENCES 60
#define COMMANDS  400

static const char *const peer_names[PEERS + 1] = {"alpha", "beta", "gamma", "", "stranger"};
static const char *const given_names[] = {"one", "two", "a rather long name of a session"};

struct model_session {
    bool exists, live;
    char id[64];
    int initiator, target;
    struct nat_profile *profiles[2];
    enum nat_state state;
    enum nat_strategy strategy;
    enum nat_result result;
    uint32_t attempts, failures[3], max, timeout;
    uint64_t deadline, since;
    unsigned watchers; /* bits */
};

static struct world world;
/* In the order of creation; a session that has gone leaves a hole. */
static struct model_session sessions[SESSIONS];
static int session_count;
static uint64_t sweep_at;
static size_t notifies, messages;
static uint64_t seed;

static uint32_t dice(uint32_t sides)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % sides;
}

/* ---- The model ---- */

static void tell(const struct model_session *s)
{
    for (int i = 0; i < TOKENS; i++)
        notifies += s->watchers >> i & 1;
}

static void begin(struct model_session *s, uint64_t now)
{
    s->strategy = NAT_HOLE_PUNCH;
    s->state = NAT_COORDINATING;
    s->deadline = now + DELAY_MS;
    messages += 2;
}

static void finish(struct model_session *s, uint64_t now, enum nat_state state,
                   enum nat_result result)
{
    s->live = false;
    s->state = state;
    s->result = result;
    s->deadline = NEVER;
    s->since = now;
    tell(s);
}

static void attempt_fails(struct model_session *s, uint64_t now, enum nat_result result)
{
    if (s->attempts == s->max) {
        s->strategy = NAT_RELAY;
        finish(s, now, NAT_FAILED, result);
        return;
    }
    s->attempts++;
    begin(s, now);
    tell(s);
}

static void model_report(struct model_session *s, uint64_t now, int reporter,
                         enum nat_report report)
{
    int who = reporter == s->initiator ? 0 : reporter == s->target ? 1 : 2;

    if (report == NAT_REPORT_SUCCESS) {
        finish(s, now, NAT_COMPLETED, NAT_RESULT_SUCCESS);
        return;
    }
    if (s->failures[who]++ != s->attempts)
        return;
    if (s->state != NAT_PENDING) {
        attempt_fails(s, now, NAT_RESULT_UNREACHABLE);
    } else if (s->strategy == NAT_DIRECT && s->max > 0 &&
               nat_strategy_after_direct(NAT_RULES_DOCUMENTED, s->profiles[0], s->profiles[1]) ==
                   NAT_HOLE_PUNCH) {
        s->attempts = 1;
        begin(s, now);
        tell(s);
    } else {
        finish(s, now, NAT_FAILED, NAT_RESULT_UNREACHABLE);
    }
}

static void model_timer(struct model_session *s)
{
    uint64_t now = s->deadline;

    if (s->state == NAT_COORDINATING) {
        s->state = NAT_EXECUTING;
        s->deadline = now + s->timeout;
        tell(s);
        return;
    }
    for (int i = 0; i < 3; i++)
        s->failures[i] = s->attempts + 1;
    attempt_fails(s, now, NAT_RESULT_TIMEOUT);
}

static void model_sweep(void)
{
    bool left = false;

    for (int i = 0; i < session_count; i++) {
        struct model_session *s = &sessions[i];

        if (s->exists && (!s->live || sweep_at - s->since > TTL_MS))
            s->exists = false;
        left = left || s->exists;
    }
    sweep_at = left ? sweep_at + NAT_SWEEP_MS : NEVER;
}

static void model_pass(uint64_t until)
{
    for (;;) {
        struct model_session *next = NULL;
        uint64_t due = sweep_at;

        for (int i = 0; i < session_count; i++)
            if (sessions[i].exists && sessions[i].live && sessions[i].deadline <= due) {
                due = sessions[i].deadline;
                next = &sessions[i];
            }
        if (due > until)
            return;
        if (next != NULL)
            model_timer(next);
        else
            model_sweep();
    }
}

static int live_count(void)
{
    int live = 0;

    for (int i = 0; i < session_count; i++)
        live += sessions[i].exists && sessions[i].live;
    return live;
}

static struct model_session *oldest_pending(void)
{
    for (int i = 0; i < session_count; i++)
        if (sessions[i].exists && sessions[i].live && sessions[i].state == NAT_PENDING)
            return &sessions[i];
    return NULL;
}

static struct model_session *model_find(const char *id)
{
    for (int i = 0; i < session_count; i++)
        if (sessions[i].exists && strcmp(sessions[i].id, id) == 0)
            return &sessions[i];
    return NULL;
}

static int model_open(const struct nat_request *request, int initiator, int target,
                      enum nat_strategy strategy, struct model_session **out)
{
    struct model_session *s = &sessions[session_count];

    if (live_count() == MAX_LIVE) {
        if (oldest_pending() == NULL)
            return -ENOBUFS;
        oldest_pending()->exists = false;
    }
    ck_assert_int_lt(session_count, SESSIONS);
    session_count++;
    *s = (struct model_session){
        .exists = true,
        .live = true,
        .initiator = initiator,
        .target = target,
        .profiles = {request->initiator_profile, request->target_profile},
        .state = NAT_PENDING,
        .strategy = strategy,
        .max = request->options.max_punch_attempts,
        .timeout = request->options.punch_timeout_ms,
        .deadline = NEVER,
        .since = world.now.monotonic_ms,
        .watchers = request->options.has_watcher ? 1u << request->options.watcher : 0,
    };
    tell(s);
    if (strategy == NAT_HOLE_PUNCH) {
        begin(s, world.now.monotonic_ms);
        tell(s);
    }
    if (sweep_at == NEVER)
        sweep_at = world.now.monotonic_ms + NAT_SWEEP_MS;
    *out = s;
    return 0;
}

static struct model_session *model_glare(int initiator, int target)
{
    for (int i = session_count - 1; i >= 0; i--)
        if (sessions[i].exists && sessions[i].live && sessions[i].strategy == NAT_HOLE_PUNCH &&
            sessions[i].initiator == target && sessions[i].target == initiator)
            return &sessions[i];
    return NULL;
}

/* ---- Commands to both ---- */

static struct nat_profile *any_profile(void)
{
    switch (dice(5)) {
    case 0:
        return world.easy;
    case 1:
        return world.cone;
    case 2:
        return world.symmetric;
    case 3:
        return world.open;
    default:
        return NULL;
    }
}

static struct nat_request any_request(int *initiator, int *target)
{
    struct nat_request request;

    *initiator = (int)dice(PEERS);
    *target = (*initiator + 1 + (int)dice(PEERS - 1)) % PEERS;
    request = world_ask(&world, peer_names[*initiator], peer_names[*target]);
    request.initiator_profile = any_profile();
    request.target_profile = any_profile();
    request.options.max_punch_attempts = dice(4);
    request.options.punch_timeout_ms = 1 + dice(6000);
    request.options.allow_relay = dice(4) > 0;
    request.options.has_watcher = dice(2) > 0;
    request.options.watcher = dice(TOKENS);
    return request;
}

static void do_request(void)
{
    int initiator, target, status, expected = 0;
    struct nat_request request = any_request(&initiator, &target);
    struct model_session *s = model_glare(initiator, target);
    char id[NAT_ID_MAX + 1] = "";

    if (s != NULL) {
        if (request.options.has_watcher)
            s->watchers |= 1u << request.options.watcher;
    } else {
        enum nat_strategy strategy = nat_strategy_choose(
            NAT_RULES_DOCUMENTED, request.initiator_profile, request.target_profile);

        if (strategy == NAT_RELAY && !request.options.allow_relay)
            expected = -ENETUNREACH;
        else
            expected = model_open(&request, initiator, target, strategy, &s);
    }
    status = world_request(&world, &request, id);
    ck_assert_int_eq(status, expected);
    if (status < 0)
        return;
    if (s->id[0] == '\0')
        strcpy(s->id, id);
    ck_assert_str_eq(s->id, id);
}

static const char *any_id(void)
{
    if (session_count == 0 || dice(20) == 0)
        return given_names[dice(3)];
    return sessions[session_count - 1 - (int)dice((uint32_t)session_count) % 20 % session_count].id;
}

static int model_restart(struct model_session *s, const struct nat_request *request, int initiator,
                         int target)
{
    bool swapped = s->initiator == target && s->target == initiator;
    struct nat_profile *given[2] = {request->initiator_profile, request->target_profile};
    bool told = s->state != NAT_COORDINATING;

    if (!s->live)
        return -ESTALE;
    if (!swapped && (s->initiator != initiator || s->target != target))
        return -EACCES;
    if (request->options.has_watcher)
        s->watchers |= 1u << request->options.watcher;
    for (int i = 0; i < 2; i++)
        if (given[i] != NULL)
            s->profiles[swapped ? 1 - i : i] = given[i];
    for (int i = 0; i < 3; i++)
        s->failures[i] = s->attempts;
    begin(s, world.now.monotonic_ms);
    if (told)
        tell(s);
    return 0;
}

static void do_coordinate(void)
{
    int initiator, target, expected;
    struct nat_request request = any_request(&initiator, &target);
    const char *id = dice(4) > 0 ? any_id() : given_names[dice(3)];
    struct model_session *s = model_find(id);
    char copy[64];

    strcpy(copy, id); /* it may be the name of a session that now goes */
    if (s != NULL && dice(3) > 0) {
        initiator = dice(2) > 0 ? s->initiator : s->target;
        target = initiator == s->initiator ? s->target : s->initiator;
        request.initiator_id = bytes_of(peer_names[initiator]);
        request.target_id = bytes_of(peer_names[target]);
    }
    if (s != NULL) {
        expected = model_restart(s, &request, initiator, target);
    } else {
        expected = model_open(&request, initiator, target, NAT_HOLE_PUNCH, &s);
        if (expected == 0)
            strcpy(s->id, copy);
    }
    ck_assert_int_eq(world_coordinate(&world, &request, copy), expected);
}

static void do_report(void)
{
    const char *id = any_id();
    struct model_session *s = model_find(id);
    int reporter = (int)dice(PEERS + 1), expected = 0;
    enum nat_report report = dice(6) == 0 ? NAT_REPORT_SUCCESS : NAT_REPORT_FAILURE;

    if (dice(30) == 0) {
        report = NAT_REPORT_OTHER;
        expected = -EINVAL;
    } else if (s == NULL) {
        expected = -ENOENT;
    } else if (!s->live) {
        expected = -ESTALE;
    } else {
        if (dice(2) > 0)
            reporter = dice(2) > 0 ? s->initiator : s->target;
        model_report(s, world.now.monotonic_ms, reporter, report);
    }
    ck_assert_int_eq(world_report(&world, id, peer_names[reporter], report), expected);
}

static void do_pass(void)
{
    const uint32_t most[] = {3, 150, 6000, 100000};
    uint64_t ms = dice(most[dice(4)]);

    model_pass(world.now.monotonic_ms + ms);
    world_pass(&world, ms);
}

/* ---- Comparison ---- */

static void compare_session(const struct model_session *s)
{
    struct nat_session_view view;

    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(s->id), &view), 0);
    ck_assert_int_eq(view.state, s->state);
    ck_assert_int_eq(view.strategy, s->strategy);
    ck_assert_int_eq(view.result, s->result);
    ck_assert_uint_eq(view.attempts, s->attempts);
    ck_assert_uint_eq(view.initiator_id.len, strlen(peer_names[s->initiator]));
    ck_assert_uint_eq(view.target_id.len, strlen(peer_names[s->target]));
    if (s->live) {
        ck_assert(view.initiator_profile == s->profiles[0]);
        ck_assert(view.target_profile == s->profiles[1]);
    }
}

static void compare(void)
{
    const struct nat_counters *counters = nat_counters(world.nat);
    uint64_t live[NAT_LIVE_STATES] = {0}, ended = 0, deadline = sweep_at;
    struct nat_cursor *cursor = NULL;
    struct nat_session_view view;

    ck_assert_int_eq(nat_cursor_open(world.nat, &cursor), 0);
    for (int i = session_count - 1; i >= 0; i--) {
        const struct model_session *s = &sessions[i];

        if (!s->exists)
            continue;
        compare_session(s);
        if (!s->live) {
            ended++;
            continue;
        }
        live[s->state]++;
        if (s->deadline < deadline)
            deadline = s->deadline;
        ck_assert(nat_cursor_next(cursor, &view));
        ck_assert_uint_eq(view.session_id.len, strlen(s->id));
        ck_assert_mem_eq(view.session_id.data, s->id, view.session_id.len);
    }
    ck_assert(!nat_cursor_next(cursor, &view));
    nat_cursor_close(cursor);
    for (int i = 0; i < NAT_LIVE_STATES; i++)
        ck_assert_uint_eq(counters->live[i], live[i]);
    ck_assert_uint_eq(counters->ended, ended);
    ck_assert(nat_next_deadline(world.nat) == deadline);
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), messages);
    ck_assert_uint_eq(world_count(&world, NAT_NOTIFY), notifies);
    for (int token = 0; token < TOKENS; token++) {
        int held = 0;

        for (int i = 0; i < session_count; i++)
            held += sessions[i].exists && sessions[i].live && (sessions[i].watchers >> token & 1);
        ck_assert_int_eq(world.held[token], held);
    }
}

static void run_commands(void)
{
    void (*const commands[])(void) = {do_request, do_request, do_coordinate, do_report,
                                      do_report,  do_report,  do_report,     do_pass};

    for (int i = 0; i < COMMANDS; i++) {
        world_forget(&world);
        notifies = messages = 0;
        commands[dice(8)]();
        compare();
    }
}

/* One process for each seed, so that the report of a failure names it as the number of the loop. */
START_TEST(agrees_with_the_model)
{
    seed = 0x9e3779b97f4a7c15u * (uint64_t)(_i + 1);
    world_init(&world);
    world.config.max_sessions = MAX_LIVE;
    world.config.session_ttl_s = TTL_MS / 1000;
    world_start(&world);
    memset(sessions, 0, sizeof sessions);
    session_count = 0;
    sweep_at = NEVER;
    run_commands();
    world_free(&world);
}
END_TEST

/* A punch an hour for three years, none of which anybody answers. */
START_TEST(years_of_punches)
{
    const unsigned hours = 3 * 365 * 24;
    char id[NAT_ID_MAX + 1];

    world_init(&world);
    world_start(&world);
    for (unsigned i = 0; i < hours; i++) {
        world_forget(&world);
        world_punch(&world, "a", "b", 1, id);
        world_pass(&world, 3600 * 1000);
        ck_assert_str_eq(world_story(&world, 1), "pcececece-");
    }
    ck_assert_uint_eq(nat_counters(world.nat)->failed_timeout, hours);
    ck_assert_uint_eq(nat_counters(world.nat)->ended, 0);
    world_free(&world);
}
END_TEST

/* Many at once, of peers that come and go: all of it is given back (the leak checker looks, too).
 */
START_TEST(a_crowd_comes_and_goes)
{
    struct nat_session_view view;
    char name[16];

    world_init(&world);
    world_start(&world);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 20000; i++) {
            struct nat_request request;

            snprintf(name, sizeof name, "peer %u", i % 5000);
            request = world_ask(&world, name, "hub");
            request.initiator_profile = world.easy;
            if (nat_request(world.nat, world.now, &request, &view) < 0)
                ck_abort_msg("request %u failed", i);
            if (i % 2 > 0)
                nat_report(world.nat, world.now, view.session_id, bytes_of("hub"),
                           i % 3 > 0 ? NAT_REPORT_SUCCESS : NAT_REPORT_FAILURE);
            world_drain(&world);
            world_forget(&world);
        }
        ck_assert_uint_eq(nat_counters(world.nat)->peers, 5001);
        while (nat_next_deadline(world.nat) != UINT64_MAX) {
            world.now.monotonic_ms = nat_next_deadline(world.nat) > world.now.monotonic_ms
                                         ? nat_next_deadline(world.nat)
                                         : world.now.monotonic_ms;
            nat_tick(world.nat, world.now, 100);
            world_drain(&world);
            world_forget(&world);
        }
        ck_assert_uint_eq(nat_counters(world.nat)->peers, 0);
    }
    world_free(&world);
}
END_TEST

Suite *suite_nat_soak(void)
{
    Suite *suite = suite_create("nat_soak");
    TCase *tcase = tcase_create("model");

    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, agrees_with_the_model, 0, test_rounds(SEQUENCES));
    tcase_add_test(tcase, years_of_punches);
    tcase_add_test(tcase, a_crowd_comes_and_goes);
    suite_add_tcase(suite, tcase);
    return suite;
}
