/* SPDX-License-Identifier: Apache-2.0 */
/* The state table of a session, row by row, and what both peers are told. */
#include "nat_world.h"
#include "suites.h"

#include <check.h>
#include <errno.h>
#include <string.h>

static struct world world;
static char id[NAT_ID_MAX + 1], other[NAT_ID_MAX + 1];

static void setup(void)
{
    world_init(&world);
    world_start(&world);
}

static void teardown(void)
{
    world_free(&world);
}

static void report_failure(const char *reporter)
{
    ck_assert_int_eq(world_report(&world, id, reporter, NAT_REPORT_FAILURE), 0);
}

static void request_with(struct nat_profile *initiator, struct nat_profile *target)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.initiator_profile = initiator;
    request.target_profile = target;
    request.options.has_watcher = true;
    request.options.watcher = 1;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
}

START_TEST(direct_and_relay_wait_as_pending)
{
    request_with(world.easy, world.cone);
    assert_session(&world, id, NAT_PENDING, NAT_DIRECT, 0, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "p");
    world_forget(&world);
    request_with(world.easy, world.symmetric);
    assert_session(&world, id, NAT_PENDING, NAT_RELAY, 0, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "p");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 0);
    world_pass(&world, 100000);
    assert_session(&world, id, NAT_PENDING, NAT_RELAY, 0, NAT_RESULT_NONE);
    ck_assert_uint_eq(nat_counters(world.nat)->answers[NAT_DIRECT], 1);
    ck_assert_uint_eq(nat_counters(world.nat)->answers[NAT_RELAY], 1);
}
END_TEST

START_TEST(hole_punch_coordinates_at_once)
{
    world_punch(&world, "a", "b", 1, id);
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "pc");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 2);
}
END_TEST

START_TEST(session_is_the_documented_map)
{
    struct nat_request request = world_ask(&world, "a", "b");
    struct nat_session_view view;

    for (unsigned i = 0; i < NAT_RANDOM_LEN; i++)
        request.random[i] = (uint8_t)(i * 17);
    request.target_profile = world.easy;
    ck_assert_int_eq(nat_request(world.nat, world.now, &request, &view), 0);
    ck_assert_uint_eq(view.session_id.len, 24);
    ck_assert_mem_eq(view.session_id.data, "ABEiM0RVZneImaq7zN3u/w==", 24);
    ck_assert(view.initiator_id.len == 1 && memcmp(view.initiator_id.data, "a", 1) == 0);
    ck_assert(view.target_id.len == 1 && memcmp(view.target_id.data, "b", 1) == 0);
    ck_assert(view.initiator_profile == NULL && view.target_profile == world.easy);
    ck_assert_int_eq(view.created_at, 1700000000);
}
END_TEST

START_TEST(both_peers_are_told_the_same_instant)
{
    struct nat_request request = world_ask(&world, "a", "b");
    const struct event *to_a, *to_b;

    request.initiator_profile = world.easy;
    request.target_profile = world.easy;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    to_a = world_message(&world, 0);
    to_b = world_message(&world, 1);
    ck_assert_str_eq(to_a->recipient_id, "a");
    ck_assert_str_eq(to_a->peer_id, "b");
    ck_assert_int_eq(to_a->role, NAT_INITIATOR);
    ck_assert_str_eq(to_b->recipient_id, "b");
    ck_assert_str_eq(to_b->peer_id, "a");
    ck_assert_int_eq(to_b->role, NAT_TARGET);
    for (int i = 0; i < 2; i++) {
        const struct event *message = world_message(&world, (size_t)i);

        ck_assert_str_eq(message->session_id, id);
        ck_assert_int_eq(message->punch_time, 1700000000123 + 100);
        ck_assert_str_eq(message->peer_host, "192.0.2.1");
        ck_assert_uint_eq(message->port_count, 1);
        ck_assert_uint_eq(message->ports[0], 4000);
    }
}
END_TEST

START_TEST(each_peer_is_told_about_the_other)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.target_profile = world.easy;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    ck_assert_str_eq(world_message(&world, 0)->peer_host, "192.0.2.1");
    ck_assert_str_eq(world_message(&world, 1)->peer_host, "");
    ck_assert_uint_eq(world_message(&world, 1)->port_count, 3);
    ck_assert_uint_eq(world_message(&world, 1)->ports[0], 4433);
}
END_TEST

