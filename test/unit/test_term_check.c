/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"
#include "term/tags.h"
#include "term/term_check.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A good term of every tag. */
#define TERM(text)             \
    {                          \
        text, sizeof(text) - 1 \
    }

#define NODE  "w\4n@hh"
#define UID16 "0123456789abcdef"

static const struct term {
    const char *bytes;
    size_t len;
} good[] = {
    TERM("a\xff"),
    TERM("b\xff\xff\xff\xfe"),
    TERM("F\x3f\xf0\0\0\0\0\0\0"),
    TERM("F\x7f\xef\xff\xff\xff\xff\xff\xff"), /* the largest */
    TERM("F\x80\0\0\0\0\0\0\0"),               /* -0.0 */
    TERM("d\0\2ok"),
    TERM("d\0\0"),
    TERM("s\2ok"),
    TERM("v\0\2ok"),
    TERM("w\2\xc3\xa9"),
    TERM("w\4\xf0\x90\x80\x80"),
    TERM("w\4\xf4\x8f\xbf\xbf"),
    TERM("w\0"),
    TERM("h\0"),
    TERM("h\2a\1h\1a\2"),
    TERM("i\0\0\0\2a\1a\2"),
    TERM("i\0\0\0\0"),
    TERM("j"),
    TERM("k\0\3abc"),
    TERM("k\0\0"),
    TERM("l\0\0\0\2a\1a\2j"),
    TERM("l\0\0\0\1a\1a\2"), /* improper */
    TERM("l\0\0\0\0a\1"),    /* as OTP takes it */
    TERM("m\0\0\0\3abc"),
    TERM("m\0\0\0\0"),
    TERM("M\0\0\0\2\5ab"),
    TERM("M\0\0\0\0\0"),
    TERM("n\2\0ab"),
    TERM("n\0\1"),
    TERM("o\0\0\0\2\1ab"),
    TERM("t\0\0\0\2a\1a\2a\3a\4"),
    TERM("t\0\0\0\0"),
    TERM("X" NODE "\0\0\0\1\0\0\0\2\0\0\0\3"),
    TERM("x" NODE "\0\0\0\0\0\0\0\2\0\0\0\3"),
    TERM("Y" NODE "\0\0\0\1\0\0\0\2"),
    TERM("Z\0\1" NODE "\0\0\0\1\0\0\0\2"),
    TERM("Z\0\5" NODE "\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5\0\0\0\6"),
    TERM("qw\1mw\1fa\2"),
    /* A fun of 57 bytes with one free variable. */
    TERM("p\0\0\0\x39\1" UID16 "\0\0\0\0\0\0\0\1w\1ma\0a\0X" NODE "\0\0\0\1\0\0\0\2\0\0\0\3a\7"),
};

static const struct term bad[] = {
    /* Forms that no node sends to one with our flags. */
    TERM("c1.00000000000000000000e+00\0\0\0\0\0"),
    TERM("s\1\xe9"), /* Latin-1 */
    TERM("g" NODE "\0\0\0\1\0\0\0\2\3"),
    TERM("r\0\3" NODE "\1\0\0\0\2\0\0\0\3\0\0\0\4"),
    TERM("F\x7f\xf0\0\0\0\0\0\0"), /* infinite */
    TERM("F\xff\xf0\0\0\0\0\0\0"), /* minus infinite */
    TERM("F\x7f\xf8\0\0\0\0\0\0"), /* not a number */
    TERM("Fw\xff\xff"),
    TERM("w\1\xe9"),             /* Latin-1 where UTF-8 must be */
    TERM("w\2\xc0\x80"),         /* overlong */
    TERM("w\3\xe0\x80\x80"),     /* overlong */
    TERM("w\4\xf0\x8f\xbf\xbf"), /* overlong */
    TERM("w\3\xed\xa0\x80"),     /* a surrogate */
    TERM("w\4\xf4\x90\x80\x80"), /* above U+10FFFF */
    TERM("w\1\x80"),
    TERM("w\2\xc3\x28"),
    TERM("w\1\xc3"),               /* cut within a character */
    TERM("t\0\0\0\2a\1a\2a\1a\3"), /* a key twice */
    TERM("M\0\0\0\0\5"),           /* bits of no byte */
    TERM("M\0\0\0\1\0a"),
    TERM("M\0\0\0\1\x09"
         "a"),
    TERM("n\1\2a"), /* a sign that is none */
    TERM("Z\0\0" NODE "\0\0\0\1"),
    TERM("Z\0\6" NODE "\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5\0\0\0\6\0\0\0\7"),
    TERM("Xa\1\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\0\0"), /* a node that is no atom */
    TERM("qw\1mw\1fb\0\0\0\2"),                     /* an arity of another tag */
    TERM("qw\1ma\1a\2\0\0\0"),
    TERM("D\0"),                     /* an atom cache header */
    TERM("P\0\0\0\1x"),              /* compressed */
    TERM("R\0"),                     /* an atom cache reference */
    TERM("y\0\0\0\0\0\0\0\0a\1"),    /* a local term */
    TERM("u\0\0\0\0"),               /* a fun of before R8 */
    TERM("e" NODE "\0\0\0\1\1\0\0"), /* a reference of before R7 */
    TERM("\x83"
         "a\1"),
    TERM("\0"),
};

