/* SPDX-License-Identifier: Apache-2.0 */
/* What is written passes the check and is read as it was meant. */
#include "term/cursor.h"
#include "term/tags.h"
#include "term/term_check.h"
#include "term/term_write.h"

#include <check.h>
#include <ei.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

static struct buffer b;

static void set_up(void)
{
    buffer_init(&b);
}

static void tear_down(void)
{
    buffer_free(&b);
}

/* The one term that was written. */
static struct cursor written(void)
{
    ck_assert(!b.overflow);
    ck_assert_int_eq(term_check(buffer_data(&b), buffer_size(&b)), (ssize_t)buffer_size(&b));
    return cursor_of(buffer_slice(&b));
}

static void next(void)
{
    buffer_reset(&b, SIZE_MAX);
}

START_TEST(test_integers)
{
    static const int64_t edges[] = {
        0,        1,         -1,       127,       128,       255,      256,
        65535,    1 << 27,   1 << 28,  INT32_MAX, INT32_MIN, 1L << 31, -(1L << 31) - 1,
        1L << 32, INT64_MAX, INT64_MIN};
    int64_t value;

    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        for (int64_t change = -1; change <= 1; change++) {
            if ((change < 0 && edges[i] == INT64_MIN) || (change > 0 && edges[i] == INT64_MAX))
                continue;
            term_put_int(&b, edges[i] + change);
            struct cursor c = written();
            ck_assert(cursor_int(&c, &value));
            ck_assert_int_eq(value, edges[i] + change);
            next();
        }
    }
}
END_TEST

START_TEST(test_floats)
{
    static const double values[] = {0.0, -0.0, 1.5, -1e300, DBL_MIN, DBL_MAX, 5e-324};
    double value;

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        term_put_float(&b, values[i]);
        struct cursor c = written();
        ck_assert_int_eq(ei_decode_double(c.data, &c.at, &value), 0);
        ck_assert_mem_eq(&value, &values[i], sizeof value);
        next();
    }
}
END_TEST

START_TEST(test_atoms)
{
    char long_name[4 * 255 + 1];
    struct slice name;

    for (size_t len = 0; len <= 255; len += 51) {
        memset(long_name, 'a', len);
        long_name[len] = 0;
        term_put_atom(&b, long_name);
        struct cursor c = written();
        ck_assert(cursor_atom(&c, &name) && slice_is(name, long_name));
        next();
    }
    for (size_t i = 0; i < 255; i++)
        memcpy(long_name + 4 * i, "\xf0\x9f\x98\x80", 5);
    term_put_atom(&b, long_name);
    struct cursor c = written();
    ck_assert(cursor_atom(&c, &name) && slice_is(name, long_name));
}
END_TEST

START_TEST(test_binaries)
{
    uint8_t *bytes = malloc(1 << 20);
    struct slice found;

    ck_assert_ptr_nonnull(bytes);
    memset(bytes, 0x83, 1 << 20);
    for (size_t len = 0; len <= 1 << 20; len = 2 * len + 1) {
        term_put_binary(&b, (struct slice){bytes, len});
        struct cursor c = written();
        ck_assert(cursor_binary(&c, &found));
        ck_assert(slice_equal(found, (struct slice){bytes, len}));
        next();
    }
    free(bytes);
}
END_TEST

START_TEST(test_pids_and_references)
{
    const struct pid pid = {slice_of("node@host"), 0x12345678, 0xfffffff0, 0xffffffff};
    struct pid found;
    struct slice raw;
    uint64_t number;

    term_put_pid(&b, &pid);
    struct cursor c = written();
    ck_assert(cursor_pid(&c, &found) && pid_equal(&found, &pid));
    for (uint64_t n = 1; n != 0; n <<= 1) {
        next();
        term_put_reference(&b, pid.node, 7, n | 1);
        c = written();
        ck_assert(cursor_reference(&c, &raw));
        ck_assert(reference_number(raw, pid.node, 7, &number));
        ck_assert_uint_eq(number, n | 1);
    }
}
END_TEST

START_TEST(test_containers)
{
    struct slice raw;
    int count;

    term_put_tuple(&b, 5);
    term_put_list(&b, 2);
    term_put_atoms(&b, 2, "error", "none");
    term_put_nil(&b);
    term_put_nil(&b);
    term_put_map(&b, 1);
    term_put_string(&b, "");
    term_put_string(&b, "a string");
    term_put_tuple(&b, 0);
    term_put_map(&b, 0);
    term_put_raw(&b, slice_of("a\7"));
    struct cursor c = written();
    ck_assert(cursor_tuple(&c, 5));
    ck_assert(cursor_list(&c, &count) && count == 2);
    ck_assert(cursor_tuple(&c, 2) && cursor_is_atom(&c, "error") && cursor_is_atom(&c, "none"));
    ck_assert(cursor_list(&c, &count) && count == 0);
    ck_assert(cursor_list(&c, &count) && count == 0);
    ck_assert(cursor_map(&c, &count) && count == 1);
    ck_assert(cursor_list(&c, &count) && count == 0);
    ck_assert_uint_eq(cursor_tag(&c), TAG_STRING);
    ck_assert(cursor_term(&c, &raw) && raw.len == 3 + strlen("a string"));
    ck_assert(cursor_tuple(&c, 0));
    ck_assert(cursor_map(&c, &count) && count == 0);
    ck_assert(cursor_term(&c, &raw) && slice_is(raw, "a\7"));
    ck_assert_int_eq(c.at, c.end);
}
END_TEST

