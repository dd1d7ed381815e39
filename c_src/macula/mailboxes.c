/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/mailboxes.h"

#include "term/term_write.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct mailbox {
    struct mailboxes *all;
    struct watch watch;
    struct pid *pid;
    UT_hash_handle hh;
    size_t size;
    size_t id_len;
    uint8_t id[];
};

void mailboxes_init(struct mailboxes *all, struct process *owner)
{
    *all = (struct mailboxes){.node = owner->node, .owner = owner};
}

static struct mailbox *find(struct mailboxes *all, struct slice id)
{
    struct mailbox *m;

    HASH_FIND(hh, all->by_id, id.data, id.len, m);
    return m;
}

static void mailbox_remove(struct mailbox *m)
{
    watch_stop(&m->watch);
    HASH_DEL(m->all->by_id, m);
    m->all->bytes -= m->size;
    free(m->pid);
    free(m);
}

void mailboxes_free(struct mailboxes *all)
{
    while (all->by_id)
        mailbox_remove(all->by_id);
}

static void on_down(struct watch *watch, struct slice reason)
{
    struct mailbox *m = (struct mailbox *)((char *)watch - offsetof(struct mailbox, watch));
    (void)reason;

    mailbox_remove(m);
}

static void tell_replaced(struct mailbox *m)
{
    struct connection *via;
    struct buffer *b = connection_open_send(m->all->node, m->pid, &via);

    if (!b)
        return;
    term_put_tuple(b, 2);
    term_put_atom(b, "detached");
    term_put_binary(b, (struct slice){m->id, m->id_len});
    connection_close_frame(via);
}

int mailbox_attach(struct mailboxes *all, struct slice id, const struct pid *pid)
{
    struct mailbox *old = find(all, id);

    if (old && pid_equal(old->pid, pid))
        return 0;
    size_t size = sizeof(struct mailbox) + id.len + sizeof *pid + pid->node.len;
    if ((!old && mailboxes_count(all) >= MAILBOXES_MAX) || all->bytes + size > MAILBOXES_BYTES_MAX)
        return -ENOBUFS;
    struct mailbox *m = calloc(1, sizeof *m + id.len);
    if (!m || !(m->pid = pid_copy(pid))) {
        free(m);
        return -ENOMEM;
    }
    m->all = all;
    m->size = size;
    m->watch.on_down = on_down;
    m->id_len = id.len;
    memcpy(m->id, id.data, id.len);
    int error = watch_pid(&m->watch, all->owner, pid);
    if (error) {
        free(m->pid);
        free(m);
        return error;
    }
    HASH_ADD(hh, all->by_id, id, m->id_len, m);
    if (!table_has(m->hh)) {
        watch_stop(&m->watch);
        free(m->pid);
        free(m);
        return -ENOMEM;
    }
    /* The old one goes when the new one is there for sure. */
    if (old) {
        tell_replaced(old);
        mailbox_remove(old);
    }
    all->bytes += size;
    return 0;
}

void mailbox_detach(struct mailboxes *all, struct slice id, const struct pid *pid)
{
    struct mailbox *m = find(all, id);

    if (m && pid_equal(m->pid, pid))
        mailbox_remove(m);
}

const struct pid *mailbox_find(struct mailboxes *all, struct slice id)
{
    struct mailbox *m = find(all, id);

    return m ? m->pid : NULL;
}

size_t mailboxes_count(const struct mailboxes *all)
{
    return HASH_COUNT(all->by_id);
}