/* The check of a copy that ends where the term does, so that valgrind sees the first byte too many.
 */
static ssize_t check(const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, len);
    ssize_t result = term_check(copy, len);
    free(copy);
    return result;
}

START_TEST(test_good)
{
    const struct term *t = &good[_i];
    uint8_t longer[200];

    ck_assert_int_eq(check(t->bytes, t->len), (ssize_t)t->len);
    ck_assert_uint_eq(term_size((const uint8_t *)t->bytes), t->len);
    for (size_t len = 0; len < t->len; len++)
        ck_assert_msg(check(t->bytes, len) == -EBADMSG, "term %d of %zu bytes", _i, len);
    /* What follows is not of its business. */
    memcpy(longer, t->bytes, t->len);
    memset(longer + t->len, 0xff, 8);
    ck_assert_int_eq(check(longer, t->len + 8), (ssize_t)t->len);
}
END_TEST

START_TEST(test_bad)
{
    ck_assert_msg(check(bad[_i].bytes, bad[_i].len) == -EBADMSG, "term %d", _i);
}
END_TEST

/* Every tag that is not in the list of those that we know. */
START_TEST(test_unknown_tags)
{
    uint8_t bytes[64] = {0};

    for (int tag = 0; tag < 256; tag++) {
        bool known = false;
        for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
            known |= (uint8_t)good[i].bytes[0] == tag;
        bytes[0] = (uint8_t)tag;
        if (!known)
            ck_assert_int_eq(check(bytes, sizeof bytes), -EBADMSG);
    }
}
END_TEST

/* Counts far beyond what is there must be refused at once, and cost nothing. */
START_TEST(test_huge_claims)
{
    static const char tags[] = {TAG_LARGE_TUPLE, TAG_LIST,      TAG_MAP, TAG_BINARY,
                                TAG_BIT_BINARY,  TAG_LARGE_BIG, 0};
    static const uint32_t counts[] = {0xffffffff, 0x80000000, 0x7fffffff, 0x10000, 60};
    uint8_t bytes[60];

    for (const char *tag = tags; *tag; tag++) {
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            memset(bytes, TAG_NIL, sizeof bytes);
            bytes[0] = (uint8_t)*tag;
            for (int k = 0; k < 4; k++)
                bytes[1 + k] = (uint8_t)(counts[i] >> (24 - 8 * k));
            bytes[5] = 1;
            ck_assert_int_eq(check(bytes, sizeof bytes), -EBADMSG);
        }
    }
}
END_TEST

/* `depth` containers, one in the other, around nil. */
static ssize_t check_nested(uint8_t tag, size_t depth)
{
    static uint8_t bytes[2000000];
    size_t at = 0;

    for (size_t i = 0; i < depth; i++) {
        bytes[at++] = tag;
        if (tag == TAG_SMALL_TUPLE) {
            bytes[at++] = 1;
            continue;
        }
        memcpy(bytes + at, "\0\0\0\1", 4);
        at += 4;
        if (tag == TAG_MAP) {
            bytes[at++] = TAG_NIL;
        }
    }
    bytes[at++] = TAG_NIL;
    if (tag == TAG_LIST) {
        memset(bytes + at, TAG_NIL, depth);
        at += depth;
    }
    ssize_t result = check(bytes, at);
    return result == (ssize_t)at ? 0 : result;
}

START_TEST(test_depth)
{
    static const uint8_t tags[] = {TAG_SMALL_TUPLE, TAG_LARGE_TUPLE, TAG_LIST, TAG_MAP};
    uint8_t tag = tags[_i];

    ck_assert_int_eq(check_nested(tag, 1), 0);
    ck_assert_int_eq(check_nested(tag, TERM_MAX_DEPTH), 0);
    ck_assert_int_eq(check_nested(tag, TERM_MAX_DEPTH + 1), -E2BIG);
    ck_assert_int_eq(check_nested(tag, 200000), -E2BIG);
}
END_TEST

/* 255 characters are allowed, however many bytes they take. */
START_TEST(test_atom_length)
{
    static const struct {
        const char *character;
        size_t size;
    } characters[] = {{"a", 1}, {"\xc3\xa9", 2}, {"\xe2\x82\xac", 3}, {"\xf0\x9f\x98\x80", 4}};
    uint8_t bytes[3 + 4 * 256];

    for (size_t i = 0; i < 4; i++) {
        for (size_t count = 255; count <= 256; count++) {
            size_t size = count * characters[i].size;
            bytes[0] = TAG_ATOM_UTF8;
            bytes[1] = (uint8_t)(size >> 8);
            bytes[2] = (uint8_t)size;
            for (size_t k = 0; k < count; k++)
                memcpy(bytes + 3 + k * characters[i].size, characters[i].character,
                       characters[i].size);
            ck_assert_int_eq(check(bytes, 3 + size), count == 255 ? (ssize_t)(3 + size) : -EBADMSG);
        }
    }
    memset(bytes, 'a', sizeof bytes);
    memcpy(bytes, "d\1\0", 3);
    ck_assert_int_eq(check(bytes, 3 + 256), -EBADMSG);
    memcpy(bytes, "d\0\xff", 3);
    ck_assert_int_eq(check(bytes, 3 + 255), 3 + 255);
}
END_TEST

