/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments, signals, wiring, exit status. */
#include "cookie.h"
#include "dist/node.h"
#include "log.h"
#include "macula/coordinator.h"
#include "otp/net_kernel.h"
#include "otp/rpc.h"
#include "term/cursor.h"
#include "term/table.h"

#include "options.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

struct program {
    struct options options;
    uv_loop_t loop;
    struct node node;
    struct nat_cache cache;
    struct coordinator coordinator;
    struct gen_server net_kernel;
    struct rpc rpc;
    uv_signal_t signals[2];
    uv_timer_t minute;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tty_t tty;
        uv_timer_t timer;
    } input;
    bool is_stopping;
    int status;
};

static void program_stop(struct program *p, int status)
{
    if (p->is_stopping)
        return;
    p->is_stopping = true;
    p->status = status;
    gen_server_stop(&p->coordinator.server, "shutdown");
    gen_server_stop(&p->cache.server, "shutdown");
    gen_server_stop(&p->rpc.rex, "shutdown");
    gen_server_stop(&p->net_kernel, "shutdown");
    coordinator_close(&p->coordinator);
    uv_close((uv_handle_t *)&p->minute, NULL);
    for (int i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&p->signals[i], NULL);
    if (p->input.handle.type != UV_UNKNOWN_HANDLE)
        uv_close(&p->input.handle, NULL);
    node_stop(&p->node);
}

/* --- hooks --- */

static void on_log(void *ctx, int level, const char *kind, const char *peer, const char *format,
                   va_list arguments)
{
    (void)ctx;
    log_vevent(level, kind, peer, format, arguments);
}

static void on_spawn(void *ctx, const struct spawn_request *request)
{
    struct program *p = ctx;

    if (!p->is_stopping)
        rpc_take_spawn(&p->rpc, request);
}

static void on_up(void *ctx, struct connection *c)
{
    struct program *p = ctx;

    if (!p->is_stopping)
        coordinator_take_up(&p->coordinator, c);
}

static void on_down(void *ctx, struct connection *c)
{
    struct program *p = ctx;

    coordinator_take_down(&p->coordinator, c);
}

static void on_monitor_exit(void *ctx, struct connection *c, const struct control *control)
{
    struct program *p = ctx;

    watches_take_exit(&p->coordinator.watches, c, control);
}

static void on_ready(void *ctx, int port)
{
    struct program *p = ctx;

    log_event(LOG_NOTICE, "start", NULL, "%s serves calls at port %d", p->node.name, port);
    printf("ready %s %d\n", p->node.name, port);
    fflush(stdout);
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

static void on_signal(uv_signal_t *handle, int number)
{
    log_event(LOG_NOTICE, "stop", NULL, "ended by signal %d", number);
    program_stop(handle->data, EXIT_SUCCESS);
}

static void on_minute(uv_timer_t *timer)
{
    struct program *p = timer->data;

    nat_cache_sweep(&p->cache);
    lookup_drop_expired(&p->coordinator.lookup);
#ifdef __GLIBC__
    /* What a busy hour has needed goes back to the system. */
    malloc_trim(0);
#endif
}

/* --- standard input, where its end is to be ours --- */

static void input_ended(struct program *p)
{
    if (p->is_stopping)
        return;
    log_event(LOG_NOTICE, "stop", NULL, "ended by the end of standard input");
    program_stop(p, EXIT_SUCCESS);
}

static void on_input_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char ignored[256];
    (void)handle;
    (void)suggested;

    *buf = uv_buf_init(ignored, sizeof ignored);
}

static void on_input(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    (void)buf;

    if (nread < 0)
        input_ended(stream->data);
}

/* --- start --- */

static void on_file_end(uv_timer_t *timer)
{
    input_ended(timer->data);
}

