/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clocks of the nodes on which peers have their mailboxes: how far each is ahead of ours, and
 * how long a question and its answer take. With it both peers of a punch can be given the same
 * instant, each in its own clock.
 *
 * A node is asked a few times, and the answer that came fastest counts (RFC 5905, section 8: its
 * error is at most half of the round trip). It is asked again when the measurement has become old
 * and somebody wants it. What is known of a node goes with its connection.
 */
#ifndef MACULA_CLOCKS_H
#define MACULA_CLOCKS_H

#include "otp/call.h"

#define CLOCK_SAMPLES   3u
#define CLOCK_FRESH_MS  30000u
#define CLOCK_LIMIT_MS  2000u /* that an answer may take */
#define CLOCK_SHOWN_MAX 100u  /* in the status */

struct clock;

struct clocks {
    struct node *node;
    struct calls *calls;
    struct clock *by_name;
};

void clocks_init(struct clocks *clocks, struct node *node, struct calls *calls);
void clocks_free(struct clocks *clocks);

/* Measures the clock of a connected node, unless that was done lately. */
void clocks_measure(struct clocks *clocks, struct slice node_name);

/*
 * How many milliseconds the node's clock is ahead of ours, and how long a message to it takes.
 * False and zeros if nothing is known.
 */
bool clocks_get(const struct clocks *clocks, struct slice node_name, int64_t *ahead_ms,
                uint32_t *delay_ms);

/* The connection is down: forgets the clock, and cancels a question that is under way. */
void clocks_node_down(struct clocks *clocks, struct slice node_name);

/* Writes #{Node => #{ahead_us, round_trip_us}}, of CLOCK_SHOWN_MAX nodes at most. */
void clocks_put(const struct clocks *clocks, struct buffer *b);

#endif
