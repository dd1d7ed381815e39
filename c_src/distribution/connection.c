/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/connection.h"

#include "base/bytes.h"
#include "distribution/node.h"
#include "distribution/router.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>
#include <utlist.h>

#define FRAME_HEAD 4 /* the length in front of each frame */
/* Output memory that a connection keeps between turns. */
#define KEPT_CAPACITY    ((size_t)256 << 10)
#define KEEPALIVE_S      30
#define UNACKED_LIMIT_MS 60000 /* a peer whose host is silent for so long is gone */

static struct connection *connection_new(struct node *node)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->handshake = calloc(1, sizeof *c->handshake);
    if (!c->handshake || uv_tcp_init(node->loop, &c->tcp) != 0) {
        free(c->handshake);
        free(c);
        return NULL;
    }
    c->tcp.data = c;
    c->node = node;
    c->number = ++node->connections_made;
    c->opened_at = c->sent_at = uv_now(node->loop);
    DL_APPEND(node->connections, c);
    return c;
}

static void on_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;

    buffer_free(&c->in);
    buffer_free(&c->out);
    buffer_free(&c->sending);
    free(c->handshake);
    free(c);
}

/* A name that has not been proved yet is anybody's: such lines are counted by the address. */
static void log_refused(struct connection *c, int level, const char *why)
{
    if (c->name[0])
        node_log_about(c->node, level, "handshake", c->origin, c->name,
                       "no connection with %s at %s: %s", c->name, c->address, why);
    else
        node_log(c->node, level, "handshake", c->origin, "no connection with %s: %s", c->address,
                 why);
}

