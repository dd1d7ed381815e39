/* SPDX-License-Identifier: Apache-2.0 */
/* Counters (base/counters.h) as a term: pairs of a map, each group a map of its own. */
#ifndef MACULA_COUNTERS_TERM_H
#define MACULA_COUNTERS_TERM_H

#include "base/counters.h"
#include "term/term_write.h"

struct counters_term {
    struct counters_visitor visitor;
    struct term_map *map;
    struct term_map group;
    bool has_group;
};

/* Lets `visitor` write into a map that is open. Nothing else may be put into it until the close. */
void counters_term_open(struct counters_term *t, struct term_map *map);
void counters_term_close(struct counters_term *t);

#endif
