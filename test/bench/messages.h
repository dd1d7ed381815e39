/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmarks say to a coordinator and hear from it: peers and their profiles, requests
 * made from a template by patching a few bytes (so that the load costs less than what it measures),
 * and a quick reader for what comes back.
 *
 * The reader trusts the server: it is for benchmarks, and does not check what the node's own
 * parsers check.
 */
#ifndef BENCH_MESSAGES_H
#define BENCH_MESSAGES_H

#include "client.h"

#define COORDINATOR "macula_nat_coordinator"
#define PEER_ID_LEN 32 /* as long as the ids of macula nodes */

/* What kinds of NAT the peers are behind. */
enum nat_mix {
    NAT_MIX_NONE,      /* nobody's profile is known: every request is a hole punch */
    NAT_MIX_OPEN,      /* every peer is behind a full cone: every answer is `direct` */
    NAT_MIX_PUNCH,     /* every request is a hole punch */
    NAT_MIX_ALL,       /* all 27 kinds, evenly */
    NAT_MIX_ELSEWHERE, /* the server finds profiles by itself */
};

/* The id of a peer. */
void peer_id(uint8_t id[static PEER_ID_LEN], uint32_t peer);

/* Casts the profiles of the peers 0 to count - 1 to the process `cache`, and waits until it has
 * them. */
void profiles_put(struct client *c, const char *cache, enum nat_mix mix, uint32_t count);

/* How a call is made. */
enum call_form {
    CALL_PLAIN,     /* the request alone, with a reference as tag */
    CALL_MONITORED, /* as gen_server:call of OTP 24 and later: monitor, request with alias,
                       demonitor */
};

/* The frames of one request_connection from one process, ready but for the peers and the number of
 * the call. */
struct call_template {
    struct buffer bytes;
    size_t reference_at[3]; /* where the words of the references are */
    int references;
    size_t initiator_at, target_at;
};

/* `notify`: the caller is to be notified of what becomes of the session. */
void call_template_init(struct call_template *t, const struct client *c, const struct pid *from,
                        enum call_form form, bool notify);
void call_template_free(struct call_template *t);
/* `slot` (18 bits) and `turn` come back with the reply. */
void call_send(struct call_template *t, struct client *c, uint32_t slot, uint32_t turn,
               uint32_t initiator, uint32_t target);

/* Casts {report_result, SessionId, ReporterId, success}. */
void report_send(struct client *c, struct slice session_id, uint32_t peer);

/* A message from the server. */
struct incoming {
    struct pid to; /* not set where an alias was used */
    bool is_reply;
    uint32_t slot, turn;   /* of a reply */
    struct cursor content; /* the reply, or the message */
};

/* False for what is no message (monitors and the like). */
bool incoming_read(struct incoming *m, struct slice frame);

/* {ok, Strategy, SessionId}. */
bool incoming_session(struct cursor content, struct slice *strategy, struct slice *session_id);
/* Finds a key of the map at which the cursor stands and moves there. */
bool incoming_find(struct cursor *c, const char *key);

/*
 * Calls `name` with a request of `arity` elements: the atom `request` and, with arity 2, a peer's
 * id; arity 0 is the atom alone. The reply is the caller's business.
 */
void call_start(struct client *c, const struct pid *from, const char *name, int arity,
                const char *request, uint32_t peer);
/* The same, and waits for the reply; other messages that arrive meanwhile are dropped. Returns its
 * size in bytes. */
size_t call_and_wait(struct client *c, const struct pid *from, const char *name, int arity,
                     const char *request, uint32_t peer, struct cursor *reply);

#endif