void connection_close(struct connection *c, int level, const char *why)
{
    enum connection_state state = c->state;

    if (state == CONNECTION_CLOSED)
        return;
    budget_leave(c);
    c->state = CONNECTION_CLOSED;
    if (why && state == CONNECTION_UP)
        /* A kind of its own for what is amiss, so that no line before suppresses it. */
        node_log(c->node, level, level <= LOG_WARNING ? "connection lost" : "connection", c->name,
                 "connection ended with %s: %s", c->name, why);
    else if (why && !c->outgoing)
        log_refused(c, level, why);
    DL_DELETE(c->node->connections, c);
    if (c->flush_wanted)
        node_forget_flush(c->node, c);
    if (c->is_in_turn)
        node_forget_turn(c->node, c);
    if (state == CONNECTION_UP)
        node_connection_down(c->node, c);
    else if (c->outgoing && why)
        node_connection_failed(c->node, c, level, why);
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void close_with_errno(struct connection *c, int error)
{
    bool ordinary = error == UV_EOF || error == UV_ECONNRESET;

    connection_close(c, ordinary ? LOG_INFO : LOG_WARNING,
                     error == UV_EOF ? "closed by the peer" : uv_strerror(error));
}

/* --- output --- */

/* A connection that is being closed is not flushed any more, whoever still has a word to say. */
static void want_flush(struct connection *c)
{
    if (!c->flush_wanted && c->state != CONNECTION_CLOSED)
        node_want_flush(c->node, c);
}

void connection_doom(struct connection *c, const char *why)
{
    if (!c->doomed)
        c->doomed = why;
    want_flush(c);
}

/* Once: the buffer keeps that it had no memory. */
static void doom_for_output(struct connection *c)
{
    if (c->doomed)
        return;
    c->node->counters.no_memory++;
    connection_doom(c, "no memory for its output");
}

size_t connection_pending(const struct connection *c)
{
    return buffer_size(&c->out) + buffer_size(&c->sending);
}

struct buffer *connection_open_frame(struct connection *c)
{
    static const uint8_t head[FRAME_HEAD + 1] = {0, 0, 0, 0, CONTROL_PASS_THROUGH};

    c->frame_start = buffer_size(&c->out);
    buffer_append(&c->out, head, sizeof head);
    /* Nothing is copied for nobody. */
    if (c->doomed)
        c->out.overflow = true;
    return &c->out;
}

void connection_drop_frame(struct connection *c)
{
    buffer_truncate(&c->out, c->frame_start);
}

/*
 * A connection whose output has run over ends at the end of the turn, not here: whoever writes a
 * frame may be in the midst of something that the end of a connection would change under its feet.
 */
void connection_close_frame(struct connection *c)
{
    size_t size = buffer_size(&c->out) - c->frame_start - FRAME_HEAD;

    if (c->out.overflow)
        doom_for_output(c);
    if (c->doomed) {
        connection_drop_frame(c);
        return;
    }
    put_u32(buffer_data(&c->out) + c->frame_start, (uint32_t)size);
    c->node->counters.frames_out++;
    c->node->bytes_made += size;
    if (connection_pending(c) > OUTPUT_MAX) {
        c->node->counters.output_limit++;
        connection_doom(c, "it does not read, and its output is over the limit");
    }
    want_flush(c);
    budget_check_output(c);
}

static void put_tick(struct connection *c)
{
    static const uint8_t tick[FRAME_HEAD] = {0};

    buffer_append(&c->out, tick, sizeof tick);
    if (c->out.overflow)
        doom_for_output(c);
    want_flush(c);
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *c = write->data;

    if (c->state == CONNECTION_CLOSED)
        return;
    if (status < 0) {
        close_with_errno(c, status);
        return;
    }
    c->sent_at = uv_now(c->node->loop);
    buffer_reset(&c->sending, 0);
    budget_count_output(c);
    if (buffer_size(&c->out) > 0)
        want_flush(c);
    if (c->has_frames && !c->is_in_turn)
        node_want_turn(c->node, c);
}

void connection_flush(struct connection *c)
{
    if (c->flush_wanted)
        node_forget_flush(c->node, c);
    if (c->doomed) {
        connection_close(c, LOG_WARNING, c->doomed);
        return;
    }
    if (c->state == CONNECTION_CLOSED || buffer_size(&c->sending) > 0 || buffer_size(&c->out) == 0)
        return;
    uv_buf_t bytes = uv_buf_init((char *)buffer_data(&c->out), (unsigned)buffer_size(&c->out));
    int written = uv_try_write((uv_stream_t *)&c->tcp, &bytes, 1);
    if (written < 0 && written != UV_EAGAIN) {
        close_with_errno(c, written);
        return;
    }
    if (written > 0) {
        c->sent_at = uv_now(c->node->loop);
        buffer_consume(&c->out, (size_t)written);
    }
    if (buffer_size(&c->out) == 0) {
        buffer_reset(&c->out, KEPT_CAPACITY);
        budget_count_output(c);
        return;
    }
    /* The socket is full: libuv writes the rest when it can, new output gathers in a buffer of its
     * own. */
    c->sending = c->out;
    buffer_init(&c->out);
    bytes = uv_buf_init((char *)buffer_data(&c->sending), (unsigned)buffer_size(&c->sending));
    c->write.data = c;
    int error = uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, on_written);
    if (error)
        close_with_errno(c, error);
}

/* --- handshake --- */

/*
 * Whether an attempt of ours and one of that node's own may be crossing each other. It cannot know
 * of ours as long as there is not even a connection; and one that has had the time to answer ours
 * and connects to us instead is not going to.
 */
static bool may_cross(const struct connection *attempt)
{
    return attempt->state == CONNECTION_HANDSHAKE &&
           uv_now(attempt->node->loop) - attempt->connected_at < CROSSING_MS;
}

static enum handshake_verdict judge_peer(void *ctx, const char *peer_name)
{
    struct connection *c = ctx;
    struct connection *pending;

    if (strcmp(peer_name, c->node->name) == 0)
        return HANDSHAKE_NOT_ALLOWED;
    if (node_find(c->node, slice_of(peer_name)))
        return HANDSHAKE_ALIVE;
    DL_FOREACH (c->node->connections, pending) {
        if (pending->outgoing && strcmp(pending->name, peer_name) == 0 && may_cross(pending))
            return handshake_simultaneous(c->node->name, peer_name);
    }
    return HANDSHAKE_OK;
}

/* Whatever else there is between us and that node gives way to `winner`. */
static void close_rivals(struct connection *winner)
{
    struct connection *c, *next;

    DL_FOREACH_SAFE (winner->node->connections, c, next) {
        bool rival = c->state == CONNECTION_UP || c->outgoing;
        if (c != winner && rival && strcmp(c->name, winner->name) == 0)
            connection_close(c, LOG_INFO, "replaced by a newer connection");
    }
}

