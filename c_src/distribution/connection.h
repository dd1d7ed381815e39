/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to another node: its life and its output. Its input is in input.h.
 *
 * All output of a turn of the loop is gathered in one buffer and written once, at the end of the
 * turn. A peer that does not read is cut off when too much waits for it.
 *
 * A connection frees itself when its transport is closed: keep no pointer to it after on_down
 * (node.h).
 */
#ifndef DISTRIBUTION_CONNECTION_H
#define DISTRIBUTION_CONNECTION_H

#include "base/buffer.h"
#include "base/table.h"
#include "distribution/node.h"
#include "distribution/transport.h"
#include "term/cursor.h"

#define OUTPUT_MAX       ((size_t)64 << 20) /* a peer that lets more pile up is cut off */
#define OUTPUT_UNASKED   ((size_t)8 << 20)  /* with more, what it has not asked for is dropped */
#define OUTPUT_TOTAL_MAX ((size_t)1 << 30)  /* of all: who has the most is cut off */
#define TICK_SILENCE_MS  15000              /* without output after which we send a tick */
#define TICK_ANSWERED_MS 500 /* a tick is answered unless we sent something so recently */

#define FRAME_HEAD 4 /* the length in front of each frame */

struct handshake;
struct monitor;
struct link;
struct watch;

enum connection_state {
    CONNECTION_CONNECTING, /* outgoing only: the transport is not open yet */
    CONNECTION_HANDSHAKE,
    CONNECTION_UP,
    CONNECTION_CLOSED, /* memory goes with the transport */
};

/* How the peer's sys:get_state takes a state; otp/ finds it out and keeps it here. */
enum sys_form {
    SYS_FORM_UNKNOWN,
    SYS_FORM_BARE, /* before OTP 26.1 */
    SYS_FORM_OK,   /* {ok, State} */
};

/* The half of a connection that belongs to input.c. */
struct connection_input {
    struct handshake *handshake; /* until it is up */
    uint64_t opened_at;          /* loop time, ms */
    uint64_t connected_at;       /* one that we opened: when its transport was open */
    uint64_t read_turn;          /* the last turn in which it was read */
    struct buffer bytes;         /* the beginning of a frame that is not whole yet */
    uint64_t frame_since;        /* when that began */
    bool has_frames;             /* in `bytes`, left for another turn; nothing is read meanwhile */
    bool is_in_line;             /* to go on with them */
    bool is_ignored;             /* whatever comes is dropped, as we have closed our side */
    size_t unread; /* while it waits for its peer: what that had not taken when last looked at */
    uint64_t unread_since;
    struct connection *prev, *next; /* in line */
};

struct connection {
    struct node *node;
    struct transport *transport;
    enum connection_state state;
    bool outgoing;
    uint64_t number; /* never used twice; part of keys that must not outlive the connection */
    char name[NODE_NAME_MAX + 1]; /* it is that node only when it is up */
    char address[64];             /* of the other end */
    char origin[64];              /* whom lines of the log count for until it is up */
    uint64_t flags;
    enum sys_form sys_form;

    struct buffer out;  /* written at the end of the turn */
    size_t frame_start; /* of the frame that is open in `out` */
    uint64_t sent_at;
    bool is_unflushed;
    const char *doomed; /* why it is closed at the end of this turn, or NULL */
    struct budget budget;
    struct connection_input input;

    struct monitor *monitors; /* that processes over there hold on ours; process.c's */
    struct link *links;
    uint32_t holds;                 /* how many of both */
    struct watch *watches;          /* of ours on processes over there; watch.c's */
    uint64_t goodbye_turn;          /* read_turn when it was last looked at; goodbye.c's */
    struct connection *prev, *next; /* all connections of the node */
    struct connection *next_unflushed;
    UT_hash_handle hh; /* by name, while it is up */
};

/* Makes one without a transport. NULL: no memory. */
struct connection *connection_new(struct node *node);
/* The callbacks of its transport that are about its output and its end. */
void connection_on_written(void *connection, int error);
void connection_on_transport_closed(void *connection);

/* Its handshake is done: from now on it is found by its name. Without memory it is closed, and
 * false is returned. */
bool connection_set_up(struct connection *c);
/* Returns the connection to a node, or NULL if there is none that is up. */
struct connection *connection_find(struct node *node, struct slice name);

/*
 * Closes it at the end of this turn, with a warning; nothing more is read or written. For callers
 * in the middle of something that closing at once would change under their feet.
 */
void connection_doom(struct connection *c, const char *why);
/* Closes it now; unsent output is dropped. Logs `why` (NULL: nothing) at `level`. If it is one that
 * we opened and that was never up, the connector logs that. */
void connection_close(struct connection *c, int level, const char *why);
/* The same, for an error of the transport. */
void connection_close_with(struct connection *c, int error);

/*
 * Opens a frame in the output: put the control tuple (control.h) and message into the buffer that
 * is returned, then close it. The close cuts the connection off if its output has grown past
 * OUTPUT_MAX.
 */
struct buffer *connection_open_frame(struct connection *c);
void connection_close_frame(struct connection *c);
/* Takes the frame that is open back out. */
void connection_drop_frame(struct connection *c);
/*
 * Opens a frame with a message to `to`, who may not have asked for it: put one term, then
 * connection_close_frame. Returns NULL, and counts it, if the node is not connected, or has so much
 * unread output that more could get it cut off. `*via` is the connection.
 */
struct buffer *connection_open_send(struct node *node, const struct pid *to,
                                    struct connection **via);
/* Puts bytes that are no frame: the handshake's, and ticks. */
void connection_put(struct connection *c, const uint8_t *bytes, size_t size);
/* Sends a tick if nothing was sent for `silence_ms` and nothing is about to be. */
void connection_tick(struct connection *c, uint64_t silence_ms);

/* Writes what has gathered, as the end of a turn does, or closes what is doomed. */
void connection_flush(struct connection *c);
void connection_flush_all(struct node *node);
/* Returns the bytes that the peer has not taken yet. */
size_t connection_pending(const struct connection *c);

#endif
