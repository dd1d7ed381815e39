/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of the coordinator process. */
#ifndef MACULA_COORDINATOR_OPTIONS_H
#define MACULA_COORDINATOR_OPTIONS_H

#include "macula_nat.h"
#include "term/term_write.h"

/* The release of macula that `is_compatible` means. */
#define COORDINATOR_COMPATIBLE "v0_14_3"

struct coordinator_options {
    struct nat_config nat;
    uint32_t lookup_timeout_ms;
    uint32_t profile_cache_ttl_ms;      /* 0: no cache of its own */
    const char *const *preferred_nodes; /* of --connect */
    size_t preferred_count;
    bool is_compatible; /* nothing is read from the DHT */
};

/* Fills in the defaults. */
void coordinator_options_init(struct coordinator_options *options);

/* Writes the pairs about them into the map that sys:get_state shows. */
void coordinator_options_put(const struct coordinator_options *o, struct term_map *state);

#endif
