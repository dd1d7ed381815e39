/* SPDX-License-Identifier: Apache-2.0 */
/* What the node counts of its connections. */
#ifndef DISTRIBUTION_NODE_COUNTERS_H
#define DISTRIBUTION_NODE_COUNTERS_H

#include "base/counters.h"

/* clang-format off */
#define NODE_COUNTERS(X) \
    X(frames_in, COUNTER, "Frames received") \
    X(frames_out, COUNTER, "Frames sent") \
    X(frames_malformed, COUNTER, "Frames received and dropped because they were malformed") \
    X(frames_too_large, COUNTER, "Connections closed because a frame was too large") \
    X(frames_late, COUNTER, "Connections closed because a frame did not arrive in time") \
    X(control_unknown, COUNTER, "Control messages dropped because their kind is unknown") \
    X(control_foreign, COUNTER, \
      "Control messages dropped because they were sent in the name of another node's process") \
    X(messages_to_nobody, COUNTER, "Messages to processes that this node does not have") \
    X(messages_undeliverable, COUNTER, \
      "Messages from here that were dropped because their node is not connected") \
    X(handshakes_late, COUNTER, "Connections closed because their handshake took too long") \
    X(handshakes_dropped, COUNTER, "Connections closed in their handshake to make room for others") \
    X(cookies_refused, COUNTER, "Connections refused because of their cookie") \
    X(input_limit, COUNTER, "Connections closed because too much of their input was waiting") \
    X(output_limit, COUNTER, "Connections closed because they left too much output unread") \
    X(output_dropped, COUNTER, \
      "Messages that another node had asked for, dropped because their reader has much to read") \
    X(monitors_limit, COUNTER, "Connections closed because of too many monitors and links") \
    X(no_memory, COUNTER, \
      "Times that something received was dropped, or its connection closed, for lack of memory") \
    X(spawns, COUNTER, "Requests to start a process")
/* clang-format on */

struct node_counters {
    NODE_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(node_counters, NODE_COUNTERS)

#endif
