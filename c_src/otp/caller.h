/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one who waits for an answer, by whatever way of asking: gen_server call, system message, rex,
 * or a spawned erpc worker.
 *
 * A caller read from a message is a view into that message. To answer later, keep a copy
 * (caller_keep) and free it after the answer. Answering never fails from where it is called: an
 * answer for a node that is not connected or a worker that has been killed is dropped and counted.
 */
#ifndef OTP_CALLER_H
#define OTP_CALLER_H

#include "distribution/process.h"

enum caller_kind {
    CALLER_GEN, /* {Tag, Reply} to `pid`, by alias where the tag holds one */
    CALLER_REX, /* {rex, Reply} to `pid` */
    /* The exit reason of process number `worker`. */
    CALLER_ERPC,      /* {Tag, return, Reply} */
    CALLER_ERPC_CAST, /* normal, whatever the reply is */
    CALLER_NOBODY,    /* a cast to rex: nobody waits */
};

struct caller {
    enum caller_kind kind;
    bool is_rpc;     /* a failure is answered as rpc's {badrpc, _} */
    bool is_foreign; /* `pid` is of another node than the connection that the call came by */
    struct node *node;
    struct pid pid;
    struct slice tag;  /* CALLER_GEN, CALLER_ERPC */
    struct pid called; /* CALLER_GEN: our process, in whose name the answer goes out */
    uint32_t worker;
};

/* An answer in the making. */
struct reply {
    const struct caller *caller;
    struct connection *via;
    struct buffer *out;
};

/*
 * Reads the {Pid, Tag} of a call to `called` that came by `via`; false if it is none. The tag may
 * be any term. The pid may be that of another process than the sender: OTP lets calls be handed on.
 * Such a call is answered as any other, as long as that costs the pid's node nothing.
 */
bool caller_read(struct caller *caller, const struct process *called, const struct connection *via,
                 struct cursor *c);
/* Whether the pid is of another node than the one that `via` is connected to. */
bool caller_is_foreign(const struct pid *pid, const struct connection *via);
/* A copy that outlives the message, NULL without memory. It takes caller_size() bytes. */
struct caller *caller_keep(const struct caller *caller);
size_t caller_size(const struct caller *caller);
/* NULL is no caller. */
void caller_free(struct caller *caller);

/*
 * Opens an answer: on true put one term into reply->out and close it. Nothing else may be sent in
 * between. Returns false if there is nobody to answer.
 */
bool reply_open(struct reply *reply, const struct caller *caller);
void reply_close(struct reply *reply);

/* A whole answer of one atom, of {error, Reason} with an atom, or of one term. */
void reply_atom(const struct caller *caller, const char *atom);
void reply_error(const struct caller *caller, const char *reason);
void reply_term(const struct caller *caller, struct slice term);

/*
 * The failures that a called function can end in, in the form that the way of calling wants: an
 * error (undef, function_clause) with the call that it was, or an exit with a reason.
 */
void reply_failure(const struct caller *caller, const char *error, struct slice module,
                   struct slice function, struct slice arguments);
void reply_exit(const struct caller *caller, struct slice reason);

#endif
