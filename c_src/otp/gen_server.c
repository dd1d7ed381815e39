/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/gen_server.h"

#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <utlist.h>

/* Requests that had waited: a millisecond or so, then others get their turn. */
#define BACKLOG_PER_TURN 500

enum request_kind { REQUEST_CALL, REQUEST_CAST, REQUEST_INFO, REQUEST_SYSTEM };

/* Something that arrived while the server was suspended. */
struct deferred {
    enum request_kind kind;
    uint64_t sender; /* number of the connection that it came by; 0: it came by itself */
    struct caller *caller;
    struct slice term; /* malloc'ed */
    struct deferred *prev, *next;
};

static void handle(struct gen_server *gs, struct connection *via, enum request_kind kind,
                   const struct caller *caller, struct slice term)
{
    switch (kind) {
    case REQUEST_CALL:
        gs->messages_out++;
        gs->callbacks->call(gs, caller, term);
        break;
    case REQUEST_CAST:
        gs->callbacks->cast(gs, via, term);
        break;
    case REQUEST_INFO:
        gs->callbacks->info(gs, via, term);
        break;
    case REQUEST_SYSTEM:
        sys_handle_message(gs, caller, term);
        break;
    }
}

static size_t deferred_size(const struct caller *caller, struct slice term)
{
    return sizeof(struct deferred) + term.len + (caller ? caller_size(caller) : 0);
}

/* The next whose turn it is. Suspended, a server takes system messages and nothing else. */
static struct deferred *deferred_next(struct gen_server *gs)
{
    struct deferred *d = gs->deferred;

    while (d && gs->is_suspended && d->kind != REQUEST_SYSTEM)
        d = d->next;
    return d;
}

static void deferred_remove(struct gen_server *gs, struct deferred *d)
{
    DL_DELETE(gs->deferred, d);
    gs->deferred_bytes -= deferred_size(d->caller, d->term);
}

static void deferred_free(struct deferred *d)
{
    caller_free(d->caller);
    free((void *)d->term.data);
    free(d);
}

static struct deferred *deferred_new(const struct connection *via, enum request_kind kind,
                                     const struct caller *caller, struct slice term)
{
    struct deferred *d = calloc(1, sizeof *d);

    if (!d)
        return NULL;
    d->kind = kind;
    d->sender = via ? via->number : 0;
    d->term = (struct slice){slice_copy(term), term.len};
    d->caller = caller ? caller_keep(caller) : NULL;
    if (d->term.data && (!caller || d->caller))
        return d;
    free((void *)d->term.data);
    caller_free(d->caller);
    free(d);
    return NULL;
}

/* What waits of one connection. */
struct share {
    uint64_t sender;
    size_t bytes;
    UT_hash_handle hh;
};

/* The connection that has the most waiting; 0 if it cannot be told. */
static uint64_t largest_sender(const struct gen_server *gs)
{
    struct share *shares = NULL, *s, *next, *largest = NULL;
    const struct deferred *d;
    bool out_of_memory = false;

    DL_FOREACH (gs->deferred, d) {
        HASH_FIND(hh, shares, &d->sender, sizeof d->sender, s);
        if (!s && !out_of_memory && (s = calloc(1, sizeof *s)) != NULL) {
            s->sender = d->sender;
            HASH_ADD(hh, shares, sender, sizeof s->sender, s);
            if (!table_has(s->hh)) {
                free(s);
                s = NULL;
            }
        }
        out_of_memory = out_of_memory || !s;
        if (s)
            s->bytes += deferred_size(d->caller, d->term);
        if (s && (!largest || s->bytes > largest->bytes))
            largest = s;
    }
    uint64_t number = largest ? largest->sender : 0;
    HASH_ITER (hh, shares, s, next) {
        HASH_DEL(shares, s);
        free(s);
    }
    return number;
}

/* NULL: it is gone, or there never was one. */
static struct connection *find_sender(const struct gen_server *gs, uint64_t number)
{
    struct connection *c;

    DL_FOREACH (gs->process.node->connections, c)
        if (c->number == number)
            return c;
    return NULL;
}

/* The connection that has the most waiting is cut off, and what it sent is dropped: no other pays
 * for it. */
static void drop_largest_sender(struct gen_server *gs)
{
    uint64_t number = largest_sender(gs);
    struct connection *c = find_sender(gs, number);
    struct deferred *d, *next;

    DL_FOREACH_SAFE (gs->deferred, d, next) {
        if (d->sender != number)
            continue;
        deferred_remove(gs, d);
        deferred_free(d);
    }
    if (c)
        connection_doom(c, "too much waits for a suspended process");
}

static void defer(struct gen_server *gs, struct connection *via, enum request_kind kind,
                  const struct caller *caller, struct slice term)
{
    size_t size = deferred_size(caller, term);

    if (via && via->doomed)
        return;
    while (gs->deferred && gs->deferred_bytes + size > SUSPENDED_MAX)
        drop_largest_sender(gs);
    if (via && via->doomed)
        return;
    struct deferred *d = deferred_new(via, kind, caller, term);
    if (!d) {
        if (via)
            connection_doom(via, "no memory for what waits for a suspended process");
        return;
    }
    gs->deferred_bytes += size;
    DL_APPEND(gs->deferred, d);
}

