/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends {punch_session, SessionId, Session} to the processes that asked for it, some in each turn.
 *
 * A change of one session may be news for many, and long news. What goes beyond a turn's worth, or
 * is for a node that has not taken what it was sent before, waits in line, as references to what it
 * is about; nodes take turns. So nobody else waits for notifications, and no node is cut off for
 * those that another has asked it to be sent. What is too much to be kept is dropped, and counted:
 * of the node that has the most waiting, the oldest.
 */
#ifndef MACULA_NOTIFIER_H
#define MACULA_NOTIFIER_H

#include "base/counters.h"
#include "distribution/connection.h"
#include "macula/subscribers.h"
#include "macula_nat.h"

#define NOTIFIER_TURN         ((size_t)1 << 20)   /* bytes sent in a turn, and one more */
#define NOTIFIER_WAITING_MAX  ((size_t)64 << 20)  /* bytes of what waits */
#define NOTIFIER_PROFILES_MAX ((size_t)256 << 20) /* bytes of the profiles it refers to */
#define NOTIFIER_UNREAD_MAX   ((size_t)4 << 20)   /* a node with so much to take yet waits */

/* clang-format off */
#define NOTIFIER_COUNTERS(X) \
    X(notified, COUNTER, "Notifications of sessions sent") \
    X(notifications_dropped, COUNTER, "Notifications of sessions dropped because too many waited")
/* clang-format on */

struct notifier_counters {
    NOTIFIER_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(notifier_counters, NOTIFIER_COUNTERS)

struct notified; /* a node, and what waits for it */
struct kept_profile;

struct notifier {
    struct node *node;
    struct subscribers *subscribers;
    struct notified *line; /* whose turn it is first */
    struct notified *by_name;
    struct kept_profile *profiles;
    size_t waiting_bytes, profile_bytes;
    uint64_t count; /* that wait */
    uint64_t turn;  /* of the node's, that `made` is about */
    uint64_t made;
    struct notifier_counters counters;
    uv_idle_t idle; /* runs as long as some can be sent */
};

void notifier_init(struct notifier *n, struct node *node, struct subscribers *subscribers);
/* Stops it; the loop must run once more before the memory of the struct goes. */
void notifier_close(struct notifier *n);
/* Forgets all that waits. */
void notifier_free(struct notifier *n);

/* Carries out a NAT_NOTIFY. */
void notifier_notify(struct notifier *n, const struct nat_action *action);
/* To be called in every turn: nodes may have taken their output. */
void notifier_go_on(struct notifier *n);
/* What waits for a node that is not connected any more is dropped. */
void notifier_node_down(struct notifier *n, const struct connection *c);

#endif
