/* SPDX-License-Identifier: Apache-2.0 */
/* What holds for sessions beside the state table: reports, glare, restarts, limits, sweeping,
 * watchers, cursors. */
#include "nat_world.h"
#include "suites.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world world;
static char id[NAT_ID_MAX + 1], other[NAT_ID_MAX + 1];

static void setup(void)
{
    world_init(&world);
    world_start(&world);
}

/* For tests of a limit. */
static void setup_small(void)
{
    world_init(&world);
    world.config.max_sessions = 3;
    world_start(&world);
}

static void setup_small_profiles(void)
{
    world_init(&world);
    world.config.max_profile_bytes = 5000;
    world_start(&world);
}

static void setup_small_ids(void)
{
    world_init(&world);
    world.config.max_id_bytes = 120;
    world_start(&world);
}

static void teardown(void)
{
    world_free(&world);
}

static const struct nat_counters *counters(void)
{
    return nat_counters(world.nat);
}

static void report_failure(const char *reporter)
{
    ck_assert_int_eq(world_report(&world, id, reporter, NAT_REPORT_FAILURE), 0);
}

static void assert_attempts(uint32_t attempts)
{
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, attempts, NAT_RESULT_NONE);
}

/* A session of the wanted strategy, without a watcher. */
static void open_session(const char *initiator, const char *target, enum nat_strategy strategy,
                         char *session_id)
{
    struct nat_request request = world_ask(&world, initiator, target);

    request.initiator_profile = world.easy;
    request.target_profile = strategy == NAT_DIRECT  ? world.cone
                             : strategy == NAT_RELAY ? world.symmetric
                                                     : world.easy;
    ck_assert_int_eq(world_request(&world, &request, session_id), 0);
}

/* ---- Reports ---- */

START_TEST(one_attempt_reported_by_both_counts_once)
{
    world_punch(&world, "a", "b", 1, id);
    report_failure("a");
    assert_attempts(1);
    report_failure("b");
    assert_attempts(1);
    report_failure("b");
    assert_attempts(2);
    report_failure("a");
    assert_attempts(2);
    ck_assert_uint_eq(counters()->reports, 2);
    ck_assert_uint_eq(counters()->reports_repeated, 2);
}
END_TEST

START_TEST(one_reporter_moves_on_each_time)
{
    world_punch(&world, "a", "b", 1, id);
    for (uint32_t i = 1; i <= 3; i++) {
        report_failure("b");
        assert_attempts(i);
    }
    report_failure("b");
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 3, NAT_RESULT_UNREACHABLE);
}
END_TEST

START_TEST(strangers_are_one_third_reporter)
{
    world_punch(&world, "a", "b", 1, id);
    report_failure("gateway-of-a");
    assert_attempts(1);
    report_failure("a");
    report_failure("b");
    assert_attempts(1);
    report_failure("gateway-of-b");
    assert_attempts(2);
    ck_assert_int_eq(nat_report(world.nat, world.now, bytes_of(id), (struct nat_bytes){NULL, 0},
                                NAT_REPORT_FAILURE),
                     0);
    world_drain(&world);
    assert_attempts(3);
    ck_assert_int_eq(world_report(&world, id, "", NAT_REPORT_SUCCESS), 0);
    assert_session(&world, id, NAT_COMPLETED, NAT_HOLE_PUNCH, 3, NAT_RESULT_SUCCESS);
}
END_TEST

/* After a timeout everyone's next report is about the attempt that runs. */
START_TEST(timeout_brings_counts_up_to_date)
{
    world_punch(&world, "a", "b", 1, id);
    world_pass(&world, 5100);
    assert_attempts(1);
    report_failure("a");
    assert_attempts(2);
    report_failure("b");
    assert_attempts(2);
    world_pass(&world, 5100);
    assert_attempts(3);
    report_failure("b");
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 3, NAT_RESULT_UNREACHABLE);
}
END_TEST

START_TEST(reports_that_change_nothing)
{
    world_punch(&world, "a", "b", 1, id);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_OTHER), -EINVAL);
    ck_assert_int_eq(world_report(&world, "unknown", "a", NAT_REPORT_SUCCESS), -ENOENT);
    ck_assert_int_eq(world_report(&world, "", "a", NAT_REPORT_SUCCESS), -ENOENT);
    assert_attempts(0);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    world_forget(&world);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), -ESTALE);
    ck_assert_int_eq(world_report(&world, id, "b", NAT_REPORT_FAILURE), -ESTALE);
    ck_assert_int_eq(world_report(&world, id, "b", NAT_REPORT_OTHER), -EINVAL);
    assert_session(&world, id, NAT_COMPLETED, NAT_HOLE_PUNCH, 0, NAT_RESULT_SUCCESS);
    ck_assert_uint_eq(world.event_count, 0);
    ck_assert_uint_eq(counters()->reports, 1);
    ck_assert_uint_eq(counters()->reports_ended, 2);
    ck_assert_uint_eq(counters()->reports_unknown, 2);
    ck_assert_uint_eq(counters()->reports_bad, 2);
}
END_TEST

