/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all connections of a node hold together, kept up to date where memory is taken and given
 * back.
 *
 * The limit of each connection does not bound the sum of many, so each kind has a total. When it is
 * exceeded the connection that has the most is doomed, never the one that happens to ask.
 */
#ifndef DISTRIBUTION_BUDGET_H
#define DISTRIBUTION_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

#define INPUT_TOTAL_MAX  ((size_t)256 << 20) /* frames that are not whole yet */
#define OUTPUT_TOTAL_MAX ((size_t)1 << 30)   /* what has not been taken */
#define HOLDS_TOTAL_MAX  ((size_t)256 << 20) /* monitors and links */

struct connection;

/* Bytes; one in each connection, one in the node for the sum. */
struct budget {
    size_t input, output, holds;
};

/* Makes room for `size` bytes of input more; false if the connection itself had to go for it. */
bool budget_make_room_for_input(struct connection *c, size_t size);
/* Count anew what the buffers of a connection hold. */
void budget_count_input(struct connection *c);
void budget_count_output(struct connection *c);
/* As budget_count_output, and keeps to the total. No frame may be open on any connection. */
void budget_check_output(struct connection *c);
/* A monitor or a link of so many bytes; false, and nothing is counted, if there is no room. */
bool budget_take_hold(struct connection *c, size_t size);
void budget_give_hold(struct connection *c, size_t size);
/* Counts no longer what a connection held that is being closed. */
void budget_leave(struct connection *c);

#endif
