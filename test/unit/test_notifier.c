/* SPDX-License-Identifier: Apache-2.0 */
/* Notifications for nodes that take nothing, on connections without a socket. */
#include "fake_node.h"
#include "suites.h"

#include "macula/notifier.h"

#include <check.h>
#include <string.h>

static struct node *node;
static struct fake_peer a, b;
static struct subscribers subscribers;
static struct notifier notifier;

static void connect_to(struct fake_peer *peer, const char *name)
{
    static const uint8_t unread[NOTIFIER_UNREAD_MAX + 1];

    fake_peer_connect(peer, name);
    buffer_append(&peer->c->out, unread, sizeof unread);
}

static void set_up(void)
{
    node = fake_node_start();
    connect_to(&a, "a@host");
    connect_to(&b, "b@host");
    notifier_init(&notifier, node, &subscribers);
}

static void tear_down(void)
{
    notifier_free(&notifier);
    notifier_close(&notifier);
    fake_peer_close(&a);
    fake_peer_close(&b);
    fake_node_stop();
    ck_assert_ptr_null(subscribers.by_pid);
}

static void notify(const struct connection *c, const char *session_id)
{
    struct pid pid = {slice_of(c->name), 1, 2, 3};
    struct nat_action action = {
        .type = NAT_NOTIFY,
        .session = {.session_id = {session_id, strlen(session_id)},
                    .initiator_id = {"i", 1},
                    .target_id = {"t", 1}},
        .watcher = subscriber_ref(&subscribers, &pid),
    };

    notifier_notify(&notifier, &action);
    subscriber_unref(&subscribers, action.watcher);
}

static bool was_told(struct connection *c, const char *session_id)
{
    return memmem(buffer_data(&c->out), buffer_size(&c->out), session_id, strlen(session_id));
}

START_TEST(the_node_with_the_most_waiting_loses_its_oldest)
{
    notify(a.c, "a-1");
    size_t one = notifier.waiting_bytes;
    ck_assert_uint_gt(one, 0);
    notify(b.c, "b-1");
    notify(a.c, "a-2");
    notify(a.c, "a-3");
    notify(a.c, "a-4");
    notifier.waiting_bytes = NOTIFIER_WAITING_MAX - one;
    notify(b.c, "b-2");
    ck_assert_uint_eq(notifier.counters.notifications_dropped, 0);
    notify(b.c, "b-3");
    ck_assert_uint_eq(notifier.counters.notifications_dropped, 1);
    ck_assert_uint_eq(notifier.count, 6);
    ck_assert_uint_eq(notifier.waiting_bytes, NOTIFIER_WAITING_MAX);

    buffer_truncate(&a.c->out, 0);
    buffer_truncate(&b.c->out, 0);
    notifier_go_on(&notifier);
    uv_run(&fake_loop, UV_RUN_DEFAULT);
    ck_assert_uint_eq(notifier.counters.notified, 6);
    ck_assert(!was_told(a.c, "a-1"));
    ck_assert(was_told(a.c, "a-2") && was_told(a.c, "a-3") && was_told(a.c, "a-4"));
    ck_assert(was_told(b.c, "b-1") && was_told(b.c, "b-2") && was_told(b.c, "b-3"));
}
END_TEST

Suite *suite_notifier(void)
{
    Suite *suite = suite_create("notifier");
    TCase *tc = tcase_create("notifier");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, the_node_with_the_most_waiting_loses_its_oldest);
    suite_add_tcase(suite, tc);
    return suite;
}
