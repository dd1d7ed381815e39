/* SPDX-License-Identifier: Apache-2.0 */
/* The ways to call a function here: rex as a gen_server, rex by message, and a spawned worker. */
#include "otp/rpc.h"

#include "node_world.h"
#include "term/term_write.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct node_world world;
static struct rpc rpc;
static int casts; /* runs of m:f/1 */

static void run_f(void *ctx, const struct rpc_function *f, const struct caller *caller,
                  struct cursor arguments);

static const struct rpc_function functions[] = {{"m", "f", 1, run_f, NULL}};

/* m:f/1 answers its argument. */
static void run_f(void *ctx, const struct rpc_function *f, const struct caller *caller,
                  struct cursor arguments)
{
    struct slice argument;

    ck_assert_ptr_eq(ctx, &world);
    ck_assert_ptr_eq(f, functions);
    ck_assert(cursor_term(&arguments, &argument));
    casts++;
    reply_term(caller, argument);
}

static void set_up(void)
{
    casts = 0;
    node_world_start(&world);
    ck_assert_int_eq(rpc_start(&rpc, world.node, functions, 1, &world), 0);
}

static void tear_down(void)
{
    gen_server_stop(&rpc.rex, "shutdown");
    node_world_stop(&world);
}

static void say(const char *text)
{
    node_world_say(&world, &rpc.rex.process, text);
}

static const struct {
    const char *call, *answer;
} rows[] = {
    {"{'$gen_call',{~p,tag},{call,m,f,[x],~p}}", "{tag, x}"},
    {"{'$gen_call',{~p,tag},{block_call,m,f,[{x,1}],~p}}", "{tag, {x, 1}}"},
    {"{~p,{call,m,f,[x],user}}", "{rex, x}"},
    {"{~p,features_request}", "{features_reply, us@h, [erpc]}"},
    {"{'$gen_call',{~p,tag},{call,erlang,node,[],~p}}", "{tag, us@h}"},
    {"{'$gen_call',{~p,tag},{call,erlang,nodes,[],~p}}", "{tag, []}"},
    {"{'$gen_call',{~p,tag},{call,erlang,whereis,[nobody],~p}}", "{tag, undefined}"},
    {"{'$gen_call',{~p,tag},{call,m,f,[x,y],~p}}",
     "{tag, {badrpc, {'EXIT', {undef, [{m, f, [x, y], []}]}}}}"},
    {"{~p,{call,m,g,[],user}}", "{rex, {badrpc, {'EXIT', {undef, [{m, g, [], []}]}}}}"},
    {"{~p,{call,m,f,x,user}}", "{rex, {badrpc, {'EXIT', {undef, [{m, f, x, []}]}}}}"},
    /* What rex of OTP leaves without an answer, too. */
    {"{'$gen_call',{~p,tag},what}", ""},
    {"{~p,what}", ""},
    {"what", ""},
};

START_TEST(each_call_has_its_answer)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        say(rows[i].call);
        ck_told(&world, rows[i].answer);
        ck_told(&world, "");
    }
}
END_TEST

START_TEST(a_cast_is_run_and_answers_nobody)
{
    say("{'$gen_cast',{cast,m,f,[x],~p}}");
    ck_assert_int_eq(casts, 1);
    say("{'$gen_cast',{cast,m,g,[x],~p}}");
    say("{'$gen_cast',what}");
    ck_assert_int_eq(casts, 1);
    ck_told(&world, "");
}
END_TEST

/* Lists of small integers come in a form of their own. */
START_TEST(a_list_of_bytes_is_a_list_of_arguments)
{
    struct buffer message;

    buffer_init(&message);
    term_put_tuple(&message, 2);
    term_put_pid(&message, &world.pid);
    term_put_tuple(&message, 5);
    term_put_atom(&message, "call");
    term_put_atom(&message, "m");
    term_put_atom(&message, "f");
    buffer_append(&message, "k\0\1\7", 4);
    term_put_atom(&message, "user");
    rpc.rex.process.behaviour->receive(&rpc.rex.process, world.peer, buffer_slice(&message));
    buffer_free(&message);
    ck_told(&world, "{rex, 7}");
}
END_TEST

START_TEST(sbcast_says_who_was_there)
{
    say("{~p,{sbcast,rex,hello}}");
    ck_told(&world, "{rex, us@h, us@h}");
    say("{~p,{sbcast,nobody,hello}}");
    ck_told(&world, "{rex, us@h, {nonexisting_name, nobody}}");
}
END_TEST

static void spawn(const char *function, int arity, const char *options, const char *arguments)
{
    struct buffer id;
    struct slice opts = node_world_term(&world, options), args = node_world_term(&world, arguments);

    buffer_init(&id);
    term_put_reference(&id, slice_of(NODE_WORLD_PEER), 7, 9);
    struct control request = {
        .from.pid = world.pid,
        .reference = buffer_slice(&id),
        .module = slice_of("erpc"),
        .function = slice_of(function),
        .arity = arity,
        .options = opts,
        .message = args,
    };
    world.node->spawner->on_spawn(world.node->spawner, world.peer, &request);
    buffer_free(&id);
    free((void *)opts.data);
    free((void *)args.data);
}

START_TEST(a_spawned_call_ends_with_its_answer)
{
    spawn("execute_call", 4, "[monitor]", "[tag,m,f,[x]]");
    ck_told(&world, "spawned");
    ck_told(&world, "down {tag, return, x}");
    spawn("execute_call", 4, "[monitor]", "[tag,m,g,[x]]");
    ck_told(&world, "spawned");
    ck_told(&world, "down {tag, error, undef, [{m, g, [x], []}]}");
    ck_told(&world, "");
}
END_TEST

START_TEST(a_spawned_cast_ends_normally)
{
    spawn("execute_cast", 3, "[monitor]", "[m,f,[x]]");
    ck_told(&world, "spawned");
    ck_told(&world, "down normal");
    spawn("execute_cast", 3, "[]", "[m,f,[x]]");
    ck_told(&world, "spawned");
    ck_told(&world, "");
    ck_assert_int_eq(casts, 2);
}
END_TEST

START_TEST(nothing_else_is_spawned)
{
    spawn("execute_call", 3, "[monitor]", "[m,f,[x]]");
    ck_told(&world, "refused notsup");
    spawn("execute_call", 4, "[monitor]", "[tag,m,f]");
    ck_told(&world, "refused notsup");
    spawn("execute_call", 4, "[link]", "[tag,m,f,[x]]");
    ck_told(&world, "refused notsup");
    spawn("apply", 4, "[monitor]", "[tag,m,f,[x]]");
    ck_told(&world, "refused notsup");
    ck_told(&world, "");
    ck_assert_int_eq(casts, 0);
}
END_TEST

Suite *suite_rpc(void);

Suite *suite_rpc(void)
{
    Suite *suite = suite_create("rpc");
    TCase *tc = tcase_create("rpc");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, each_call_has_its_answer);
    tcase_add_test(tc, a_cast_is_run_and_answers_nobody);
    tcase_add_test(tc, a_list_of_bytes_is_a_list_of_arguments);
    tcase_add_test(tc, sbcast_says_who_was_there);
    tcase_add_test(tc, a_spawned_call_ends_with_its_answer);
    tcase_add_test(tc, a_spawned_cast_ends_normally);
    tcase_add_test(tc, nothing_else_is_spawned);
    suite_add_tcase(suite, tc);
    return suite;
}