static void receive(struct gen_server *gs, struct connection *via, enum request_kind kind,
                    const struct caller *caller, struct slice term)
{
    gs->messages_in++;
    if (gs->is_suspended || gs->deferred)
        defer(gs, via, kind, caller, term);
    else
        handle(gs, via, kind, caller, term);
}

/* At work, a server takes them in order with all others. */
static void receive_system(struct gen_server *gs, struct connection *via,
                           const struct caller *caller, struct slice request)
{
    if (!gs->is_suspended && gs->deferred)
        defer(gs, via, REQUEST_SYSTEM, caller, request);
    else
        handle(gs, via, REQUEST_SYSTEM, caller, request);
}

void gen_server_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    receive(gs, gs->process.node->sender, REQUEST_CALL, caller, request);
}

void gen_server_cast(struct gen_server *gs, struct slice request)
{
    receive(gs, gs->process.node->sender, REQUEST_CAST, NULL, request);
}

static void note_caught_up(struct gen_server *gs)
{
    if (!gs->is_suspended && !gs->deferred && process_is_alive(&gs->process) &&
        gs->callbacks->caught_up)
        gs->callbacks->caught_up(gs);
}

/* Hands on some of what had waited. That may suspend the server again, or end it. */
static void on_backlog(uv_idle_t *idle)
{
    struct gen_server *gs = idle->data;
    struct deferred *d;

    for (int i = 0; i < BACKLOG_PER_TURN && (d = deferred_next(gs)) != NULL; i++) {
        deferred_remove(gs, d);
        handle(gs, find_sender(gs, d->sender), d->kind, d->caller, d->term);
        deferred_free(d);
    }
    if (deferred_next(gs))
        return;
    uv_idle_stop(idle);
    note_caught_up(gs);
}

void gen_server_suspend(struct gen_server *gs, bool suspended)
{
    if (gs->is_suspended == suspended)
        return;
    gs->is_suspended = suspended;
    if (gs->callbacks->suspended)
        gs->callbacks->suspended(gs, suspended);
    if (!suspended && process_is_alive(&gs->process))
        uv_idle_start(&gs->backlog, on_backlog);
    note_caught_up(gs);
}

static void on_message(struct process *p, struct connection *via, struct slice message)
{
    struct gen_server *gs = (struct gen_server *)p;
    struct cursor c = cursor_of(message);
    struct caller caller;
    struct slice request;
    int arity;

    if (cursor_any_tuple(&c, &arity)) {
        if (arity == 3 && cursor_is_atom(&c, "$gen_call") && caller_read(&caller, p, via, &c) &&
            cursor_term(&c, &request)) {
            receive(gs, via, REQUEST_CALL, &caller, request);
            return;
        }
        if (arity == 2 && cursor_is_atom(&c, "$gen_cast") && cursor_term(&c, &request)) {
            receive(gs, via, REQUEST_CAST, NULL, request);
            return;
        }
        if (arity == 3 && cursor_is_atom(&c, "system") && caller_read(&caller, p, via, &c) &&
            cursor_term(&c, &request)) {
            receive_system(gs, via, &caller, request);
            return;
        }
        if (arity == 2 && sys_handle_answer(gs, via, c))
            return;
    }
    receive(gs, via, REQUEST_INFO, NULL, message);
}

void gen_server_stop_with(struct gen_server *gs, struct slice reason)
{
    if (!process_is_alive(&gs->process))
        return;
    while (gs->deferred) {
        struct deferred *d = gs->deferred;
        deferred_remove(gs, d);
        if (d->caller)
            reply_exit(d->caller, reason);
        deferred_free(d);
    }
    uv_close((uv_handle_t *)&gs->backlog, NULL);
    sys_state_stop(gs);
    process_exit(&gs->process, reason);
    if (gs->terminated)
        gs->terminated(gs->terminated_ctx, reason);
}

void gen_server_stop(struct gen_server *gs, const char *reason)
{
    uint8_t room[TERM_ATOM_SIZE];

    gen_server_stop_with(gs, term_atom(room, reason));
}

static void on_exit_signal(struct process *p, struct slice reason)
{
    struct gen_server *gs = (struct gen_server *)p;

    if (!gs->traps_exits)
        gen_server_stop_with(gs, reason);
}

static const struct process_behaviour gen_server_behaviour = {
    .receive = on_message,
    .exit_signal = on_exit_signal,
};

int gen_server_start(struct gen_server *gs, struct node *node, const char *name,
                     const struct gen_server_callbacks *callbacks)
{
    memset(gs, 0, sizeof *gs);
    int error = process_start(&gs->process, node, &gen_server_behaviour, name);
    if (error)
        return error;
    uv_idle_init(node->loop, &gs->backlog);
    gs->backlog.data = gs;
    sys_state_start(gs);
    gs->callbacks = callbacks;
    return 0;
}
