/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_transport.h"

#include "distribution/dist_flags.h"
#include "distribution/input.h"

#include <errno.h>
#include <string.h>

static struct fake_transport *fake_of(const struct transport *t)
{
    return (struct fake_transport *)t;
}

static int read_start(struct transport *t)
{
    fake_of(t)->is_reading = true;
    return 0;
}

static void read_stop(struct transport *t)
{
    fake_of(t)->is_reading = false;
}

static int write_bytes(struct transport *t, struct buffer *bytes)
{
    struct fake_transport *fake = fake_of(t);

    if (!fake->is_full) {
        buffer_append(&fake->written, buffer_data(bytes), buffer_size(bytes));
        buffer_reset(bytes, 0);
        return 1;
    }
    fake->waiting = *bytes;
    buffer_init(bytes);
    t->taken = buffer_size(&fake->waiting);
    t->memory = fake->waiting.capacity;
    return 0;
}

static size_t queued(const struct transport *t)
{
    return buffer_size(&fake_of(t)->waiting);
}

static int shut_down(struct transport *t)
{
    fake_of(t)->is_shut_down = true;
    return 0;
}

static int peer_address(const struct transport *t, struct sockaddr_storage *address)
{
    (void)t;
    (void)address;
    return -ENOTCONN;
}

/* As with a socket, whoever is at work with the connection may look at it until the end of the
 * turn: fake_transport_reap. */
static void close_transport(struct transport *t)
{
    fake_of(t)->is_closed = true;
}

static const struct transport_kind kind = {
    .read_start = read_start,
    .read_stop = read_stop,
    .write = write_bytes,
    .queued = queued,
    .shut_down = shut_down,
    .peer_address = peer_address,
    .close = close_transport,
};

void fake_transport_open(struct fake_transport *fake, struct connection *c)
{
    *fake = (struct fake_transport){
        .transport = {.kind = &kind, .callbacks = &input_transport_callbacks, .owner = c}};
    c->transport = &fake->transport;
}

struct connection *fake_connection(struct fake_transport *fake, struct node *node, const char *name)
{
    struct connection *c = connection_new(node);

    if (!c)
        return NULL;
    fake_transport_open(fake, c);
    input_begin_frames(c, name, DIST_FLAGS_OURS);
    fake->is_reading = true;
    return c;
}

size_t fake_transport_receive(struct fake_transport *fake, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    size_t at = 0;

    while (at < size && !fake->is_closed && fake->is_reading) {
        struct connection *c = fake->transport.owner;
        size_t room_size;
        if (c->input.read_turn == c->node->turn)
            input_new_turn(c->node->input);
        uint8_t *room = fake->transport.callbacks->on_room(c, &room_size);
        if (room_size == 0)
            break;
        size_t piece = size - at < room_size ? size - at : room_size;
        memcpy(room, from + at, piece);
        at += piece;
        fake->transport.callbacks->on_read(c, (ssize_t)piece);
    }
    return at;
}

void fake_put_frame(struct connection *c, size_t size)
{
    struct buffer *out = connection_open_frame(c);
    uint8_t *room = buffer_reserve(out, size);

    if (room) {
        memset(room, 0, size);
        buffer_grow(out, size);
    }
    connection_close_frame(c);
}

void fake_transport_drain(struct fake_transport *fake)
{
    buffer_append(&fake->written, buffer_data(&fake->waiting), buffer_size(&fake->waiting));
    buffer_free(&fake->waiting);
    fake->transport.taken = fake->transport.memory = 0;
    fake->transport.callbacks->on_written(fake->transport.owner, 0);
}

bool fake_transport_reap(struct fake_transport *fake)
{
    if (!fake->is_closed)
        return false;
    fake->transport.callbacks->on_closed(fake->transport.owner);
    buffer_free(&fake->written);
    buffer_free(&fake->waiting);
    return true;
}
