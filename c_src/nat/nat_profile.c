/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_profile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The longest IPv6 address is 45 characters; the rest is room for a zone (RFC 4007). */
#define IP_TEXT_MAX 64

static bool is_inside(struct nat_bytes part, struct nat_bytes whole)
{
    uintptr_t p = (uintptr_t)part.data, w = (uintptr_t)whole.data;

    return whole.len > 0 && p >= w && p - w <= whole.len && part.len <= whole.len - (p - w);
}

static size_t room_for(struct nat_bytes part, struct nat_bytes source)
{
    return is_inside(part, source) ? 0 : part.len;
}

/* Refers to `part` where the source has it already, else appends it at `*end`. */
static struct nat_span place(struct nat_profile *profile, struct nat_bytes part,
                             struct nat_bytes source, size_t *end)
{
    struct nat_span span = {0, (uint32_t)part.len};

    if (part.len == 0)
        return span;
    if (is_inside(part, source)) {
        span.at = (uint32_t)((uintptr_t)part.data - (uintptr_t)source.data);
        return span;
    }
    span.at = (uint32_t)*end;
    memcpy(profile->bytes + *end, part.data, part.len);
    *end += part.len;
    return span;
}

static struct nat_bytes view(const struct nat_profile *profile, struct nat_span span)
{
    return (struct nat_bytes){profile->bytes + span.at, span.len};
}

/* Decides once what every PUNCH_COORDINATE about this peer will say. */
static void find_contact(struct nat_profile *profile)
{
    struct nat_bytes host;
    uint16_t port = 0;

    profile->host = profile->reflexive_ip;
    profile->known_port = profile->reflexive_port;
    if (nat_endpoint_split(view(profile, profile->endpoint), &host, &port) < 0)
        return;
    if (profile->host.len == 0) {
        profile->host.at = (uint32_t)((const char *)host.data - profile->bytes);
        profile->host.len = (uint32_t)host.len;
    }
    if (profile->known_port == 0)
        profile->known_port = port;
}

static int fields_size(const struct nat_profile_fields *fields, size_t *size)
{
    const struct nat_bytes parts[] = {fields->node_id, fields->reflexive_ip, fields->endpoint};

    if (fields->reflexive_ip.len > IP_TEXT_MAX)
        return -EINVAL;
    if (fields->source.len > NAT_PROFILE_MAX)
        return -EMSGSIZE;
    *size = fields->source.len;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t room = room_for(parts[i], fields->source);

        if (room > NAT_PROFILE_MAX - *size)
            return -EMSGSIZE;
        *size += room;
    }
    return 0;
}

int nat_profile_create(struct nat_profile **out, const struct nat_profile_fields *fields)
{
    size_t size = 0, end = fields->source.len;
    int error = fields_size(fields, &size);
    struct nat_profile *profile;

    if (error < 0)
        return error;
    profile = calloc(1, sizeof *profile + size);
    if (!profile)
        return -ENOMEM;
    profile->refs = 1;
    profile->mapping = (uint8_t)fields->mapping;
    profile->filtering = (uint8_t)fields->filtering;
    profile->allocation = (uint8_t)fields->allocation;
    profile->can_receive_unsolicited = fields->can_receive_unsolicited;
    profile->requires_relay = fields->requires_relay;
    profile->relay_capable = fields->relay_capable;
    profile->has_port_delta = fields->has_port_delta;
    profile->port_delta = fields->port_delta;
    profile->detected_at = fields->detected_at;
    profile->ttl_seconds = fields->ttl_seconds;
    profile->source_len = (uint32_t)fields->source.len;
    if (fields->source.len > 0)
        memcpy(profile->bytes, fields->source.data, fields->source.len);
    profile->node_id = place(profile, fields->node_id, fields->source, &end);
    profile->reflexive_ip = place(profile, fields->reflexive_ip, fields->source, &end);
    profile->endpoint = place(profile, fields->endpoint, fields->source, &end);
    if (fields->reflexive_port <= UINT16_MAX)
        profile->reflexive_port = (uint16_t)fields->reflexive_port;
    find_contact(profile);
    *out = profile;
    return 0;
}

struct nat_profile *nat_profile_ref(struct nat_profile *profile)
{
    if (profile)
        profile->refs++;
    return profile;
}

void nat_profile_unref(struct nat_profile *profile)
{
    if (profile && --profile->refs == 0)
        free(profile);
}

void nat_profile_get(const struct nat_profile *profile, struct nat_profile_fields *fields)
{
    *fields = (struct nat_profile_fields){
        .node_id = view(profile, profile->node_id),
        .mapping = (enum nat_policy)profile->mapping,
        .filtering = (enum nat_policy)profile->filtering,
        .allocation = (enum nat_policy)profile->allocation,
        .can_receive_unsolicited = profile->can_receive_unsolicited,
        .requires_relay = profile->requires_relay,
        .relay_capable = profile->relay_capable,
        .has_port_delta = profile->has_port_delta,
        .port_delta = profile->port_delta,
        .reflexive_ip = view(profile, profile->reflexive_ip),
        .reflexive_port = profile->reflexive_port,
        .endpoint = view(profile, profile->endpoint),
        .detected_at = profile->detected_at,
        .ttl_seconds = profile->ttl_seconds,
        .source = nat_profile_source(profile),
    };
}

struct nat_bytes nat_profile_source(const struct nat_profile *profile)
{
    return (struct nat_bytes){profile->bytes, profile->source_len};
}

struct nat_bytes nat_peer_host(const struct nat_profile *profile)
{
    if (!profile)
        return (struct nat_bytes){"", 0};
    return view(profile, profile->host);
}
