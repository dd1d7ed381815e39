/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/epmd.h"

#include "distribution/resolver.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#define DEFAULT_PORT     4369
#define START_MS         4000 /* for EPMD to be there and answer, before it was ever published */
#define TAKEN_MS         2000 /* for the name's last owner to let go of it */
#define RETRY_MS         100
#define LAST_TRY_MS      500 /* that the last attempt has, too */
#define BACK_OFF_MAX_MS  3200
#define REPUBLISH_TRY_MS 4000
#define STABLE_MS        10000 /* a publication that held so long was no trick */

/* One question to an EPMD, with a deadline. A publication's connection stays open after it. */
struct epmd_exchange {
    struct epmd *epmd; /* NULL once nobody wants the outcome */
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    uv_pipe_t resolver;
    struct resolver_answer resolved; /* its first `resolved_len` bytes */
    size_t resolved_len;
    bool is_resolving;
    int holds; /* handles not yet closed */
    struct sockaddr_in address;
    uint16_t known_port; /* of the node that is looked up; 0: not known */
    uint8_t request[EPMD_REQUEST_MAX];
    size_t request_len;
    uint8_t answer[EPMD_ANSWER_MAX];
    size_t answer_len;
    bool is_answered, is_closing;
    void (*on_read)(struct epmd_exchange *ex);
    /* After exchange_close; `ex` is still there. */
    void (*on_end)(struct epmd_exchange *ex, int status);
    epmd_lookup_cb cb;
    void *ctx;
    struct epmd_exchange *prev, *next; /* epmd->lookups */
};

static void publish_try(struct epmd *epmd, uint64_t timeout_ms);

static void exchange_release(struct epmd_exchange *ex)
{
    if (--ex->holds == 0)
        free(ex);
}

static void exchange_on_closed(uv_handle_t *handle)
{
    exchange_release(handle->data);
}

static void exchange_close(struct epmd_exchange *ex)
{
    if (ex->is_closing)
        return;
    ex->is_closing = true;
    if (ex->is_resolving)
        uv_close((uv_handle_t *)&ex->resolver, exchange_on_closed);
    uv_close((uv_handle_t *)&ex->tcp, exchange_on_closed);
    uv_close((uv_handle_t *)&ex->timer, exchange_on_closed);
}

static void exchange_end(struct epmd_exchange *ex, int status)
{
    if (ex->is_closing)
        return;
    exchange_close(ex);
    ex->on_end(ex, status);
}

static void exchange_on_timeout(uv_timer_t *timer)
{
    exchange_end(timer->data, -ETIMEDOUT);
}

/* There is never room for more than the answer; what comes after it lands in the same place. */
static void exchange_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct epmd_exchange *ex = handle->data;
    size_t at = ex->is_answered ? 0 : ex->answer_len;

    (void)suggested;
    *buf = uv_buf_init((char *)ex->answer + at, (unsigned)(sizeof ex->answer - at));
}

static void exchange_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct epmd_exchange *ex = stream->data;

    (void)buf;
    if (n < 0) {
        exchange_end(ex, n == UV_EOF ? -ECONNRESET : (int)n);
    } else if (n > 0 && !ex->is_answered) {
        ex->answer_len += (size_t)n;
        ex->on_read(ex);
    } else if (n > 0) {
        /* An EPMD has said all that it had to say. */
        exchange_end(ex, -EPROTO);
    }
}

static void exchange_on_write(uv_write_t *write, int status)
{
    if (status < 0)
        exchange_end(write->data, status);
}

static void exchange_on_connect(uv_connect_t *connect, int status)
{
    struct epmd_exchange *ex = connect->data;
    uv_buf_t buf = uv_buf_init((char *)ex->request, (unsigned)ex->request_len);

    if (ex->is_closing)
        return;
    if (status == 0)
        status = uv_write(&ex->write, (uv_stream_t *)&ex->tcp, &buf, 1, exchange_on_write);
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&ex->tcp, exchange_alloc, exchange_on_read);
    if (status < 0)
        exchange_end(ex, status);
}

static int exchange_connect(struct epmd_exchange *ex)
{
    return uv_tcp_connect(&ex->connect, &ex->tcp, (const struct sockaddr *)&ex->address,
                          exchange_on_connect);
}