static void handshake_done(struct connection *c)
{
    strcpy(c->name, c->handshake->peer_name);
    c->flags = c->handshake->peer_flags;
    free(c->handshake);
    c->handshake = NULL;
    close_rivals(c);
    c->state = CONNECTION_UP;
    node_connection_up(c->node, c);
}

static void queue_handshake_output(struct connection *c)
{
    size_t len;
    const uint8_t *bytes = handshake_output(c->handshake, &len);

    if (len > 0) {
        buffer_append(&c->out, bytes, len);
        if (c->out.overflow)
            doom_for_output(c);
        want_flush(c);
    }
}

/* Returns how many bytes the handshake took. */
static size_t feed_handshake(struct connection *c, const uint8_t *data, size_t len)
{
    size_t used = 0;
    int result = handshake_feed(c->handshake, data, len, &used);

    queue_handshake_output(c);
    if (!c->outgoing && c->name[0] == '\0' && c->handshake->peer_name[0] != '\0') {
        /* Named from here on for log lines; it is that node only when the handshake is done. */
        strcpy(c->name, c->handshake->peer_name);
    }
    if (result == 1) {
        handshake_done(c);
    } else if (result < 0) {
        char why[200];
        snprintf(why, sizeof why, "%s", c->handshake->error);
        if (result == -EACCES)
            c->node->counters.cookies_refused++;
        connection_flush(c);
        connection_close(c, result == -EALREADY ? LOG_INFO : LOG_WARNING, why);
    }
    return used;
}

static const struct handshake_config *handshake_settings(struct node *node)
{
    node->handshake.creation = node_creation(node);
    return &node->handshake;
}

/* --- input --- */

/*
 * Who asks for more than it takes, or for much at a time, whoever it goes to, waits: the frames
 * that are left stay in `in`, and nothing more is read. So nobody who reads is cut off for what he
 * asked himself, and none keeps the others waiting with a packet of small requests for large
 * answers.
 */
static bool has_much_output(const struct connection *c, uint64_t made_before)
{
    return c->node->bytes_made > made_before + OUTPUT_TURN || connection_pending(c) > OUTPUT_PAUSE;
}

static void leave_frames(struct connection *c)
{
    c->has_frames = true;
    uv_read_stop((uv_stream_t *)&c->tcp);
    if (!c->is_in_turn)
        node_want_turn(c->node, c);
}

/*
 * A large frame takes milliseconds to check. One is handled in a turn, whoever sent it, and those
 * that have waited come first: the small ones of all others are handled in between.
 */
static bool must_wait(const struct connection *c, size_t size, bool is_its_turn)
{
    const struct node *node = c->node;

    return size > LARGE_FRAME && (node->had_large_frame || (node->in_turn && !is_its_turn));
}

/* A handshake that has reached its end leaves the rest of what was read to the frames. */
static size_t take_frames(struct connection *c, const uint8_t *data, size_t len, bool is_its_turn)
{
    uint64_t before = c->node->bytes_made;
    size_t at = 0;

    while (c->state == CONNECTION_UP && !c->doomed && len - at >= FRAME_HEAD) {
        if (has_much_output(c, before)) {
            leave_frames(c);
            break;
        }
        const uint8_t *p = data + at;
        size_t size = get_u32(p);
        if (size > FRAME_MAX) {
            c->node->counters.frames_too_large++;
            connection_close(c, LOG_WARNING, "it sent a frame larger than 16 MiB");
            return at;
        }
        if (size == 0) {
            at += FRAME_HEAD;
            if (uv_now(c->node->loop) - c->sent_at >= TICK_ANSWERED_MS &&
                connection_pending(c) == 0)
                put_tick(c);
            continue;
        }
        if (len - at - FRAME_HEAD < size)
            break;
        if (must_wait(c, size, is_its_turn)) {
            leave_frames(c);
            break;
        }
        c->node->had_large_frame |= size > LARGE_FRAME;
        at += FRAME_HEAD + size;
        c->node->counters.frames_in++;
        router_take_frame(c, (struct slice){p + FRAME_HEAD, size});
    }
    return at;
}

