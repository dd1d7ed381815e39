/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

#include "macula/id_text.h"

#include <check.h>
#include <string.h>

START_TEST(ids_are_text_or_hex_of_at_most_64_characters)
{
    char out[ID_TEXT_SIZE];
    uint8_t bytes[1024];

    id_text(out, (struct nat_bytes){"node-1/a b", 10});
    ck_assert_str_eq(out, "node-1/a b");
    id_text(out, (struct nat_bytes){"\x00\x7f\xff", 3});
    ck_assert_str_eq(out, "007fff");
    id_text(out, (struct nat_bytes){"a\\b", 3});
    ck_assert_str_eq(out, "615c62");
    id_text(out, (struct nat_bytes){NULL, 0});
    ck_assert_str_eq(out, "\"\"");

    memset(bytes, 'a', sizeof bytes);
    for (size_t len = 1; len <= sizeof bytes; len++) {
        id_text(out, (struct nat_bytes){bytes, len});
        ck_assert_uint_eq(strlen(out), len <= 64 ? len : 64);
        ck_assert_int_eq(strcmp(out + strlen(out) - 1, ".") == 0, len > 64);
    }
    memset(bytes, 0xab, sizeof bytes);
    for (size_t len = 1; len <= sizeof bytes; len++) {
        id_text(out, (struct nat_bytes){bytes, len});
        ck_assert_uint_eq(strlen(out), len <= 32 ? 2 * len : 63);
        ck_assert_int_eq(strcmp(out + strlen(out) - 1, ".") == 0, len > 32);
    }
}
END_TEST

Suite *suite_id_text(void)
{
    Suite *suite = suite_create("id_text");
    TCase *tests = tcase_create("id_text");

    tcase_add_test(tests, ids_are_text_or_hex_of_at_most_64_characters);
    suite_add_tcase(suite, tests);
    return suite;
}