/* A new exchange whose deadline runs. NULL if there is no memory. */
static struct epmd_exchange *exchange_new(struct epmd *epmd, uint64_t timeout_ms)
{
    struct epmd_exchange *ex = calloc(1, sizeof *ex);

    if (!ex)
        return NULL;
    ex->epmd = epmd;
    ex->holds = 2;
    /* Neither can fail: the socket is only made by uv_tcp_connect. */
    uv_tcp_init(epmd->loop, &ex->tcp);
    uv_timer_init(epmd->loop, &ex->timer);
    ex->tcp.data = ex->timer.data = ex->connect.data = ex->write.data = ex;
    uv_timer_start(&ex->timer, exchange_on_timeout, timeout_ms, 0);
    return ex;
}

__attribute__((format(printf, 4, 5))) static void report(struct epmd *epmd, enum epmd_event event,
                                                         int status, const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    epmd->on_event(epmd->ctx, event, status, text);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void daemon_close(struct epmd *epmd)
{
    if (!epmd->daemon)
        return;
    epmd->daemon->data = NULL;
    uv_close((uv_handle_t *)epmd->daemon, free_handle);
    epmd->daemon = NULL;
}

/* `epmd -daemon` leaves a child behind and exits. If it failed, there will be no answer, which is
 * noticed anyway. */
static void daemon_on_exit(uv_process_t *process, int64_t status, int signal)
{
    struct epmd *epmd = process->data;

    (void)status;
    (void)signal;
    if (epmd)
        daemon_close(epmd);
}

static int daemon_start(struct epmd *epmd)
{
    char *args[] = {"epmd", "-daemon", NULL};
    uv_process_options_t options = {.file = "epmd", .args = args, .exit_cb = daemon_on_exit};

    epmd->daemon_started = true;
    epmd->daemon = calloc(1, sizeof *epmd->daemon);
    if (!epmd->daemon)
        return -ENOMEM;
    epmd->daemon->data = epmd;
    int error = uv_spawn(epmd->loop, epmd->daemon, &options);
    if (error < 0)
        daemon_close(epmd);
    return error;
}

static void retry_on_timer(uv_timer_t *timer)
{
    struct epmd *epmd = timer->data;
    uint64_t now = uv_now(epmd->loop);

    if (epmd->is_unused)
        report(epmd, EPMD_PUBLISHED, 0, "no name is published");
    else if (epmd->was_published)
        publish_try(epmd, REPUBLISH_TRY_MS);
    else
        publish_try(epmd, epmd->deadline > now + LAST_TRY_MS ? epmd->deadline - now : LAST_TRY_MS);
}

static void retry_after(struct epmd *epmd, uint64_t ms)
{
    uv_timer_start(epmd->retry, retry_on_timer, ms, 0);
}

/* A first publication that did not work: try again while there is hope, or report. */
static void publish_not_yet(struct epmd *epmd, int status)
{
    uint64_t now = uv_now(epmd->loop);

    if (status == -EADDRINUSE || epmd->taken_since != 0) {
        if (epmd->taken_since == 0) {
            epmd->taken_since = now;
            epmd->deadline = now + TAKEN_MS;
        }
        if (now < epmd->deadline)
            retry_after(epmd, RETRY_MS);
        else
            report(epmd, EPMD_FAILED, -EADDRINUSE, "EPMD says that the name is taken");
        return;
    }
    if (status == -ECONNREFUSED && !epmd->daemon_started) {
        int error = daemon_start(epmd);
        if (error < 0) {
            report(epmd, EPMD_FAILED, status, "EPMD does not answer and cannot be started: %s",
                   uv_strerror(error));
            return;
        }
    }
    if (now < epmd->deadline && status != -EPROTO)
        retry_after(epmd, RETRY_MS);
    else
        report(epmd, EPMD_FAILED, status, "no answer from EPMD on port %u: %s",
               (unsigned)epmd->epmd_port, uv_strerror(status));
}

static void publish_on_end(struct epmd_exchange *ex, int status)
{
    struct epmd *epmd = ex->epmd;
    bool is_lost;

    if (!epmd)
        return;
    is_lost = epmd->is_published;
    if (is_lost && uv_now(epmd->loop) - epmd->published_at >= STABLE_MS)
        epmd->delay = RETRY_MS;
    epmd->publication = NULL;
    epmd->is_published = false;
    if (!epmd->was_published) {
        publish_not_yet(epmd, status);
        return;
    }
    retry_after(epmd, epmd->delay);
    epmd->delay = epmd->delay * 2 < BACK_OFF_MAX_MS ? epmd->delay * 2 : BACK_OFF_MAX_MS;
    if (is_lost)
        report(epmd, EPMD_LOST, status, "lost EPMD: %s", uv_strerror(status));
    else if (status == -EADDRINUSE && !epmd->is_taken)
        report(epmd, EPMD_TAKEN, status,
               "another node has taken the name in EPMD; no new node "
               "finds this one until it lets go of it");
    epmd->is_taken = status == -EADDRINUSE;
}

static void publish_on_read(struct epmd_exchange *ex)
{
    struct epmd *epmd = ex->epmd;
    uint32_t creation;
    int parsed = epmd_parse_alive2_response(ex->answer, ex->answer_len, &creation);

    if (parsed < 0)
        exchange_end(ex, parsed);
    if (parsed <= 0)
        return;
    ex->is_answered = true;
    uv_timer_stop(&ex->timer);
    epmd->is_published = true;
    epmd->published_at = uv_now(epmd->loop);
    epmd->is_taken = false;
    if (epmd->was_published) {
        report(epmd, EPMD_REGAINED, 0, "published again in EPMD");
        return;
    }
    epmd->was_published = true;
    epmd->creation = creation;
    report(epmd, EPMD_PUBLISHED, 0, "published in EPMD");
}

static void publish_try(struct epmd *epmd, uint64_t timeout_ms)
{
    struct epmd_exchange *ex = exchange_new(epmd, timeout_ms);

    if (!ex) {
        retry_after(epmd, BACK_OFF_MAX_MS);
        return;
    }
    epmd->publication = ex;
    memcpy(ex->request, epmd->request, sizeof ex->request);
    ex->request_len = (size_t)epmd->request_len;
    ex->on_read = publish_on_read;
    ex->on_end = publish_on_end;
    uv_ip4_addr("127.0.0.1", epmd->epmd_port, &ex->address);
    int error = exchange_connect(ex);
    if (error < 0)
        exchange_end(ex, error);
}

static void lookup_finish(struct epmd_exchange *ex, int status, uint16_t highest)
{
    if (!ex->epmd)
        return;
    DL_DELETE(ex->epmd->lookups, ex);
    ex->epmd = NULL;
    ex->cb(ex->ctx, status, status < 0 ? NULL : &ex->address, highest);
}

static void lookup_on_end(struct epmd_exchange *ex, int status)
{
    lookup_finish(ex, status, 0);
}

static void lookup_on_read(struct epmd_exchange *ex)
{
    uint16_t port, highest;
    int parsed = epmd_parse_port2_response(ex->answer, ex->answer_len, &port, &highest);

    if (parsed < 0)
        exchange_end(ex, parsed);
    if (parsed <= 0)
        return;
    ex->address.sin_port = htons(port);
    exchange_close(ex);
    lookup_finish(ex, 0, highest);
}

/* The node itself may be at a port that is known already: then nobody need be asked. */
static void lookup_connect(struct epmd_exchange *ex)
{
    ex->address = ex->resolved.address;
    if (ex->known_port) {
        ex->address.sin_port = htons(ex->known_port);
        exchange_close(ex);
        lookup_finish(ex, 0, EPMD_VERSION);
        return;
    }
    ex->address.sin_port = htons(ex->epmd->epmd_port);
    int error = exchange_connect(ex);
    if (error < 0)
        exchange_end(ex, error);
}

static void lookup_resolver_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct epmd_exchange *ex = handle->data;

    (void)suggested;
    *buf = uv_buf_init((char *)&ex->resolved + ex->resolved_len,
                       (unsigned)(sizeof ex->resolved - ex->resolved_len));
}

