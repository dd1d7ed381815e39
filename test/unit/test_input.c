/* SPDX-License-Identifier: Apache-2.0 */
/* What arrives on a connection, whose turn it is, and who is closed for it. */
#include "fake_node.h"
#include "suites.h"

#include "base/bytes.h"
#include "term/term_write.h"

#include <check.h>
#include <stdlib.h>
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

/* A frame of `size` bytes that is no term, or its first `len` bytes with their head. */
static void receive_frame(struct fake_peer *peer, size_t size, size_t len)
{
    uint8_t *frame = calloc(1, FRAME_HEAD + len);

    ck_assert_ptr_nonnull(frame);
    put_u32(frame, (uint32_t)size);
    fake_transport_receive(&peer->transport, frame, FRAME_HEAD + len);
    free(frame);
}

START_TEST(frames_come_in_any_pieces)
{
    static const uint8_t frames[] = {0, 0, 0, 2, 9, 9, 0, 0, 0, 0, 0, 0, 0, 1, 9};

    for (size_t i = 0; i < sizeof frames; i++)
        ck_assert_uint_eq(fake_transport_receive(&a.transport, frames + i, 1), 1);
    ck_assert_uint_eq(fake_transport_receive(&a.transport, frames, sizeof frames), sizeof frames);
    ck_assert_uint_eq(node->counters.frames_in, 4);
    ck_assert_uint_eq(node->counters.frames_malformed, 4);
    ck_assert_uint_eq(buffer_size(&a.c->input.bytes), 0);
}
END_TEST

/* Who says that a frame is large gets memory only as it comes. */
START_TEST(an_announced_frame_takes_no_memory)
{
    receive_frame(&a, FRAME_MAX, 1);
    ck_assert_uint_gt(a.c->input.bytes.capacity, 0);
    ck_assert_uint_le(a.c->input.bytes.capacity, 4 * READ_SIZE);
    ck_assert_uint_eq(node->budget.input, a.c->input.bytes.capacity);
}
END_TEST

START_TEST(too_large_a_frame_closes_the_connection)
{
    fake_log_take();
    receive_frame(&a, FRAME_MAX + 1, 0);
    ck_assert(a.transport.is_closed && !b.transport.is_closed);
    ck_assert_ptr_nonnull(strstr(fake_log_take(), "larger than 16 MiB"));
    ck_assert_uint_eq(node->counters.frames_too_large, 1);
}
END_TEST

/* The rest of a frame is awaited so long, whatever else arrives. */
START_TEST(a_late_frame_closes_the_connection)
{
    uv_update_time(&fake_loop);
    receive_frame(&a, 256, 1);
    a.c->sent_at = uv_now(&fake_loop);
    a.c->input.frame_since = uv_now(&fake_loop) - FRAME_DEADLINE_MS + 1;
    input_check(a.c);
    ck_assert_ptr_null(a.c->doomed);
    a.c->input.frame_since--;
    input_check(a.c);
    ck_assert_ptr_nonnull(a.c->doomed);
    ck_assert_uint_eq(node->counters.frames_late, 1);
}
END_TEST

/* The last byte of a frame of which all others have come. */
static void receive_last_byte(struct fake_peer *peer)
{
    ck_assert_uint_eq(fake_transport_receive(&peer->transport, "", 1), 1);
}

