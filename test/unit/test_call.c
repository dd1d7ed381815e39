/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to processes of another node: each ends once, and what comes later is dropped. */
#include "otp/call.h"

#include "node_world.h"
#include "term/term_write.h"

#include <check.h>
#include <string.h>

static struct node_world world;
static struct calls calls;
static int ended; /* calls */
static enum call_outcome outcome;
static bool was_42;

static void on_done(void *ctx, enum call_outcome how, struct slice answer)
{
    struct cursor c = cursor_of(answer);
    int64_t number = 0;

    ck_assert_ptr_eq(ctx, &world);
    ended++;
    outcome = how;
    was_42 = how == CALL_ANSWERED && cursor_int(&c, &number) && number == 42;
}

static void set_up(void)
{
    ended = 0;
    node_world_start(&world);
    ck_assert_int_eq(calls_start(&calls, world.node), 0);
}

static void tear_down(void)
{
    ck_assert_uint_eq(calls.in_flight, 0);
    ck_assert_ptr_null(world.peer->watches);
    node_world_turn(&world); /* closes timers */
    calls_stop(&calls);
    node_world_stop(&world);
}

static struct call *call(uint64_t limit_ms)
{
    struct buffer *request;
    struct call *call =
        call_open(&calls, world.peer, "server", limit_ms, on_done, &world, &request);

    ck_assert_ptr_nonnull(call);
    term_put_atom(request, "get");
    call_send(call);
    ck_told(&world, "monitor server");
    const char *text = node_world_told(&world);
    ck_assert_int_eq(strncmp(text, "server ! {'$gen_call', {<us@h.", 30), 0);
    ck_assert_str_eq(text + strlen(text) - 5, " get}");
    return call;
}

static void ck_ended(enum call_outcome expected)
{
    ck_assert_int_eq(ended, 1);
    ck_assert_int_eq(outcome, expected);
    ck_assert_uint_eq(calls.in_flight, 0);
}

START_TEST(an_answer_ends_it)
{
    call(60000);
    node_world_answer(&world, &calls.process, "42");
    ck_ended(CALL_ANSWERED);
    ck_assert(was_42);
    ck_told(&world, "demonitor");
    node_world_answer(&world, &calls.process, "43");
    ck_ended(CALL_ANSWERED);
    ck_assert_uint_eq(calls.counters.answers_too_late, 1);
    ck_told(&world, "");
}
END_TEST

START_TEST(what_is_no_answer_does_not)
{
    call(60000);
    node_world_say(&world, &calls.process, "{~p,42}");
    node_world_say(&world, &calls.process, "hello");
    ck_assert_int_eq(ended, 0);
    node_world_answer(&world, &calls.process, "42");
    ck_ended(CALL_ANSWERED);
}
END_TEST

/* The reference of somebody else's call is no secret to a third node. */
START_TEST(another_node_cannot_answer)
{
    static struct connection other;
    struct buffer message;

    call(60000);
    buffer_init(&message);
    term_put_tuple(&message, 2);
    term_put_raw(&message, (struct slice){world.reference, world.reference_len});
    term_put_int(&message, 42);
    calls.process.behaviour->receive(&calls.process, &other, buffer_slice(&message));
    buffer_free(&message);
    ck_assert_int_eq(ended, 0);
    ck_assert_uint_eq(calls.counters.answers_too_late, 1);
    node_world_answer(&world, &calls.process, "42");
    ck_ended(CALL_ANSWERED);
}
END_TEST

START_TEST(the_end_of_the_process_ends_it)
{
    struct control down = {.reason = slice_of("w\6noproc")};

    call(60000);
    down.reference = (struct slice){world.reference, world.reference_len};
    watch_handle_exit(world.peer, &down);
    ck_ended(CALL_FAILED);
    ck_told(&world, ""); /* the monitor is gone already */
}
END_TEST

START_TEST(the_end_of_the_connection_ends_it)
{
    call(60000);
    watch_forget_connection(world.peer);
    ck_ended(CALL_FAILED);
}
END_TEST

START_TEST(its_limit_ends_it)
{
    call(1);
    while (!ended)
        uv_run(&fake_loop, UV_RUN_ONCE);
    ck_ended(CALL_TIMED_OUT);
    ck_told(&world, "demonitor");
    node_world_answer(&world, &calls.process, "42");
    ck_assert_int_eq(ended, 1);
}
END_TEST

START_TEST(one_that_is_cancelled_is_not_heard_of)
{
    call_cancel(call(1));
    ck_told(&world, "demonitor");
    node_world_answer(&world, &calls.process, "42");
    node_world_turn(&world);
    ck_assert_int_eq(ended, 0);
}
END_TEST

Suite *suite_call(void);

Suite *suite_call(void)
{
    Suite *suite = suite_create("call");
    TCase *tc = tcase_create("call");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, an_answer_ends_it);
    tcase_add_test(tc, what_is_no_answer_does_not);
    tcase_add_test(tc, another_node_cannot_answer);
    tcase_add_test(tc, the_end_of_the_process_ends_it);
    tcase_add_test(tc, the_end_of_the_connection_ends_it);
    tcase_add_test(tc, its_limit_ends_it);
    tcase_add_test(tc, one_that_is_cancelled_is_not_heard_of);
    suite_add_tcase(suite, tc);
    return suite;
}