START_TEST(executes_at_punch_time)
{
    world_punch(&world, "a", "b", 1, id);
    world_pass(&world, 99);
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    world_pass(&world, 1);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "pce");
}
END_TEST

START_TEST(success_completes_any_live_state)
{
    uint64_t wait[] = {0, 100, 100 + 5000 + 50};
    const char *stories[] = {"pc+", "pce+", "pcec+"};

    for (int i = 0; i < 3; i++) {
        world_forget(&world);
        world_punch(&world, "a", "b", 1, id);
        world_pass(&world, wait[i]);
        ck_assert_int_eq(world_report(&world, id, "b", NAT_REPORT_SUCCESS), 0);
        assert_session(&world, id, NAT_COMPLETED, NAT_HOLE_PUNCH, i == 2, NAT_RESULT_SUCCESS);
        ck_assert_str_eq(world_story(&world, 1), stories[i]);
    }
    request_with(world.easy, world.cone);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    assert_session(&world, id, NAT_COMPLETED, NAT_DIRECT, 0, NAT_RESULT_SUCCESS);
    request_with(world.easy, world.symmetric);
    ck_assert_int_eq(world_report(&world, id, "x", NAT_REPORT_SUCCESS), 0);
    assert_session(&world, id, NAT_COMPLETED, NAT_RELAY, 0, NAT_RESULT_SUCCESS);
    ck_assert_uint_eq(nat_counters(world.nat)->completed, 5);
}
END_TEST

START_TEST(failed_attempt_is_tried_again)
{
    world_punch(&world, "a", "b", 1, id);
    world_pass(&world, 250);
    world_forget(&world);
    report_failure("a");
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "c");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 2);
    ck_assert_int_eq(world_message(&world, 0)->punch_time, world.now.unix_ms + 100);
    ck_assert_int_eq(world_message(&world, 1)->punch_time, world.now.unix_ms + 100);
    /* A failure before punch_time counts just so. */
    report_failure("a");
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 2, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "cc");
    world_pass(&world, 100);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 2, NAT_RESULT_NONE);
}
END_TEST

/* max_punch_attempts 3: attempts 0, 1, 2 and 3. */
START_TEST(last_failed_attempt_falls_back_to_relay)
{
    world_punch(&world, "a", "b", 1, id);
    for (uint32_t i = 0; i < 3; i++) {
        world_pass(&world, 100);
        report_failure("a");
        assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, i + 1, NAT_RESULT_NONE);
    }
    world_pass(&world, 100);
    report_failure("a");
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 3, NAT_RESULT_UNREACHABLE);
    ck_assert_str_eq(world_story(&world, 1), "pcececece-");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 8);
    ck_assert_uint_eq(nat_counters(world.nat)->retries, 3);
    ck_assert_uint_eq(nat_counters(world.nat)->failed_unreachable, 1);
}
END_TEST

START_TEST(fails_while_coordinating_too)
{
    world_punch(&world, "a", "b", 1, id);
    for (int i = 0; i < 4; i++)
        report_failure("a");
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 3, NAT_RESULT_UNREACHABLE);
    ck_assert_str_eq(world_story(&world, 1), "pcccc-");
}
END_TEST

START_TEST(no_result_is_a_failed_attempt)
{
    world_punch(&world, "a", "b", 1, id);
    world_pass(&world, 100 + 4999);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    world_pass(&world, 1);
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    world_pass(&world, 2 * 5100 + 5099);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 3, NAT_RESULT_NONE);
    world_pass(&world, 1);
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 3, NAT_RESULT_TIMEOUT);
    ck_assert_str_eq(world_story(&world, 1), "pcececece-");
    ck_assert_uint_eq(nat_counters(world.nat)->failed_timeout, 1);
}
END_TEST

