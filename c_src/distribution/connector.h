/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps this node connected to nodes that it was told to join: looks the name up in the EPMD of its
 * host, connects, and begins again with back-off whenever there is no connection. A connection that
 * the other node made serves as well.
 */
#ifndef DISTRIBUTION_CONNECTOR_H
#define DISTRIBUTION_CONNECTOR_H

#include "distribution/epmd.h"
#include "distribution/node.h"

struct connector;

struct connectors {
    struct node *node;
    struct epmd *epmd;
    struct connector *list;
};

/* `node` and `epmd` must outlive it. */
void connectors_init(struct connectors *all, struct node *node, struct epmd *epmd);
/* Forgets all; the memory is freed when the loop has closed the timers. */
void connectors_free(struct connectors *all);

/* Adds a node (name@host; one that is there already is no error) that listens at `port`; 0 if the
 * EPMD of its host knows where. Returns 0 or -ENOMEM. */
int connector_add(struct connectors *all, const char *name, uint16_t port);
/* Begins, once this node has its own name. */
void connector_start_all(struct connectors *all);
/* The node `name`, in the list or not, is connected, by whichever side: stops trying. */
void connector_note_up(struct connectors *all, const char *name);
/* It was connected and is no more: begins again. */
void connector_note_down(struct connectors *all, const char *name);
/*
 * A connection to it did not come up: begins again, later than the last time. `why` is
 * logged at `level` unless the attempt before failed for the same reason.
 */
void connector_note_failed(struct connectors *all, const char *name, int level, const char *why);

#endif
