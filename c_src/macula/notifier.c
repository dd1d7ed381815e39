/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/notifier.h"

#include "base/table.h"
#include "macula/profile_term.h"
#include "macula/session_term.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct notification {
    uint64_t subscriber;             /* a reference */
    struct nat_session_view session; /* its views point into `bytes`; profiles are references */
    size_t size;
    struct notification *prev, *next;
    uint8_t bytes[];
};

struct notified {
    char name[NODE_NAME_MAX + 1];
    struct notification *waiting; /* in order */
    size_t bytes;
    struct notified *prev, *next;
    UT_hash_handle hh;
};

/* However many refer to it, a profile takes its memory once. */
struct kept_profile {
    struct nat_profile *profile;
    size_t uses;
    UT_hash_handle hh;
};

void notifier_init(struct notifier *n, struct node *node, struct subscribers *subscribers)
{
    *n = (struct notifier){.node = node, .subscribers = subscribers};
    uv_idle_init(node->loop, &n->idle);
    n->idle.data = n;
}

void notifier_close(struct notifier *n)
{
    uv_close((uv_handle_t *)&n->idle, NULL);
}

/* --- profiles --- */

static size_t profile_size(const struct nat_profile *profile)
{
    return nat_profile_source(profile).len;
}

static bool keep_profile(struct notifier *n, struct nat_profile *profile)
{
    struct kept_profile *k;

    if (!profile)
        return true;
    HASH_FIND_PTR(n->profiles, &profile, k);
    if (!k) {
        k = calloc(1, sizeof *k);
        if (!k)
            return false;
        k->profile = profile;
        HASH_ADD_PTR(n->profiles, profile, k);
        if (!table_has(k->hh)) {
            free(k);
            return false;
        }
        nat_profile_ref(profile);
        n->profile_bytes += profile_size(profile);
    }
    k->uses++;
    return true;
}

static void release_profile(struct notifier *n, struct nat_profile *profile)
{
    struct kept_profile *k;

    if (!profile)
        return;
    HASH_FIND_PTR(n->profiles, &profile, k);
    if (--k->uses > 0)
        return;
    HASH_DEL(n->profiles, k);
    n->profile_bytes -= profile_size(profile);
    nat_profile_unref(profile);
    free(k);
}

static bool keep_profiles(struct notifier *n, const struct nat_session_view *session)
{
    if (!keep_profile(n, session->initiator_profile))
        return false;
    if (keep_profile(n, session->target_profile))
        return true;
    release_profile(n, session->initiator_profile);
    return false;
}

/* --- what waits --- */

static struct nat_bytes keep(uint8_t **to, struct nat_bytes from)
{
    struct nat_bytes kept = {*to, from.len};

    if (from.len)
        memcpy(*to, from.data, from.len);
    *to += from.len;
    return kept;
}

static struct notification *notification_new(struct notifier *n, const struct nat_action *action)
{
    const struct nat_session_view *from = &action->session;
    size_t size = sizeof(struct notification) + from->session_id.len + from->initiator_id.len +
                  from->target_id.len;
    struct notification *waits = malloc(size);
    /* The library gives its own token back when the session is over. */
    uint64_t subscriber =
        waits ? subscriber_ref(n->subscribers, subscriber_pid(action->watcher)) : 0;

    if (subscriber == 0 || !keep_profiles(n, from)) {
        if (subscriber != 0)
            subscriber_unref(n->subscribers, subscriber);
        free(waits);
        return NULL;
    }
    uint8_t *to = waits->bytes;
    waits->size = size;
    waits->session = *from;
    waits->session.session_id = keep(&to, from->session_id);
    waits->session.initiator_id = keep(&to, from->initiator_id);
    waits->session.target_id = keep(&to, from->target_id);
    waits->subscriber = subscriber;
    return waits;
}

static void notification_free(struct notifier *n, struct notified *to, struct notification *waits)
{
    DL_DELETE(to->waiting, waits);
    to->bytes -= waits->size;
    n->waiting_bytes -= waits->size;
    n->count--;
    release_profile(n, waits->session.initiator_profile);
    release_profile(n, waits->session.target_profile);
    subscriber_unref(n->subscribers, waits->subscriber);
    free(waits);
}

static void notified_free(struct notifier *n, struct notified *to)
{
    while (to->waiting)
        notification_free(n, to, to->waiting);
    DL_DELETE(n->line, to);
    HASH_DEL(n->by_name, to);
    free(to);
}

void notifier_free(struct notifier *n)
{
    while (n->line)
        notified_free(n, n->line);
}

