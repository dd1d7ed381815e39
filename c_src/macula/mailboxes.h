/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mailboxes: Erlang processes that stand for a peer and get its messages, until they exit or
 * detach.
 */
#ifndef MACULA_MAILBOXES_H
#define MACULA_MAILBOXES_H

#include "distribution/watch.h"

#define MAILBOXES_MAX       100000
#define MAILBOXES_BYTES_MAX ((size_t)64 << 20)

struct mailbox;

struct mailboxes {
    struct node *node;
    struct process *owner; /* in whose name they are watched */
    struct mailbox *by_id;
    size_t bytes;
};

void mailboxes_init(struct mailboxes *all, struct process *owner);
void mailboxes_free(struct mailboxes *all);

/*
 * Makes `pid` the mailbox of a peer; one that was there before gets {detached, PeerId}. Returns 0,
 * -ENOBUFS if there are MAILBOXES_MAX, or would be more than MAILBOXES_BYTES_MAX, or -ENOMEM.
 */
int mailbox_attach(struct mailboxes *all, struct slice id, const struct pid *pid);
/* Takes it away again, if it is `pid`'s. */
void mailbox_detach(struct mailboxes *all, struct slice id, const struct pid *pid);
/* Who stands for the peer, or NULL. */
const struct pid *mailbox_find(struct mailboxes *all, struct slice id);
size_t mailboxes_count(const struct mailboxes *all);

#endif
