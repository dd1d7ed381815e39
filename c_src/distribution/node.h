/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This node among others: its name and creation, and the tables in which all parts of the
 * distribution find each other's things. The lowest part: it calls none of the others but through
 * `struct node_callbacks`.
 *
 * The struct is the caller's (the server's, server.h); node_init fills it; there is nothing to
 * free. Layers above read the fields and change none.
 */
#ifndef DISTRIBUTION_NODE_H
#define DISTRIBUTION_NODE_H

#include "base/buffer.h"
#include "base/table.h"
#include "distribution/node_counters.h"
#include "distribution/node_name.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct connection;
struct control;
struct input;

/* The only calls from a lower part of the distribution to a higher one. The server sets them. */
struct node_callbacks {
    void *ctx;
    /* A connection is up: its peer can be sent frames, and its name is in the table. */
    void (*on_up)(void *ctx, struct connection *c);
    /* The transport has taken all that the connection had given it. */
    void (*on_drained)(void *ctx, struct connection *c);
    /* A connection is closed; `was_up` says whether it had been up. `why` (NULL: no line for the
     * log) and `level` are for the log. It is in no table any more; its memory is freed when the
     * transport is closed. */
    void (*on_closed)(void *ctx, struct connection *c, bool was_up, int level, const char *why);
};

/* Gets to know which nodes are connected. */
struct node_observer {
    void (*on_up)(struct node_observer *observer, struct connection *c);
    void (*on_down)(struct node_observer *observer, struct connection *c);
    struct node_observer *prev, *next;
};

/* Runs what other nodes spawn here. */
struct node_spawner {
    void (*on_spawn)(struct node_spawner *spawner, struct connection *via,
                     const struct control *request);
};

/* Bytes held for connections: one struct in each, one in the node for the sum of all. */
struct budget {
    size_t input;  /* frames that are not whole yet */
    size_t output; /* what the peers have not taken */
    size_t holds;  /* monitors and links */
};

struct process_table {
    struct process *by_number;
    struct process *by_name;
    struct process *last_found; /* by its name, or NULL */
    struct monitor *monitors;   /* by connection and reference */
    struct link *links;         /* by connection, pid and process */
    uint32_t last_number;
};

struct watch_table {
    struct watch *by_number;
    uint64_t last_number;
};

struct node {
    uv_loop_t *loop;
    char name[NODE_NAME_MAX + 1];
    struct slice name_slice;
    uint32_t creation; /* what tells this life of the node from the one before; 0: not known yet */
    bool is_stopping;
    struct node_callbacks callbacks;
    struct node_observer *observers;
    struct node_spawner *spawner; /* NULL: requests are dropped */
    struct node_counters counters;

    struct connection *connections; /* all */
    struct connection *by_name;     /* those that are up */
    struct connection *unflushed;   /* those with output of this turn */
    uint64_t connections_made;
    struct connection *sender; /* whose frame is being handled, or NULL */
    struct budget budget;
    uint64_t turn;       /* of the loop */
    uint64_t bytes_made; /* of frames, for whomever */

    struct process_table processes;
    struct watch_table watches;
    struct input *input;
};

/* Fills the struct; `name` (name@host) is copied. */
void node_init(struct node *node, uv_loop_t *loop, const char *name);

bool node_is_self(const struct node *node, struct slice name);

/* Puts an observer on the list, and takes it off. It must exist as long as it is on the list. Both
 * may be called from within an observer. */
void node_observe(struct node *node, struct node_observer *observer);
void node_stop_observing(struct node *node, struct node_observer *observer);

/* Counts and logs that there was no memory for `what`, which comes from `peer`. */
void node_note_no_memory(struct node *node, const char *peer, const char *what);

#endif
