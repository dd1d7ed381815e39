/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include "base/bytes.h"
#include "distribution/control.h"
#include "distribution/dist_flags.h"
#include "distribution/epmd_wire.h"
#include "distribution/handshake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_HEAD   4
#define READ_AT_ONCE ((size_t)256 << 10)
#define KEPT         ((size_t)1 << 20)
#define EPMD_PORT    "4369"
#define CLIENTS_MAX  64

void client_fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

/* --- connecting --- */

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int fd;

    if (getaddrinfo(host, port, &hints, &found) != 0)
        client_fail("no such host: %s", host);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        client_fail("cannot connect to %s, port %s: %s", host, port, strerror(errno));
    freeaddrinfo(found);
    return fd;
}

static void write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = write(fd, bytes, len);
        if (written < 0)
            client_fail("cannot write: %s", strerror(errno));
        bytes += written;
        len -= (size_t)written;
    }
}

static uint16_t look_up(const char *alive, const char *host)
{
    const char *epmd_port = getenv("ERL_EPMD_PORT");
    int fd = connect_to(host, epmd_port ? epmd_port : EPMD_PORT);
    uint8_t request[EPMD_REQUEST_MAX], answer[EPMD_ANSWER_MAX];
    int request_len = epmd_encode_port_please2(request, alive);
    size_t len = 0;
    uint16_t port = 0, highest = 0;
    int status = 0;

    if (request_len < 0)
        client_fail("bad node name: %s", alive);
    write_all(fd, request, (size_t)request_len);
    while (status == 0) {
        ssize_t got = read(fd, answer + len, sizeof answer - len);
        if (got <= 0)
            client_fail("EPMD closed the connection");
        len += (size_t)got;
        status = epmd_parse_port2_response(answer, len, &port, &highest);
    }
    close(fd);
    if (status < 0)
        client_fail("EPMD does not know %s", alive);
    return port;
}

static void shake_hands(struct client *c, const char *node)
{
    const char *cookie = getenv("MACULA_NAT_COOKIE");
    struct handshake_config config = {
        .node_name = c->name,
        .creation = c->creation,
        .flags = DIST_FLAGS_OURS,
        .cookie = (const uint8_t *)(cookie ? cookie : ""),
        .cookie_len = cookie ? strlen(cookie) : 0,
    };
    struct handshake hs;
    uint8_t bytes[512];
    size_t len, used = 0;
    int status = handshake_connect(&hs, &config, node);

    while (status == 0) {
        const uint8_t *output = handshake_output(&hs, &len);
        write_all(c->fd, output, len);
        ssize_t got = read(c->fd, bytes, sizeof bytes);
        if (got <= 0)
            client_fail("%s closed the connection during the handshake", node);
        status = handshake_feed(&hs, bytes, (size_t)got, &used);
        buffer_append(&c->in, bytes + used, (size_t)got - used);
    }
    if (status < 0)
        client_fail("no handshake with %s: %s", node, hs.error);
    const uint8_t *output = handshake_output(&hs, &len);
    write_all(c->fd, output, len);
}

void client_connect(struct client *c, const char *name, const char *node)
{
    char alive[256];
    char port[8];
    int yes = 1;
    const char *at = strchr(node, '@');

    if (!at || at - node >= (ptrdiff_t)sizeof alive)
        client_fail("not a node name: %s", node);
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s@127.0.0.1", name);
    snprintf(alive, sizeof alive, "%.*s", (int)(at - node), node);
    c->creation = (uint32_t)getpid();
    snprintf(port, sizeof port, "%u", look_up(alive, at + 1));
    c->fd = connect_to(at + 1, port);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    shake_hands(c, node);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

void client_close(struct client *c)
{
    close(c->fd);
    buffer_free(&c->in);
    buffer_free(&c->out);
}

struct pid client_pid(const struct client *c, uint32_t id)
{
    return (struct pid){.node = slice_of(c->name), .id = id, .creation = c->creation};
}

/* --- frames --- */

struct buffer *client_open_frame(struct client *c)
{
    static const uint8_t head[FRAME_HEAD + 1] = {0, 0, 0, 0, CONTROL_PASS_THROUGH};

    c->frame_start = buffer_size(&c->out);
    buffer_append(&c->out, head, sizeof head);
    return &c->out;
}

void client_close_frame(struct client *c)
{
    if (c->out.overflow)
        client_fail("out of memory");
    size_t size = buffer_size(&c->out) - c->frame_start - FRAME_HEAD;
    put_u32(buffer_data(&c->out) + c->frame_start, (uint32_t)size);
}

void client_put_frame(struct client *c, struct slice frame)
{
    buffer_append(&c->out, frame.data, frame.len);
}

bool client_flush(struct client *c)
{
    while (buffer_size(&c->out) > 0) {
        ssize_t written = write(c->fd, buffer_data(&c->out), buffer_size(&c->out));
        if (written < 0 && errno == EAGAIN)
            return false;
        if (written < 0)
            client_fail("cannot write: %s", strerror(errno));
        buffer_consume(&c->out, (size_t)written);
    }
    buffer_reset(&c->out, KEPT);
    return true;
}

void client_read(struct client *c)
{
    uint8_t *room = buffer_reserve(&c->in, READ_AT_ONCE);

    if (!room)
        client_fail("out of memory");
    ssize_t got = read(c->fd, room, READ_AT_ONCE);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        client_fail("the server closed the connection");
    buffer_grow(&c->in, (size_t)got);
}

bool client_next_frame(struct client *c, struct slice *frame)
{
    static const uint8_t tick[FRAME_HEAD] = {0};

    while (buffer_size(&c->in) >= FRAME_HEAD) {
        const uint8_t *p = buffer_data(&c->in);
        size_t size = get_u32(p);
        if (buffer_size(&c->in) - FRAME_HEAD < size)
            return false;
        /* What is consumed stays where it is until more is read. */
        buffer_consume(&c->in, FRAME_HEAD + size);
        if (size > 0) {
            *frame = (struct slice){p + FRAME_HEAD, size};
            return true;
        }
        buffer_append(&c->out, tick, sizeof tick);
    }
    return false;
}

void clients_wait(struct client *clients, int count, int timeout_ms)
{
    struct pollfd polls[CLIENTS_MAX];

    for (int i = 0; i < count; i++) {
        bool writes = buffer_size(&clients[i].out) > 0;
        polls[i] =
            (struct pollfd){.fd = clients[i].fd, .events = writes ? POLLIN | POLLOUT : POLLIN};
    }
    if (poll(polls, (nfds_t)count, timeout_ms) < 0 && errno != EINTR)
        client_fail("cannot wait: %s", strerror(errno));
}
