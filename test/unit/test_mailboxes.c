/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_node.h"
#include "suites.h"

#include "macula/mailboxes.h"

#include <check.h>
#include <errno.h>

static struct node *node;
static struct fake_peer peer;
static struct mailboxes all;
static struct process owner;

static void set_up(void)
{
    node = fake_node_start();
    fake_peer_connect(&peer, "a@host");
    owner = (struct process){.node = node};
    mailboxes_init(&all, &owner);
}

static void tear_down(void)
{
    mailboxes_free(&all);
    ck_assert_uint_eq(all.bytes, 0);
    ck_assert_ptr_null(peer.c->watches);
    fake_peer_close(&peer);
    fake_node_stop();
}

START_TEST(their_bytes_are_bounded)
{
    struct pid pid = {slice_of("a@host"), 1, 2, 3}, other = {slice_of("a@host"), 2, 2, 3};

    ck_assert_int_eq(mailbox_attach(&all, slice_of("x"), &pid), 0);
    size_t one = all.bytes;
    ck_assert_uint_gt(one, 0);
    all.bytes = MAILBOXES_BYTES_MAX - one + 1;
    ck_assert_int_eq(mailbox_attach(&all, slice_of("y"), &pid), -ENOBUFS);
    ck_assert_ptr_null(mailbox_find(&all, slice_of("y")));
    /* It has it already. */
    ck_assert_int_eq(mailbox_attach(&all, slice_of("x"), &pid), 0);
    /* For a moment there would be both, and the old one stays. */
    ck_assert_int_eq(mailbox_attach(&all, slice_of("x"), &other), -ENOBUFS);
    ck_assert(pid_equal(mailbox_find(&all, slice_of("x")), &pid));
    all.bytes--;
    ck_assert_int_eq(mailbox_attach(&all, slice_of("y"), &pid), 0);
    ck_assert_uint_eq(all.bytes, MAILBOXES_BYTES_MAX);
    mailbox_detach(&all, slice_of("y"), &pid);
    ck_assert_uint_eq(all.bytes, MAILBOXES_BYTES_MAX - one);
    all.bytes = one;
}
END_TEST

Suite *suite_mailboxes(void)
{
    Suite *suite = suite_create("mailboxes");
    TCase *tc = tcase_create("mailboxes");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, their_bytes_are_bounded);
    suite_add_tcase(suite, tc);
    return suite;
}
