/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/input.h"

#include "base/bytes.h"
#include "base/log.h"
#include "distribution/budget.h"
#include "distribution/dist_flags.h"
#include "distribution/router.h"

#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* --- whose turn it is --- */

static void leave_line(struct connection *c)
{
    c->input.is_in_line = false;
    DL_DELETE2(c->node->input->line, c, input.prev, input.next);
}

static void go_on(struct connection *c);

/* One connection a turn: all others are read and written in between. */
static void on_turn(uv_idle_t *turn)
{
    struct input *input = turn->data;

    if (input->line)
        go_on(input->line);
    if (!input->line)
        uv_idle_stop(turn);
}

static void join_line(struct connection *c)
{
    struct input *input = c->node->input;

    if (c->input.is_in_line)
        return;
    c->input.is_in_line = true;
    DL_APPEND2(input->line, c, input.prev, input.next);
    uv_idle_start(&input->turn, on_turn);
}

void input_new_turn(struct input *input)
{
    input->node->turn++;
    input->had_large_frame = false;
}

void input_forget(struct connection *c)
{
    if (c->input.is_in_line)
        leave_line(c);
}

void input_resume(struct connection *c)
{
    if (c->input.has_frames)
        join_line(c);
}

/* --- handshake --- */

/*
 * Whether an attempt of ours and one of that node's own may be crossing each other. It cannot know
 * of ours as long as there is not even a transport; and one that has had the time to answer ours
 * and connects to us instead is not going to.
 */
static bool may_cross(const struct connection *attempt)
{
    return attempt->state == CONNECTION_HANDSHAKE &&
           uv_now(attempt->node->loop) - attempt->input.connected_at < CROSSING_MS;
}

static enum handshake_verdict judge_peer(void *ctx, const char *peer_name)
{
    struct node *node = ((struct connection *)ctx)->node;
    struct connection *attempt;

    if (strcmp(peer_name, node->name) == 0)
        return HANDSHAKE_NOT_ALLOWED;
    if (connection_find(node, slice_of(peer_name)))
        return HANDSHAKE_ALIVE;
    DL_FOREACH (node->connections, attempt) {
        if (attempt->outgoing && strcmp(attempt->name, peer_name) == 0 && may_cross(attempt))
            return handshake_simultaneous(node->name, peer_name);
    }
    return HANDSHAKE_OK;
}

/* Whatever else there is between us and that node gives way to `winner`. */
static void close_rivals(struct connection *winner)
{
    struct connection *c, *next;

    DL_FOREACH_SAFE (winner->node->connections, c, next) {
        bool is_rival = c->state == CONNECTION_UP || c->outgoing;
        if (c != winner && is_rival && strcmp(c->name, winner->name) == 0)
            connection_close(c, LOG_INFO, "replaced by a newer connection");
    }
}

void input_begin_frames(struct connection *c, const char *name, uint64_t flags)
{
    snprintf(c->name, sizeof c->name, "%s", name);
    c->flags = flags;
    close_rivals(c);
    if (connection_set_up(c))
        c->node->callbacks.on_up(c->node->callbacks.ctx, c);
}

static void put_handshake_output(struct connection *c)
{
    size_t len;
    const uint8_t *bytes = handshake_output(c->input.handshake, &len);

    if (len > 0)
        connection_put(c, bytes, len);
}

static void handshake_done(struct connection *c)
{
    struct handshake *hs = c->input.handshake;

    c->input.handshake = NULL;
    input_begin_frames(c, hs->peer_name, hs->peer_flags);
    free(hs);
}

static void handshake_failed(struct connection *c, int error)
{
    char why[sizeof c->input.handshake->error];

    memcpy(why, c->input.handshake->error, sizeof why);
    c->node->counters.cookies_refused += error == -EACCES;
    connection_flush(c); /* the refusal */
    connection_close(c, error == -EALREADY ? LOG_INFO : LOG_WARNING, why);
}

