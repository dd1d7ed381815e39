/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node without sockets (fake_node.h) and one peer that is connected to it, for tests of what
 * stands on the distribution. What the peer says is given as text, with `~p` for the pid of its
 * process; what it is told is read as text. The struct is the test's, between node_world_start and
 * node_world_stop.
 */
#ifndef TEST_NODE_WORLD_H
#define TEST_NODE_WORLD_H

#include "fake_node.h"

#define NODE_WORLD_PEER "peer@h"

struct node_world {
    struct node *node;
    struct fake_peer fake;
    struct connection *peer;
    struct pid pid; /* the peer's process */
    uint8_t reference[64];
    size_t reference_len; /* of the monitor that the peer was told of last */
    char text[4096];
};

void node_world_start(struct node_world *w);
/* All processes have ended before. */
void node_world_stop(struct node_world *w);

/* Runs the loop once for all that is due, without waiting. */
void node_world_turn(struct node_world *w);

/* A term as ei_x_format reads it; free() its data. */
struct slice node_world_term(const struct node_world *w, const char *text);
/* The peer sends a message. */
void node_world_say(struct node_world *w, struct process *to, const char *text);
/* The same, of {Reference, Term} with the reference of `reference`. */
void node_world_answer(struct node_world *w, struct process *to, const char *text);

/*
 * The next that the peer is told, "" if there is nothing: "MESSAGE", "alias MESSAGE", "NAME !
 * MESSAGE", "monitor NAME", "demonitor", "down REASON", "exit REASON", "spawned" or "refused WHY".
 * Good until the next call.
 */
const char *node_world_told(struct node_world *w);
#define ck_told(w, expected) ck_assert_str_eq(node_world_told(w), expected)

#endif