/* Tuples of more than 255 elements have another tag. */
START_TEST(test_large_tuple)
{
    term_put_tuple(&b, 256);
    for (int i = 0; i < 256; i++)
        term_put_nil(&b);
    struct cursor c = written();
    ck_assert_uint_eq(cursor_tag(&c), TAG_LARGE_TUPLE);
    ck_assert(cursor_tuple(&c, 256));
}
END_TEST

START_TEST(test_open_lists)
{
    int count;

    for (uint32_t length = 0; length < 3; length++) {
        term_put_tuple(&b, 2);
        size_t opened = term_open_list(&b);
        for (uint32_t i = 0; i < length; i++)
            term_put_int(&b, i);
        term_close_list(&b, opened, length);
        term_put_atom(&b, "behind");
        struct cursor c = written();
        ck_assert(cursor_tuple(&c, 2) && cursor_list(&c, &count));
        ck_assert_int_eq(count, (int)length);
        next();
    }
    /* A list in a buffer that has run over stays as it is. */
    size_t opened = term_open_list(&b);
    b.overflow = true;
    term_close_list(&b, opened, 1);
    ck_assert(b.overflow);
}
END_TEST

/* Nothing is written behind an overflow. */
/* A map within a map, one with a key that is no atom, and one without pairs. */
START_TEST(test_open_maps)
{
    struct term_map outer, inner;
    int count;

    term_put_tuple(&b, 2);
    term_open_map(&outer, &b);
    term_put_key(&outer, "inner");
    term_open_map(&inner, &b);
    for (int i = 0; i < 300; i++) {
        term_count_pair(&inner);
        term_put_int(&b, i);
        term_put_nil(&b);
    }
    term_close_map(&inner);
    term_put_key(&outer, "more");
    term_put_int(&b, 1);
    term_close_map(&outer);
    term_open_map(&outer, &b);
    term_close_map(&outer);
    struct cursor c = written();
    ck_assert(cursor_tuple(&c, 2));
    ck_assert(cursor_map(&c, &count) && count == 2);
    ck_assert(cursor_is_atom(&c, "inner"));
    ck_assert(cursor_map(&c, &count) && count == 300);
    for (int i = 0; i < 300; i++) {
        int64_t key;
        ck_assert(cursor_int(&c, &key) && key == i);
        ck_assert(cursor_list(&c, &count) && count == 0);
    }
    ck_assert(cursor_is_atom(&c, "more"));
    int64_t one;
    ck_assert(cursor_int(&c, &one) && one == 1);
    ck_assert(cursor_map(&c, &count) && count == 0);
    ck_assert_int_eq(c.at, c.end);
}
END_TEST

START_TEST(test_overflow)
{
    term_put_int(&b, 1);
    b.overflow = true;
    size_t size = buffer_size(&b);
    term_put_version(&b);
    term_put_tuple(&b, 1);
    term_put_atom(&b, "x");
    term_put_int(&b, 1);
    term_put_binary(&b, slice_of("x"));
    term_put_pid(&b, &(struct pid){slice_of("n@h"), 1, 2, 3});
    term_put_reference(&b, slice_of("n@h"), 1, 2);
    term_put_string(&b, "x");
    term_put_raw(&b, slice_of("x"));
    struct term_map map;
    term_open_map(&map, &b);
    term_put_key(&map, "x");
    term_close_map(&map);
    ck_assert_uint_eq(buffer_size(&b), size);
    ck_assert(b.overflow);
}
END_TEST

Suite *suite_term_write(void);
Suite *suite_term_write(void)
{
    Suite *s = suite_create("term_write");
    TCase *tc = tcase_create("all");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, test_integers);
    tcase_add_test(tc, test_floats);
    tcase_add_test(tc, test_atoms);
    tcase_add_test(tc, test_binaries);
    tcase_add_test(tc, test_pids_and_references);
    tcase_add_test(tc, test_containers);
    tcase_add_test(tc, test_large_tuple);
    tcase_add_test(tc, test_open_lists);
    tcase_add_test(tc, test_open_maps);
    tcase_add_test(tc, test_overflow);
    suite_add_tcase(s, tc);
    return s;
}