START_TEST(huge_session_ids_are_unknown)
{
    size_t len = (1u << 20) + 24;
    char *huge = calloc(1, len);

    ck_assert_int_eq(nat_report(world.nat, world.now, (struct nat_bytes){huge, len}, bytes_of("a"),
                                NAT_REPORT_SUCCESS),
                     -ENOENT);
    free(huge);
}
END_TEST

/* ---- Glare ---- */

START_TEST(opposite_request_joins)
{
    struct nat_request request;

    world_punch(&world, "a", "b", 1, id);
    request = world_ask(&world, "b", "a");
    request.initiator_profile = world.symmetric; /* neither profiles nor options of it count */
    request.options.allow_relay = false;
    request.options.max_punch_attempts = 0;
    request.options.has_watcher = true;
    request.options.watcher = 2;
    world_forget(&world);
    ck_assert_int_eq(world_request(&world, &request, other), 0);
    ck_assert_str_eq(other, id);
    ck_assert_uint_eq(world.event_count, 0);
    ck_assert_uint_eq(counters()->joins, 1);
    ck_assert_uint_eq(counters()->answers[NAT_HOLE_PUNCH], 2);
    report_failure("b");
    assert_attempts(1);
    ck_assert_str_eq(world_message(&world, 0)->recipient_id, "a");
    ck_assert_int_eq(world_message(&world, 0)->role, NAT_INITIATOR);
    world_pass(&world, 100);
    ck_assert_str_eq(world_story(&world, 1), "ce");
    ck_assert_str_eq(world_story(&world, 2), "ce");
}
END_TEST

START_TEST(same_direction_makes_a_new_session)
{
    world_punch(&world, "a", "b", 1, id);
    world_punch(&world, "a", "b", 1, other);
    ck_assert_str_ne(id, other);
    ck_assert_uint_eq(counters()->live[NAT_COORDINATING], 2);
}
END_TEST

START_TEST(only_living_punches_are_joined)
{
    open_session("a", "b", NAT_DIRECT, id);
    open_session("b", "a", NAT_HOLE_PUNCH, other);
    ck_assert_str_ne(id, other);
    ck_assert_int_eq(world_report(&world, other, "a", NAT_REPORT_SUCCESS), 0);
    open_session("a", "b", NAT_HOLE_PUNCH, id);
    ck_assert_str_ne(id, other);
    ck_assert_uint_eq(counters()->joins, 0);
    /* A session that has become a punch is one. */
    open_session("c", "d", NAT_DIRECT, id);
    report_failure("c");
    open_session("d", "c", NAT_RELAY, other);
    ck_assert_str_eq(other, id);
}
END_TEST

/* The newest by its creation, not by when it became a punch. */
START_TEST(newest_punch_is_joined)
{
    char ids[6][NAT_ID_MAX + 1];

    for (int i = 0; i < 6; i++)
        open_session("a", "b", i == 1 || i == 4 ? NAT_DIRECT : NAT_HOLE_PUNCH, ids[i]);
    open_session("b", "a", NAT_RELAY, other);
    ck_assert_str_eq(other, ids[5]);
    ck_assert_int_eq(world_report(&world, ids[4], "a", NAT_REPORT_FAILURE), 0);
    ck_assert_int_eq(world_report(&world, ids[1], "a", NAT_REPORT_FAILURE), 0);
    for (int i = 5; i >= 0; i--) {
        open_session("b", "a", NAT_RELAY, other);
        ck_assert_str_eq(other, ids[i]);
        ck_assert_int_eq(world_report(&world, ids[i], "a", NAT_REPORT_SUCCESS), 0);
    }
    open_session("b", "a", NAT_RELAY, other);
    assert_session(&world, other, NAT_PENDING, NAT_RELAY, 0, NAT_RESULT_NONE);
}
END_TEST

/* ---- coordinate_punch ---- */

static int coordinate(const char *initiator, const char *target, const char *session_id)
{
    struct nat_request request = world_ask(&world, initiator, target);

    return world_coordinate(&world, &request, session_id);
}

START_TEST(coordinate_restarts_a_live_session)
{
    world_punch(&world, "a", "b", 1, id);
    report_failure("a");
    world_pass(&world, 100);
    world_forget(&world);
    ck_assert_int_eq(coordinate("a", "b", id), 0);
    assert_attempts(1);
    ck_assert_str_eq(world_story(&world, 1), "c");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 2);
    ck_assert_int_eq(world_message(&world, 0)->punch_time, world.now.unix_ms + 100);
    /* All counts are set to it: b, who had reported nothing, now reports on attempt 1. */
    report_failure("b");
    assert_attempts(2);
    report_failure("a");
    assert_attempts(2);
    ck_assert_uint_eq(counters()->coordinates_restarted, 1);
}
END_TEST

