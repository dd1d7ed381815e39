/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which connected node has which macula service.
 *
 * The services are registered processes, and every node that connects is asked for them by
 * monitors. A monitor on a name that nobody has is answered at once, so a second one, on such a
 * name, tells when the first would have been answered: only then is a service known to be alive,
 * and a node that answers no monitors (a C node) is never taken for one that has them. What is
 * absent is asked for again after 100 ms, doubling to 30 s.
 */
#ifndef MACULA_SERVICES_H
#define MACULA_SERVICES_H

#include "otp/watch.h"

#define SERVICES_MAX_TRIES 4 /* nodes that one question goes to, one after the other */

enum service_kind {
    SERVICE_CACHE,     /* macula_nat_cache */
    SERVICE_ROUTING,   /* macula_routing_server */
    SERVICE_CONNECTOR, /* rex, for the functions of macula_peer_connector */
    SERVICE_KINDS
};

struct service_node;

struct services {
    struct node *node;
    struct watches *watches;
    struct service_node *nodes; /* in order of choice, but for the caller's own */
    const char *const *preferred;
    size_t preferred_count;
    uv_timer_t timer;
    /* Something is known now that was not: whoever waits for services_are_settled looks again. */
    void (*changed)(void *ctx);
    void *ctx;
};

/* What has been tried for one question, so that nothing is tried twice. */
struct service_tries {
    uint64_t connections[SERVICES_MAX_TRIES];
    size_t count;
};

/* `preferred` names the nodes that are asked first; it must outlive the services. */
void services_init(struct services *services, struct node *node, struct watches *watches,
                   const char *const *preferred, size_t preferred_count);
void services_close(struct services *services);
void services_free(struct services *services);

/*
 * The node to ask next: those preferred, then `caller` (a node name, may be empty), then any; NULL
 * if there is none left. Notes it among the tries.
 */
struct connection *services_choose(struct services *services, enum service_kind kind,
                                   struct slice caller, struct service_tries *tries);
/* False while the first answer of a node that has just connected is still awaited (at most 200 ms).
 */
bool services_are_settled(const struct services *services);
/* The node turned out to lack the module that `kind` stands for: not chosen for the next 30 s. */
void services_note_missing(struct services *services, struct connection *c, enum service_kind kind);
/* How many nodes have the service. */
size_t services_count(const struct services *services, enum service_kind kind);

const char *service_name(enum service_kind kind);

/* From the node's hooks. */
void services_take_up(struct services *services, struct connection *c);
void services_take_down(struct services *services, struct connection *c);

#endif
