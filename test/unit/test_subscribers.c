/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

#include "macula/subscribers.h"

#include <check.h>
#include <string.h>

static struct pid pid_of(const char *node, uint32_t id, uint32_t serial, uint32_t creation)
{
    return (struct pid){slice_of(node), id, serial, creation};
}

START_TEST(one_process_has_one_token)
{
    struct subscribers all = {0};
    char node[] = "a@host";
    struct pid pid = pid_of(node, 1, 2, 3);
    uint64_t token = subscriber_ref(&all, &pid);

    ck_assert_uint_ne(token, 0);
    ck_assert_uint_eq(subscriber_ref(&all, &pid), token);
    /* The table has its own copy of the node's name. */
    memset(node, 'x', sizeof node - 1);
    pid = pid_of("a@host", 1, 2, 3);
    ck_assert_uint_eq(subscriber_ref(&all, &pid), token);
    ck_assert(pid_equal(subscriber_pid(token), &pid));
    for (int i = 0; i < 3; i++) {
        ck_assert(pid_equal(subscriber_pid(token), &pid));
        subscriber_unref(&all, token);
    }
    ck_assert_ptr_null(all.by_pid);
}
END_TEST

START_TEST(pids_that_differ_have_tokens_that_differ)
{
    struct subscribers all = {0};
    const struct pid pids[] = {pid_of("a@host", 1, 2, 3), pid_of("a@host", 2, 2, 3),
                               pid_of("a@host", 1, 3, 3), pid_of("a@host", 1, 2, 4),
                               pid_of("b@host", 1, 2, 3), pid_of("a@hosts", 1, 2, 3)};
    uint64_t tokens[6];

    for (int i = 0; i < 6; i++) {
        tokens[i] = subscriber_ref(&all, &pids[i]);
        for (int j = 0; j < i; j++)
            ck_assert_uint_ne(tokens[i], tokens[j]);
    }
    for (int i = 0; i < 6; i++)
        ck_assert(pid_equal(subscriber_pid(tokens[i]), &pids[i]));
    subscriber_unref(&all, tokens[0]);
    subscribers_free(&all);
    ck_assert_ptr_null(all.by_pid);
}
END_TEST

/* 255 characters of four bytes each. */
START_TEST(a_node_name_may_be_as_long_as_an_atom)
{
    struct subscribers all = {0};
    char name[256 * 4];
    struct pid pid;

    for (size_t i = 0; i < sizeof name; i += 4)
        memcpy(name + i, "\xf0\x9f\x90\x9d", 4);
    pid = (struct pid){.node = {(const uint8_t *)name, 255 * (size_t)4}};
    uint64_t token = subscriber_ref(&all, &pid);
    ck_assert_uint_ne(token, 0);
    subscriber_unref(&all, token);
    pid.node.len = sizeof name;
    ck_assert_uint_eq(subscriber_ref(&all, &pid), 0);
}
END_TEST

START_TEST(their_bytes_are_bounded)
{
    struct subscribers all = {0};
    struct pid a = pid_of("a@host", 1, 2, 3), b = pid_of("a@host", 2, 2, 3);
    uint64_t token = subscriber_ref(&all, &a);
    size_t one = all.bytes;

    ck_assert_uint_gt(one, 0);
    all.bytes = SUBSCRIBERS_BYTES_MAX - one + 1;
    ck_assert_uint_eq(subscriber_ref(&all, &b), 0);
    ck_assert_uint_eq(subscriber_ref(&all, &a), token);
    all.bytes--;
    uint64_t other = subscriber_ref(&all, &b);
    ck_assert_uint_ne(other, 0);
    subscriber_unref(&all, other);
    ck_assert_uint_eq(all.bytes, SUBSCRIBERS_BYTES_MAX - one);
    subscribers_free(&all);
}
END_TEST

Suite *suite_subscribers(void)
{
    Suite *suite = suite_create("subscribers");
    TCase *tc = tcase_create("subscribers");

    tcase_add_test(tc, one_process_has_one_token);
    tcase_add_test(tc, their_bytes_are_bounded);
    tcase_add_test(tc, pids_that_differ_have_tokens_that_differ);
    tcase_add_test(tc, a_node_name_may_be_as_long_as_an_atom);
    suite_add_tcase(suite, tc);
    return suite;
}
