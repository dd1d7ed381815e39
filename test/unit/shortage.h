/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shortage of memory when a test wants one: malloc, calloc and realloc as they are called from
 * the objects of a program that is linked with --wrap for each of them. What libraries allocate for
 * themselves (libuv, OpenSSL, libc) does not come by here.
 *
 * A test of the same program sets the fields. A program on its own maps the file that the
 * environment variable SHORTAGE names, in place of `shortage`, and whoever started it reads and
 * writes that: four numbers of 64 bits each, in the machine's order.
 */
#ifndef TEST_SHORTAGE_H
#define TEST_SHORTAGE_H

#include <stdint.h>

struct shortage {
    uint64_t skip;   /* allocations that are granted before */
    uint64_t fail;   /* as many fail */
    uint64_t asked;  /* all there were */
    uint64_t failed; /* of those */
};

extern struct shortage *shortage;

#endif
