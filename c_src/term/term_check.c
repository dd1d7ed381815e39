/* SPDX-License-Identifier: Apache-2.0 */
#include "term/term_check.h"

#include "term/tags.h"

#include <errno.h>
#include <stdbool.h>
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
static uint8_t take_u8(struct reader *r)
{
    const uint8_t *p = take(r, 1);

    return p ? p[0] : 0;
}

static uint32_t take_u16(struct reader *r)
{
    const uint8_t *p = take(r, 2);

    return p ? (uint32_t)p[0] << 8 | p[1] : 0;
}

static uint32_t take_u32(struct reader *r)
{
    const uint8_t *p = take(r, 4);

    return p ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
}

/* Counts the characters of strict UTF-8 (no surrogates, no overlong forms), or -1. */
static int utf8_length(const uint8_t *s, size_t len)
{
    int count = 0;

    for (size_t i = 0; i < len; count++) {
        uint8_t c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : 3;
        if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || len - i <= more)
            return -1;
        for (size_t k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return -1;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) ||
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f))
            return -1;
        i += more + 1;
    }
    return count;
}

static bool is_ascii(const uint8_t *s, size_t len)
{
    uint64_t any = 0;

    /* Most atoms are node names and such: eight bytes at a time are worth it. */
    for (; len >= sizeof any; s += sizeof any, len -= sizeof any) {
        uint64_t eight;
        memcpy(&eight, s, sizeof eight);
        any |= eight;
    }
    for (; len > 0; s++, len--)
        any |= *s;
    return (any & UINT64_C(0x8080808080808080)) == 0;
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
    if (utf8 && !is_ascii(s, len))
        chars = utf8_length(s, len);
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

static void check_reference(struct reader *r, size_t creation_size)
{
    uint32_t words = take_u16(r);

    /* OTP's own limit; ei's erlang_ref holds no more either. */
    if (words < 1 || words > 5)
        r->bad = true;
    check_any_atom(r);
    take(r, creation_size + 4 * (size_t)words);
}

static void check_float(struct reader *r, bool text)
{
    if (!text) {
        const uint8_t *p = take(r, 8);
        /* All exponent bits set: infinity or not a number, which no Erlang node takes. */
        if (p && (p[0] & 0x7f) == 0x7f && (p[1] & 0xf0) == 0xf0)
            r->bad = true;
        return;
    }
    const uint8_t *p = take(r, 31);
    if (!p)
        return;
    size_t len = strnlen((const char *)p, 31);
    if (len == 0 || len == 31 || strspn((const char *)p, " +-.0123456789eE") != len)
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
    uint8_t tag = take_u8(r);
    if (tag != TAG_NEW_PID && tag != TAG_PID)
        r->bad = true;
    check_any_atom(r);
    take(r, tag == TAG_PID ? 9 : 12);
    if (size < 4 || size > r->len - start)
        r->bad = true;
    return (struct level){free_variables, start + size};
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
    case TAG_FLOAT:
        check_float(r, tag == TAG_FLOAT);
        break;
    case TAG_ATOM:
    case TAG_SMALL_ATOM:
    case TAG_ATOM_UTF8:
    case TAG_SMALL_ATOM_UTF8:
        check_atom(r, tag);
        break;
    case TAG_SMALL_TUPLE:
        return (struct level){take_u8(r), 0};
    case TAG_LARGE_TUPLE:
        return (struct level){take_u32(r), 0};
    case TAG_NIL:
        break;
    case TAG_STRING:
        take(r, take_u16(r));
        break;
    case TAG_LIST:
        return (struct level){(uint64_t)take_u32(r) + 1, 0};
    case TAG_MAP:
        return (struct level){(uint64_t)take_u32(r) * 2, 0};
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
    case TAG_PID:
        check_any_atom(r);
        take(r, 9);
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
        check_reference(r, 4);
        break;
    case TAG_NEW_REFERENCE:
        check_reference(r, 1);
        break;
    case TAG_EXPORT:
        check_export(r);
        break;
    case TAG_NEW_FUN:
        return check_fun(r);
    default:
        r->bad = true;
    }
    return (struct level){0, 0};
}

ssize_t term_check(const uint8_t *data, size_t len)
{
    struct reader r = {.data = data, .len = len};
    struct level stack[TERM_MAX_DEPTH + 1];
    size_t depth = 0;

    stack[0] = (struct level){1, 0};
    for (;;) {
        while (stack[depth].left == 0) {
            if (stack[depth].must_end && stack[depth].must_end != r.pos)
                return -EBADMSG;
            if (depth == 0)
                return (ssize_t)r.pos;
            depth--;
        }
        stack[depth].left--;
        struct level inside = check_one(&r);
        /* Every term takes a byte at least: a count that the rest of the data cannot hold is a lie.
         */
        if (r.bad || inside.left > r.len - r.pos)
            return -EBADMSG;
        if (inside.left == 0 && inside.must_end == 0)
            continue;
        if (depth == TERM_MAX_DEPTH)
            return -E2BIG;
        stack[++depth] = inside;
    }
}
