/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/node.h"

#include "distribution/connector.h"
#include "distribution/dist_flags.h"
#include "distribution/goodbye.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <utlist.h>

#define LISTEN_BACKLOG 512

void node_log(struct node *node, int level, const char *kind, const char *peer, const char *format,
              ...)
{
    va_list arguments;

    va_start(arguments, format);
    node->hooks.log(node->hooks.ctx, level, kind, peer, NULL, format, arguments);
    va_end(arguments);
}

void node_log_about(struct node *node, int level, const char *kind, const char *peer,
                    const char *about, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    node->hooks.log(node->hooks.ctx, level, kind, peer, about, format, arguments);
    va_end(arguments);
}

void node_note_no_memory(struct node *node, const char *peer, const char *what)
{
    node->counters.no_memory++;
    node_log(node, LOG_ERR, "memory", peer, "no memory for %s from %s", what, peer);
}

uint32_t node_creation(const struct node *node)
{
    return epmd_creation(&node->epmd);
}

bool node_is_self(const struct node *node, struct slice name)
{
    return slice_equal(name, node->name_slice);
}

struct connection *node_find(struct node *node, struct slice name)
{
    struct connection *found;

    HASH_FIND(hh, node->by_name, name.data, name.len, found);
    return found;
}

struct buffer *node_open_send(struct node *node, const struct pid *to, struct connection **via)
{
    *via = node_find(node, to->node);
    if (!*via) {
        node->counters.messages_undeliverable++;
        return NULL;
    }
    if (connection_pending(*via) > OUTPUT_UNASKED) {
        node->counters.output_dropped++;
        return NULL;
    }
    struct buffer *b = connection_open_frame(*via);
    control_put_send(b, to);
    return b;
}

/* --- the end of a turn --- */

void node_want_flush(struct node *node, struct connection *c)
{
    c->flush_wanted = true;
    LL_PREPEND2(node->flush_list, c, next_flush);
}

void node_forget_flush(struct node *node, struct connection *c)
{
    LL_DELETE2(node->flush_list, c, next_flush);
    c->flush_wanted = false;
}

static void flush_all(struct node *node)
{
    /* A flush may close its connection, whose end may give others something to say. */
    while (node->flush_list)
        connection_flush(node->flush_list);
}

static void on_end_of_turn(uv_prepare_t *prepare)
{
    struct node *node = prepare->data;

    node->turn++;
    node->had_large_frame = false;
    flush_all(node);
}

/* One connection a turn: all others are read and written in between. */
static void on_next_turn(uv_idle_t *idle)
{
    struct node *node = idle->data;

    if (node->in_turn)
        connection_go_on(node->in_turn);
    if (!node->in_turn)
        uv_idle_stop(idle);
}

void node_want_turn(struct node *node, struct connection *c)
{
    c->is_in_turn = true;
    DL_APPEND2(node->in_turn, c, prev_turn, next_turn);
    uv_idle_start(&node->next_turn, on_next_turn);
}

void node_forget_turn(struct node *node, struct connection *c)
{
    c->is_in_turn = false;
    DL_DELETE2(node->in_turn, c, prev_turn, next_turn);
}

/* --- connections --- */

void node_connection_up(struct node *node, struct connection *c)
{
    HASH_ADD_STR(node->by_name, name, c);
    if (!table_has(c->hh)) {
        connection_close(c, LOG_ERR, "no memory for its name");
        return;
    }
    node_log(node, LOG_INFO, "connected", c->name, "connected to %s", c->name);
    connector_note_up(node->connectors, c->name);
    node->hooks.up(node->hooks.ctx, c);
}

void node_connection_down(struct node *node, struct connection *c)
{
    if (table_has(c->hh))
        HASH_DEL(node->by_name, c);
    process_forget_connection(c);
    node->hooks.down(node->hooks.ctx, c);
    connector_note_down(node->connectors, c->name);
}

void node_connection_failed(struct node *node, struct connection *c, int level, const char *why)
{
    connector_note_failed(node->connectors, c->name, level, why);
}

int node_connect(struct node *node, const char *name, uint16_t port)
{
    return connector_add(&node->connectors, node, name, port);
}

static bool is_passing(int error)
{
    return error == -EAGAIN || error == -EINTR || error == -ECONNABORTED;
}

/*
 * Clients are accepted here and not by libuv (1.44), which stops for good at one that is not taken,
 * and which does nothing but try again as long as there are no descriptors. Then whoever comes
 * waits: on_second looks again.
 */
static void on_client(uv_poll_t *clients, int status, int events)
{
    struct node *node = clients->data;
    int listener;
    (void)events;

    int error = status < 0 ? status : uv_fileno((uv_handle_t *)&node->listener, &listener);
    if (error == 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        error = fd < 0 ? -errno : 0;
        if (fd < 0 && !is_passing(error))
            uv_poll_stop(clients);
        if (fd >= 0)
            error = connection_accept(node, fd);
    }
    node->counters.no_memory += error == -ENOMEM;
    if (error < 0 && !is_passing(error))
        node_log(node, LOG_ERR, "accept", "listener", "a connection was not accepted: %s",
                 uv_strerror(error));
}