/* Nothing that a watcher could see has changed. */
START_TEST(restart_while_coordinating_is_not_told)
{
    world_punch(&world, "a", "b", 1, id);
    world_pass(&world, 60);
    world_forget(&world);
    ck_assert_int_eq(coordinate("a", "b", id), 0);
    ck_assert_str_eq(world_story(&world, 1), "");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 2);
    world_pass(&world, 99);
    assert_attempts(0);
    world_pass(&world, 1);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
}
END_TEST

START_TEST(roles_stay_whatever_the_order)
{
    struct nat_request request = world_ask(&world, "b", "a");

    world_punch(&world, "a", "b", 1, id);
    request.initiator_profile = world.easy; /* of b */
    world_forget(&world);
    ck_assert_int_eq(world_coordinate(&world, &request, id), 0);
    ck_assert_str_eq(world_message(&world, 0)->recipient_id, "a");
    ck_assert_int_eq(world_message(&world, 0)->role, NAT_INITIATOR);
    ck_assert_str_eq(world_message(&world, 0)->peer_host, "192.0.2.1");
    ck_assert_str_eq(world_message(&world, 1)->peer_host, "");
    ck_assert(world_message(&world, 0)->profiles[NAT_TARGET] == world.easy);
}
END_TEST

START_TEST(coordinate_punches_what_was_not_one)
{
    const enum nat_strategy strategies[] = {NAT_DIRECT, NAT_RELAY};

    for (int i = 0; i < 2; i++) {
        open_session("a", "b", strategies[i], id);
        ck_assert_int_eq(coordinate("b", "a", id), 0);
        assert_attempts(0);
        /* The profiles that it has stay where none are given. */
        ck_assert_str_eq(world_message(&world, 1)->peer_host, "192.0.2.1");
        ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
        world_forget(&world);
    }
}
END_TEST

START_TEST(coordinate_that_changes_nothing)
{
    char long_id[NAT_ID_MAX + 2];
    struct nat_request request;

    world_punch(&world, "a", "b", 1, id);
    world_forget(&world);
    ck_assert_int_eq(coordinate("a", "c", id), -EACCES);
    ck_assert_int_eq(coordinate("c", "b", id), -EACCES);
    ck_assert_int_eq(coordinate("a", "a", id), -EINVAL);
    ck_assert_int_eq(coordinate("a", "b", ""), -EINVAL);
    memset(long_id, 'x', NAT_ID_MAX + 1);
    long_id[NAT_ID_MAX + 1] = '\0';
    ck_assert_int_eq(coordinate("a", "b", long_id), -EINVAL);
    ck_assert_int_eq(coordinate(long_id, "b", NULL), -EINVAL);
    request = world_ask(&world, "a", "b");
    request.options.punch_timeout_ms = 0;
    ck_assert_int_eq(world_coordinate(&world, &request, NULL), -EINVAL);
    assert_attempts(0);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    world_forget(&world);
    ck_assert_int_eq(coordinate("a", "b", id), -ESTALE);
    assert_session(&world, id, NAT_COMPLETED, NAT_HOLE_PUNCH, 0, NAT_RESULT_SUCCESS);
    ck_assert_uint_eq(world.event_count, 0);
    ck_assert_uint_eq(counters()->coordinates_foreign, 2);
    ck_assert_uint_eq(counters()->coordinates_bad, 5);
    ck_assert_uint_eq(counters()->coordinates_ended, 1);
    ck_assert_uint_eq(counters()->coordinates_made, 0);
}
END_TEST

START_TEST(coordinate_makes_a_session)
{
    struct nat_request request = world_ask(&world, "a", "b");
    char long_id[NAT_ID_MAX + 1];

    request.initiator_profile = world.symmetric; /* it is a punch whatever the rules say */
    request.options.has_watcher = true;
    request.options.watcher = 3;
    ck_assert_int_eq(world_coordinate(&world, &request, NULL), 0);
    ck_assert_str_eq(world_story(&world, 3), "pc");
    ck_assert_uint_eq(strlen(world_message(&world, 0)->session_id), 24);
    memset(long_id, 'y', NAT_ID_MAX);
    long_id[NAT_ID_MAX] = '\0';
    for (int i = 0; i < 3; i++) {
        const char *given = (const char *[]){"s", "of twenty-five characters", long_id}[i];

        world_forget(&world);
        ck_assert_int_eq(coordinate("a", "b", given), 0);
        assert_session(&world, given, NAT_COORDINATING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
        ck_assert_str_eq(world_message(&world, 1)->session_id, given);
    }
    ck_assert_uint_eq(counters()->coordinates_made, 4);
    open_session("b", "a", NAT_RELAY, other);
    ck_assert_str_eq(other, long_id);
}
END_TEST

/* A session id is given to no two sessions, however it came to be known beforehand. */
START_TEST(taken_random_id_is_refused)
{
    struct nat_request request = world_ask(&world, "a", "b");
    struct nat_session_view view;

    memset(request.random, 0, sizeof request.random);
    ck_assert_int_eq(coordinate("x", "y", "AAAAAAAAAAAAAAAAAAAAAA=="), 0);
    request.options.has_watcher = true;
    ck_assert_int_eq(world_request(&world, &request, NULL), -EEXIST);
    ck_assert_int_eq(world_coordinate(&world, &request, NULL), -EEXIST);
    ck_assert_uint_eq(counters()->pairs, 1);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of("AAAAAAAAAAAAAAAAAAAAAA=="), &view), 0);
    ck_assert_mem_eq(view.initiator_id.data, "x", 1);
    request.random[15] = 1;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    ck_assert_str_eq(id, "AAAAAAAAAAAAAAAAAAAAAQ==");
}
END_TEST

