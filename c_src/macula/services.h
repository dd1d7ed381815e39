/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which connected node has which macula service.
 *
 * The services are registered processes, and every node that connects is asked for them by
 * monitors. A monitor on a name that nobody has is answered at once, so a second one, on such a
 * name, tells when the first would have been answered: only then is a service known to be alive,
 * and a node that answers no monitors (a C node) is never taken for one that has them. What is
 * absent is asked for again after 100 ms, doubling to 1 s.
 */
#ifndef MACULA_SERVICES_H
#define MACULA_SERVICES_H

#include "base/counters.h"
#include "distribution/watch.h"

#define SERVICES_MAX_TRIES 4 /* nodes that one question goes to, one after the other */
/*
 * A node with so many of our questions unanswered, or with so much output that it has not taken, is
 * busy and not chosen. Two lookups for each of 4,096 requests in flight are half of the questions,
 * and 90,000 lookups a second of 50 ms each a quarter; a peer is cut off only at OUTPUT_MAX.
 */
#define SERVICES_MAX_CALLS  16384
#define SERVICES_MAX_OUTPUT ((size_t)8 << 20)

enum service_kind {
    SERVICE_CACHE,     /* macula_nat_cache */
    SERVICE_ROUTING,   /* macula_routing_server */
    SERVICE_CONNECTOR, /* rex, for the functions of macula_peer_connector */
    SERVICE_KINDS
};

struct service;
struct service_node;

struct services {
    struct node *node;
    struct process *owner;      /* in whose name they are watched */
    struct service_node *nodes; /* by connection */
    struct service_node *by_origin;
    struct service_node *unsettled;       /* the longest connected first */
    struct service *alive[SERVICE_KINDS]; /* in order of choice, but for the caller's own */
    size_t alive_count[SERVICE_KINDS];
    uint64_t nodes_made;
    const char *const *preferred;
    size_t preferred_count;
    /* Something has become known: look again whether services_are_settled. */
    void (*changed)(void *ctx);
    void *ctx;
};

/* What has been tried for one question, so that nothing is tried twice. */
struct service_tries {
    uint64_t connections[SERVICES_MAX_TRIES];
    size_t count;
};

/* `preferred` names the nodes that are asked first; it must outlive the services. */
void services_init(struct services *services, struct process *owner, const char *const *preferred,
                   size_t preferred_count);
/* The loop must run once more afterwards. */
void services_free(struct services *services);

/* A short name for the node of a caller, which outlives its connection; 0 for an empty one. */
uint32_t services_origin(const struct connection *via);
/*
 * The node to ask next: those preferred, then the caller's (0: none), then any; the caller's own
 * comes first where a peer is to be reached. NULL if there is none left that is not busy. Notes it
 * among the tries.
 */
struct connection *services_choose(struct services *services, enum service_kind kind,
                                   uint32_t caller, struct service_tries *tries);
/* The caller's node alone: NULL if it has no such service, is busy or was tried. Notes it too. */
struct connection *services_choose_caller(struct services *services, enum service_kind kind,
                                          uint32_t caller, struct service_tries *tries);
/* A question to a node that was chosen begins, or has ended. */
void services_note_call(struct services *services, struct connection *c);
void services_note_call_end(struct services *services, struct connection *c);

/*
 * To wait until it is known which nodes have a service, take a mark. The services are settled for
 * that mark when all nodes that were connected at the time have answered, after 200 ms at most;
 * nodes that connect later are not waited for.
 */
uint64_t services_mark(const struct services *services);
bool services_are_settled(const struct services *services, uint64_t mark);
/* The node turned out to lack the module that `kind` stands for: not chosen for the next 30 s. */
void services_note_missing(struct services *services, struct connection *c, enum service_kind kind);
/* How many nodes have the service. */
size_t services_count(const struct services *services, enum service_kind kind);

/* Shows how many nodes have each of them. */
void services_visit(const struct services *services, const struct counters_visitor *v);

const char *service_name(enum service_kind kind);

/* From the node's hooks. */
void services_node_up(struct services *services, struct connection *c);
void services_node_down(struct services *services, struct connection *c);

#endif
