/* SPDX-License-Identifier: Apache-2.0 */
/*
 * get_pending: a million sessions are not written in one go. A listing goes through them some at a
 * time, one turn of the loop after the other, and answers when it has reached the end or its limit.
 *
 * One is made at a time, as all are equally long, and as each may need its 32 MiB. The others wait
 * in line, without those whose node has not yet taken what was sent to it: a node that asks again
 * and again and reads nothing must not fill the memory, nor its own output up to the limit.
 */
#include "macula/coordinator.h"
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

static void listing_free(struct coordinator *co, struct listing *l)
{
    DL_DELETE(co->listings, l);
    co->listing_count--;
    nat_cursor_close(l->cursor);
    caller_free(l->caller);
    buffer_free(&l->out);
    free(l);
}

void listings_free(struct coordinator *co)
{
    while (co->listings)
        listing_free(co, co->listings);
}

/* Adds up to a turn's worth of sessions; false at the end. */
static bool listing_step(struct coordinator *co, struct listing *l)
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
            const uint64_t *live = nat_counters(co->nat)->live;
            uint64_t all = live[NAT_PENDING] + live[NAT_COORDINATING] + live[NAT_EXECUTING];
            buffer_truncate(&l->out, before);
            co->counters.pending_left_out = all > l->count ? all - l->count : 0;
            return false;
        }
        l->count++;
    }
    return true;
}

static void listing_finish(struct coordinator *co, struct listing *l)
{
    term_close_list(&l->out, l->head, l->count);
    if (l->out.overflow)
        reply_error(l->caller, "overloaded");
    else
        reply_term(l->caller, buffer_slice(&l->out));
    listing_free(co, l);
}

/* The first in line whose node takes what is sent to it; who has gone leaves the line. */
static struct listing *next_in_line(struct coordinator *co)
{
    struct listing *l, *next;

    DL_FOREACH_SAFE (co->listings, l, next) {
        const struct connection *via = node_find(co->node, l->caller->pid.node);
        if (!via) {
            co->node->counters.messages_undeliverable++;
            listing_free(co, l);
        } else if (connection_pending(via) <= LISTING_MAX_UNREAD)
            return l;
    }
    return NULL;
}

/* The one in the making, which is at the head of the line, or the next; NULL if none may begin. */
static struct listing *current(struct coordinator *co)
{
    if (co->listings && co->listings->cursor)
        return co->listings;
    struct listing *l = next_in_line(co);
    if (!l)
        return NULL;
    if (nat_cursor_open(co->nat, &l->cursor) != 0) {
        reply_error(l->caller, "overloaded");
        listing_free(co, l);
        return NULL;
    }
    l->head = term_open_list(&l->out);
    DL_DELETE(co->listings, l);
    DL_PREPEND(co->listings, l);
    co->counters.pending_left_out = 0;
    return l;
}

static void on_listing_turn(uv_idle_t *idle)
{
    struct coordinator *co = idle->data;
    struct listing *l = current(co);

    if (!l)
        uv_idle_stop(idle);
    else if (!listing_step(co, l))
        listing_finish(co, l);
}

void listings_go_on(struct coordinator *co)
{
    if (co->listings && !uv_is_active((uv_handle_t *)&co->listing_turn) && current(co))
        uv_idle_start(&co->listing_turn, on_listing_turn);
}

void listing_start(struct coordinator *co, const struct caller *caller)
{
    bool may_wait = co->listing_count < LISTINGS_MAX && caller_size(caller) <= LISTING_CALLER_MAX;
    struct listing *l = may_wait ? calloc(1, sizeof *l) : NULL;

    if (!l || !(l->caller = caller_keep(caller))) {
        free(l);
        reply_error(caller, "overloaded");
        return;
    }
    buffer_init(&l->out);
    DL_APPEND(co->listings, l);
    co->listing_count++;
    /* The usual case, a short list, is answered at once. */
    if (current(co) == l && !listing_step(co, l))
        listing_finish(co, l);
}
