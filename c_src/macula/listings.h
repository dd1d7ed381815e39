/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answers to get_pending: a million sessions are not written in one go. A listing goes through
 * them some at a time, one turn of the loop after the other, and answers when it has reached the
 * end or its limit.
 *
 * One is made at a time, as all are equally long, and as each may need its 32 MiB. The others wait
 * in line, without those whose node has not yet taken what was sent to it: a node that asks again
 * and again and reads nothing must not fill the memory, nor its own output up to the limit.
 */
#ifndef MACULA_LISTINGS_H
#define MACULA_LISTINGS_H

#include "base/counters.h"
#include "macula_nat.h"
#include "otp/caller.h"

/* clang-format off */
#define LISTING_COUNTERS(X) \
    X(get_pending_left_out, GAUGE, \
      "Sessions that the last answer to get_pending left out because it would have been too long")
/* clang-format on */

struct listing_counters {
    LISTING_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(listing_counters, LISTING_COUNTERS)

struct listing;

struct listings {
    struct node *node;
    struct nat_coordinator *nat;
    struct listing *line; /* the one in the making is the first */
    size_t count;
    uv_idle_t turn; /* runs as long as one is in the making */
    struct listing_counters counters;
};

void listings_init(struct listings *all, struct node *node, struct nat_coordinator *nat);
/* Stops them; the loop must run once more before the memory of the struct goes. */
void listings_close(struct listings *all);
/* Forgets those that wait; before the NAT library's coordinator is freed. */
void listings_free(struct listings *all);

/* Answers the caller, now or later. */
void listing_start(struct listings *all, const struct caller *caller);
/* To be called in every turn: a node may have taken its output, and its listing can begin. */
void listings_go_on(struct listings *all);

#endif
