/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our monitors on processes of other nodes.
 *
 * A watch is part of the caller's struct; it is on from watch_name or watch_pid until it fires or
 * is stopped, and fires exactly once: with the reason of the DOWN, or `noconnection` when the
 * connection goes. Nothing is sent to a node that is not connected, nor to one whose flags say that
 * it knows no monitors: a watch on such a node fires with its connection.
 */
#ifndef OTP_WATCH_H
#define OTP_WATCH_H

#include "distribution/node.h"

struct watch;

struct watches {
    struct node *node;
    struct process *owner; /* in whose name the monitors are */
    struct watch *by_number;
    uint64_t last_number;
};

struct watch {
    /* Called when it is off already; it may be started again from here. */
    void (*down)(struct watch *watch, struct slice reason);
    uint64_t number; /* 0: off */
    struct watches *all;
    struct connection *via;
    struct watch *prev, *next; /* of the connection */
    struct pid *pid;           /* or */
    const char *name;          /* must live as long as the watch */
    UT_hash_handle hh;
};

/* Makes an empty set of watches in the name of `owner`; both must outlive them. */
void watches_init(struct watches *all, struct node *node, struct process *owner);

/* Starts a watch that is off. Returns 0, -ENOTCONN if its node is not connected, or -ENOMEM. */
int watch_pid(struct watches *all, struct watch *watch, const struct pid *pid);
/*
 * Starts a watch on a registered process of the node at `via`; `name` must live as long. Returns 0
 * or -ENOMEM.
 */
int watch_name(struct watches *all, struct watch *watch, struct connection *via, const char *name);
/* Turns it off, if it is on, without its firing. */
void watch_stop(struct watches *all, struct watch *watch);
static inline bool watch_is_on(const struct watch *watch)
{
    return watch->number != 0;
}

/* Returns the watch with this reference, or NULL. */
struct watch *watch_find(struct watches *all, struct slice reference);

/* From the node's hooks: a monitor fired at the other end, and a connection that is up ended. */
void watches_take_exit(struct watches *all, struct connection *c, const struct control *control);
void watches_take_connection_down(struct connection *c);

#endif
