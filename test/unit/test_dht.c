/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/dht.h"
#include "term/term_write.h"

#include <check.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static struct buffer term;

static void set_up(void)
{
    buffer_init(&term);
}

static void tear_down(void)
{
    buffer_free(&term);
}

/* A map of one key, so that it can be told from others. */
static void put_value(int number)
{
    term_put_map(&term, 1);
    term_put_binary(&term, slice_of("number"));
    term_put_int(&term, number);
}

static int value_of(struct slice map)
{
    struct cursor value;
    int64_t number;

    ck_assert(dht_map_get(map, "number", &value) && cursor_int(&value, &number));
    return (int)number;
}

/* The numbers of the answer's maps, as text. */
static const char *values(void)
{
    static char text[100];
    struct dht_values all = {0};
    struct slice map;
    int len = 0;

    text[0] = 0;
    while (dht_next_value(buffer_slice(&term), &all, &map))
        len += snprintf(text + len, sizeof text - (size_t)len, "%d,", value_of(map));
    ck_assert(!dht_next_value(buffer_slice(&term), &all, &map));
    return text;
}

/* SHA-256 of "nat.profile.peer", of "punch.coord.a.b", and of nothing: from sha256sum. */
START_TEST(test_keys)
{
    static const uint8_t expected[][4] = {
        {0xe3, 0xe0, 0xad, 0x38}, {0x59, 0x52, 0xbb, 0x85}, {0xe3, 0xb0, 0xc4, 0x42}};
    uint8_t key[DHT_KEY_SIZE];

    ck_assert_int_eq(dht_key(key, "nat.profile.", slice_of("peer"), (struct slice){0}), 0);
    ck_assert_mem_eq(key, expected[0], 4);
    ck_assert_int_eq(dht_key(key, "punch.coord.", slice_of("a"), slice_of("b")), 0);
    ck_assert_mem_eq(key, expected[1], 4);
    ck_assert_int_eq(dht_key(key, "", (struct slice){0}, (struct slice){0}), 0);
    ck_assert_mem_eq(key, expected[2], 4);
}
END_TEST

/* Nothing may be stored under a key that is none. */
START_TEST(test_no_key)
{
    uint8_t key[DHT_KEY_SIZE];

    ck_assert_int_eq(EVP_set_default_properties(NULL, "provider=nobody"), 1);
    ck_assert_int_eq(dht_key(key, "nat.profile.", slice_of("peer"), (struct slice){0}), -EIO);
    ck_assert_int_eq(EVP_set_default_properties(NULL, NULL), 1);
    ck_assert_int_eq(dht_key(key, "nat.profile.", slice_of("peer"), (struct slice){0}), 0);
}
END_TEST

START_TEST(test_find)
{
    uint8_t key[DHT_KEY_SIZE] = {1, 2, 3};
    struct slice found;
    int64_t count;

    dht_put_find(&term, key);
    struct cursor c = cursor_of(buffer_slice(&term));
    ck_assert(cursor_tuple(&c, 3) && cursor_is_atom(&c, "find_value"));
    ck_assert(cursor_binary(&c, &found));
    ck_assert(slice_equal(found, (struct slice){key, DHT_KEY_SIZE}));
    ck_assert(cursor_int(&c, &count) && count == 20);
}
END_TEST

START_TEST(test_list_of_values)
{
    term_put_tuple(&term, 2);
    term_put_atom(&term, "ok");
    term_put_list(&term, 5);
    put_value(1);
    term_put_atom(&term, "no_map");
    put_value(2);
    term_put_nil(&term);
    put_value(3);
    term_put_nil(&term);
    ck_assert_str_eq(values(), "1,2,3,");
}
END_TEST

START_TEST(test_no_more_than_256_terms_are_looked_at)
{
    term_put_tuple(&term, 2);
    term_put_atom(&term, "ok");
    term_put_list(&term, 258);
    for (int i = 1; i < 256; i++)
        term_put_atom(&term, "no_map");
    put_value(256);
    put_value(257);
    put_value(258);
    term_put_nil(&term);
    ck_assert_str_eq(values(), "256,");
}
END_TEST

