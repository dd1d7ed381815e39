/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport without a socket: the test says what arrives, and how much the peer takes. What is
 * written is kept. For unit tests and fuzz targets.
 */
#ifndef FAKE_TRANSPORT_H
#define FAKE_TRANSPORT_H

#include "distribution/connection.h"

struct fake_transport {
    struct transport transport; /* first */
    struct buffer written;      /* all that the peer has taken */
    struct buffer waiting;      /* what it has not */
    bool is_full;               /* takes nothing */
    bool is_reading;
    bool is_shut_down;
    bool is_closed;
};

/* Gives `c` the transport, as if it had been accepted. */
void fake_transport_open(struct fake_transport *fake, struct connection *c);
/* Makes a connection that is up, without a handshake. `name` is the peer. */
struct connection *fake_connection(struct fake_transport *fake, struct node *node,
                                   const char *name);
/* These bytes arrive; a new turn begins when the connection was read in this one. Returns how many
 * were read: fewer if it stops reading, or is closed. */
size_t fake_transport_receive(struct fake_transport *fake, const void *bytes, size_t size);
/* Something is said: a frame of `size` bytes that is no term. */
void fake_put_frame(struct connection *c, size_t size);
/* The peer takes what waits. */
void fake_transport_drain(struct fake_transport *fake);
/* If its connection has been closed, frees both and returns true. */
bool fake_transport_reap(struct fake_transport *fake);

#endif
