/* SPDX-License-Identifier: Apache-2.0 */
/* What is said on a connection, how much may wait there, and how it is closed. */
#include "fake_node.h"
#include "suites.h"

#include "base/log.h"

#include <check.h>
#include <string.h>

static struct node *node;
static struct fake_peer a, b;

static void set_up(void)
{
    node = fake_node_start();
    fake_peer_connect(&a, "a@h");
    fake_peer_connect(&b, "b@h");
}

static void tear_down(void)
{
    fake_peer_close(&a);
    fake_peer_close(&b);
    fake_node_stop();
}

START_TEST(it_is_found_while_it_is_up)
{
    ck_assert_ptr_eq(connection_find(node, slice_of("a@h")), a.c);
    ck_assert_ptr_null(connection_find(node, slice_of("c@h")));
    connection_close(a.c, LOG_INFO, "test");
    ck_assert_ptr_null(connection_find(node, slice_of("a@h")));
    ck_assert_ptr_nonnull(strstr(fake_log_take(), "test"));
}
END_TEST

START_TEST(a_newer_connection_takes_the_place_of_an_older)
{
    struct fake_peer newer;

    fake_peer_connect(&newer, "a@h");
    ck_assert(a.transport.is_closed);
    ck_assert_ptr_eq(connection_find(node, slice_of("a@h")), newer.c);
    fake_peer_close(&newer);
}
END_TEST

START_TEST(a_turn_is_written_at_its_end)
{
    static const uint8_t expected[] = {0, 0, 0, 3, 112, 'h', 'i', 0, 0, 0, 2, 112, '!'};

    buffer_append(connection_open_frame(a.c), "hi", 2);
    connection_close_frame(a.c);
    buffer_append(connection_open_frame(a.c), "dropped", 7);
    connection_drop_frame(a.c);
    buffer_append(connection_open_frame(a.c), "!", 1);
    connection_close_frame(a.c);
    ck_assert_uint_eq(buffer_size(&a.transport.written), 0);
    fake_node_end_turn();
    ck_assert_uint_eq(buffer_size(&a.transport.written), sizeof expected);
    ck_assert_mem_eq(buffer_data(&a.transport.written), expected, sizeof expected);
    ck_assert_uint_eq(connection_pending(a.c), 0);
    ck_assert_uint_eq(node->counters.frames_out, 2);
}
END_TEST

/* What the peer does not take waits, new output behind it, in order. */
START_TEST(what_is_not_taken_waits)
{
    a.transport.is_full = true;
    buffer_append(connection_open_frame(a.c), "1", 1);
    connection_close_frame(a.c);
    fake_node_end_turn();
    buffer_append(connection_open_frame(a.c), "2", 1);
    connection_close_frame(a.c);
    fake_node_end_turn();
    ck_assert_uint_eq(connection_pending(a.c), 12);
    ck_assert_uint_gt(node->budget.output, 0);
    a.transport.is_full = false;
    fake_transport_drain(&a.transport);
    fake_node_end_turn();
    ck_assert_uint_eq(connection_pending(a.c), 0);
    ck_assert_uint_eq(node->budget.output, 0);
    ck_assert_uint_eq(buffer_size(&a.transport.written), 12);
    ck_assert_int_eq(buffer_data(&a.transport.written)[5], '1');
    ck_assert_int_eq(buffer_data(&a.transport.written)[11], '2');
}
END_TEST

START_TEST(too_much_output_closes_it)
{
    a.transport.is_full = true;
    fake_put_frame(a.c, OUTPUT_MAX);
    ck_assert_ptr_nonnull(a.c->doomed);
    ck_assert(!a.transport.is_closed);
    fake_put_frame(a.c, 1);
    fake_node_end_turn();
    ck_assert(a.transport.is_closed && !b.transport.is_closed);
    ck_assert_uint_eq(node->counters.output_limit, 1);
    ck_assert_uint_eq(node->counters.frames_out, 1);
}
END_TEST

/* All output together is over its limit at once, not a second later: who has the most goes. */
START_TEST(too_much_output_of_all_closes_the_largest)
{
    fake_put_frame(b.c, 1 << 20);
    fake_put_frame(a.c, 1000);
    ck_assert_uint_eq(node->budget.output, a.c->out.capacity + b.c->out.capacity);
    ck_assert_uint_eq(node->counters.output_limit, 0);
    /* As if the others had the rest. */
    size_t others = OUTPUT_TOTAL_MAX - node->budget.output;
    node->budget.output += others;
    fake_put_frame(a.c, 4000);
    ck_assert_ptr_null(a.c->doomed);
    ck_assert_ptr_nonnull(b.c->doomed);
    ck_assert_ptr_null(b.c->out.data);
    ck_assert_uint_eq(node->counters.output_limit, 1);
    fake_put_frame(b.c, 1 << 20);
    ck_assert_uint_eq(node->budget.output, others + a.c->out.capacity);
    node->budget.output -= others;
}
END_TEST

START_TEST(what_nobody_asked_for_is_dropped)
{
    struct pid pid = {slice_of("a@h"), 1, 0, 7}, nobody = {slice_of("c@h"), 1, 0, 7};
    struct connection *via;

    ck_assert_ptr_null(connection_open_send(node, &nobody, &via));
    ck_assert_uint_eq(node->counters.messages_undeliverable, 1);
    ck_assert_ptr_nonnull(connection_open_send(node, &pid, &via));
    ck_assert_ptr_eq(via, a.c);
    connection_drop_frame(a.c);
    a.transport.is_full = true;
    fake_put_frame(a.c, OUTPUT_UNASKED);
    ck_assert_ptr_null(connection_open_send(node, &pid, &via));
    ck_assert_uint_eq(node->counters.output_dropped, 1);
}
END_TEST

START_TEST(silence_is_broken_by_a_tick)
{
    uv_update_time(&fake_loop);
    a.c->sent_at = uv_now(&fake_loop);
    connection_tick(a.c, 1);
    ck_assert_uint_eq(connection_pending(a.c), 0);
    connection_tick(a.c, 0);
    ck_assert_uint_eq(connection_pending(a.c), FRAME_HEAD);
    connection_tick(a.c, 0);
    ck_assert_uint_eq(connection_pending(a.c), FRAME_HEAD);
}
END_TEST

START_TEST(an_error_of_the_transport_closes_it)
{
    a.transport.is_full = true;
    fake_put_frame(a.c, 10);
    fake_node_end_turn();
    a.transport.transport.callbacks->on_written(a.c, UV_ECONNRESET);
    ck_assert(a.transport.is_closed);
    b.transport.transport.callbacks->on_read(b.c, UV_EOF);
    ck_assert(b.transport.is_closed);
    ck_assert_ptr_nonnull(strstr(fake_log_take(), "closed by the peer"));
}
END_TEST

Suite *suite_connection(void);
Suite *suite_connection(void)
{
    Suite *suite = suite_create("connection");
    TCase *tc = tcase_create("connection");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, it_is_found_while_it_is_up);
    tcase_add_test(tc, a_newer_connection_takes_the_place_of_an_older);
    tcase_add_test(tc, a_turn_is_written_at_its_end);
    tcase_add_test(tc, what_is_not_taken_waits);
    tcase_add_test(tc, too_much_output_closes_it);
    tcase_add_test(tc, too_much_output_of_all_closes_the_largest);
    tcase_add_test(tc, what_nobody_asked_for_is_dropped);
    tcase_add_test(tc, silence_is_broken_by_a_tick);
    tcase_add_test(tc, an_error_of_the_transport_closes_it);
    suite_add_tcase(suite, tc);
    return suite;
}
