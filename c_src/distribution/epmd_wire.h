/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages between a node and EPMD (ERTS User's Guide, "Distribution Protocol", section EPMD
 * Protocol). Pure functions on the caller's buffers. A parser is given all bytes of the answer so
 * far and looks at no more than it needs.
 */
#ifndef DISTRIBUTION_EPMD_WIRE_H
#define DISTRIBUTION_EPMD_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define EPMD_REQUEST_MAX 288 /* the longest request: a name of 255 bytes and what is around it */
#define EPMD_VERSION     6   /* the handshake version that we speak, and want of others */
#define EPMD_ANSWER_MAX  12  /* as much of an answer as is ever looked at */

/*
 * Writes ALIVE2_REQ for a hidden node with handshake version 6 that listens at `port`. `name` is
 * the part before the '@'. Returns the length, or -EINVAL if the name is empty or longer than 255
 * bytes.
 */
int epmd_encode_alive2(uint8_t request[EPMD_REQUEST_MAX], const char *name, uint16_t port);

/* Writes PORT_PLEASE2_REQ. Returns as above. */
int epmd_encode_port_please2(uint8_t request[EPMD_REQUEST_MAX], const char *name);

/*
 * Reads ALIVE2_X_RESP, or ALIVE2_RESP of an EPMD older than OTP 23. Returns 0 if more is wanted, 1
 * with *creation, -EADDRINUSE if EPMD refused the name, -EPROTO for anything else.
 */
int epmd_parse_alive2_response(const uint8_t *answer, size_t len, uint32_t *creation);

/*
 * Reads PORT2_RESP. What follows the versions is not of interest. Returns 0 if more is wanted, 1
 * with *port and *highest (the highest handshake version), -ENOENT if there is no such name,
 * -EPROTO for anything else.
 */
int epmd_parse_port2_response(const uint8_t *answer, size_t len, uint16_t *port, uint16_t *highest);

#endif
