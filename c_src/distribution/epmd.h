/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of EPMD: publishes this node's name and keeps it published, and looks up where other
 * nodes listen. It never blocks: everything runs on the caller's libuv loop and is reported through
 * callbacks.
 *
 * The struct is the caller's and all of it is private. Handles and requests are on the heap and
 * free themselves: after epmd_free the struct may go at once, but the loop must run until it has
 * closed them (uv_run returns 0). A callback may call any function of this room, epmd_free too.
 *
 * EPMD is reached on the loopback address (the daemon always listens there, whatever
 * ERL_EPMD_ADDRESS says, which a daemon started here inherits), at ERL_EPMD_PORT or 4369.
 */
#ifndef DISTRIBUTION_EPMD_H
#define DISTRIBUTION_EPMD_H

#include "distribution/epmd_wire.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum epmd_event {
    EPMD_PUBLISHED, /* for the first time: the creation is known */
    EPMD_FAILED,    /* could not be published, given up; status says why */
    EPMD_LOST,      /* EPMD went away; we keep trying */
    EPMD_TAKEN,     /* it is back, but another node has our name; we keep trying */
    EPMD_REGAINED,  /* published again after EPMD_LOST */
};

/* `status` is 0, or with FAILED, LOST and TAKEN a negative errno; `text` is one line for the log,
 * good during the call. */
typedef void (*epmd_event_cb)(void *ctx, enum epmd_event event, int status, const char *text);

/*
 * `status` is 0, or -ENOENT (no such node), -ETIMEDOUT, -EPROTO (not an EPMD) or what resolving or
 * connecting gave (a negative errno or libuv's UV_EAI_*; uv_strerror names all). With 0, `address`
 * is where the node listens, its port included, and `highest` the highest handshake version that it
 * speaks.
 */
typedef void (*epmd_lookup_cb)(void *ctx, int status, const struct sockaddr_in *address,
                               uint16_t highest);

struct epmd_exchange;

struct epmd {
    uv_loop_t *loop;
    epmd_event_cb on_event;
    void *ctx;
    uint16_t epmd_port;
    struct epmd_exchange *publication; /* the connection that holds our name, or is to */
    struct epmd_exchange *lookups;
    uv_timer_t *retry; /* on the heap, as it outlives the struct by its closing */
    uv_process_t *daemon;
    uint8_t request[EPMD_REQUEST_MAX]; /* ALIVE2_REQ */
    int request_len;
    uint32_t creation;
    bool is_published, was_published, is_taken, daemon_started, is_unused;
    uint64_t deadline, taken_since, published_at, delay; /* ms of uv_now */
};

/*
 * Prepares; reads ERL_EPMD_PORT. Returns 0, -EINVAL if ERL_EPMD_PORT is not a port, -ENOMEM.
 */
int epmd_init(struct epmd *epmd, uv_loop_t *loop, epmd_event_cb on_event, void *ctx);

/*
 * Publishes `name` (the part before the '@') as a hidden node that listens at `port`. EPMD is
 * started if it does not answer. Reports EPMD_PUBLISHED, or EPMD_FAILED with -EADDRINUSE (still
 * taken after 2 s), -ECONNREFUSED (cannot be started, or does not come up within 4 s), -ETIMEDOUT
 * (does not answer within 4 s) or -EPROTO. To be called once. Returns 0, -EINVAL for a bad name,
 * -ENOMEM.
 */
int epmd_publish(struct epmd *epmd, const char *name, uint16_t port);

/* In place of epmd_publish: publishes nothing, makes up a creation, and reports EPMD_PUBLISHED.
 * Returns 0 or libuv's error of the random source. */
int epmd_do_without(struct epmd *epmd);

/* Returns the creation that the first publication brought, for the life of the node. 0 before. */
uint32_t epmd_creation(const struct epmd *epmd);

/*
 * Asks the EPMD of `host` (a name or an IPv4 address) where node `name` (the part before the '@')
 * listens; with `port` other than 0 that is known, and only the host is looked up. `cb` is called
 * once, never from within this call, at the latest after `timeout_ms`; it is not called after
 * epmd_free. Returns 0, -EINVAL for a bad name, -ENOMEM, or what libuv says.
 */
int epmd_lookup(struct epmd *epmd, const char *name, const char *host, uint16_t port,
                uint64_t timeout_ms, epmd_lookup_cb cb, void *ctx);

/* Frees the name and forgets all lookups. No callback is called any more. */
void epmd_free(struct epmd *epmd);

#endif