static size_t take_input(struct connection *c, const uint8_t *data, size_t len)
{
    size_t used = 0;

    if (c->state == CONNECTION_HANDSHAKE)
        used = feed_handshake(c, data, len);
    if (c->state == CONNECTION_UP)
        used += take_frames(c, data + used, len - used, false);
    return used;
}

/* How much more of the frame that has begun is still to come. */
static size_t frame_rest(const struct buffer *in)
{
    if (buffer_size(in) < FRAME_HEAD)
        return 0;
    return (size_t)get_u32(buffer_data(in)) + FRAME_HEAD - buffer_size(in);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct connection *c = handle->data;
    (void)suggested;

    *buf = uv_buf_init(NULL, 0);
    /* A turn each: an empty buffer ends libuv's reading of this stream until the next one. */
    if (c->read_turn == c->node->turn)
        return;
    c->read_turn = c->node->turn;
    if (c->doomed)
        return;
    if (buffer_size(&c->in) == 0) {
        *buf = uv_buf_init((char *)c->node->scratch, READ_SIZE);
        return;
    }
    /* Not for the whole frame at once: who only says that it is large gets no memory for it. */
    size_t rest = frame_rest(&c->in);
    size_t most = buffer_size(&c->in) > READ_SIZE ? buffer_size(&c->in) : READ_SIZE;
    size_t size = rest > most ? most : rest > READ_SIZE ? rest : READ_SIZE;
    if (!budget_make_room_for_input(c, size))
        return;
    uint8_t *room = buffer_reserve(&c->in, size);
    budget_count_input(c);
    if (room)
        *buf = uv_buf_init((char *)room, (unsigned)size);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct connection *c = stream->data;
    size_t used;

    if (nread == UV_ENOBUFS && !c->in.overflow)
        return;
    if (nread == UV_ENOBUFS) {
        c->node->counters.no_memory++;
        connection_close(c, LOG_ERR, "no memory for its input");
        return;
    }
    if (nread < 0) {
        close_with_errno(c, (int)nread);
        return;
    }
    if (nread == 0 || c->state == CONNECTION_CLOSED)
        return;
    bool was_empty = buffer_size(&c->in) == 0;
    if (buf->base == (char *)c->node->scratch) {
        used = take_input(c, c->node->scratch, (size_t)nread);
        if (c->state != CONNECTION_CLOSED)
            buffer_append(&c->in, c->node->scratch + used, (size_t)nread - used);
    } else {
        buffer_grow(&c->in, (size_t)nread);
        used = take_input(c, buffer_data(&c->in), buffer_size(&c->in));
        buffer_consume(&c->in, used);
    }
    if (c->state == CONNECTION_CLOSED)
        return;
    if (c->in.overflow) {
        c->node->counters.no_memory++;
        connection_close(c, LOG_ERR, "no memory for its input");
        return;
    }
    if (used > 0 || was_empty)
        c->frame_since = uv_now(c->node->loop);
    if (buffer_size(&c->in) == 0)
        buffer_reset(&c->in, READ_SIZE * 2);
    budget_count_input(c);
    budget_make_room_for_input(c, 0);
}

void connection_go_on(struct connection *c)
{
    node_forget_turn(c->node, c);
    if (c->doomed)
        return;
    if (connection_pending(c) > OUTPUT_PAUSE && buffer_size(&c->sending) > 0) {
        /* Its turn comes when the socket has taken it: on_written. */
        c->unread = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
        c->unread_since = uv_now(c->node->loop);
        return;
    }
    c->has_frames = false;
    c->frame_since = uv_now(c->node->loop);
    buffer_consume(&c->in, take_frames(c, buffer_data(&c->in), buffer_size(&c->in), true));
    if (c->state == CONNECTION_CLOSED || c->has_frames)
        return;
    if (buffer_size(&c->in) == 0)
        buffer_reset(&c->in, READ_SIZE * 2);
    budget_count_input(c);
    int error = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (error)
        close_with_errno(c, error);
}

static void begin_reading(struct connection *c)
{
    int fd;
    int limit = UNACKED_LIMIT_MS;

    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S);
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof limit);
    c->state = CONNECTION_HANDSHAKE;
    int error = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (error)
        close_with_errno(c, error);
}

