/* SPDX-License-Identifier: Apache-2.0 */
#include "punches.h"

#include "usage.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_PID 2 /* of the peers' processes */

/* What a slot waits for. */
enum {
    SEEN_REPLY = 1,
    SEEN_COORDINATE = 2, /* of the first peer; of the second, twice that */
    SEEN_BOTH = SEEN_REPLY | SEEN_COORDINATE | SEEN_COORDINATE << 1,
    SEEN_EXECUTING = 8,
};

void punches_init(struct punches *ps, struct client *client, uint32_t count, uint32_t first_peer,
                  bool waits)
{
    struct cursor reply;

    memset(ps, 0, sizeof *ps);
    ps->client = client;
    ps->count = count;
    ps->first_peer = first_peer;
    ps->waits = waits;
    ps->slots = calloc(count, sizeof *ps->slots);
    if (!ps->slots)
        client_fail("out of memory");
    for (uint32_t i = 0; i < 2 * count; i++) {
        struct pid pid = client_pid(client, FIRST_PID + i);
        call_and_wait(client, &pid, COORDINATOR, 2, "attach_peer", first_peer + i, &reply);
        if (!cursor_is_atom(&reply, "ok"))
            client_fail("a peer cannot be attached");
        if (i % 2 == 0)
            call_template_init(&ps->slots[i / 2].call, client, &pid, CALL_PLAIN, waits);
    }
}

void punches_free(struct punches *ps)
{
    for (uint32_t i = 0; i < ps->count; i++)
        call_template_free(&ps->slots[i].call);
    free(ps->slots);
}

static void begin(struct punches *ps, uint32_t i)
{
    struct punch_slot *slot = &ps->slots[i];
    uint32_t peer = ps->first_peer + 2 * i;

    slot->seen = 0;
    slot->turn++;
    slot->sent_at = clock_monotonic_ns();
    ps->in_flight++;
    call_send(&slot->call, ps->client, i, slot->turn, peer, peer + 1);
}

void punches_start(struct punches *ps)
{
    ps->stopping = false;
    for (uint32_t i = 0; i < ps->count; i++)
        begin(ps, i);
    client_flush(ps->client);
}

static void finish(struct punches *ps, uint32_t i)
{
    struct punch_slot *slot = &ps->slots[i];
    struct slice session_id = {slot->session_id, slot->session_id_len};

    for (uint32_t k = 0; k < 2; k++)
        report_send(ps->client, session_id, ps->first_peer + 2 * i + k);
    ps->finished++;
    ps->in_flight--;
    if (!ps->stopping)
        begin(ps, i);
}

static void note_seen(struct punches *ps, uint32_t i, unsigned what)
{
    struct punch_slot *slot = &ps->slots[i];
    bool had_both = (slot->seen & SEEN_BOTH) == SEEN_BOTH;

    slot->seen |= what;
    if ((slot->seen & SEEN_BOTH) != SEEN_BOTH)
        return;
    if (!had_both)
        histogram_add(&ps->times, clock_monotonic_ns() - slot->sent_at);
    if (!ps->waits || slot->seen & SEEN_EXECUTING)
        finish(ps, i);
}

static void take_reply(struct punches *ps, const struct incoming *m)
{
    struct slice strategy, session_id;

    if (m->slot >= ps->count || ps->slots[m->slot].turn != m->turn)
        return;
    struct punch_slot *slot = &ps->slots[m->slot];
    if (!incoming_session(m->content, &strategy, &session_id) ||
        !slice_is(strategy, "hole_punch") || session_id.len > sizeof slot->session_id) {
        /* Such a slot has no punch to go on with. */
        ps->refused++;
        ps->in_flight--;
        return;
    }
    memcpy(slot->session_id, session_id.data, session_id.len);
    slot->session_id_len = session_id.len;
    note_seen(ps, m->slot, SEEN_REPLY);
}

static void take_executing(struct punches *ps, uint32_t i)
{
    double late_ms = (double)clock_unix_ns() / 1e6 - (double)ps->slots[i].punch_time;

    if (ps->late.count == 0 || late_ms < ps->earliest_ms)
        ps->earliest_ms = late_ms;
    histogram_add(&ps->late, late_ms > 0 ? (uint64_t)(late_ms * 1e6) : 0);
    note_seen(ps, i, SEEN_EXECUTING);
}

void punches_take(struct punches *ps, const struct incoming *m)
{
    struct cursor c = m->content;
    struct slice skipped;
    uint32_t peer = m->to.id - FIRST_PID;
    int arity;

    if (m->is_reply) {
        take_reply(ps, m);
        return;
    }
    if (peer / 2 >= ps->count || !cursor_any_tuple(&c, &arity))
        return;
    if (cursor_is_atom(&c, "punch_coordinate")) {
        if (ps->waits &&
            (!incoming_find(&c, "punch_time") || !cursor_int(&c, &ps->slots[peer / 2].punch_time)))
            client_fail("a PUNCH_COORDINATE has no punch_time");
        note_seen(ps, peer / 2, SEEN_COORDINATE << peer % 2);
    } else if (ps->waits && cursor_is_atom(&c, "punch_session") && cursor_term(&c, &skipped) &&
               incoming_find(&c, "state") && cursor_is_atom(&c, "executing")) {
        take_executing(ps, peer / 2);
    }
}

void punches_reset(struct punches *ps)
{
    ps->finished = ps->refused = 0;
    histogram_clear(&ps->times);
    histogram_clear(&ps->late);
}

void punches_turn(struct punches *ps)
{
    struct incoming m;
    struct slice frame;

    clients_wait(ps->client, 1, -1);
    client_read(ps->client);
    while (client_next_frame(ps->client, &frame))
        if (incoming_read(&m, frame))
            punches_take(ps, &m);
    client_flush(ps->client);
}

void punches_run(struct punches *ps, uint64_t count, uint64_t until)
{
    uint64_t end = ps->finished + count;

    while (ps->finished < end && ps->in_flight > 0 && clock_monotonic_ns() < until)
        punches_turn(ps);
}

void punches_stop(struct punches *ps)
{
    struct pid self = client_pid(ps->client, 1);
    struct cursor reply;

    ps->stopping = true;
    while (ps->in_flight > 0)
        punches_turn(ps);
    call_and_wait(ps->client, &self, COORDINATOR, 0, "no_request", 0, &reply);
}