/* One large frame a turn, whoever sent it; who has waited comes first, and small ones pass. */
START_TEST(large_frames_take_turns)
{
    receive_frame(&a, LARGE_FRAME + 1, LARGE_FRAME);
    receive_frame(&b, LARGE_FRAME + 1, LARGE_FRAME);
    input_new_turn(&fake_server.input);
    receive_last_byte(&a);
    receive_last_byte(&b);
    ck_assert_uint_eq(node->counters.frames_in, 1);
    ck_assert_ptr_eq(fake_server.input.line, b.c);
    ck_assert(!b.transport.is_reading);
    uv_run(&fake_loop, UV_RUN_NOWAIT); /* still the same turn */
    ck_assert_uint_eq(node->counters.frames_in, 1);
    receive_frame(&a, 1, 1);
    ck_assert_uint_eq(node->counters.frames_in, 2);
    receive_frame(&a, LARGE_FRAME + 1, LARGE_FRAME + 1);
    ck_assert_uint_eq(node->counters.frames_in, 2);
    uv_run(&fake_loop, UV_RUN_NOWAIT);
    ck_assert_uint_eq(node->counters.frames_in, 3);
    ck_assert_ptr_eq(fake_server.input.line, a.c);
    ck_assert(b.transport.is_reading);
    input_new_turn(&fake_server.input);
    uv_run(&fake_loop, UV_RUN_NOWAIT);
    ck_assert_uint_eq(node->counters.frames_in, 4);
    ck_assert_ptr_null(fake_server.input.line);
}
END_TEST

/* While a peer does not take what it has asked for, nothing more of it is handled. */
START_TEST(who_does_not_read_is_not_read)
{
    a.transport.is_full = true;
    fake_put_frame(a.c, OUTPUT_PAUSE + 1);
    fake_node_end_turn();
    receive_frame(&a, 1, 1);
    ck_assert_uint_eq(node->counters.frames_in, 0);
    ck_assert(!a.transport.is_reading);
    uv_run(&fake_loop, UV_RUN_NOWAIT);
    ck_assert_ptr_null(fake_server.input.line);
    receive_frame(&b, 1, 1);
    ck_assert_uint_eq(node->counters.frames_in, 1);
    /* It takes nothing for too long. */
    input_check(a.c);
    ck_assert_ptr_null(a.c->doomed);
    a.c->input.unread_since -= UNREAD_LIMIT_MS;
    a.transport.is_full = false;
    fake_transport_drain(&a.transport);
    uv_run(&fake_loop, UV_RUN_NOWAIT);
    ck_assert_uint_eq(node->counters.frames_in, 2);
    ck_assert(a.transport.is_reading);
    ck_assert_ptr_null(a.c->doomed);
}
END_TEST

START_TEST(who_never_reads_is_closed)
{
    a.transport.is_full = true;
    fake_put_frame(a.c, OUTPUT_PAUSE + 1);
    fake_node_end_turn();
    receive_frame(&a, 1, 1);
    uv_run(&fake_loop, UV_RUN_NOWAIT);
    a.c->input.unread_since -= UNREAD_LIMIT_MS;
    input_check(a.c);
    ck_assert_ptr_nonnull(a.c->doomed);
    fake_node_end_turn();
    ck_assert(a.transport.is_closed && !b.transport.is_closed);
    ck_assert_uint_eq(node->counters.output_limit, 1);
}
END_TEST

/* After our goodbye only the end of the stream counts. */
START_TEST(what_is_ignored_is_read_and_dropped)
{
    input_ignore(a.c);
    receive_frame(&a, 1, 1);
    ck_assert_uint_eq(node->counters.frames_in, 0);
    a.transport.transport.callbacks->on_read(a.c, UV_EOF);
    ck_assert(a.transport.is_closed);
}
END_TEST

Suite *suite_input(void);
Suite *suite_input(void)
{
    Suite *suite = suite_create("input");
    TCase *tc = tcase_create("input");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, frames_come_in_any_pieces);
    tcase_add_test(tc, an_announced_frame_takes_no_memory);
    tcase_add_test(tc, too_large_a_frame_closes_the_connection);
    tcase_add_test(tc, a_late_frame_closes_the_connection);
    tcase_add_test(tc, large_frames_take_turns);
    tcase_add_test(tc, who_does_not_read_is_not_read);
    tcase_add_test(tc, who_never_reads_is_closed);
    tcase_add_test(tc, what_is_ignored_is_read_and_dropped);
    suite_add_tcase(suite, tc);
    return suite;
}
