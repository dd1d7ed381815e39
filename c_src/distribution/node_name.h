/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node name may look like. Pure functions on the caller's bytes; nothing is kept.
 */
#ifndef DISTRIBUTION_NODE_NAME_H
#define DISTRIBUTION_NODE_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define NODE_NAME_MAX 255 /* bytes: node names travel in fields and buffers of this size */

/*
 * Whether `name` (len bytes, need not be 0-terminated) can be a node: one '@' with something on
 * both sides (dist_util:is_node_name/1), at most NODE_NAME_MAX bytes of UTF-8, no spaces, no
 * control characters.
 */
bool node_name_is_valid(const char *name, size_t len);

/* The same for the part behind the '@'. */
bool node_name_host_is_valid(const char *host, size_t len);

#endif
