/* SPDX-License-Identifier: Apache-2.0 */
/* The whole program on real sockets, stopped at any time and short of memory at any time: it stops,
 * and nothing stays behind. */
#include "shortage.h"
#include "suites.h"

#include "application.h"
#include "base/log.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define TURNS 12 /* of the loop: more than a handshake takes */

static uv_loop_t loop;
static struct application app;
static struct sockaddr_in any;
static int silent; /* a listener that accepts nobody */
static uint16_t silent_port;
static int client;

static void set_up(void)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;

    log_init(LOG_ERR, open("/dev/null", O_WRONLY | O_CLOEXEC));
    ck_assert_int_eq(uv_ip4_addr("127.0.0.1", 0, &any), 0);
    silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(silent, (struct sockaddr *)&any, sizeof any), 0);
    ck_assert_int_eq(listen(silent, 10), 0);
    ck_assert_int_eq(getsockname(silent, (struct sockaddr *)&address, &len), 0);
    silent_port = ntohs(address.sin_port);
    client = -1;
}

static void tear_down(void)
{
    *shortage = (struct shortage){0};
    close(silent);
    log_free();
}

static void on_ready(void *ctx, int port)
{
    (void)ctx;
    (void)port;
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    (void)why;
}

static void on_terminated(void *ctx, struct slice reason)
{
    (void)ctx;
    (void)reason;
}

/* No assertion of Check between here and the end of a shortage: they allocate. */
static int init(void)
{
    struct application_config config = {
        .server = {.loop = &loop,
                   .name = "us@127.0.0.1",
                   .cookie = slice_of("cookie"),
                   .listen = (const struct sockaddr *)&any,
                   .no_epmd = true,
                   .on_ready = on_ready,
                   .on_failed = on_failed},
        .on_terminated = on_terminated,
    };

    coordinator_options_init(&config.coordinator);
    app = (struct application){0};
    uv_loop_init(&loop);
    return application_init(&app, &config);
}

/* Connects to a node that is not there, and to one that says nothing. */
static int connect_nodes(void)
{
    int error = server_connect(&app.server, "nobody@127.0.0.1", 1);

    return error ? error : server_connect(&app.server, "silent@127.0.0.1", silent_port);
}

/* A client that tells its name and then waits. */
static void come(void)
{
    static const uint8_t name[] = {0, 21, 'N', 0, 0, 0,   0x7d, 0x0d, 0xf7, 0xfd, 0xbc, 0,
                                   0, 0,  7,   0, 6, 'c', 'l',  'i',  '@',  'h',  'x'};
    struct sockaddr_in address = any;

    address.sin_port = htons((uint16_t)app.server.port);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(write(client, name, sizeof name), sizeof name);
}

static void run(int turns)
{
    for (int i = 0; i < turns; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

static void check_nothing_is_left(void)
{
    ck_assert_int_eq(uv_loop_close(&loop), 0);
    ck_assert_ptr_null(app.server.node.connections);
    ck_assert_ptr_null(app.server.node.processes.by_number);
}

static void stop(void)
{
    application_stop(&app);
    uv_run(&loop, UV_RUN_DEFAULT);
    application_free(&app);
    if (client >= 0)
        close(client);
    client = -1;
    check_nothing_is_left();
}

START_TEST(it_stops_at_any_time)
{
    ck_assert_int_eq(init(), 0);
    ck_assert_int_eq(connect_nodes(), 0);
    stop();
    for (int turns = 0; turns < TURNS; turns++) {
        ck_assert_int_eq(init(), 0);
        ck_assert_int_eq(connect_nodes(), 0);
        ck_assert_int_eq(application_start(&app), 0);
        come();
        run(turns);
        stop();
    }
}
END_TEST

START_TEST(any_allocation_of_its_making_may_fail)
{
    uint64_t failed;
    int i = 0;

    do {
        *shortage = (struct shortage){.skip = (uint64_t)i++, .fail = 1};
        int error = init();
        failed = shortage->failed;
        *shortage = (struct shortage){0};
        ck_assert_int_eq(error, failed ? -ENOMEM : 0);
        if (error)
            check_nothing_is_left();
        else
            stop();
    } while (failed);
    ck_assert_int_gt(i, 5);
}
END_TEST

START_TEST(any_allocation_of_its_first_connections_may_fail)
{
    uint64_t failed;
    int i = 0;

    do {
        ck_assert_int_eq(init(), 0);
        ck_assert_int_eq(application_start(&app), 0);
        come();
        *shortage = (struct shortage){.skip = (uint64_t)i++, .fail = 1};
        connect_nodes();
        run(TURNS);
        failed = shortage->failed;
        *shortage = (struct shortage){0};
        stop();
    } while (failed);
    ck_assert_int_gt(i, 10);
}
END_TEST

Suite *suite_application(void);
Suite *suite_application(void)
{
    Suite *suite = suite_create("application");
    TCase *tc = tcase_create("application");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, it_stops_at_any_time);
    tcase_add_test(tc, any_allocation_of_its_making_may_fail);
    tcase_add_test(tc, any_allocation_of_its_first_connections_may_fail);
    suite_add_tcase(suite, tc);
    return suite;
}
