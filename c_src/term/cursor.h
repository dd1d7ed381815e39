/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a term that passed term_check, front to back, on top of ei's decoders.
 *
 * Every reader returns true and moves on, or returns false and stays where it was, so that a caller
 * can try one form after another. Slices and node names point into the term: they live as long as
 * its bytes do. Atoms and binaries are not copied.
 */
#ifndef TERM_CURSOR_H
#define TERM_CURSOR_H

#include "term/buffer.h"

#include <stdbool.h>
#include <stdint.h>

struct cursor {
    const char *data;
    int at;
    int end;
};

/* A process identifier, as a view into the term it was read from. */
struct pid {
    struct slice node;
    uint32_t id;
    uint32_t serial;
    uint32_t creation;
};

/* Starts at the first byte of `term`, which has passed term_check and is shorter than 2 GiB. */
struct cursor cursor_of(struct slice term);

/* The tag of the next term (tags.h), or 0 at the end. */
uint8_t cursor_tag(const struct cursor *c);

bool cursor_tuple(struct cursor *c, int arity);
bool cursor_any_tuple(struct cursor *c, int *arity);
/* A list's head: `length` elements follow, then the tail, unless the list was empty. Byte lists are
 * no match. */
bool cursor_list(struct cursor *c, int *length);
bool cursor_map(struct cursor *c, int *pairs);
bool cursor_atom(struct cursor *c, struct slice *name);
bool cursor_is_atom(struct cursor *c, const char *name);
bool cursor_bool(struct cursor *c, bool *value);
bool cursor_int(struct cursor *c, int64_t *value);
bool cursor_binary(struct cursor *c, struct slice *bytes);
bool cursor_pid(struct cursor *c, struct pid *pid);
bool cursor_reference(struct cursor *c, struct slice *raw);
/* The number of a reference that term_put_reference made for this node. */
bool reference_number(struct slice reference, struct slice node, uint32_t creation,
                      uint64_t *number);
/* Any term, as its bytes. */
bool cursor_term(struct cursor *c, struct slice *raw);

/* A copy that owns its node name, in one piece: free() it. NULL without memory. */
struct pid *pid_copy(const struct pid *pid);
bool pid_equal(const struct pid *a, const struct pid *b);

bool slice_is(struct slice s, const char *text);

#endif
