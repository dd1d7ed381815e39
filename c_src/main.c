/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments, signals, wiring, exit status. */
#include "base/line_out.h"
#include "base/log.h"
#include "base/table.h"
#include "cookie.h"
#include "descriptors.h"
#include "distribution/node.h"
#include "input.h"
#include "macula/api.h"
#include "macula/coordinator.h"
#include "options.h"
#include "otp/net_kernel.h"
#include "otp/rpc.h"
#include "signals.h"
#include "term/cursor.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define SERVERS 4

struct program {
    struct options options;
    uv_loop_t loop;
    struct node node;
    struct profile_cache cache;
    struct coordinator coordinator;
    struct gen_server net_kernel;
    struct rpc rpc;
    struct gen_server *servers[SERVERS]; /* all of these */
    struct signals signals;
    struct input input;
    uv_timer_t minute;
    bool is_stopping;
    int status;
};

static void program_stop(struct program *p, int status)
{
    if (p->is_stopping)
        return;
    p->is_stopping = true;
    p->status = status;
    for (size_t i = 0; i < SERVERS; i++)
        gen_server_stop(p->servers[i], "shutdown");
    coordinator_close(&p->coordinator);
    uv_close((uv_handle_t *)&p->minute, NULL);
    signals_close(&p->signals);
    input_close(&p->input);
    node_stop(&p->node);
}

/* --- hooks --- */

static void on_log(void *ctx, int level, const char *kind, const char *peer, const char *about,
                   const char *format, va_list arguments)
{
    (void)ctx;
    log_vevent(level, kind, peer, about, format, arguments);
}

static void on_spawn(void *ctx, const struct spawn_request *request)
{
    struct program *p = ctx;

    if (!p->is_stopping)
        rpc_handle_spawn(&p->rpc, request);
}

static void on_up(void *ctx, struct connection *c)
{
    struct program *p = ctx;

    if (!p->is_stopping)
        coordinator_node_up(&p->coordinator, c);
}

static void on_down(void *ctx, struct connection *c)
{
    struct program *p = ctx;

    coordinator_node_down(&p->coordinator, c);
}

static void on_monitor_exit(void *ctx, struct connection *c, const struct control *control)
{
    struct program *p = ctx;

    watches_take_exit(&p->coordinator.watches, c, control);
}