/* --- life --- */

static void note_address(struct connection *c)
{
    struct sockaddr_storage address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    int len = sizeof address;
    char host[INET6_ADDRSTRLEN] = "?";

    /* uv_ip_name does both, from libuv 1.43 on. */
    bool is_known = uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&address, &len) == 0;
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

/*
 * One descriptor stays free behind every client. With none left libuv would close clients without
 * a word to us, and EPMD could not be reached again.
 */
static int keep_spare_descriptor(const struct connection *c)
{
    int fd;
    int error = uv_fileno((const uv_handle_t *)&c->tcp, &fd);

    if (error)
        return error;
    int spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (spare < 0)
        return -errno;
    close(spare);
    return 0;
}

/*
 * Ends the oldest client that has not proved who it is, if there are more than `allowed` of them:
 * whoever only connects and says nothing must not keep out those who have something to say.
 */
static bool make_room(struct node *node, unsigned allowed)
{
    struct connection *c, *oldest = NULL;
    unsigned count = 0;

    DL_FOREACH (node->connections, c) {
        if (c->state != CONNECTION_HANDSHAKE || c->outgoing)
            continue;
        count++;
        if (!oldest)
            oldest = c;
    }
    if (count <= allowed)
        return false;
    node->counters.handshakes_dropped++;
    connection_close(oldest, LOG_WARNING, "too many others connect");
    return true;
}

int connection_accept(struct node *node, int fd)
{
    struct connection *c = connection_new(node);

    if (!c) {
        close(fd);
        return -ENOMEM;
    }
    int error = uv_tcp_open(&c->tcp, fd);
    if (error)
        close(fd);
    make_room(node, HALF_OPEN_MAX);
    if (error == 0 && (error = keep_spare_descriptor(c)) != 0 && make_room(node, 0))
        error = keep_spare_descriptor(c);
    if (error == 0)
        error = handshake_accept(c->handshake, handshake_settings(node), judge_peer, c);
    if (error) {
        connection_close(c, LOG_WARNING, NULL); /* the listener says it */
        return error;
    }
    note_address(c);
    begin_reading(c);
    return 0;
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct connection *c = connect->data;

    if (c->state == CONNECTION_CLOSED)
        return;
    if (status < 0) {
        close_with_errno(c, status);
        return;
    }
    c->connected_at = uv_now(c->node->loop);
    queue_handshake_output(c);
    begin_reading(c);
}

int connection_open(struct node *node, const char *name, const struct sockaddr *address)
{
    struct connection *c = connection_new(node);

    if (!c)
        return -ENOMEM;
    snprintf(c->name, sizeof c->name, "%s", name);
    c->connect.data = c;
    int error = handshake_connect(c->handshake, handshake_settings(node), name);
    if (error == 0)
        error = uv_tcp_connect(&c->connect, &c->tcp, address, on_connected);
    if (error) {
        connection_close(c, LOG_DEBUG, NULL); /* the caller says it */
        return error;
    }
    c->outgoing = true;
    return 0;
}

/* It waits for its socket, which has taken nothing for a while. */
static void check_reader(struct connection *c, uint64_t now)
{
    size_t unread = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);

    if (unread != c->unread) {
        c->unread = unread;
        c->unread_since = now;
    } else if (now - c->unread_since >= UNREAD_LIMIT_MS) {
        c->node->counters.output_limit++;
        connection_doom(c, "it does not read, and its output is over the limit");
    }
}

void connection_check(struct connection *c)
{
    uint64_t now = uv_now(c->node->loop);

    if (c->state == CONNECTION_UP) {
        if (now - c->sent_at >= TICK_SILENCE_MS && connection_pending(c) == 0)
            put_tick(c);
        if (c->has_frames && !c->is_in_turn)
            check_reader(c, now);
        else if (buffer_size(&c->in) > 0 && !c->has_frames &&
                 now - c->frame_since >= FRAME_DEADLINE_MS) {
            c->node->counters.frames_late++;
            connection_doom(c, "the rest of a frame took too long");
        }
    } else if (now - c->opened_at >= SETUP_DEADLINE_MS) {
        c->node->counters.handshakes_late++;
        connection_close(c, LOG_WARNING, "the handshake took too long");
    }
}
