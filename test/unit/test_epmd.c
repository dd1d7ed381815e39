/* SPDX-License-Identifier: Apache-2.0 */
/* The parsers by themselves, then the client against a real epmd on a port of its own. */
#include "distribution/epmd.h"
#include "distribution/epmd_wire.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(test_alive2_request)
{
    static const uint8_t expected[] = {0, 15, 120, 0x30, 0x39, 72,  0, 0, 6,
                                       0, 6,  0,   2,    'c',  'n', 0, 0};
    uint8_t request[EPMD_REQUEST_MAX];
    char name[257] = "";

    ck_assert_int_eq(epmd_encode_alive2(request, "cn", 12345), sizeof expected);
    ck_assert_mem_eq(request, expected, sizeof expected);
    ck_assert_int_eq(epmd_encode_alive2(request, "", 1), -EINVAL);
    memset(name, 'n', 255);
    ck_assert_int_eq(epmd_encode_alive2(request, name, 1), 255 + 15);
    name[255] = 'n';
    ck_assert_int_eq(epmd_encode_alive2(request, name, 1), -EINVAL);
}
END_TEST

START_TEST(test_port_please2_request)
{
    uint8_t request[EPMD_REQUEST_MAX];

    ck_assert_int_eq(epmd_encode_port_please2(request, "cn"), 5);
    ck_assert_mem_eq(request, "\0\3zcn", 5);
    ck_assert_int_eq(epmd_encode_port_please2(request, ""), -EINVAL);
}
END_TEST

START_TEST(test_alive2_response)
{
    static const uint8_t extended[] = {118, 0, 1, 2, 3, 4}, old[] = {121, 0, 0, 3};
    uint32_t creation = 0;

    for (size_t len = 0; len < sizeof extended; len++)
        ck_assert_int_eq(epmd_parse_alive2_response(extended, len, &creation), 0);
    ck_assert_int_eq(epmd_parse_alive2_response(extended, 6, &creation), 1);
    ck_assert_uint_eq(creation, 0x01020304);
    for (size_t len = 0; len < sizeof old; len++)
        ck_assert_int_eq(epmd_parse_alive2_response(old, len, &creation), 0);
    ck_assert_int_eq(epmd_parse_alive2_response(old, 4, &creation), 1);
    ck_assert_uint_eq(creation, 3);
    ck_assert_int_eq(epmd_parse_alive2_response((const uint8_t *)"v\1", 2, &creation), -EADDRINUSE);
    ck_assert_int_eq(epmd_parse_alive2_response((const uint8_t *)"y\1", 2, &creation), -EADDRINUSE);
    ck_assert_int_eq(epmd_parse_alive2_response((const uint8_t *)"H", 1, &creation), -EPROTO);
    /* Pids would look as if their creation were not known. */
    ck_assert_int_eq(epmd_parse_alive2_response((const uint8_t *)"v\0\0\0\0\0", 6, &creation),
                     -EPROTO);
}
END_TEST

START_TEST(test_port2_response)
{
    static const uint8_t found[] = {119, 0, 0x30, 0x39, 77, 0, 0, 6, 0, 5, 0xff, 0xff};
    uint16_t port = 0, highest = 0;

    for (size_t len = 0; len < 10; len++)
        ck_assert_int_eq(epmd_parse_port2_response(found, len, &port, &highest), 0);
    ck_assert_int_eq(epmd_parse_port2_response(found, sizeof found, &port, &highest), 1);
    ck_assert_uint_eq(port, 12345);
    ck_assert_uint_eq(highest, 6);
    ck_assert_int_eq(epmd_parse_port2_response((const uint8_t *)"w\1", 2, &port, &highest),
                     -ENOENT);
    ck_assert_int_eq(epmd_parse_port2_response((const uint8_t *)"H", 1, &port, &highest), -EPROTO);
    ck_assert_int_eq(
        epmd_parse_port2_response((const uint8_t *)"w\0\0\0M\0\0\6\0\5", 10, &port, &highest),
        -EPROTO);
}
END_TEST

