/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that OTP spawns to run one function for erpc. Ours lives from the spawn request to
 * the answer, so that it can be monitored, linked to and killed like any other; the answer is its
 * exit reason (erpc.erl, execute_call/4). A worker is known by its process number and owns itself.
 */
#ifndef OTP_WORKER_H
#define OTP_WORKER_H

#include "distribution/node.h"

/*
 * Starts a worker and answers the spawn request. `monitored` puts the caller's monitor in place;
 * `is_cast` makes it end as erpc:execute_cast/3 does. Returns its number, or 0 without memory.
 */
uint32_t worker_start(struct node *node, const struct spawn_request *request, bool monitored,
                      bool is_cast);

/* Returns a buffer for the exit reason, or NULL if the worker is gone. One worker at a time. */
struct buffer *worker_open_result(struct node *node, uint32_t number);
/* Ends the worker with what was put into that buffer: {Tag, return, Value}, {Tag, exit, Reason} or
 * {Tag, error, Error, Stack}. */
void worker_finish(struct node *node, uint32_t number);

#endif
