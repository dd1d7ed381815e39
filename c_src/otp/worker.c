/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/worker.h"

#include "term/term_write.h"

#include <stdlib.h>

struct worker {
    struct process process; /* first: the table finds the worker through it */
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

uint32_t worker_start(struct node *node, const struct spawn_request *request, bool monitored)
{
    struct worker *w = malloc(sizeof *w);

    if (!w)
        return 0;
    process_start(&w->process, node, &worker_behaviour, NULL);
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

void worker_finish(struct node *node, uint32_t number)
{
    struct process *p = find(node, number);

    if (!p)
        return;
    if (result.overflow) {
        buffer_reset(&result, 0);
        term_put_atom(&result, "system_limit");
    }
    worker_exit(p, buffer_slice(&result));
}

void worker_end(struct node *node, uint32_t number)
{
    struct process *p = find(node, number);

    if (!p)
        return;
    process_exit_atom(p, "normal");
    free((struct worker *)p);
}
