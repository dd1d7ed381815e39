/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes terms into a buffer, on top of ei's encoders. Each call appends one term, or the head of a
 * container whose elements the following calls append. Failure is kept in the buffer (`overflow`),
 * to be asked once.
 */
#ifndef TERM_WRITE_H
#define TERM_WRITE_H

#include "base/buffer.h"
#include "term/cursor.h"

void term_put_version(struct buffer *b);
void term_put_tuple(struct buffer *b, int arity);
/* A list's head; put the tail (term_put_nil) behind its `length` > 0 elements. */
void term_put_list(struct buffer *b, int length);
void term_put_nil(struct buffer *b);
/* A map's head; `pairs` times a key and its value follow. */
void term_put_map(struct buffer *b, int pairs);
/* `name` in UTF-8, at most 255 characters. */
void term_put_atom_slice(struct buffer *b, struct slice name);
static inline void term_put_atom(struct buffer *b, const char *name)
{
    term_put_atom_slice(b, slice_of(name));
}
void term_put_int(struct buffer *b, int64_t value);
void term_put_binary(struct buffer *b, struct slice bytes);
void term_put_pid(struct buffer *b, const struct pid *pid);
/* A reference of three words that hold `number`. */
void term_put_reference(struct buffer *b, struct slice node, uint32_t creation, uint64_t number);
void term_put_float(struct buffer *b, double value);
/* A list of characters, as Erlang's "text". */
void term_put_string(struct buffer *b, const char *text);
/* A whole term, as it was read or written before. */
void term_put_raw(struct buffer *b, struct slice term);
/* `{A, B}` and `{A, B, C}` of atoms are what errors are made of: term_put_atoms(b, 2, "error",
 * "x"). */
void term_put_atoms(struct buffer *b, int arity, ...);

/* A proper list of an unknown number of elements: open it, put the elements, close it with what was
 * returned and their number. */
size_t term_open_list(struct buffer *b);
void term_close_list(struct buffer *b, size_t opened, uint32_t length);

/*
 * A map of any number of pairs, which counts them: open it, put a key (an atom) and its value for
 * each, close it. Where the key is another term, call term_count_pair and put both.
 */
struct term_map {
    struct buffer *out;
    size_t opened;
    uint32_t pairs;
};
void term_open_map(struct term_map *map, struct buffer *b);
void term_put_key(struct term_map *map, const char *key);
void term_count_pair(struct term_map *map);
void term_close_map(struct term_map *map);

/* Makes the term of one atom (`name` in UTF-8, at most 255 bytes) without a buffer, in `room`. */
#define TERM_ATOM_SIZE (2 + 255)
struct slice term_atom(uint8_t room[static TERM_ATOM_SIZE], const char *name);

#endif