static void on_ready(void *ctx, int port)
{
    struct program *p = ctx;
    struct line_out out;
    char line[sizeof "ready  65535\n" + NODE_NAME_MAX];

    log_event(LOG_NOTICE, "start", NULL, "%s serves calls at port %d", p->node.name, port);
    int len = snprintf(line, sizeof line, "ready %s %d\n", p->node.name, port);
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

/* A process ended that this program exists for: in order, or because somebody ended it. */
static void on_terminated(void *ctx, struct slice reason)
{
    struct program *p = ctx;
    struct cursor c = cursor_of(reason);
    bool in_order = cursor_is_atom(&c, "normal") || cursor_is_atom(&c, "shutdown");

    if (p->is_stopping)
        return;
    log_event(in_order ? LOG_NOTICE : LOG_ERR, "stop", NULL, "ended by %s of another node",
              in_order ? "request" : "an exit");
    program_stop(p, in_order ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void on_end_signal(void *ctx, int number)
{
    log_event(LOG_NOTICE, "stop", NULL, "ended by signal %d", number);
    program_stop(ctx, EXIT_SUCCESS);
}

static void on_input_end(void *ctx)
{
    struct program *p = ctx;

    if (p->is_stopping)
        return;
    log_event(LOG_NOTICE, "stop", NULL, "ended by the end of standard input");
    program_stop(p, EXIT_SUCCESS);
}

static void on_minute(uv_timer_t *timer)
{
    struct program *p = timer->data;

    profile_cache_sweep(&p->cache);
    lookup_drop_expired(&p->coordinator.lookup);
#ifdef __GLIBC__
    /* What a busy hour has needed goes back to the system. */
    malloc_trim(0);
#endif
}

/* --- start --- */

/* Copies the cookie to where the handshake finds it and wipes it here. */
static int init_node(struct program *p, char cookie[static COOKIE_SIZE])
{
    const struct options *o = &p->options;
    struct sockaddr_in any;

    uv_ip4_addr("0.0.0.0", (int)o->port, &any);
    struct node_config config = {
        .loop = &p->loop,
        .name = o->node_name,
        .cookie = slice_of(cookie),
        .traces = o->log_level >= LOG_DEBUG,
        .listen = o->listen.ss_family == AF_UNSPEC ? (const struct sockaddr *)&any
                                                   : (const struct sockaddr *)&o->listen,
        .no_epmd = o->no_epmd,
        .hooks = {p, on_log, on_spawn, on_up, on_down, on_monitor_exit, on_ready, on_failed},
    };
    int error = node_init(&p->node, &config);
    OPENSSL_cleanse(cookie, COOKIE_SIZE);
    return error;
}

static int start_processes(struct program *p)
{
    p->servers[0] = &p->coordinator.server;
    p->servers[1] = &p->cache.server;
    p->servers[2] = &p->rpc.rex;
    p->servers[3] = &p->net_kernel;
    for (size_t i = 0; i < p->options.connect_count; i++)
        if (node_connect(&p->node, p->options.connect[i], p->options.connect_port[i]) != 0)
            return -ENOMEM;
    int error = net_kernel_start(&p->net_kernel, &p->node);
    if (error == 0)
        error = profile_cache_start(&p->cache, &p->node);
    if (error == 0)
        error = coordinator_start(&p->coordinator, &p->node, &p->cache, &p->options.coordinator);
    if (error == 0)
        error = rpc_start(&p->rpc, &p->node, api_functions, api_function_count, &p->coordinator);
    if (error)
        return error;
    for (size_t i = 0; i < SERVERS; i++) {
        p->servers[i]->terminated = on_terminated;
        p->servers[i]->terminated_ctx = p;
    }
    uv_timer_init(&p->loop, &p->minute);
    p->minute.data = p;
    uv_timer_start(&p->minute, on_minute, 60000, 60000);
    return 0;
}

/* Everything is in place: from here on the loop decides. */
static void start(struct program *p)
{
    signals_start(&p->signals, &p->loop, on_end_signal, p);
    int error = node_start(&p->node);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot listen at port %u: %s", p->options.port,
                  uv_strerror(error));
        program_stop(p, EX_UNAVAILABLE);
    } else if (p->options.exit_on_stdin_eof &&
               (error = input_watch(&p->input, &p->loop, on_input_end, p)) != 0) {
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
    error = init_node(p, cookie);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "%s",
                  error == -EINVAL ? "ERL_EPMD_PORT is not a port" : uv_strerror(error));
        uv_loop_close(&p->loop);
        return error == -EINVAL ? EX_UNAVAILABLE : EX_OSERR;
    }
    error = start_processes(p);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot start: %s", uv_strerror(error));
        p->status = EX_OSERR;
        node_stop(&p->node);
    } else {
        start(p);
    }
    uv_run(&p->loop, UV_RUN_DEFAULT);
    coordinator_free(&p->coordinator);
    profile_cache_free(&p->cache);
    node_free(&p->node);
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
        fprintf(stderr, "macula_nat_cnode: no %d file descriptors can be had: %s\n",
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
    log_init(program.options.log_level);
#ifdef __GLIBC__
    /* Large buffers are mapped, so that they go back to the system as soon as they are freed. */
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
#endif
    int status = EX_NOPERM;
    if (cookie_load(cookie, program.options.cookie_file, error, sizeof error) == 0)
        status = run(&program, cookie);
    else
        fprintf(stderr, "macula_nat_cnode: %s\n", error);
    options_free(&program.options);
    log_free();
    return status;
}
