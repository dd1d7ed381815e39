/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our monitors on processes of other nodes.
 *
 * A watch is part of the caller's struct; it is on from watch_name or watch_pid until it fires or
 * is stopped, and fires exactly once: with the reason of the DOWN, or `noconnection` when the
 * connection is closed. Nothing is sent to a node that is not connected, nor to one whose flags say
 * that it knows no monitors: a watch on such a node fires with its connection.
 */
#ifndef DISTRIBUTION_WATCH_H
#define DISTRIBUTION_WATCH_H

#include "distribution/process.h"

struct watch {
    /* Called when it is off already; it may be started again from here. */
    void (*on_down)(struct watch *watch, struct slice reason);
    uint64_t number; /* 0: off */
    struct process *owner;
    struct connection *via;
    struct watch *prev, *next; /* of the connection */
    struct pid *pid;           /* or */
    const char *name;          /* must live as long as the watch */
    UT_hash_handle hh;
};

/* Starts a watch that is off, in the name of `owner`. Returns 0, -ENOTCONN if its node is not
 * connected, or -ENOMEM. */
int watch_pid(struct watch *watch, struct process *owner, const struct pid *pid);
/*
 * Starts a watch on a registered process of the node at `via`; `name` must live as long. Returns 0
 * or -ENOMEM.
 */
int watch_name(struct watch *watch, struct process *owner, struct connection *via,
               const char *name);
/* Turns it off without firing; does nothing if it is off. */
void watch_stop(struct watch *watch);
static inline bool watch_is_on(const struct watch *watch)
{
    return watch->number != 0;
}

/* Returns the watch with this reference, or NULL. */
struct watch *watch_find(struct node *node, struct slice reference);

/* A monitor fired at the other end, or a connection that was up is closed. */
void watch_handle_exit(struct connection *c, const struct control *control);
void watch_forget_connection(struct connection *c);

#endif
