/* SPDX-License-Identifier: Apache-2.0 */
#include "nat_model.h"

#include <stdio.h>
#include <string.h>

#define FIRST_CONTIGUOUS_PORT 40000u
#define FIRST_RANDOM_PORT     20000u
#define RANDOM_PORTS          20000u

struct nat_type nat_type_at(unsigned index)
{
    return (struct nat_type){
        .mapping = (enum nat_policy)(NAT_POLICY_EI + index / 9 % 3),
        .filtering = (enum nat_policy)(NAT_POLICY_EI + index / 3 % 3),
        .allocation = (enum nat_policy)(NAT_POLICY_PP + index % 3),
    };
}

unsigned nat_type_index(struct nat_type type)
{
    return (type.mapping - NAT_POLICY_EI) * 9u + (type.filtering - NAT_POLICY_EI) * 3u +
           (type.allocation - NAT_POLICY_PP);
}

const char *nat_type_name(struct nat_type type, char out[NAT_TYPE_NAME])
{
    static const char names[][3] = {"EI", "HD", "PD", "PP", "PC", "RD"};

    snprintf(out, NAT_TYPE_NAME, "%s/%s/%s", names[type.mapping - NAT_POLICY_EI],
             names[type.filtering - NAT_POLICY_EI], names[type.allocation - NAT_POLICY_EI]);
    return out;
}

void nat_box_init(struct nat_box *box, struct nat_type type, bool affine, bool bare, uint32_t ip,
                  uint32_t seed)
{
    memset(box, 0, sizeof *box);
    box->type = type;
    box->affine = affine;
    box->bare = bare;
    box->ip = ip;
    box->random = seed * 2654435761u + 1;
    box->next_port = (uint16_t)(FIRST_CONTIGUOUS_PORT + seed % 1000);
}

static bool same_address(struct nat_address a, struct nat_address b)
{
    return a.ip == b.ip && a.port == b.port;
}

/* What has timed out is free from then on. */
static bool is_flow_live(struct nat_flow *flow, uint64_t now)
{
    uint32_t timeout = flow->replied ? NAT_REPLIED_TIMEOUT_MS : NAT_NEW_TIMEOUT_MS;

    if (flow->used_at != 0 && now - flow->used_at > timeout)
        flow->used_at = 0;
    return flow->used_at != 0;
}

static bool is_stray_live(struct nat_stray *stray, uint64_t now)
{
    if (stray->used_at != 0 && now - stray->used_at > NAT_NEW_TIMEOUT_MS)
        stray->used_at = 0;
    return stray->used_at != 0;
}

/* A free place, else the one that was used longest ago. */
static struct nat_flow *flow_place(struct nat_box *box)
{
    struct nat_flow *oldest = &box->flows[0];

    for (size_t i = 1; i < NAT_FLOWS; i++)
        if (box->flows[i].used_at < oldest->used_at)
            oldest = &box->flows[i];
    return oldest;
}

static struct nat_stray *find_stray(struct nat_box *box, uint64_t now, struct nat_address remote,
                                    uint16_t external)
{
    for (size_t i = 0; i < NAT_STRAYS; i++) {
        struct nat_stray *stray = &box->strays[i];

        if (is_stray_live(stray, now) && stray->external == external &&
            same_address(stray->remote, remote))
            return stray;
    }
    return NULL;
}

static bool is_external_taken(struct nat_box *box, uint64_t now, uint16_t external)
{
    for (size_t i = 0; i < NAT_FLOWS; i++)
        if (is_flow_live(&box->flows[i], now) && box->flows[i].external == external)
            return true;
    return false;
}

static uint16_t random_port(struct nat_box *box, uint64_t now)
{
    uint16_t port;

    do {
        box->random = box->random * 1664525u + 1013904223u;
        port = (uint16_t)(FIRST_RANDOM_PORT + (box->random >> 8) % RANDOM_PORTS);
    } while (is_external_taken(box, now, port));
    return port;
}

static uint16_t allocate(struct nat_box *box, uint64_t now, uint16_t internal)
{
    if (box->type.allocation == NAT_POLICY_PC)
        return box->next_port++;
    /* A port is preserved for its first mapping; a second one cannot have it too. */
    if (box->type.allocation == NAT_POLICY_PP && !is_external_taken(box, now, internal))
        return internal;
    return random_port(box, now);
}