/* A file, /dev/null too, is never written to by whoever started us: it has ended from the start. */
static int watch_input(struct program *p)
{
    uv_handle_type type = uv_guess_handle(0);

    if (type == UV_FILE || type == UV_UNKNOWN_HANDLE) {
        uv_timer_init(&p->loop, &p->input.timer);
        p->input.timer.data = p;
        return uv_timer_start(&p->input.timer, on_file_end, 0, 0);
    }
    if (type == UV_TTY)
        uv_tty_init(&p->loop, &p->input.tty, 0, 1);
    else
        uv_pipe_init(&p->loop, &p->input.pipe, 0);
    p->input.handle.data = p;
    int error = type == UV_TTY ? 0 : uv_pipe_open(&p->input.pipe, 0);
    return error ? error : uv_read_start(&p->input.stream, on_input_alloc, on_input);
}

static void watch_signals(struct program *p)
{
    static const int numbers[2] = {SIGTERM, SIGINT};

    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&p->loop, &p->signals[i]);
        p->signals[i].data = p;
        uv_signal_start(&p->signals[i], on_signal, numbers[i]);
    }
}

static struct coordinator_options coordinator_settings(const struct options *o)
{
    struct coordinator_options settings = {
        .lookup_timeout_ms = o->lookup_timeout_ms,
        .profile_cache_ttl_ms = o->profile_cache_ttl_ms,
        .preferred_nodes = o->connect,
        .preferred_count = o->connect_count,
        .is_compatible = o->is_compatible,
    };

    nat_config_init(&settings.nat);
    settings.nat.rules = o->rules;
    settings.nat.max_punch_attempts = o->max_punch_attempts;
    settings.nat.punch_timeout_ms = o->punch_timeout_ms;
    settings.nat.coordination_delay_ms = o->coordination_delay_ms;
    settings.nat.session_ttl_ms = (uint64_t)o->session_ttl_s * 1000;
    settings.nat.max_sessions = o->max_sessions;
    return settings;
}

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
    struct coordinator_options settings = coordinator_settings(&p->options);

    for (size_t i = 0; i < p->options.connect_count; i++)
        if (node_connect(&p->node, p->options.connect[i], p->options.connect_port[i]) != 0)
            return -ENOMEM;
    int error = net_kernel_start(&p->net_kernel, &p->node);
    if (error == 0)
        error = nat_cache_start(&p->cache, &p->node);
    if (error)
        return error;
    p->cache.terminated = on_terminated;
    p->cache.ctx = p;
    error = coordinator_start(&p->coordinator, &p->node, &p->cache, &settings);
    if (error)
        return error;
    p->coordinator.terminated = on_terminated;
    p->coordinator.ctx = p;
    error = rpc_start(&p->rpc, &p->node, api_functions, api_function_count, &p->coordinator);
    if (error)
        return error;
    uv_timer_init(&p->loop, &p->minute);
    p->minute.data = p;
    uv_timer_start(&p->minute, on_minute, 60000, 60000);
    return 0;
}

/* Everything is in place: from here on the loop decides. */
static void start(struct program *p)
{
    watch_signals(p);
    int error = node_start(&p->node);
    if (error) {
        log_event(LOG_ERR, "start", NULL, "cannot listen at port %u: %s", p->options.port,
                  uv_strerror(error));
        program_stop(p, EX_UNAVAILABLE);
    } else if (p->options.exit_on_stdin_eof && (error = watch_input(p)) != 0) {
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
    nat_cache_free(&p->cache);
    node_free(&p->node);
    uv_loop_close(&p->loop);
    return p->status;
}

int main(int argc, char **argv)
{
    static struct program program;
    char error[OPTIONS_ERROR_SIZE];
    char cookie[COOKIE_SIZE];

    int parsed = options_parse(&program.options, argc, argv, error, sizeof error);
    switch (parsed) {
    case 0:
        break;
    case OPTIONS_ASKED_HELP:
        options_print_help(stdout);
        return EXIT_SUCCESS;
    case OPTIONS_ASKED_VERSION:
        printf("macula_nat_cnode %s\n", MACULA_NAT_CNODE_VERSION);
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
