/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/services.h"

#include "dist/dist_flags.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define FIRST_DELAY   100
#define LAST_DELAY    30000
#define SETTLE_LIMIT  200   /* ms that a question waits for the first answers of a new node */
#define MISSING_LIMIT 30000 /* ms that a node counts as without a module */
#define NEVER         UINT64_MAX

/* No process has this name: a monitor on it is answered with noproc, after all monitors before it.
 */
static const char fence_name[] = "macula_nat_cnode fence";

enum service_state { SERVICE_PROBING, SERVICE_ALIVE, SERVICE_ABSENT };

struct service {
    struct service_node *owner;
    enum service_kind kind;
    enum service_state state;
    struct watch watch;
    struct watch fence;
    uint64_t delay;
    uint64_t retry_at;      /* SERVICE_ABSENT */
    uint64_t missing_until; /* the process is there, the module is not */
};

struct service_node {
    struct services *services;
    struct connection *via;
    size_t rank; /* among the preferred; their count for all others */
    uint64_t up_at;
    bool is_settled;
    struct service service[SERVICE_KINDS];
    struct service_node *prev, *next;
};

const char *service_name(enum service_kind kind)
{
    static const char *const names[SERVICE_KINDS] = {"macula_nat_cache", "macula_routing_server",
                                                     "rex"};

    return names[kind];
}

static uint64_t now(const struct services *services)
{
    return uv_now(services->node->loop);
}

/* --- probing --- */

static void set_timer(struct services *services);

static void probe(struct service *s)
{
    struct services *services = s->owner->services;
    struct connection *via = s->owner->via;

    s->state = SERVICE_PROBING;
    watch_name(services->watches, &s->watch, via, service_name(s->kind));
    watch_name(services->watches, &s->fence, via, fence_name);
}

static void note_settled(struct service_node *n)
{
    for (int i = 0; i < SERVICE_KINDS; i++)
        if (n->service[i].state == SERVICE_PROBING)
            return;
    n->is_settled = true;
    n->services->changed(n->services->ctx);
}

static void on_absent(struct watch *watch, struct slice reason)
{
    struct service *s = (struct service *)((char *)watch - offsetof(struct service, watch));
    (void)reason;

    /* It was there and is gone: look again soon. It was not there: more and more rarely. */
    if (s->state == SERVICE_ALIVE)
        s->delay = FIRST_DELAY;
    s->state = SERVICE_ABSENT;
    s->retry_at = now(s->owner->services) + s->delay;
    s->delay = s->delay * 2 > LAST_DELAY ? LAST_DELAY : s->delay * 2;
    set_timer(s->owner->services);
    note_settled(s->owner);
}

static void on_fence(struct watch *watch, struct slice reason)
{
    struct service *s = (struct service *)((char *)watch - offsetof(struct service, fence));
    (void)reason;

    if (s->state == SERVICE_PROBING)
        s->state = SERVICE_ALIVE;
    else
        set_timer(s->owner->services);
    note_settled(s->owner);
}

/* Absent, and to be asked for again. Not while a node still owes the answer to the second monitor:
 * it may never come. */
static bool is_waiting(const struct service *s)
{
    return s->state == SERVICE_ABSENT && !watch_is_on(&s->fence);
}

static void on_timer(uv_timer_t *timer)
{
    struct services *services = timer->data;
    struct service_node *n;
    bool waited = false;

    DL_FOREACH (services->nodes, n) {
        if (!n->is_settled && now(services) - n->up_at >= SETTLE_LIMIT)
            n->is_settled = waited = true;
        for (int i = 0; i < SERVICE_KINDS; i++) {
            struct service *s = &n->service[i];
            if (is_waiting(s) && s->retry_at <= now(services))
                probe(s);
        }
    }
    set_timer(services);
    if (waited)
        services->changed(services->ctx);
}

/* When there is something to do again for a node. */
static uint64_t next_time(const struct service_node *n)
{
    uint64_t at = n->is_settled ? NEVER : n->up_at + SETTLE_LIMIT;

    for (int i = 0; i < SERVICE_KINDS; i++) {
        const struct service *s = &n->service[i];
        if (is_waiting(s) && s->retry_at < at)
            at = s->retry_at;
    }
    return at;
}

