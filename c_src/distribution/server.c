/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/server.h"

#include "base/log.h"
#include "distribution/budget.h"
#include "distribution/process.h"
#include "distribution/tcp.h"
#include "distribution/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#define LISTEN_BACKLOG 512

/* --- calls from the parts below --- */

static void on_up(void *ctx, struct connection *c)
{
    struct server *server = ctx;
    struct node_observer *observer, *next;

    connector_note_up(&server->connectors, c->name);
    DL_FOREACH_SAFE (server->node.observers, observer, next)
        observer->on_up(observer, c);
}

static void on_drained(void *ctx, struct connection *c)
{
    (void)ctx;
    input_resume(c);
}

static void on_closed(void *ctx, struct connection *c, bool was_up, int level, const char *why)
{
    struct server *server = ctx;
    struct node_observer *observer, *next;

    input_forget(c);
    budget_forget_input(c);
    if (was_up) {
        process_forget_connection(c);
        DL_FOREACH_SAFE (server->node.observers, observer, next)
            observer->on_down(observer, c);
        watch_forget_connection(c);
        connector_note_down(&server->connectors, c->name);
    } else if (c->outgoing && why) {
        connector_note_failed(&server->connectors, c->name, level, why);
    }
}

/* --- clients --- */

/*
 * Closes the oldest client that has not proved who it is, if there are more than `allowed` of them:
 * clients that connect and say nothing must not keep others out.
 */
static bool make_room(struct node *node, unsigned allowed)
{
    struct connection *c, *oldest = NULL;
    unsigned count = 0;

    DL_FOREACH (node->connections, c) {
        if (c->state != CONNECTION_HANDSHAKE || c->outgoing)
            continue;
        count++;
        if (!oldest)
            oldest = c;
    }
    if (count <= allowed)
        return false;
    node->counters.handshakes_dropped++;
    connection_close(oldest, LOG_WARNING, "too many others connect");
    return true;
}

/*
 * One descriptor stays free behind every client. With none left libuv would close clients without
 * a word to us, and EPMD could not be reached again.
 */
static int keep_spare_descriptor(int fd)
{
    int spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (spare < 0)
        return -errno;
    close(spare);
    return 0;
}

static int accept_client(struct server *server, int fd)
{
    struct node *node = &server->node;
    struct connection *c = connection_new(node);

    if (!c) {
        close(fd);
        return -ENOMEM;
    }
    make_room(node, HALF_OPEN_MAX);
    int error = keep_spare_descriptor(fd);
    if (error && make_room(node, 0))
        error = keep_spare_descriptor(fd);
    if (error)
        close(fd);
    else
        error = tcp_accept(&c->transport, node->loop, fd, &input_transport_callbacks, c);
    if (error == 0)
        error = input_accept(c);
    if (error)
        connection_close(c, LOG_WARNING, NULL); /* on_client logs it */
    return error;
}

static bool is_passing(int error)
{
    return error == -EAGAIN || error == -EINTR || error == -ECONNABORTED;
}

/*
 * Clients are accepted here and not by libuv (1.44), which stops for good at one that is not taken,
 * and which does nothing but try again as long as there are no descriptors. Then clients wait in
 * the queue of the listener until on_second looks again.
 */
static void on_client(uv_poll_t *clients, int status, int events)
{
    struct server *server = clients->data;
    int listener;
    (void)events;

    int error = status < 0 ? status : uv_fileno((uv_handle_t *)&server->listener, &listener);
    if (error == 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        error = fd < 0 ? -errno : 0;
        if (fd < 0 && !is_passing(error))
            uv_poll_stop(clients);
        if (fd >= 0)
            error = accept_client(server, fd);
    }
    server->node.counters.no_memory += error == -ENOMEM;
    if (error < 0 && !is_passing(error))
        log_event(LOG_ERR, "accept", "listener", "a connection was not accepted: %s",
                  uv_strerror(error));
}

/* --- turns and seconds --- */

static void on_end_of_turn(uv_prepare_t *prepare)
{
    struct server *server = prepare->data;

    input_new_turn(&server->input);
    connection_flush_all(&server->node);
}

static void on_second(uv_timer_t *timer)
{
    struct server *server = timer->data;
    struct connection *c, *next;

    DL_FOREACH_SAFE (server->node.connections, c, next)
        input_check(c);
    if (server->node.creation != 0 && !uv_is_active((uv_handle_t *)&server->clients))
        uv_poll_start(&server->clients, UV_READABLE, on_client);
}

/* --- EPMD --- */

/* The creation is known; before, no pid could be sent. Clients that have connected meanwhile wait
 * in the queue of the listener. */
