/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A comparator of the benchmarks: the limit, which is the least that a C node can do for a call.
 * One read takes all that is there, one walk with ei over each frame finds whom to answer, and one
 * write carries all the answers, which are constant. It keeps nothing and checks nothing, so what
 * it costs is the kernel and ei. No node that does its job gets there; how near one comes is the
 * figure.
 *
 * Usage: limit NAME, with the cookie in MACULA_NAT_COOKIE. It prints `ready`, and is ended by a
 * signal. It trusts its callers: they are the benchmarks' load.
 */
#include "ei_node.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define FRAME_HEAD   4
#define READ_AT_ONCE ((size_t)256 << 10)
#define EVENTS_MAX   16

/* An answer is the length of its frame, then these three with pid and tag of the caller between
 * them: {2, '', Pid} and {Tag, {ok, direct, SessionId}}. */
static const char before_pid[] = {'p', '\x83', 'h', 3, 'a', 2, 'w', 0};
static const char before_tag[] = {'\x83', 'h', 2};
static const char after_tag[] = "h\3w\2okw\6directm\0\0\0\x18"
                                "AAAAAAAAAAAAAAAAAAAAAA==";

#define ANSWER_ADDS (FRAME_HEAD + sizeof before_pid + sizeof before_tag + sizeof after_tag - 1)

/* A frame holds the pid and the tag, so an answer is longer by less than what it adds; and no frame
 * with a call in it is shorter than half of that. */
static char answers[3 * READ_AT_ONCE];

struct connection {
    int fd;
    size_t len; /* of what was read and is no whole frame yet */
    char in[READ_AT_ONCE];
};

static char *put(char *out, const char *bytes, size_t len)
{
    memcpy(out, bytes, len);
    return out + len;
}

static uint32_t get_length(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static char *put_length(char *out, size_t len)
{
    char head[FRAME_HEAD] = {(char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len};
    return put(out, head, sizeof head);
}

/* Control tuple, then {'$gen_call', {Pid, Tag}, Request}. Returns where the next answer goes. */
static char *answer(char *out, const char *frame)
{
    int at = 1; /* behind the byte that says "pass through" */
    int version, arity;

    if (ei_decode_version(frame, &at, &version) != 0 || ei_skip_term(frame, &at) != 0 ||
        ei_decode_version(frame, &at, &version) != 0 ||
        ei_decode_tuple_header(frame, &at, &arity) != 0 || ei_skip_term(frame, &at) != 0 ||
        ei_decode_tuple_header(frame, &at, &arity) != 0)
        return out;
    int pid = at;
    if (ei_skip_term(frame, &at) != 0)
        return out;
    int tag = at;
    if (ei_skip_term(frame, &at) != 0)
        return out;
    out = put_length(out, ANSWER_ADDS - FRAME_HEAD + (size_t)(at - pid));
    out = put(out, before_pid, sizeof before_pid);
    out = put(out, frame + pid, (size_t)(tag - pid));
    out = put(out, before_tag, sizeof before_tag);
    out = put(out, frame + tag, (size_t)(at - tag));
    return put(out, after_tag, sizeof after_tag - 1);
}

/* False at the end of the connection. */
static bool serve(struct connection *c)
{
    ssize_t got = read(c->fd, c->in + c->len, sizeof c->in - c->len);
    const char *p = c->in;
    char *out = answers;

    if (got <= 0)
        return false;
    const char *end = p + c->len + got;
    while (end - p >= FRAME_HEAD && (size_t)(end - p - FRAME_HEAD) >= get_length(p)) {
        uint32_t size = get_length(p);
        if (size > 0) /* else it is a tick */
            out = answer(out, p + FRAME_HEAD);
        p += FRAME_HEAD + size;
    }
    c->len = (size_t)(end - p);
    memmove(c->in, p, c->len);
    return write(c->fd, answers, (size_t)(out - answers)) == out - answers;
}

static void watch(int epoll, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        ei_node_fail("epoll_ctl");
}

static void accept_one(ei_cnode *node, int listener, int epoll)
{
    ErlConnect peer;
    int fd = ei_accept(node, listener, &peer);

    if (fd < 0)
        return;
    struct connection *c = malloc(sizeof *c);
    if (!c)
        ei_node_fail("malloc");
    c->fd = fd;
    c->len = 0;
    watch(epoll, fd, c);
}

static void drop(struct connection *c)
{
    ei_close_connection(c->fd);
    free(c);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    ei_cnode node;
    int listener = ei_node_start(&node, argc, argv);
    int epoll = epoll_create1(0);

    watch(epoll, listener, NULL);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                accept_one(&node, listener, epoll);
            else if (!serve(c))
                drop(c);
        }
    }
}
