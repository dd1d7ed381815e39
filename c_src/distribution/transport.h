/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of bytes to another node: the seam between the distribution and what carries it. TCP is
 * in tcp.h; the unit tests have one without a socket. Nothing above this header knows which it is.
 *
 * A transport is made by its kind (tcp_accept, tcp_connect) and belongs to its owner, until
 * transport_close; it frees itself when it is closed. No callback comes from within a call of the
 * functions below, and none but on_closed after transport_close.
 */
#ifndef DISTRIBUTION_TRANSPORT_H
#define DISTRIBUTION_TRANSPORT_H

#include "base/buffer.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

struct transport;

/* Errors are negative errnos, which are libuv's too. */
struct transport_callbacks {
    /* One that was opened from here is connected, or could not be. */
    void (*on_open)(void *owner, int error);
    /* There is something to read: returns where to put it, and in `size` how much fits. 0: nothing
     * is read in this turn of the loop. */
    uint8_t *(*on_room)(void *owner, size_t *size);
    /* So many bytes were read to where on_room said; or an error (UV_EOF: the end of the stream),
     * after which the owner can only close. */
    void (*on_read)(void *owner, ssize_t size);
    /* All that was taken by transport_write has been written, or an error. */
    void (*on_written)(void *owner, int error);
    /* It is closed and about to be freed. */
    void (*on_closed)(void *owner);
};

struct transport_kind {
    int (*read_start)(struct transport *t);
    void (*read_stop)(struct transport *t);
    int (*write)(struct transport *t, struct buffer *bytes);
    size_t (*queued)(const struct transport *t);
    int (*shut_down)(struct transport *t);
    int (*peer_address)(const struct transport *t, struct sockaddr_storage *address);
    void (*close)(struct transport *t);
};

struct transport {
    const struct transport_kind *kind;
    const struct transport_callbacks *callbacks;
    void *owner;
    size_t taken;  /* bytes taken by transport_write, until on_written */
    size_t memory; /* that they take */
};

/* Starts to read, or starts again. Returns 0 or an error. */
static inline int transport_read_start(struct transport *t)
{
    return t->kind->read_start(t);
}

static inline void transport_read_stop(struct transport *t)
{
    t->kind->read_stop(t);
}

/*
 * Takes all of `bytes` and writes what can be written at once. Returns 1 if that was everything; 0
 * if the rest is written later (on_written), before which this may not be called again; or an
 * error. What was not written at once is the transport's, memory and all.
 */
static inline int transport_write(struct transport *t, struct buffer *bytes)
{
    return t->kind->write(t, bytes);
}

/* Returns how many of the bytes taken still wait for the peer. The number falls as long as the peer
 * reads. */
static inline size_t transport_queued(const struct transport *t)
{
    return t->kind->queued(t);
}

/* Closes our side of the stream, the peer's stays open. Returns 0 or an error. */
static inline int transport_shut_down(struct transport *t)
{
    return t->kind->shut_down(t);
}

/* Returns 0 or an error. */
static inline int transport_peer_address(const struct transport *t,
                                         struct sockaddr_storage *address)
{
    return t->kind->peer_address(t, address);
}

static inline void transport_close(struct transport *t)
{
    t->kind->close(t);
}

#endif
