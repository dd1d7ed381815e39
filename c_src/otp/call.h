/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen_server calls that we make to registered processes of other nodes, as gen:call makes them: a
 * monitor, the request, a time limit. A call ends exactly once, with an answer or with the reason
 * why there is none; what comes later is dropped. Thousands may be in flight; none waits for
 * another.
 *
 * A call belongs to this room; the pointer is good until `done` is called or call_cancel.
 */
#ifndef OTP_CALL_H
#define OTP_CALL_H

#include "base/counters.h"
#include "distribution/watch.h"

/* clang-format off */
#define CALL_COUNTERS(X) \
    X(made, COUNTER, "Calls made to processes of other nodes") \
    X(answered, COUNTER, "Calls to other nodes that were answered") \
    X(failed, COUNTER, "Calls to other nodes whose process or node was not there, or went away") \
    X(timed_out, COUNTER, "Calls to other nodes that were not answered in time") \
    X(answers_too_late, COUNTER, "Answers to calls that were over already")
/* clang-format on */

struct call_counters {
    CALL_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(call_counters, CALL_COUNTERS)

struct call;

struct calls {
    struct process process; /* first: what the answers are sent to */
    size_t in_flight;
    struct call_counters counters;
};

enum call_outcome {
    CALL_ANSWERED,
    CALL_FAILED, /* no such process, it died, or its node went away */
    CALL_TIMED_OUT,
};

/* `answer` is empty unless the outcome is CALL_ANSWERED, and good during the call. */
typedef void (*call_done)(void *ctx, enum call_outcome outcome, struct slice answer);

/* Starts the process that the answers are sent to, without a name. Returns 0 or -ENOMEM. */
int calls_start(struct calls *calls, struct node *node);
/* Stops it; all calls have ended or been cancelled before. */
void calls_stop(struct calls *calls);

/*
 * Begins a call to `name` (must live as long as the call) on a connected node. Put the request, one
 * term, into the buffer that comes back in `request`, then call_send. NULL without memory.
 */
struct call *call_open(struct calls *calls, struct connection *via, const char *name,
                       uint64_t limit_ms, call_done done, void *ctx, struct buffer **request);
/* Sends what call_open began. */
void call_send(struct call *call);
/* Ends it without an answer; `done` is not called. */
void call_cancel(struct call *call);

#endif
