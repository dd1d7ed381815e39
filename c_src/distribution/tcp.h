/* SPDX-License-Identifier: Apache-2.0 */
/* The transport that OTP nodes use by default: TCP, by libuv. */
#ifndef DISTRIBUTION_TCP_H
#define DISTRIBUTION_TCP_H

#include "distribution/transport.h"

#include <uv.h>

/* Takes a socket that was accepted; it is closed if that fails. Returns 0 or an error. */
int tcp_accept(struct transport **out, uv_loop_t *loop, int fd,
               const struct transport_callbacks *callbacks, void *owner);
/* Starts to connect: on_open says how it went. Returns 0 or an error. */
int tcp_connect(struct transport **out, uv_loop_t *loop, const struct sockaddr *address,
                const struct transport_callbacks *callbacks, void *owner);

#endif