/* ---- Arguments and options ---- */

START_TEST(bad_arguments_are_named)
{
    char long_id[NAT_ID_MAX + 2];
    struct nat_request request = world_ask(&world, "", "");

    ck_assert_int_eq(nat_request_check(&request), NAT_ARGUMENT_TARGET_ID);
    ck_assert_int_eq(world_request(&world, &request, NULL), -EINVAL);
    request = world_ask(&world, "", "b");
    ck_assert_int_eq(nat_request_check(&request), NAT_ARGUMENT_NONE);
    memset(long_id, 'x', NAT_ID_MAX + 1);
    long_id[NAT_ID_MAX + 1] = '\0';
    request = world_ask(&world, long_id, long_id);
    ck_assert_int_eq(nat_request_check(&request), NAT_ARGUMENT_INITIATOR_ID);
    request = world_ask(&world, "a", long_id);
    ck_assert_int_eq(nat_request_check(&request), NAT_ARGUMENT_TARGET_ID);
    long_id[NAT_ID_MAX] = '\0';
    request = world_ask(&world, "a", long_id);
    ck_assert_int_eq(nat_request_check(&request), NAT_ARGUMENT_NONE);
    request.options.punch_timeout_ms = 0;
    ck_assert_int_eq(nat_request_check(&request), NAT_ARGUMENT_PUNCH_TIMEOUT);
    ck_assert_int_eq(world_request(&world, &request, NULL), -EINVAL);
    ck_assert_uint_eq(counters()->requests_bad, 2);
    ck_assert_uint_eq(counters()->peers, 0);
}
END_TEST

/* An empty id is a peer like any other. */
START_TEST(empty_id_is_an_id)
{
    struct nat_request request = world_ask(&world, "", "b");

    request.initiator_id.data = NULL;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    request = world_ask(&world, "b", "");
    ck_assert_int_eq(world_request(&world, &request, other), 0);
    ck_assert_str_eq(other, id);
    report_failure("");
    report_failure("z");
    assert_attempts(1);
    request = world_ask(&world, "", "b");
    request.initiator_id.data = NULL;
    ck_assert_int_eq(world_coordinate(&world, &request, id), 0);
}
END_TEST

START_TEST(relay_can_be_refused)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.target_profile = world.symmetric;
    request.initiator_profile = world.easy;
    request.options.allow_relay = false;
    request.options.has_watcher = true;
    ck_assert_int_eq(world_request(&world, &request, NULL), -ENETUNREACH);
    ck_assert_uint_eq(world.event_count, 0);
    ck_assert_uint_eq(counters()->relay_refused, 1);
    ck_assert_uint_eq(counters()->peers, 0);
    request.target_profile = world.cone;
    ck_assert_int_eq(world_request(&world, &request, NULL), 0);
}
END_TEST

/* ---- Watchers ---- */

START_TEST(a_token_is_told_once)
{
    struct nat_request request;

    world_punch(&world, "a", "b", 5, id);
    for (int i = 0; i < 3; i++) {
        request = world_ask(&world, "b", "a");
        request.options.has_watcher = true;
        request.options.watcher = i == 2 ? 6 : 5;
        ck_assert_int_eq(world_request(&world, &request, NULL), 0);
    }
    ck_assert_int_eq(world.held[5], 1);
    world_forget(&world);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    ck_assert_uint_eq(world_count(&world, NAT_NOTIFY), 2);
    ck_assert_uint_eq(world_count(&world, NAT_RELEASE_WATCHER), 2);
    ck_assert_uint_eq(counters()->watchers_refused, 0);
}
END_TEST

START_TEST(a_session_has_only_so_many_watchers)
{
    struct nat_request request;

    world_punch(&world, "a", "b", 0, id);
    for (uint64_t i = 1; i < NAT_WATCHERS_MAX + 5; i++) {
        request = world_ask(&world, "b", "a");
        request.options.has_watcher = true;
        request.options.watcher = i;
        ck_assert_int_eq(world_request(&world, &request, NULL), 0);
    }
    ck_assert_uint_eq(counters()->watchers_refused, 5);
    ck_assert_int_eq(world.held[NAT_WATCHERS_MAX - 1], 1);
    ck_assert_int_eq(world.held[NAT_WATCHERS_MAX], 0);
    world_forget(&world);
    report_failure("a");
    ck_assert_uint_eq(world_count(&world, NAT_NOTIFY), NAT_WATCHERS_MAX);
}
END_TEST

