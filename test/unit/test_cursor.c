/* SPDX-License-Identifier: Apache-2.0 */
#include "term/cursor.h"
#include "term/tags.h"
#include "term/term_check.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define BYTES(text)                               \
    (struct slice)                                \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }

/* Which reader a term is for. */
enum reader {
    NONE = 0,
    TUPLE = 1 << 0,
    LIST = 1 << 1,
    MAP = 1 << 2,
    ATOM = 1 << 3,
    BOOL = 1 << 4,
    INT = 1 << 5,
    BINARY = 1 << 6,
    PID = 1 << 7,
    REFERENCE = 1 << 8,
};

#define NODE "w\3n@h"

static const struct {
    struct slice term;
    unsigned readers;
} terms[] = {
    {{(const uint8_t *)"a\7", 2}, INT},
    {{(const uint8_t *)"b\xff\xff\xff\xff", 5}, INT},
    {{(const uint8_t *)"n\x08\0\xff\xff\xff\xff\xff\xff\xff\x7f", 11}, INT},
    {{(const uint8_t *)"n\x08\1\0\0\0\0\0\0\0\x80", 11}, INT},
    {{(const uint8_t *)"n\x08\0\0\0\0\0\0\0\0\x80", 11}, NONE}, /* 2^63 */
    {{(const uint8_t *)"n\x09\0\0\0\0\0\0\0\0\0\1", 12}, NONE},
    {{(const uint8_t *)"F\x3f\xf8\0\0\0\0\0\0", 9}, NONE},
    {{(const uint8_t *)"w\2ok", 4}, ATOM},
    {{(const uint8_t *)"w\0", 2}, ATOM},
    {{(const uint8_t *)"v\0\2ok", 5}, ATOM},
    {{(const uint8_t *)"d\0\2ok", 5}, ATOM},
    {{(const uint8_t *)"s\4true", 6}, ATOM | BOOL},
    {{(const uint8_t *)"w\5false", 7}, ATOM | BOOL},
    {{(const uint8_t *)"h\2a\1a\2", 6}, TUPLE},
    {{(const uint8_t *)"i\0\0\0\1a\1", 7}, TUPLE},
    {{(const uint8_t *)"h\0", 2}, TUPLE},
    {{(const uint8_t *)"l\0\0\0\1a\1j", 8}, LIST},
    {{(const uint8_t *)"l\0\0\0\1a\1a\2", 9}, LIST},
    {{(const uint8_t *)"l\0\0\0\0a\1", 7}, NONE},
    {{(const uint8_t *)"j", 1}, LIST},
    {{(const uint8_t *)"k\0\3abc", 6}, NONE},
    {{(const uint8_t *)"t\0\0\0\1a\1a\2", 9}, MAP},
    {{(const uint8_t *)"t\0\0\0\0", 5}, MAP},
    {{(const uint8_t *)"m\0\0\0\2ab", 7}, BINARY},
    {{(const uint8_t *)"m\0\0\0\0", 5}, BINARY},
    {{(const uint8_t *)"M\0\0\0\1\5a", 7}, NONE},
    {{(const uint8_t *)"X" NODE "\0\0\0\1\0\0\0\2\0\0\0\3", 18}, PID},
    {{(const uint8_t *)"Y" NODE "\0\0\0\1\0\0\0\2", 14}, NONE},
    {{(const uint8_t *)"Z\0\1" NODE "\0\0\0\1\0\0\0\2", 16}, REFERENCE},
    {{(const uint8_t *)"qw\1mw\1fa\2", 9}, NONE},
};

/* Where the cursor is after each reader: moved by those that match, and by no other. */
START_TEST(test_readers)
{
    struct slice term = terms[_i].term;
    const unsigned readers = terms[_i].readers;
    struct cursor c = cursor_of(term);
    struct slice slice;
    struct pid pid;
    int64_t integer;
    bool flag;
    int count;

    ck_assert_int_eq(term_check(term.data, term.len), (ssize_t)term.len);
    ck_assert_uint_eq(cursor_tag(&c), term.data[0]);
#define READ(reader, call)                                                                 \
    do {                                                                                   \
        c.at = 0;                                                                          \
        ck_assert_msg((call) == !!(readers & (reader)), "term %d, reader %d", _i, reader); \
        ck_assert_msg((c.at > 0) == !!(readers & (reader)), "moved %d, %d", _i, reader);   \
    } while (0)
    READ(TUPLE, cursor_any_tuple(&c, &count));
    READ(LIST, cursor_list(&c, &count));
    READ(MAP, cursor_map(&c, &count));
    READ(ATOM, cursor_atom(&c, &slice));
    READ(BOOL, cursor_bool(&c, &flag));
    READ(INT, cursor_int(&c, &integer));
    READ(BINARY, cursor_binary(&c, &slice));
    READ(PID, cursor_pid(&c, &pid));
    READ(REFERENCE, cursor_reference(&c, &slice));
#undef READ
    c.at = 0;
    ck_assert(cursor_term(&c, &slice));
    ck_assert_int_eq(c.at, c.end);
    ck_assert(slice_equal(slice, term));
}
END_TEST