/* One client and what it reported last. */
struct client {
    struct epmd epmd;
    int events, event, status;
    char text[200];
    int answers, lookup_status;
    uint16_t port, highest;
};

static uv_loop_t loop;
static uint16_t epmd_port;

static void on_event(void *ctx, enum epmd_event event, int status, const char *text)
{
    struct client *client = ctx;

    client->events++;
    client->event = event;
    client->status = status;
    snprintf(client->text, sizeof client->text, "%s", text);
}

static void on_lookup(void *ctx, int status, const struct sockaddr_in *address, uint16_t highest)
{
    struct client *client = ctx;

    client->answers++;
    client->lookup_status = status;
    client->port = address ? ntohs(address->sin_port) : 0;
    client->highest = highest;
}

static int listen_on_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    char text[8];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    epmd_port = ntohs(address.sin_port);
    snprintf(text, sizeof text, "%u", (unsigned)epmd_port);
    setenv("ERL_EPMD_PORT", text, 1);
    return fd;
}

static void setup(void)
{
    setenv("ERL_EPMD_RELAXED_COMMAND_CHECK", "1", 1);
    close(listen_on_free_port());
    ck_assert_int_eq(uv_loop_init(&loop), 0);
}

static void teardown(void)
{
    ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

/* A real epmd, listening when this returns. It dies with the test. */
static pid_t start_epmd(void)
{
    char seen[4096] = "";
    size_t len = 0;
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], 2);
        dup2(ends[1], 1);
        execlp("epmd", "epmd", "-d", "-d", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while (!strstr(seen, "entering the main select() loop")) {
        ssize_t n = read(ends[0], seen + len, sizeof seen - 1 - len);
        ck_assert_msg(n > 0, "epmd does not start: %s", seen);
        len += (size_t)n;
        seen[len] = '\0';
    }
    /* The end that we read stays open, or epmd would die of its next line. */
    return pid;
}