START_TEST(direct_that_failed_is_punched)
{
    request_with(world.easy, world.cone);
    world_forget(&world);
    report_failure("a");
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    ck_assert_str_eq(world_story(&world, 1), "c");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 2);
    ck_assert_str_eq(world_message(&world, 0)->peer_host, "2001:db8::1");
    /* The other peer's report is about the same direct try. */
    report_failure("b");
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    for (int i = 0; i < 3; i++)
        report_failure("b");
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 3, NAT_RESULT_UNREACHABLE);
}
END_TEST

START_TEST(direct_that_cannot_be_punched_fails)
{
    request_with(world.symmetric, world.cone);
    report_failure("a");
    assert_session(&world, id, NAT_FAILED, NAT_DIRECT, 0, NAT_RESULT_UNREACHABLE);
    ck_assert_str_eq(world_story(&world, 1), "p-");
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 0);
}
END_TEST

/* Attempts 0 to max are made, and the direct try was attempt 0. */
START_TEST(direct_without_retries_fails)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.initiator_profile = world.easy;
    request.target_profile = world.cone;
    request.options.max_punch_attempts = 0;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    report_failure("b");
    assert_session(&world, id, NAT_FAILED, NAT_DIRECT, 0, NAT_RESULT_UNREACHABLE);
}
END_TEST

START_TEST(relay_that_failed_fails)
{
    request_with(world.easy, world.symmetric);
    report_failure("b");
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 0, NAT_RESULT_UNREACHABLE);
    ck_assert_str_eq(world_story(&world, 1), "p-");
}
END_TEST

/* The last news shows the session whole; afterwards it keeps nothing that is not needed. */
START_TEST(end_is_told_with_profiles)
{
    struct nat_session_view view;

    request_with(world.easy, world.cone);
    world_forget(&world);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    ck_assert_uint_eq(world.event_count, 2);
    ck_assert_int_eq(world.events[0].type, NAT_NOTIFY);
    ck_assert(world.events[0].profiles[0] == world.easy);
    ck_assert(world.events[0].profiles[1] == world.cone);
    ck_assert_int_eq(world.events[0].result, NAT_RESULT_SUCCESS);
    ck_assert_str_eq(world.events[0].initiator_id, "a");
    ck_assert_str_eq(world.events[0].target_id, "b");
    ck_assert_int_eq(world.events[1].type, NAT_RELEASE_WATCHER);
    ck_assert_int_eq(world.held[1], 0);
    ck_assert_int_eq(nat_session_find(world.nat, bytes_of(id), &view), 0);
    ck_assert(view.initiator_profile == NULL && view.target_profile == NULL);
}
END_TEST

START_TEST(stale_timer_never_touches_a_later_attempt)
{
    world_punch(&world, "a", "b", 1, id);
    world_pass(&world, 5000);
    report_failure("a"); /* the timeout of attempt 0 would be in 100 ms */
    world_pass(&world, 99);
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    world_pass(&world, 1);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    world_pass(&world, 4999);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    ck_assert_int_eq(world_report(&world, id, "a", NAT_REPORT_SUCCESS), 0);
    world_pass(&world, 10000);
    assert_session(&world, id, NAT_COMPLETED, NAT_HOLE_PUNCH, 1, NAT_RESULT_SUCCESS);
}
END_TEST

/* The user's clock may jump; only what users read follows it. */
START_TEST(wall_clock_decides_nothing)
{
    world_punch(&world, "a", "b", 1, id);
    world.now.unix_ms -= 3600 * 1000;
    world_pass(&world, 100);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    world.now.unix_ms += 7200 * 1000;
    world_pass(&world, 4999);
    assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    world_forget(&world);
    world_pass(&world, 1);
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    ck_assert_int_eq(world_message(&world, 0)->punch_time, world.now.unix_ms + 100);
}
END_TEST

/* A tick that comes late does all that was due, and each attempt gets its full time after it. */
START_TEST(late_tick_starts_from_now)
{
    world_punch(&world, "a", "b", 1, id);
    world.now.monotonic_ms += 20000;
    world.now.unix_ms += 20000;
    world_forget(&world);
    while (nat_tick(world.nat, world.now, 1))
        ;
    world_drain(&world);
    ck_assert_str_eq(world_story(&world, 1), "ec");
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    ck_assert_int_eq(world_message(&world, 0)->punch_time, world.now.unix_ms + 100);
}
END_TEST

