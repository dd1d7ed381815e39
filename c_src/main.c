/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments, signals, wiring, exit status. */
#include "application.h"
#include "base/line_out.h"
#include "base/log.h"
#include "base/table.h"
#include "cookie.h"
#include "descriptors.h"
#include "options.h"
#include "signals.h"
#include "stdin_watch.h"
#include "term/cursor.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

struct program {
    struct options options;
    uv_loop_t loop;
    struct application application;
    struct signals signals;
    struct stdin_watch input;
    int status;
};

static void program_stop(struct program *p, int status)
{
    if (p->application.is_stopping)
        return;
    p->status = status;
    application_stop(&p->application);
    signals_close(&p->signals);
    stdin_watch_close(&p->input);
}

static void on_ready(void *ctx, int port)
{
    struct program *p = ctx;
    struct line_out out;
    char line[sizeof "ready  65535\n" + NODE_NAME_MAX];

    log_event(LOG_NOTICE, "start", NULL, "%s serves calls at port %d",
              p->application.server.node.name, port);
    int len = snprintf(line, sizeof line, "ready %s %d\n", p->application.server.node.name, port);
    line_out_open(&out, STDOUT_FILENO);
    if (!line_out_write(&out, line, (size_t)len))
        log_event(LOG_WARNING, "start", NULL, "standard output did not take the line 'ready'");
    line_out_close(&out);
}

static void on_failed(void *ctx, const char *why)
{
    log_event(LOG_ERR, "start", NULL, "%s", why);
    program_stop(ctx, EX_UNAVAILABLE);
}

/* A process has ended: by request (sys:terminate), or by an exit signal. */
static void on_terminated(void *ctx, struct slice reason)
{
    struct program *p = ctx;
    struct cursor c = cursor_of(reason);
    bool by_request = cursor_is_atom(&c, "normal") || cursor_is_atom(&c, "shutdown");

    log_event(by_request ? LOG_NOTICE : LOG_ERR, "stop", NULL, "ended by %s of another node",
              by_request ? "request" : "an exit");
    program_stop(p, by_request ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void on_end_signal(void *ctx, int number)
{
    log_event(LOG_NOTICE, "stop", NULL, "ended by signal %d", number);
    program_stop(ctx, EXIT_SUCCESS);
}

static void on_stdin_end(void *ctx)
{
    struct program *p = ctx;

    if (p->application.is_stopping)
        return;
    log_event(LOG_NOTICE, "stop", NULL, "ended by the end of standard input");
    program_stop(p, EXIT_SUCCESS);
}

/* --- start --- */

/* Wipes the cookie, of which the node has a copy then. */
static int init_application(struct program *p, char cookie[static COOKIE_SIZE])
{
    const struct options *o = &p->options;
    struct sockaddr_in any;

    uv_ip4_addr("0.0.0.0", (int)o->port, &any);
    struct application_config config = {
        .server = {.loop = &p->loop,
                   .name = o->node_name,
                   .cookie = slice_of(cookie),
                   .listen = o->listen.ss_family == AF_UNSPEC ? (const struct sockaddr *)&any
                                                              : (const struct sockaddr *)&o->listen,
                   .no_epmd = o->no_epmd,
                   .ctx = p,
                   .on_ready = on_ready,
                   .on_failed = on_failed},
        .coordinator = o->coordinator,
        .on_terminated = on_terminated,
        .ctx = p,
    };
    int error = application_init(&p->application, &config);
    OPENSSL_cleanse(cookie, COOKIE_SIZE);
    return error;
}

static int connect_nodes(struct program *p)
{
    const struct options *o = &p->options;
    int error = 0;

    for (size_t i = 0; i < o->connect_count && error == 0; i++)
        error = server_connect(&p->application.server, o->connect[i], o->connect_port[i]);
    return error;
}

/* Everything is in place: from here on the loop decides. */
static void start(struct program *p)
{
    signals_start(&p->signals, &p->loop, on_end_signal, p);
    int error = connect_nodes(p);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot start: %s", uv_strerror(error));
        program_stop(p, EX_OSERR);
        return;
    }
    error = application_start(&p->application);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot listen at port %u: %s", p->options.port,
                  uv_strerror(error));
        program_stop(p, EX_UNAVAILABLE);
        return;
    }
    if (p->options.exit_on_stdin_eof)
        error = stdin_watch_start(&p->input, &p->loop, on_stdin_end, p);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot read standard input: %s", uv_strerror(error));
        program_stop(p, EX_OSERR);
    }
}

static int run(struct program *p, char cookie[static COOKIE_SIZE])
{
    int error = table_init();

    if (error == 0)
        error = uv_loop_init(&p->loop);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot start: %s", uv_strerror(error));
        return EX_OSERR;
    }
    error = init_application(p, cookie);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot start: %s",
                  error == -EINVAL ? "ERL_EPMD_PORT is not a port" : uv_strerror(error));
        uv_loop_close(&p->loop);
        return error == -EINVAL ? EX_UNAVAILABLE : EX_OSERR;
    }
    start(p);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    application_free(&p->application);
    uv_loop_close(&p->loop);
    return p->status;
}

int main(int argc, char **argv)
{
    static struct program program;
    char error[OPTIONS_ERROR_SIZE];
    char cookie[COOKIE_SIZE];
    int descriptors = descriptors_prepare();

    if (descriptors != 0) {
        fprintf(stderr, "macula_nat_cnode: %d more file descriptors cannot be opened: %s\n",
                DESCRIPTORS_MIN, strerror(-descriptors));
        return EX_OSERR;
    }
    int parsed = options_parse(&program.options, argc, argv, error, sizeof error);
    switch (parsed) {
    case 0:
        break;
    case OPTIONS_ASKED_HELP:
        options_print_help(stdout);
        return EXIT_SUCCESS;
    case OPTIONS_ASKED_VERSION:
        puts("macula_nat_cnode " MACULA_NAT_VERSION);
        return EXIT_SUCCESS;
    default:
        fprintf(stderr, "macula_nat_cnode: %s\n", error);
        return parsed == -ENOMEM ? EX_OSERR : EX_USAGE;
    }
    log_init(program.options.log_level, STDERR_FILENO);
    int status = EX_NOPERM;
    if (cookie_load(cookie, program.options.cookie_file, error, sizeof error) == 0)
        status = run(&program, cookie);
    else
        fprintf(stderr, "macula_nat_cnode: %s\n", error);
    options_free(&program.options);
    log_free();
    return status;
}
