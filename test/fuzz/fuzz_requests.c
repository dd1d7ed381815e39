/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that a connected node can say, to the whole application: the input is the stream of a
 * connection that is up, cut into pieces by its first byte. Every input gets a node of its own; no
 * socket is opened.
 */
#include "fuzz.h"

#include "../unit/fake_transport.h"
#include "application.h"
#include "base/bytes.h"
#include "base/log.h"
#include "term/term_check.h"
#include "term/term_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#define TURNS 50 /* of the loop, at the end, so that answers that take several come */

static uv_loop_t loop;
static struct application application;
static struct fake_transport transport;
static struct connection *peer;

static void on_terminated(void *ctx, struct slice reason)
{
    (void)ctx;
    (void)reason;
}

static void start(void)
{
    struct sockaddr_in any;

    fuzz_check(uv_loop_init(&loop) == 0);
    fuzz_check(uv_ip4_addr("127.0.0.1", 0, &any) == 0);
    struct application_config config = {
        .server = {.loop = &loop,
                   .name = "macula_nat@127.0.0.1",
                   .cookie = slice_of("cookie"),
                   .listen = (const struct sockaddr *)&any},
        .on_terminated = on_terminated,
    };
    coordinator_options_init(&config.coordinator);
    config.coordinator.nat.max_sessions = 20;
    memset(&application, 0, sizeof application);
    fuzz_check(application_init(&application, &config) == 0);
    application.server.node.creation = 0x01010101; /* as in the corpus */
    peer = fake_connection(&transport, &application.server.node, "peer@127.0.0.1");
    fuzz_check(peer);
}

/* What we say must be frames of whole terms. */
static void check_output(struct slice out)
{
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

/* The end of a turn, with a peer that takes everything. */
static void end_turn(void)
{
    connection_flush_all(&application.server.node);
    check_output(buffer_slice(&transport.written));
    buffer_reset(&transport.written, 0);
    if (fake_transport_reap(&transport))
        peer = NULL;
}

static void receive(const uint8_t *data, size_t size)
{
    struct slice piece = fuzz_copy(data, size);

    for (size_t at = 0; at < size && peer;) {
        size_t taken = fake_transport_receive(&transport, piece.data + at, size - at);
        at += taken;
        end_turn();
        if (taken > 0 || !peer)
            continue;
        if (!peer->input.is_in_line)
            break;
        uv_run(&loop, UV_RUN_NOWAIT); /* it has frames left that wait for their turn */
    }
    free((void *)piece.data);
}

static void finish(void)
{
    uint8_t room[TERM_ATOM_SIZE];
    struct slice reason = term_atom(room, "shutdown");

    for (int i = 0; i < TURNS && uv_run(&loop, UV_RUN_NOWAIT) && peer; i++)
        end_turn();
    if (peer) {
        connection_close(peer, LOG_DEBUG, NULL);
        fuzz_check(fake_transport_reap(&transport));
    }
    application_stop(&application);
    while (application.server.node.processes.by_number) { /* workers that still wait */
        struct process *worker = application.server.node.processes.by_number;
        worker->behaviour->exit_signal(worker, reason);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    application_free(&application);
    fuzz_check(uv_loop_close(&loop) == 0);
}

/* Lines of the log are composed, and read by nobody. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init(LOG_DEBUG, open("/dev/null", O_WRONLY | O_CLOEXEC));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = data[0] ? (size_t)data[0] * data[0] : size;

    fuzz_begin();
    start();
    end_turn();
    for (size_t at = 1; at < size && peer; at += piece)
        receive(data + at, size - at < piece ? size - at : piece);
    finish();
    return 0;
}
