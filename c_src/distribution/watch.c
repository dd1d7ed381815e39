/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/watch.h"

#include "distribution/dist_flags.h"
#include "term/term_write.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

static struct control_end target_of(const struct watch *watch)
{
    struct control_end end = {0};

    if (watch->pid)
        end.pid = *watch->pid;
    else
        end.name = slice_of(watch->name);
    return end;
}

typedef void (*put_fn)(struct buffer *, const struct pid *, const struct control_end *,
                       struct slice);

static void send_signal(struct watch *watch, put_fn put)
{
    struct node *node = watch->owner->node;
    struct pid self = process_pid(watch->owner);
    uint64_t needed = watch->pid ? DIST_FLAG_DIST_MONITOR : DIST_FLAG_DIST_MONITOR_NAME;

    /* A node that does not know monitors (jinterface) would close the connection: what is watched
     * there is gone with it. */
    if (!(watch->via->flags & needed))
        return;
    struct control_end target = target_of(watch);
    struct buffer reference;

    buffer_init(&reference);
    term_put_reference(&reference, node->name_slice, node->creation, watch->number);
    struct buffer *b = connection_open_frame(watch->via);
    put(b, &self, &target, buffer_slice(&reference));
    b->overflow |= reference.overflow;
    connection_close_frame(watch->via);
    buffer_free(&reference);
}

static int turn_on(struct watch *watch, struct process *owner, struct connection *via)
{
    struct watch_table *table = &owner->node->watches;

    watch->owner = owner;
    watch->via = via;
    watch->number = ++table->last_number;
    HASH_ADD(hh, table->by_number, number, sizeof watch->number, watch);
    if (!table_has(watch->hh)) {
        watch->number = 0;
        return -ENOMEM;
    }
    DL_APPEND(via->watches, watch);
    send_signal(watch, control_put_monitor);
    return 0;
}

static void turn_off(struct watch *watch)
{
    HASH_DEL(watch->owner->node->watches.by_number, watch);
    DL_DELETE(watch->via->watches, watch);
    watch->number = 0;
    free(watch->pid);
    watch->pid = NULL;
}

int watch_pid(struct watch *watch, struct process *owner, const struct pid *pid)
{
    struct connection *via = connection_find(owner->node, pid->node);

    if (!via)
        return -ENOTCONN;
    watch->pid = pid_copy(pid);
    if (!watch->pid)
        return -ENOMEM;
    int error = turn_on(watch, owner, via);
    if (error) {
        free(watch->pid);
        watch->pid = NULL;
    }
    return error;
}

int watch_name(struct watch *watch, struct process *owner, struct connection *via, const char *name)
{
    watch->name = name;
    return turn_on(watch, owner, via);
}

void watch_stop(struct watch *watch)
{
    if (!watch_is_on(watch))
        return;
    if (watch->via->state == CONNECTION_UP)
        send_signal(watch, control_put_demonitor);
    turn_off(watch);
}

struct watch *watch_find(struct node *node, struct slice reference)
{
    struct watch *watch = NULL;
    uint64_t number;

    if (reference_number(reference, node->name_slice, node->creation, &number))
        HASH_FIND(hh, node->watches.by_number, &number, sizeof number, watch);
    return watch;
}

void watch_handle_exit(struct connection *c, const struct control *control)
{
    struct watch *watch = watch_find(c->node, control->reference);

    if (!watch || watch->via != c)
        return;
    turn_off(watch);
    watch->on_down(watch, control->reason);
}

void watch_forget_connection(struct connection *c)
{
    uint8_t room[TERM_ATOM_SIZE];
    struct slice reason = term_atom(room, "noconnection");

    /* A callback may stop other watches: always take the first of those that are left. */
    while (c->watches) {
        struct watch *watch = c->watches;
        turn_off(watch);
        watch->on_down(watch, reason);
    }
}
