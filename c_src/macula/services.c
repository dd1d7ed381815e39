/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/services.h"

#include "base/table.h"
#include "distribution/dist_flags.h"
#include "otp/rpc_client.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define FIRST_DELAY   100
#define LAST_DELAY    1000
#define SETTLE_LIMIT  200   /* ms that a question waits for the first answers of a new node */
#define MISSING_LIMIT 30000 /* ms that a node counts as without a module */
#define NEVER         UINT64_MAX

/* No process has this name: a monitor on it is answered with noproc, after all monitors before it.
 */
static const char fence_name[] = "macula_nat_cnode fence";

enum service_state {
    SERVICE_PROBING,
    SERVICE_ALIVE,
    SERVICE_MISSING, /* the process is there, the module is not */
    SERVICE_ABSENT,
};

struct service {
    struct service_node *owner;
    enum service_kind kind;
    enum service_state state;
    struct watch watch;
    struct watch fence;
    uint64_t delay;
    uint64_t retry_at;           /* SERVICE_ABSENT, SERVICE_MISSING */
    struct service *prev, *next; /* SERVICE_ALIVE */
};

struct service_node {
    struct services *services;
    struct connection *via;
    size_t rank; /* among the preferred; their count for all others */
    uint64_t number;
    uint32_t origin;
    uint64_t up_at;
    size_t calls; /* unanswered */
    uv_timer_t timer;
    struct service service[SERVICE_KINDS];
    bool is_settled;
    struct service_node *prev, *next; /* until it is */
    UT_hash_handle hh;
    UT_hash_handle by_origin; /* of two with one origin, which are rare, either may be found */
};

const char *service_name(enum service_kind kind)
{
    static const char *const names[SERVICE_KINDS] = {
        [SERVICE_CACHE] = "macula_nat_cache",
        [SERVICE_ROUTING] = "macula_routing_server",
        [SERVICE_CONNECTOR] = RPC_SERVER,
    };

    return names[kind];
}

static uint64_t now(const struct services *services)
{
    return uv_now(services->node->loop);
}

static int by_rank(const struct service *a, const struct service *b)
{
    return a->owner->rank < b->owner->rank ? -1 : a->owner->rank > b->owner->rank;
}

/* The list of those alive has the preferred ones in their order, then all others as they came. */
static void set_state(struct service *s, enum service_state state)
{
    struct services *services = s->owner->services;
    struct service **alive = &services->alive[s->kind];

    if (s->state == SERVICE_ALIVE) {
        DL_DELETE(*alive, s);
        services->alive_count[s->kind]--;
    }
    s->state = state;
    if (state != SERVICE_ALIVE)
        return;
    services->alive_count[s->kind]++;
    if (s->owner->rank < services->preferred_count)
        DL_INSERT_INORDER(*alive, s, by_rank);
    else
        DL_APPEND(*alive, s);
}

/* --- probing --- */

static void set_timer(struct service_node *n);

static void probe(struct service *s)
{
    struct services *services = s->owner->services;
    struct connection *via = s->owner->via;

    set_state(s, SERVICE_PROBING);
    if (watch_name(&s->watch, services->owner, via, service_name(s->kind)) == 0 &&
        watch_name(&s->fence, services->owner, via, fence_name) == 0)
        return;
    /* Without memory it is as good as absent. */
    watch_stop(&s->watch);
    set_state(s, SERVICE_ABSENT);
    s->retry_at = now(services) + s->delay;
}

static void settle(struct service_node *n)
{
    if (!n->is_settled)
        DL_DELETE(n->services->unsettled, n);
    n->is_settled = true;
    n->services->changed(n->services->ctx);
}

static void note_answer(struct service_node *n)
{
    for (int i = 0; i < SERVICE_KINDS; i++)
        if (n->service[i].state == SERVICE_PROBING)
            return;
    settle(n);
}

static void on_absent(struct watch *watch, struct slice reason)
{
    struct service *s = (struct service *)((char *)watch - offsetof(struct service, watch));
    (void)reason;

    /* It was there and is gone: look again soon. It was not there: more and more rarely. */
    if (s->state != SERVICE_PROBING)
        s->delay = FIRST_DELAY;
    set_state(s, SERVICE_ABSENT);
    s->retry_at = now(s->owner->services) + s->delay;
    s->delay = s->delay * 2 > LAST_DELAY ? LAST_DELAY : s->delay * 2;
    set_timer(s->owner);
    note_answer(s->owner);
}

