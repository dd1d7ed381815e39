/* SPDX-License-Identifier: Apache-2.0 */
/* What reaches which callback, what waits for a suspended server, and how a server ends. */
#include "otp/gen_server.h"

#include "node_world.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct node_world world;
static struct gen_server server;
static char seen[300]; /* what was called, in order */
static struct connection *last_via;

static void note(const char *what, struct slice term)
{
    struct cursor c = cursor_of(term);
    struct slice atom = slice_of("_");
    size_t len = strlen(seen);

    cursor_atom(&c, &atom);
    snprintf(seen + len, sizeof seen - len, "%s %.*s;", what, (int)atom.len,
             (const char *)atom.data);
}

static void on_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    ck_assert_ptr_eq(gs, &server);
    note("call", request);
    reply_term(caller, request);
}

static void on_cast(struct gen_server *gs, struct connection *via, struct slice request)
{
    struct cursor c = cursor_of(request);

    note("cast", request);
    last_via = via;
    if (cursor_is_atom(&c, "suspend"))
        gen_server_suspend(gs, true);
    else if (cursor_is_atom(&c, "stop"))
        gen_server_stop(gs, "normal");
}

static void on_info(struct gen_server *gs, struct connection *via, struct slice message)
{
    (void)gs;
    last_via = via;
    note("info", message);
}

static void put_state(struct gen_server *gs, struct buffer *b)
{
    (void)gs;
    term_put_atom(b, "state");
}

static void on_suspended(struct gen_server *gs, bool suspended)
{
    (void)gs;
    note(suspended ? "suspended" : "resumed", slice_of("j"));
}

static void on_caught_up(struct gen_server *gs)
{
    (void)gs;
    note("caught up", slice_of("j"));
}

static void on_terminated(void *ctx, struct slice reason)
{
    ck_assert_ptr_eq(ctx, &world);
    note("terminated", reason);
}

static void set_up(void)
{
    static const struct gen_server_callbacks callbacks = {.call = on_call,
                                                          .cast = on_cast,
                                                          .info = on_info,
                                                          .put_state = put_state,
                                                          .suspended = on_suspended,
                                                          .caught_up = on_caught_up};

    node_world_start(&world);
    ck_assert_int_eq(gen_server_start(&server, world.node, "server", &callbacks), 0);
    server.terminated = on_terminated;
    server.terminated_ctx = &world;
    seen[0] = '\0';
}

static void tear_down(void)
{
    gen_server_stop(&server, "shutdown");
    node_world_stop(&world);
}

static void say(const char *text)
{
    node_world_say(&world, &server.process, text);
}

static void ck_seen(const char *expected)
{
    ck_assert_str_eq(seen, expected);
    seen[0] = '\0';
}

START_TEST(each_message_reaches_its_callback)
{
    say("{'$gen_call',{~p,tag},a}");
    ck_seen("call a;");
    ck_told(&world, "{tag, a}");
    say("{'$gen_cast',b}");
    ck_seen("cast b;");
    ck_assert_ptr_eq(last_via, world.peer);
    say("c");
    ck_seen("info c;");
    ck_told(&world, "");
    ck_assert_uint_eq(server.messages_in, 3);
    ck_assert_uint_eq(server.messages_out, 1);
}
END_TEST

START_TEST(what_is_no_request_is_a_message)
{
    static const char *const rows[] = {
        "{'$gen_call',{~p,tag}}",
        "{'$gen_call',~p,a}",
        "{'$gen_call',{~p},a}",
        "{'$gen_cast',a,b}",
        "{system,~p,get_state}",
        "{'$gen_call',{a,tag},a}",
        "{}",
        "1",
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        say(rows[i]);
        ck_seen("info _;");
    }
    ck_told(&world, "");
}
END_TEST

START_TEST(what_arrives_while_it_is_suspended_waits)
{
    gen_server_suspend(&server, true);
    ck_seen("suspended _;");
    say("{'$gen_cast',a}");
    say("{'$gen_call',{~p,tag},b}");
    say("c");
    ck_seen("");
    ck_told(&world, "");
    gen_server_suspend(&server, false);
    ck_seen("resumed _;");
    /* Behind those that wait. */
    say("{'$gen_cast',d}");
    ck_seen("");
    node_world_turn(&world);
    ck_seen("cast a;call b;info c;cast d;caught up _;");
    ck_told(&world, "{tag, b}");
    ck_assert_uint_eq(server.deferred_bytes, 0);
    say("e");
    ck_seen("info e;");
}
END_TEST