START_TEST(options_of_a_request_hold_for_it)
{
    struct nat_request request = world_ask(&world, "a", "b");

    request.options.max_punch_attempts = 1;
    request.options.punch_timeout_ms = 10;
    ck_assert_int_eq(world_request(&world, &request, id), 0);
    world_pass(&world, 110);
    assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 1, NAT_RESULT_NONE);
    world_pass(&world, 110);
    assert_session(&world, id, NAT_FAILED, NAT_RELAY, 1, NAT_RESULT_TIMEOUT);
    request = world_ask(&world, "a", "b");
    request.options.max_punch_attempts = 0;
    ck_assert_int_eq(world_request(&world, &request, other), 0);
    ck_assert_int_eq(world_report(&world, other, "b", NAT_REPORT_FAILURE), 0);
    assert_session(&world, other, NAT_FAILED, NAT_RELAY, 0, NAT_RESULT_UNREACHABLE);
}
END_TEST

/* A slow peer puts the next punch_time off for both, within bounds, and only while it has sessions.
 */
START_TEST(lead_adapts_to_the_slower_peer)
{
    static const struct {
        uint32_t a, b;
        int64_t lead;
    } rows[] = {{0, 0, 100},     {100, 50, 100},  {101, 0, 201},
                {50, 900, 1000}, {2900, 0, 3000}, {UINT32_MAX, 1, 3000}};

    nat_peer_delay(world.nat, bytes_of("a"), 500);
    world_punch(&world, "a", "b", 1, id);
    ck_assert_int_eq(world_message(&world, 0)->punch_time, world.now.unix_ms + 100);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nat_request request = world_ask(&world, "a", "b");

        nat_peer_delay(world.nat, bytes_of("a"), rows[i].a);
        nat_peer_delay(world.nat, bytes_of("b"), rows[i].b);
        world_forget(&world);
        ck_assert_int_eq(world_coordinate(&world, &request, id), 0);
        for (size_t k = 0; k < 2; k++)
            ck_assert_int_eq(world_message(&world, k)->punch_time,
                             world.now.unix_ms + rows[i].lead);
        world_pass(&world, (uint64_t)rows[i].lead - 1);
        assert_session(&world, id, NAT_COORDINATING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
        world_pass(&world, 1);
        assert_session(&world, id, NAT_EXECUTING, NAT_HOLE_PUNCH, 0, NAT_RESULT_NONE);
    }
    ck_assert_uint_eq(nat_counters(world.nat)->leads_extended, 4);
}
END_TEST

Suite *suite_nat_session(void)
{
    Suite *suite = suite_create("nat_session");
    TCase *tcase = tcase_create("states");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, direct_and_relay_wait_as_pending);
    tcase_add_test(tcase, hole_punch_coordinates_at_once);
    tcase_add_test(tcase, session_is_the_documented_map);
    tcase_add_test(tcase, both_peers_are_told_the_same_instant);
    tcase_add_test(tcase, each_peer_is_told_about_the_other);
    tcase_add_test(tcase, executes_at_punch_time);
    tcase_add_test(tcase, lead_adapts_to_the_slower_peer);
    tcase_add_test(tcase, success_completes_any_live_state);
    tcase_add_test(tcase, failed_attempt_is_tried_again);
    tcase_add_test(tcase, last_failed_attempt_falls_back_to_relay);
    tcase_add_test(tcase, fails_while_coordinating_too);
    tcase_add_test(tcase, no_result_is_a_failed_attempt);
    tcase_add_test(tcase, direct_that_failed_is_punched);
    tcase_add_test(tcase, direct_that_cannot_be_punched_fails);
    tcase_add_test(tcase, direct_without_retries_fails);
    tcase_add_test(tcase, relay_that_failed_fails);
    tcase_add_test(tcase, end_is_told_with_profiles);
    tcase_add_test(tcase, stale_timer_never_touches_a_later_attempt);
    tcase_add_test(tcase, wall_clock_decides_nothing);
    tcase_add_test(tcase, late_tick_starts_from_now);
    tcase_add_test(tcase, options_of_a_request_hold_for_it);
    suite_add_tcase(suite, tcase);
    return suite;
}