static void lookup_on_resolved(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct epmd_exchange *ex = stream->data;

    (void)buf;
    if (ex->is_closing || n == 0)
        return;
    if (n < 0) {
        exchange_end(ex, UV_EAI_FAIL);
        return;
    }
    ex->resolved_len += (size_t)n;
    if (ex->resolved_len < sizeof ex->resolved)
        return;
    uv_read_stop(stream);
    if (ex->resolved.status != 0)
        exchange_end(ex, ex->resolved.status);
    else
        lookup_connect(ex);
}

static int lookup_resolve(struct epmd_exchange *ex, const char *host)
{
    int fd = resolver_start(host);

    if (fd < 0)
        return fd;
    uv_pipe_init(ex->epmd->loop, &ex->resolver, 0);
    ex->resolver.data = ex;
    ex->is_resolving = true;
    ex->holds++;
    int error = uv_pipe_open(&ex->resolver, fd);
    if (error < 0) {
        close(fd);
        return error;
    }
    return uv_read_start((uv_stream_t *)&ex->resolver, lookup_resolver_alloc, lookup_on_resolved);
}

int epmd_lookup(struct epmd *epmd, const char *name, const char *host, uint16_t port,
                uint64_t timeout_ms, epmd_lookup_cb cb, void *ctx)
{
    uint8_t request[EPMD_REQUEST_MAX];
    int len = epmd_encode_port_please2(request, name);

    if (len < 0)
        return len;
    struct epmd_exchange *ex = exchange_new(epmd, timeout_ms);
    if (!ex)
        return -ENOMEM;
    memcpy(ex->request, request, (size_t)len);
    ex->request_len = (size_t)len;
    ex->known_port = port;
    ex->on_read = lookup_on_read;
    ex->on_end = lookup_on_end;
    ex->cb = cb;
    ex->ctx = ctx;
    int error;
    /* With a known port there is nobody to ask: the resolver then answers for an address, too, so
     * that `cb` is never called from within this function. */
    if (port == 0 && uv_ip4_addr(host, epmd->epmd_port, &ex->address) == 0)
        error = exchange_connect(ex);
    else
        error = lookup_resolve(ex, host);
    if (error < 0) {
        exchange_close(ex);
        return error;
    }
    DL_APPEND(epmd->lookups, ex);
    return 0;
}

