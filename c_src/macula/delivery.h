/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gets PUNCH_COORDINATE to a peer: to the process that is its mailbox, else through
 * macula_peer_connector of a macula node to its endpoint, else into the DHT, where the peer looks
 * for it.
 *
 * Each delivery goes its own way and waits for no other; nothing waits for it. An address that the
 * profiles do not have is looked up in the DHT first.
 */
#ifndef MACULA_DELIVERY_H
#define MACULA_DELIVERY_H

#include "base/counters.h"
#include "macula/ask.h"
#include "macula/clocks.h"
#include "macula/mailboxes.h"
#include "macula_nat.h"

#define DELIVERY_CONNECTOR_LIMIT 5000 /* ms that a macula node may take to reach the peer */
#define DELIVERY_DHT_LIMIT       2000
/* Under way through macula nodes, about 2 kB each; any more are not delivered. A connection that
 * takes a second allows for 16,384 punches a second. */
#define DELIVERIES_MAX 32768

/* clang-format off */
#define DELIVERY_COUNTERS(X) \
    X(delivered_to_mailboxes, COUNTER, "PUNCH_COORDINATE sent to the mailbox of the peer") \
    X(delivered_by_connectors, COUNTER, "PUNCH_COORDINATE that a macula node brought to the peer") \
    X(delivered_to_dht, COUNTER, "PUNCH_COORDINATE left in the DHT for the peer") \
    X(undelivered, COUNTER, "PUNCH_COORDINATE for which there was no way to the peer") \
    X(slowest_delivery_ms, GAUGE, \
      "Milliseconds that the slowest delivery through a macula node or to a mailbox took")
/* clang-format on */

struct delivery_counters {
    DELIVERY_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(delivery_counters, DELIVERY_COUNTERS)

struct delivery;

struct deliveries {
    struct services *services;
    struct calls *calls;
    struct mailboxes *mailboxes;
    struct clocks *clocks;       /* of the mailboxes' nodes */
    struct nat_coordinator *nat; /* learns how long deliveries take */
    bool reads_no_dht;           /* as v0.14.3, which only stored there, as a last resort */
    struct delivery *under_way;
    size_t count;
    struct delivery_counters counters;
};

void deliveries_init(struct deliveries *all, struct services *services, struct calls *calls,
                     struct mailboxes *mailboxes, struct clocks *clocks,
                     struct nat_coordinator *nat);
void deliveries_free(struct deliveries *all);

/* Starts a delivery of a NAT_COORDINATE action; all that it needs is copied. */
void delivery_start(struct deliveries *all, const struct nat_action *action);

#endif
