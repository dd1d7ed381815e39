/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Full hole punches over one connection, a number of them at any time. Each slot has two peers,
 * processes of this node that are attached to the coordinator. One punch: request_connection by the
 * first peer, PUNCH_COORDINATE to both, `success` reported by both; then the slot begins again. The
 * client is the caller's and outlives the punches.
 */
#ifndef BENCH_PUNCHES_H
#define BENCH_PUNCHES_H

#include "histogram.h"
#include "messages.h"

struct punch_slot {
    struct call_template call;
    uint64_t sent_at;
    int64_t punch_time; /* unix ms */
    uint32_t turn;
    unsigned seen;
    uint8_t session_id[64];
    size_t session_id_len;
};

struct punches {
    struct client *client;
    struct punch_slot *slots;
    uint32_t count;
    uint32_t first_peer;
    bool waits; /* for `executing`, before the results are reported */
    bool stopping;
    uint32_t in_flight;
    uint64_t finished; /* since the last punches_reset */
    uint64_t refused;
    struct histogram times; /* from the request to its answer and both PUNCH_COORDINATE */
    struct histogram late;  /* of `executing` after punch_time, where it was waited for */
    double earliest_ms;     /* the least of those, which may be negative */
};

/* Attaches the peers: `first_peer` and 2 * count - 1 more. `waits` as above. */
void punches_init(struct punches *ps, struct client *client, uint32_t count, uint32_t first_peer,
                  bool waits);
void punches_free(struct punches *ps);

void punches_start(struct punches *ps);
void punches_take(struct punches *ps, const struct incoming *m);
void punches_reset(struct punches *ps);
/* Reads what there is; waits for the first of it. */
void punches_turn(struct punches *ps);
void punches_run(struct punches *ps, uint64_t count, uint64_t until);
/* Begins no more, waits for those under way, and until the coordinator has taken all results. */
void punches_stop(struct punches *ps);

#endif
