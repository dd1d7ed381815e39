/* SPDX-License-Identifier: Apache-2.0 */
#include "macula_nat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Anything a name or an address may contain, zones and underscores included. What is refused is
 * what would let a hostile profile smuggle something else into an address: spaces, controls, bytes
 * above 127, URL syntax.
 */
static bool is_host_char(unsigned char c)
{
    return c > ' ' && c < 127 && !strchr("/?#@[]\\\"'<>`{}|^,;", c);
}

static const char *skip_scheme(const char *at, const char *end)
{
    for (const char *p = at; p + 2 < end; p++) {
        if (*p == ':')
            return p > at && p[1] == '/' && p[2] == '/' ? p + 3 : at;
        if (*p == '/' || *p == '[')
            break;
    }
    return at;
}

/* Port of RFC 3986, section 3.2.3: digits only. 0 for what is no port. */
static uint16_t parse_port(const char *at, const char *end)
{
    uint32_t port = 0;

    for (; at < end; at++) {
        if (*at < '0' || *at > '9')
            return 0;
        port = port * 10 + (uint32_t)(*at - '0');
        if (port > UINT16_MAX)
            return 0;
    }
    return (uint16_t)port;
}

static const char *find_char(const char *at, const char *end, char c)
{
    const char *found = at < end ? memchr(at, c, (size_t)(end - at)) : NULL;

    return found ? found : end;
}

static const char *end_of_authority(const char *at, const char *end)
{
    while (at < end && *at != '/' && *at != '?' && *at != '#')
        at++;
    return at;
}

int nat_endpoint_split(struct nat_bytes text, struct nat_bytes *host, uint16_t *port)
{
    const char *at, *end, *stop, *port_at;

    if (text.len == 0)
        return -EINVAL;
    at = text.data;
    end = at + text.len;
    at = skip_scheme(at, end);
    end = end_of_authority(at, end);
    if (at < end && *at == '[') {
        stop = find_char(++at, end, ']');
        if (stop == end || (stop + 1 < end && stop[1] != ':'))
            return -EINVAL;
        port_at = stop + 1;
    } else {
        stop = find_char(at, end, ':');
        if (stop < end && find_char(stop + 1, end, ':') < end)
            stop = end; /* an IPv6 address without brackets */
        port_at = stop;
    }
    if (stop == at || (size_t)(stop - at) > NAT_HOST_MAX)
        return -EINVAL;
    for (const char *p = at; p < stop; p++)
        if (!is_host_char((unsigned char)*p))
            return -EINVAL;
    *host = (struct nat_bytes){at, (size_t)(stop - at)};
    *port = port_at < end ? parse_port(port_at + 1, end) : 0;
    return 0;
}

int nat_endpoint_format(char *out, size_t size, struct nat_bytes host, uint16_t port)
{
    int written;

    if (host.len > NAT_HOST_MAX)
        return -ENOSPC;
    written = snprintf(out, size, "%.*s:%u", (int)host.len,
                       host.len > 0 ? (const char *)host.data : "", port);
    return written < 0 || (size_t)written >= size ? -ENOSPC : written;
}
