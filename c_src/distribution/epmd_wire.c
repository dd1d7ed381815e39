/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/epmd_wire.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define ALIVE2_REQ       120
#define ALIVE2_X_RESP    118
#define ALIVE2_RESP      121
#define PORT_PLEASE2_REQ 122
#define PORT2_RESP       119

#define NAME_MAX_LEN      255
#define HIDDEN_NODE       72
#define PROTOCOL_TCP_IPV4 0

int epmd_encode_alive2(uint8_t request[EPMD_REQUEST_MAX], const char *name, uint16_t port)
{
    size_t name_len = strlen(name);

    if (name_len == 0 || name_len > NAME_MAX_LEN)
        return -EINVAL;
    /* length:2, x, port:2, node type, protocol, highest:2, lowest:2, name, extra, each with its
     * length:2 in front */
    put_u16(request, (uint16_t)(name_len + 13));
    request[2] = ALIVE2_REQ;
    put_u16(request + 3, port);
    request[5] = HIDDEN_NODE;
    request[6] = PROTOCOL_TCP_IPV4;
    put_u16(request + 7, EPMD_VERSION);
    put_u16(request + 9, EPMD_VERSION);
    put_u16(request + 11, (uint16_t)name_len);
    memcpy(request + 13, name, name_len);
    put_u16(request + 13 + name_len, 0);
    return (int)name_len + 15;
}

int epmd_encode_port_please2(uint8_t request[EPMD_REQUEST_MAX], const char *name)
{
    size_t name_len = strlen(name);

    if (name_len == 0 || name_len > NAME_MAX_LEN)
        return -EINVAL;
    put_u16(request, (uint16_t)(name_len + 1));
    request[2] = PORT_PLEASE2_REQ;
    memcpy(request + 3, name, name_len);
    return (int)name_len + 3;
}

int epmd_parse_alive2_response(const uint8_t *answer, size_t len, uint32_t *creation)
{
    if (len > 0 && answer[0] != ALIVE2_X_RESP && answer[0] != ALIVE2_RESP)
        return -EPROTO;
    if (len > 1 && answer[1] != 0)
        return -EADDRINUSE;
    bool is_old = len > 0 && answer[0] == ALIVE2_RESP;
    if (len < (is_old ? 4 : 6))
        return 0;
    *creation = is_old ? get_u16(answer + 2) : get_u32(answer + 2);
    /* 0 stands for a creation that is not known. */
    return *creation == 0 ? -EPROTO : 1;
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
    *port = get_u16(answer + 2);
    *highest = get_u16(answer + 6);
    return *port == 0 ? -EPROTO : 1;
}