static void stop_epmd(pid_t pid)
{
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static void wait_event(struct client *client)
{
    client->events = 0;
    while (client->events == 0)
        ck_assert(uv_run(&loop, UV_RUN_ONCE) != 0 || client->events > 0);
}

static int lookup(struct client *client, const char *name, const char *host)
{
    client->answers = 0;
    ck_assert_int_eq(epmd_lookup(&client->epmd, name, host, 0, 5000, on_lookup, client), 0);
    while (client->answers == 0)
        ck_assert(uv_run(&loop, UV_RUN_ONCE) != 0 || client->answers > 0);
    return client->lookup_status;
}

static void client_publish(struct client *client, const char *name, uint16_t port)
{
    memset(client, 0, sizeof *client);
    ck_assert_int_eq(epmd_init(&client->epmd, &loop, on_event, client), 0);
    ck_assert_int_eq(epmd_publish(&client->epmd, name, port), 0);
    wait_event(client);
}

START_TEST(test_published_name_is_found_and_freed)
{
    pid_t pid = start_epmd();
    struct client a, b;

    client_publish(&a, "one", 1234);
    ck_assert_int_eq(a.event, EPMD_PUBLISHED);
    ck_assert_uint_ne(epmd_creation(&a.epmd), 0);
    client_publish(&b, "two", 4321);
    ck_assert_int_eq(lookup(&b, "one", "localhost"), 0);
    ck_assert_uint_eq(b.port, 1234);
    ck_assert_uint_eq(b.highest, 6);
    ck_assert_int_eq(lookup(&a, "two", "127.0.0.1"), 0);
    ck_assert_uint_eq(a.port, 4321);
    ck_assert_int_eq(lookup(&a, "three", "localhost"), -ENOENT);
    epmd_free(&a.epmd);
    while (lookup(&b, "one", "localhost") == 0)
        ;
    ck_assert_int_eq(b.lookup_status, -ENOENT);
    epmd_free(&b.epmd);
    stop_epmd(pid);
}
END_TEST

START_TEST(test_taken_name)
{
    pid_t pid = start_epmd();
    struct client a, b;

    client_publish(&a, "one", 1234);
    client_publish(&b, "one", 4321);
    ck_assert_int_eq(b.event, EPMD_FAILED);
    ck_assert_int_eq(b.status, -EADDRINUSE);
    epmd_free(&b.epmd);
    epmd_free(&a.epmd);
    stop_epmd(pid);
}
END_TEST

START_TEST(test_name_that_is_let_go_in_time)
{
    pid_t pid = start_epmd();
    struct client a, b = {.events = 0};

    client_publish(&a, "one", 1234);
    epmd_init(&b.epmd, &loop, on_event, &b);
    epmd_publish(&b.epmd, "one", 4321);
    while (b.epmd.taken_since == 0)
        uv_run(&loop, UV_RUN_ONCE);
    epmd_free(&a.epmd);
    wait_event(&b);
    ck_assert_int_eq(b.event, EPMD_PUBLISHED);
    epmd_free(&b.epmd);
    stop_epmd(pid);
}
END_TEST

START_TEST(test_republished_after_a_restart)
{
    pid_t pid = start_epmd();
    struct client a;

    client_publish(&a, "one", 1234);
    uint32_t creation = epmd_creation(&a.epmd);
    stop_epmd(pid);
    wait_event(&a);
    ck_assert_int_eq(a.event, EPMD_LOST);
    ck_assert_int_lt(a.status, 0);
    pid = start_epmd();
    wait_event(&a);
    ck_assert_int_eq(a.event, EPMD_REGAINED);
    ck_assert_uint_eq(epmd_creation(&a.epmd), creation);
    ck_assert_int_eq(lookup(&a, "one", "localhost"), 0);
    ck_assert_uint_eq(a.port, 1234);
    epmd_free(&a.epmd);
    stop_epmd(pid);
}
END_TEST

START_TEST(test_absent_epmd_is_started)
{
    struct client a;

    client_publish(&a, "one", 1234);
    ck_assert_int_eq(a.event, EPMD_PUBLISHED);
    ck_assert_int_eq(lookup(&a, "one", "localhost"), 0);
    epmd_free(&a.epmd);
    ck_assert_int_eq(system("epmd -kill >/dev/null"), 0);
}
END_TEST

START_TEST(test_no_epmd_to_be_had)
{
    struct client a;

    setenv("PATH", "/nonexistent", 1);
    client_publish(&a, "one", 1234);
    ck_assert_int_eq(a.event, EPMD_FAILED);
    ck_assert_int_eq(a.status, -ECONNREFUSED);
    ck_assert_ptr_nonnull(strstr(a.text, "cannot be started"));
    ck_assert_int_eq(lookup(&a, "one", "localhost"), -ECONNREFUSED);
    epmd_free(&a.epmd);
}
END_TEST

START_TEST(test_silent_epmd)
{
    int fd = listen_on_free_port();
    struct client a;

    ck_assert_int_eq(listen(fd, 5), 0); /* connects, but is never accepted or answered */
    client_publish(&a, "one", 1234);
    ck_assert_int_eq(a.event, EPMD_FAILED);
    ck_assert_int_eq(a.status, -ETIMEDOUT);
    ck_assert_int_eq(epmd_lookup(&a.epmd, "one", "localhost", 0, 50, on_lookup, &a), 0);
    while (a.answers == 0)
        uv_run(&loop, UV_RUN_ONCE);
    ck_assert_int_eq(a.lookup_status, -ETIMEDOUT);
    epmd_free(&a.epmd);
    close(fd);
}
END_TEST

/* What a double of EPMD does with one connection after the other, and then with all others. */
struct turn {
    const char *answer;
    size_t len;
    bool floods, closes;
};

/* It dies with the test. */
static pid_t start_double(const struct turn *turns, size_t count)
{
    static const uint8_t flood[65536];
    uint8_t request[EPMD_REQUEST_MAX];
    int listener = listen_on_free_port();

    ck_assert_int_eq(listen(listener, 5), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (size_t i = 0;; i += i < count - 1) {
            int fd = accept(listener, NULL, NULL);
            if (read(fd, request, sizeof request) <= 0 ||
                send(fd, turns[i].answer, turns[i].len, MSG_NOSIGNAL) < 0)
                _exit(1);
            while (turns[i].floods && send(fd, flood, sizeof flood, MSG_NOSIGNAL) > 0)
                ;
            if (turns[i].closes)
                close(fd);
        }
    }
    close(listener);
    return pid;
}

#define CREATION_5 "v\0\0\0\0\5", 6
#define TAKEN      "v\1\0\0\0\0", 6

START_TEST(test_name_taken_while_epmd_was_away)
{
    static const struct turn turns[] = {{CREATION_5, false, true},
                                        {TAKEN, false, true},
                                        {TAKEN, false, true},
                                        {CREATION_5, false, false}};
    pid_t pid = start_double(turns, 4);
    struct client a;

    client_publish(&a, "one", 1234);
    ck_assert_int_eq(a.event, EPMD_PUBLISHED);
    wait_event(&a);
    ck_assert_int_eq(a.event, EPMD_LOST);
    wait_event(&a);
    ck_assert_int_eq(a.event, EPMD_TAKEN); /* once, though it is found taken twice */
    ck_assert_int_eq(a.status, -EADDRINUSE);
    wait_event(&a);
    ck_assert_int_eq(a.event, EPMD_REGAINED);
    epmd_free(&a.epmd);
    stop_epmd(pid);
}
END_TEST

START_TEST(test_epmd_that_talks_on)
{
    static const struct turn turns[] = {{CREATION_5, true, true}};
    pid_t pid = start_double(turns, 1);
    struct client a;

    client_publish(&a, "one", 1234);
    while (a.event != EPMD_LOST)
        wait_event(&a);
    ck_assert_int_eq(a.status, -EPROTO);
    epmd_free(&a.epmd);
    stop_epmd(pid);
}
END_TEST

/* The time between attempts grows as long as no publication lasts. */
START_TEST(test_epmd_that_closes_again_and_again)
{
    static const struct turn turns[] = {{CREATION_5, false, true}};
    pid_t pid = start_double(turns, 1);
    struct client a;

    client_publish(&a, "one", 1234);
    ck_assert_int_eq(a.event, EPMD_PUBLISHED);
    for (int i = 1; i <= 4; i++) {
        wait_event(&a);
        ck_assert_int_eq(a.event, EPMD_LOST);
        ck_assert_uint_eq(a.epmd.delay, 100U << i);
        wait_event(&a);
        ck_assert_int_eq(a.event, EPMD_REGAINED);
    }
    epmd_free(&a.epmd);
    stop_epmd(pid);
}
END_TEST

/* From now on no thread can be made, as where a limit on them is reached. */
static void refuse_threads(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 2, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
    };
    const struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};

    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* A name is not looked up then; an address needs no thread. */
