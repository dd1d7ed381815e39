/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/connection.h"

#include "base/bytes.h"
#include "base/log.h"
#include "distribution/control.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* --- life --- */

struct connection *connection_new(struct node *node)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->node = node;
    c->number = ++node->connections_made;
    c->sent_at = uv_now(node->loop);
    DL_APPEND(node->connections, c);
    return c;
}

void connection_on_transport_closed(void *connection)
{
    struct connection *c = connection;

    buffer_free(&c->out);
    buffer_free(&c->input.bytes);
    free(c->input.handshake);
    free(c);
}

bool connection_set_up(struct connection *c)
{
    c->state = CONNECTION_UP;
    HASH_ADD_STR(c->node->by_name, name, c);
    if (!table_has(c->hh)) {
        connection_close(c, LOG_ERR, "no memory for its name");
        return false;
    }
    log_event(LOG_INFO, "connected", c->name, "connected to %s", c->name);
    return true;
}

struct connection *connection_find(struct node *node, struct slice name)
{
    struct connection *found = node->sender;

    /* Most often it is the node whose frame is being handled: then nothing need be hashed. */
    if (found && found->state == CONNECTION_UP && slice_is(name, found->name))
        return found;
    HASH_FIND(hh, node->by_name, name.data, name.len, found);
    return found;
}

/* A name that has not been proved yet is anybody's: such lines are counted by the address. */
static void log_refused(const struct connection *c, int level, const char *why)
{
    if (c->name[0])
        log_event_about(level, "handshake", c->origin, c->name, "no connection with %s at %s: %s",
                        c->name, c->address, why);
    else
        log_event(level, "handshake", c->origin, "no connection with %s: %s", c->address, why);
}

static void log_closed(const struct connection *c, bool was_up, int level, const char *why)
{
    if (was_up)
        /* A kind of its own for what is amiss, so that no line before suppresses it. */
        log_event(level, level <= LOG_WARNING ? "connection lost" : "connection", c->name,
                  "connection with %s closed: %s", c->name, why);
    else if (!c->outgoing)
        log_refused(c, level, why);
}

/* --- what all of them hold --- */

static void count_output(struct connection *c, size_t now)
{
    c->node->budget.output += now - c->budget.output;
    c->budget.output = now;
}

static void recount_output(struct connection *c)
{
    /* Memory that is kept from one turn to the next holds nothing that is not taken. */
    if (c->state != CONNECTION_CLOSED)
        count_output(c, connection_pending(c) > 0
                            ? c->out.capacity + (c->transport ? c->transport->memory : 0)
                            : 0);
}

static struct connection *largest_output(struct node *node)
{
    struct connection *c, *largest = NULL;

    DL_FOREACH (node->connections, c)
        if (!c->doomed && c->budget.output > (largest ? largest->budget.output : 0))
            largest = c;
    return largest;
}

/* The limit of each does not bound the sum of many. The one that has the most is doomed, never the
 * one that happens to ask. No frame may be open on any connection. */
static void keep_to_total_of_output(struct node *node)
{
    while (node->budget.output > OUTPUT_TOTAL_MAX) {
        struct connection *largest = largest_output(node);
        if (!largest)
            break;
        node->counters.output_limit++;
        connection_doom(largest, "all output together is over the limit, and it has the most");
        buffer_free(&largest->out);
        recount_output(largest);
    }
}

/* --- closing --- */

void connection_close(struct connection *c, int level, const char *why)
{
    struct node *node = c->node;
    bool was_up = c->state == CONNECTION_UP;

    if (c->state == CONNECTION_CLOSED)
        return;
    count_output(c, 0);
    c->state = CONNECTION_CLOSED;
    if (why)
        log_closed(c, was_up, level, why);
    DL_DELETE(node->connections, c);
    if (c->is_unflushed)
        LL_DELETE2(node->unflushed, c, next_unflushed);
    if (table_has(c->hh))
        HASH_DEL(node->by_name, c);
    node->callbacks.on_closed(node->callbacks.ctx, c, was_up, level, why);
    if (c->transport)
        transport_close(c->transport);
    else
        connection_on_transport_closed(c);
}