/* Returns how many bytes the handshake took. */
static size_t feed_handshake(struct connection *c, const uint8_t *data, size_t len)
{
    struct handshake *hs = c->input.handshake;
    size_t used = 0;
    int result = handshake_feed(hs, data, len, &used);

    put_handshake_output(c);
    /* For lines of the log; it is that node only when the handshake is done. */
    if (c->name[0] == '\0')
        strcpy(c->name, hs->peer_name);
    if (result == 1)
        handshake_done(c);
    else if (result < 0)
        handshake_failed(c, result);
    return used;
}

static int handshake_new(struct connection *c)
{
    c->input.opened_at = uv_now(c->node->loop);
    c->input.handshake = calloc(1, sizeof *c->input.handshake);
    if (!c->input.handshake)
        return -ENOMEM;
    c->node->input->handshake.creation = c->node->creation;
    return 0;
}

/* --- frames --- */

/*
 * A peer that asks for more than it takes, or for much at a time (for itself or for others), waits:
 * its other frames stay where they are, and nothing more is read from it. So no peer that reads is
 * cut off for what it asked itself, and none keeps others waiting with a packet of small requests
 * for large answers.
 */
static bool has_much_output(const struct connection *c, uint64_t made_before)
{
    return c->node->bytes_made > made_before + OUTPUT_TURN || connection_pending(c) > OUTPUT_PAUSE;
}

static void leave_frames(struct connection *c)
{
    c->input.has_frames = true;
    transport_read_stop(c->transport);
    join_line(c);
}

/*
 * A large frame takes milliseconds to check. One is handled in a turn, whoever sent it, and those
 * that have waited come first: the small ones of all others are handled in between.
 */
static bool must_wait(const struct connection *c, size_t size, bool is_its_turn)
{
    const struct input *input = c->node->input;

    return size > LARGE_FRAME && (input->had_large_frame || (input->line && !is_its_turn));
}

/* Returns how many bytes of whole frames were handled. */
static size_t handle_frames(struct connection *c, const uint8_t *data, size_t len, bool is_its_turn)
{
    uint64_t made_before = c->node->bytes_made;
    size_t at = 0;

    while (c->state == CONNECTION_UP && !c->doomed && len - at >= FRAME_HEAD) {
        if (has_much_output(c, made_before)) {
            leave_frames(c);
            break;
        }
        const uint8_t *frame = data + at + FRAME_HEAD;
        size_t size = get_u32(data + at);
        if (size > FRAME_MAX) {
            c->node->counters.frames_too_large++;
            connection_close(c, LOG_WARNING, "it sent a frame larger than 16 MiB");
            return at;
        }
        if (len - at - FRAME_HEAD < size)
            break;
        if (must_wait(c, size, is_its_turn)) {
            leave_frames(c);
            break;
        }
        at += FRAME_HEAD + size;
        if (size == 0) {
            connection_tick(c, TICK_ANSWERED_MS);
            continue;
        }
        c->node->input->had_large_frame |= size > LARGE_FRAME;
        c->node->counters.frames_in++;
        router_handle_frame(c, (struct slice){frame, size});
    }
    return at;
}

/* A handshake that has reached its end leaves the rest of what was read to the frames. */
static size_t handle_bytes(struct connection *c, const uint8_t *data, size_t len)
{
    size_t used = 0;

    if (c->state == CONNECTION_HANDSHAKE)
        used = feed_handshake(c, data, len);
    if (c->state == CONNECTION_UP)
        used += handle_frames(c, data + used, len - used, false);
    return used;
}

/* --- reading --- */

static void no_memory(struct connection *c)
{
    c->node->counters.no_memory++;
    connection_doom(c, "no memory for its input");
}

/* How much more of the frame that has begun is still to come. */
static size_t frame_rest(const struct buffer *in)
{
    if (buffer_size(in) < FRAME_HEAD)
        return 0;
    return (size_t)get_u32(buffer_data(in)) + FRAME_HEAD - buffer_size(in);
}

/* How much is to be read next. Not the whole frame at once: announcing a large one must not be
 * enough to get memory. */
static size_t read_size(const struct buffer *in)
{
    size_t rest = frame_rest(in);
    size_t most = buffer_size(in) > READ_SIZE ? buffer_size(in) : READ_SIZE;

    if (rest > most)
        return most;
    return rest > READ_SIZE ? rest : READ_SIZE;
}

