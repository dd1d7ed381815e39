/* SPDX-License-Identifier: Apache-2.0 */
/* Hands the frames of a connection that is up to whom they are for: a process, a monitor, a link, a
 * watch. */
#ifndef DISTRIBUTION_ROUTER_H
#define DISTRIBUTION_ROUTER_H

#include "distribution/connection.h"

/* `frame` without its length; it is read in place and not kept. What is malformed is dropped,
 * logged, counted. */
void router_handle_frame(struct connection *c, struct slice frame);

#endif
