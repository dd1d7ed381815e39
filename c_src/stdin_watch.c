/* SPDX-License-Identifier: Apache-2.0 */
#include "stdin_watch.h"

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char ignored[256];
    (void)handle;
    (void)suggested;

    *buf = uv_buf_init(ignored, sizeof ignored);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct stdin_watch *in = stream->data;
    (void)buf;

    if (nread < 0)
        in->on_end(in->ctx);
}

static void on_file_end(uv_timer_t *timer)
{
    struct stdin_watch *in = timer->data;

    in->on_end(in->ctx);
}

int stdin_watch_start(struct stdin_watch *in, uv_loop_t *loop, void (*on_end)(void *ctx), void *ctx)
{
    uv_handle_type type = uv_guess_handle(0);
    int error;

    in->on_end = on_end;
    in->ctx = ctx;
    /* A file, /dev/null too, is never written to: it has ended from the
     * start. */
    if (type == UV_FILE || type == UV_UNKNOWN_HANDLE) {
        uv_timer_init(loop, &in->timer);
        in->handle.data = in;
        return uv_timer_start(&in->timer, on_file_end, 0, 0);
    }
    if (type == UV_TTY) {
        error = uv_tty_init(loop, &in->tty, 0, 1);
    } else {
        uv_pipe_init(loop, &in->pipe, 0);
        error = uv_pipe_open(&in->pipe, 0);
    }
    in->handle.data = in;
    return error ? error : uv_read_start(&in->stream, on_alloc, on_read);
}

void stdin_watch_close(struct stdin_watch *in)
{
    if (in->handle.type != UV_UNKNOWN_HANDLE)
        uv_close(&in->handle, NULL);
}
