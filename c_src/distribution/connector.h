/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps this node connected to nodes that it was told to join: looks the name up in the EPMD of its
 * host, connects, and begins again with back-off whenever there is no connection. A connection that
 * the other node made serves as well. The list belongs to the node.
 */
#ifndef DISTRIBUTION_CONNECTOR_H
#define DISTRIBUTION_CONNECTOR_H

#include <stdint.h>

struct node;
struct connector;

/* Adds a node (name@host; one that is there already is no error) that listens at `port`; 0 if the
 * EPMD of its host knows where. Returns 0 or -ENOMEM. */
int connector_add(struct connector **list, struct node *node, const char *name, uint16_t port);
/* Begins, once this node has its own name. */
void connector_start_all(struct connector *list);
/* The node `name`, in the list or not, is connected, by whichever side: stops trying. */
void connector_note_up(struct connector *list, const char *name);
/* It was connected and is no more: begins again. */
void connector_note_down(struct connector *list, const char *name);
/*
 * A connection to it did not come up: begins again, later than the last time. `why` is
 * logged at `level` unless the attempt before failed for the same reason.
 */
void connector_note_failed(struct connector *list, const char *name, int level, const char *why);
/* Forgets all; the memory goes back while the loop runs on. */
void connector_free_all(struct connector **list);

#endif
