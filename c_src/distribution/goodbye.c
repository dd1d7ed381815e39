/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/goodbye.h"

#include "distribution/node.h"

#include <sys/socket.h>
#include <syslog.h>
#include <utlist.h>

#define LIMIT_MS  2000 /* for all of it */
#define LISTEN_MS 500  /* to a peer that never falls silent */
#define LOOK_MS   10   /* between looks at what is left */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct connection *c = handle->data;
    (void)suggested;

    *buf = uv_buf_init((char *)c->node->scratch, READ_SIZE);
}

static void on_ignored(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    (void)buf;

    if (nread < 0)
        connection_close(stream->data, LOG_DEBUG, NULL);
}

static void close_our_side(struct connection *c)
{
    int fd;

    c->said_goodbye = true;
    c->has_frames = false;
    if (c->is_in_turn)
        node_forget_turn(c->node, c);
    uv_read_stop((uv_stream_t *)&c->tcp);
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) != 0 || shutdown(fd, SHUT_WR) != 0 ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_ignored) != 0)
        connection_close(c, LOG_DEBUG, NULL);
}

/* It has said nothing since the last look, and all that we have to say is on its way. */
static bool is_done(struct connection *c, uint64_t passed_ms)
{
    bool was_quiet = c->looked_turn == c->read_turn && !c->has_frames;

    c->looked_turn = c->read_turn;
    return connection_pending(c) == 0 && (was_quiet || passed_ms >= LISTEN_MS);
}

static void on_look(uv_timer_t *timer)
{
    struct node *node = timer->data;
    uint64_t passed_ms = uv_now(node->loop) - node->stopped_at;
    struct connection *c, *next;

    DL_FOREACH_SAFE (node->connections, c, next) {
        if (c->state != CONNECTION_UP || passed_ms >= LIMIT_MS)
            connection_close(c, LOG_DEBUG, NULL);
        else if (!c->said_goodbye && is_done(c, passed_ms))
            close_our_side(c);
    }
    if (node->connections)
        return;
    uv_close((uv_handle_t *)&node->goodbye, NULL);
    uv_close((uv_handle_t *)&node->end_of_turn, NULL);
    uv_close((uv_handle_t *)&node->next_turn, NULL);
}

void goodbye_start(struct node *node)
{
    uv_timer_start(&node->goodbye, on_look, 0, LOOK_MS);
}
