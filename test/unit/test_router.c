/* SPDX-License-Identifier: Apache-2.0 */
/* Frames from a peer, taken to a node without sockets: what reaches whom, and what is dropped. */
#include "fake_node.h"
#include "suites.h"

#include "distribution/budget.h"
#include "distribution/router.h"
#include "distribution/watch.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#define PEER  "peer@h"
#define OTHER "other@h"

static struct node *node;
static struct fake_peer peer;
static struct process process;
static struct watch watch; /* of a process of the peer */
static struct buffer frame;
static char seen[256]; /* what was called, in order */

static void note(const char *what)
{
    size_t len = strlen(seen);

    snprintf(seen + len, sizeof seen - len, "%s;", what);
}

static void on_message(struct process *p, struct connection *via, struct slice message)
{
    struct cursor c = cursor_of(message);

    ck_assert(p == &process && via == peer.c && cursor_is_atom(&c, "hello"));
    note("message");
}

static void on_exit_signal(struct process *p, struct slice reason)
{
    struct cursor c = cursor_of(reason);
    struct slice name;

    ck_assert(p == &process && cursor_atom(&c, &name));
    note(slice_is(name, "boom") ? "exit boom" : "exit");
}

static void on_spawn(struct node_spawner *spawner, struct connection *via,
                     const struct control *request)
{
    struct cursor arguments = cursor_of(request->message);
    (void)spawner;

    ck_assert(via == peer.c && slice_is(request->from.pid.node, PEER));
    ck_assert(slice_is(request->module, "m") && slice_is(request->function, "f"));
    ck_assert_int_eq(request->arity, 3);
    ck_assert(cursor_is_atom(&arguments, "hello"));
    note("spawn");
}

static void on_down(struct watch *w, struct slice reason)
{
    struct cursor c = cursor_of(reason);

    ck_assert(w == &watch && cursor_is_atom(&c, "boom"));
    note("down");
}

static void set_up(void)
{
    static const struct process_behaviour behaviour = {on_message, on_exit_signal};
    static struct node_spawner spawner = {on_spawn};

    node = fake_node_start();
    node->spawner = &spawner;
    process_start(&process, node, &behaviour, "server");
    fake_peer_connect(&peer, PEER);
    fake_log_take();
    buffer_init(&frame);
    seen[0] = '\0';
}

static void tear_down(void)
{
    uint8_t room[TERM_ATOM_SIZE];

    fake_peer_close(&peer);
    process_exit(&process, term_atom(room, "shutdown"));
    buffer_free(&frame);
    fake_node_stop();
}

static void put_pid(const char *name, uint32_t id)
{
    struct pid pid = {slice_of(name), id, 0, 7};

    term_put_pid(&frame, &pid);
}

static void put_process(void)
{
    struct pid pid = process_pid(&process);

    term_put_pid(&frame, &pid);
}

static void put_hello(void)
{
    term_put_version(&frame);
    term_put_atom(&frame, "hello");
}

/*
 * Takes a frame to the router, one letter an element of its tuple: `p` a process of the peer, `o`
 * one of another node, `e` one of a node without a name, `s` ours, `d` a dead one of ours, `S` the
 * name of ours, `n` the name of none, `c` the cookie, `r` a reference, `w` that of our watch, `i`
 * an id, `m` what to spawn, `x` a reason; `!` a message follows.
 */
static void take(int op, const char *elements)
{
    static const uint8_t pass_through = 112;
    const char *message = strchr(elements, '!');
    size_t count = message ? (size_t)(message - elements) : strlen(elements);
    struct pid dead = process_pid(&process);

    dead.id++;
    buffer_reset(&frame, 0);
    buffer_append(&frame, &pass_through, 1);
    term_put_version(&frame);
    term_put_tuple(&frame, (int)count + 1);
    term_put_int(&frame, op);
    for (const char *e = elements; *e; e++) {
        switch (*e) {
        case 'p':
            put_pid(PEER, 1);
            break;
        case 'o':
            put_pid(OTHER, 1);
            break;
        case 'e':
            put_pid("", 1);
            break;
        case 's':
            put_process();
            break;
        case 'd':
            term_put_pid(&frame, &dead);
            break;
        case 'S':
            term_put_atom(&frame, "server");
            break;
        case 'n':
            term_put_atom(&frame, "nobody");
            break;
        case 'c':
            term_put_atom(&frame, "");
            break;
        case 'r':
            term_put_reference(&frame, slice_of(PEER), 7, 9);
            break;
        case 'w':
            term_put_reference(&frame, node->name_slice, node->creation, watch.number);
            break;
        case 'i':
            term_put_int(&frame, 17);
            break;
        case 'm':
            term_put_tuple(&frame, 3);
            term_put_atom(&frame, "m");
            term_put_atom(&frame, "f");
            term_put_int(&frame, 3);
            break;
        case 'x':
            term_put_atom(&frame, "boom");
            break;
        case '!':
            put_hello();
            break;
        default:
            ck_abort_msg("no such element: %c", *e);
        }
    }
    router_handle_frame(peer.c, buffer_slice(&frame));
}

