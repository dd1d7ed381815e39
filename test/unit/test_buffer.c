/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(test_empty)
{
    struct buffer b;

    buffer_init(&b);
    ck_assert_uint_eq(buffer_size(&b), 0);
    ck_assert_ptr_null(buffer_data(&b));
    ck_assert_uint_eq(buffer_slice(&b).len, 0);
    buffer_append(&b, NULL, 0);
    ck_assert_uint_eq(buffer_size(&b), 0);
    buffer_consume(&b, 0);
    buffer_reset(&b, 0);
    ck_assert(!b.overflow);
    buffer_free(&b);
}
END_TEST

/* Whatever is appended and consumed, the bytes come out in order: against a plain array. */
START_TEST(test_stream)
{
    static uint8_t model[1 << 20];
    struct buffer b;
    size_t written = 0, read = 0;
    uint32_t seed = 1;

    buffer_init(&b);
    for (size_t i = 0; i < sizeof model; i++)
        model[i] = (uint8_t)(i * 31 + (i >> 8));
    while (written < sizeof model) {
        seed = seed * 1664525 + 1013904223;
        size_t size = (seed >> 8) % 5000;
        if (seed >> 31 && size <= sizeof model - written) {
            buffer_append(&b, model + written, size);
            written += size;
        } else {
            size = size < buffer_size(&b) ? size : buffer_size(&b);
            buffer_consume(&b, size);
            read += size;
        }
        if (sizeof model - written < 5000)
            break;
        ck_assert_uint_eq(buffer_size(&b), written - read);
        ck_assert(buffer_size(&b) == 0 ||
                  memcmp(buffer_data(&b), model + read, buffer_size(&b)) == 0);
    }
    ck_assert(!b.overflow);
    buffer_free(&b);
}
END_TEST

START_TEST(test_reserve_and_grow)
{
    struct buffer b;

    buffer_init(&b);
    uint8_t *room = buffer_reserve(&b, 100000);
    ck_assert_ptr_nonnull(room);
    memset(room, 'x', 100000);
    ck_assert_uint_eq(buffer_size(&b), 0);
    buffer_grow(&b, 7);
    ck_assert_uint_eq(buffer_size(&b), 7);
    ck_assert_mem_eq(buffer_data(&b), "xxxxxxx", 7);
    buffer_free(&b);
}
END_TEST

START_TEST(test_truncate)
{
    struct buffer b;

    buffer_init(&b);
    buffer_append(&b, "one two", 7);
    buffer_consume(&b, 4);
    buffer_append(&b, " three", 6);
    buffer_truncate(&b, 3);
    ck_assert_uint_eq(buffer_size(&b), 3);
    ck_assert_mem_eq(buffer_data(&b), "two", 3);
    buffer_free(&b);
}
END_TEST

/* A size that cannot be: marked, nothing is lost, and later appends do nothing until it is cleared.
 */
START_TEST(test_overflow)
{
    struct buffer b;

    buffer_init(&b);
    buffer_append(&b, "kept", 4);
    ck_assert_ptr_null(buffer_reserve(&b, SIZE_MAX));
    ck_assert(b.overflow);
    buffer_append(&b, "lost", 4);
    ck_assert_uint_eq(buffer_size(&b), 4);
    buffer_truncate(&b, 4);
    ck_assert(!b.overflow);
    buffer_append(&b, "more", 4);
    ck_assert_mem_eq(buffer_data(&b), "keptmore", 8);
    ck_assert_ptr_null(buffer_reserve(&b, SIZE_MAX / 2));
    ck_assert(b.overflow);
    buffer_reset(&b, 1 << 20);
    ck_assert(!b.overflow);
    ck_assert_uint_eq(buffer_size(&b), 0);
    buffer_free(&b);
}
END_TEST

START_TEST(test_reset)
{
    static const uint8_t much[10000];
    struct buffer b;

    buffer_init(&b);
    buffer_append(&b, much, sizeof much);
    const uint8_t *before = b.data;
    buffer_reset(&b, b.capacity);
    ck_assert_ptr_eq(b.data, before);
    buffer_append(&b, much, sizeof much);
    buffer_reset(&b, b.capacity - 1);
    ck_assert_ptr_null(b.data);
    ck_assert_uint_eq(b.capacity, 0);
    buffer_free(&b);
}
END_TEST

START_TEST(test_slices)
{
    struct slice none = {0}, text = slice_of("text");

    ck_assert_uint_eq(text.len, 4);
    ck_assert(slice_equal(text, slice_of("text")));
    ck_assert(!slice_equal(text, slice_of("tex")));
    ck_assert(!slice_equal(text, slice_of("next")));
    ck_assert(slice_equal(none, slice_of("")));
    uint8_t *copy = slice_copy(text), *empty = slice_copy(none);
    ck_assert_mem_eq(copy, "text", 4);
    ck_assert_ptr_nonnull(empty);
    free(copy);
    free(empty);
}
END_TEST

Suite *suite_buffer(void);
Suite *suite_buffer(void)
{
    Suite *s = suite_create("buffer");
    TCase *tc = tcase_create("all");

    tcase_add_test(tc, test_empty);
    tcase_add_test(tc, test_stream);
    tcase_add_test(tc, test_reserve_and_grow);
    tcase_add_test(tc, test_truncate);
    tcase_add_test(tc, test_overflow);
    tcase_add_test(tc, test_reset);
    tcase_add_test(tc, test_slices);
    suite_add_tcase(s, tc);
    return s;
}