START_TEST(sweeping_is_not_told)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.initiator_profile = world.easy;
    request.target_profile = world.cone;
    request.options.has_watcher = true;
    request.options.watcher = 1;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    world_forget(&world);
    world_pass(&world, 400000);
    ck_assert_uint_eq(world.event_count, 1);
    ck_assert_int_eq(world.events[0].type, NAT_RELEASE_WATCHER);
}
END_TEST

/* News keeps what it was about, even when all of it has gone before it is read. */
START_TEST(unread_actions_outlive_their_session)
{
    struct nat_request request = world_ask(&world, "a", "b");
    struct nat_profile_fields fields = {.reflexive_ip = bytes_of("192.0.2.9"), .reflexive_port = 9};
    struct nat_session_view view;

    ck_assert_int_eq(nat_profile_create(&request.target_profile, &fields), 0);
    request.options.has_watcher = true;
    request.options.watcher = 1;
    world.held[1]++;
    ck_assert_int_eq(nat_request(world.nat, world.now, &request, &view), 0);
    nat_profile_unref(request.target_profile);
    while (nat_next_deadline(world.nat) != UINT64_MAX) {
        world.now.monotonic_ms = nat_next_deadline(world.nat);
        while (nat_tick(world.nat, world.now, 1))
            ;
    }
    ck_assert_uint_eq(counters()->ended, 0);
    world_drain(&world);
    ck_assert_str_eq(world_message(&world, 0)->peer_host, "192.0.2.9");
    ck_assert_str_eq(world_message(&world, 0)->recipient_id, "a");
    ck_assert_str_eq(world_story(&world, 1), "pcececece-");
    ck_assert_uint_eq(counters()->peers, 0);
}
END_TEST

START_TEST(freeing_with_actions_unread)
{
    struct nat_coordinator *nat = NULL;
    struct nat_request request = world_ask(&world, "a", "b");
    struct nat_session_view view;
    struct nat_action action;

    ck_assert_int_eq(nat_coordinator_create(&nat, &world.config), 0);
    request.initiator_profile = world.easy;
    request.options.has_watcher = true;
    for (uint8_t i = 0; i < 100; i++) {
        request.random[0] = i;
        ck_assert_int_eq(nat_request(nat, world.now, &request, &view), 0);
        if (i % 3 == 0)
            nat_report(nat, world.now, view.session_id, bytes_of("a"), NAT_REPORT_SUCCESS);
    }
    ck_assert(nat_next_action(nat, &action));
    nat_coordinator_free(nat);
    nat_coordinator_free(NULL);
}
END_TEST

/* ---- Limits and sweeping ---- */

START_TEST(oldest_pending_session_makes_room)
{
    struct nat_session_view view;
    char ids[3][NAT_ID_MAX + 1];

    open_session("a", "b", NAT_HOLE_PUNCH, ids[0]);
    open_session("c", "d", NAT_RELAY, ids[1]);
    open_session("e", "f", NAT_DIRECT, ids[2]);
    world_forget(&world);
    open_session("a", "b", NAT_HOLE_PUNCH, id);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(ids[1]), &view), -ENOENT);
    ck_assert_uint_eq(counters()->evicted, 1);
    ck_assert_int_eq(coordinate("a", "b", NULL), 0);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(ids[2]), &view), -ENOENT);
    ck_assert_uint_eq(counters()->evicted, 2);
    ck_assert_uint_eq(world_count(&world, NAT_NOTIFY), 0);
    ck_assert_uint_eq(counters()->live[NAT_COORDINATING], 3);
}
END_TEST

START_TEST(overloaded_where_nothing_can_go)
{
    struct nat_request request = world_ask(&world, "e", "f");

    open_session("a", "b", NAT_HOLE_PUNCH, id);
    open_session("a", "b", NAT_HOLE_PUNCH, other);
    open_session("c", "d", NAT_HOLE_PUNCH, other);
    request.options.has_watcher = true;
    ck_assert_int_eq(world_request(&world, &request, NULL), -ENOBUFS);
    ck_assert_int_eq(world_coordinate(&world, &request, NULL), -ENOBUFS);
    ck_assert_uint_eq(counters()->overloaded, 1);
    ck_assert_uint_eq(counters()->coordinates_overloaded, 1);
    ck_assert_uint_eq(counters()->peers, 4);
    /* Joining and restarting need no room. */
    open_session("d", "c", NAT_HOLE_PUNCH, other);
    ck_assert_uint_eq(counters()->joins, 1);
    ck_assert_int_eq(coordinate("a", "b", id), 0);
    /* Nor do sessions that have ended. */
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    ck_assert_int_eq(world_request(&world, &request, NULL), 0);
}
END_TEST

/* A session between new profiles of 1000 bytes each. */
static int request_with_profiles(const char *initiator, const char *target, bool is_punch)
{
    static const char bytes[1000];
    struct nat_request request = world_ask(&world, initiator, target);
    struct nat_profile_fields fields = {
        .mapping = NAT_POLICY_EI,
        .filtering = NAT_POLICY_PD,
        .allocation = NAT_POLICY_PP,
        .can_receive_unsolicited = !is_punch,
        .source = {bytes, sizeof bytes},
    };
    int status;

    ck_assert_int_eq(nat_profile_create(&request.initiator_profile, &fields), 0);
    ck_assert_int_eq(nat_profile_create(&request.target_profile, &fields), 0);
    status = world_request(&world, &request, NULL);
    nat_profile_unref(request.initiator_profile);
    nat_profile_unref(request.target_profile);
    return status;
}