static void on_fence(struct watch *watch, struct slice reason)
{
    struct service *s = (struct service *)((char *)watch - offsetof(struct service, fence));
    (void)reason;

    if (s->state == SERVICE_PROBING)
        set_state(s, SERVICE_ALIVE);
    else
        set_timer(s->owner);
    note_answer(s->owner);
}

/* Something is to be done about it at `retry_at`. Not while a node still owes the answer to the
 * second monitor: it may never come. */
static bool is_waiting(const struct service *s)
{
    return s->state == SERVICE_MISSING || (s->state == SERVICE_ABSENT && !watch_is_on(&s->fence));
}

static void on_timer(uv_timer_t *timer)
{
    struct service_node *n = timer->data;
    uint64_t time = now(n->services);

    for (int i = 0; i < SERVICE_KINDS; i++) {
        struct service *s = &n->service[i];
        if (!is_waiting(s) || s->retry_at > time)
            continue;
        if (s->state == SERVICE_MISSING)
            set_state(s, SERVICE_ALIVE);
        else
            probe(s);
    }
    if (!n->is_settled && time - n->up_at >= SETTLE_LIMIT)
        settle(n);
    set_timer(n);
}

/* For when there is something to do again for a node. */
static void set_timer(struct service_node *n)
{
    uint64_t time = now(n->services);
    uint64_t at = n->is_settled ? NEVER : n->up_at + SETTLE_LIMIT;

    for (int i = 0; i < SERVICE_KINDS; i++) {
        const struct service *s = &n->service[i];
        if (is_waiting(s) && s->retry_at < at)
            at = s->retry_at;
    }
    if (at == NEVER)
        uv_timer_stop(&n->timer);
    else
        uv_timer_start(&n->timer, on_timer, at > time ? at - time : 1, 0);
}

/* --- choice --- */

static struct service_node *find(const struct services *services, const struct connection *c)
{
    struct service_node *n;

    HASH_FIND_PTR(services->nodes, &c, n);
    return n;
}

static bool was_tried(const struct service_tries *tries, const struct connection *c)
{
    for (size_t i = 0; i < tries->count; i++)
        if (tries->connections[i] == c->number)
            return true;
    return false;
}

static bool may_be_asked(const struct service *s, const struct service_tries *tries)
{
    const struct service_node *n = s->owner;

    return s->state == SERVICE_ALIVE && n->calls < SERVICES_MAX_CALLS &&
           connection_pending(n->via) <= SERVICES_MAX_OUTPUT && !was_tried(tries, n->via);
}

uint32_t services_origin(const struct connection *via)
{
    if (!via)
        return 0;
    return via->hh.hashv ? via->hh.hashv : 1;
}

static struct connection *note_try(const struct service *s, struct service_tries *tries)
{
    if (!s)
        return NULL;
    tries->connections[tries->count++] = s->owner->via->number;
    return s->owner->via;
}

/* NULL if it has no such service or may not be asked. */
static const struct service *service_of_caller(struct services *services, enum service_kind kind,
                                               uint32_t caller, const struct service_tries *tries)
{
    const struct service_node *n;

    HASH_FIND(by_origin, services->by_origin, &caller, sizeof caller, n);
    return n && may_be_asked(&n->service[kind], tries) ? &n->service[kind] : NULL;
}

struct connection *services_choose_caller(struct services *services, enum service_kind kind,
                                          uint32_t caller, struct service_tries *tries)
{
    if (tries->count == SERVICES_MAX_TRIES)
        return NULL;
    return note_try(service_of_caller(services, kind, caller, tries), tries);
}

struct connection *services_choose(struct services *services, enum service_kind kind,
                                   uint32_t caller, struct service_tries *tries)
{
    const struct service *best, *own;

    if (tries->count == SERVICES_MAX_TRIES)
        return NULL;
    DL_FOREACH (services->alive[kind], best)
        if (may_be_asked(best, tries))
            break;
    if (best && (kind == SERVICE_CONNECTOR || best->owner->rank == services->preferred_count)) {
        own = service_of_caller(services, kind, caller, tries);
        best = own ? own : best;
    }
    return note_try(best, tries);
}

