/* SPDX-License-Identifier: Apache-2.0 */
/* The process that runs one function for erpc: it can be monitored, linked to and killed, and its
 * answer is its exit reason. */
#include "otp/worker.h"

#include "node_world.h"
#include "shortage.h"
#include "suites.h"

#include "base/log.h"
#include "term/term_write.h"

#include <check.h>
#include <stdlib.h>

static struct node_world world;
static struct buffer reference;
static struct control request;

static void set_up(void)
{
    node_world_start(&world);
    buffer_init(&reference);
    term_put_reference(&reference, world.pid.node, 7, 1);
    request = (struct control){
        .op = CONTROL_SPAWN_REQUEST,
        .from.pid = world.pid,
        .reference = buffer_slice(&reference),
    };
}

static void tear_down(void)
{
    buffer_free(&reference);
    node_world_stop(&world);
}

static struct process *find(uint32_t number)
{
    struct pid pid = {world.node->name_slice, number, 0, world.node->creation};

    return process_find(world.node, &pid);
}

static void finish(uint32_t number, const char *reason)
{
    struct buffer *b = worker_open_reason(world.node, number);

    ck_assert_ptr_nonnull(b);
    term_put_atom(b, reason);
    worker_finish(world.node, number);
    ck_assert_ptr_null(worker_open_reason(world.node, number));
}

START_TEST(its_answer_is_its_exit_reason)
{
    uint32_t first = worker_start(world.peer, &request, true);

    ck_told(&world, "spawned");
    uint32_t second = worker_start(world.peer, &request, false);
    ck_told(&world, "spawned");
    finish(second, "second");
    ck_told(&world, "");
    finish(first, "first");
    ck_told(&world, "down first");
    worker_finish(world.node, first);
    ck_told(&world, "");
}
END_TEST

START_TEST(it_can_be_killed)
{
    uint32_t number = worker_start(world.peer, &request, true);
    struct control kill = {.op = CONTROL_EXIT2,
                           .from.pid = world.pid,
                           .to.pid = process_pid(find(number)),
                           .reason = slice_of("w\4kill")};

    ck_told(&world, "spawned");
    process_handle_exit(world.peer, &kill);
    ck_told(&world, "down killed");
    ck_assert_ptr_null(worker_open_reason(world.node, number));
}
END_TEST

/* One that its caller is linked to goes with the connection; another answers nobody. */
START_TEST(the_connection_closes_before_its_answer)
{
    uint32_t linked = worker_start(world.peer, &request, false);
    uint32_t monitored = worker_start(world.peer, &request, true);
    struct control link = {
        .op = CONTROL_LINK, .from.pid = world.pid, .to.pid = process_pid(find(linked))};

    process_handle_link(world.peer, &link);
    connection_close(world.peer, LOG_INFO, "test");
    ck_assert_ptr_null(find(linked));
    ck_assert_ptr_nonnull(find(monitored));
    finish(monitored, "late");
}
END_TEST

START_TEST(another_process_is_no_worker)
{
    static const struct process_behaviour behaviour = {0};
    struct process p;

    ck_assert_int_eq(process_start(&p, world.node, &behaviour, NULL), 0);
    ck_assert_ptr_null(worker_open_reason(world.node, p.number));
    worker_finish(world.node, p.number);
    ck_assert(process_is_alive(&p));
    process_exit(&p, slice_of("w\10shutdown"));
}
END_TEST

START_TEST(without_memory)
{
    uint32_t number;

    for (uint64_t i = 0; i < 3; i++) { /* itself, its place in the table, and that table */
        *shortage = (struct shortage){.skip = i, .fail = 1};
        number = worker_start(world.peer, &request, true);
        *shortage = (struct shortage){0};
        ck_assert_uint_eq(number, 0);
        ck_told(&world, "");
    }
    number = worker_start(world.peer, &request, true);
    ck_told(&world, "spawned");
    worker_open_reason(world.node, number)->overflow = true;
    worker_finish(world.node, number);
    ck_told(&world, "down system_limit");
}
END_TEST

Suite *suite_worker(void);
Suite *suite_worker(void)
{
    Suite *suite = suite_create("worker");
    TCase *tc = tcase_create("worker");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, its_answer_is_its_exit_reason);
    tcase_add_test(tc, it_can_be_killed);
    tcase_add_test(tc, the_connection_closes_before_its_answer);
    tcase_add_test(tc, another_process_is_no_worker);
    tcase_add_test(tc, without_memory);
    suite_add_tcase(suite, tc);
    return suite;
}
