/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that OTP spawns to run one function for erpc. Ours lives from the spawn request to
 * the answer, so that it can be monitored, linked to and killed like any other; the answer is its
 * exit reason (erpc.erl, execute_call/4). A worker is known by its process number and owns itself.
 */
#ifndef OTP_WORKER_H
#define OTP_WORKER_H

#include "dist/node.h"

/* Starts a worker and answers the spawn request. Returns its number, or 0 if there is no memory. */
uint32_t worker_start(struct node *node, const struct spawn_request *request, bool monitored);

/* A buffer for the exit reason, or NULL if the worker is gone. One worker at a time. */
struct buffer *worker_open_result(struct node *node, uint32_t number);
/* Ends the worker with what was put into that buffer. */
void worker_finish(struct node *node, uint32_t number);
/* Ends a worker that nobody waits for. */
void worker_end(struct node *node, uint32_t number);

#endif
