/* SPDX-License-Identifier: Apache-2.0 */
/* Waits for the end of standard input, for --exit-on-stdin-eof. */
#ifndef STDIN_WATCH_H
#define STDIN_WATCH_H

#include <uv.h>

struct stdin_watch {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tty_t tty;
        uv_timer_t timer;
    };
    void (*on_end)(void *ctx);
    void *ctx;
};

/*
 * Reads and ignores standard input; `on_end` is called when it has ended, never from within this
 * call. The struct, all zero before, is the caller's, and must outlive stdin_watch_close. Returns 0
 * or libuv's error.
 */
int stdin_watch_start(struct stdin_watch *in, uv_loop_t *loop, void (*on_end)(void *ctx),
                      void *ctx);
/* Of no effect if it was not watched. */
void stdin_watch_close(struct stdin_watch *in);

#endif