/* Takes the frame; what was called must be `expected`. */
static void check(int op, const char *elements, const char *expected)
{
    seen[0] = '\0';
    take(op, elements);
    ck_assert_msg(strcmp(seen, expected) == 0, "op %d %s: %s", op, elements, seen);
}

START_TEST(test_messages)
{
    check(CONTROL_SEND, "cs!", "message;");
    check(CONTROL_REG_SEND, "pcS!", "message;");
    ck_assert_uint_eq(node->counters.messages_to_nobody, 0);
    check(CONTROL_SEND, "cd!", "");
    check(CONTROL_SEND, "cp!", "");
    check(CONTROL_REG_SEND, "pcn!", "");
    ck_assert_uint_eq(node->counters.messages_to_nobody, 3);
    ck_assert_uint_eq(buffer_size(&peer.c->out), 0);
}
END_TEST

START_TEST(test_signals)
{
    check(CONTROL_MONITOR, "psr", "");
    ck_assert_ptr_nonnull(process.monitors);
    check(CONTROL_DEMONITOR, "psr", "");
    ck_assert_ptr_null(process.monitors);
    /* An exit through a link that there is, and through none. */
    check(CONTROL_LINK, "ps", "");
    ck_assert_ptr_nonnull(process.links);
    check(CONTROL_EXIT, "psx", "exit boom;");
    ck_assert_ptr_null(process.links);
    check(CONTROL_EXIT, "psx", "");
    check(CONTROL_EXIT2, "psx", "exit boom;");
    check(CONTROL_EXIT2, "pdx", "");
    check(CONTROL_LINK, "ps", "");
    check(CONTROL_UNLINK, "ps", "");
    ck_assert_ptr_null(process.links);
    ck_assert_uint_eq(buffer_size(&peer.c->out), 0);
}
END_TEST

/* What is answered in any case: a monitor and a link of nobody, an unlink with an id. */
START_TEST(test_answers)
{
    static const struct {
        int op;
        const char *elements;
        enum control_op answer;
    } rows[] = {
        {CONTROL_MONITOR, "pdr", CONTROL_MONITOR_EXIT},
        {CONTROL_MONITOR, "pnr", CONTROL_MONITOR_EXIT},
        {CONTROL_LINK, "pd", CONTROL_EXIT},
        {CONTROL_UNLINK_ID, "ips", CONTROL_UNLINK_ID_ACK},
        {CONTROL_UNLINK_ID, "ipd", CONTROL_UNLINK_ID_ACK},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct control answer;
        buffer_reset(&peer.c->out, 0);
        check(rows[i].op, rows[i].elements, "");
        struct slice out = buffer_slice(&peer.c->out);
        ck_assert_uint_gt(out.len, 4);
        ck_assert_int_eq(control_parse(&answer, (struct slice){out.data + 4, out.len - 4}), 0);
        ck_assert_int_eq(answer.op, rows[i].answer);
        ck_assert(slice_is(answer.to.pid.node, PEER));
    }
}
END_TEST

START_TEST(test_spawn)
{
    check(CONTROL_SPAWN_REQUEST, "rppmx!", "spawn;");
    ck_assert_uint_eq(node->counters.spawns, 1);
}
END_TEST

static void start_watch(void)
{
    struct pid pid = {slice_of(PEER), 1, 0, 7};

    watch = (struct watch){.on_down = on_down};
    ck_assert_int_eq(watch_pid(&watch, &process, &pid), 0);
    buffer_reset(&peer.c->out, 0);
}

/* What we watch is gone: told once, whichever way it is named, and only by who was asked. */
START_TEST(test_watch)
{
    start_watch();
    check(CONTROL_MONITOR_EXIT, "psrx", "");
    check(CONTROL_MONITOR_EXIT, "pswx", "down;");
    ck_assert(!watch_is_on(&watch));
    check(CONTROL_MONITOR_EXIT, "pswx", "");
    start_watch();
    check(CONTROL_MONITOR_EXIT, "nswx", "down;");
    start_watch();
    seen[0] = '\0';
    struct fake_peer other;
    fake_peer_connect(&other, OTHER);
    struct connection *first = peer.c;
    peer.c = other.c;
    take(CONTROL_MONITOR_EXIT, "oswx");
    peer.c = first;
    ck_assert_str_eq(seen, "");
    fake_peer_close(&other);
    watch_stop(&watch);
}
END_TEST