/* The mapping that a new flow shares by the mapping policy; 0 if it gets one of its own. */
static uint16_t shared_mapping(struct nat_box *box, uint64_t now, uint16_t internal,
                               struct nat_address remote)
{
    for (size_t i = 0; i < NAT_FLOWS; i++) {
        struct nat_flow *flow = &box->flows[i];

        if (!is_flow_live(flow, now) || !flow->from_inside || flow->moved ||
            flow->internal != internal)
            continue;
        if (box->type.mapping == NAT_POLICY_EI ||
            (box->type.mapping == NAT_POLICY_HD && flow->remote.ip == remote.ip))
            return flow->external;
    }
    return 0;
}

/* The flow between a port of the host and what the host takes for the other end. */
static struct nat_flow *find_flow(struct nat_box *box, uint64_t now, uint16_t internal,
                                  struct nat_address seen)
{
    for (size_t i = 0; i < NAT_FLOWS; i++) {
        struct nat_flow *flow = &box->flows[i];

        if (is_flow_live(flow, now) && flow->internal == internal && same_address(flow->seen, seen))
            return flow;
    }
    return NULL;
}

uint16_t nat_box_send(struct nat_box *box, uint64_t now, uint16_t internal, struct nat_address *to)
{
    struct nat_address remote = *to;
    struct nat_flow *flow = find_flow(box, now, internal, remote);
    struct nat_flow made = {
        .remote = remote, .seen = remote, .internal = internal, .from_inside = true};

    if (flow != NULL) {
        flow->replied = flow->replied || !flow->from_inside;
        flow->used_at = now;
        *to = flow->remote;
        return flow->external;
    }
    made.external = shared_mapping(box, now, internal, remote);
    if (made.external == 0)
        made.external = allocate(box, now, internal);
    if (find_stray(box, now, remote, made.external) != NULL) {
        made.external = random_port(box, now);
        made.moved = true;
    }
    made.used_at = now;
    *flow_place(box) = made;
    return made.external;
}

static void remember_stray(struct nat_box *box, uint64_t now, struct nat_address remote,
                           uint16_t external)
{
    struct nat_stray *stray = find_stray(box, now, remote, external);

    if (stray == NULL) {
        stray = &box->strays[0];
        for (size_t i = 1; i < NAT_STRAYS; i++)
            if (box->strays[i].used_at < stray->used_at)
                stray = &box->strays[i];
    }
    *stray = (struct nat_stray){.remote = remote, .external = external, .used_at = now};
}

static bool lets_in(const struct nat_box *box, const struct nat_flow *flow,
                    struct nat_address remote)
{
    switch (box->type.filtering) {
    case NAT_POLICY_EI:
        return true;
    case NAT_POLICY_HD:
        return flow->remote.ip == remote.ip;
    default:
        return false;
    }
}

/* The flow of a packet that was let in through the mapping of another. */
static void make_inbound(struct nat_box *box, uint64_t now, struct nat_address *remote,
                         uint16_t external, uint16_t internal)
{
    struct nat_flow made = {
        .remote = *remote, .internal = internal, .external = external, .used_at = now};

    while (find_flow(box, now, internal, *remote) != NULL)
        remote->port = random_port(box, now);
    made.seen = *remote;
    *flow_place(box) = made;
}

uint16_t nat_box_receive(struct nat_box *box, uint64_t now, struct nat_address *remote,
                         uint16_t external)
{
    struct nat_flow *through = NULL;
    bool is_mapped = false;
    uint16_t internal;

    for (size_t i = 0; i < NAT_FLOWS; i++) {
        struct nat_flow *flow = &box->flows[i];

        if (!is_flow_live(flow, now) || flow->external != external)
            continue;
        is_mapped = true;
        if (same_address(flow->remote, *remote)) {
            flow->replied = flow->replied || flow->from_inside;
            flow->used_at = now;
            *remote = flow->seen;
            return flow->internal;
        }
        if (lets_in(box, flow, *remote))
            through = flow;
    }
    if (through == NULL) {
        /* A filter that looks at addresses drops the packet on its way in; only a box without such
         * a filter takes it for its own. */
        if (box->bare && !(is_mapped && box->type.filtering == NAT_POLICY_HD))
            remember_stray(box, now, *remote, external);
        return 0;
    }
    through->used_at = now;
    internal = through->internal;
    if (box->affine)
        make_inbound(box, now, remote, external, internal);
    return internal;
}
