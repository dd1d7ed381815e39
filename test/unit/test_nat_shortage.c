/* SPDX-License-Identifier: Apache-2.0 */
/* The library where there is no memory: nothing is half done, and nothing stays behind. */
#include "nat_world.h"
#include "shortage.h"
#include "suites.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PUNCHES 64 /* as many as fill a heap, and no place is left */

static struct world world;

static void setup(void)
{
    world_init(&world);
    world.config.max_punch_attempts = 1;
}

static void teardown(void)
{
    *shortage = (struct shortage){0};
    world_free(&world);
}

static void must_be(int status, int other)
{
    if (status != 0 && status != -ENOMEM && status != other)
        ck_abort_msg("status %d", status);
}

/*
 * Every kind of call, and every transition: a session may not be there, which the next calls find.
 * No assertions of Check, which allocate.
 */
static void whole_script(void)
{
    static char long_id[200];
    char ids[4][NAT_ID_MAX + 1] = {"none", "none", "none", "none"};
    struct nat_request request;

    memset(long_id, 'x', sizeof long_id - 1);
    for (int i = 0; i < 4; i++) {
        request = world_ask(&world, "a", i % 2 == 0 ? "b" : "c");
        request.options.has_watcher = true;
        request.options.watcher = (uint64_t)i + 1;
        request.initiator_profile = i == 0 ? world.cone : world.easy;
        request.target_profile = i < 2 ? world.symmetric : world.easy;
        must_be(world_request(&world, &request, ids[i]), 0);
    }
    request = world_ask(&world, "b", "a"); /* joins */
    request.options.has_watcher = true;
    request.options.watcher = 5;
    must_be(world_request(&world, &request, NULL), 0);
    must_be(world_coordinate(&world, &request, long_id), 0);
    must_be(world_coordinate(&world, &request, long_id), 0);
    request = world_ask(&world, "d", "b");
    must_be(world_coordinate(&world, &request, NULL), 0);
    must_be(world_report(&world, ids[0], "a", NAT_REPORT_FAILURE), -ENOENT);
    must_be(world_report(&world, ids[1], "c", NAT_REPORT_FAILURE), -ENOENT);
    must_be(world_report(&world, ids[2], "a", NAT_REPORT_SUCCESS), -ENOENT);
    nat_peer_delay(world.nat, bytes_of("b"), 20);
    world_pass(&world, world.config.coordination_delay_ms + 20);
    must_be(world_report(&world, long_id, "b", NAT_REPORT_FAILURE), -ENOENT);
    world_pass(&world, (uint64_t)3 * world.config.punch_timeout_ms);
    world_forget(&world);
}

static void punch_runs(void)
{
    char id[NAT_ID_MAX + 1];

    world_punch(&world, "one", "other", 9, id);
    world_pass(&world, world.config.coordination_delay_ms);
    ck_assert_uint_eq(world_count(&world, NAT_COORDINATE), 2);
    ck_assert_int_eq(world_report(&world, id, "one", NAT_REPORT_SUCCESS), 0);
    ck_assert_str_eq(world_story(&world, 9), "pce+");
}

/* Each allocation of the script fails, one at a time, or all from one on. */
START_TEST(any_allocation)
{
    uint64_t at = 0;

    do {
        setup();
        world_start(&world);
        *shortage = (struct shortage){.skip = at++, .fail = _i == 0 ? 1 : UINT64_MAX};
        whole_script();
        shortage->skip = shortage->fail = 0;
        punch_runs();
        world_free(&world);
    } while (shortage->failed > 0);
    ck_assert_uint_gt(at, 20);
}
END_TEST

/* What has begun runs to its end in the memory that it has. */
START_TEST(to_the_end_without_memory)
{
    setup();
    world_start(&world);
    for (int i = 0; i < PUNCHES; i++) {
        char name[WORLD_ID_MAX];

        snprintf(name, sizeof name, "target %d", i);
        world_punch(&world, "initiator", name, (uint64_t)i + 1, NULL);
    }
    world_forget(&world);
    shortage->fail = UINT64_MAX;
    world_pass(&world, world.config.coordination_delay_ms + world.config.punch_timeout_ms);
    world_pass(&world, world.config.coordination_delay_ms + world.config.punch_timeout_ms);
    shortage->fail = 0;
    for (int i = 0; i < PUNCHES; i++)
        ck_assert_str_eq(world_story(&world, (uint64_t)i + 1), "ece-");
    ck_assert_uint_eq(nat_counters(world.nat)->ended, PUNCHES);
    ck_assert_uint_eq(nat_counters(world.nat)->pairs, 0);
    teardown();
}
END_TEST

Suite *suite_nat_shortage(void)
{
    Suite *suite = suite_create("nat_shortage");
    TCase *tcase = tcase_create("shortage");

    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, any_allocation, 0, 2);
    tcase_add_test(tcase, to_the_end_without_memory);
    suite_add_tcase(suite, tcase);
    return suite;
}
