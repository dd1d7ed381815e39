/* SPDX-License-Identifier: Apache-2.0 */
#include "signals.h"

#include "base/log.h"

#include <signal.h>

static const struct {
    int number;
    const char *name; /* of one that only makes a line; NULL: it ends the program */
} handled[SIGNALS_COUNT] = {{SIGTERM, NULL},
                            {SIGINT, NULL},
                            {SIGHUP, "SIGHUP"},
                            {SIGUSR1, "SIGUSR1"},
                            {SIGUSR2, "SIGUSR2"}};

static void on_signal(uv_signal_t *handle, int number)
{
    struct signals *s = handle->data;
    const char *name = handled[handle - s->handles].name;

    if (!name)
        s->on_end(s->ctx, number);
    else
        log_event(LOG_NOTICE, "signal", name, "%s ignored: there is nothing that it would change",
                  name);
}

void signals_start(struct signals *s, uv_loop_t *loop, void (*on_end)(void *ctx, int number),
                   void *ctx)
{
    s->on_end = on_end;
    s->ctx = ctx;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < SIGNALS_COUNT; i++) {
        uv_signal_init(loop, &s->handles[i]);
        s->handles[i].data = s;
        uv_signal_start(&s->handles[i], on_signal, handled[i].number);
    }
}

void signals_close(struct signals *s)
{
    for (int i = 0; i < SIGNALS_COUNT; i++) {
        uv_close((uv_handle_t *)&s->handles[i], NULL);
        /* Closed, it would do what the system does by default. */
        if (handled[i].name)
            signal(handled[i].number, SIG_IGN);
    }
}
