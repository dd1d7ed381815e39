/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/router.h"

#include "base/log.h"
#include "distribution/process.h"
#include "distribution/watch.h"

#include <errno.h>

static void deliver(struct connection *c, struct process *p, struct slice message)
{
    if (p)
        p->behaviour->receive(p, c, message);
    else
        c->node->counters.messages_to_nobody++;
}

static void spawn(struct connection *c, const struct control *k)
{
    struct node_spawner *spawner = c->node->spawner;

    c->node->counters.spawns++;
    if (spawner)
        spawner->on_spawn(spawner, c, k);
}

/* The sender's own name on everything that makes us remember or answer it: no node speaks for
 * another. */
static bool is_from_sender(const struct connection *c, const struct control *k)
{
    bool has_pid = k->from.pid.node.data;

    return control_end_is_name(&k->from) || !has_pid || slice_is(k->from.pid.node, c->name);
}

static void route(struct connection *c, const struct control *k)
{
    struct node *node = c->node;

    switch (k->op) {
    case CONTROL_SEND:
        deliver(c, process_find(node, &k->to.pid), k->message);
        break;
    case CONTROL_REG_SEND:
        deliver(c, process_find_name(node, k->to.name), k->message);
        break;
    case CONTROL_MONITOR:
        process_handle_monitor(c, k);
        break;
    case CONTROL_DEMONITOR:
        process_handle_demonitor(c, k);
        break;
    case CONTROL_MONITOR_EXIT:
        watch_handle_exit(c, k);
        break;
    case CONTROL_LINK:
        process_handle_link(c, k);
        break;
    case CONTROL_UNLINK:
    case CONTROL_UNLINK_ID:
        process_handle_unlink(c, k);
        break;
    case CONTROL_EXIT:
    case CONTROL_EXIT2:
        process_handle_exit(c, k);
        break;
    case CONTROL_SPAWN_REQUEST:
        spawn(c, k);
        break;
    case CONTROL_ALIAS_SEND: /* we hand out no aliases */
    case CONTROL_SPAWN_REPLY:
    case CONTROL_UNLINK_ID_ACK:
    case CONTROL_NODE_LINK:
    case CONTROL_GROUP_LEADER:
        break;
    }
}

void router_handle_frame(struct connection *c, struct slice frame)
{
    struct control control;
    int error = control_parse(&control, frame);

    if (error == -ENOTSUP) {
        c->node->counters.control_unknown++;
        log_event(LOG_WARNING, "control", c->name, "unknown control message from %s dropped",
                  c->name);
    } else if (error == -ENOMEM) {
        c->node->counters.no_memory++;
        connection_close(c, LOG_ERR, "no memory to read its frames");
    } else if (error) {
        c->node->counters.frames_malformed++;
        log_event(LOG_WARNING, "frame", c->name, "malformed frame of %zu bytes from %s dropped",
                  frame.len, c->name);
    } else if (!is_from_sender(c, &control)) {
        c->node->counters.control_foreign++;
        log_event(LOG_WARNING, "foreign", c->name,
                  "control message from %s in the name of another node dropped", c->name);
    } else {
        c->node->sender = c;
        route(c, &control);
        c->node->sender = NULL;
    }
}