START_TEST(without_anything_that_waits_it_has_caught_up_at_once)
{
    gen_server_suspend(&server, true);
    gen_server_suspend(&server, true);
    gen_server_suspend(&server, false);
    gen_server_suspend(&server, false);
    ck_seen("suspended _;resumed _;caught up _;");
}
END_TEST

START_TEST(what_waited_may_suspend_it_again)
{
    gen_server_suspend(&server, true);
    say("{'$gen_cast',suspend}");
    say("{'$gen_cast',a}");
    gen_server_suspend(&server, false);
    seen[0] = '\0';
    node_world_turn(&world);
    ck_seen("cast suspend;suspended _;");
    /* System messages are not held up by what waits. */
    say("{system,{~p,tag},suspend}");
    ck_told(&world, "{tag, ok}");
    say("{system,{~p,tag},resume}");
    ck_told(&world, "{tag, ok}");
    node_world_turn(&world);
    ck_seen("resumed _;cast a;caught up _;");
}
END_TEST

START_TEST(what_waited_may_end_it)
{
    gen_server_suspend(&server, true);
    say("{'$gen_cast',stop}");
    say("{'$gen_cast',a}");
    gen_server_suspend(&server, false);
    seen[0] = '\0';
    node_world_turn(&world);
    ck_seen("cast stop;terminated normal;");
    ck_assert(!process_is_alive(&server.process));
}
END_TEST

START_TEST(who_has_the_most_waiting_is_cut_off)
{
    struct buffer large;
    struct slice part = {calloc(1, SUSPENDED_MAX / 4), SUSPENDED_MAX / 4};

    buffer_init(&large);
    ck_assert_ptr_nonnull(part.data);
    term_put_binary(&large, part);
    gen_server_suspend(&server, true);
    say("{'$gen_cast',a}");
    for (int i = 0; i < 3; i++)
        server.process.behaviour->receive(&server.process, world.peer, buffer_slice(&large));
    gen_server_cast(&server, slice_of("w\1b")); /* of nobody's connection */
    ck_assert_ptr_null(world.peer->doomed);
    server.process.behaviour->receive(&server.process, world.peer, buffer_slice(&large));
    ck_assert_ptr_nonnull(world.peer->doomed);
    say("c");
    seen[0] = '\0';
    gen_server_suspend(&server, false);
    node_world_turn(&world);
    ck_seen("resumed _;cast b;caught up _;");
    buffer_free(&large);
    free((void *)part.data);
}
END_TEST

START_TEST(it_ends_once_and_says_why)
{
    gen_server_stop(&server, "shutdown");
    ck_seen("terminated shutdown;");
    gen_server_stop(&server, "normal");
    ck_seen("");
    ck_assert_ptr_null(process_find_name(world.node, slice_of("server")));
}
END_TEST

/* A caller of gen_server has its monitor; one of rpc is told. */
START_TEST(who_waits_when_it_ends_is_told)
{
    struct caller caller = {
        .kind = CALLER_REX, .is_rpc = true, .node = world.node, .pid = world.pid};

    gen_server_suspend(&server, true);
    say("{'$gen_call',{~p,tag},a}");
    gen_server_call(&server, &caller, slice_of("w\1b"));
    gen_server_stop(&server, "shutdown");
    ck_told(&world, "{rex, {badrpc, {'EXIT', shutdown}}}");
    ck_told(&world, "");
}
END_TEST

START_TEST(exit_signals_end_it_unless_it_traps_them)
{
    server.traps_exits = true;
    server.process.behaviour->exit_signal(&server.process, slice_of("w\4boom"));
    ck_seen("");
    server.traps_exits = false;
    server.process.behaviour->exit_signal(&server.process, slice_of("w\4boom"));
    ck_seen("terminated boom;");
}
END_TEST

Suite *suite_gen_server(void);

Suite *suite_gen_server(void)
{
    Suite *suite = suite_create("gen_server");
    TCase *tc = tcase_create("gen_server");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, each_message_reaches_its_callback);
    tcase_add_test(tc, what_is_no_request_is_a_message);
    tcase_add_test(tc, what_arrives_while_it_is_suspended_waits);
    tcase_add_test(tc, without_anything_that_waits_it_has_caught_up_at_once);
    tcase_add_test(tc, what_waited_may_suspend_it_again);
    tcase_add_test(tc, what_waited_may_end_it);
    tcase_add_test(tc, who_has_the_most_waiting_is_cut_off);
    tcase_add_test(tc, it_ends_once_and_says_why);
    tcase_add_test(tc, who_waits_when_it_ends_is_told);
    tcase_add_test(tc, exit_signals_end_it_unless_it_traps_them);
    suite_add_tcase(suite, tc);
    return suite;
}
