/* SPDX-License-Identifier: Apache-2.0 */
#include "term/term_write.h"

#include "base/bytes.h"
#include "term/tags.h"

#include <ei.h>
#include <stdarg.h>
#include <string.h>

/* More than any head, number or pid without its node name takes. */
#define HEAD_SIZE 32

/* Runs an ei encoder at the end of the buffer; `extra` is room for what it writes behind a head. */
#define PUT(b, extra, encode, ...)                                    \
    do {                                                              \
        char *to_ = (char *)buffer_reserve((b), HEAD_SIZE + (extra)); \
        int size_ = 0;                                                \
        if (to_ && encode(to_, &size_, ##__VA_ARGS__) == 0)           \
            buffer_grow((b), (size_t)size_);                          \
        else                                                          \
            (b)->overflow = true;                                     \
    } while (0)

/*
 * What every answer is made of is written here and not by ei, which takes a thousand instructions
 * for an answer, most of them to count the characters of names that have been checked already.
 */
static void put_head(struct buffer *b, uint8_t tag, uint8_t size)
{
    uint8_t *to = buffer_reserve(b, 2);

    if (!to)
        return;
    to[0] = tag;
    to[1] = size;
    buffer_grow(b, 2);
}

void term_put_version(struct buffer *b)
{
    uint8_t *to = buffer_reserve(b, 1);

    if (!to)
        return;
    *to = TAG_VERSION;
    buffer_grow(b, 1);
}

void term_put_tuple(struct buffer *b, int arity)
{
    if (arity <= UINT8_MAX)
        put_head(b, TAG_SMALL_TUPLE, (uint8_t)arity);
    else
        PUT(b, 0, ei_encode_tuple_header, arity);
}

void term_put_list(struct buffer *b, int length)
{
    PUT(b, 0, ei_encode_list_header, length);
}

void term_put_nil(struct buffer *b)
{
    PUT(b, 0, ei_encode_empty_list);
}

void term_put_map(struct buffer *b, int pairs)
{
    PUT(b, 0, ei_encode_map_header, pairs);
}

void term_put_atom_slice(struct buffer *b, struct slice name)
{
    if (name.len > UINT8_MAX) {
        PUT(b, name.len, ei_encode_atom_len_as, (const char *)name.data, (int)name.len, ERLANG_UTF8,
            ERLANG_UTF8);
        return;
    }
    put_head(b, TAG_SMALL_ATOM_UTF8, (uint8_t)name.len);
    buffer_append(b, name.data, name.len);
}

struct slice term_atom(uint8_t room[static TERM_ATOM_SIZE], const char *name)
{
    size_t len = strlen(name);

    room[0] = TAG_SMALL_ATOM_UTF8;
    room[1] = (uint8_t)len;
    memcpy(room + 2, name, len);
    return (struct slice){room, 2 + len};
}

void term_put_int(struct buffer *b, int64_t value)
{
    if (value >= 0 && value <= UINT8_MAX)
        put_head(b, TAG_SMALL_INTEGER, (uint8_t)value);
    else
        PUT(b, 0, ei_encode_longlong, value);
}

void term_put_binary(struct buffer *b, struct slice bytes)
{
    PUT(b, bytes.len, ei_encode_binary, bytes.data, (long)bytes.len);
}

void term_put_pid(struct buffer *b, const struct pid *pid)
{
    uint8_t tag = TAG_NEW_PID;
    uint8_t numbers[12];

    put_u32(numbers, pid->id);
    put_u32(numbers + 4, pid->serial);
    put_u32(numbers + 8, pid->creation);
    buffer_append(b, &tag, 1);
    term_put_atom_slice(b, pid->node);
    buffer_append(b, numbers, sizeof numbers);
}

void term_put_reference(struct buffer *b, struct slice node, uint32_t creation, uint64_t number)
{
    uint8_t head[3] = {TAG_NEWER_REFERENCE, 0, 3};
    uint8_t numbers[16];

    /* OTP uses the lower 18 bits of the first word only. */
    put_u32(numbers, creation);
    put_u32(numbers + 4, (uint32_t)(number & 0x3ffff));
    put_u32(numbers + 8, (uint32_t)(number >> 18));
    put_u32(numbers + 12, (uint32_t)(number >> 50));
    buffer_append(b, head, sizeof head);
    term_put_atom_slice(b, node);
    buffer_append(b, numbers, sizeof numbers);
}

void term_put_float(struct buffer *b, double value)
{
    PUT(b, 0, ei_encode_double, value);
}

void term_put_string(struct buffer *b, const char *text)
{
    size_t len = strlen(text);

    PUT(b, 5 * len, ei_encode_string_len, text, (int)len);
}

void term_put_raw(struct buffer *b, struct slice term)
{
    buffer_append(b, term.data, term.len);
}

void term_put_atoms(struct buffer *b, int arity, ...)
{
    va_list names;

    term_put_tuple(b, arity);
    va_start(names, arity);
    for (int i = 0; i < arity; i++)
        term_put_atom(b, va_arg(names, const char *));
    va_end(names);
}

size_t term_open_list(struct buffer *b)
{
    size_t opened = buffer_size(b);
    uint8_t head[5] = {TAG_LIST};

    buffer_append(b, head, sizeof head);
    return opened;
}

void term_close_list(struct buffer *b, size_t opened, uint32_t length)
{
    if (b->overflow)
        return;
    if (length == 0) {
        buffer_truncate(b, opened);
        term_put_nil(b);
        return;
    }
    put_u32(buffer_data(b) + opened + 1, length);
    term_put_nil(b);
}

void term_open_map(struct term_map *map, struct buffer *b)
{
    *map = (struct term_map){.out = b, .opened = buffer_size(b)};
    term_put_map(b, 0);
}

void term_count_pair(struct term_map *map)
{
    map->pairs++;
}

void term_put_key(struct term_map *map, const char *key)
{
    term_count_pair(map);
    term_put_atom(map->out, key);
}

void term_close_map(struct term_map *map)
{
    if (!map->out->overflow)
        put_u32(buffer_data(map->out) + map->opened + 1, map->pairs);
}
