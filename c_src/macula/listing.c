/* SPDX-License-Identifier: Apache-2.0 */
/*
 * get_pending: a million sessions are not written in one go. A listing goes through them some at a
 * time, one turn of the loop after the other, and answers when it has reached the end or its limit.
 */
#include "macula/coordinator.h"
#include "macula/session_term.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <utlist.h>

#define LISTING_MAX_BYTES ((size_t)32 << 20)
#define LISTING_PER_TURN \
    200 /* sessions: some hundred microseconds, as none of them is in a cache */

struct listing {
    struct caller *caller;
    struct nat_cursor *cursor;
    struct buffer out;
    size_t head;
    uint32_t count;
    struct listing *prev, *next;
};

static void listing_free(struct coordinator *co, struct listing *l)
{
    DL_DELETE(co->listings, l);
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
        if (l->out.overflow || buffer_size(&l->out) > LISTING_MAX_BYTES) {
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
    reply_term(l->caller, buffer_slice(&l->out));
    listing_free(co, l);
}

void on_listing_turn(uv_idle_t *idle)
{
    struct coordinator *co = idle->data;
    struct listing *l = co->listings;

    if (!l) {
        uv_idle_stop(idle);
        return;
    }
    if (listing_step(co, l)) {
        /* To the end of the line: a short one need not wait for a long one. */
        DL_DELETE(co->listings, l);
        DL_APPEND(co->listings, l);
    } else {
        listing_finish(co, l);
    }
}

void listing_start(struct coordinator *co, const struct caller *caller)
{
    struct listing *l = calloc(1, sizeof *l);

    if (l)
        l->caller = caller_keep(caller);
    if (!l || !l->caller || nat_cursor_open(co->nat, &l->cursor) != 0) {
        if (l)
            caller_free(l->caller);
        free(l);
        reply_error(caller, "overloaded");
        return;
    }
    co->counters.pending_left_out = 0;
    buffer_init(&l->out);
    l->head = term_open_list(&l->out);
    DL_APPEND(co->listings, l);
    if (listing_step(co, l))
        uv_idle_start(&co->listing_turn, on_listing_turn);
    else
        listing_finish(co, l);
}