static void set_timer(struct services *services)
{
    struct service_node *n;
    uint64_t at = NEVER;

    DL_FOREACH (services->nodes, n)
        if (next_time(n) < at)
            at = next_time(n);
    if (at == NEVER)
        uv_timer_stop(&services->timer);
    else
        uv_timer_start(&services->timer, on_timer, at > now(services) ? at - now(services) : 1, 0);
}

/* --- choice --- */

static bool is_usable(const struct service *s)
{
    return s->state == SERVICE_ALIVE && s->missing_until <= now(s->owner->services);
}

static bool was_tried(const struct service_tries *tries, const struct connection *c)
{
    for (size_t i = 0; i < tries->count; i++)
        if (tries->connections[i] == c->number)
            return true;
    return false;
}

struct connection *services_choose(struct services *services, enum service_kind kind,
                                   struct slice caller, struct service_tries *tries)
{
    struct service_node *n;
    struct service_node *best = NULL;

    if (tries->count == SERVICES_MAX_TRIES)
        return NULL;
    DL_FOREACH (services->nodes, n) {
        if (!is_usable(&n->service[kind]) || was_tried(tries, n->via))
            continue;
        if (n->rank < services->preferred_count) {
            best = n;
            break; /* they stand in front, in order */
        }
        if (!best || slice_is(caller, n->via->name))
            best = n;
    }
    if (!best)
        return NULL;
    tries->connections[tries->count++] = best->via->number;
    return best->via;
}

bool services_are_settled(const struct services *services)
{
    const struct service_node *n;

    DL_FOREACH (services->nodes, n)
        if (!n->is_settled)
            return false;
    return true;
}

static struct service_node *find(struct services *services, const struct connection *c)
{
    struct service_node *n;

    DL_FOREACH (services->nodes, n)
        if (n->via == c)
            return n;
    return NULL;
}

void services_note_missing(struct services *services, struct connection *c, enum service_kind kind)
{
    struct service_node *n = find(services, c);

    if (n)
        n->service[kind].missing_until = now(services) + MISSING_LIMIT;
}

size_t services_count(const struct services *services, enum service_kind kind)
{
    const struct service_node *n;
    size_t count = 0;

    DL_FOREACH (services->nodes, n)
        count += is_usable(&n->service[kind]);
    return count;
}

/* --- nodes that come and go --- */

static size_t rank_of(const struct services *services, const char *name)
{
    size_t i = 0;

    while (i < services->preferred_count && strcmp(services->preferred[i], name) != 0)
        i++;
    return i;
}

static int by_rank(const struct service_node *a, const struct service_node *b)
{
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

void services_take_up(struct services *services, struct connection *c)
{
    /* Every Erlang node since OTP 23 can spawn for others; C and Java nodes cannot, and host no
     * macula. */
    if (!(c->flags & DIST_FLAG_SPAWN))
        return;
    struct service_node *n = calloc(1, sizeof *n);
    if (!n)
        return;
    n->services = services;
    n->via = c;
    n->rank = rank_of(services, c->name);
    n->up_at = now(services);
    DL_INSERT_INORDER(services->nodes, n, by_rank);
    for (int i = 0; i < SERVICE_KINDS; i++) {
        struct service *s = &n->service[i];
        s->owner = n;
        s->kind = (enum service_kind)i;
        s->delay = FIRST_DELAY;
        s->watch.down = on_absent;
        s->fence.down = on_fence;
        probe(s);
    }
    set_timer(services);
}

static void node_remove(struct service_node *n)
{
    struct services *services = n->services;

    for (int i = 0; i < SERVICE_KINDS; i++) {
        watch_stop(services->watches, &n->service[i].watch);
        watch_stop(services->watches, &n->service[i].fence);
    }
    DL_DELETE(services->nodes, n);
    free(n);
}

void services_take_down(struct services *services, struct connection *c)
{
    struct service_node *n = find(services, c);

    if (!n)
        return;
    node_remove(n);
    set_timer(services);
    services->changed(services->ctx);
}

void services_init(struct services *services, struct node *node, struct watches *watches,
                   const char *const *preferred, size_t preferred_count)
{
    *services = (struct services){
        .node = node,
        .watches = watches,
        .preferred = preferred,
        .preferred_count = preferred_count,
    };
    uv_timer_init(node->loop, &services->timer);
    services->timer.data = services;
}

void services_close(struct services *services)
{
    uv_close((uv_handle_t *)&services->timer, NULL);
}

void services_free(struct services *services)
{
    while (services->nodes)
        node_remove(services->nodes);
}
