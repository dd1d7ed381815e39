/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

/* Small enough for many idle connections, large enough for an ordinary reply. */
#define BUFFER_FIRST_CAPACITY 512

void buffer_init(struct buffer *b)
{
    *b = (struct buffer){0};
}

void buffer_free(struct buffer *b)
{
    free(b->data);
    buffer_init(b);
}

uint8_t *buffer_make_room(struct buffer *b, size_t size)
{
    size_t used = buffer_size(b);

    if (b->overflow)
        return NULL;
    if (size > SIZE_MAX / 4 || used > SIZE_MAX / 4) {
        b->overflow = true;
        return NULL;
    }
    /* Moving is cheaper than growing as long as it cannot happen again at every append. */
    if (b->data && b->start >= used && b->capacity - used >= size) {
        memmove(b->data, b->data + b->start, used);
        b->start = 0;
        b->end = used;
        return b->data + b->end;
    }
    size_t capacity = b->capacity ? b->capacity : BUFFER_FIRST_CAPACITY;
    while (capacity < used + size)
        capacity *= 2;
    if (b->data && b->start > 0)
        memmove(b->data, b->data + b->start, used);
    b->start = 0;
    b->end = used;
    /* What is large is not copied but mapped elsewhere: a long answer does not stop everyone. */
    uint8_t *data = realloc(b->data, capacity);
    if (!data) {
        b->overflow = true;
        return NULL;
    }
    b->data = data;
    b->capacity = capacity;
    return b->data + b->end;
}

void buffer_grow(struct buffer *b, size_t size)
{
    b->end += size;
}

void buffer_consume(struct buffer *b, size_t size)
{
    b->start += size;
    if (b->start == b->end)
        b->start = b->end = 0;
}

void buffer_truncate(struct buffer *b, size_t size)
{
    b->end = b->start + size;
    b->overflow = false;
}

void buffer_reset(struct buffer *b, size_t keep)
{
    b->start = b->end = 0;
    b->overflow = false;
    if (b->capacity > keep)
        buffer_free(b);
}

uint8_t *slice_copy(struct slice s)
{
    uint8_t *copy = malloc(s.len ? s.len : 1);

    if (copy && s.len)
        memcpy(copy, s.data, s.len);
    return copy;
}

bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}
