/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages of the distribution protocol: from a frame to a struct, and into a frame.
 *
 * A parsed control is a view into its frame. The forms with a trace token are read as those
 * without; the token is dropped. Source: "Distribution Protocol", Protocol between Connected Nodes,
 * of the ERTS documentation.
 */
#ifndef DISTRIBUTION_CONTROL_H
#define DISTRIBUTION_CONTROL_H

#include "base/buffer.h"
#include "term/cursor.h"

#define CONTROL_PASS_THROUGH 112 /* the first byte of every frame but a tick */

enum control_op {
    CONTROL_LINK = 1,
    CONTROL_SEND = 2,
    CONTROL_EXIT = 3,
    CONTROL_UNLINK = 4,
    CONTROL_NODE_LINK = 5,
    CONTROL_REG_SEND = 6,
    CONTROL_GROUP_LEADER = 7,
    CONTROL_EXIT2 = 8,
    CONTROL_MONITOR = 19,
    CONTROL_DEMONITOR = 20,
    CONTROL_MONITOR_EXIT = 21,
    CONTROL_SPAWN_REQUEST = 29,
    CONTROL_SPAWN_REPLY = 31,
    CONTROL_ALIAS_SEND = 33,
    CONTROL_UNLINK_ID = 35,
    CONTROL_UNLINK_ID_ACK = 36,
};

/* One end of a control message: a process by pid, or by registered name, which may be empty. */
struct control_end {
    struct pid pid;
    struct slice name;
};

static inline bool control_end_is_name(const struct control_end *end)
{
    return end->name.data;
}

struct control {
    enum control_op op;
    struct control_end from;
    struct control_end to;
    struct slice reference; /* monitor reference, spawn request id or alias, as a term */
    struct slice id;        /* unlink id, as a term */
    struct slice reason;    /* exit reason, or the result of a spawn reply, as a term */
    struct slice module;    /* spawn request: what is to be run */
    struct slice function;
    int64_t arity;
    struct slice options;
    struct slice message; /* what follows the control tuple, as a term; empty if nothing does */
};

/*
 * Reads a frame (pass-through byte, control tuple, message), all of which must be there and nothing
 * else. Returns 0; -EBADMSG for what is no such frame; -E2BIG for terms too deep; -ENOTSUP for a
 * well-formed control message that a node with our flags is not sent; -ENOMEM as term_check.
 */
int control_parse(struct control *control, struct slice frame);

/*
 * Write a control tuple, with version byte, at the end of `b`; those that carry a message also
 * write the version byte that opens it, and the caller puts the message's one term behind it.
 */
void control_put_send(struct buffer *b, const struct pid *to);
void control_put_reg_send(struct buffer *b, const struct pid *from, const char *name);
void control_put_alias_send(struct buffer *b, const struct pid *from, struct slice alias);
void control_put_exit(struct buffer *b, const struct pid *from, const struct pid *to,
                      struct slice reason);
void control_put_monitor(struct buffer *b, const struct pid *from, const struct control_end *to,
                         struct slice reference);
void control_put_demonitor(struct buffer *b, const struct pid *from, const struct control_end *to,
                           struct slice reference);
/* The head of MONITOR_P_EXIT: the caller puts the reason, which is part of the control tuple. */
void control_put_monitor_exit(struct buffer *b, const struct control_end *from,
                              const struct pid *to, struct slice reference);
/* `pid` or, where it is NULL, the error atom. `monitored` tells the peer that its monitor is in
 * place. */
void control_put_spawn_reply(struct buffer *b, struct slice request_id, const struct pid *to,
                             bool monitored, const struct pid *pid, const char *error);
void control_put_unlink_ack(struct buffer *b, struct slice id, const struct pid *from,
                            const struct pid *to);

#endif
