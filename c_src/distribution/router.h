/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the frames of a connection that is up to the process, monitor, link or hook that they are
 * for. */
#ifndef DISTRIBUTION_ROUTER_H
#define DISTRIBUTION_ROUTER_H

#include "distribution/connection.h"

/* `frame` without its length; it is read in place and not kept. What is malformed is dropped,
 * logged, counted. */
void router_take_frame(struct connection *c, struct slice frame);

#endif
