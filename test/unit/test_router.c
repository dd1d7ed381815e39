/* SPDX-License-Identifier: Apache-2.0 */
/* Frames from a peer, taken to a node without sockets: what reaches whom, and what is dropped. */
#include "base/bytes.h"
#include "distribution/node.h"
#include "distribution/router.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <utlist.h>

#define PEER  "peer@h"
#define OTHER "other@h"

static uv_loop_t loop;
static struct node node;
static struct connection peer;
static struct process process;
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

    ck_assert(p == &process && via == &peer && cursor_is_atom(&c, "hello"));
    note("message");
}

static void on_exit_signal(struct process *p, struct slice reason)
{
    struct cursor c = cursor_of(reason);
    struct slice name;

    ck_assert(p == &process && cursor_atom(&c, &name));
    note(slice_is(name, "boom") ? "exit boom" : "exit");
}

static void on_log(void *ctx, int level, const char *kind, const char *name, const char *about,
                   const char *format, va_list arguments)
{
    char text[500];
    (void)ctx, (void)about;

    vsnprintf(text, sizeof text, format, arguments);
    ck_assert_int_eq(level, LOG_WARNING);
    ck_assert_str_eq(name, PEER);
    ck_assert_msg(strstr(text, " from " PEER) != NULL, "%s", text);
    note(kind);
}

static void on_spawn(void *ctx, const struct spawn_request *request)
{
    struct cursor arguments = cursor_of(request->arguments);
    (void)ctx;

    ck_assert(request->via == &peer && slice_is(request->from.node, PEER));
    ck_assert(slice_is(request->module, "m") && slice_is(request->function, "f"));
    ck_assert_int_eq(request->arity, 3);
    ck_assert(cursor_is_atom(&arguments, "hello"));
    note("spawn");
}

static void on_monitor_exit(void *ctx, struct connection *c, const struct control *control)
{
    struct cursor reason = cursor_of(control->reason);
    (void)ctx;

    ck_assert(c == &peer && cursor_is_atom(&reason, "boom"));
    note("monitor exit");
}

static void set_up(void)
{
    static const struct process_behaviour behaviour = {on_message, on_exit_signal};
    struct sockaddr_in any;

    ck_assert_int_eq(uv_loop_init(&loop), 0);
    ck_assert_int_eq(uv_ip4_addr("127.0.0.1", 0, &any), 0);
    struct node_config config = {
        .loop = &loop,
        .name = "us@h",
        .cookie = slice_of("cookie"),
        .listen = (const struct sockaddr *)&any,
        .hooks = {.log = on_log, .spawn = on_spawn, .monitor_exit = on_monitor_exit},
    };
    ck_assert_int_eq(node_init(&node, &config), 0);
    process_start(&process, &node, &behaviour, "server");
    memset(&peer, 0, sizeof peer);
    peer.node = &node;
    peer.state = CONNECTION_UP;
    peer.number = 1;
    strcpy(peer.name, PEER);
    buffer_init(&frame);
    seen[0] = '\0';
}

static void tear_down(void)
{
    uint8_t room[TERM_ATOM_SIZE];

    process_exit(&process, term_atom(room, "shutdown"));
    if (peer.flush_wanted)
        node_forget_flush(&node, &peer);
    buffer_free(&peer.out);
    buffer_free(&frame);
    node_stop(&node);
    uv_run(&loop, UV_RUN_DEFAULT);
    node_free(&node);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
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
 * name of ours, `n` the name of none, `c` the cookie, `r` a reference, `i` an id, `m` what to
 * spawn, `x` a reason; `!` a message follows.
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
    router_take_frame(&peer, buffer_slice(&frame));
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
    ck_assert_uint_eq(node.counters.messages_to_nobody, 0);
    check(CONTROL_SEND, "cd!", "");
    check(CONTROL_SEND, "cp!", "");
    check(CONTROL_REG_SEND, "pcn!", "");
    ck_assert_uint_eq(node.counters.messages_to_nobody, 3);
    ck_assert_uint_eq(buffer_size(&peer.out), 0);
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
    ck_assert_uint_eq(buffer_size(&peer.out), 0);
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
        buffer_reset(&peer.out, 0);
        check(rows[i].op, rows[i].elements, "");
        struct slice out = buffer_slice(&peer.out);
        ck_assert_uint_gt(out.len, 4);
        ck_assert_int_eq(control_parse(&answer, (struct slice){out.data + 4, out.len - 4}), 0);
        ck_assert_int_eq(answer.op, rows[i].answer);
        ck_assert(slice_is(answer.to.pid.node, PEER));
    }
}
END_TEST