static const struct term twice[] = {
    TERM("t\0\0\0\2a\1a\2b\0\0\0\1a\3"), /* one number in two forms */
    TERM("t\0\0\0\2v\0\1xjw\1xj"),       /* one atom in two forms */
    TERM("t\0\0\0\3w\1xja\1jw\1xj"),
    TERM("t\0\0\0\2a\1t\0\0\0\2w\1xjw\1xja\2j"), /* in a value */
    TERM("t\0\0\0\2t\0\0\0\2w\1xjw\1xjja\2j"),   /* in a key */
};

/* OTP ends the connection over a map that has a key twice, however it is written. */
START_TEST(test_keys)
{
    for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++)
        ck_assert_int_eq(check(twice[i].bytes, twice[i].len), -EBADMSG);
    ck_assert_int_eq(check("t\0\0\0\2a\1t\0\0\0\1a\1ja\2j", 18), 18);
}
END_TEST

/* A list of `count` maps of one key each. */
static size_t put_maps(uint8_t *to, uint32_t count)
{
    uint8_t *p = to;

    *p++ = TAG_LIST;
    put_u32(p, count);
    p += 4;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(p, "t\0\0\0\1a\1j", 8);
        p += 8;
    }
    *p++ = TAG_NIL;
    return (size_t)(p - to);
}

/* Keys are counted over all maps of a term. */
START_TEST(test_many_keys)
{
    uint8_t *bytes = malloc(16 + 8 * (TERM_MAX_KEYS + 1));
    size_t len;

    ck_assert_ptr_nonnull(bytes);
    len = put_maps(bytes, TERM_MAX_KEYS);
    ck_assert_int_eq(term_check(bytes, len), (ssize_t)len);
    len = put_maps(bytes, TERM_MAX_KEYS + 1);
    ck_assert_int_eq(term_check(bytes, len), -E2BIG);
    free(bytes);
}
END_TEST

/* A list of so many empty ones, with its own end a term more. */
static size_t put_nils(uint8_t *to, uint32_t count)
{
    const uint8_t head[] = {TAG_LIST, (uint8_t)(count >> 24), (uint8_t)(count >> 16),
                            (uint8_t)(count >> 8), (uint8_t)count};

    memcpy(to, head, sizeof head);
    memset(to + sizeof head, TAG_NIL, count + 1);
    return sizeof head + count + 1;
}

START_TEST(test_many_terms)
{
    uint8_t *bytes = malloc(16 + TERM_MAX_TERMS);
    size_t len;

    ck_assert_ptr_nonnull(bytes);
    len = put_nils(bytes, TERM_MAX_TERMS - 2);
    ck_assert_int_eq(term_check(bytes, len), (ssize_t)len);
    len = put_nils(bytes, TERM_MAX_TERMS - 1);
    ck_assert_int_eq(term_check(bytes, len), -E2BIG);
    free(bytes);
}
END_TEST

/* The size that a fun tells must be its own. */
START_TEST(test_fun_size)
{
    const struct term *fun = &good[sizeof good / sizeof good[0] - 1];
    uint8_t bytes[100];

    ck_assert_int_eq(fun->bytes[0], TAG_NEW_FUN);
    for (int size = 0; size < 256; size++) {
        memset(bytes, TAG_NIL, sizeof bytes);
        memcpy(bytes, fun->bytes, fun->len);
        bytes[4] = (uint8_t)size;
        ck_assert_int_eq(check(bytes, sizeof bytes),
                         (size_t)size == fun->len - 1 ? (ssize_t)fun->len : -EBADMSG);
    }
    memcpy(bytes, fun->bytes, fun->len);
    memset(bytes + 1, 0xff, 4);
    ck_assert_int_eq(check(bytes, fun->len), -EBADMSG);
    /* More free variables than there are. */
    memcpy(bytes, fun->bytes, fun->len);
    bytes[26 + 3] = 2;
    ck_assert_int_eq(check(bytes, fun->len), -EBADMSG);
}
END_TEST

Suite *suite_term_check(void);
Suite *suite_term_check(void)
{
    Suite *s = suite_create("term_check");
    TCase *tc = tcase_create("all");

    tcase_add_loop_test(tc, test_good, 0, sizeof good / sizeof good[0]);
    tcase_add_loop_test(tc, test_bad, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(tc, test_unknown_tags);
    tcase_add_test(tc, test_huge_claims);
    tcase_add_loop_test(tc, test_depth, 0, 4);
    tcase_add_test(tc, test_atom_length);
    tcase_add_test(tc, test_keys);
    tcase_add_test(tc, test_many_keys);
    tcase_add_test(tc, test_many_terms);
    tcase_add_test(tc, test_fun_size);
    suite_add_tcase(s, tc);
    return s;
}
