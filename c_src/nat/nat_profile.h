/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a profile, for the files of this folder only. A profile is one allocation: this
 * struct, then the source, then those texts that were not part of the source. Nothing in it but the
 * count changes after creation.
 */
#ifndef NAT_PROFILE_H
#define NAT_PROFILE_H

#include "macula_nat.h"

/* A piece of the profile's bytes. */
struct nat_span {
    uint32_t at, len;
};

struct nat_profile {
    uint32_t refs;
    uint32_t sessions;                      /* that keep it, of one coordinator */
    uint8_t mapping, filtering, allocation; /* enum nat_policy */
    bool can_receive_unsolicited : 1;
    bool requires_relay : 1;
    bool relay_capable : 1;
    bool has_port_delta : 1;
    int64_t port_delta;
    int64_t detected_at;
    int64_t ttl_seconds;
    uint32_t source_len; /* the source is at 0 */
    uint16_t reflexive_port;
    uint16_t known_port; /* where the peer was last seen: of the reflexive address, else of the
                            endpoint; 0: none */
    struct nat_span node_id, reflexive_ip, endpoint;
    struct nat_span host; /* in reflexive_ip or in endpoint */
    char bytes[];
};

#endif
