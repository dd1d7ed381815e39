/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The distribution handshake (ERTS User's Guide, "Distribution Protocol", section Distribution
 * Handshake, version 6; OTP's dist_util.erl), in both directions, as a machine that is fed bytes.
 * It has no socket, no clock and no heap: the caller reads, writes and keeps the deadline (7 s, as
 * net_setuptime).
 *
 * The struct is the caller's; it holds no resource, so there is nothing to free. The config and
 * what it points to are borrowed and must live until the handshake ends. Callers read the fields
 * marked as results, and change none.
 *
 * Use: handshake_accept() or handshake_connect(), then in a loop: write what handshake_output()
 * gives, read, feed. When feed returns 1 or an error there may still be output (an ack, a refusal)
 * that should be written first.
 */
#ifndef DISTRIBUTION_HANDSHAKE_H
#define DISTRIBUTION_HANDSHAKE_H

#include "distribution/node_name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of one message: a name, and room for what a newer peer may append. */
#define HANDSHAKE_IN_MAX 512
/* All that is ever written: a status and a challenge, both with a name, and an ack. */
#define HANDSHAKE_OUT_MAX 640

struct handshake_config {
    const char *node_name; /* name@host, 0-terminated */
    uint32_t creation;     /* from EPMD */
    uint64_t flags;        /* DIST_FLAGS_OURS */
    const uint8_t *cookie;
    size_t cookie_len;
    /*
     * Whether any handshake of this node waits for the answer to this challenge
     * (handshake_has_sent). Who sends it to us wants us to give the answer ourselves: without the
     * cookie, a node could get in by handing on our own challenges. NULL: never asked.
     */
    bool (*is_ours)(void *ctx, uint32_t challenge);
    void *ctx;
};

/* What the caller says about a peer that wants in. */
enum handshake_verdict {
    HANDSHAKE_OK, /* nobody of that name: go on */
    /* We are connecting to it too: go on here, the caller drops its own attempt. */
    HANDSHAKE_OK_SIMULTANEOUS,
    HANDSHAKE_NOK,   /* we are connecting to it too: its attempt ends, ours goes on */
    HANDSHAKE_ALIVE, /* already connected: go on if the peer insists */
    HANDSHAKE_NOT_ALLOWED,
};

typedef enum handshake_verdict (*handshake_verdict_cb)(void *ctx, const char *peer_name);

struct handshake {
    /* Results: peer_name as soon as it is known (""), the others after feed returned 1. */
    char peer_name[NODE_NAME_MAX + 1];
    uint64_t peer_flags; /* MANDATORY_25_DIGEST expanded to the flags that it stands for */
    uint32_t peer_creation;
    bool peer_named; /* the peer had no name: we gave it peer_name and peer_creation */
    /* The caller's; ALIVE: close the old connection before the ack goes out. */
    enum handshake_verdict verdict;
    char error[160]; /* why feed failed, printable ASCII */

    /* Private. */
    const struct handshake_config *config;
    handshake_verdict_cb ask;
    void *ctx;
    int state;
    uint32_t challenge;  /* ours */
    bool complement_due; /* the peer sent an old name message */
    size_t in_len, out_len, out_taken;
    uint8_t in[2 + HANDSHAKE_IN_MAX];
    uint8_t out[HANDSHAKE_OUT_MAX];
};

/*
 * Starts on the accepting side: the peer speaks first. `ask` is called once, from handshake_feed,
 * with the peer's name; it must not touch the handshake. Returns 0, or -EINVAL for a config with a
 * bad node name.
 */
int handshake_accept(struct handshake *hs, const struct handshake_config *config,
                     handshake_verdict_cb ask, void *ctx);

/*
 * Starts on the connecting side: queues our name. The node that answers must be `peer_name`
 * (copied). Returns 0, or -EINVAL for a bad node name here or there.
 */
int handshake_connect(struct handshake *hs, const struct handshake_config *config,
                      const char *peer_name);

/*
 * Takes bytes that the peer sent; *used says how many were taken. Returns 0: all taken, more is
 * wanted; 1: done, the bytes after *used belong to the first frames; or an error, with a reason in
 * hs->error, and the connection is to be closed: -EPROTO malformed or unexpected message, -EMSGSIZE
 * message too large, -EACCES wrong cookie, -EPROTONOSUPPORT the peer lacks what we need, -EPERM
 * refused by one side (not_allowed, or the peer is not who we called), -EALREADY another connection
 * between the two nodes stands or wins, -EIO no random bytes. Feeding after the end returns
 * -EPROTO.
 */
int handshake_feed(struct handshake *hs, const uint8_t *bytes, size_t len, size_t *used);

/*
 * Hands out the bytes to be written now; *len is 0 if there are none. They count as taken. The
 * pointer is good as long as the handshake.
 */
const uint8_t *handshake_output(struct handshake *hs, size_t *len);

/* Whether this handshake has sent this challenge, and not seen the answer yet. */
bool handshake_has_sent(const struct handshake *hs, uint32_t challenge);

/*
 * Returns the verdict on a node that connects to us while our own attempt to it is pending: the
 * attempt of the node with the greater name wins, so that both sides keep the same one (dist_util:
 * MyNode > Node is nok).
 */
enum handshake_verdict handshake_simultaneous(const char *our_name, const char *peer_name);

#endif
