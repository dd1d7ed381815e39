/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: the handshake, then frames and ticks, and whose turn it is.
 *
 * All connections share one buffer to read into; a connection has memory of its own only for a
 * frame that is not whole yet. Each is read once in a turn of the loop. One that asked for much, or
 * sent a large frame, waits in line with the rest of its input, so none can starve the others.
 */
#ifndef DISTRIBUTION_INPUT_H
#define DISTRIBUTION_INPUT_H

#include "distribution/connection.h"
#include "distribution/handshake.h"

#define FRAME_MAX         ((size_t)16 << 20)  /* larger ones close the connection */
#define LARGE_FRAME       ((size_t)256 << 10) /* of these one is handled in a turn */
#define OUTPUT_PAUSE      ((size_t)16 << 20)  /* with more unread output, a peer is not read */
#define OUTPUT_TURN       ((size_t)1 << 20)   /* after so much, its other frames wait a turn */
#define READ_SIZE         ((size_t)64 << 10)
#define UNREAD_LIMIT_MS   5000  /* a peer not read that takes nothing is cut off */
#define SETUP_DEADLINE_MS 7000  /* for connect and handshake, as net_setuptime of OTP */
#define FRAME_DEADLINE_MS 30000 /* for the rest of a frame that has begun */
/* For so long an attempt of ours may be one of two that cross each other. No longer, so that a
 * listener that answers nothing does not keep its own node out. */
#define CROSSING_MS 2000

/* Of one node. */
struct input {
    struct node *node;
    struct handshake_config handshake;
    uint8_t *cookie;
    uint8_t *scratch;        /* READ_SIZE, for all connections */
    struct connection *line; /* those that have frames left */
    bool had_large_frame;    /* in this turn */
    uv_idle_t turn;          /* runs while there is a line */
};

/* Makes `input` that of the node, with a copy of the cookie. Returns 0 or -ENOMEM, and then there
 * is nothing to free. */
int input_init(struct input *input, struct node *node, struct slice cookie);
/* No connection may be left; the loop must run once more. */
void input_close(struct input *input);
/* Wipes the cookie and gives the memory back. */
void input_free(struct input *input);

/* For every transport that a connection is given. */
extern const struct transport_callbacks input_transport_callbacks;

/* The transport of `c` is open and a client's: its handshake begins. Returns 0, or a negative
 * errno, and `c` is the caller's to close. */
int input_accept(struct connection *c);
/* Prepares the handshake with `name`, which goes on when the transport of `c` is open. Returns 0,
 * -ENOMEM, or -EINVAL if that is no name. */
int input_connect(struct connection *c, const char *name);
/* The peer has proved that it is `name`: what it says from here on are frames. */
void input_begin_frames(struct connection *c, const char *name, uint64_t flags);
/* From now on, its input is read and dropped until it closes its side. */
void input_ignore(struct connection *c);

/* A new turn of the loop begins. */
void input_new_turn(struct input *input);
/* The peer has taken its output: goes on with frames that had to wait for that. */
void input_resume(struct connection *c);
/* Takes a connection that is closed out of the line. */
void input_forget(struct connection *c);
/* Ticks and deadlines; called about once a second. */
void input_check(struct connection *c);

#endif
