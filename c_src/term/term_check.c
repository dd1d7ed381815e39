/* SPDX-License-Identifier: Apache-2.0 */
#include "term/term_check.h"

#include "base/bytes.h"
#include "base/table.h"
#include "base/utf8.h"
#include "term/tags.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A reader that stops at the end: after a bad read `bad` is set and every further read gives
 * nothing. */
struct reader {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool bad;
};

/* What is still open at one depth: how many terms are to come, and where the container says that it
 * ends. */
struct level {
    uint64_t left;
    size_t must_end; /* 0: anywhere */
    bool is_map;
    size_t first_key; /* of a map, among the keys */
};

/* Where the keys of the maps that are open lie. */
struct key {
    const uint8_t *data;
    size_t len;
    uint32_t hash; /* once its map has ended */
};

struct keys {
    struct key *items;
    size_t count;
    size_t capacity;
    size_t seen; /* of all maps, closed ones too */
};

static inline const uint8_t *take(struct reader *r, size_t size)
{
    if (r->bad || r->len - r->pos < size) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->data + r->pos;
    r->pos += size;
    return p;
}

/* Big-endian; 0 at the end. */
static inline uint8_t take_u8(struct reader *r)
{
    const uint8_t *p = take(r, 1);

    return p ? p[0] : 0;
}

static inline uint32_t take_u16(struct reader *r)
{
    const uint8_t *p = take(r, 2);

    return p ? get_u16(p) : 0;
}

static inline uint32_t take_u32(struct reader *r)
{
    const uint8_t *p = take(r, 4);

    return p ? get_u32(p) : 0;
}

/* Counts the characters, or -1. */
static int utf8_length(const uint8_t *s, size_t len)
{
    uint32_t character;
    int count = 0;

    for (size_t size; len > 0; s += size, len -= size, count++) {
        size = *s < 0x80 ? 1 : utf8_next(s, len, &character);
        if (size == 0)
            return -1;
    }
    return count;
}

#define NOT_ASCII UINT64_C(0x8080808080808080)

static inline uint64_t load(const uint8_t *s, size_t size)
{
    uint64_t bytes = 0;

    memcpy(&bytes, s, size);
    return bytes;
}

/* Most atoms are node names and such: words are worth it, the last of which may overlap. */
static inline bool is_ascii(const uint8_t *s, size_t len)
{
    uint64_t any = 0;

    if (len >= 8) {
        for (size_t at = 0; at + 8 < len; at += 8)
            any |= load(s + at, 8);
        any |= load(s + len - 8, 8);
    } else if (len >= 4) {
        any = load(s, 4) | load(s + len - 4, 4);
    } else {
        while (len > 0)
            any |= s[--len];
    }
    return (any & NOT_ASCII) == 0;
}

static void check_atom(struct reader *r, uint8_t tag)
{
    bool utf8 = tag == TAG_ATOM_UTF8 || tag == TAG_SMALL_ATOM_UTF8;
    bool small = tag == TAG_SMALL_ATOM || tag == TAG_SMALL_ATOM_UTF8;
    uint32_t len = small ? take_u8(r) : take_u16(r);
    const uint8_t *s = take(r, len);

    if (!s)
        return;
    int chars = (int)len;
    if (!is_ascii(s, len))
        chars = utf8 ? utf8_length(s, len) : -1;
    if (chars < 0 || chars > TERM_MAX_ATOM_CHARS)
        r->bad = true;
}

static void check_any_atom(struct reader *r)
{
    uint8_t tag = take_u8(r);

    if (tag_is_atom(tag))
        check_atom(r, tag);
    else
        r->bad = true;
}

static void check_reference(struct reader *r)
{
    uint32_t words = take_u16(r);

    /* OTP's own limit; ei's erlang_ref holds no more either. */
    if (words < 1 || words > 5)
        r->bad = true;
    check_any_atom(r);
    take(r, 4 + 4 * (size_t)words);
}

static void check_float(struct reader *r)
{
    const uint8_t *p = take(r, 8);

    /* All exponent bits set: infinity or not a number, which no Erlang node takes. */
    if (p && (p[0] & 0x7f) == 0x7f && (p[1] & 0xf0) == 0xf0)
        r->bad = true;
}

static void check_bit_binary(struct reader *r)
{
    uint32_t len = take_u32(r);
    uint32_t bits = take_u8(r);

    if (bits > 8 || (len == 0) != (bits == 0))
        r->bad = true;
    take(r, len);
}

static void check_export(struct reader *r)
{
    check_any_atom(r);
    check_any_atom(r);
    if (take_u8(r) != TAG_SMALL_INTEGER)
        r->bad = true;
    take(r, 1);
}

static void check_small_or_integer(struct reader *r)
{
    uint8_t tag = take_u8(r);

    if (tag != TAG_SMALL_INTEGER && tag != TAG_INTEGER)
        r->bad = true;
    take(r, tag == TAG_SMALL_INTEGER ? 1 : 4);
}

