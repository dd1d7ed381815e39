/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last moments of a node's connections. What is queued is sent; then our side is closed, and
 * what the peer still says is read and ignored until it closes its side. Closed at once with input
 * unread, a socket is reset by the kernel, and the peer loses what it has not read yet.
 */
#ifndef DISTRIBUTION_GOODBYE_H
#define DISTRIBUTION_GOODBYE_H

#include "distribution/node.h"

struct goodbye {
    struct node *node;
    uv_timer_t timer;
    uint64_t started_at;
    void (*on_done)(void *ctx);
    void *ctx;
};

void goodbye_init(struct goodbye *goodbye, struct node *node);
/*
 * Closes all connections, by a timer: within 2 s, whatever the peers do; then calls on_done. Calls
 * that are on their way are still read, for half a second at most, and answered that their process
 * has ended.
 */
void goodbye_start(struct goodbye *goodbye, void (*on_done)(void *ctx), void *ctx);

#endif
