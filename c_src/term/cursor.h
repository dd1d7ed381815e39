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

#include "base/buffer.h"

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

/* Returns the tag of the next term (tags.h), or 0 at the end. */
uint8_t cursor_tag(const struct cursor *c);

/* Reads the head of a tuple of `arity` elements, or of any number of them; the elements follow. */
bool cursor_tuple(struct cursor *c, int arity);
bool cursor_any_tuple(struct cursor *c, int *arity);
/* Reads a list's head: `length` elements follow, then the tail, unless the list was empty. A list
 * of bytes in its short form (TAG_STRING) is no match. */
bool cursor_list(struct cursor *c, int *length);
/* Reads a map's head: `pairs` times a key and its value follow. */
bool cursor_map(struct cursor *c, int *pairs);
/* Reads an atom in any of its four forms. */
bool cursor_atom(struct cursor *c, struct slice *name);
/* Reads the atom `name` and no other. */
static inline bool cursor_is_atom(struct cursor *c, const char *name)
{
    int at = c->at;
    struct slice found;

    if (cursor_atom(c, &found) && slice_is(found, name))
        return true;
    c->at = at;
    return false;
}
/* Reads `true` or `false`. */
bool cursor_bool(struct cursor *c, bool *value);
/* Reads an integer; one outside of int64_t is no match. */
bool cursor_int(struct cursor *c, int64_t *value);
/* Reads a binary; a bitstring that is none is no match. */
bool cursor_binary(struct cursor *c, struct slice *bytes);
bool cursor_pid(struct cursor *c, struct pid *pid);
/* Reads a reference, as its bytes. */
bool cursor_reference(struct cursor *c, struct slice *raw);
/* Reads any term, as its bytes. Fails at the end. */
bool cursor_term(struct cursor *c, struct slice *raw);

/* Gives the number of a reference that term_put_reference made for this node, else false. */
bool reference_number(struct slice reference, struct slice node, uint32_t creation,
                      uint64_t *number);

/* Returns a copy that owns its node name, in one piece: free() it. NULL without memory. */
struct pid *pid_copy(const struct pid *pid);
bool pid_equal(const struct pid *a, const struct pid *b);

#endif