/* NEW_FUN_EXT up to its free variables, which are terms of their own. */
static struct level check_fun(struct reader *r)
{
    size_t start = r->pos;
    uint32_t size = take_u32(r);
    take(r, 1 + 16 + 4);
    uint32_t free_variables = take_u32(r);

    check_any_atom(r);
    check_small_or_integer(r);
    check_small_or_integer(r);
    if (take_u8(r) != TAG_NEW_PID)
        r->bad = true;
    check_any_atom(r);
    take(r, 12);
    if (size < 4 || size > r->len - start)
        r->bad = true;
    return (struct level){.left = free_variables, .must_end = start + size};
}

static void check_big(struct reader *r, bool small)
{
    uint32_t len = small ? take_u8(r) : take_u32(r);

    if (take_u8(r) > 1)
        r->bad = true;
    take(r, len);
}

/* Reads one term's tag and its own bytes; returns what it contains (left == 0: nothing). */
static struct level check_one(struct reader *r)
{
    uint8_t tag = take_u8(r);

    switch (tag) {
    case TAG_SMALL_INTEGER:
        take(r, 1);
        break;
    case TAG_INTEGER:
        take(r, 4);
        break;
    case TAG_NEW_FLOAT:
        check_float(r);
        break;
    case TAG_ATOM:
    case TAG_SMALL_ATOM:
    case TAG_ATOM_UTF8:
    case TAG_SMALL_ATOM_UTF8:
        check_atom(r, tag);
        break;
    case TAG_SMALL_TUPLE:
        return (struct level){.left = take_u8(r)};
    case TAG_LARGE_TUPLE:
        return (struct level){.left = take_u32(r)};
    case TAG_NIL:
        break;
    case TAG_STRING:
        take(r, take_u16(r));
        break;
    case TAG_LIST:
        return (struct level){.left = (uint64_t)take_u32(r) + 1};
    case TAG_MAP:
        return (struct level){.left = (uint64_t)take_u32(r) * 2, .is_map = true};
    case TAG_BINARY:
        take(r, take_u32(r));
        break;
    case TAG_BIT_BINARY:
        check_bit_binary(r);
        break;
    case TAG_SMALL_BIG:
        check_big(r, true);
        break;
    case TAG_LARGE_BIG:
        check_big(r, false);
        break;
    case TAG_NEW_PID:
        check_any_atom(r);
        take(r, 12);
        break;
    case TAG_V4_PORT:
        check_any_atom(r);
        take(r, 12);
        break;
    case TAG_NEW_PORT:
        check_any_atom(r);
        take(r, 8);
        break;
    case TAG_NEWER_REFERENCE:
        check_reference(r);
        break;
    case TAG_EXPORT:
        check_export(r);
        break;
    case TAG_NEW_FUN:
        return check_fun(r);
    default:
        r->bad = true;
    }
    return (struct level){0};
}

/* --- the keys of maps: OTP refuses a map that has one twice --- */

static bool keys_open(struct keys *keys, const uint8_t *start)
{
    if (++keys->seen > TERM_MAX_KEYS)
        return false;
    if (keys->count == keys->capacity) {
        size_t capacity = keys->capacity ? keys->capacity * 2 : 64;
        struct key *items = realloc(keys->items, capacity * sizeof *items);
        if (!items)
            return false;
        keys->items = items;
        keys->capacity = capacity;
    }
    keys->items[keys->count++] = (struct key){.data = start};
    return true;
}

/* Small integers and atoms may be written in more than one way: what counts of them is here. */
static struct key canonical_key(const struct key *k, uint8_t integer[4], uint8_t *kind)
{
    const uint8_t *p = k->data;

    *kind = p[0];
    switch (p[0]) {
    case TAG_SMALL_INTEGER:
        memset(integer, 0, 3);
        integer[3] = p[1];
        *kind = TAG_INTEGER;
        return (struct key){.data = integer, .len = 4};
    case TAG_INTEGER:
        return (struct key){.data = p + 1, .len = 4};
    case TAG_ATOM:
    case TAG_ATOM_UTF8:
        *kind = TAG_ATOM;
        return (struct key){.data = p + 3, .len = k->len - 3};
    case TAG_SMALL_ATOM:
    case TAG_SMALL_ATOM_UTF8:
        *kind = TAG_ATOM;
        return (struct key){.data = p + 2, .len = k->len - 2};
    default:
        return *k;
    }
}

static uint32_t hash_key(const struct key *k)
{
    uint8_t integer[4], kind;
    struct key what_counts = canonical_key(k, integer, &kind);

    return table_hash(what_counts.data, what_counts.len);
}

/*
 * By their hashes, which are keyed: long keys that differ only at their ends would be read over and
 * over, a megabyte each time, and nobody can choose such as have one hash.
 */
static int compare_keys(const void *left, const void *right)
{
    const struct key *l = left, *r = right;

    if (l->hash != r->hash)
        return l->hash < r->hash ? -1 : 1;

    uint8_t integers[2][4], kinds[2];
    struct key a = canonical_key(left, integers[0], &kinds[0]);
    struct key b = canonical_key(right, integers[1], &kinds[1]);

    if (kinds[0] != kinds[1])
        return kinds[0] < kinds[1] ? -1 : 1;
    if (a.len != b.len)
        return a.len < b.len ? -1 : 1;
    return memcmp(a.data, b.data, a.len);
}

