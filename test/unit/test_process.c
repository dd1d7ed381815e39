/* SPDX-License-Identifier: Apache-2.0 */
/* Processes: their pids and names, who gets to know of their end, and what ends them. */
#include "node_world.h"
#include "suites.h"

#include "base/log.h"
#include "distribution/budget.h"
#include "distribution/process.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static struct node_world world;
static struct process server, other;
static struct pid peers[2];
static char seen[128]; /* exit signals, in order */

static void on_message(struct process *p, struct connection *via, struct slice message)
{
    (void)p;
    (void)via;
    (void)message;
}

/* As one that traps no exits. */
static void on_exit_signal(struct process *p, struct slice reason)
{
    size_t len = strlen(seen);
    struct cursor c = cursor_of(reason);
    struct slice name = {0};

    ck_assert(cursor_atom(&c, &name));
    snprintf(seen + len, sizeof seen - len, "%s %.*s;", p == &server ? "server" : "other",
             (int)name.len, (const char *)name.data);
    process_exit(p, reason);
}

static const struct process_behaviour behaviour = {on_message, on_exit_signal};

static void end(struct process *p, const char *reason)
{
    uint8_t room[TERM_ATOM_SIZE];

    if (process_is_alive(p))
        process_exit(p, term_atom(room, reason));
}

static void set_up(void)
{
    seen[0] = '\0';
    node_world_start(&world);
    peers[0] = world.pid;
    peers[1] = world.pid;
    peers[1].id++;
    ck_assert_int_eq(process_start(&server, world.node, &behaviour, "server"), 0);
    ck_assert_int_eq(process_start(&other, world.node, &behaviour, NULL), 0);
}

static void tear_down(void)
{
    end(&server, "shutdown");
    end(&other, "shutdown");
    node_world_stop(&world);
}

/* The peer's first or second process and one of ours, at the two ends of a signal. */
static struct control signal_of(enum control_op op, int from, const struct process *to)
{
    return (struct control){.op = op,
                            .from.pid = peers[from],
                            .to.pid = process_pid(to),
                            .reason = slice_of("w\4boom")};
}

static void monitor(int number, struct control_end to)
{
    struct buffer reference;

    buffer_init(&reference);
    term_put_reference(&reference, peers[0].node, 7, (uint64_t)number);
    struct control k = {.op = CONTROL_MONITOR,
                        .from.pid = peers[0],
                        .to = to,
                        .reference = buffer_slice(&reference)};
    process_handle_monitor(world.peer, &k);
    buffer_free(&reference);
}

static void link_to(int from, const struct process *p)
{
    struct control k = signal_of(CONTROL_LINK, from, p);

    process_handle_link(world.peer, &k);
}

static void send_exit(enum control_op op, int from, const struct process *to, const char *reason)
{
    uint8_t room[TERM_ATOM_SIZE];
    struct control k = signal_of(op, from, to);

    k.reason = term_atom(room, reason);
    process_handle_exit(world.peer, &k);
}

START_TEST(it_is_found_while_it_is_alive)
{
    struct pid pid = process_pid(&server), stranger = pid;

    ck_assert_ptr_eq(process_find(world.node, &pid), &server);
    ck_assert_ptr_eq(process_find_name(world.node, slice_of("server")), &server);
    ck_assert_ptr_null(process_find_name(world.node, slice_of("")));
    stranger.creation++;
    ck_assert_ptr_null(process_find(world.node, &stranger));
    stranger = pid;
    stranger.node = slice_of(NODE_WORLD_PEER);
    ck_assert_ptr_null(process_find(world.node, &stranger));
    stranger = pid;
    stranger.serial = UINT32_MAX;
    ck_assert_ptr_null(process_find(world.node, &stranger));
    end(&server, "normal");
    ck_assert_ptr_null(process_find(world.node, &pid));
    ck_assert_ptr_null(process_find_name(world.node, slice_of("server")));
}
END_TEST

/* Numbers begin again after 2^28, without 0 and without those that are taken. */
START_TEST(a_number_is_nobody_elses)
{
    struct process late;
    uint32_t taken[] = {server.number, other.number};

    ck_assert_uint_eq(taken[0], 1);
    ck_assert_uint_eq(taken[1], 2);
    world.node->processes.last_number = 0x0fffffff;
    ck_assert_int_eq(process_start(&late, world.node, &behaviour, NULL), 0);
    ck_assert_uint_eq(late.number, 3);
    end(&late, "normal");
    world.node->processes.last_number = 0x0ffffffe;
    ck_assert_int_eq(process_start(&late, world.node, &behaviour, NULL), 0);
    struct pid pid = process_pid(&late);
    ck_assert_uint_eq(pid.id, 0x7fff);
    ck_assert_uint_eq(pid.serial, 0x1fff);
    ck_assert_ptr_eq(process_find(world.node, &pid), &late);
    end(&late, "normal");
}
END_TEST