void connection_close_with(struct connection *c, int error)
{
    bool is_ordinary = error == UV_EOF || error == UV_ECONNRESET;

    connection_close(c, is_ordinary ? LOG_INFO : LOG_WARNING,
                     error == UV_EOF ? "closed by the peer" : uv_strerror(error));
}

/* A connection that is closed is not flushed any more, whatever is still put into its output. */
static void want_flush(struct connection *c)
{
    if (c->is_unflushed || c->state == CONNECTION_CLOSED)
        return;
    c->is_unflushed = true;
    LL_PREPEND2(c->node->unflushed, c, next_unflushed);
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

/* --- output --- */

size_t connection_pending(const struct connection *c)
{
    return buffer_size(&c->out) + (c->transport ? c->transport->taken : 0);
}

struct buffer *connection_open_frame(struct connection *c)
{
    static const uint8_t head[FRAME_HEAD + 1] = {0, 0, 0, 0, CONTROL_PASS_THROUGH};

    c->frame_start = buffer_size(&c->out);
    buffer_append(&c->out, head, sizeof head);
    /* A doomed connection writes nothing more; so marked, the buffer copies nothing more. */
    if (c->doomed)
        c->out.overflow = true;
    return &c->out;
}

void connection_drop_frame(struct connection *c)
{
    buffer_truncate(&c->out, c->frame_start);
}

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
    recount_output(c);
    keep_to_total_of_output(c->node);
}

struct buffer *connection_open_send(struct node *node, const struct pid *to,
                                    struct connection **via)
{
    *via = connection_find(node, to->node);
    if (!*via) {
        node->counters.messages_undeliverable++;
        return NULL;
    }
    if (connection_pending(*via) > OUTPUT_UNASKED) {
        node->counters.output_dropped++;
        return NULL;
    }
    struct buffer *b = connection_open_frame(*via);
    control_put_send(b, to);
    return b;
}

void connection_put(struct connection *c, const uint8_t *bytes, size_t size)
{
    buffer_append(&c->out, bytes, size);
    if (c->out.overflow)
        doom_for_output(c);
    want_flush(c);
}

void connection_tick(struct connection *c, uint64_t silence_ms)
{
    static const uint8_t tick[FRAME_HEAD] = {0};

    if (uv_now(c->node->loop) - c->sent_at >= silence_ms && connection_pending(c) == 0)
        connection_put(c, tick, sizeof tick);
}

void connection_on_written(void *connection, int error)
{
    struct connection *c = connection;

    if (error) {
        connection_close_with(c, error);
        return;
    }
    c->sent_at = uv_now(c->node->loop);
    recount_output(c);
    if (buffer_size(&c->out) > 0)
        want_flush(c);
    c->node->callbacks.on_drained(c->node->callbacks.ctx, c);
}

void connection_flush(struct connection *c)
{
    if (c->is_unflushed)
        LL_DELETE2(c->node->unflushed, c, next_unflushed);
    c->is_unflushed = false;
    if (c->doomed) {
        connection_close(c, LOG_WARNING, c->doomed);
        return;
    }
    if (c->state == CONNECTION_CLOSED || c->transport->taken > 0 || buffer_size(&c->out) == 0)
        return;
    size_t size = buffer_size(&c->out);
    int result = transport_write(c->transport, &c->out);
    if (result < 0) {
        connection_close_with(c, result);
        return;
    }
    if (c->transport->taken < size)
        c->sent_at = uv_now(c->node->loop);
    if (result == 1)
        count_output(c, 0);
}

void connection_flush_all(struct node *node)
{
    /* A flush may close its connection, and that may give others something to say. */
    while (node->unflushed)
        connection_flush(node->unflushed);
}
