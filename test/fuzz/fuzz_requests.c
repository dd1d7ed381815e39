/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that a connected node can say, to the whole program but its main: the input is the stream of
 * a connection that is up, cut into pieces by its first byte. Every input gets a node of its own.
 *
 * It includes connection.c to put the bytes where the socket would put them; no socket is opened.
 */
#include "../../c_src/distribution/connection.c"

#include "fuzz.h"

#include "distribution/dist_flags.h"
#include "macula/api.h"
#include "macula/coordinator.h"
#include "otp/net_kernel.h"
#include "otp/rpc.h"
#include "term/term_check.h"
#include "term/term_write.h"

#define TURNS 50 /* of the loop, at the end, so that answers that take several come */

struct fuzzed {
    uv_loop_t loop;
    struct node node;
    struct profile_cache cache;
    struct coordinator coordinator;
    struct gen_server net_kernel;
    struct rpc rpc;
    struct connection *peer;
};

static struct fuzzed f;

static void on_log(void *ctx, int level, const char *kind, const char *peer, const char *about,
                   const char *format, va_list arguments)
{
    char text[512];

    (void)ctx, (void)level, (void)kind, (void)peer, (void)about;
    fuzz_check(vsnprintf(text, sizeof text, format, arguments) > 0);
}

static void on_spawn(void *ctx, const struct spawn_request *request)
{
    (void)ctx;
    rpc_handle_spawn(&f.rpc, request);
}

static void on_up(void *ctx, struct connection *c)
{
    (void)ctx;
    coordinator_node_up(&f.coordinator, c);
}

static void on_down(void *ctx, struct connection *c)
{
    (void)ctx;
    coordinator_node_down(&f.coordinator, c);
    if (c == f.peer)
        f.peer = NULL;
}

static void on_monitor_exit(void *ctx, struct connection *c, const struct control *control)
{
    (void)ctx;
    watches_take_exit(&f.coordinator.watches, c, control);
}

static void start(void)
{
    struct sockaddr_in any;
    struct coordinator_options settings;

    memset(&f, 0, sizeof f);
    fuzz_check(uv_loop_init(&f.loop) == 0);
    fuzz_check(uv_ip4_addr("127.0.0.1", 0, &any) == 0);
    struct node_config config = {
        .loop = &f.loop,
        .name = "macula_nat@127.0.0.1",
        .cookie = slice_of("cookie"),
        .listen = (const struct sockaddr *)&any,
        .hooks = {&f, on_log, on_spawn, on_up, on_down, on_monitor_exit, NULL, NULL},
    };
    fuzz_check(node_init(&f.node, &config) == 0);
    f.node.epmd.creation = 0x01010101; /* as in the corpus */
    coordinator_options_init(&settings);
    settings.nat.max_sessions = 20;
    net_kernel_start(&f.net_kernel, &f.node);
    profile_cache_start(&f.cache, &f.node);
    fuzz_check(coordinator_start(&f.coordinator, &f.node, &f.cache, &settings) == 0);
    rpc_start(&f.rpc, &f.node, api_functions, api_function_count, &f.coordinator);
}

static void connect_peer(void)
{
    f.peer = connection_new(&f.node);
    fuzz_check(f.peer);
    strcpy(f.peer->name, "peer@127.0.0.1");
    f.peer->flags = DIST_FLAGS_OURS;
    free(f.peer->handshake);
    f.peer->handshake = NULL;
    f.peer->state = CONNECTION_UP;
    node_connection_up(&f.node, f.peer);
}

/* What we say must be frames of whole terms. */
static void check_output(struct connection *c)
{
    struct slice out = buffer_slice(&c->out);

    while (out.len > 0) {
        fuzz_check(out.len >= FRAME_HEAD);
        size_t size = get_u32(out.data);
        fuzz_check(size <= out.len - FRAME_HEAD);
        struct slice rest = {out.data + FRAME_HEAD, size};
        fuzz_check(rest.len == 0 || rest.data[0] == CONTROL_PASS_THROUGH);
        if (rest.len > 0)
            rest = (struct slice){rest.data + 1, rest.len - 1};
        while (rest.len > 0) {
            ssize_t term = rest.data[0] == 131 ? term_check(rest.data + 1, rest.len - 1) : -EBADMSG;
            /* An answer may wrap what came as deep as is allowed. */
            fuzz_check(term > 0 || term == -E2BIG);
            if (term == -E2BIG)
                break;
            rest.data += term + 1;
            rest.len -= (size_t)term + 1;
        }
        out.data += FRAME_HEAD + size;
        out.len -= FRAME_HEAD + size;
    }
}

/* The end of a turn, with a socket that takes everything. */
static void end_turn(void)
{
    if (!f.peer)
        return;
    check_output(f.peer);
    if (f.peer->flush_wanted)
        node_forget_flush(&f.node, f.peer);
    buffer_reset(&f.peer->out, 0);
    if (f.peer->doomed)
        connection_close(f.peer, LOG_DEBUG, NULL);
}

static void receive(const uint8_t *data, size_t size)
{
    struct slice piece = fuzz_copy(data, size);

    buffer_append(&f.peer->in, piece.data, piece.len);
    free((void *)piece.data);
    size_t used = take_input(f.peer, buffer_data(&f.peer->in), buffer_size(&f.peer->in));
    if (f.peer)
        buffer_consume(&f.peer->in, used);
    end_turn();
}

static void finish(void)
{
    uint8_t room[TERM_ATOM_SIZE];
    struct slice reason = term_atom(room, "shutdown");

    for (int i = 0; i < TURNS && uv_run(&f.loop, UV_RUN_NOWAIT) && f.peer; i++)
        end_turn();
    if (f.peer)
        connection_close(f.peer, LOG_DEBUG, NULL);
    gen_server_stop(&f.coordinator.server, "shutdown");
    gen_server_stop(&f.cache.server, "shutdown");
    gen_server_stop(&f.rpc.rex, "shutdown");
    gen_server_stop(&f.net_kernel, "shutdown");
    coordinator_close(&f.coordinator);
    process_exit(&f.coordinator.calls.process, reason);
    while (f.node.processes.by_number) { /* workers that still wait for their answers */
        struct process *worker = f.node.processes.by_number;
        worker->behaviour->exit_signal(worker, reason);
    }
    node_stop(&f.node);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    coordinator_free(&f.coordinator);
    profile_cache_free(&f.cache);
    node_free(&f.node);
    fuzz_check(uv_loop_close(&f.loop) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = data[0] ? (size_t)data[0] * data[0] : size;

    fuzz_begin();
    start();
    connect_peer();
    end_turn();
    for (size_t at = 1; at < size && f.peer; at += piece)
        receive(data + at, size - at < piece ? size - at : piece);
    finish();
    return 0;
}
