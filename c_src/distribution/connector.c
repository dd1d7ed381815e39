/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/connector.h"

#include "distribution/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <utlist.h>

#define FIRST_DELAY_MS    100   /* until the first attempt anew */
#define LAST_DELAY_MS     10000 /* doubled up to this */
#define LOOKUP_TIMEOUT_MS 5000  /* for the other host's EPMD */

struct connector {
    struct node *node;
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

static struct connector *find(struct connector *list, const char *name)
{
    struct connector *c;

    LL_FOREACH (list, c)
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
    node_log(c->node, strcmp(reason, c->last_failure) == 0 ? LOG_DEBUG : level, reason, c->name,
             "no connection with %s: %s", c->name, why);
    memcpy(c->last_failure, reason, sizeof reason);
    attempt_later(c);
}

static void on_found(void *ctx, int status, const struct sockaddr_in *address, uint16_t highest)
{
    struct connector *c = ctx;

    if (node_find(c->node, slice_of(c->name))) {
        c->busy = false;
        return;
    }
    if (status != 0)
        note_failure(c, LOG_WARNING,
                     status == -ENOENT ? "EPMD does not know the name" : uv_strerror(status));
    else if (highest < EPMD_VERSION)
        note_failure(c, LOG_WARNING, "it is older than OTP 23");
    else if ((status = connection_open(c->node, c->name, (const struct sockaddr *)address)) != 0)
        note_failure(c, LOG_WARNING, uv_strerror(status));
}

static void attempt(struct connector *c)
{
    if (c->busy || node_find(c->node, slice_of(c->name)))
        return;
    c->busy = true;
    int error =
        epmd_lookup(&c->node->epmd, c->alive, c->host, c->port, LOOKUP_TIMEOUT_MS, on_found, c);
    if (error)
        note_failure(c, LOG_WARNING, uv_strerror(error));
}

int connector_add(struct connector **list, struct node *node, const char *name, uint16_t port)
{
    if (find(*list, name))
        return 0;
    struct connector *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->node = node;
    strncpy(c->name, name, NODE_NAME_MAX);
    memcpy(c->alive, c->name, strcspn(c->name, "@"));
    c->host = c->name + strcspn(c->name, "@");
    c->host += *c->host == '@';
    c->port = port;
    c->delay_ms = FIRST_DELAY_MS;
    uv_timer_init(node->loop, &c->timer);
    c->timer.data = c;
    LL_APPEND(*list, c);
    return 0;
}

void connector_start_all(struct connector *list)
{
    struct connector *c;

    LL_FOREACH (list, c)
        attempt(c);
}

void connector_note_up(struct connector *list, const char *name)
{
    struct connector *c = find(list, name);

    if (!c)
        return;
    c->busy = false;
    c->last_failure[0] = '\0';
    c->delay_ms = FIRST_DELAY_MS;
    uv_timer_stop(&c->timer);
}

void connector_note_down(struct connector *list, const char *name)
{
    struct connector *c = find(list, name);

    if (c && !node_find(c->node, slice_of(name)))
        attempt_later(c);
}

void connector_note_failed(struct connector *list, const char *name, int level, const char *why)
{
    struct connector *c = find(list, name);

    if (c && !node_find(c->node, slice_of(name)))
        note_failure(c, level, why);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void connector_free_all(struct connector **list)
{
    while (*list) {
        struct connector *c = *list;
        LL_DELETE(*list, c);
        uv_close((uv_handle_t *)&c->timer, on_closed);
    }
}