static struct notified *notified_find(struct notifier *n, struct slice name)
{
    struct notified *to;

    HASH_FIND(hh, n->by_name, name.data, name.len, to);
    return to;
}

static struct notified *notified_get(struct notifier *n, const char *name)
{
    struct notified *to = notified_find(n, slice_of(name));

    if (to)
        return to;
    to = calloc(1, sizeof *to);
    if (!to)
        return NULL;
    strcpy(to->name, name);
    HASH_ADD_STR(n->by_name, name, to);
    if (!table_has(to->hh)) {
        free(to);
        return NULL;
    }
    DL_APPEND(n->line, to);
    return to;
}

static bool has_too_much(const struct notifier *n)
{
    return n->waiting_bytes > NOTIFIER_WAITING_MAX || n->profile_bytes > NOTIFIER_PROFILES_MAX;
}

static void drop_oldest(struct notifier *n)
{
    struct notified *to, *most = n->line;

    DL_FOREACH (n->line, to)
        if (to->bytes > most->bytes)
            most = to;
    n->counters.notifications_dropped++;
    notification_free(n, most, most->waiting);
    if (!most->waiting)
        notified_free(n, most);
}

static void wait_in_line(struct notifier *n, const struct connection *via,
                         const struct nat_action *action)
{
    struct notified *to = notified_get(n, via->name);
    struct notification *waits = to ? notification_new(n, action) : NULL;

    if (!waits) {
        n->counters.notifications_dropped++;
        if (to && !to->waiting)
            notified_free(n, to);
        return;
    }
    DL_APPEND(to->waiting, waits);
    to->bytes += waits->size;
    n->waiting_bytes += waits->size;
    n->count++;
    while (has_too_much(n))
        drop_oldest(n);
}

/* --- sending --- */

static bool may_send(struct notifier *n, const struct connection *via)
{
    if (n->turn != n->node->turn) {
        n->turn = n->node->turn;
        n->made = 0;
    }
    return n->made < NOTIFIER_TURN && connection_pending(via) <= NOTIFIER_UNREAD_MAX;
}

static void send_to(struct notifier *n, uint64_t subscriber, const struct nat_session_view *session)
{
    struct connection *via;
    uint64_t before = n->node->bytes_made;
    struct buffer *b = connection_open_send(n->node, subscriber_pid(subscriber), &via);

    if (!b)
        return;
    term_put_tuple(b, 3);
    term_put_atom(b, "punch_session");
    term_put_binary(b, slice_of_nat(session->session_id));
    session_put(b, session);
    connection_close_frame(via);
    n->made += n->node->bytes_made - before;
    n->counters.notified++;
}

void notifier_notify(struct notifier *n, const struct nat_action *action)
{
    const struct pid *pid = subscriber_pid(action->watcher);
    const struct connection *via = connection_find(n->node, pid->node);

    if (via && (notified_find(n, pid->node) || !may_send(n, via))) {
        wait_in_line(n, via, action);
        notifier_go_on(n);
    } else {
        send_to(n, action->watcher, &action->session);
    }
}

/* The first in line whose node takes what it is sent. */
static struct notified *next_in_line(struct notifier *n)
{
    struct notified *to;

    DL_FOREACH (n->line, to) {
        const struct connection *via = connection_find(n->node, slice_of(to->name));
        if (via && connection_pending(via) <= NOTIFIER_UNREAD_MAX)
            return to;
    }
    return NULL;
}

static void on_turn(uv_idle_t *idle)
{
    struct notifier *n = idle->data;
    struct notified *to;

    while ((to = next_in_line(n)) != NULL) {
        struct notification *waits = to->waiting;
        if (!may_send(n, connection_find(n->node, slice_of(to->name))))
            return;
        send_to(n, waits->subscriber, &waits->session);
        notification_free(n, to, waits);
        DL_DELETE(n->line, to);
        DL_APPEND(n->line, to);
        if (!to->waiting)
            notified_free(n, to);
    }
    uv_idle_stop(idle);
}

void notifier_go_on(struct notifier *n)
{
    if (n->line && !uv_is_active((uv_handle_t *)&n->idle) && next_in_line(n))
        uv_idle_start(&n->idle, on_turn);
}

void notifier_node_down(struct notifier *n, const struct connection *c)
{
    struct notified *to = notified_find(n, slice_of(c->name));
    uint64_t before = n->count;

    if (!to)
        return;
    notified_free(n, to);
    n->node->counters.messages_undeliverable += before - n->count;
}
