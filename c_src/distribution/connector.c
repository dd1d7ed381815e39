/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/connector.h"

#include "base/log.h"
#include "distribution/input.h"
#include "distribution/tcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define FIRST_DELAY_MS    100   /* until the first attempt anew */
#define LAST_DELAY_MS     10000 /* doubled up to this */
#define LOOKUP_TIMEOUT_MS 5000  /* for the other host's EPMD */

struct connector {
    struct connectors *all;
    char name[NODE_NAME_MAX + 1];
    char alive[NODE_NAME_MAX + 1];
    const char *host; /* in `name` */
    uint16_t port;    /* 0: EPMD knows */
    uint64_t delay_ms;
    bool busy;             /* looking up or connecting */
    char last_failure[80]; /* since it was connected, or "" */
    uv_timer_t timer;
    struct connector *next;
};

static void attempt(struct connector *co);

static struct connector *find(const struct connectors *all, const char *name)
{
    struct connector *c;

    LL_FOREACH (all->list, c)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static void on_timer(uv_timer_t *timer)
{
    attempt(timer->data);
}

static void attempt_later(struct connector *c)
{
    c->busy = false;
    uv_timer_start(&c->timer, on_timer, c->delay_ms, 0);
    c->delay_ms = c->delay_ms * 2 > LAST_DELAY_MS ? LAST_DELAY_MS : c->delay_ms * 2;
}

/* A failure is worth a line when it differs from the last; each reason is a kind of its own. */
static void note_failure(struct connector *c, int level, const char *why)
{
    char reason[sizeof c->last_failure];

    snprintf(reason, sizeof reason, "%s", why);
    log_event(strcmp(reason, c->last_failure) == 0 ? LOG_DEBUG : level, reason, c->name,
              "no connection with %s: %s", c->name, why);
    memcpy(c->last_failure, reason, sizeof reason);
    attempt_later(c);
}

/* Failures that come later go to connector_note_failed. */
static int open_connection(const struct connector *co, const struct sockaddr *address)
{
    struct node *node = co->all->node;
    struct connection *c = connection_new(node);

    if (!c)
        return -ENOMEM;
    int error = input_connect(c, co->name);
    if (error == 0)
        error = tcp_connect(&c->transport, node->loop, address, &input_transport_callbacks, c);
    if (error)
        connection_close(c, LOG_DEBUG, NULL);
    return error;
}

static void on_found(void *ctx, int status, const struct sockaddr_in *address, uint16_t highest)
{
    struct connector *c = ctx;

    if (connection_find(c->all->node, slice_of(c->name))) {
        c->busy = false;
        return;
    }
    if (status != 0)
        note_failure(c, LOG_WARNING,
                     status == -ENOENT ? "EPMD does not know the name" : uv_strerror(status));
    else if (highest < EPMD_VERSION)
        note_failure(c, LOG_WARNING, "it is older than OTP 23");
    else if ((status = open_connection(c, (const struct sockaddr *)address)) != 0)
        note_failure(c, LOG_WARNING, uv_strerror(status));
}

static void attempt(struct connector *c)
{
    if (c->busy || connection_find(c->all->node, slice_of(c->name)))
        return;
    c->busy = true;
    int error =
        epmd_lookup(c->all->epmd, c->alive, c->host, c->port, LOOKUP_TIMEOUT_MS, on_found, c);
    if (error)
        note_failure(c, LOG_WARNING, uv_strerror(error));
}

void connectors_init(struct connectors *all, struct node *node, struct epmd *epmd)
{
    *all = (struct connectors){.node = node, .epmd = epmd};
}

int connector_add(struct connectors *all, const char *name, uint16_t port)
{
    if (find(all, name))
        return 0;
    struct connector *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->all = all;
    strncpy(c->name, name, NODE_NAME_MAX);
    memcpy(c->alive, c->name, strcspn(c->name, "@"));
    c->host = c->name + strcspn(c->name, "@");
    c->host += *c->host == '@';
    c->port = port;
    c->delay_ms = FIRST_DELAY_MS;
    uv_timer_init(all->node->loop, &c->timer);
    c->timer.data = c;
    LL_APPEND(all->list, c);
    return 0;
}

void connector_start_all(struct connectors *all)
{
    struct connector *c;

    LL_FOREACH (all->list, c)
        attempt(c);
}

void connector_note_up(struct connectors *all, const char *name)
{
    struct connector *c = find(all, name);

    if (!c)
        return;
    c->busy = false;
    c->last_failure[0] = '\0';
    c->delay_ms = FIRST_DELAY_MS;
    uv_timer_stop(&c->timer);
}

void connector_note_down(struct connectors *all, const char *name)
{
    struct connector *c = find(all, name);

    if (c && !connection_find(c->all->node, slice_of(name)))
        attempt_later(c);
}

void connector_note_failed(struct connectors *all, const char *name, int level, const char *why)
{
    struct connector *c = find(all, name);

    if (c && !connection_find(c->all->node, slice_of(name)))
        note_failure(c, level, why);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void connectors_free(struct connectors *all)
{
    while (all->list) {
        struct connector *c = all->list;
        LL_DELETE(all->list, c);
        uv_close((uv_handle_t *)&c->timer, on_closed);
    }
}
