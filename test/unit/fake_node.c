/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_node.h"

#include "base/log.h"

#include <check.h>
#include <fcntl.h>
#include <unistd.h>

uv_loop_t fake_loop;
struct server fake_server;

static int log_pipe[2];

static void on_ready(void *ctx, int port)
{
    (void)ctx;
    (void)port;
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    ck_abort_msg("%s", why);
}

struct node *fake_node_start(void)
{
    struct sockaddr_in any;

    ck_assert_int_eq(pipe2(log_pipe, O_NONBLOCK | O_CLOEXEC), 0);
    log_init(LOG_INFO, log_pipe[1]);
    ck_assert_int_eq(uv_loop_init(&fake_loop), 0);
    ck_assert_int_eq(uv_ip4_addr("127.0.0.1", 0, &any), 0);
    struct server_config config = {
        .loop = &fake_loop,
        .name = FAKE_NODE_NAME,
        .cookie = slice_of("cookie"),
        .listen = (const struct sockaddr *)&any,
        .on_ready = on_ready,
        .on_failed = on_failed,
    };
    ck_assert_int_eq(server_init(&fake_server, &config), 0);
    fake_server.node.creation = FAKE_NODE_CREATION;
    return &fake_server.node;
}

void fake_node_stop(void)
{
    server_stop(&fake_server);
    uv_run(&fake_loop, UV_RUN_DEFAULT);
    ck_assert_uint_eq(fake_server.node.budget.input, 0);
    ck_assert_uint_eq(fake_server.node.budget.output, 0);
    ck_assert_uint_eq(fake_server.node.budget.holds, 0);
    server_free(&fake_server);
    ck_assert_int_eq(uv_loop_close(&fake_loop), 0);
    log_free();
    close(log_pipe[0]);
    close(log_pipe[1]);
}

void fake_peer_connect(struct fake_peer *peer, const char *name)
{
    peer->c = fake_connection(&peer->transport, &fake_server.node, name);
    ck_assert_ptr_nonnull(peer->c);
}

void fake_node_end_turn(void)
{
    input_new_turn(&fake_server.input);
    connection_flush_all(&fake_server.node);
}

void fake_peer_close(struct fake_peer *peer)
{
    if (!peer->transport.is_closed)
        connection_close(peer->c, LOG_DEBUG, NULL);
    ck_assert(fake_transport_reap(&peer->transport));
    peer->c = NULL;
}

const char *fake_log_take(void)
{
    static char text[4096];
    ssize_t len = read(log_pipe[0], text, sizeof text - 1);

    text[len > 0 ? len : 0] = '\0';
    return text;
}