static int read_port(uint16_t *port)
{
    const char *text = getenv("ERL_EPMD_PORT");
    char *end;

    *port = DEFAULT_PORT;
    if (!text)
        return 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > UINT16_MAX)
        return -EINVAL;
    *port = (uint16_t)value;
    return 0;
}

int epmd_init(struct epmd *epmd, uv_loop_t *loop, epmd_event_cb on_event, void *ctx)
{
    memset(epmd, 0, sizeof *epmd);
    epmd->loop = loop;
    epmd->on_event = on_event;
    epmd->ctx = ctx;
    epmd->delay = RETRY_MS;
    int error = read_port(&epmd->epmd_port);
    if (error < 0)
        return error;
    epmd->retry = calloc(1, sizeof *epmd->retry);
    if (!epmd->retry)
        return -ENOMEM;
    uv_timer_init(loop, epmd->retry);
    epmd->retry->data = epmd;
    return 0;
}

int epmd_publish(struct epmd *epmd, const char *name, uint16_t port)
{
    epmd->request_len = epmd_encode_alive2(epmd->request, name, port);
    if (epmd->request_len < 0)
        return epmd->request_len;
    uv_update_time(epmd->loop);
    epmd->deadline = uv_now(epmd->loop) + START_MS;
    /* By the timer, so that no callback is called from within this function. */
    retry_after(epmd, 0);
    return 0;
}

int epmd_do_without(struct epmd *epmd)
{
    uint32_t random;
    int error = uv_random(NULL, NULL, &random, sizeof random, 0, NULL);

    if (error < 0)
        return error;
    /* 0 to 3 are creations of old nodes. */
    epmd->creation = random | 4;
    epmd->is_unused = true;
    retry_after(epmd, 0);
    return 0;
}

uint32_t epmd_creation(const struct epmd *epmd)
{
    return epmd->creation;
}

void epmd_free(struct epmd *epmd)
{
    struct epmd_exchange *ex, *next;

    if (epmd->publication) {
        epmd->publication->epmd = NULL;
        exchange_close(epmd->publication);
        epmd->publication = NULL;
    }
    DL_FOREACH_SAFE (epmd->lookups, ex, next) {
        ex->epmd = NULL;
        exchange_close(ex);
    }
    epmd->lookups = NULL;
    daemon_close(epmd);
    if (epmd->retry)
        uv_close((uv_handle_t *)epmd->retry, free_handle);
    epmd->retry = NULL;
}