static uint8_t *on_room(void *owner, size_t *size)
{
    struct connection *c = owner;
    struct buffer *in = &c->input.bytes;

    *size = 0;
    if (c->input.read_turn == c->node->turn || c->doomed)
        return NULL;
    c->input.read_turn = c->node->turn;
    if (buffer_size(in) == 0 || c->input.is_ignored) {
        *size = READ_SIZE;
        return c->node->input->scratch;
    }
    size_t wanted = read_size(in);
    if (!budget_make_room_for_input(c, wanted))
        return NULL;
    uint8_t *room = buffer_reserve(in, wanted);
    budget_count_input(c);
    if (room)
        *size = wanted;
    else
        no_memory(c);
    return room;
}

/* What is not handled yet is kept; a buffer that is empty keeps little memory. */
static void keep_rest(struct connection *c, bool has_begun)
{
    struct buffer *in = &c->input.bytes;

    if (has_begun)
        c->input.frame_since = uv_now(c->node->loop);
    if (in->overflow)
        no_memory(c);
    if (buffer_size(in) == 0)
        buffer_reset(in, READ_SIZE * 2);
    budget_count_input(c);
}

static void handle_input(struct connection *c, size_t size)
{
    struct buffer *in = &c->input.bytes;
    bool was_empty = buffer_size(in) == 0;
    size_t used;

    if (was_empty) {
        used = handle_bytes(c, c->node->input->scratch, size);
        if (c->state != CONNECTION_CLOSED)
            buffer_append(in, c->node->input->scratch + used, size - used);
    } else {
        buffer_grow(in, size);
        used = handle_bytes(c, buffer_data(in), buffer_size(in));
        buffer_consume(in, used);
    }
    if (c->state == CONNECTION_CLOSED)
        return;
    keep_rest(c, used > 0 || was_empty);
    budget_make_room_for_input(c, 0);
}

static void on_read(void *owner, ssize_t size)
{
    struct connection *c = owner;

    if (c->state == CONNECTION_CLOSED)
        return;
    if (size < 0 && c->input.is_ignored)
        connection_close(c, LOG_DEBUG, NULL);
    else if (size < 0)
        connection_close_with(c, (int)size);
    else if (!c->input.is_ignored)
        handle_input(c, (size_t)size);
}

/* Goes on with frames that were left for another turn. */
static void go_on(struct connection *c)
{
    struct connection_input *input = &c->input;

    leave_line(c);
    if (c->doomed)
        return;
    if (connection_pending(c) > OUTPUT_PAUSE && c->transport->taken > 0) {
        /* Its turn comes when the peer has taken it: input_resume. */
        input->unread = transport_queued(c->transport);
        input->unread_since = uv_now(c->node->loop);
        return;
    }
    input->has_frames = false;
    buffer_consume(&input->bytes,
                   handle_frames(c, buffer_data(&input->bytes), buffer_size(&input->bytes), true));
    if (c->state == CONNECTION_CLOSED)
        return;
    if (input->has_frames) {
        input->frame_since = uv_now(c->node->loop);
        return;
    }
    keep_rest(c, true);
    int error = transport_read_start(c->transport);
    if (error)
        connection_close_with(c, error);
}

void input_ignore(struct connection *c)
{
    transport_read_stop(c->transport);
    c->input.is_ignored = true;
    c->input.has_frames = false;
    input_forget(c);
    int error = transport_read_start(c->transport);
    if (error)
        connection_close(c, LOG_DEBUG, NULL);
}

/* --- life --- */

static void note_address(struct connection *c)
{
    struct sockaddr_storage address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    char host[INET6_ADDRSTRLEN] = "?";

    /* uv_ip_name does both, from libuv 1.43 on. */
    bool is_known = transport_peer_address(c->transport, &address) == 0;
    if (is_known && address.ss_family == AF_INET6)
        uv_ip6_name(in6, host, sizeof host);
    else if (is_known)
        uv_ip4_name((struct sockaddr_in *)&address, host, sizeof host);
    snprintf(c->address, sizeof c->address, "%s", host);
    /* A host with IPv6 has all addresses of its network of 64 bits. */
    if (is_known && address.ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        memset(&in6->sin6_addr.s6_addr[8], 0, 8);
        uv_ip6_name(in6, host, sizeof host);
    }
    snprintf(c->origin, sizeof c->origin, "%s", host);
}

