/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a node: its listener and clients, its name in EPMD, the nodes that it stays connected
 * to, the end of each turn of the loop, and its shutdown.
 *
 * The struct is the caller's; server_init fills it, server_start opens the listener and registers
 * with EPMD, server_stop shuts everything down (started or not), and server_free gives the memory
 * back when the loop has run out. Connections are opened only to the nodes given to server_connect:
 * a message for a node that is not connected is dropped and counted.
 */
#ifndef DISTRIBUTION_SERVER_H
#define DISTRIBUTION_SERVER_H

#include "distribution/connector.h"
#include "distribution/epmd.h"
#include "distribution/goodbye.h"
#include "distribution/input.h"
#include "distribution/node.h"

#define HALF_OPEN_MAX 1000 /* clients in their handshake */

struct server_config {
    uv_loop_t *loop;
    const char *name; /* name@host */
    struct slice cookie;
    const struct sockaddr *listen; /* address and port (0: any) of the listener */
    bool no_epmd;                  /* publish no name */
    void *ctx;
    /* The listener and EPMD are ready for callers (once), or never will be. */
    void (*on_ready)(void *ctx, int port);
    void (*on_failed)(void *ctx, const char *why);
};

struct server {
    struct node node;
    struct input input;
    struct goodbye goodbye;
    struct epmd epmd;
    struct connectors connectors;
    struct sockaddr_storage listen;
    bool no_epmd;
    int port;
    uv_tcp_t listener;
    uv_poll_t clients; /* of the listener */
    uv_timer_t second;
    uv_prepare_t end_of_turn;
    void *ctx;
    void (*on_ready)(void *ctx, int port);
    void (*on_failed)(void *ctx, const char *why);
};

/* Fills the struct, with a copy of all that the config points to. Returns 0, -EINVAL if
 * ERL_EPMD_PORT is not a port, or -ENOMEM; after an error there is nothing to free. */
int server_init(struct server *server, const struct server_config *config);
/* Opens the listener and starts to publish the name. Returns 0 or libuv's error of the listener. */
int server_start(struct server *server);
/* Gives up the name in EPMD, closes the listener, and closes every connection when its queued
 * output has been sent, after 2 s at the latest. */
void server_stop(struct server *server);
/* Gives the memory back, when the loop has closed what server_stop closes; wipes the cookie. */
void server_free(struct server *server);

/* Stays connected to `name` (name@host) from now on, which listens at `port` (0: the EPMD of its
 * host knows). Returns 0 or -ENOMEM. */
int server_connect(struct server *server, const char *name, uint16_t port);

#endif
