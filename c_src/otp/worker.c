/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/worker.h"

#include "term/term_write.h"

#include <stdlib.h>

/* Memory that is kept from one to the next. */
#define KEPT_CAPACITY ((size_t)64 << 10)

/* The reason in the making, reused from one worker to the next. */
static struct buffer reason_buffer;

static void worker_exit(struct process *p, struct slice reason)
{
    process_exit(p, reason);
    free(p);
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

uint32_t worker_start(struct connection *via, const struct control *request, bool monitored)
{
    struct process *w = malloc(sizeof *w);

    if (!w)
        return 0;
    if (process_start(w, via->node, &worker_behaviour, NULL) != 0) {
        free(w);
        return 0;
    }
    struct pid pid = process_pid(w);
    struct buffer *b = connection_open_frame(via);
    control_put_spawn_reply(b, request->reference, &request->from.pid, monitored, &pid, NULL);
    uint32_t number = w->number;
    if (monitored)
        process_add_monitor(via, w, &request->from.pid, request->reference);
    connection_close_frame(via);
    return number;
}

struct buffer *worker_open_reason(struct node *node, uint32_t number)
{
    if (!find(node, number))
        return NULL;
    buffer_reset(&reason_buffer, KEPT_CAPACITY);
    return &reason_buffer;
}

void worker_finish(struct node *node, uint32_t number)
{
    struct process *worker = find(node, number);

    if (!worker)
        return;
    if (reason_buffer.overflow) {
        buffer_reset(&reason_buffer, 0);
        term_put_atom(&reason_buffer, "system_limit");
    }
    worker_exit(worker, buffer_slice(&reason_buffer));
}
