/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever waits for an answer: read from a request, kept, and answered in the form of its call. */
#include "otp/caller.h"

#include "node_world.h"
#include "term/term_write.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct node_world world;
static struct process process;

static void on_message(struct process *p, struct connection *via, struct slice message)
{
    (void)p, (void)via, (void)message;
}

static void set_up(void)
{
    static const struct process_behaviour behaviour = {.receive = on_message};

    node_world_start(&world);
    ck_assert_int_eq(process_start(&process, world.node, &behaviour, "server"), 0);
}

static void tear_down(void)
{
    process_exit(&process, slice_of("w\10shutdown"));
    node_world_stop(&world);
}

static bool read_from(struct caller *caller, struct slice from)
{
    struct cursor c = cursor_of(from);

    return caller_read(caller, &process, world.peer, &c);
}

START_TEST(a_pid_and_any_term_are_a_caller)
{
    static const struct {
        const char *from;
        bool is_caller;
    } rows[] = {{"{~p,tag}", true}, {"{~p,[{a,1}]}", true}, {"{tag,~p}", false},
                {"{~p}", false},    {"~p", false},          {"{~p,tag,a}", false}};
    struct caller caller;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice from = node_world_term(&world, rows[i].from);
        ck_assert_int_eq(read_from(&caller, from), rows[i].is_caller);
        free((void *)from.data);
    }
}
END_TEST

START_TEST(a_kept_caller_outlives_its_message)
{
    struct slice from = node_world_term(&world, "{~p,{tag,1}}");
    struct caller caller;

    ck_assert(read_from(&caller, from));
    struct caller *kept = caller_keep(&caller);
    ck_assert_ptr_nonnull(kept);
    free((void *)from.data);
    reply_error(kept, "why");
    ck_told(&world, "{{tag, 1}, {error, why}}");
    caller_free(kept);
}
END_TEST

/* [alias | Ref], as gen_server:call makes it, and [[alias | Ref] | _], as gen_server:send_request.
 */
START_TEST(an_alias_in_the_tag_is_the_way_back)
{
    for (int form = 0; form < 2; form++) {
        struct buffer from;
        struct caller caller;

        buffer_init(&from);
        term_put_tuple(&from, 2);
        term_put_pid(&from, &world.pid);
        if (form == 1)
            term_put_list(&from, 1);
        term_put_list(&from, 1);
        term_put_atom(&from, "alias");
        term_put_reference(&from, world.pid.node, 7, 9);
        if (form == 1)
            term_put_atom(&from, "label");
        ck_assert(read_from(&caller, buffer_slice(&from)));
        reply_atom(&caller, "ok");
        ck_assert_int_eq(strncmp(node_world_told(&world), "alias {[", 8), 0);
        buffer_free(&from);
    }
}
END_TEST

START_TEST(an_answer_for_a_node_that_is_gone_is_counted)
{
    struct caller caller = {.kind = CALLER_REX, .node = world.node, .pid = world.pid};

    caller.pid.node = slice_of("other@h");
    ck_assert(caller_is_foreign(&caller.pid, world.peer));
    reply_atom(&caller, "ok");
    ck_told(&world, "");
    ck_assert_uint_eq(world.node->counters.messages_undeliverable, 1);
}
END_TEST

/* Who asks in the name of another costs that one nothing when its output is full. */
START_TEST(a_foreign_caller_gets_no_answer_into_full_output)
{
    struct caller caller = {
        .kind = CALLER_REX, .node = world.node, .pid = world.pid, .is_foreign = true};

    reply_atom(&caller, "ok");
    ck_told(&world, "{rex, ok}");
    ck_assert_ptr_nonnull(buffer_reserve(&world.peer->out, OUTPUT_UNASKED + 1));
    buffer_grow(&world.peer->out, OUTPUT_UNASKED + 1);
    reply_atom(&caller, "ok");
    ck_assert_uint_eq(world.node->counters.output_dropped, 1);
    ck_assert_uint_eq(buffer_size(&world.peer->out), OUTPUT_UNASKED + 1);
}
END_TEST

START_TEST(failures_have_the_form_of_the_call)
{
    struct caller caller = {
        .kind = CALLER_REX, .is_rpc = true, .node = world.node, .pid = world.pid};

    reply_failure(&caller, "badarg", slice_of("m"), slice_of("f"), slice_of("j"));
    ck_told(&world, "{rex, {badrpc, {'EXIT', {badarg, [{m, f, [], []}]}}}}");
    reply_exit(&caller, slice_of("w\4gone"));
    ck_told(&world, "{rex, {badrpc, {'EXIT', gone}}}");
    caller.is_rpc = false; /* a DOWN tells it */
    reply_exit(&caller, slice_of("w\4gone"));
    ck_told(&world, "");
}
END_TEST

Suite *suite_caller(void);

Suite *suite_caller(void)
{
    Suite *suite = suite_create("caller");
    TCase *tc = tcase_create("caller");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_pid_and_any_term_are_a_caller);
    tcase_add_test(tc, a_kept_caller_outlives_its_message);
    tcase_add_test(tc, an_alias_in_the_tag_is_the_way_back);
    tcase_add_test(tc, an_answer_for_a_node_that_is_gone_is_counted);
    tcase_add_test(tc, a_foreign_caller_gets_no_answer_into_full_output);
    tcase_add_test(tc, failures_have_the_form_of_the_call);
    suite_add_tcase(suite, tc);
    return suite;
}