void services_note_call(struct services *services, struct connection *c)
{
    struct service_node *n = find(services, c);

    if (n)
        n->calls++;
}

void services_note_call_end(struct services *services, struct connection *c)
{
    struct service_node *n = find(services, c);

    if (n)
        n->calls--;
}

uint64_t services_mark(const struct services *services)
{
    return services->nodes_made;
}

bool services_are_settled(const struct services *services, uint64_t mark)
{
    return !services->unsettled || services->unsettled->number > mark;
}

void services_note_missing(struct services *services, struct connection *c, enum service_kind kind)
{
    struct service_node *n = find(services, c);

    if (!n || n->service[kind].state != SERVICE_ALIVE)
        return;
    set_state(&n->service[kind], SERVICE_MISSING);
    n->service[kind].retry_at = now(services) + MISSING_LIMIT;
    set_timer(n);
}

size_t services_count(const struct services *services, enum service_kind kind)
{
    return services->alive_count[kind];
}

void services_visit(const struct services *services, const struct counters_visitor *v)
{
    counters_show(v, "macula_nat_cache", GAUGE, services_count(services, SERVICE_CACHE),
                  "Nodes that have macula_nat_cache");
    counters_show(v, "macula_routing_server", GAUGE, services_count(services, SERVICE_ROUTING),
                  "Nodes that have macula_routing_server");
    counters_show(v, "macula_peer_connector", GAUGE, services_count(services, SERVICE_CONNECTOR),
                  "Nodes that may have macula_peer_connector");
}

/* --- nodes that come and go --- */

static size_t rank_of(const struct services *services, const char *name)
{
    size_t i = 0;

    while (i < services->preferred_count && strcmp(services->preferred[i], name) != 0)
        i++;
    return i;
}

void services_node_up(struct services *services, struct connection *c)
{
    /* Every Erlang node since OTP 23 can spawn for others; C and Java nodes cannot, and host no
     * macula. */
    if (!(c->flags & DIST_FLAG_SPAWN))
        return;
    struct service_node *n = calloc(1, sizeof *n);
    if (n) {
        n->via = c;
        HASH_ADD_PTR(services->nodes, via, n);
    }
    if (!n || !table_has(n->hh)) {
        free(n);
        /* It must not stay here without being asked for what it has. */
        services->node->counters.no_memory++;
        connection_doom(c, "no memory for its services");
        return;
    }
    n->services = services;
    n->origin = services_origin(c);
    HASH_ADD(by_origin, services->by_origin, origin, sizeof n->origin, n);
    n->rank = rank_of(services, c->name);
    n->number = ++services->nodes_made;
    n->up_at = now(services);
    uv_timer_init(services->node->loop, &n->timer);
    n->timer.data = n;
    DL_APPEND(services->unsettled, n);
    for (int i = 0; i < SERVICE_KINDS; i++) {
        struct service *s = &n->service[i];
        s->owner = n;
        s->kind = (enum service_kind)i;
        s->delay = FIRST_DELAY;
        s->watch.on_down = on_absent;
        s->fence.on_down = on_fence;
        probe(s);
    }
    set_timer(n);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void node_remove(struct service_node *n)
{
    struct services *services = n->services;

    for (int i = 0; i < SERVICE_KINDS; i++) {
        watch_stop(&n->service[i].watch);
        watch_stop(&n->service[i].fence);
        set_state(&n->service[i], SERVICE_ABSENT);
    }
    if (!n->is_settled)
        DL_DELETE(services->unsettled, n);
    HASH_DEL(services->nodes, n);
    if (table_has(n->by_origin))
        HASH_DELETE(by_origin, services->by_origin, n);
    uv_close((uv_handle_t *)&n->timer, on_closed);
}

void services_node_down(struct services *services, struct connection *c)
{
    struct service_node *n = find(services, c);

    if (!n)
        return;
    node_remove(n);
    services->changed(services->ctx);
}

void services_init(struct services *services, struct process *owner, const char *const *preferred,
                   size_t preferred_count)
{
    *services = (struct services){
        .node = owner->node,
        .owner = owner,
        .preferred = preferred,
        .preferred_count = preferred_count,
    };
}

void services_free(struct services *services)
{
    while (services->nodes)
        node_remove(services->nodes);
}