START_TEST(monitors_and_links_get_its_reason)
{
    monitor(1, (struct control_end){.pid = process_pid(&server)});
    monitor(2, (struct control_end){.name = slice_of("server")});
    monitor(2, (struct control_end){.name = slice_of("server")}); /* the same again */
    link_to(0, &server);
    link_to(0, &server);
    link_to(1, &server);
    ck_assert_uint_eq(world.peer->holds, 4);
    ck_told(&world, "");
    end(&server, "over");
    ck_told(&world, "down over");
    ck_told(&world, "down over");
    ck_told(&world, "exit over");
    ck_told(&world, "exit over");
    ck_told(&world, "");
    ck_assert_uint_eq(world.peer->holds, 0);
    ck_assert_uint_eq(world.node->budget.holds, 0);
}
END_TEST

/* As OTP: `normal` ends none, `kill` is no more than a word when it comes through a link. */
START_TEST(exit_signals)
{
    send_exit(CONTROL_EXIT2, 0, &server, "normal");
    ck_assert_str_eq(seen, "");
    send_exit(CONTROL_EXIT, 0, &server, "boom"); /* there is no link */
    ck_assert_str_eq(seen, "");
    link_to(0, &server);
    send_exit(CONTROL_EXIT, 1, &server, "boom"); /* nor from this one */
    ck_assert_str_eq(seen, "");
    send_exit(CONTROL_EXIT, 0, &server, "kill");
    ck_assert_str_eq(seen, "server kill;");
    send_exit(CONTROL_EXIT2, 0, &other, "kill");
    ck_assert_str_eq(seen, "server kill;other killed;");
    send_exit(CONTROL_EXIT2, 0, &other, "boom");
    ck_assert_str_eq(seen, "server kill;other killed;");
}
END_TEST

START_TEST(a_link_that_is_undone_counts_no_more)
{
    struct control k = signal_of(CONTROL_UNLINK, 0, &server);

    link_to(0, &server);
    process_handle_unlink(world.peer, &k);
    ck_assert_uint_eq(world.peer->holds, 0);
    send_exit(CONTROL_EXIT, 0, &server, "boom");
    ck_assert_str_eq(seen, "");
    end(&server, "normal");
    ck_told(&world, "");
}
END_TEST

/* One that is linked twice ends at the first, and takes its other link with it. */
START_TEST(a_connection_takes_its_links_along)
{
    monitor(1, (struct control_end){.pid = process_pid(&server)});
    link_to(0, &server);
    link_to(1, &server);
    link_to(0, &other);
    connection_close(world.peer, LOG_INFO, "test");
    ck_assert_str_eq(seen, "server noconnection;other noconnection;");
    ck_assert_uint_eq(world.node->budget.holds, 0);
}
END_TEST

/* The one monitor too many closes its connection at the end of the turn, and others keep theirs. */
START_TEST(one_monitor_too_many)
{
    monitor(1, (struct control_end){.pid = process_pid(&server)});
    world.peer->holds = HOLDS_MAX;
    monitor(2, (struct control_end){.pid = process_pid(&server)});
    ck_assert_ptr_nonnull(world.peer->doomed);
    ck_assert_ptr_nonnull(server.monitors);
    world.peer->holds = 1;
    end(&server, "over"); /* what is left is written nowhere */
    ck_told(&world, "");
    fake_node_end_turn();
    ck_assert(world.fake.transport.is_closed);
}
END_TEST

Suite *suite_process(void);
Suite *suite_process(void)
{
    Suite *suite = suite_create("process");
    TCase *tc = tcase_create("process");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, it_is_found_while_it_is_alive);
    tcase_add_test(tc, a_number_is_nobody_elses);
    tcase_add_test(tc, monitors_and_links_get_its_reason);
    tcase_add_test(tc, exit_signals);
    tcase_add_test(tc, a_link_that_is_undone_counts_no_more);
    tcase_add_test(tc, a_connection_takes_its_links_along);
    tcase_add_test(tc, one_monitor_too_many);
    suite_add_tcase(suite, tc);
    return suite;
}