START_TEST(test_one_value)
{
    term_put_tuple(&term, 2);
    term_put_atom(&term, "ok");
    put_value(7);
    ck_assert_str_eq(values(), "7,");
}
END_TEST

START_TEST(test_no_values)
{
    static const struct slice answers[] = {
        {(const uint8_t *)"h\2w\2okj", 7},        /* {ok, []} */
        {(const uint8_t *)"h\2w\2okw\1x", 9},     /* {ok, x} */
        {(const uint8_t *)"h\2w\2okk\0\2ab", 11}, /* {ok, "ab"} */
        {(const uint8_t *)"h\2w\5nodesj", 10},    /* {nodes, []} */
        {(const uint8_t *)"h\2w\5errorw\1x", 12}, /* {error, x} */
        {(const uint8_t *)"h\3w\2okjj", 8},       /* {ok, [], []} */
        {(const uint8_t *)"w\2ok", 4},            /* ok */
        {(const uint8_t *)"j", 1},
        {(const uint8_t *)"t\0\0\0\0", 5},
    };

    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        buffer_reset(&term, SIZE_MAX);
        term_put_raw(&term, answers[i]);
        ck_assert_msg(strcmp(values(), "") == 0, "answer %zu", i);
    }
}
END_TEST

START_TEST(test_judge)
{
    ck_assert_int_eq(dht_judge(slice_of("w\2ok")), ASK_ACCEPT);
    ck_assert_int_eq(dht_judge(slice_of("h\2w\2okj")), ASK_ACCEPT);
    ck_assert_int_eq(dht_judge(slice_of("h\2w\5nodesj")), ASK_ACCEPT);
    ck_assert_int_eq(dht_judge(slice_of("h\2w\5errorj")), ASK_NEXT);
    ck_assert_int_eq(dht_judge(slice_of("h\3w\2okjj")), ASK_NEXT);
    ck_assert_int_eq(dht_judge(slice_of("w\5error")), ASK_NEXT);
    ck_assert_int_eq(dht_judge(slice_of("j")), ASK_NEXT);
}
END_TEST

START_TEST(test_map_get)
{
    struct cursor value;
    int64_t number;

    term_put_map(&term, 4);
    term_put_int(&term, 1); /* a key of another type */
    term_put_int(&term, 2);
    term_put_atom(&term, "port");
    term_put_int(&term, 3);
    term_put_binary(&term, slice_of("host"));
    term_put_int(&term, 4);
    term_put_binary(&term, slice_of("port"));
    term_put_int(&term, 5);
    struct slice map = buffer_slice(&term);
    ck_assert(dht_map_get(map, "port", &value) && cursor_int(&value, &number));
    ck_assert_int_eq(number, 3); /* the first that fits */
    ck_assert(dht_map_get(map, "host", &value) && cursor_int(&value, &number));
    ck_assert_int_eq(number, 4);
    ck_assert(!dht_map_get(map, "hos", &value));
    ck_assert(!dht_map_get(map, "", &value));
    ck_assert(!dht_map_get(slice_of("j"), "port", &value));
}
END_TEST

Suite *suite_dht(void);
Suite *suite_dht(void)
{
    Suite *s = suite_create("dht");
    TCase *tc = tcase_create("all");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, test_keys);
    tcase_add_test(tc, test_no_key);
    tcase_add_test(tc, test_find);
    tcase_add_test(tc, test_list_of_values);
    tcase_add_test(tc, test_no_more_than_256_terms_are_looked_at);
    tcase_add_test(tc, test_one_value);
    tcase_add_test(tc, test_no_values);
    tcase_add_test(tc, test_judge);
    tcase_add_test(tc, test_map_get);
    suite_add_tcase(s, tc);
    return s;
}
