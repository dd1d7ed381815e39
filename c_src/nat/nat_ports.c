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

size_t nat_ports_predict(const struct nat_profile *profile, uint16_t ports[NAT_PORTS_MAX])
{
    int64_t port = DEFAULT_PORT, step = 1;
    size_t count;

    if (profile != NULL && profile->known_port != 0) {
        port = profile->known_port;
        if (profile->allocation == NAT_POLICY_PP || profile->mapping == NAT_POLICY_EI)
            step = 0;
        else if (profile->allocation == NAT_POLICY_PC && profile->has_port_delta)
            step = profile->port_delta;
    }
    /* A step that leaves the range of ports from anywhere in it; without this the sums below could
     * overflow. */
    if (step > UINT16_MAX || step < -UINT16_MAX)
        step = 0;
    count = add_port(ports, 0, port);
    count = add_port(ports, count, port + step);
    return add_port(ports, count, port + 2 * step);
}
