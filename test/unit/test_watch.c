/* SPDX-License-Identifier: Apache-2.0 */
/* Our monitors on other nodes: what is sent for them, and that each fires once. */
#include "node_world.h"
#include "shortage.h"
#include "suites.h"

#include "base/log.h"
#include "distribution/dist_flags.h"
#include "distribution/watch.h"
#include "term/term_write.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct node_world world;
static struct process owner;
static struct watch a, b;
static int downs;
static struct watch *to_stop, *to_start; /* by the next that fires */

static void on_message(struct process *p, struct connection *via, struct slice message)
{
    (void)p;
    (void)via;
    (void)message;
}

static void on_exit_signal(struct process *p, struct slice reason)
{
    (void)p;
    (void)reason;
}

static void on_down(struct watch *watch, struct slice reason)
{
    struct cursor c = cursor_of(reason);

    ck_assert(!watch_is_on(watch));
    ck_assert(cursor_is_atom(&c, "noconnection"));
    downs++;
    if (to_stop)
        watch_stop(to_stop);
    if (to_start)
        ck_assert_int_eq(watch_pid(to_start, &owner, &world.pid), -ENOTCONN);
}

static void set_up(void)
{
    static const struct process_behaviour behaviour = {on_message, on_exit_signal};

    downs = 0;
    to_stop = to_start = NULL;
    a = b = (struct watch){.on_down = on_down};
    node_world_start(&world);
    ck_assert_int_eq(process_start(&owner, world.node, &behaviour, NULL), 0);
}

static void tear_down(void)
{
    watch_stop(&a);
    watch_stop(&b);
    process_exit(&owner, slice_of("w\10shutdown"));
    node_world_stop(&world);
}

START_TEST(it_is_sent_and_taken_back)
{
    ck_assert_int_eq(watch_name(&a, &owner, world.peer, "them"), 0);
    ck_told(&world, "monitor them");
    watch_stop(&a);
    ck_told(&world, "demonitor");
    watch_stop(&a);
    ck_told(&world, "");
    connection_close(world.peer, LOG_INFO, "test");
    ck_assert_int_eq(downs, 0);
}
END_TEST

START_TEST(without_a_connection_there_is_none)
{
    struct pid pid = {slice_of("nobody@h"), 1, 0, 7};

    ck_assert_int_eq(watch_pid(&a, &owner, &pid), -ENOTCONN);
    ck_assert(!watch_is_on(&a));
}
END_TEST

/* Both fire, unless the first to fire stops the other; none can be started on what is closed. */
START_TEST(all_fire_with_the_connection)
{
    ck_assert_int_eq(watch_name(&a, &owner, world.peer, "them"), 0);
    ck_assert_int_eq(watch_pid(&b, &owner, &world.pid), 0);
    to_start = &a;
    connection_close(world.peer, LOG_INFO, "test");
    ck_assert_int_eq(downs, 2);
    ck_assert(!watch_is_on(&a) && !watch_is_on(&b));
}
END_TEST

START_TEST(one_that_fires_may_stop_another)
{
    ck_assert_int_eq(watch_name(&a, &owner, world.peer, "them"), 0);
    ck_assert_int_eq(watch_pid(&b, &owner, &world.pid), 0);
    to_stop = &b;
    connection_close(world.peer, LOG_INFO, "test");
    ck_assert_int_eq(downs, 1);
}
END_TEST

/* jinterface closes a connection by which it gets a monitor. */
START_TEST(a_node_without_monitors_gets_none)
{
    world.peer->flags &= ~(uint64_t)DIST_FLAG_DIST_MONITOR_NAME;
    ck_assert_int_eq(watch_name(&a, &owner, world.peer, "them"), 0);
    ck_told(&world, "");
    ck_assert(watch_is_on(&a));
    connection_close(world.peer, LOG_INFO, "test");
    ck_assert_int_eq(downs, 1);
}
END_TEST

START_TEST(references_are_ours_and_of_this_life)
{
    struct buffer reference;

    ck_assert_int_eq(watch_pid(&a, &owner, &world.pid), 0);
    for (uint32_t other = 0; other < 2; other++) {
        buffer_init(&reference);
        term_put_reference(&reference, world.node->name_slice, world.node->creation + other,
                           a.number);
        ck_assert_ptr_eq(watch_find(world.node, buffer_slice(&reference)), other ? NULL : &a);
        buffer_free(&reference);
    }
}
END_TEST

START_TEST(without_memory_there_is_none)
{
    int errors[2];

    for (uint64_t i = 0; i < 2; i++) {
        *shortage = (struct shortage){.skip = i, .fail = 1};
        errors[i] = watch_pid(&a, &owner, &world.pid);
        *shortage = (struct shortage){0};
        ck_assert_int_eq(errors[i], -ENOMEM);
        ck_assert(!watch_is_on(&a));
        ck_assert_ptr_null(a.pid);
    }
    ck_told(&world, "");
}
END_TEST

Suite *suite_watch(void);
Suite *suite_watch(void)
{
    Suite *suite = suite_create("watch");
    TCase *tc = tcase_create("watch");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, it_is_sent_and_taken_back);
    tcase_add_test(tc, without_a_connection_there_is_none);
    tcase_add_test(tc, all_fire_with_the_connection);
    tcase_add_test(tc, one_that_fires_may_stop_another);
    tcase_add_test(tc, a_node_without_monitors_gets_none);
    tcase_add_test(tc, references_are_ours_and_of_this_life);
    tcase_add_test(tc, without_memory_there_is_none);
    suite_add_tcase(suite, tc);
    return suite;
}
