/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmarks' end of a distribution connection: a hidden node without listener and processes,
 * which connects to one node and exchanges frames with it. The handshake, EPMD's messages and the
 * control messages are the project's own.
 *
 * The struct is the caller's; client_connect fills it and client_close gives everything back. Only
 * client_connect blocks. A benchmark that cannot talk to its server has nothing to measure, so
 * errors of the socket after that end the program (client_fail).
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "base/buffer.h"
#include "term/cursor.h"

#include <stdbool.h>
#include <stdint.h>

struct client {
    int fd;
    char name[64]; /* of this node: name@host */
    uint32_t creation;
    struct buffer in;
    struct buffer out;
    size_t frame_start; /* of the frame that is open in `out` */
};

/* Prints the reason and ends the program with status 1. */
_Noreturn void client_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Looks `node` (name@host) up in its EPMD, connects to it as `name`@127.0.0.1 and does the
 * handshake with the cookie of MACULA_NAT_COOKIE.
 */
void client_connect(struct client *c, const char *name, const char *node);
void client_close(struct client *c);

/* A pid of this node. */
struct pid client_pid(const struct client *c, uint32_t id);

/*
 * Opens a frame: put control tuple and message (control.h) into the buffer that is returned, then
 * close it. What has gathered is sent by client_flush.
 */
struct buffer *client_open_frame(struct client *c);
void client_close_frame(struct client *c);
/* A frame whose bytes, its length in front, are ready. */
void client_put_frame(struct client *c, struct slice frame);

/* Writes what the socket takes; true if all of it went. */
bool client_flush(struct client *c);
/* Reads once what is there. */
void client_read(struct client *c);
/* The next whole frame that has been read, good until the next client_read. Ticks are answered
 * here. */
bool client_next_frame(struct client *c, struct slice *frame);

/* Waits until one of the connections can be read, or written where it has something to write. */
void clients_wait(struct client *clients, int count, int timeout_ms);

#endif