static int begin_handshake(struct connection *c)
{
    c->state = CONNECTION_HANDSHAKE;
    return transport_read_start(c->transport);
}

int input_accept(struct connection *c)
{
    int error = handshake_new(c);

    note_address(c);
    if (error == 0)
        error = handshake_accept(c->input.handshake, &c->node->input->handshake, judge_peer, c);
    if (error == 0)
        error = begin_handshake(c);
    return error;
}

int input_connect(struct connection *c, const char *name)
{
    int error = handshake_new(c);

    if (error == 0)
        error = handshake_connect(c->input.handshake, &c->node->input->handshake, name);
    if (error)
        return error;
    snprintf(c->name, sizeof c->name, "%s", name);
    c->outgoing = true;
    return 0;
}

static void on_open(void *owner, int error)
{
    struct connection *c = owner;

    if (error == 0) {
        c->input.connected_at = uv_now(c->node->loop);
        put_handshake_output(c);
        error = begin_handshake(c);
    }
    if (error)
        connection_close_with(c, error);
}

const struct transport_callbacks input_transport_callbacks = {
    .on_open = on_open,
    .on_room = on_room,
    .on_read = on_read,
    .on_written = connection_on_written,
    .on_closed = connection_on_transport_closed,
};

/* It waits for its peer, which has taken nothing for a while. */
static void check_reader(struct connection *c, uint64_t now)
{
    size_t unread = transport_queued(c->transport);

    if (unread != c->input.unread) {
        c->input.unread = unread;
        c->input.unread_since = now;
    } else if (now - c->input.unread_since >= UNREAD_LIMIT_MS) {
        c->node->counters.output_limit++;
        connection_doom(c, "it does not read, and its output is over the limit");
    }
}

void input_check(struct connection *c)
{
    struct connection_input *input = &c->input;
    uint64_t now = uv_now(c->node->loop);

    if (c->state != CONNECTION_UP) {
        if (now - input->opened_at < SETUP_DEADLINE_MS)
            return;
        c->node->counters.handshakes_late++;
        connection_close(c, LOG_WARNING, "the handshake took too long");
        return;
    }
    connection_tick(c, TICK_SILENCE_MS);
    if (input->has_frames && !input->is_in_line) {
        check_reader(c, now);
    } else if (buffer_size(&input->bytes) > 0 && !input->has_frames &&
               now - input->frame_since >= FRAME_DEADLINE_MS) {
        c->node->counters.frames_late++;
        connection_doom(c, "the rest of a frame took too long");
    }
}

static bool is_our_challenge(void *ctx, uint32_t challenge)
{
    const struct node *node = ctx;
    const struct connection *c;

    DL_FOREACH (node->connections, c)
        if (c->input.handshake && handshake_has_sent(c->input.handshake, challenge))
            return true;
    return false;
}

int input_init(struct input *input, struct node *node, struct slice cookie)
{
    *input = (struct input){
        .node = node,
        .cookie = slice_copy(cookie),
        .scratch = malloc(READ_SIZE),
    };
    input->handshake = (struct handshake_config){
        .node_name = node->name,
        .flags = DIST_FLAGS_OURS,
        .cookie = input->cookie,
        .cookie_len = cookie.len,
        .is_ours = is_our_challenge,
        .ctx = node,
    };
    if (!input->cookie || !input->scratch) {
        input_free(input);
        return -ENOMEM;
    }
    uv_idle_init(node->loop, &input->turn);
    input->turn.data = input;
    node->input = input;
    return 0;
}

void input_close(struct input *input)
{
    uv_close((uv_handle_t *)&input->turn, NULL);
}

void input_free(struct input *input)
{
    if (input->cookie)
        OPENSSL_cleanse(input->cookie, input->handshake.cookie_len);
    free(input->cookie);
    free(input->scratch);
    input->cookie = input->scratch = NULL;
}
