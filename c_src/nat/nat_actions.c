/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include <errno.h>
#include <stdlib.h>

void nat_queue_init(struct nat_queue *queue)
{
    queue->items = queue->own;
    queue->head = queue->count = 0;
    queue->capacity = NAT_QUEUE_OWN;
}

/* What a burst has taken goes back. */
static void queue_release(struct nat_queue *queue)
{
    if (queue->items != queue->own)
        free(queue->items);
    nat_queue_init(queue);
}

int nat_queue_reserve(struct nat_queue *queue, size_t more)
{
    size_t capacity = queue->capacity;
    struct nat_item *items;

    if (more <= queue->capacity - queue->count)
        return 0;
    while (capacity - queue->count < more)
        capacity *= 2;
    items = malloc(capacity * sizeof *items);
    if (!items)
        return -ENOMEM;
    for (size_t i = 0; i < queue->count; i++)
        items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
    if (queue->items != queue->own)
        free(queue->items);
    queue->items = items;
    queue->head = 0;
    queue->capacity = capacity;
    return 0;
}

static struct nat_item *queue_add(struct nat_queue *queue)
{
    return &queue->items[(queue->head + queue->count++) & (queue->capacity - 1)];
}

static void queue_session(struct nat_coordinator *c, struct nat_session *session,
                          enum nat_action_type type, enum nat_role role, uint64_t value)
{
    session->refs++;
    *queue_add(&c->queue) = (struct nat_item){
        .session = session,
        .profiles = {nat_profile_ref(session->profiles[NAT_INITIATOR]),
                     nat_profile_ref(session->profiles[NAT_TARGET])},
        .value = value,
        .attempts = session->attempts,
        .type = (uint8_t)type,
        .role = (uint8_t)role,
        .strategy = session->strategy,
        .state = session->state,
        .result = session->result,
    };
}

void nat_queue_coordinate(struct nat_coordinator *c, struct nat_session *session,
                          enum nat_role role, int64_t punch_time)
{
    queue_session(c, session, NAT_COORDINATE, role, (uint64_t)punch_time);
}

void nat_queue_notify(struct nat_coordinator *c, struct nat_session *session)
{
    struct nat_watcher *watcher;

    LL_FOREACH (session->watchers, watcher)
        queue_session(c, session, NAT_NOTIFY, NAT_INITIATOR, watcher->token);
}

void nat_queue_release(struct nat_coordinator *c, uint64_t watcher)
{
    *queue_add(&c->queue) = (struct nat_item){.type = NAT_RELEASE_WATCHER, .value = watcher};
}

static void item_release(struct nat_coordinator *c, struct nat_item *item)
{
    nat_profile_unref(item->profiles[NAT_INITIATOR]);
    nat_profile_unref(item->profiles[NAT_TARGET]);
    if (item->session)
        nat_session_unref(c, item->session);
    *item = (struct nat_item){0};
}

static bool queue_take(struct nat_queue *queue, struct nat_item *item)
{
    if (queue->count == 0) {
        if (queue->items != queue->own)
            queue_release(queue);
        return false;
    }
    *item = queue->items[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return true;
}

void nat_queue_free(struct nat_coordinator *c)
{
    do
        item_release(c, &c->current);
    while (queue_take(&c->queue, &c->current));
}

static struct nat_bytes peer_id(const struct nat_session *session, enum nat_role role)
{
    const struct nat_peer *peer = session->peers[role];

    return (struct nat_bytes){peer->id, peer->hh.keylen};
}

/* One punch_time for both: of clocks that differ only the caller can know, who then changes it. */
static void show_coordinate(const struct nat_coordinator *c, const struct nat_item *item,
                            struct nat_action *action)
{
    enum nat_role other = item->role == NAT_INITIATOR ? NAT_TARGET : NAT_INITIATOR;
    /* With the documented rules every attempt is described like the first, as old peers expect. */
    uint32_t attempt = nat_plans_retries(c) ? item->attempts : 0;

    action->origin = item->session->origin;
    action->role = (enum nat_role)item->role;
    action->recipient_id = peer_id(item->session, action->role);
    action->recipient_profile = item->profiles[item->role];
    action->peer_id = peer_id(item->session, other);
    action->peer_host = nat_peer_host(item->profiles[other]);
    action->port_count = nat_ports_plan(item->profiles[other], item->profiles[item->role], attempt,
                                        action->peer_ports);
    action->local_port = nat_ports_local(item->profiles[item->role], attempt);
    action->attempt = attempt;
    action->punch_time = (int64_t)item->value;
}

bool nat_next_action(struct nat_coordinator *c, struct nat_action *action)
{
    const struct nat_item *item = &c->current;

    item_release(c, &c->current);
    if (!queue_take(&c->queue, &c->current))
        return false;
    *action = (struct nat_action){.type = (enum nat_action_type)item->type};
    if (item->session) {
        nat_session_show(item->session, &action->session);
        action->session.initiator_profile = item->profiles[NAT_INITIATOR];
        action->session.target_profile = item->profiles[NAT_TARGET];
        action->session.strategy = (enum nat_strategy)item->strategy;
        action->session.state = (enum nat_state)item->state;
        action->session.result = (enum nat_result)item->result;
        action->session.attempts = item->attempts;
    }
    if (item->type == NAT_COORDINATE)
        show_coordinate(c, item, action);
    else
        action->watcher = item->value;
    return true;
}
