/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/call.h"

#include "term/term_write.h"

#include <stddef.h>
#include <stdlib.h>

struct call {
    struct calls *calls;
    struct watch watch; /* its number is the call's reference */
    uv_timer_t timer;
    call_done done;
    void *ctx;
};

static struct call *call_of(struct watch *watch)
{
    return (struct call *)((char *)watch - offsetof(struct call, watch));
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void call_free(struct call *call)
{
    call->calls->in_flight--;
    watch_stop(&call->watch);
    uv_close((uv_handle_t *)&call->timer, on_closed);
}

static void call_end(struct call *call, enum call_outcome outcome, struct slice answer)
{
    call_done done = call->done;
    void *ctx = call->ctx;

    call_free(call);
    done(ctx, outcome, answer);
}

void call_cancel(struct call *call)
{
    call_free(call);
}

static void on_down(struct watch *watch, struct slice reason)
{
    struct call *call = call_of(watch);
    (void)reason;

    call->calls->counters.failed++;
    call_end(call, CALL_FAILED, (struct slice){0});
}

static void on_timer(uv_timer_t *timer)
{
    struct call *call = timer->data;

    call->calls->counters.timed_out++;
    call_end(call, CALL_TIMED_OUT, (struct slice){0});
}

struct call *call_open(struct calls *calls, struct connection *via, const char *name,
                       uint64_t limit_ms, call_done done, void *ctx, struct buffer **request)
{
    struct node *node = calls->process.node;
    struct pid self = process_pid(&calls->process);
    struct call *call = calloc(1, sizeof *call);

    if (!call)
        return NULL;
    call->calls = calls;
    call->done = done;
    call->ctx = ctx;
    call->watch.on_down = on_down;
    if (watch_name(&call->watch, &calls->process, via, name) != 0) {
        free(call);
        return NULL;
    }
    uv_timer_init(node->loop, &call->timer);
    call->timer.data = call;
    calls->in_flight++;
    calls->counters.made++;
    uv_timer_start(&call->timer, on_timer, limit_ms, 0);
    struct buffer *b = connection_open_frame(via);
    control_put_reg_send(b, &self, name);
    term_put_tuple(b, 3);
    term_put_atom(b, "$gen_call");
    term_put_tuple(b, 2);
    term_put_pid(b, &self);
    term_put_reference(b, node->name_slice, node->creation, call->watch.number);
    *request = b;
    return call;
}

void call_send(struct call *call)
{
    connection_close_frame(call->watch.via);
}

/* {Reference, Answer} */
static void on_message(struct process *p, struct connection *via, struct slice message)
{
    struct calls *calls = (struct calls *)p;
    struct cursor c = cursor_of(message);
    struct slice reference, answer;

    if (!cursor_tuple(&c, 2) || !cursor_reference(&c, &reference) || !cursor_term(&c, &answer))
        return;
    struct watch *watch = watch_find(calls->process.node, reference);
    /* A node knows the references of all our monitors on it; only a call's may be answered. */
    if (!watch || watch->on_down != on_down || watch->via != via) {
        calls->counters.answers_too_late++;
        return;
    }
    calls->counters.answered++;
    call_end(call_of(watch), CALL_ANSWERED, answer);
}

static void on_exit_signal(struct process *p, struct slice reason)
{
    /* Nobody is given this pid to link to or to end; if somebody does, the calls in flight are
     * worth more. */
    (void)p;
    (void)reason;
}

static const struct process_behaviour behaviour = {
    .receive = on_message,
    .exit_signal = on_exit_signal,
};

int calls_start(struct calls *calls, struct node *node)
{
    *calls = (struct calls){0};
    return process_start(&calls->process, node, &behaviour, NULL);
}

void calls_stop(struct calls *calls)
{
    uint8_t room[TERM_ATOM_SIZE];

    process_exit(&calls->process, term_atom(room, "shutdown"));
}
