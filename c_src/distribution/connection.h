/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TCP stream to another node: handshake, then frames, ticks and a bounded queue of output.
 *
 * A connection frees itself when its socket is closed; nobody keeps a pointer to one beyond the
 * call of its `down` hook (node.h). What a loop turn has to say on a connection is gathered in one
 * buffer and written once, at the end of the turn. Input is read into a buffer shared by all
 * connections; a connection has memory of its own only for a frame that is not whole yet. One
 * connection is read once in a turn, so none can starve others.
 */
#ifndef DISTRIBUTION_CONNECTION_H
#define DISTRIBUTION_CONNECTION_H

#include "base/buffer.h"
#include "base/table.h"
#include "distribution/budget.h"
#include "distribution/handshake.h"
#include "term/cursor.h"

#include <uv.h>

#define FRAME_MAX         ((size_t)16 << 20)  /* larger ones end the connection */
#define LARGE_FRAME       ((size_t)256 << 10) /* of these one is handled in a turn */
#define OUTPUT_MAX        ((size_t)64 << 20)  /* a peer that lets more pile up is cut off */
#define OUTPUT_PAUSE      ((size_t)16 << 20)  /* with more, nothing is read from it */
#define OUTPUT_TURN       ((size_t)1 << 20)   /* caused in a turn, the rest of its frames waits */
#define OUTPUT_UNASKED    ((size_t)8 << 20)   /* with more, what it has not asked for is dropped */
#define HOLDS_MAX         250000              /* one with more monitors and links is cut off */
#define HALF_OPEN_MAX     1000                /* clients in their handshake */
#define READ_SIZE         ((size_t)64 << 10)
#define UNREAD_LIMIT_MS   5000  /* who has made us pause and takes nothing for so long is cut off */
#define TICK_SILENCE_MS   15000 /* without output after which we send a tick */
#define TICK_ANSWERED_MS  500   /* a tick is answered unless we sent something so recently */
#define SETUP_DEADLINE_MS 7000  /* for connect and handshake, as net_setuptime of OTP */
#define FRAME_DEADLINE_MS 30000 /* for the rest of a frame that has begun */
/* For so long an attempt of ours may be one of two that cross each other: a listener that answers
 * nothing keeps its node out no longer. */
#define CROSSING_MS 2000

struct node;
struct monitor;
struct link;
struct watch;

enum connection_state {
    CONNECTION_CONNECTING, /* TCP, outgoing only */
    CONNECTION_HANDSHAKE,
    CONNECTION_UP,
    CONNECTION_CLOSED, /* memory goes with the socket's close callback */
};

/* How the peer's sys:get_state takes a state; otp/ finds it out and keeps it here. */
enum sys_form {
    SYS_FORM_UNKNOWN,
    SYS_FORM_BARE, /* before OTP 26.1 */
    SYS_FORM_OK,   /* {ok, State} */
};

struct connection {
    struct node *node;
    enum connection_state state;
    bool outgoing;
    uint64_t number; /* never used twice; part of keys that must not outlive the connection */
    char name[NODE_NAME_MAX + 1];
    char address[64]; /* of the other end */
    char origin[64];  /* whom lines of the log count for until the handshake is done */
    uint64_t flags;
    enum sys_form sys_form;
    struct handshake *handshake; /* until it is up */
    uint64_t opened_at;          /* loop time, ms */
    uint64_t connected_at;       /* one that we opened: when there was a TCP connection */
    uint64_t sent_at;
    uint64_t read_turn;
    uint64_t looked_turn; /* read_turn when it was last looked at (goodbye.c) */
    bool said_goodbye;    /* our side is closed, input is ignored */
    bool has_frames;      /* in `in`, left for another turn; nothing is read meanwhile */
    bool is_in_turn;      /* in line to go on with them */
    size_t unread; /* while it waits for its socket: what the socket had not taken when it was last
                      looked at */
    uint64_t unread_since;

    struct buffer in;      /* the beginning of a frame that is not whole yet */
    uint64_t frame_since;  /* when that began */
    struct buffer out;     /* written at the end of the turn */
    struct buffer sending; /* what the socket did not take at once */
    size_t frame_start;    /* of the frame that is open in `out` */
    bool flush_wanted;
    const char *doomed; /* why it ends with this turn, or NULL */
    uint32_t holds;     /* monitors and links */
    struct budget budget;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;

    struct monitor *monitors; /* that processes over there hold on ours */
    struct link *links;
    struct watch *watches; /* of ours on processes over there; the layer above keeps them */
    struct connection *prev, *next; /* all connections of the node */
    struct connection *next_flush;
    struct connection *prev_turn, *next_turn;
    UT_hash_handle hh; /* by name, while it is up */
};

/* Takes a client that was accepted. Returns 0, or a negative errno and it is closed. */
int connection_accept(struct node *node, int fd);
/* Starts to connect to `name` at `address`. Returns 0, failures later going to
 * node_connection_failed, or a negative errno, and nothing more is heard of it. */
int connection_open(struct node *node, const char *name, const struct sockaddr *address);
/*
 * Ends it at the end of this turn, with a warning; nothing more is read or written. For whoever may
 * be in the midst of something that an end at once would change under his feet.
 */
void connection_doom(struct connection *c, const char *why);
/*
 * Ends it now, what is unsent included, and says why in the log (at `level`, NULL: silently). The
 * end of one that we opened and that never was up is the connector's to tell.
 */
void connection_close(struct connection *c, int level, const char *why);

/*
 * Opens a frame in the output: put the control tuple (control.h) and message into the buffer that
 * is returned, then close it. The close cuts the connection off if its output has grown past
 * OUTPUT_MAX.
 */
struct buffer *connection_open_frame(struct connection *c);
void connection_close_frame(struct connection *c);
/* Takes the frame that is open back out. */
void connection_drop_frame(struct connection *c);

/* Writes what has gathered; part of node's end of turn. */
void connection_flush(struct connection *c);
/* Handles frames that were left for another turn; part of node's turn. */
void connection_go_on(struct connection *c);
/* Ticks and the deadline of the handshake; called about once a second. */
void connection_check(struct connection *c);
/* Returns the bytes not yet taken by the socket. */
size_t connection_pending(const struct connection *c);

#endif
