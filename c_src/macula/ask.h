/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to a macula service, put to one node after the other until one has answered it.
 *
 * A question belongs to this room until its `done` is called, once, or it is cancelled. While
 * another node is left to be asked, one that stays silent is given half of the time that remains.
 */
#ifndef MACULA_ASK_H
#define MACULA_ASK_H

#include "macula/services.h"
#include "otp/call.h"

enum ask_verdict {
    ASK_ACCEPT,  /* that is the answer */
    ASK_CALLER,  /* that is the answer, unless the caller's node has another one */
    ASK_NEXT,    /* it failed there: ask another node */
    ASK_MISSING, /* it is not there at all: remember that, and ask another node */
};

struct ask_kind {
    enum service_kind service;
    size_t max_nodes; /* that may fail: up to SERVICES_MAX_TRIES */
    /* Writes the request, one term. Returns 0 or a negative errno: no node is asked then. */
    int (*build)(void *ctx, struct buffer *b);
    enum ask_verdict (*judge)(struct slice answer);
    /* `answered` false: no node could; `answer` is good during the call. */
    void (*done)(void *ctx, bool answered, struct slice answer);
};

struct ask;

/*
 * Begins. `caller` is the origin of the node to prefer. NULL if there is no node to ask: `done` is
 * not called then. `done` is never called from within.
 */
struct ask *ask_start(struct services *services, struct calls *calls, const struct ask_kind *kind,
                      uint32_t caller, uint64_t limit_ms, void *ctx);
void ask_cancel(struct ask *ask);

#endif