static void on_second(uv_timer_t *timer)
{
    struct node *node = timer->data;
    struct connection *c, *next;

    DL_FOREACH_SAFE (node->connections, c, next)
        connection_check(c);
    if (node_creation(node) != 0 && !uv_is_active((uv_handle_t *)&node->clients))
        uv_poll_start(&node->clients, UV_READABLE, on_client);
}

/* --- EPMD --- */

/* The creation is known: before, nobody could be told a pid. Who has connected meanwhile has waited
 * in the listener's queue. */
static void begin(struct node *node)
{
    int error = uv_poll_start(&node->clients, UV_READABLE, on_client);

    if (error) {
        node->hooks.failed(node->hooks.ctx, uv_strerror(error));
        return;
    }
    connector_start_all(node->connectors);
    node->hooks.ready(node->hooks.ctx, node->port);
}

static void on_epmd_event(void *ctx, enum epmd_event event, int status, const char *text)
{
    struct node *node = ctx;
    char why[512];
    (void)status;

    switch (event) {
    case EPMD_PUBLISHED:
        begin(node);
        break;
    case EPMD_LOST:
    case EPMD_TAKEN:
        node_log(node, LOG_WARNING, "epmd", "EPMD", "%s", text);
        break;
    case EPMD_REGAINED:
        node_log(node, LOG_NOTICE, "epmd regained", "EPMD", "%s", text);
        break;
    case EPMD_FAILED:
        snprintf(why, sizeof why, "%s cannot be registered: %s", node->name, text);
        node->hooks.failed(node->hooks.ctx, why);
        break;
    }
}

/* --- life --- */

static bool is_our_challenge(void *ctx, uint32_t challenge)
{
    const struct node *node = ctx;
    const struct connection *c;

    DL_FOREACH (node->connections, c)
        if (c->handshake && handshake_has_sent(c->handshake, challenge))
            return true;
    return false;
}

int node_init(struct node *node, const struct node_config *config)
{
    memset(node, 0, sizeof *node);
    node->loop = config->loop;
    node->hooks = config->hooks;
    node->traces = config->traces;
    snprintf(node->name, sizeof node->name, "%s", config->name);
    node->name_slice = slice_of(node->name);
    memcpy(&node->listen, config->listen,
           config->listen->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                 : sizeof(struct sockaddr_in));
    node->no_epmd = config->no_epmd;
    node->cookie = slice_copy(config->cookie);
    node->scratch = malloc(READ_SIZE);
    node->handshake = (struct handshake_config){
        .node_name = node->name,
        .flags = DIST_FLAGS_OURS,
        .cookie = node->cookie,
        .cookie_len = config->cookie.len,
        .is_ours = is_our_challenge,
        .ctx = node,
    };
    int error = -ENOMEM;
    if (node->cookie && node->scratch)
        error = epmd_init(&node->epmd, node->loop, on_epmd_event, node);
    if (error) {
        node_free(node);
        return error;
    }
    /* None of these can fail. */
    uv_tcp_init(node->loop, &node->listener);
    uv_prepare_init(node->loop, &node->end_of_turn);
    uv_idle_init(node->loop, &node->next_turn);
    node->next_turn.data = node;
    uv_timer_init(node->loop, &node->second);
    uv_timer_init(node->loop, &node->goodbye);
    node->clients.data = node->end_of_turn.data = node->second.data = node->goodbye.data = node;
    return 0;
}

static int open_listener(struct node *node)
{
    struct sockaddr_storage address;
    int len = sizeof address;
    int error, fd;

    if ((error = uv_tcp_bind(&node->listener, (struct sockaddr *)&node->listen, 0)) != 0 ||
        (error = uv_tcp_getsockname(&node->listener, (struct sockaddr *)&address, &len)) != 0 ||
        (error = uv_fileno((uv_handle_t *)&node->listener, &fd)) != 0)
        return error;
    /* The port is ours from here on; `begin` takes the clients. */
    if (listen(fd, LISTEN_BACKLOG) != 0)
        return -errno;
    if ((error = uv_poll_init(node->loop, &node->clients, fd)) != 0)
        return error;
    node->port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                     : ((struct sockaddr_in *)&address)->sin_port);
    return 0;
}

int node_start(struct node *node)
{
    uv_prepare_start(&node->end_of_turn, on_end_of_turn);
    uv_timer_start(&node->second, on_second, 1000, 1000);
    int error = open_listener(node);
    if (error)
        return error;
    if (node->no_epmd)
        return epmd_do_without(&node->epmd);
    char alive[NODE_NAME_MAX + 1];
    snprintf(alive, sizeof alive, "%.*s", (int)strcspn(node->name, "@"), node->name);
    return epmd_publish(&node->epmd, alive, (uint16_t)node->port);
}

void node_stop(struct node *node)
{
    if (node->stopping)
        return;
    node->stopping = true;
    node->stopped_at = uv_now(node->loop);
    connector_free_all(&node->connectors);
    epmd_free(&node->epmd);
    if (node->clients.type != UV_UNKNOWN_HANDLE)
        uv_close((uv_handle_t *)&node->clients, NULL);
    uv_close((uv_handle_t *)&node->listener, NULL);
    uv_close((uv_handle_t *)&node->second, NULL);
    goodbye_start(node);
}

void node_free(struct node *node)
{
    if (node->cookie)
        OPENSSL_cleanse(node->cookie, node->handshake.cookie_len);
    free(node->cookie);
    free(node->scratch);
    node->cookie = node->scratch = NULL;
}
