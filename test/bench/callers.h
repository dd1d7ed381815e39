/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Callers that keep a window of request_connection calls in flight, over one or several
 * connections: whenever a reply arrives, its slot calls again. Clients and settings are the
 * caller's, and outlive the callers.
 */
#ifndef BENCH_CALLERS_H
#define BENCH_CALLERS_H

#include "histogram.h"
#include "messages.h"

#define CALLERS_PATIENCE UINT64_C(2000000000) /* ns */

struct caller_slot {
    uint64_t sent_at;
    uint32_t turn;
};

struct callers_config {
    uint32_t window;
    enum call_form form;
    uint32_t peers; /* pairs are drawn from this many; 0: each call has two peers of its own */
};

struct callers {
    struct callers_config config;
    struct client *clients;
    int client_count;
    struct call_template templates[16]; /* one to a client */
    struct caller_slot *slots;
    uint32_t next_peer; /* of those that have one session each */
    uint64_t random;
    bool stopping; /* slots that are answered stay idle */
    uint32_t in_flight;
    uint64_t answered; /* since the last callers_reset */
    uint64_t refused;  /* of them, with anything but {ok, Strategy, Id} */
    struct histogram times;
};

void callers_init(struct callers *cs, const struct callers_config *config, struct client *clients,
                  int client_count);
void callers_free(struct callers *cs);

/* Fills the window. */
void callers_start(struct callers *cs);
/* A reply of the coordinator, if it is one to a call of these callers. */
void callers_take(struct callers *cs, int client, const struct incoming *m);
/* Begins to count anew. */
void callers_reset(struct callers *cs);

/* Reads and answers what there is on all connections; waits for the first of it. */
void callers_turn(struct callers *cs);
/* Goes on until `count` calls more were answered, or until `until` (monotonic ns), whichever is
 * first. */
void callers_run(struct callers *cs, uint64_t count, uint64_t until);
/* Calls no more, and waits for the replies that are due, at most CALLERS_PATIENCE. */
void callers_stop(struct callers *cs);

#endif
