/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/router.h"

#include "distribution/node.h"

#include <errno.h>
#include <syslog.h>

static void deliver(struct connection *c, struct process *p, struct slice message)
{
    if (p)
        p->behaviour->receive(p, c, message);
    else
        c->node->counters.messages_to_nobody++;
}

static void take_spawn_request(struct connection *c, const struct control *k)
{
    struct spawn_request request = {
        .via = c,
        .from = k->from.pid,
        .id = k->reference,
        .module = k->module,
        .function = k->function,
        .arity = k->arity,
        .options = k->options,
        .arguments = k->message,
    };

    c->node->counters.spawns++;
    c->node->hooks.spawn(c->node->hooks.ctx, &request);
}

/* The sender's own name on everything that makes us remember or answer it: no node speaks for
 * another. */
static bool is_from_sender(const struct connection *c, const struct control *k)
{
    bool has_pid = k->from.pid.node.data != NULL;

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
        process_take_monitor(c, k);
        break;
    case CONTROL_DEMONITOR:
        process_take_demonitor(c, k);
        break;
    case CONTROL_MONITOR_EXIT:
        node->hooks.monitor_exit(node->hooks.ctx, c, k);
        break;
    case CONTROL_LINK:
        process_take_link(c, k);
        break;
    case CONTROL_UNLINK:
    case CONTROL_UNLINK_ID:
        process_take_unlink(c, k);
        break;
    case CONTROL_EXIT:
    case CONTROL_EXIT2:
        process_take_exit(c, k);
        break;
    case CONTROL_SPAWN_REQUEST:
        take_spawn_request(c, k);
        break;
    case CONTROL_ALIAS_SEND: /* we hand out no aliases */
    case CONTROL_SPAWN_REPLY:
    case CONTROL_UNLINK_ID_ACK:
    case CONTROL_NODE_LINK:
    case CONTROL_GROUP_LEADER:
        break;
    }
}

void router_take_frame(struct connection *c, struct slice frame)
{
    struct control control;
    int error = control_parse(&control, frame);

    if (error == -ENOTSUP) {
        c->node->counters.control_unknown++;
        node_log(c->node, LOG_WARNING, "control", c->name,
                 "unknown control message from %s dropped", c->name);
    } else if (error == -ENOMEM) {
        c->node->counters.no_memory++;
        connection_close(c, LOG_ERR, "no memory to read its frames");
    } else if (error) {
        c->node->counters.frames_malformed++;
        node_log(c->node, LOG_WARNING, "frame", c->name,
                 "malformed frame of %zu bytes from %s dropped", frame.len, c->name);
    } else if (!is_from_sender(c, &control)) {
        c->node->counters.control_foreign++;
        node_log(c->node, LOG_WARNING, "foreign", c->name,
                 "control message from %s in the name of another node dropped", c->name);
    } else {
        c->node->sender = c;
        route(c, &control);
        c->node->sender = NULL;
    }
}