/* At the end there is nothing to read, whatever lies behind it. */
START_TEST(test_end)
{
    struct cursor c = cursor_of((struct slice){(const uint8_t *)"a\1a\2", 2});
    struct slice slice;
    struct pid pid;
    int64_t integer;
    int count;

    ck_assert(cursor_int(&c, &integer));
    ck_assert_uint_eq(cursor_tag(&c), 0);
    ck_assert(!cursor_int(&c, &integer));
    ck_assert(!cursor_any_tuple(&c, &count));
    ck_assert(!cursor_list(&c, &count));
    ck_assert(!cursor_map(&c, &count));
    ck_assert(!cursor_atom(&c, &slice));
    ck_assert(!cursor_binary(&c, &slice));
    ck_assert(!cursor_pid(&c, &pid));
    ck_assert(!cursor_reference(&c, &slice));
    ck_assert(!cursor_term(&c, &slice));
    ck_assert_int_eq(c.at, 2);
}
END_TEST

START_TEST(test_values)
{
    struct cursor c = cursor_of(BYTES("h\6a\xff"
                                      "b\xff\xff\xff\xfe"
                                      "n\x08\1\0\0\0\0\0\0\0\x80"
                                      "m\0\0\0\2ab"
                                      "d\0\2ok"
                                      "l\0\0\0\2a\1a\2j"));
    struct slice slice;
    int64_t integer;
    int count;

    ck_assert(!cursor_tuple(&c, 5));
    ck_assert_int_eq(c.at, 0);
    ck_assert(cursor_tuple(&c, 6));
    ck_assert(cursor_int(&c, &integer) && integer == 255);
    ck_assert(cursor_int(&c, &integer) && integer == -2);
    ck_assert(cursor_int(&c, &integer) && integer == INT64_MIN);
    ck_assert(cursor_binary(&c, &slice) && slice_is(slice, "ab"));
    ck_assert(!cursor_is_atom(&c, "o"));
    ck_assert(!cursor_is_atom(&c, "okay"));
    ck_assert(cursor_is_atom(&c, "ok"));
    ck_assert(cursor_list(&c, &count));
    ck_assert_int_eq(count, 2);
    ck_assert(cursor_int(&c, &integer) && cursor_int(&c, &integer) && integer == 2);
    ck_assert(cursor_list(&c, &count));
    ck_assert_int_eq(count, 0);
    ck_assert_int_eq(c.at, c.end);
}
END_TEST

START_TEST(test_pids)
{
    struct cursor c = cursor_of(BYTES("X" NODE "\0\0\0\1\0\0\0\2\xff\0\0\3"));
    struct pid pid;

    ck_assert(cursor_pid(&c, &pid));
    ck_assert(slice_is(pid.node, "n@h"));
    ck_assert_uint_eq(pid.id, 1);
    ck_assert_uint_eq(pid.serial, 2);
    ck_assert_uint_eq(pid.creation, 0xff000003);
    struct pid *copy = pid_copy(&pid);
    ck_assert(pid_equal(copy, &pid));
    ck_assert_ptr_ne(copy->node.data, pid.node.data);
    copy->serial++;
    ck_assert(!pid_equal(copy, &pid));
    free(copy);
}
END_TEST

START_TEST(test_reference_number)
{
    struct slice mine = BYTES("Z\0\3" NODE "\0\0\0\7\0\3\xff\xff\xff\xff\xff\xff\0\0\x3f\xff");
    struct slice short_one = BYTES("Z\0\2" NODE "\0\0\0\7\0\0\0\1\0\0\0\0");
    struct slice old = BYTES("r\0\3" NODE "\7\0\0\0\1\0\0\0\0\0\0\0\0");
    struct slice node = slice_of("n@h");
    uint64_t number;

    ck_assert(reference_number(mine, node, 7, &number));
    ck_assert_uint_eq(number, UINT64_MAX);
    ck_assert(!reference_number(mine, node, 8, &number));
    ck_assert(!reference_number(mine, slice_of("n@i"), 7, &number));
    ck_assert(!reference_number(short_one, node, 7, &number));
    ck_assert(!reference_number(old, node, 7, &number));
    ck_assert(!reference_number((struct slice){0}, node, 7, &number));
    ck_assert(!reference_number(BYTES("a\1"), node, 7, &number));
}
END_TEST

Suite *suite_cursor(void);
Suite *suite_cursor(void)
{
    Suite *s = suite_create("cursor");
    TCase *tc = tcase_create("all");

    tcase_add_loop_test(tc, test_readers, 0, sizeof terms / sizeof terms[0]);
    tcase_add_test(tc, test_end);
    tcase_add_test(tc, test_values);
    tcase_add_test(tc, test_pids);
    tcase_add_test(tc, test_reference_number);
    suite_add_tcase(s, tc);
    return s;
}
