/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node without sockets for unit tests: a whole server that is never started, peers on fake
 * transports, and what it logs. One at a time.
 */
#ifndef FAKE_NODE_H
#define FAKE_NODE_H

#include "distribution/server.h"
#include "fake_transport.h"

#define FAKE_NODE_NAME     "us@h"
#define FAKE_NODE_CREATION 7

struct fake_peer {
    struct fake_transport transport;
    struct connection *c;
};

extern uv_loop_t fake_loop;
extern struct server fake_server;

/* Returns the node, with its creation known, and sends the log to fake_log_take. */
struct node *fake_node_start(void);
/* Closes what is open, and checks that nothing is left. */
void fake_node_stop(void);

/* A peer that is connected. */
void fake_peer_connect(struct fake_peer *peer, const char *name);
/* Ends a turn: what was said in it is written, and what is doomed is closed. */
void fake_node_end_turn(void);
/* Closes its connection, if it is open. */
void fake_peer_close(struct fake_peer *peer);

/* Returns what was logged since the last time. */
const char *fake_log_take(void);

#endif
