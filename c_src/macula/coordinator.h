/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process `macula_nat_coordinator`: what macula nodes call. It puts the parts together and
 * hands each message to the one that it is for.
 *
 * The struct is the caller's; its callbacks find it through their first member.
 */
#ifndef MACULA_COORDINATOR_H
#define MACULA_COORDINATOR_H

#include "macula/coordinator_options.h"
#include "macula/driver.h"
#include "macula/listings.h"
#include "macula/requests.h"
#include "otp/gen_server.h"

/* clang-format off */
#define COORDINATOR_COUNTERS(X) \
    X(unknown_requests, COUNTER, "Calls of an unknown form") \
    X(ignored_messages, COUNTER, "Casts and messages of an unknown form") \
    X(foreign_mailboxes, COUNTER, \
      "Mailboxes attached or detached in the name of another node's process, which is refused")
/* clang-format on */

struct coordinator_counters {
    COORDINATOR_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(coordinator_counters, COORDINATOR_COUNTERS)

struct coordinator {
    struct gen_server server; /* first */
    struct node *node;
    struct node_observer observer;
    struct profile_cache *cache;
    struct coordinator_options options;
    struct coordinator_counters counters;
    struct calls calls;
    struct services services;
    struct lookup lookup;
    struct mailboxes mailboxes;
    struct clocks clocks;
    struct subscribers subscribers;
    struct notifier notifier;
    struct deliveries deliveries;
    struct driver driver;
    struct requests requests;
    struct listings listings;
    uv_check_t turn;
};

/* Starts the process. Returns 0 or a negative errno. */
int coordinator_start(struct coordinator *co, struct node *node, struct profile_cache *cache,
                      const struct coordinator_options *options);
/* Stops its timers; the loop must run once more before coordinator_free. */
void coordinator_close(struct coordinator *co);
void coordinator_free(struct coordinator *co);

/* Shows all counters of the program to a visitor, in groups. */
void coordinator_visit_counters(const struct coordinator *co, const struct counters_visitor *v);

#endif