START_TEST(test_hooks)
{
    check(CONTROL_SPAWN_REQUEST, "rppmx!", "spawn;");
    ck_assert_uint_eq(node.counters.spawns, 1);
    check(CONTROL_MONITOR_EXIT, "psrx", "monitor exit;");
    check(CONTROL_MONITOR_EXIT, "nsrx", "monitor exit;");
}
END_TEST

/* What a node may send and we have no use for. */
START_TEST(test_ignored)
{
    struct node_counters before = node.counters;

    check(CONTROL_ALIAS_SEND, "pr!", "");
    check(CONTROL_SPAWN_REPLY, "rsix", "");
    check(CONTROL_UNLINK_ID_ACK, "ips", "");
    check(CONTROL_GROUP_LEADER, "ps", "");
    ck_assert_mem_eq(&node.counters, &before, sizeof before);
    ck_assert_uint_eq(buffer_size(&peer.out), 0);
}
END_TEST

START_TEST(test_dropped)
{
    uint64_t *malformed = &node.counters.frames_malformed;

    check(CONTROL_SEND, "cs", "frame;");
    check(CONTROL_LINK, "ps!", "frame;");
    check(CONTROL_MONITOR, "ps", "frame;");
    ck_assert_uint_eq(*malformed, 3);
    /* A whole one and each of its beginnings. */
    take(CONTROL_SPAWN_REQUEST, "rppmx!");
    size_t size = buffer_size(&frame);
    for (size_t len = 0; len < size; len++) {
        router_take_frame(&peer, (struct slice){buffer_data(&frame), len});
        ck_assert_uint_eq(*malformed, 4 + len);
    }
    ck_assert_uint_eq(node.counters.spawns, 1);
    check(CONTROL_NODE_LINK, "", "control;");
    check(200, "ps", "control;");
    ck_assert_uint_eq(node.counters.control_unknown, 2);
    ck_assert_uint_eq(buffer_size(&peer.out), 0);
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
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check(rows[i].op, rows[i].elements, "foreign;");
        ck_assert_uint_eq(node.counters.control_foreign, i + 1);
    }
    ck_assert_ptr_nonnull(process.links);
    ck_assert_ptr_null(process.monitors);
    ck_assert_uint_eq(buffer_size(&peer.out), 0);
}
END_TEST

Suite *suite_router(void);

/* The rest of a frame is awaited so long, whatever else arrives. */
START_TEST(test_late_frame)
{
    uv_update_time(&loop);
    peer.sent_at = uv_now(&loop);
    buffer_append(&peer.in, "\0\0\1\0x", 5);
    peer.frame_since = uv_now(&loop) - FRAME_DEADLINE_MS + 1;
    connection_check(&peer);
    ck_assert_ptr_null(peer.doomed);
    peer.frame_since--;
    peer.has_frames = peer.is_in_turn = true; /* it is us who do not read */
    connection_check(&peer);
    ck_assert_ptr_null(peer.doomed);
    peer.has_frames = peer.is_in_turn = false;
    connection_check(&peer);
    ck_assert_ptr_nonnull(peer.doomed);
    ck_assert_uint_eq(node.counters.frames_late, 1);
    buffer_free(&peer.in);
}
END_TEST

/* Three frames that are no terms, in line for a turn. */
static void receive_large_frames(struct connection *c)
{
    size_t size = LARGE_FRAME + 1;

    ck_assert_int_eq(uv_tcp_init(&loop, &c->tcp), 0);
    for (int i = 0; i < 3; i++) {
        uint8_t *p = buffer_reserve(&c->in, 4 + size);
        ck_assert_ptr_nonnull(p);
        memset(p, 0, 4 + size);
        put_u32(p, (uint32_t)size);
        buffer_grow(&c->in, 4 + size);
    }
    c->has_frames = true;
    node_want_turn(&node, c);
}