/* Small requests must not keep large profiles for as long as their sessions live. */
START_TEST(profiles_of_sessions_are_bounded)
{
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(request_with_profiles("a", "b", false), 0);
    ck_assert_uint_eq(counters()->evicted, 8);
    ck_assert_uint_eq(counters()->profile_bytes, 4000);
    /* One that needs more than there is pushes out all others, but not itself. */
    ck_assert_int_eq(request_with_profiles("c", "d", true), 0);
    ck_assert_int_eq(request_with_profiles("e", "f", true), 0);
    ck_assert_uint_eq(counters()->evicted, 10);
    ck_assert_int_eq(request_with_profiles("g", "h", false), 0);
    ck_assert_uint_eq(counters()->live[NAT_PENDING], 1);
    ck_assert_uint_eq(counters()->profile_bytes, 6000);
    ck_assert_int_eq(request_with_profiles("i", "j", true), 0);
    ck_assert_uint_eq(counters()->live[NAT_PENDING], 0);
    ck_assert_int_eq(request_with_profiles("k", "l", true), -ENOBUFS);
    ck_assert_uint_eq(counters()->overloaded, 1);
    ck_assert_uint_eq(counters()->profile_bytes, 6000);
}
END_TEST

/* A session of ids of 20 bytes each. */
static int request_with_long_ids(char name, bool is_punch)
{
    char ids[2][21];

    for (int i = 0; i < 2; i++) {
        memset(ids[i], name + i, sizeof ids[i] - 1);
        ids[i][sizeof ids[i] - 1] = '\0';
    }
    struct nat_request request = world_ask(&world, ids[0], ids[1]);
    request.initiator_profile = world.easy;
    request.target_profile = is_punch ? world.easy : world.symmetric;
    return world_request(&world, &request, id);
}

START_TEST(long_ids_of_sessions_are_bounded)
{
    for (char name = 'a'; name < 'm'; name += 2)
        ck_assert_int_eq(request_with_long_ids(name, false), 0);
    ck_assert_uint_eq(counters()->evicted, 3);
    ck_assert_uint_eq(counters()->id_bytes, 120);
    /* Of those that punch none goes; one that has ended is forgotten. */
    for (char name = 'A'; name <= 'E'; name += 2)
        ck_assert_int_eq(request_with_long_ids(name, true), 0);
    ck_assert_uint_eq(counters()->live[NAT_PENDING], 0);
    ck_assert_int_eq(request_with_long_ids('G', true), -ENOBUFS);
    ck_assert_int_eq(world_report(&world, id, "x", NAT_REPORT_SUCCESS), 0);
    ck_assert_int_eq(request_with_long_ids('G', true), 0);
    ck_assert_uint_eq(counters()->ended, 0);
    ck_assert_uint_eq(counters()->id_bytes, 120);
}
END_TEST

START_TEST(evicted_watchers_are_released)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.initiator_profile = world.easy;
    request.target_profile = world.symmetric;
    request.options.has_watcher = true;
    request.options.watcher = 4;
    ck_assert_int_eq(world_request(&world, &request, NULL), 0);
    for (int i = 0; i < 3; i++)
        open_session("a", "b", NAT_HOLE_PUNCH, id);
    ck_assert_int_eq(world.held[4], 0);
    ck_assert_str_eq(world_story(&world, 4), "p");
}
END_TEST

START_TEST(nothing_fits_into_no_room)
{
    struct nat_coordinator *nat = NULL;
    struct nat_request request = world_ask(&world, "a", "b");
    struct nat_session_view view;
    struct nat_config config = world.config;

    config.max_sessions = 0;
    ck_assert_int_eq(nat_coordinator_create(&nat, &config), 0);
    ck_assert_int_eq(nat_request(nat, world.now, &request, &view), -ENOBUFS);
    request.target_profile = world.cone;
    request.initiator_profile = world.easy;
    ck_assert_int_eq(nat_request(nat, world.now, &request, &view), -ENOBUFS);
    nat_coordinator_free(nat);
    config.punch_timeout_ms = 0;
    ck_assert_int_eq(nat_coordinator_create(&nat, &config), -EINVAL);
}
END_TEST

START_TEST(ended_sessions_go_every_thirty_seconds)
{
    struct nat_session_view view;

    world_punch(&world, "a", "b", 1, id);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    world_pass(&world, 29999);
    world_punch(&world, "a", "b", 1, other);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(id), &view), 0);
    world_pass(&world, 1);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(id), &view), -ENOENT);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(other), &view), 0);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), -ENOENT);
    ck_assert_int_eq(world_report(&world, other, "a", NAT_REPORT_SUCCESS), 0);
    world_pass(&world, 29999);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(other), &view), 0);
    world_pass(&world, 1);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(other), &view), -ENOENT);
    ck_assert_uint_eq(counters()->swept_ended, 2);
    ck_assert(nat_next_deadline(world.nat) == UINT64_MAX);
    /* Its id is free again. */
    ck_assert_int_eq(coordinate("x", "y", id), 0);
}
END_TEST

