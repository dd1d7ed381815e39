/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last moments of a node's connections. What is queued is sent; then our side is closed, and
 * what the peer still says is read and ignored until it closes its side. Closed at once with input
 * unread, a socket is reset by the kernel, and the peer loses what it has not read yet.
 */
#ifndef DISTRIBUTION_GOODBYE_H
#define DISTRIBUTION_GOODBYE_H

struct node;

/*
 * Ends all connections, and then the handles of the node's turns, by a timer: within 2 s, whatever
 * the peers do. Calls that are on their way are still read, for half a second at most: they find
 * that their process has ended, and are told.
 */
void goodbye_start(struct node *node);

#endif