/* One large frame a turn, and one connection after the other. */
START_TEST(test_large_frames)
{
    static struct connection other;

    memset(&other, 0, sizeof other);
    other.node = &node;
    other.state = CONNECTION_UP;
    strcpy(other.name, PEER);
    receive_large_frames(&peer);
    receive_large_frames(&other);
    for (uint64_t turn = 1; turn <= 4; turn++) {
        ck_assert_ptr_eq(node.in_turn, turn % 2 ? &peer : &other);
        node.had_large_frame = false;
        connection_go_on(node.in_turn);
        ck_assert_uint_eq(node.counters.frames_in, turn);
    }
    connection_go_on(node.in_turn);
    ck_assert_uint_eq(node.counters.frames_in, 4);
    ck_assert(peer.has_frames && other.has_frames);
    node_forget_turn(&node, &peer);
    node_forget_turn(&node, &other);
    buffer_free(&peer.in);
    buffer_free(&other.in);
    uv_close((uv_handle_t *)&peer.tcp, NULL);
    uv_close((uv_handle_t *)&other.tcp, NULL);
}
END_TEST

static void put_frame(struct connection *c, size_t size)
{
    struct buffer *b = connection_open_frame(c);

    if (buffer_reserve(b, size))
        buffer_grow(b, size);
    connection_close_frame(c);
}

/* All output together is over its limit at once, not a second later: who has the most goes. */
START_TEST(test_total_of_output)
{
    static struct connection other;

    memset(&other, 0, sizeof other);
    other.node = &node;
    other.state = CONNECTION_UP;
    DL_APPEND(node.connections, &peer);
    DL_APPEND(node.connections, &other);
    put_frame(&other, 1 << 20);
    put_frame(&peer, 1000);
    ck_assert_uint_eq(node.budget.output, peer.out.capacity + other.out.capacity);
    ck_assert_uint_eq(node.counters.output_limit, 0);
    /* As if the others had the rest. */
    size_t others = OUTPUT_TOTAL_MAX - node.budget.output;
    node.budget.output += others;
    put_frame(&peer, 4000);
    ck_assert_ptr_null(peer.doomed);
    ck_assert_ptr_nonnull(other.doomed);
    ck_assert_ptr_null(other.out.data);
    ck_assert_uint_eq(node.counters.output_limit, 1);
    put_frame(&other, 1 << 20);
    ck_assert_uint_eq(node.budget.output, others + peer.out.capacity);
    node_forget_flush(&node, &other);
    DL_DELETE(node.connections, &peer);
    DL_DELETE(node.connections, &other);
    buffer_free(&other.out);
}
END_TEST

/* So are all monitors together. */
START_TEST(test_total_of_monitors)
{
    DL_APPEND(node.connections, &peer);
    check(CONTROL_MONITOR, "psr", "");
    size_t one = peer.budget.holds;
    ck_assert_uint_gt(one, 0);
    ck_assert_uint_eq(node.budget.holds, one);
    check(CONTROL_LINK, "ps", "");
    ck_assert_uint_gt(node.budget.holds, one);
    check(CONTROL_UNLINK, "ps", "");
    check(CONTROL_DEMONITOR, "psr", "");
    ck_assert_uint_eq(node.budget.holds, 0);
    ck_assert_uint_eq(peer.budget.holds, 0);
    node.budget.holds = HOLDS_TOTAL_MAX - one;
    check(CONTROL_MONITOR, "psr", "");
    ck_assert_ptr_null(peer.doomed);
    check(CONTROL_LINK, "ps", "");
    ck_assert_ptr_nonnull(peer.doomed);
    ck_assert_ptr_null(process.links);
    ck_assert_uint_eq(node.counters.monitors_limit, 1);
    DL_DELETE(node.connections, &peer);
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
    tcase_add_test(tc, test_hooks);
    tcase_add_test(tc, test_ignored);
    tcase_add_test(tc, test_dropped);
    tcase_add_test(tc, test_foreign);
    tcase_add_test(tc, test_late_frame);
    tcase_add_test(tc, test_large_frames);
    tcase_add_test(tc, test_total_of_output);
    tcase_add_test(tc, test_total_of_monitors);
    suite_add_tcase(suite, tc);
    return suite;
}
