/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/ask.h"

#include <stdlib.h>
#include <string.h>

struct ask {
    struct services *services;
    struct calls *calls;
    const struct ask_kind *kind;
    void *ctx;
    struct call *call;
    struct connection *via;
    struct service_tries tries;
    uint64_t deadline;
    uv_timer_t failed; /* a call that failed in the making is told of later */
    size_t caller_len;
    char caller[];
};

static void next_node(struct ask *ask);

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

static void next_node(struct ask *ask)
{
    struct service_tries rest;
    struct buffer *request;
    uint64_t now = uv_now(ask->services->node->loop);
    struct slice caller = {(const uint8_t *)ask->caller, ask->caller_len};

    ask->via = NULL;
    if (now < ask->deadline)
        ask->via = services_choose(ask->services, ask->kind->service, caller, &ask->tries);
    if (!ask->via) {
        uv_timer_start(&ask->failed, on_failed, 0, 0);
        return;
    }
    uint64_t limit = ask->deadline - now;
    rest = ask->tries;
    if (services_choose(ask->services, ask->kind->service, caller, &rest))
        limit = limit / 2 + 1;
    ask->call = call_open(ask->calls, ask->via, service_name(ask->kind->service), limit,
                          on_call_done, ask, &request);
    if (!ask->call) {
        uv_timer_start(&ask->failed, on_failed, 0, 0);
        return;
    }
    if (ask->kind->build(ask->ctx, request) != 0) {
        connection_drop_frame(ask->via);
        call_cancel(ask->call);
        ask->call = NULL;
        uv_timer_start(&ask->failed, on_failed, 0, 0);
        return;
    }
    services_note_call(ask->services, ask->via);
    call_send(ask->call);
}

struct ask *ask_start(struct services *services, struct calls *calls, const struct ask_kind *kind,
                      struct slice caller, uint64_t limit_ms, void *ctx)
{
    struct service_tries none = {.count = 0};

    if (!services_choose(services, kind->service, caller, &none))
        return NULL;
    struct ask *ask = calloc(1, sizeof *ask + caller.len);
    if (!ask)
        return NULL;
    ask->services = services;
    ask->calls = calls;
    ask->kind = kind;
    ask->ctx = ctx;
    ask->deadline = uv_now(services->node->loop) + limit_ms;
    ask->caller_len = caller.len;
    if (caller.len)
        memcpy(ask->caller, caller.data, caller.len);
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
