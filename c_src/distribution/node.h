/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This node among others: its name and creation, its listener, its connections, its processes, its
 * end of turn.
 *
 * The struct is the caller's; node_init fills it, node_start opens the listener and registers with
 * EPMD, node_stop ends everything in order (started or not), and node_free gives the memory back
 * when the loop has run out. Layers above plug in through `struct node_hooks` and read the fields;
 * they change none of them. Nothing here opens a connection but the list of nodes given to
 * node_connect (connector.h): what is for a node that is not connected is dropped and counted.
 */
#ifndef DISTRIBUTION_NODE_H
#define DISTRIBUTION_NODE_H

#include "base/table.h"
#include "distribution/connection.h"
#include "distribution/control.h"
#include "distribution/epmd.h"
#include "distribution/node_counters.h"
#include "distribution/process.h"

#include <stdarg.h>
#include <uv.h>

struct connector;

/* A process that another node wants started here. */
struct spawn_request {
    struct connection *via;
    struct pid from;
    struct slice id; /* the request's reference, as a term */
    struct slice module, function;
    int64_t arity;
    struct slice options;   /* a term */
    struct slice arguments; /* a term */
};

struct node_hooks {
    void *ctx;
    /* A line, level as in syslog.h, as by printf(3); `kind` and `peer` (or NULL) are for rate
     * limits, `about` (or NULL) names it where one line stands for many. What is not written need
     * not be composed. */
    void (*log)(void *ctx, int level, const char *kind, const char *peer, const char *about,
                const char *format, va_list arguments) __attribute__((format(printf, 6, 0)));
    void (*spawn)(void *ctx, const struct spawn_request *request);
    void (*up)(void *ctx, struct connection *c);
    void (*down)(void *ctx, struct connection *c);
    /* A monitor of ours fired. */
    void (*monitor_exit)(void *ctx, struct connection *c, const struct control *control);
    /* The listener and EPMD are ready for callers (once), or never will be. */
    void (*ready)(void *ctx, int port);
    void (*failed)(void *ctx, const char *why);
};

struct node_config {
    uv_loop_t *loop;
    const char *name; /* name@host */
    struct slice cookie;
    bool traces;                   /* lines of level LOG_DEBUG are written */
    const struct sockaddr *listen; /* address and port (0: any) of the listener */
    bool no_epmd;                  /* publish no name */
    struct node_hooks hooks;
};

struct node {
    uv_loop_t *loop;
    char name[NODE_NAME_MAX + 1];
    struct slice name_slice;
    uint8_t *cookie;
    struct handshake_config handshake;
    struct node_hooks hooks;
    struct node_counters counters;
    struct sockaddr_storage listen;
    uv_tcp_t listener;
    uv_poll_t clients; /* of the listener */
    uv_timer_t second;
    uv_timer_t goodbye;
    uv_prepare_t end_of_turn;
    uv_idle_t next_turn;
    int port;
    bool no_epmd;
    bool stopping;
    bool traces; /* whether a line of level LOG_DEBUG is worth composing */
    uint64_t stopped_at;
    struct epmd epmd;
    struct connector *connectors;

    struct connection *connections; /* all */
    struct connection *by_name;     /* those that are up */
    struct connection *flush_list;
    struct connection *in_turn; /* those that have frames left, in line */
    uint64_t connections_made;
    uint64_t turn;
    bool had_large_frame; /* in this turn */
    uint8_t *scratch;
    struct budget budget;      /* of all connections */
    uint64_t bytes_made;       /* of frames, for whomever */
    struct connection *sender; /* whose frame is being handled, or NULL */
    struct process_table processes;
};

/* Fills the struct, with a copy of all that the config points to. Returns 0, -EINVAL if
 * ERL_EPMD_PORT is not a port, or -ENOMEM; after an error there is nothing to free. */
int node_init(struct node *node, const struct node_config *config);
/* Opens the listener and starts to publish the name. Returns 0 or libuv's error of the listener. */
int node_start(struct node *node);
/* Frees the name, closes the listener and every connection, once what is queued was sent or 2 s are
 * over. */
void node_stop(struct node *node);
/* Gives the memory back, when the loop has closed what node_stop closes; wipes the cookie. */
void node_free(struct node *node);

/* Stays connected to `name` (name@host) from now on, which listens at `port` (0: the EPMD of its
 * host knows). Returns 0 or -ENOMEM. */
int node_connect(struct node *node, const char *name, uint16_t port);

/* Returns the connection to a node, or NULL if there is none that is up. */
struct connection *node_find(struct node *node, struct slice name);
/* Returns what tells this life of the node from the one before, part of its pids and references; 0
 * until EPMD has given it. */
uint32_t node_creation(const struct node *node);
bool node_is_self(const struct node *node, struct slice name);

/*
 * Opens a frame with a message to `to`, who may not have asked for it: put one term, then
 * connection_close_frame. NULL (counted) if its node is not connected, or has so much to take yet
 * that this could cut it off. `*via` is the connection.
 */
struct buffer *node_open_send(struct node *node, const struct pid *to, struct connection **via);

/* Counts and logs that there was no memory for `what`, which comes from `peer`. */
void node_note_no_memory(struct node *node, const char *peer, const char *what);

/* Logs a line through the hook. Cheap if it is suppressed, so that whatever a peer does may log. */
void node_log(struct node *node, int level, const char *kind, const char *peer, const char *format,
              ...) __attribute__((format(printf, 5, 6)));
/* The same, for lines of one peer that are about many things: `about` is this one's. */
void node_log_about(struct node *node, int level, const char *kind, const char *peer,
                    const char *about, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* For connection.c: what became of a connection, of one opened here that never was up, whether it
 * has output, and whether it is in line to go on with frames that it has left. */
void node_connection_up(struct node *node, struct connection *c);
void node_connection_down(struct node *node, struct connection *c);
void node_connection_failed(struct node *node, struct connection *c, int level, const char *why);
void node_want_flush(struct node *node, struct connection *c);
void node_forget_flush(struct node *node, struct connection *c);
void node_want_turn(struct node *node, struct connection *c);
void node_forget_turn(struct node *node, struct connection *c);

#endif