static void begin(struct server *server)
{
    server->node.creation = epmd_creation(&server->epmd);
    int error = uv_poll_start(&server->clients, UV_READABLE, on_client);
    if (error) {
        server->on_failed(server->ctx, uv_strerror(error));
        return;
    }
    connector_start_all(&server->connectors);
    server->on_ready(server->ctx, server->port);
}

static void on_epmd_event(void *ctx, enum epmd_event event, int status, const char *text)
{
    struct server *server = ctx;
    char why[512];
    (void)status;

    switch (event) {
    case EPMD_PUBLISHED:
        begin(server);
        break;
    case EPMD_LOST:
    case EPMD_TAKEN:
        log_event(LOG_WARNING, "epmd", "EPMD", "%s", text);
        break;
    case EPMD_REGAINED:
        log_event(LOG_NOTICE, "epmd regained", "EPMD", "%s", text);
        break;
    case EPMD_FAILED:
        snprintf(why, sizeof why, "%s cannot be registered: %s", server->node.name, text);
        server->on_failed(server->ctx, why);
        break;
    }
}

/* --- life --- */

int server_init(struct server *server, const struct server_config *config)
{
    *server = (struct server){
        .no_epmd = config->no_epmd,
        .ctx = config->ctx,
        .on_ready = config->on_ready,
        .on_failed = config->on_failed,
    };
    node_init(&server->node, config->loop, config->name);
    server->node.callbacks = (struct node_callbacks){server, on_up, on_drained, on_closed};
    memcpy(&server->listen, config->listen,
           config->listen->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                 : sizeof(struct sockaddr_in));
    int error = input_init(&server->input, &server->node, config->cookie);
    if (error)
        return error;
    error = epmd_init(&server->epmd, config->loop, on_epmd_event, server);
    if (error) {
        input_close(&server->input);
        uv_run(config->loop, UV_RUN_NOWAIT);
        input_free(&server->input);
        return error;
    }
    connectors_init(&server->connectors, &server->node, &server->epmd);
    /* None of these can fail. */
    uv_tcp_init(config->loop, &server->listener);
    uv_prepare_init(config->loop, &server->end_of_turn);
    uv_timer_init(config->loop, &server->second);
    server->clients.data = server->end_of_turn.data = server->second.data = server;
    goodbye_init(&server->goodbye, &server->node);
    return 0;
}

static int open_listener(struct server *server)
{
    struct sockaddr_storage address;
    int len = sizeof address;
    int error, fd;

    if ((error = uv_tcp_bind(&server->listener, (struct sockaddr *)&server->listen, 0)) != 0 ||
        (error = uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &len)) != 0 ||
        (error = uv_fileno((uv_handle_t *)&server->listener, &fd)) != 0)
        return error;
    /* The port is ours from here on; `begin` takes the clients. */
    if (listen(fd, LISTEN_BACKLOG) != 0)
        return -errno;
    if ((error = uv_poll_init(server->node.loop, &server->clients, fd)) != 0)
        return error;
    server->port =
        ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                            : ((struct sockaddr_in *)&address)->sin_port);
    return 0;
}

int server_start(struct server *server)
{
    char alive[NODE_NAME_MAX + 1];

    uv_prepare_start(&server->end_of_turn, on_end_of_turn);
    uv_timer_start(&server->second, on_second, 1000, 1000);
    int error = open_listener(server);
    if (error)
        return error;
    if (server->no_epmd)
        return epmd_do_without(&server->epmd);
    snprintf(alive, sizeof alive, "%.*s", (int)strcspn(server->node.name, "@"), server->node.name);
    return epmd_publish(&server->epmd, alive, (uint16_t)server->port);
}

int server_connect(struct server *server, const char *name, uint16_t port)
{
    return connector_add(&server->connectors, name, port);
}

/* All connections are closed. */
static void on_goodbye(void *ctx)
{
    struct server *server = ctx;

    uv_close((uv_handle_t *)&server->end_of_turn, NULL);
    input_close(&server->input);
}

void server_stop(struct server *server)
{
    if (server->node.is_stopping)
        return;
    server->node.is_stopping = true;
    connectors_free(&server->connectors);
    epmd_free(&server->epmd);
    if (server->clients.type != UV_UNKNOWN_HANDLE)
        uv_close((uv_handle_t *)&server->clients, NULL);
    uv_close((uv_handle_t *)&server->listener, NULL);
    uv_close((uv_handle_t *)&server->second, NULL);
    goodbye_start(&server->goodbye, on_goodbye, server);
}

void server_free(struct server *server)
{
    input_free(&server->input);
}
