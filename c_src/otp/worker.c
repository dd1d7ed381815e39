/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/worker.h"

#include "term/term_write.h"

#include <stdlib.h>

struct worker {
    struct process process; /* first: the table finds the worker through it */
    bool is_cast;
};

/* The reason in the making, reused from one worker to the next. */
static struct buffer result;

static void worker_exit(struct process *p, struct slice reason)
{
    process_exit(p, reason);
    free((struct worker *)p);
}

static void on_message(struct process *p, struct connection *via, struct slice message)
{
    (void)p;
    (void)via;
    (void)message;
}

static const struct process_behaviour worker_behaviour = {
    .receive = on_message,
    .exit_signal = worker_exit,
};

static struct process *find(struct node *node, uint32_t number)
{
    struct process *p;

    HASH_FIND(hh, node->processes.by_number, &number, sizeof number, p);
    return p && p->behaviour == &worker_behaviour ? p : NULL;
}

uint32_t worker_start(struct node *node, const struct spawn_request *request, bool monitored,
                      bool is_cast)
{
    struct worker *w = malloc(sizeof *w);

    if (!w)
        return 0;
    if (process_start(&w->process, node, &worker_behaviour, NULL) != 0) {
        free(w);
        return 0;
    }
    w->is_cast = is_cast;
    struct pid pid = process_pid(&w->process);
    struct buffer *b = connection_open_frame(request->via);
    control_put_spawn_reply(b, request->id, &request->from, monitored, &pid, NULL);
    uint32_t number = w->process.number;
    if (monitored)
        process_add_monitor(request->via, &w->process, &request->from, request->id);
    connection_close_frame(request->via);
    return number;
}

struct buffer *worker_open_result(struct node *node, uint32_t number)
{
    if (!find(node, number))
        return NULL;
    buffer_reset(&result, READ_SIZE);
    return &result;
}

/*
 * erpc:execute_cast/3 ends in another way than execute_call/4: {_, return, _} is normal, {_, exit,
 * Reason} that reason, and {_, error, Error, Stack} an exception (whose own stack is left empty).
 */
static void put_cast_reason(struct buffer *b, struct slice answer)
{
    struct cursor c = cursor_of(answer);
    struct slice tag;
    int arity;

    if (!cursor_any_tuple(&c, &arity) || !cursor_term(&c, &tag) || cursor_is_atom(&c, "return")) {
        term_put_atom(b, "normal");
        return;
    }
    bool is_error = cursor_is_atom(&c, "error");
    if (is_error) {
        term_put_tuple(b, 2);
        term_put_tuple(b, 2);
        term_put_atom(b, "exception");
        term_put_tuple(b, 2);
    } else {
        cursor_is_atom(&c, "exit");
    }
    /* The last elements, as they stand there. */
    term_put_raw(b, (struct slice){answer.data + c.at, answer.len - (size_t)c.at});
    if (is_error)
        term_put_nil(b);
}

void worker_finish(struct node *node, uint32_t number)
{
    struct worker *w = (struct worker *)find(node, number);
    struct buffer cast_reason;

    if (!w)
        return;
    buffer_init(&cast_reason);
    if (w->is_cast && !result.overflow)
        put_cast_reason(&cast_reason, buffer_slice(&result));
    struct buffer *reason = w->is_cast ? &cast_reason : &result;
    if (result.overflow || reason->overflow) {
        buffer_reset(reason, 0);
        term_put_atom(reason, "system_limit");
    }
    worker_exit(&w->process, buffer_slice(reason));
    buffer_free(&cast_reason);
}
