/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sys:get_state, whose answer depends on who asks: `sys` of OTP 26.1 and later takes {ok, State},
 * an earlier one the bare state. The flags of a connection do not tell them apart, so the caller's
 * own node is asked first, in the same words: as its `kernel_refc` (a gen_server of every node,
 * with a map for its state) answers get_state, so its `sys` wants it. The caller waits meanwhile.
 */
#include "otp/gen_server.h"

#include "term/term_write.h"

#include <stdlib.h>
#include <utlist.h>

/* Who does not say in time is no OTP node, and gets the form of today's. */
#define ANSWER_LIMIT_MS 1000
/* So does who comes when so many wait. */
#define ASKERS_MAX 1000
/* The last word of our question's reference. A peer that answers unasked decides about itself. */
#define QUESTION 0

struct state_asker {
    struct caller *caller;
    struct state_asker *prev, *next;
};

static void reply_state(struct gen_server *gs, const struct caller *caller, enum sys_form form)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    if (form != SYS_FORM_BARE) {
        term_put_tuple(reply.out, 2);
        term_put_atom(reply.out, "ok");
    }
    gs->callbacks->put_state(gs, reply.out);
    reply_close(&reply);
}

static void asker_free(struct gen_server *gs, struct state_asker *asker)
{
    DL_DELETE(gs->state_askers, asker);
    gs->state_asker_count--;
    caller_free(asker->caller);
    free(asker);
}

void sys_state_stop(struct gen_server *gs)
{
    while (gs->state_askers)
        asker_free(gs, gs->state_askers);
    uv_close((uv_handle_t *)&gs->state_timer, NULL);
}

/* All that wait on a node that has said how it wants it. */
static void answer_askers(struct gen_server *gs, const struct connection *via)
{
    struct state_asker *asker, *next;

    DL_FOREACH_SAFE (gs->state_askers, asker, next) {
        if (!slice_is(asker->caller->pid.node, via->name))
            continue;
        reply_state(gs, asker->caller, via->sys_form);
        asker_free(gs, asker);
    }
}

static void on_limit(uv_timer_t *timer)
{
    struct gen_server *gs = timer->data;

    while (gs->state_askers) {
        struct state_asker *asker = gs->state_askers;
        struct connection *via = connection_find(gs->process.node, asker->caller->pid.node);
        if (via && via->sys_form == SYS_FORM_UNKNOWN)
            via->sys_form = SYS_FORM_OK;
        reply_state(gs, asker->caller, via ? via->sys_form : SYS_FORM_OK);
        asker_free(gs, asker);
    }
}

void sys_state_start(struct gen_server *gs)
{
    uv_timer_init(gs->process.node->loop, &gs->state_timer);
    gs->state_timer.data = gs;
}

static bool keep_asker(struct gen_server *gs, const struct caller *caller)
{
    struct state_asker *asker;

    if (gs->state_asker_count >= ASKERS_MAX || !(asker = calloc(1, sizeof *asker)))
        return false;
    asker->caller = caller_keep(caller);
    if (!asker->caller) {
        free(asker);
        return false;
    }
    if (!gs->state_askers)
        uv_timer_start(&gs->state_timer, on_limit, ANSWER_LIMIT_MS, 0);
    DL_APPEND(gs->state_askers, asker);
    gs->state_asker_count++;
    return true;
}

static void ask_peer(struct gen_server *gs, struct connection *via)
{
    struct node *node = gs->process.node;
    struct pid self = process_pid(&gs->process);
    struct buffer *b = connection_open_frame(via);

    control_put_reg_send(b, &self, "kernel_refc");
    term_put_tuple(b, 3);
    term_put_atom(b, "system");
    term_put_tuple(b, 2);
    term_put_pid(b, &self);
    term_put_reference(b, node->name_slice, node->creation, QUESTION);
    term_put_atom(b, "get_state");
    connection_close_frame(via);
}

void sys_handle_get_state(struct gen_server *gs, const struct caller *caller)
{
    struct connection *via = connection_find(gs->process.node, caller->pid.node);

    if (via && via->sys_form == SYS_FORM_UNKNOWN && keep_asker(gs, caller))
        ask_peer(gs, via);
    else
        reply_state(gs, caller, via ? via->sys_form : SYS_FORM_OK);
}

/* {Reference, {ok, State} | State} */
bool sys_handle_answer(struct gen_server *gs, struct connection *via, struct cursor c)
{
    struct node *node = gs->process.node;
    struct slice reference;
    uint64_t number;

    /* What waited while the process was suspended counts as no answer. */
    if (!node->sender || !cursor_reference(&c, &reference) ||
        !reference_number(reference, node->name_slice, node->creation, &number) ||
        number != QUESTION)
        return false;
    via->sys_form = cursor_tuple(&c, 2) && cursor_is_atom(&c, "ok") ? SYS_FORM_OK : SYS_FORM_BARE;
    answer_askers(gs, via);
    return true;
}
