/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of peers: their arguments, and the wait for the profiles of both. */
#include "node_world.h"
#include "suites.h"

#include "base/log.h"
#include "macula/coordinator.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static struct node_world world;
static struct profile_cache embedded;
static struct coordinator co;
static struct caller caller;
static struct buffer args;

static void set_up(void)
{
    struct coordinator_options options;

    coordinator_options_init(&options);
    node_world_start(&world);
    embedded = (struct profile_cache){.server.process.node = world.node};
    ck_assert_int_eq(coordinator_start(&co, world.node, &embedded, &options), 0);
    caller = (struct caller){
        .kind = CALLER_GEN,
        .node = world.node,
        .pid = world.pid,
        .tag = slice_of("w\3tag"),
        .called = process_pid(&co.server.process),
    };
    buffer_init(&args);
}

static void tear_down(void)
{
    buffer_free(&args);
    gen_server_stop(&co.server, "shutdown");
    coordinator_close(&co);
    node_world_stop(&world);
    coordinator_free(&co);
}

static void put_id(const char *id)
{
    term_put_binary(&args, slice_of(id));
}

static void put_ids(void)
{
    buffer_reset(&args, 0);
    put_id("alice");
    put_id("bob");
}

/* Asks with the ids, and one option (NULL: none) that is an atom. */
static void ask(const char *option, const char *value)
{
    put_ids();
    term_put_map(&args, option ? 1 : 0);
    if (option)
        term_put_atom(&args, option);
    if (option)
        term_put_atom(&args, value);
    request_connection(&co.requests, &caller, cursor_of(buffer_slice(&args)));
}

static bool is_answered(const char *beginning)
{
    return strncmp(node_world_told(&world), beginning, strlen(beginning)) == 0;
}

/* Until all of its services are known to be absent, the peer may have a profile. */
static void begin_search(void)
{
    services_node_up(&co.services, world.peer);
    while (*node_world_told(&world))
        ;
}

static void end_search(void)
{
    connection_close(world.peer, LOG_INFO, "test");
}

START_TEST(an_answer_at_once)
{
    ask(NULL, NULL);
    ck_assert(is_answered("{tag, {ok, hole_punch, #Bin"));
    ask("what", "ever");
    ck_assert(is_answered("{tag, {ok, hole_punch, #Bin"));
    ck_assert_uint_eq(co.requests.counters.requests, 2);
    ck_assert_uint_eq(co.requests.waiting_count, 0);
    ck_told(&world, "");
}
END_TEST

static void refused(const char *argument)
{
    char expected[64];

    snprintf(expected, sizeof expected, "{tag, {error, {bad_argument, %s}}}", argument);
    request_connection(&co.requests, &caller, cursor_of(buffer_slice(&args)));
    ck_told(&world, expected);
}

START_TEST(the_first_bad_argument_is_named)
{
    static const char *const options[] = {"max_punch_attempts", "punch_timeout_ms", "allow_relay",
                                          "notify"};
    static char long_id[NAT_ID_MAX + 2];

    memset(long_id, 'x', NAT_ID_MAX + 1);
    term_put_atom(&args, "alice");
    refused("initiator_id");
    buffer_reset(&args, 0);
    put_id("alice");
    term_put_atom(&args, "bob");
    refused("target_id");
    buffer_reset(&args, 0);
    put_id(long_id);
    term_put_atom(&args, "bob");
    refused("initiator_id");
    buffer_reset(&args, 0);
    put_id("alice");
    put_id(long_id);
    term_put_map(&args, 0);
    refused("target_id");
    put_ids();
    term_put_nil(&args);
    refused("opts");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        put_ids();
        term_put_map(&args, 1);
        term_put_atom(&args, options[i]);
        term_put_atom(&args, "x");
        refused(options[i]);
    }
    ck_assert_uint_eq(co.requests.counters.bad_arguments, 9);
}
END_TEST

