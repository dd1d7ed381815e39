/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What peers ask and say about sessions: reads the arguments, waits for the profiles of both peers,
 * and hands all to the NAT library.
 *
 * Where both profiles are known the answer is given at once. Else a copy of the request waits for
 * the lookups, and no other request waits for it.
 */
#ifndef MACULA_REQUESTS_H
#define MACULA_REQUESTS_H

#include "base/counters.h"
#include "macula/driver.h"
#include "macula/lookup.h"
#include "otp/caller.h"

/* clang-format off */
#define REQUEST_COUNTERS(X) \
    X(requests, COUNTER, "Calls of request_connection") \
    X(bad_arguments, COUNTER, "Calls and casts refused or ignored because of an argument") \
    X(overloaded, COUNTER, "Requests refused because too much was under way already")
/* clang-format on */

struct request_counters {
    REQUEST_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(request_counters, REQUEST_COUNTERS)

struct waiting;

struct requests {
    struct node *node;
    struct driver *driver;
    struct lookup *lookup;
    bool is_paused;
    struct waiting *waiting; /* for profiles that are being looked up */
    size_t waiting_count, waiting_bytes;
    struct request_counters counters;
};

void requests_init(struct requests *all, struct node *node, struct driver *driver,
                   struct lookup *lookup);
/* Forgets those that wait, after the lookups. */
void requests_free(struct requests *all);

/* `args` stands at the first argument; `via` (or NULL) is the connection that a cast came by. */
void request_connection(struct requests *all, const struct caller *caller, struct cursor args);
void request_coordinate(struct requests *all, const struct connection *via, struct cursor args);
void request_report(struct requests *all, const struct connection *via, struct cursor args);
/* Answers {error, {bad_argument, Argument}}, which is the name of one. */
void request_refuse(struct requests *all, const struct caller *caller, struct slice bad_argument);

/* Paused, those whose profiles have been found wait on. */
void requests_pause(struct requests *all);
void requests_resume(struct requests *all);

#endif
