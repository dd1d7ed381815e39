/* SPDX-License-Identifier: Apache-2.0 */
/* The file descriptors that the program is started with. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

/* What a program needs that serves a few peers; libuv aborts where it gets none for its own. */
#define DESCRIPTORS_MIN 24

/*
 * Makes sure that descriptors 0, 1 and 2 are open (/dev/null where they were not), so that none of
 * our own gets one of these numbers, and that DESCRIPTORS_MIN more can be opened. Returns 0 or a
 * negative errno.
 */
int descriptors_prepare(void);

#endif