START_TEST(test_no_thread_to_be_had)
{
    pid_t pid = start_epmd();
    struct client a;

    client_publish(&a, "one", 1234);
    refuse_threads();
    ck_assert_int_eq(epmd_lookup(&a.epmd, "one", "localhost", 0, 5000, on_lookup, &a), -EAGAIN);
    ck_assert_int_eq(lookup(&a, "one", "127.0.0.1"), 0);
    ck_assert_uint_eq(a.port, 1234);
    epmd_free(&a.epmd);
    stop_epmd(pid);
}
END_TEST

/* No EPMD is asked, and there is none. */
START_TEST(test_port_that_is_known)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost"};

    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct client a = {.events = 0};
        ck_assert_int_eq(epmd_init(&a.epmd, &loop, on_event, &a), 0);
        ck_assert_int_eq(epmd_lookup(&a.epmd, "one", hosts[i], 4711, 5000, on_lookup, &a), 0);
        while (a.answers == 0)
            ck_assert(uv_run(&loop, UV_RUN_ONCE) != 0 || a.answers > 0);
        ck_assert_int_eq(a.lookup_status, 0);
        ck_assert_uint_eq(a.port, 4711);
        epmd_free(&a.epmd);
    }
}
END_TEST

START_TEST(test_host_that_is_not_known)
{
    struct client a = {.events = 0};

    ck_assert_int_eq(epmd_init(&a.epmd, &loop, on_event, &a), 0);
    ck_assert_int_lt(lookup(&a, "one", "nowhere.invalid"), 0);
    ck_assert_int_ne(a.lookup_status, -ENOENT);
    epmd_free(&a.epmd);
}
END_TEST

