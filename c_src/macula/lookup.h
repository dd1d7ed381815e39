/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where profiles come from. A question is answered at once or later, never by waiting; a peer is
 * looked up once at a time however many ask.
 */
#ifndef MACULA_LOOKUP_H
#define MACULA_LOOKUP_H

#include "macula/coordinator.h"

/* Somebody who waits for a profile; part of a larger struct of the asker's. */
struct lookup_waiter {
    /* `profile` (NULL: unknown) is the caller's only if it takes a reference. */
    void (*done)(struct lookup_waiter *waiter, struct nat_profile *profile);
    struct lookup_waiter *prev, *next;
};

/*
 * Asks for the profile of a peer. True: the answer is known now, in `*profile` (NULL: unknown; no
 * reference is taken). False: it will come to the waiter, which must stay where it is until then.
 */
bool lookup_profile(struct coordinator *co, struct slice id, struct nat_profile **profile);

#endif
