/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A NAT box as a pure model: what it does to UDP packets of one host behind it, in virtual time. It
 * has the three policies of a profile (RFC 4787, sections 4.1, 4.2.1 and 5), timeouts (4.3), and
 * two traits that no profile tells:
 *
 * affine: a packet that was let in makes a flow, and the answer to it leaves through the same
 * external port whatever the mapping policy says. Connection tracking does so. RFC 4787 can also be
 * read the other way, by which a box with a mapping per destination gives the answer a new port.
 *
 * bare: an ordinary router drops unsolicited packets on its input. A bare Linux box takes them for
 * its own, and remembers them: when the host behind it sends to where the packet came from, from
 * the port that it came to, that pair of endpoints is taken, and the flow moves to another port.
 *
 * The box is plain memory of the caller's; nothing is allocated, and time is what it is told.
 */
#ifndef NAT_MODEL_H
#define NAT_MODEL_H

#include "macula_nat.h"

struct nat_address {
    uint32_t ip;
    uint16_t port;
};

struct nat_type {
    enum nat_policy mapping, filtering; /* NAT_POLICY_EI, HD, PD */
    enum nat_policy allocation;         /* NAT_POLICY_PP, PC, RD */
};

#define NAT_TYPES 27u

/* The type with this index: EI/EI/PP first, PD/PD/RD last, the allocation changing fastest. */
struct nat_type nat_type_at(unsigned index);
unsigned nat_type_index(struct nat_type type);

/* Writes "EI/EI/PP" and returns `out`. */
#define NAT_TYPE_NAME 9
const char *nat_type_name(struct nat_type type, char out[NAT_TYPE_NAME]);

struct nat_flow {
    struct nat_address remote;
    struct nat_address seen; /* what the host takes for `remote` */
    uint16_t internal, external;
    uint64_t used_at; /* 0: free */
    bool replied;     /* seen in both directions */
    bool from_inside; /* made by the host, not by a packet that was let in */
    bool moved;       /* not at the port that the policies would have given it */
};

/* A packet that a bare box took for its own. */
struct nat_stray {
    struct nat_address remote;
    uint16_t external;
    uint64_t used_at; /* 0: free */
};

#define NAT_FLOWS  96u
#define NAT_STRAYS 96u

/* As Linux has them. */
#define NAT_NEW_TIMEOUT_MS     30000u
#define NAT_REPLIED_TIMEOUT_MS 120000u

struct nat_box {
    struct nat_type type;
    bool affine, bare;
    uint32_t ip, random;
    uint16_t next_port; /* NAT_POLICY_PC */
    struct nat_flow flows[NAT_FLOWS];
    struct nat_stray strays[NAT_STRAYS];
};

/* `seed` decides the random ports. */
void nat_box_init(struct nat_box *box, struct nat_type type, bool affine, bool bare, uint32_t ip,
                  uint32_t seed);

/* The host sends from port `internal` to `to` at `now` (ms, > 0). Returns the external port; `to`
 * becomes where the packet really goes. */
uint16_t nat_box_send(struct nat_box *box, uint64_t now, uint16_t internal, struct nat_address *to);

/*
 * A packet from `remote` arrives at the external port. Returns the internal port that it goes to, 0
 * if the box does not let it in. `remote` becomes what the host sees: where the host talks to it
 * through another port already, connection tracking makes it come from a port that is free.
 */
uint16_t nat_box_receive(struct nat_box *box, uint64_t now, struct nat_address *remote,
                         uint16_t external);

#endif
