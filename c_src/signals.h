/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals. SIGTERM and SIGINT shut the program down; a second one meanwhile ends it at once.
 * SIGHUP, SIGUSR1 and SIGUSR2 make a line in the log, and nothing else. SIGPIPE and SIGXFSZ are
 * ignored: a write that they are about fails, and is counted.
 */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <uv.h>

#define SIGNALS_COUNT 5

struct signals {
    uv_signal_t handles[SIGNALS_COUNT];
    /* Called on SIGTERM and SIGINT, with the number. */
    void (*on_end)(void *ctx, int number);
    void *ctx;
};

/* From now on signals are handled. The struct is the caller's, and must outlive signals_close. */
void signals_start(struct signals *s, uv_loop_t *loop, void (*on_end)(void *ctx, int number),
                   void *ctx);
/* The program is shutting down. */
void signals_close(struct signals *s);

#endif
