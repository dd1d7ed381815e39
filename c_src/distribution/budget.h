/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all connections of a node hold together: unfinished input, monitors and links. (Output is
 * connection.c's.) Kept up to date where memory is taken and given back.
 *
 * The limit of each connection does not bound the sum of many, so each kind has a total. When it is
 * exceeded the connection that has the most is doomed, never the one that happens to ask.
 */
#ifndef DISTRIBUTION_BUDGET_H
#define DISTRIBUTION_BUDGET_H

#include "distribution/connection.h"

#define INPUT_TOTAL_MAX ((size_t)256 << 20)
#define HOLDS_TOTAL_MAX ((size_t)256 << 20)
#define HOLDS_MAX       250000 /* a connection with more monitors and links is cut off */

/* Makes room for `size` more bytes of input. Returns false if that has doomed `c` itself. */
bool budget_make_room_for_input(struct connection *c, size_t size);
/* Counts anew what the input of a connection holds. */
void budget_count_input(struct connection *c);
/* For a connection that is closed: its input counts no longer. */
void budget_forget_input(struct connection *c);
/* Counts one more monitor or link of `size` bytes. Returns false, and counts nothing, if `c` is
 * doomed, perhaps because this is one too many. */
bool budget_add_hold(struct connection *c, size_t size);
void budget_remove_hold(struct connection *c, size_t size);

#endif
