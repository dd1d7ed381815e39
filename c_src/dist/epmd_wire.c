/* SPDX-License-Identifier: Apache-2.0 */
#include "dist/epmd_wire.h"

#include <errno.h>
#include <string.h>

#define ALIVE2_REQ       120
#define ALIVE2_X_RESP    118
#define ALIVE2_RESP      121
#define PORT_PLEASE2_REQ 122
#define PORT2_RESP       119

#define NAME_MAX_LEN      255
#define HIDDEN_NODE       72
#define PROTOCOL_TCP_IPV4 0
#define VERSION           6

static size_t put(uint8_t *to, size_t at, uint32_t value, size_t size)
{
    while (size-- > 0)
        to[at++] = (uint8_t)(value >> (8 * size));
    return at;
}

static uint32_t get(const uint8_t *from, size_t size)
{
    uint32_t value = 0;

    for (size_t i = 0; i < size; i++)
        value = value << 8 | from[i];
    return value;
}

int epmd_encode_alive2(uint8_t request[EPMD_REQUEST_MAX], const char *name, uint16_t port)
{
    size_t name_len = strlen(name), at = 2;

    if (name_len == 0 || name_len > NAME_MAX_LEN)
        return -EINVAL;
    at = put(request, at, ALIVE2_REQ, 1);
    at = put(request, at, port, 2);
    at = put(request, at, HIDDEN_NODE, 1);
    at = put(request, at, PROTOCOL_TCP_IPV4, 1);
    at = put(request, at, VERSION, 2);
    at = put(request, at, VERSION, 2);
    at = put(request, at, (uint32_t)name_len, 2);
    memcpy(request + at, name, name_len);
    at = put(request, at + name_len, 0, 2);
    put(request, 0, (uint32_t)at - 2, 2);
    return (int)at;
}

int epmd_encode_port_please2(uint8_t request[EPMD_REQUEST_MAX], const char *name)
{
    size_t name_len = strlen(name);

    if (name_len == 0 || name_len > NAME_MAX_LEN)
        return -EINVAL;
    put(request, 0, (uint32_t)name_len + 1, 2);
    put(request, 2, PORT_PLEASE2_REQ, 1);
    memcpy(request + 3, name, name_len);
    return (int)name_len + 3;
}

int epmd_parse_alive2_response(const uint8_t *answer, size_t len, uint32_t *creation)
{
    if (len > 0 && answer[0] != ALIVE2_X_RESP && answer[0] != ALIVE2_RESP)
        return -EPROTO;
    if (len > 1 && answer[1] != 0)
        return -EADDRINUSE;
    size_t size = len > 0 && answer[0] == ALIVE2_RESP ? 2 : 4;
    if (len < 2 + size)
        return 0;
    *creation = get(answer + 2, size);
    return 1;
}

int epmd_parse_port2_response(const uint8_t *answer, size_t len, uint16_t *port, uint16_t *highest)
{
    if (len > 0 && answer[0] != PORT2_RESP)
        return -EPROTO;
    if (len > 1 && answer[1] != 0)
        return -ENOENT;
    /* w, result, port:2, node type, protocol, highest:2, lowest:2, ... */
    if (len < 10)
        return 0;
    *port = (uint16_t)get(answer + 2, 2);
    *highest = (uint16_t)get(answer + 6, 2);
    return *port == 0 ? -EPROTO : 1;
}
