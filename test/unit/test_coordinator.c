/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the time what is due may have: sessions that retry at every millisecond, for ever. */
#include "suites.h"

#include "macula/coordinator.h"

#include <check.h>
#include <string.h>

#define SESSIONS    1000u
#define NS_PER_HOUR (UINT64_C(3600) * 1000000000)

static uv_loop_t loop;
static struct node node;
static struct profile_cache embedded;
static struct coordinator co;

static void on_log(void *ctx, int level, const char *kind, const char *peer, const char *about,
                   const char *format, va_list arguments)
{
    (void)ctx;
    (void)level;
    (void)kind;
    (void)peer;
    (void)about;
    (void)format;
    (void)arguments;
}

static void set_up(void)
{
    struct coordinator_options options = {0};

    nat_config_init(&options.nat);
    options.nat.coordination_delay_ms = 0;
    options.nat.punch_timeout_ms = 1;
    options.nat.max_punch_attempts = UINT32_MAX;
    uv_loop_init(&loop);
    node = (struct node){.loop = &loop, .name_slice = slice_of("us@host"), .hooks.log = on_log};
    embedded = (struct profile_cache){.server.process.node = &node};
    ck_assert_int_eq(coordinator_start(&co, &node, &embedded, &options), 0);
}

static void tear_down(void)
{
    gen_server_stop(&co.server, "shutdown");
    process_exit(&co.calls.process, slice_of("w\10shutdown"));
    coordinator_close(&co);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
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
        uv_run(&loop, UV_RUN_ONCE);
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
        uv_run(&loop, UV_RUN_NOWAIT);
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
