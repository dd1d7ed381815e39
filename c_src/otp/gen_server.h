/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that behaves as an OTP gen_server: calls and casts, system messages (sys.c),
 * suspension, exit.
 *
 * The server is part of the caller's struct, started by gen_server_start; what the callbacks get
 * are views, valid during the call. Requests that arrive while the server is suspended are kept and
 * handed on in order when it resumes. When it ends (sys:terminate, an exit signal, gen_server_stop)
 * its monitors and links get the reason, then `terminated` is called, once, if it is set.
 */
#ifndef OTP_GEN_SERVER_H
#define OTP_GEN_SERVER_H

#include "distribution/process.h"
#include "otp/caller.h"

/* More than this waiting for a suspended server, and the connection that has sent the most of it is
 * cut off. */
#define SUSPENDED_MAX ((size_t)64 << 20)

struct gen_server;

struct gen_server_callbacks {
    /* Answer now or later (caller_keep), with reply_open. */
    void (*call)(struct gen_server *gs, const struct caller *caller, struct slice request);
    /* `via` is the connection that it came by; NULL: it is gone, or there was none. */
    void (*cast)(struct gen_server *gs, struct connection *via, struct slice request);
    /* Any other message. */
    void (*info)(struct gen_server *gs, struct connection *via, struct slice message);
    /* Writes the state as sys:get_state shows it: one term. */
    void (*put_state)(struct gen_server *gs, struct buffer *b);
    /* For a server that does things by itself; both may be NULL. It is suspended, or is not any
     * more; and all that had waited meanwhile has been handled. */
    void (*suspended)(struct gen_server *gs, bool suspended);
    void (*caught_up)(struct gen_server *gs);
};

struct gen_server {
    struct process process; /* first */
    const struct gen_server_callbacks *callbacks;
    bool traps_exits; /* as rex and net_kernel do: only `kill` would end it, and is ignored too */
    bool is_suspended;
    struct deferred *deferred; /* while suspended, and until they have had their turn; in order */
    uv_idle_t backlog;
    size_t deferred_bytes;
    uint64_t messages_in, messages_out;
    bool has_statistics;
    uint64_t statistics_in, statistics_out; /* at their start */
    int64_t statistics_since;               /* unix seconds */
    /* Called once, with the reason, when it has ended. Set it after the start, or leave it NULL. */
    void (*terminated)(void *ctx, struct slice reason);
    void *terminated_ctx;
    struct state_asker *state_askers; /* in order */
    size_t state_asker_count;
    uv_timer_t state_timer; /* of those that wait */
};

/* Returns 0 or -ENOMEM, and then it has not begun. */
int gen_server_start(struct gen_server *gs, struct node *node, const char *name,
                     const struct gen_server_callbacks *callbacks);
/* Ends it: reason is an atom. */
void gen_server_stop(struct gen_server *gs, const char *reason);
void gen_server_stop_with(struct gen_server *gs, struct slice reason);

/* As if `caller` had called, or somebody had cast: for functions of the server's API that are run
 * by rpc. What it costs counts for the node whose frame is being handled. */
void gen_server_call(struct gen_server *gs, const struct caller *caller, struct slice request);
void gen_server_cast(struct gen_server *gs, struct slice request);

/* For sys.c. */
void gen_server_suspend(struct gen_server *gs, bool suspended);
/* A {system, From, Request} message (sys.erl). */
void sys_handle_message(struct gen_server *gs, const struct caller *caller, struct slice request);

/* For gen_server.c and sys.c: sys:get_state (sys_state.c). */
void sys_state_start(struct gen_server *gs);
/* Callers that still wait get a DOWN instead of an answer. */
void sys_state_stop(struct gen_server *gs);
void sys_handle_get_state(struct gen_server *gs, const struct caller *caller);
/* Handles a message of two elements if it is a node's answer about its own sys, else false. */
bool sys_handle_answer(struct gen_server *gs, struct connection *via, struct cursor c);

#endif