START_TEST(old_sessions_go_alive)
{
    struct nat_session_view view;

    open_session("a", "b", NAT_DIRECT, id);
    world_pass(&world, 1);
    open_session("a", "b", NAT_RELAY, other);
    world_pass(&world, 300000 - 1);
    /* Swept at an age of 300 s, which is not older than that. */
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(id), &view), 0);
    world_pass(&world, 29999);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(id), &view), 0);
    world_pass(&world, 1);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(id), &view), -ENOENT);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(other), &view), -ENOENT);
    ck_assert_uint_eq(counters()->swept_expired, 2);
    ck_assert_uint_eq(counters()->swept_ended, 0);
}
END_TEST

START_TEST(old_punches_go_too)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.options.max_punch_attempts = UINT32_MAX;
    request.options.punch_timeout_ms = UINT32_MAX;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    world_pass(&world, 330000);
    ck_assert_uint_eq(counters()->swept_expired, 1);
    ck_assert_uint_eq(counters()->live[NAT_EXECUTING], 0);
    ck_assert(nat_next_deadline(world.nat) == UINT64_MAX);
}
END_TEST

/* However much is due, one tick touches no more than its budget, and the next goes on. */
START_TEST(ticks_keep_to_their_budget)
{
    unsigned ticks = 0;

    for (int i = 0; i < 100; i++) {
        open_session("a", "b", NAT_HOLE_PUNCH, id);
        open_session("c", "d", NAT_RELAY, id);
        world_forget(&world);
    }
    world.now.monotonic_ms += 1000;
    ck_assert(nat_tick(world.nat, world.now, 60));
    ck_assert_uint_eq(counters()->live[NAT_EXECUTING], 60);
    ck_assert(!nat_tick(world.nat, world.now, 60));
    ck_assert_uint_eq(counters()->live[NAT_EXECUTING], 100);
    world.now.monotonic_ms += 3600 * 1000;
    for (bool more = true; more; ticks++) {
        uint64_t before = counters()->swept_expired + counters()->retries;

        more = nat_tick(world.nat, world.now, 10);
        ck_assert_uint_le(counters()->swept_expired + counters()->retries - before, 10);
        world_drain(&world);
        world_forget(&world);
    }
    ck_assert_uint_ge(ticks, 30);
    ck_assert_uint_eq(counters()->swept_expired, 200);
}
END_TEST

/* A sweep is of what had ended when it began; who ends meanwhile is for the next. */
START_TEST(slow_sweep_leaves_what_ends_meanwhile)
{
    struct nat_session_view view;
    char last[NAT_ID_MAX + 1];

    open_session("a", "b", NAT_RELAY, last);
    for (int i = 0; i < 4; i++) {
        open_session("a", "b", NAT_RELAY, id);
        ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    }
    world.now.monotonic_ms += NAT_SWEEP_MS;
    ck_assert(nat_tick(world.nat, world.now, 2));
    world.now.monotonic_ms += 1;
    ck_assert_int_eq(world_report(&world, last, "a", NAT_REPORT_SUCCESS), 0);
    ck_assert(!nat_tick(world.nat, world.now, 100));
    ck_assert_uint_eq(counters()->swept_ended, 4);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(last), &view), 0);
    world.now.monotonic_ms += NAT_SWEEP_MS - 2;
    nat_tick(world.nat, world.now, 100);
    ck_assert_uint_eq(counters()->swept_ended, 4);
    world.now.monotonic_ms += 1;
    nat_tick(world.nat, world.now, 100);
    ck_assert_uint_eq(counters()->swept_ended, 5);
}
END_TEST

/* ---- Cursors ---- */

static void assert_next(struct nat_cursor *cursor, const char *expected)
{
    struct nat_session_view view;

    ck_assert(nat_cursor_next(cursor, &view));
    ck_assert_uint_eq(view.session_id.len, strlen(expected));
    ck_assert_mem_eq(view.session_id.data, expected, view.session_id.len);
}

