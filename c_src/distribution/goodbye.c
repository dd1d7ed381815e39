/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/goodbye.h"

#include "base/log.h"
#include "distribution/input.h"

#include <utlist.h>

#define LIMIT_MS  2000 /* for all of it */
#define LISTEN_MS 500  /* to a peer that never falls silent */
#define LOOK_MS   10   /* between looks at what is left */

static void close_our_side(struct connection *c)
{
    if (transport_shut_down(c->transport) != 0)
        connection_close(c, LOG_DEBUG, NULL);
    else
        input_ignore(c);
}

/* It has said nothing since the last look, and all that we have to say is on its way. */
static bool is_done(struct connection *c, uint64_t passed_ms)
{
    bool was_quiet = c->goodbye_turn == c->input.read_turn && !c->input.has_frames;

    c->goodbye_turn = c->input.read_turn;
    return connection_pending(c) == 0 && (was_quiet || passed_ms >= LISTEN_MS);
}

static void on_look(uv_timer_t *timer)
{
    struct goodbye *goodbye = timer->data;
    uint64_t passed_ms = uv_now(timer->loop) - goodbye->started_at;
    struct connection *c, *next;

    DL_FOREACH_SAFE (goodbye->node->connections, c, next) {
        if (c->state != CONNECTION_UP || passed_ms >= LIMIT_MS)
            connection_close(c, LOG_DEBUG, NULL);
        else if (!c->input.is_ignored && is_done(c, passed_ms))
            close_our_side(c);
    }
    if (goodbye->node->connections)
        return;
    uv_close((uv_handle_t *)timer, NULL);
    goodbye->on_done(goodbye->ctx);
}

void goodbye_init(struct goodbye *goodbye, struct node *node)
{
    goodbye->node = node;
    uv_timer_init(node->loop, &goodbye->timer);
    goodbye->timer.data = goodbye;
}

void goodbye_start(struct goodbye *goodbye, void (*on_done)(void *ctx), void *ctx)
{
    goodbye->started_at = uv_now(goodbye->node->loop);
    goodbye->on_done = on_done;
    goodbye->ctx = ctx;
    uv_timer_start(&goodbye->timer, on_look, 0, LOOK_MS);
}