/* Ends a map: its keys leave the list. False if one of them was there twice. */
static bool keys_close(struct keys *keys, size_t first)
{
    size_t count = keys->count - first;
    struct key *items = keys->items + first;

    keys->count = first;
    if (count < 2)
        return true;
    for (size_t i = 0; i < count; i++)
        items[i].hash = hash_key(&items[i]);
    qsort(items, count, sizeof *items, compare_keys);
    for (size_t i = 1; i < count; i++)
        if (compare_keys(&items[i - 1], &items[i]) == 0)
            return false;
    return true;
}

/* A map's terms are keys and values in turn: notes where a key begins, and at its value that it has
 * ended. */
static bool note_key(struct level *level, struct keys *keys, const uint8_t *at)
{
    if (level->left % 2 == 0)
        return keys_open(keys, at);
    struct key *key = &keys->items[keys->count - 1];
    key->len = (size_t)(at - key->data);
    return true;
}

static ssize_t check(struct reader *r, struct keys *keys)
{
    struct level stack[TERM_MAX_DEPTH + 1];
    size_t depth = 0;
    uint32_t terms = 0;

    stack[0] = (struct level){.left = 1};
    for (;;) {
        while (stack[depth].left == 0) {
            if (stack[depth].must_end && stack[depth].must_end != r->pos)
                return -EBADMSG;
            if (stack[depth].is_map && !keys_close(keys, stack[depth].first_key))
                return -EBADMSG;
            if (depth == 0)
                return (ssize_t)r->pos;
            depth--;
        }
        if (stack[depth].is_map && !note_key(&stack[depth], keys, r->data + r->pos))
            return keys->seen > TERM_MAX_KEYS ? -E2BIG : -ENOMEM;
        if (++terms > TERM_MAX_TERMS)
            return -E2BIG;
        stack[depth].left--;
        struct level inside = check_one(r);
        /* Every term takes a byte at least: a count that the rest cannot hold is a lie. */
        if (r->bad || inside.left > r->len - r->pos)
            return -EBADMSG;
        if (inside.left == 0 && inside.must_end == 0)
            continue;
        if (depth == TERM_MAX_DEPTH)
            return -E2BIG;
        inside.first_key = keys->count;
        stack[++depth] = inside;
    }
}

ssize_t term_check(const uint8_t *data, size_t len)
{
    struct reader r = {.data = data, .len = len};
    struct keys keys = {0};
    ssize_t size = check(&r, &keys);

    free(keys.items);
    return size;
}

/* The bytes behind the tag that belong to the term itself, and in *inside how many terms follow. */
static size_t own_size(const uint8_t *p, uint64_t *inside)
{
    *inside = 0;
    switch (p[0]) {
    case TAG_SMALL_INTEGER:
        return 1;
    case TAG_INTEGER:
        return 4;
    case TAG_NEW_FLOAT:
        return 8;
    case TAG_SMALL_ATOM:
    case TAG_SMALL_ATOM_UTF8:
        return 1 + (size_t)p[1];
    case TAG_ATOM:
    case TAG_ATOM_UTF8:
    case TAG_STRING:
        return 2 + (size_t)get_u16(p + 1);
    case TAG_SMALL_TUPLE:
        *inside = p[1];
        return 1;
    case TAG_LARGE_TUPLE:
        *inside = get_u32(p + 1);
        return 4;
    case TAG_LIST:
        *inside = (uint64_t)get_u32(p + 1) + 1;
        return 4;
    case TAG_MAP:
        *inside = (uint64_t)get_u32(p + 1) * 2;
        return 4;
    case TAG_BINARY:
        return 4 + (size_t)get_u32(p + 1);
    case TAG_BIT_BINARY:
    case TAG_LARGE_BIG:
        return 5 + (size_t)get_u32(p + 1);
    case TAG_SMALL_BIG:
        return 2 + (size_t)p[1];
    case TAG_NEW_PID:
    case TAG_V4_PORT:
        return 1 + own_size(p + 1, inside) + 12;
    case TAG_NEW_PORT:
        return 1 + own_size(p + 1, inside) + 8;
    case TAG_NEWER_REFERENCE:
        return 2 + 1 + own_size(p + 3, inside) + 4 + 4 * (size_t)get_u16(p + 1);
    case TAG_EXPORT:
        *inside = 3;
        return 0;
    case TAG_NEW_FUN: /* its size counts itself, and all that is inside */
        return get_u32(p + 1);
    default: /* TAG_NIL */
        return 0;
    }
}

size_t term_size(const uint8_t *data)
{
    const uint8_t *p = data;

    for (uint64_t left = 1, inside; left > 0; left += inside - 1)
        p += 1 + own_size(p, &inside);
    return (size_t)(p - data);
}
