/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/ask.h"

#include <stdlib.h>

struct ask {
    struct services *services;
    struct calls *calls;
    const struct ask_kind *kind;
    void *ctx;
    struct call *call;
    struct connection *via;
    struct service_tries tries;
    uint64_t deadline;
    uv_timer_t failed; /* reports later a call that could not be made */
    uint32_t caller;
};

static void next_node(struct ask *ask);
static void call_node(struct ask *ask, uint64_t limit);

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void ask_free(struct ask *ask)
{
    uv_close((uv_handle_t *)&ask->failed, on_closed);
}

static void finish(struct ask *ask, bool answered, struct slice answer)
{
    void (*done)(void *, bool, struct slice) = ask->kind->done;
    void *ctx = ask->ctx;

    ask_free(ask);
    done(ctx, answered, answer);
}

static uint64_t time_left(const struct ask *ask)
{
    uint64_t now = uv_now(ask->services->node->loop);

    return now < ask->deadline ? ask->deadline - now : 0;
}

/* What the node says that has been asked is the answer if the caller's cannot be asked. */
static void ask_caller(struct ask *ask, struct slice answer)
{
    struct connection *via =
        services_choose_caller(ask->services, ask->kind->service, ask->caller, &ask->tries);

    if (!via || time_left(ask) == 0) {
        finish(ask, true, answer);
        return;
    }
    ask->via = via;
    call_node(ask, time_left(ask));
}

static void on_call_done(void *ctx, enum call_outcome outcome, struct slice answer)
{
    struct ask *ask = ctx;

    ask->call = NULL;
    services_note_call_end(ask->services, ask->via);
    if (outcome == CALL_ANSWERED) {
        enum ask_verdict verdict = ask->kind->judge(answer);
        if (verdict == ASK_ACCEPT) {
            finish(ask, true, answer);
            return;
        }
        if (verdict == ASK_CALLER) {
            ask_caller(ask, answer);
            return;
        }
        if (verdict == ASK_MISSING) {
            /* It will not be chosen again, so it need not count as a try: that many nodes without
             * the module must not hide the one that has it. */
            services_note_missing(ask->services, ask->via, ask->kind->service);
            ask->tries.count--;
        }
    }
    next_node(ask);
}

static void on_failed(uv_timer_t *timer)
{
    finish(timer->data, false, (struct slice){0});
}

static void fail_later(struct ask *ask)
{
    uv_timer_start(&ask->failed, on_failed, 0, 0);
}

static void call_node(struct ask *ask, uint64_t limit)
{
    struct buffer *request;

    ask->call = call_open(ask->calls, ask->via, service_name(ask->kind->service), limit,
                          on_call_done, ask, &request);
    if (!ask->call) {
        fail_later(ask);
        return;
    }
    if (ask->kind->build(ask->ctx, request) != 0) {
        connection_drop_frame(ask->via);
        call_cancel(ask->call);
        ask->call = NULL;
        fail_later(ask);
        return;
    }
    services_note_call(ask->services, ask->via);
    call_send(ask->call);
}

static struct connection *choose(const struct ask *ask, struct service_tries *tries)
{
    return tries->count < ask->kind->max_nodes
               ? services_choose(ask->services, ask->kind->service, ask->caller, tries)
               : NULL;
}

static void next_node(struct ask *ask)
{
    uint64_t limit = time_left(ask);

    ask->via = limit > 0 ? choose(ask, &ask->tries) : NULL;
    if (!ask->via) {
        fail_later(ask);
        return;
    }
    struct service_tries rest = ask->tries;
    call_node(ask, choose(ask, &rest) ? limit / 2 + 1 : limit);
}

struct ask *ask_start(struct services *services, struct calls *calls, const struct ask_kind *kind,
                      uint32_t caller, uint64_t limit_ms, void *ctx)
{
    struct service_tries none = {.count = 0};

    if (!services_choose(services, kind->service, caller, &none))
        return NULL;
    struct ask *ask = calloc(1, sizeof *ask);
    if (!ask)
        return NULL;
    ask->services = services;
    ask->calls = calls;
    ask->kind = kind;
    ask->ctx = ctx;
    ask->deadline = uv_now(services->node->loop) + limit_ms;
    ask->caller = caller;
    uv_timer_init(services->node->loop, &ask->failed);
    ask->failed.data = ask;
    next_node(ask);
    return ask;
}

void ask_cancel(struct ask *ask)
{
    if (ask->call) {
        services_note_call_end(ask->services, ask->via);
        call_cancel(ask->call);
    }
    ask_free(ask);
}
