/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_profile.h"

/* Where a macula node listens unless told otherwise: the best guess about a peer nothing is known
 * of. */
#define DEFAULT_PORT 4433

static size_t add_port(uint16_t *ports, size_t count, int64_t port)
{
    if (port < 1 || port > UINT16_MAX)
        return count;
    for (size_t i = 0; i < count; i++)
        if (ports[i] == port)
            return count;
    ports[count] = (uint16_t)port;
    return count + 1;
}

/* From one port of a contiguous range to the next; 0 if that leaves the range of ports from
 * anywhere in it, so that no sum of a few steps overflows. */
static int64_t port_step(const struct nat_profile *profile)
{
    int64_t step = profile->has_port_delta ? profile->port_delta : 1;

    return step > UINT16_MAX || step < -UINT16_MAX ? 0 : step;
}

size_t nat_ports_predict(const struct nat_profile *profile, uint16_t ports[NAT_PORTS_MAX])
{
    int64_t port = DEFAULT_PORT, step = 1;
    size_t count;

    if (profile && profile->known_port != 0) {
        port = profile->known_port;
        if (profile->allocation == NAT_POLICY_PP || profile->mapping == NAT_POLICY_EI)
            step = 0;
        else if (profile->allocation == NAT_POLICY_PC)
            step = port_step(profile);
    }
    count = add_port(ports, 0, port);
    count = add_port(ports, count, port + step);
    return add_port(ports, count, port + 2 * step);
}

/* A NAT that preserves ports gives a fresh socket's first mapping the socket's own port. So a port
 * that nothing has used yet is free of all that went wrong with the one before. */
#define FRESH_PORTS 64u

uint16_t nat_ports_local(const struct nat_profile *profile, uint32_t attempt)
{
    uint32_t step;

    if (attempt == 0 || !profile || profile->known_port == 0 ||
        profile->allocation != NAT_POLICY_PP)
        return 0;
    step = 1 + (attempt - 1) % FRESH_PORTS;
    if (profile->known_port + step > UINT16_MAX)
        return (uint16_t)(profile->known_port - step);
    return (uint16_t)(profile->known_port + step);
}

/* Whether each destination takes one port more of a contiguous range. */
static bool counts_up(const struct nat_profile *profile)
{
    return profile && profile->known_port != 0 && profile->allocation == NAT_POLICY_PC &&
           profile->mapping != NAT_POLICY_EI && profile->mapping != NAT_POLICY_HD;
}

/*
 * How many ports the peer has used up before this attempt, if both did as they were told: one for
 * each new destination. The first attempt names three to a peer whose opponent counts too, but one
 * to a peer whose opponent preserves ports, and each later one brings as many new ones. Any other
 * opponent stays where it is.
 */
static uint32_t ports_used(const struct nat_profile *other, uint32_t attempt)
{
    if (counts_up(other))
        return NAT_PORTS_MAX * attempt;
    return nat_ports_local(other, attempt) != 0 ? attempt : 0;
}

size_t nat_ports_plan(const struct nat_profile *profile, const struct nat_profile *other,
                      uint32_t attempt, uint16_t ports[NAT_PORTS_MAX])
{
    uint16_t local = nat_ports_local(profile, attempt);
    size_t count = 0;

    if (local != 0) {
        /* The known port comes second, for peers that stay where they are. */
        count = add_port(ports, count, local);
        return add_port(ports, count, profile->known_port);
    }
    if (attempt > 0 && profile && profile->known_port != 0 &&
        profile->allocation == NAT_POLICY_PC && profile->mapping != NAT_POLICY_EI) {
        int64_t used = counts_up(profile) ? ports_used(other, attempt) : 0;

        for (int i = 1; i <= NAT_PORTS_MAX; i++)
            count = add_port(ports, count, profile->known_port + (used + i) * port_step(profile));
    }
    return count > 0 ? count : nat_ports_predict(profile, ports);
}
