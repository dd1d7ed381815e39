/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All 729 ordered pairs of NAT types, each played with the real coordinator: what a rule set
 * promised against what happens. What could have happened where it said relay is found by punching
 * anyway.
 */
#ifndef NAT_MATRIX_H
#define NAT_MATRIX_H

#include "nat_sim.h"

struct matrix_counts {
    unsigned promised;         /* answered direct or hole_punch */
    unsigned connected;        /* of those */
    unsigned promised_wrongly; /* of those: never connected */
    unsigned relayed_wrongly;  /* answered relay, but a punch connects */
    unsigned attempts[4];      /* connected, by attempt */
    double share,
        share_broken; /* connected, and promised wrongly; percent of the pairs in the wild */
};

/* How often the type is met in the wild, percent. */
double matrix_weight(struct nat_type type);

/* Whether nat-lab's derivation from RFC 4787 says that a punch can work; `affine` as nat_model.h.
 */
bool matrix_derived(struct nat_type a, struct nat_type b, bool affine);

struct matrix_counts matrix_count(enum nat_rules rules, bool affine, bool bare, bool plain);

#endif
