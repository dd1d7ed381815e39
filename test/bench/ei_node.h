/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the comparators that are C nodes by ei have in common: being found and called.
 */
#ifndef BENCH_EI_NODE_H
#define BENCH_EI_NODE_H

#include <ei.h>

/* Prints what failed, and ends the program with status 1. */
_Noreturn void ei_node_fail(const char *what);

/*
 * Makes `node` ALIVE@127.0.0.1, where ALIVE is the only argument of the program and the cookie is
 * in MACULA_NAT_COOKIE. Listens, publishes the name and prints `ready`. Returns the listening
 * socket.
 */
int ei_node_start(ei_cnode *node, int argc, char **argv);

#endif