/* What a node may send and we have no use for. */
START_TEST(test_ignored)
{
    struct node_counters before = node->counters;

    check(CONTROL_ALIAS_SEND, "pr!", "");
    check(CONTROL_SPAWN_REPLY, "rsix", "");
    check(CONTROL_UNLINK_ID_ACK, "ips", "");
    check(CONTROL_GROUP_LEADER, "ps", "");
    ck_assert_mem_eq(&node->counters, &before, sizeof before);
    ck_assert_uint_eq(buffer_size(&peer.c->out), 0);
}
END_TEST

/* The frame reaches nobody, and one more is counted. */
static void check_dropped(int op, const char *elements, const uint64_t *counter)
{
    uint64_t before = *counter;

    check(op, elements, "");
    ck_assert_msg(*counter == before + 1, "op %d %s", op, elements);
}

/* A line of the log says what was dropped, and whose it was. */
static void check_logged(const char *what)
{
    const char *line = fake_log_take();

    ck_assert_msg(strstr(line, "warning") && strstr(line, what) && strstr(line, " from " PEER),
                  "%s", line);
}

START_TEST(test_dropped)
{
    uint64_t *malformed = &node->counters.frames_malformed;

    check_dropped(CONTROL_SEND, "cs", malformed);
    check_logged("malformed frame");
    check_dropped(CONTROL_LINK, "ps!", malformed);
    check_dropped(CONTROL_MONITOR, "ps", malformed);
    /* A whole one and each of its beginnings. */
    take(CONTROL_SPAWN_REQUEST, "rppmx!");
    size_t size = buffer_size(&frame);
    for (size_t len = 0; len < size; len++) {
        router_handle_frame(peer.c, (struct slice){buffer_data(&frame), len});
        ck_assert_uint_eq(*malformed, 4 + len);
    }
    ck_assert_uint_eq(node->counters.spawns, 1);
    check_dropped(CONTROL_NODE_LINK, "", &node->counters.control_unknown);
    check_logged("unknown control message");
    check_dropped(200, "ps", &node->counters.control_unknown);
    ck_assert_uint_eq(buffer_size(&peer.c->out), 0);
}
END_TEST

/* In the name of a process of another node, what makes us remember or answer it is dropped. */
START_TEST(test_foreign)
{
    static const struct {
        int op;
        const char *elements;
    } rows[] = {
        {CONTROL_REG_SEND, "ocS!"},
        {CONTROL_MONITOR, "osr"},
        {CONTROL_DEMONITOR, "osr"},
        {CONTROL_LINK, "os"},
        {CONTROL_UNLINK, "os"},
        {CONTROL_UNLINK_ID, "ios"},
        {CONTROL_EXIT, "osx"},
        {CONTROL_EXIT2, "osx"},
        {CONTROL_SPAWN_REQUEST, "roomx!"},
        {CONTROL_MONITOR_EXIT, "osrx"},
        {CONTROL_REG_SEND, "ecS!"},
        {CONTROL_MONITOR, "esr"},
        {CONTROL_LINK, "es"},
    };

    check(CONTROL_LINK, "ps", "");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_dropped(rows[i].op, rows[i].elements, &node->counters.control_foreign);
    check_logged("in the name of another node");
    ck_assert_ptr_nonnull(process.links);
    ck_assert_ptr_null(process.monitors);
    ck_assert_uint_eq(buffer_size(&peer.c->out), 0);
}
END_TEST

/* All monitors and links together are over their limit: who has the most goes. */
START_TEST(test_total_of_monitors)
{
    check(CONTROL_MONITOR, "psr", "");
    size_t one = peer.c->budget.holds;
    ck_assert_uint_gt(one, 0);
    ck_assert_uint_eq(node->budget.holds, one);
    check(CONTROL_LINK, "ps", "");
    ck_assert_uint_gt(node->budget.holds, one);
    check(CONTROL_UNLINK, "ps", "");
    check(CONTROL_DEMONITOR, "psr", "");
    ck_assert_uint_eq(node->budget.holds, 0);
    ck_assert_uint_eq(peer.c->budget.holds, 0);
    node->budget.holds = HOLDS_TOTAL_MAX - one;
    check(CONTROL_MONITOR, "psr", "");
    ck_assert_ptr_null(peer.c->doomed);
    check(CONTROL_LINK, "ps", "");
    ck_assert_ptr_nonnull(peer.c->doomed);
    ck_assert_ptr_null(process.links);
    ck_assert_uint_eq(node->counters.monitors_limit, 1);
    node->budget.holds = one;
}
END_TEST

Suite *suite_router(void)
{
    Suite *suite = suite_create("router");
    TCase *tc = tcase_create("router");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, test_messages);
    tcase_add_test(tc, test_signals);
    tcase_add_test(tc, test_answers);
    tcase_add_test(tc, test_spawn);
    tcase_add_test(tc, test_watch);
    tcase_add_test(tc, test_ignored);
    tcase_add_test(tc, test_dropped);
    tcase_add_test(tc, test_foreign);
    tcase_add_test(tc, test_total_of_monitors);
    suite_add_tcase(suite, tc);
    return suite;
}
