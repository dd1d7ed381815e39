/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/listings.h"

#include "macula/session_term.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <utlist.h>

#define LISTING_MAX_BYTES ((size_t)32 << 20)
/* Sessions: some hundred microseconds, as none of them is in a cache. */
#define LISTING_PER_TURN 200
/* Bytes of output that a node may have left when a listing for it begins. */
#define LISTING_MAX_UNREAD ((size_t)1 << 20)
#define LISTINGS_MAX       1000
/* Bytes of a caller that waits. OTP's tags are references, in a list or two. */
#define LISTING_CALLER_MAX 4096

struct listing {
    struct caller *caller;
    struct nat_cursor *cursor; /* NULL: waits in line */
    struct buffer out;
    size_t head;
    uint32_t count;
    struct listing *prev, *next;
};

static void listing_free(struct listings *all, struct listing *l)
{
    DL_DELETE(all->line, l);
    all->count--;
    nat_cursor_close(l->cursor);
    caller_free(l->caller);
    buffer_free(&l->out);
    free(l);
}

void listings_init(struct listings *all, struct node *node, struct nat_coordinator *nat)
{
    *all = (struct listings){.node = node, .nat = nat};
    uv_idle_init(node->loop, &all->turn);
    all->turn.data = all;
}

void listings_close(struct listings *all)
{
    uv_close((uv_handle_t *)&all->turn, NULL);
}

void listings_free(struct listings *all)
{
    while (all->line)
        listing_free(all, all->line);
}

/* Adds up to a turn's worth of sessions; false at the end. */
static bool listing_step(struct listings *all, struct listing *l)
{
    struct nat_session_view session;

    for (int i = 0; i < LISTING_PER_TURN; i++) {
        if (!nat_cursor_next(l->cursor, &session))
            return false;
        size_t before = buffer_size(&l->out);
        session_put(&l->out, &session);
        if (l->out.overflow)
            return false;
        if (buffer_size(&l->out) > LISTING_MAX_BYTES) {
            const uint64_t *live = nat_counters(all->nat)->live;
            uint64_t count = live[NAT_PENDING] + live[NAT_COORDINATING] + live[NAT_EXECUTING];
            buffer_truncate(&l->out, before);
            all->counters.get_pending_left_out = count > l->count ? count - l->count : 0;
            return false;
        }
        l->count++;
    }
    return true;
}

static void listing_finish(struct listings *all, struct listing *l)
{
    term_close_list(&l->out, l->head, l->count);
    if (l->out.overflow)
        reply_error(l->caller, "overloaded");
    else
        reply_term(l->caller, buffer_slice(&l->out));
    listing_free(all, l);
}

/* The first in line whose node reads what is sent to it. Those whose node has gone leave the line.
 */
static struct listing *next_in_line(struct listings *all)
{
    struct listing *l, *next;

    DL_FOREACH_SAFE (all->line, l, next) {
        const struct connection *via = connection_find(all->node, l->caller->pid.node);
        if (!via) {
            all->node->counters.messages_undeliverable++;
            listing_free(all, l);
        } else if (connection_pending(via) <= LISTING_MAX_UNREAD)
            return l;
    }
    return NULL;
}

/* The one in the making, which is at the head of the line, or the next; NULL if none may begin. */
static struct listing *current(struct listings *all)
{
    if (all->line && all->line->cursor)
        return all->line;
    struct listing *l = next_in_line(all);
    if (!l)
        return NULL;
    if (nat_cursor_open(all->nat, &l->cursor) != 0) {
        reply_error(l->caller, "overloaded");
        listing_free(all, l);
        return NULL;
    }
    l->head = term_open_list(&l->out);
    DL_DELETE(all->line, l);
    DL_PREPEND(all->line, l);
    all->counters.get_pending_left_out = 0;
    return l;
}

static void on_listing_turn(uv_idle_t *idle)
{
    struct listings *all = idle->data;
    struct listing *l = current(all);

    if (!l)
        uv_idle_stop(idle);
    else if (!listing_step(all, l))
        listing_finish(all, l);
}

void listings_go_on(struct listings *all)
{
    if (all->line && !uv_is_active((uv_handle_t *)&all->turn) && current(all))
        uv_idle_start(&all->turn, on_listing_turn);
}

void listing_start(struct listings *all, const struct caller *caller)
{
    bool may_wait = all->count < LISTINGS_MAX && caller_size(caller) <= LISTING_CALLER_MAX;
    struct listing *l = may_wait ? calloc(1, sizeof *l) : NULL;

    if (!l || !(l->caller = caller_keep(caller))) {
        free(l);
        reply_error(caller, "overloaded");
        return;
    }
    buffer_init(&l->out);
    DL_APPEND(all->line, l);
    all->count++;
    /* The usual case, a short list, is answered at once. */
    if (current(all) == l && !listing_step(all, l))
        listing_finish(all, l);
}
