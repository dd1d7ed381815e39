/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that OTP spawns to run one function for erpc. Ours lives from the spawn request to
 * the answer, so that it can be monitored, linked to and killed like any other; the answer is its
 * exit reason (caller.c). A worker is known by its process number and owns itself.
 */
#ifndef OTP_WORKER_H
#define OTP_WORKER_H

#include "distribution/process.h"

/* Starts a worker and answers the spawn request. `monitored` puts the caller's monitor in place.
 * Returns its number, or 0 without memory. */
uint32_t worker_start(struct connection *via, const struct control *request, bool monitored);

/* Returns an empty buffer for the exit reason, or NULL if the worker is gone. One at a time. */
struct buffer *worker_open_reason(struct node *node, uint32_t number);
/* Ends the worker for the reason that was put into that buffer. */
void worker_finish(struct node *node, uint32_t number);

#endif