/* Free at every turn of the loop that a publication and three lookups take: nothing is reported,
 * nothing left open. */
START_TEST(test_free_at_any_time)
{
    pid_t pid = start_epmd();

    for (int turns = 0; turns < 12; turns++) {
        struct client a = {.events = 0};

        ck_assert_int_eq(epmd_init(&a.epmd, &loop, on_event, &a), 0);
        ck_assert_int_eq(epmd_publish(&a.epmd, "one", 1234), 0);
        for (int i = 0; i < 3; i++)
            ck_assert_int_eq(epmd_lookup(&a.epmd, "x", "localhost", 0, 5000, on_lookup, &a), 0);
        for (int i = 0; i < turns; i++)
            uv_run(&loop, UV_RUN_NOWAIT);
        epmd_free(&a.epmd);
        int events = a.events, answers = a.answers;
        ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
        ck_assert_int_eq(a.events, events);
        ck_assert_int_eq(a.answers, answers);
    }
    stop_epmd(pid);
}
END_TEST

START_TEST(test_bad_port_in_the_environment)
{
    static const char *const bad[] = {"", "x", "0", "65536", "-1", "12x"};
    struct epmd epmd;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("ERL_EPMD_PORT", bad[i], 1);
        ck_assert_int_eq(epmd_init(&epmd, &loop, on_event, NULL), -EINVAL);
        epmd_free(&epmd);
    }
}
END_TEST

Suite *suite_epmd(void);
Suite *suite_epmd(void)
{
    Suite *suite = suite_create("epmd");
    TCase *wire = tcase_create("wire");
    TCase *real = tcase_create("real");

    tcase_add_test(wire, test_alive2_request);
    tcase_add_test(wire, test_port_please2_request);
    tcase_add_test(wire, test_alive2_response);
    tcase_add_test(wire, test_port2_response);
    suite_add_tcase(suite, wire);
    tcase_set_timeout(real, 60);
    tcase_add_checked_fixture(real, setup, teardown);
    tcase_add_test(real, test_published_name_is_found_and_freed);
    tcase_add_test(real, test_taken_name);
    tcase_add_test(real, test_name_that_is_let_go_in_time);
    tcase_add_test(real, test_republished_after_a_restart);
    tcase_add_test(real, test_absent_epmd_is_started);
    tcase_add_test(real, test_no_epmd_to_be_had);
    tcase_add_test(real, test_silent_epmd);
    tcase_add_test(real, test_name_taken_while_epmd_was_away);
    tcase_add_test(real, test_epmd_that_talks_on);
    tcase_add_test(real, test_epmd_that_closes_again_and_again);
    tcase_add_test(real, test_no_thread_to_be_had);
    tcase_add_test(real, test_port_that_is_known);
    tcase_add_test(real, test_host_that_is_not_known);
    tcase_add_test(real, test_free_at_any_time);
    tcase_add_test(real, test_bad_port_in_the_environment);
    suite_add_tcase(suite, real);
    return suite;
}
