/* SPDX-License-Identifier: Apache-2.0 */
#include "base/line_out.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

/*
 * A terminal says that it takes data when it takes a byte, and then keeps the writer of a line
 * waiting for the rest. It is opened anew, as O_NONBLOCK must be nobody's but ours. If that is not
 * allowed (after `su`, say), it is written to as it is.
 */
void line_out_open(struct line_out *out, int fd)
{
    char path[32];

    *out = (struct line_out){.fd = fd};
    if (!isatty(fd))
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0)
        *out = (struct line_out){.fd = own, .is_own = true};
}

void line_out_close(struct line_out *out)
{
    if (out->is_own)
        close(out->fd);
    out->is_own = false;
}

/* When poll(2) says that a pipe takes data it takes PIPE_BUF bytes, so write(2) does not wait. A
 * pipe without a reader is POLLERR. */
static ssize_t write_now(const struct line_out *out, const char *bytes, size_t len)
{
    struct pollfd poll_fd = {.fd = out->fd, .events = POLLOUT};

    if (poll(&poll_fd, 1, 0) != 1 || poll_fd.revents != POLLOUT)
        return -1;
    return write(out->fd, bytes, len);
}

bool line_out_write(struct line_out *out, const char *line, size_t len)
{
    if (out->is_torn && write_now(out, "\n", 1) != 1)
        return false;
    ssize_t written = write_now(out, line, len);
    out->is_torn = written > 0 && (size_t)written < len;
    return written == (ssize_t)len;
}
