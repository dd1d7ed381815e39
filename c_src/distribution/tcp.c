/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEEPALIVE_S      30
#define UNACKED_LIMIT_MS 60000        /* a peer whose host is silent for so long is gone */
#define KEPT_CAPACITY    (256u << 10) /* bytes of memory that go back to the owner's buffer */

struct tcp {
    struct transport transport; /* first */
    struct buffer sending;      /* what the socket did not take at once */
    uv_tcp_t socket;
    uv_connect_t connect;
    uv_write_t write;
};

static struct tcp *tcp_of(const struct transport *t)
{
    return (struct tcp *)t;
}

static uv_stream_t *stream_of(const struct transport *t)
{
    return (uv_stream_t *)&tcp_of(t)->socket;
}

static bool is_closing(struct tcp *tcp)
{
    return uv_is_closing((uv_handle_t *)&tcp->socket);
}

/* --- reading --- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct tcp *tcp = handle->data;
    size_t size = 0;
    (void)suggested;

    uint8_t *room = tcp->transport.callbacks->on_room(tcp->transport.owner, &size);
    /* An empty buffer ends libuv's reading of this stream until the next turn. */
    *buf = uv_buf_init((char *)room, (unsigned)size);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct tcp *tcp = stream->data;
    (void)buf;

    if (size != 0 && size != UV_ENOBUFS)
        tcp->transport.callbacks->on_read(tcp->transport.owner, size);
}

static int read_start(struct transport *t)
{
    return uv_read_start(stream_of(t), on_alloc, on_read);
}

static void read_stop(struct transport *t)
{
    uv_read_stop(stream_of(t));
}

/* --- writing --- */

static void on_written(uv_write_t *write, int status)
{
    struct tcp *tcp = write->data;

    if (is_closing(tcp))
        return;
    buffer_free(&tcp->sending);
    tcp->transport.taken = tcp->transport.memory = 0;
    tcp->transport.callbacks->on_written(tcp->transport.owner, status);
}

static int write_bytes(struct transport *t, struct buffer *bytes)
{
    struct tcp *tcp = tcp_of(t);
    uv_buf_t buf = uv_buf_init((char *)buffer_data(bytes), (unsigned)buffer_size(bytes));
    int written = uv_try_write(stream_of(t), &buf, 1);

    if (written < 0 && written != UV_EAGAIN)
        return written;
    if (written > 0)
        buffer_consume(bytes, (size_t)written);
    if (buffer_size(bytes) == 0) {
        buffer_reset(bytes, KEPT_CAPACITY);
        return 1;
    }
    /* The socket is full: libuv writes the rest when it can. */
    tcp->sending = *bytes;
    buffer_init(bytes);
    t->taken = buffer_size(&tcp->sending);
    t->memory = tcp->sending.capacity;
    buf = uv_buf_init((char *)buffer_data(&tcp->sending), (unsigned)t->taken);
    return uv_write(&tcp->write, stream_of(t), &buf, 1, on_written);
}

static size_t queued(const struct transport *t)
{
    return uv_stream_get_write_queue_size(stream_of(t));
}

static int shut_down(struct transport *t)
{
    int fd;
    int error = uv_fileno((const uv_handle_t *)stream_of(t), &fd);

    if (error == 0 && shutdown(fd, SHUT_WR) != 0)
        error = -errno;
    return error;
}

/* --- life --- */

static int peer_address(const struct transport *t, struct sockaddr_storage *address)
{
    int size = sizeof *address;

    return uv_tcp_getpeername(&tcp_of(t)->socket, (struct sockaddr *)address, &size);
}

static void on_closed(uv_handle_t *handle)
{
    struct tcp *tcp = handle->data;

    buffer_free(&tcp->sending);
    tcp->transport.callbacks->on_closed(tcp->transport.owner);
    free(tcp);
}

static void close_socket(struct transport *t)
{
    uv_close((uv_handle_t *)stream_of(t), on_closed);
}

static const struct transport_kind kind = {
    .read_start = read_start,
    .read_stop = read_stop,
    .write = write_bytes,
    .queued = queued,
    .shut_down = shut_down,
    .peer_address = peer_address,
    .close = close_socket,
};

static struct tcp *tcp_new(uv_loop_t *loop, const struct transport_callbacks *callbacks,
                           void *owner)
{
    struct tcp *tcp = calloc(1, sizeof *tcp);

    if (!tcp)
        return NULL;
    /* Cannot fail: the socket is made later. */
    uv_tcp_init(loop, &tcp->socket);
    tcp->transport = (struct transport){.kind = &kind, .callbacks = callbacks, .owner = owner};
    tcp->socket.data = tcp->connect.data = tcp->write.data = tcp;
    return tcp;
}

/* For one that its owner has never had. */
static void on_dropped(uv_handle_t *handle)
{
    free(handle->data);
}

static int drop(struct tcp *tcp, int error)
{
    uv_close((uv_handle_t *)&tcp->socket, on_dropped);
    return error;
}

static void set_options(struct tcp *tcp)
{
    int fd;
    int limit = UNACKED_LIMIT_MS;

    uv_tcp_nodelay(&tcp->socket, 1);
    uv_tcp_keepalive(&tcp->socket, 1, KEEPALIVE_S);
    if (uv_fileno((uv_handle_t *)&tcp->socket, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof limit);
}

int tcp_accept(struct transport **out, uv_loop_t *loop, int fd,
               const struct transport_callbacks *callbacks, void *owner)
{
    struct tcp *tcp = tcp_new(loop, callbacks, owner);

    if (!tcp) {
        close(fd);
        return -ENOMEM;
    }
    int error = uv_tcp_open(&tcp->socket, fd);
    if (error) {
        close(fd);
        return drop(tcp, error);
    }
    set_options(tcp);
    *out = &tcp->transport;
    return 0;
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct tcp *tcp = connect->data;

    if (is_closing(tcp))
        return;
    if (status == 0)
        set_options(tcp);
    tcp->transport.callbacks->on_open(tcp->transport.owner, status);
}

int tcp_connect(struct transport **out, uv_loop_t *loop, const struct sockaddr *address,
                const struct transport_callbacks *callbacks, void *owner)
{
    struct tcp *tcp = tcp_new(loop, callbacks, owner);

    if (!tcp)
        return -ENOMEM;
    int error = uv_tcp_connect(&tcp->connect, &tcp->socket, address, on_connected);
    if (error)
        return drop(tcp, error);
    *out = &tcp->transport;
    return 0;
}