START_TEST(a_request_waits_for_profiles)
{
    begin_search();
    ask(NULL, NULL);
    ask(NULL, NULL);
    ck_told(&world, "");
    ck_assert_uint_eq(co.requests.waiting_count, 2);
    ck_assert_uint_gt(co.requests.waiting_bytes, 0);
    /* What they were read from is gone. */
    memset(buffer_data(&args), 0, buffer_size(&args));
    end_search();
    ck_assert_uint_eq(co.requests.waiting_count, 0);
    ck_assert_uint_eq(co.requests.waiting_bytes, 0);
    ck_assert_uint_eq(nat_counters(co.driver.nat)->live[NAT_COORDINATING], 2);
    /* Their node is gone, too. */
    ck_assert_uint_gt(world.node->counters.messages_undeliverable, 0);
}
END_TEST

START_TEST(paused_it_waits_on)
{
    begin_search();
    ask(NULL, NULL);
    requests_pause(&co.requests);
    end_search();
    ck_assert_uint_eq(co.requests.waiting_count, 1);
    ck_assert_uint_eq(lookup_in_flight(&co.lookup), 0);
    requests_resume(&co.requests);
    ck_assert_uint_eq(co.requests.waiting_count, 0);
    ck_assert_uint_eq(nat_counters(co.driver.nat)->live[NAT_COORDINATING], 1);
}
END_TEST

START_TEST(one_too_many_is_refused)
{
    begin_search();
    size_t before = co.requests.waiting_bytes;
    co.requests.waiting_bytes = (size_t)64 << 20;
    ask(NULL, NULL);
    ck_told(&world, "{tag, {error, overloaded}}");
    ck_assert_uint_eq(co.requests.counters.overloaded, 1);
    co.requests.waiting_bytes = before;
}
END_TEST

START_TEST(those_that_wait_are_freed)
{
    begin_search();
    ask(NULL, NULL);
    ck_assert_uint_eq(co.requests.waiting_count, 1);
}
END_TEST

static void coordinate(void)
{
    put_ids();
    term_put_map(&args, 1);
    term_put_atom(&args, "session_id");
    put_id("session");
    request_coordinate(&co.requests, world.peer, cursor_of(buffer_slice(&args)));
}

static void report(const char *id, const char *reporter, const char *result)
{
    buffer_reset(&args, 0);
    put_id(id);
    put_id(reporter);
    term_put_atom(&args, result);
    request_report(&co.requests, world.peer, cursor_of(buffer_slice(&args)));
}

START_TEST(a_punch_is_coordinated_and_reported)
{
    const struct nat_counters *n = nat_counters(co.driver.nat);

    coordinate();
    ck_assert_uint_eq(n->live[NAT_COORDINATING], 1);
    report("what", "alice", "success");
    ck_assert_uint_eq(n->live[NAT_COORDINATING], 1);
    fake_log_take();
    report("session", "alice", "success");
    ck_assert_uint_eq(n->live[NAT_COORDINATING], 0);
    ck_assert_uint_eq(n->completed, 1);
    report("session", "bob", "success"); /* the rule, and no line for the log */
    ck_assert_str_eq(fake_log_take(), "");
    ck_told(&world, "");
}
END_TEST

START_TEST(casts_with_bad_arguments_are_counted)
{
    term_put_atom(&args, "x");
    request_coordinate(&co.requests, world.peer, cursor_of(buffer_slice(&args)));
    ck_assert_ptr_nonnull(strstr(fake_log_take(), "coordinate_punch"));
    request_report(&co.requests, NULL, cursor_of(buffer_slice(&args)));
    ck_assert_ptr_nonnull(strstr(fake_log_take(), "report_result"));
    ck_assert_uint_eq(co.requests.counters.bad_arguments, 2);
    ck_told(&world, "");
}
END_TEST

Suite *suite_requests(void);
Suite *suite_requests(void)
{
    Suite *suite = suite_create("requests");
    TCase *tc = tcase_create("requests");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, an_answer_at_once);
    tcase_add_test(tc, the_first_bad_argument_is_named);
    tcase_add_test(tc, a_request_waits_for_profiles);
    tcase_add_test(tc, paused_it_waits_on);
    tcase_add_test(tc, one_too_many_is_refused);
    tcase_add_test(tc, those_that_wait_are_freed);
    tcase_add_test(tc, a_punch_is_coordinated_and_reported);
    tcase_add_test(tc, casts_with_bad_arguments_are_counted);
    suite_add_tcase(suite, tc);
    return suite;
}
