/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing run of bytes: what is read from a socket, what waits to be written to one, a term in
 * the making.
 *
 * The buffer owns its memory; buffer_free gives it back. Appending returns no error: when memory
 * runs out, the buffer is marked `overflow`, and later appends do nothing. It is enough to look at
 * `overflow` once, at the end. Pointers into the data are good until the next append.
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buffer {
    uint8_t *data;
    size_t start; /* first byte not yet consumed */
    size_t end;   /* one past the last byte written */
    size_t capacity;
    bool overflow;
};

/* A view of bytes that belong to somebody else. */
struct slice {
    const uint8_t *data;
    size_t len;
};

/* Makes an empty buffer without memory; all bytes zero is one, too. */
void buffer_init(struct buffer *b);
/* Gives the memory back; the buffer may be used again. */
void buffer_free(struct buffer *b);

/* Makes room for `size` more bytes and returns where they go, or NULL (and overflow). Commit with
 * buffer_grow. */
static inline uint8_t *buffer_reserve(struct buffer *b, size_t size);
/* Counts `size` bytes written behind the end (at most what was reserved) as part of the data. */
void buffer_grow(struct buffer *b, size_t size);
/* Copies `size` bytes behind the end; `data` may be NULL if there are none. */
static inline void buffer_append(struct buffer *b, const void *data, size_t size);
/* Drops `size` bytes from the front. */
void buffer_consume(struct buffer *b, size_t size);
/* Cuts the data back to `size` bytes and clears overflow: undoes appends that went wrong. */
void buffer_truncate(struct buffer *b, size_t size);
/* Empties the buffer; memory above `keep` bytes is given back. */
void buffer_reset(struct buffer *b, size_t keep);

/* For buffer_reserve, where there is no room yet. */
uint8_t *buffer_make_room(struct buffer *b, size_t size);

static inline uint8_t *buffer_reserve(struct buffer *b, size_t size)
{
    if (b->data && !b->overflow && b->capacity - b->end >= size)
        return b->data + b->end;
    return buffer_make_room(b, size);
}

static inline void buffer_append(struct buffer *b, const void *data, size_t size)
{
    uint8_t *to = buffer_reserve(b, size);

    if (!to || size == 0)
        return;
    memcpy(to, data, size);
    b->end += size;
}

static inline size_t buffer_size(const struct buffer *b)
{
    return b->end - b->start;
}

/* NULL if the buffer has no memory yet: adding even 0 to NULL is undefined in C. */
static inline uint8_t *buffer_data(const struct buffer *b)
{
    return b->data ? b->data + b->start : NULL;
}

static inline struct slice buffer_slice(const struct buffer *b)
{
    return (struct slice){buffer_data(b), buffer_size(b)};
}

/* Returns a copy of the bytes in memory of its own (free() it), or NULL without memory. */
uint8_t *slice_copy(struct slice s);
bool slice_equal(struct slice a, struct slice b);
/* Views a text without its ending 0. */
static inline struct slice slice_of(const char *text)
{
    return (struct slice){(const uint8_t *)text, strlen(text)};
}

/* Whether the bytes are those of the text. */
static inline bool slice_is(struct slice s, const char *text)
{
    size_t len = strlen(text);

    return s.len == len && memcmp(s.data, text, len) == 0;
}

#endif