START_TEST(cursor_shows_the_living_newest_first)
{
    struct nat_cursor *cursor = NULL, *second = NULL;
    struct nat_session_view view;

    for (int i = 0; i < 6; i++) {
        char name[2] = {(char)('0' + i), '\0'};

        ck_assert_int_eq(coordinate("a", "b", name), 0);
    }
    ck_assert_int_eq(world_report(&world, "4", "a", NAT_REPORT_SUCCESS), 0);
    ck_assert_int_eq(nat_cursor_open(world.nat, &cursor), 0);
    ck_assert_int_eq(nat_cursor_open(world.nat, &second), 0);
    ck_assert_int_eq(coordinate("a", "b", "new"), 0);
    assert_next(cursor, "5");
    assert_next(second, "5");
    assert_next(cursor, "3");
    /* The one shown last, the one next, and one far off end. */
    ck_assert_int_eq(world_report(&world, "3", "a", NAT_REPORT_SUCCESS), 0);
    ck_assert_int_eq(world_report(&world, "2", "a", NAT_REPORT_SUCCESS), 0);
    ck_assert_int_eq(world_report(&world, "0", "a", NAT_REPORT_SUCCESS), 0);
    assert_next(cursor, "1");
    ck_assert(!nat_cursor_next(cursor, &view));
    ck_assert(!nat_cursor_next(cursor, &view));
    assert_next(second, "1");
    nat_cursor_close(cursor);
    ck_assert(!nat_cursor_next(second, &view));
    nat_cursor_close(second);
    nat_cursor_close(NULL);
}
END_TEST

START_TEST(cursor_does_not_mind_the_sweep)
{
    struct nat_cursor *cursors[4];
    struct nat_session_view view;

    for (int i = 0; i < 10; i++)
        open_session("a", "b", NAT_RELAY, id);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(nat_cursor_open(world.nat, &cursors[i]), 0);
        for (int j = 0; j < 3 * i; j++)
            ck_assert(nat_cursor_next(cursors[i], &view));
    }
    nat_cursor_close(cursors[2]);
    world_pass(&world, 400000);
    ck_assert_uint_eq(counters()->live[NAT_PENDING], 0);
    ck_assert(!nat_cursor_next(cursors[0], &view));
    open_session("a", "b", NAT_RELAY, id);
    ck_assert(!nat_cursor_next(cursors[1], &view));
    nat_cursor_close(cursors[0]);
    nat_cursor_close(cursors[1]);
    nat_cursor_close(cursors[3]);
}
END_TEST

Suite *suite_nat_coordinator(void)
{
    Suite *suite = suite_create("nat_coordinator");
    TCase *tcase = tcase_create("sentences"), *small = tcase_create("limits");
    TCase *small_profiles = tcase_create("limit of profiles");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, one_attempt_reported_by_both_counts_once);
    tcase_add_test(tcase, one_reporter_moves_on_each_time);
    tcase_add_test(tcase, strangers_are_one_third_reporter);
    tcase_add_test(tcase, timeout_brings_counts_up_to_date);
    tcase_add_test(tcase, reports_that_change_nothing);
    tcase_add_test(tcase, huge_session_ids_are_unknown);
    tcase_add_test(tcase, opposite_request_joins);
    tcase_add_test(tcase, same_direction_makes_a_new_session);
    tcase_add_test(tcase, only_living_punches_are_joined);
    tcase_add_test(tcase, newest_punch_is_joined);
    tcase_add_test(tcase, coordinate_restarts_a_live_session);
    tcase_add_test(tcase, restart_while_coordinating_is_not_told);
    tcase_add_test(tcase, roles_stay_whatever_the_order);
    tcase_add_test(tcase, coordinate_punches_what_was_not_one);
    tcase_add_test(tcase, coordinate_that_changes_nothing);
    tcase_add_test(tcase, coordinate_makes_a_session);
    tcase_add_test(tcase, taken_random_id_is_refused);
    tcase_add_test(tcase, bad_arguments_are_named);
    tcase_add_test(tcase, empty_id_is_an_id);
    tcase_add_test(tcase, relay_can_be_refused);
    tcase_add_test(tcase, a_token_is_told_once);
    tcase_add_test(tcase, a_session_has_only_so_many_watchers);
    tcase_add_test(tcase, sweeping_is_not_told);
    tcase_add_test(tcase, unread_actions_outlive_their_session);
    tcase_add_test(tcase, freeing_with_actions_unread);
    tcase_add_test(tcase, nothing_fits_into_no_room);
    tcase_add_test(tcase, ended_sessions_go_every_thirty_seconds);
    tcase_add_test(tcase, old_sessions_go_alive);
    tcase_add_test(tcase, old_punches_go_too);
    tcase_add_test(tcase, ticks_keep_to_their_budget);
    tcase_add_test(tcase, slow_sweep_leaves_what_ends_meanwhile);
    tcase_add_test(tcase, cursor_shows_the_living_newest_first);
    tcase_add_test(tcase, cursor_does_not_mind_the_sweep);
    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(small, setup_small, teardown);
    tcase_add_test(small, oldest_pending_session_makes_room);
    tcase_add_test(small, overloaded_where_nothing_can_go);
    tcase_add_test(small, evicted_watchers_are_released);
    suite_add_tcase(suite, small);
    tcase_add_checked_fixture(small_profiles, setup_small_profiles, teardown);
    tcase_add_test(small_profiles, profiles_of_sessions_are_bounded);
    suite_add_tcase(suite, small_profiles);
    TCase *small_ids = tcase_create("small ids");
    tcase_add_checked_fixture(small_ids, setup_small_ids, teardown);
    tcase_add_test(small_ids, long_ids_of_sessions_are_bounded);
    suite_add_tcase(suite, small_ids);
    return suite;
}
