/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/node.h"

#include "base/log.h"

#include <stdio.h>
#include <utlist.h>

void node_init(struct node *node, uv_loop_t *loop, const char *name)
{
    *node = (struct node){.loop = loop};
    snprintf(node->name, sizeof node->name, "%s", name);
    node->name_slice = slice_of(node->name);
}

bool node_is_self(const struct node *node, struct slice name)
{
    return slice_equal(name, node->name_slice);
}

void node_observe(struct node *node, struct node_observer *observer)
{
    DL_APPEND(node->observers, observer);
}

void node_stop_observing(struct node *node, struct node_observer *observer)
{
    DL_DELETE(node->observers, observer);
}

void node_note_no_memory(struct node *node, const char *peer, const char *what)
{
    node->counters.no_memory++;
    log_event(LOG_ERR, "memory", peer, "no memory for %s from %s", what, peer);
}
