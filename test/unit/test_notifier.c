/* SPDX-License-Identifier: Apache-2.0 */
/* Notifications for nodes that take nothing, on connections without a socket. */
#include "suites.h"

#include "macula/notifier.h"

#include <check.h>
#include <string.h>

static uv_loop_t loop;
static struct node node;
static struct connection a, b;
static struct subscribers subscribers;
static struct notifier notifier;

static void connect_to(struct connection *c, const char *name)
{
    static const uint8_t unread[NOTIFIER_UNREAD_MAX + 1];

    *c = (struct connection){.node = &node, .state = CONNECTION_UP};
    strcpy(c->name, name);
    HASH_ADD_STR(node.by_name, name, c);
    buffer_append(&c->out, unread, sizeof unread);
}

static void set_up(void)
{
    uv_loop_init(&loop);
    node = (struct node){.loop = &loop, .name_slice = slice_of("us@host")};
    connect_to(&a, "a@host");
    connect_to(&b, "b@host");
    notifier_init(&notifier, &node, &subscribers);
}

static void tear_down(void)
{
    notifier_free(&notifier);
    notifier_close(&notifier);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
    ck_assert_ptr_null(subscribers.by_pid);
    HASH_CLEAR(hh, node.by_name);
    buffer_free(&a.out);
    buffer_free(&b.out);
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
    notify(&a, "a-1");
    size_t one = notifier.waiting_bytes;
    ck_assert_uint_gt(one, 0);
    notify(&b, "b-1");
    notify(&a, "a-2");
    notify(&a, "a-3");
    notify(&a, "a-4");
    notifier.waiting_bytes = NOTIFIER_WAITING_MAX - one;
    notify(&b, "b-2");
    ck_assert_uint_eq(notifier.counters.notifications_dropped, 0);
    notify(&b, "b-3");
    ck_assert_uint_eq(notifier.counters.notifications_dropped, 1);
    ck_assert_uint_eq(notifier.count, 6);
    ck_assert_uint_eq(notifier.waiting_bytes, NOTIFIER_WAITING_MAX);

    buffer_truncate(&a.out, 0);
    buffer_truncate(&b.out, 0);
    notifier_go_on(&notifier);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_uint_eq(notifier.counters.notified, 6);
    ck_assert(!was_told(&a, "a-1"));
    ck_assert(was_told(&a, "a-2") && was_told(&a, "a-3") && was_told(&a, "a-4"));
    ck_assert(was_told(&b, "b-1") && was_told(&b, "b-2") && was_told(&b, "b-3"));
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
