/* SPDX-License-Identifier: Apache-2.0 */
/* System messages, answered as sys of OTP is answered by a gen_server; get_state in both forms. */
#include "otp/gen_server.h"

#include "node_world.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct node_world world;
static struct gen_server server;

static void on_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    (void)gs, (void)request;
    reply_atom(caller, "called");
}

static void on_other(struct gen_server *gs, struct connection *via, struct slice message)
{
    (void)gs, (void)via, (void)message;
}

static void put_state(struct gen_server *gs, struct buffer *b)
{
    (void)gs;
    term_put_atom(b, "state");
}

static void set_up(void)
{
    static const struct gen_server_callbacks callbacks = {
        .call = on_call, .cast = on_other, .info = on_other, .put_state = put_state};

    node_world_start(&world);
    ck_assert_int_eq(gen_server_start(&server, world.node, "server", &callbacks), 0);
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

static const struct {
    const char *request, *answer;
} rows[] = {
    {"{debug,{statistics,get}}", "{tag, {ok, no_statistics}}"},
    {"{debug,{statistics,true}}", "{tag, ok}"},
    {"{debug,{log,get}}", "{tag, {ok, []}}"},
    {"{debug,{log,print}}", "{tag, ok}"},
    {"{debug,{log,false}}", "{tag, ok}"},
    {"{debug,{trace,false}}", "{tag, ok}"},
    {"{debug,{log_to_file,false}}", "{tag, ok}"},
    {"{debug,{remove,f}}", "{tag, ok}"},
    {"{debug,no_debug}", "{tag, ok}"},
    {"{debug,{trace,true}}", "{tag, unknown_debug}"},
    {"{debug,{log,true}}", "{tag, unknown_debug}"},
    {"{debug,{install,f}}", "{tag, unknown_debug}"},
    {"{debug,what}", "{tag, unknown_debug}"},
    {"{debug,{log_to_file,f}}", "{tag, {error, open_file}}"},
    {"{replace_state,f}",
     "{tag, {error, {callback_failed, {gen_server, system_replace_state}, {error, notsup}}}}"},
    {"what", "{tag, {error, {unknown_system_msg, what}}}"},
    {"{what,1}", "{tag, {error, {unknown_system_msg, {what, 1}}}}"},
};

START_TEST(each_request_has_its_answer)
{
    char message[100];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(message, sizeof message, "{system,{~p,tag},%s}", rows[i].request);
        say(message);
        ck_told(&world, rows[i].answer);
        ck_told(&world, "");
    }
}
END_TEST

START_TEST(statistics_count_from_their_start)
{
    say("{'$gen_call',{~p,tag},a}");
    say("{system,{~p,tag},{debug,{statistics,true}}}");
    say("{'$gen_call',{~p,tag},a}");
    say("{'$gen_cast',a}");
    for (int i = 0; i < 3; i++)
        node_world_told(&world);
    say("{system,{~p,tag},{debug,{statistics,get}}}");
    const char *text = node_world_told(&world);
    ck_assert_ptr_nonnull(strstr(text, "{messages_in, 2}, {messages_out, 1}]"));
}
END_TEST

START_TEST(the_status_says_whether_it_is_suspended)
{
    say("{system,{~p,tag},get_status}");
    const char *text = node_world_told(&world);
    ck_assert_ptr_nonnull(strstr(text, "{module, gen_server}"));
    ck_assert_ptr_nonnull(strstr(text, "{\"Status\", running}"));
    ck_assert_ptr_nonnull(strstr(text, "{\"State\", state}"));
    say("{system,{~p,tag},suspend}");
    ck_told(&world, "{tag, ok}");
    say("{system,{~p,tag},get_status}");
    ck_assert_ptr_nonnull(strstr(node_world_told(&world), "{\"Status\", suspended}"));
}
END_TEST

START_TEST(terminate_ends_it_with_the_reason)
{
    struct caller caller = {
        .kind = CALLER_REX, .is_rpc = true, .node = world.node, .pid = world.pid};

    gen_server_suspend(&server, true);
    gen_server_call(&server, &caller, slice_of("w\1a"));
    say("{system,{~p,tag},{terminate,{a,reason}}}");
    ck_told(&world, "{tag, ok}");
    ck_told(&world, "{rex, {badrpc, {'EXIT', {a, reason}}}}");
    ck_assert(!process_is_alive(&server.process));
}
END_TEST

static void ask_for_state(const char *answer, const char *expected)
{
    struct pid self = process_pid(&server.process);
    struct buffer message;
    struct slice term = node_world_term(&world, answer);

    world.peer->sys_form = SYS_FORM_UNKNOWN;
    say("{system,{~p,tag},get_state}");
    /* Its own kernel_refc shows which form its sys takes. */
    ck_assert_int_eq(strncmp(node_world_told(&world), "kernel_refc ! {system, {<us@h.", 30), 0);
    ck_told(&world, "");
    buffer_init(&message);
    term_put_tuple(&message, 2);
    term_put_reference(&message, self.node, self.creation, 0);
    term_put_raw(&message, term);
    world.node->sender = world.peer;
    server.process.behaviour->receive(&server.process, world.peer, buffer_slice(&message));
    world.node->sender = NULL;
    buffer_free(&message);
    free((void *)term.data);
    ck_told(&world, expected);
    /* It is asked once. */
    say("{system,{~p,tag},get_state}");
    ck_told(&world, expected);
    ck_told(&world, "");
}

START_TEST(the_state_has_the_form_that_the_callers_node_takes)
{
    ask_for_state("{ok,refc}", "{tag, {ok, state}}");
    ask_for_state("refc", "{tag, state}");
}
END_TEST

Suite *suite_sys(void);

Suite *suite_sys(void)
{
    Suite *suite = suite_create("sys");
    TCase *tc = tcase_create("sys");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, each_request_has_its_answer);
    tcase_add_test(tc, statistics_count_from_their_start);
    tcase_add_test(tc, the_status_says_whether_it_is_suspended);
    tcase_add_test(tc, terminate_ends_it_with_the_reason);
    tcase_add_test(tc, the_state_has_the_form_that_the_callers_node_takes);
    suite_add_tcase(suite, tc);
    return suite;
}
