/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two peers behind model boxes, the network between them, and the real coordinator, in virtual
 * time. The peers do what a peer of a macula cluster does: they learn their reflexive address from
 * a public host, and when PUNCH_COORDINATE arrives they fire at punch_time, in their own clock, at
 * the ports they were told; who hears the other answers, and who is answered reports success.
 *
 * The simulation owns everything in it. A pair is gone once its result has been handed out.
 */
#ifndef NAT_SIM_H
#define NAT_SIM_H

#include "nat_model.h"

#define SIM_ROUND_MS 1000u /* a peer's patience with one attempt */
#define SIM_EVERY_MS 50u   /* between two shots at the same port */

struct sim_peer_setup {
    struct nat_type type;
    bool affine, bare; /* traits of the box, see nat_model.h */
    bool plain;        /* knows only the documented keys of PUNCH_COORDINATE */
    int skew_ms;       /* how late its clock makes it fire */
    bool recovers;     /* only its first shots are late */
};

struct sim_result {
    enum nat_strategy strategy; /* as first answered */
    bool connected;             /* both peers have heard each other */
    bool ended;                 /* the coordinator closed the session */
    enum nat_state state;
    uint32_t attempt;     /* in which they connected */
    uint64_t duration_ms; /* from the request until both had heard each other */
};

struct sim;

typedef void (*sim_done)(void *context, const struct sim_result *result);

/* `one_way_ms` is what a packet takes from a peer to another or to the coordinator. NULL: no
 * memory. */
struct sim *sim_create(enum nat_rules rules, uint32_t one_way_ms);
void sim_free(struct sim *sim);

/*
 * Lets `initiator` ask for a connection to `target` in `after_ms`. `punch`: whatever the rules say,
 * a hole punch is tried. `done` is called once, from sim_run.
 */
void sim_add(struct sim *sim, uint32_t after_ms, const struct sim_peer_setup *initiator,
             const struct sim_peer_setup *target, bool punch, sim_done done, void *context);

/* Runs until nothing is left to happen. */
void sim_run(struct sim *sim);

/* Lets time pass in which nobody does anything: old sessions are swept. */
void sim_rest(struct sim *sim, uint64_t ms);

const struct nat_counters *sim_counters(const struct sim *sim);

/* One pair from beginning to end in a simulation of its own. */
struct sim_result sim_pair(enum nat_rules rules, uint32_t one_way_ms,
                           const struct sim_peer_setup *initiator,
                           const struct sim_peer_setup *target, bool punch);

#endif
