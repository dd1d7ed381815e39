/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the time what is due may have: sessions that retry at every millisecond, for ever. */
#include "fake_node.h"
#include "suites.h"

#include "macula/coordinator.h"

#include <check.h>
#include <string.h>

#define SESSIONS    1000u
#define NS_PER_HOUR (UINT64_C(3600) * 1000000000)

static struct profile_cache embedded;
static struct coordinator co;

static void set_up(void)
{
    struct coordinator_options options = {0};

    nat_config_init(&options.nat);
    options.nat.coordination_delay_ms = 0;
    options.nat.punch_timeout_ms = 1;
    options.nat.max_punch_attempts = UINT32_MAX;
    struct node *node = fake_node_start();
    embedded = (struct profile_cache){.server.process.node = node};
    ck_assert_int_eq(coordinator_start(&co, node, &embedded, &options), 0);
}

static void tear_down(void)
{
    gen_server_stop(&co.server, "shutdown");
    coordinator_close(&co);
    fake_node_stop();
    coordinator_free(&co);
}

static void add_sessions(void)
{
    struct nat_session_view view;
    struct nat_request request = {.initiator_id = {"a", 1}};

    nat_options_init(co.driver.nat, &request.options);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        request.target_id = (struct nat_bytes){&i, sizeof i};
        memcpy(request.random, &i, sizeof i);
        ck_assert_int_eq(nat_request(co.driver.nat, driver_now(&co.driver), &request, &view), 0);
    }
    driver_act(&co.driver);
}

static uint64_t attempts(void)
{
    return nat_counters(co.driver.nat)->attempts;
}

static uint64_t now(void)
{
    return uv_hrtime() + co.driver.phase_ns;
}

START_TEST(others_have_as_long_as_what_is_due_has_taken)
{
    uint64_t before, made;

    add_sessions();
    for (int i = 0; i < 100; i++) {
        uint64_t rested = co.driver.rest_until_ns;
        made = attempts();
        before = now();
        uv_run(&fake_loop, UV_RUN_ONCE);
        if (attempts() == made)
            continue;
        ck_assert_uint_ge(now(), rested);
        ck_assert_uint_gt(co.driver.rest_until_ns, before);
        ck_assert_uint_le(co.driver.rest_until_ns, 2 * now() - before);
    }
    ck_assert_uint_gt(attempts(), SESSIONS);

    made = attempts();
    co.driver.rest_until_ns = now() + NS_PER_HOUR;
    for (int i = 0; i < 1000; i++)
        uv_run(&fake_loop, UV_RUN_NOWAIT);
    ck_assert_uint_eq(attempts(), made);
}
END_TEST

Suite *suite_coordinator(void)
{
    Suite *suite = suite_create("coordinator");
    TCase *tc = tcase_create("coordinator");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, others_have_as_long_as_what_is_due_has_taken);
    suite_add_tcase(suite, tc);
    return suite;
}
