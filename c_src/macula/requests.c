/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/requests.h"

#include "base/log.h"
#include "macula/id_text.h"
#include "macula/profile_term.h"
#include "macula/session_term.h"
#include "term/tags.h"
#include "term/term_write.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A request whose arguments have been read. The slices point into the message. */
struct arguments {
    struct nat_request request;
    bool is_coordinate; /* coordinate_punch has an option of its own */
    bool has_session_id;
    struct nat_bytes session_id;
    struct pid subscriber;
    bool has_subscriber;
    const char *peer; /* that a log line about it names */
};

static bool read_id(struct cursor *c, struct nat_bytes *id)
{
    struct slice bytes;

    if (!cursor_binary(c, &bytes))
        return false;
    *id = nat_bytes_of(bytes);
    return true;
}

/* A whole number from `least` up; what is larger than the library counts is as good as endless. */
static bool read_count(struct cursor *c, uint32_t least, uint32_t *count)
{
    int64_t value;
    uint8_t tag = cursor_tag(c);

    if (!cursor_int(c, &value)) {
        /* Sign byte behind the length: 0 is positive. */
        const uint8_t *p = (const uint8_t *)c->data + c->at;
        if ((tag != TAG_SMALL_BIG || p[2] != 0) && (tag != TAG_LARGE_BIG || p[5] != 0))
            return false;
        value = INT64_MAX;
    }
    if (value < (int64_t)least)
        return false;
    *count = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    return true;
}

/* Reads one option; false if its value is of another type than the option's. Unknown keys pass. */
static bool read_option(struct arguments *args, struct slice key, struct cursor value)
{
    struct nat_options *o = &args->request.options;

    if (slice_is(key, "max_punch_attempts"))
        return read_count(&value, 0, &o->max_punch_attempts);
    if (slice_is(key, "punch_timeout_ms"))
        return read_count(&value, 1, &o->punch_timeout_ms);
    if (slice_is(key, "allow_relay"))
        return cursor_bool(&value, &o->allow_relay);
    if (slice_is(key, "notify"))
        return args->has_subscriber = cursor_pid(&value, &args->subscriber);
    if (args->is_coordinate && slice_is(key, "session_id")) {
        args->has_session_id = true;
        return read_id(&value, &args->session_id) && args->session_id.len > 0 &&
               args->session_id.len <= NAT_ID_MAX;
    }
    return true;
}

/* Reads the options; `bad` names the one whose value is wrong, or `opts` if it is no map. */
static bool read_options(struct arguments *args, struct cursor *c, struct slice *bad)
{
    int pairs;

    *bad = slice_of("opts");
    if (!cursor_map(c, &pairs))
        return false;
    for (int i = 0; i < pairs; i++) {
        struct slice key, value;
        bool named = cursor_atom(c, &key);
        if ((!named && !cursor_term(c, &key)) || !cursor_term(c, &value))
            return false;
        if (named && !read_option(args, key, cursor_of(value))) {
            *bad = key;
            return false;
        }
    }
    return true;
}

static bool read_arguments(const struct requests *all, struct arguments *args, bool is_coordinate,
                           struct cursor *c, struct slice *bad)
{
    memset(args, 0, sizeof *args);
    args->is_coordinate = is_coordinate;
    nat_options_init(all->driver->nat, &args->request.options);
    *bad = slice_of("initiator_id");
    if (!read_id(c, &args->request.initiator_id))
        return false;
    *bad = slice_of("target_id");
    if (!read_id(c, &args->request.target_id)) {
        /* The first that is wrong is named: is the initiator's id too long already? */
        if (args->request.initiator_id.len > NAT_ID_MAX)
            *bad = slice_of("initiator_id");
        return false;
    }
    switch (nat_request_check(&args->request)) {
    case NAT_ARGUMENT_INITIATOR_ID:
        *bad = slice_of("initiator_id");
        return false;
    case NAT_ARGUMENT_TARGET_ID:
        return false;
    case NAT_ARGUMENT_PUNCH_TIMEOUT:
    case NAT_ARGUMENT_NONE:
        break;
    }
    return read_options(args, c, bad);
}

/* --- waiting for both profiles --- */

/* A request that waits for profiles. It owns copies of all that it needs. */
struct waiting {
    struct requests *all;
    struct caller *caller; /* NULL: coordinate_punch */
    struct arguments args;
    struct lookup_waiter lookups[2]; /* by enum nat_role */
    unsigned left;
    size_t size; /* of all that is kept for it */
    struct waiting *prev, *next;
    uint8_t bytes[];
};

/* More than this waiting for profiles, and further requests are refused. */
#define WAITING_MAX ((size_t)64 << 20)

static void reply_session(const struct caller *caller, const struct nat_session_view *session)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    term_put_tuple(reply.out, 3);
    term_put_atom(reply.out, "ok");
    term_put_atom(reply.out, strategy_name(session->strategy));
    term_put_binary(reply.out, slice_of_nat(session->session_id));
    reply_close(&reply);
}

/* The token of the process to be notified; the library keeps it only if the request succeeds. */
static bool add_subscriber(struct requests *all, struct arguments *args)
{
    struct nat_options *o = &args->request.options;

    if (!args->has_subscriber)
        return true;
    o->watcher = subscriber_ref(all->driver->subscribers, &args->subscriber);
    o->has_watcher = o->watcher != 0;
    return o->has_watcher;
}

static void drop_subscriber(struct requests *all, struct arguments *args)
{
    if (args->request.options.has_watcher)
        subscriber_unref(all->driver->subscribers, args->request.options.watcher);
    args->request.options.has_watcher = false;
}

/* Hands the request to the library, with other random bytes as long as they make an id that is
 * taken. `session` NULL: coordinate_punch. */
static int enter_request(struct requests *all, struct arguments *args,
                         struct nat_session_view *session)
{
    struct driver *driver = all->driver;
    const struct nat_bytes *id = args->has_session_id ? &args->session_id : NULL;
    int error = add_subscriber(all, args) ? -EEXIST : -ENOMEM;

    while (error == -EEXIST) {
        error = driver_draw(driver, args->request.random);
        if (error == 0 && session)
            error = nat_request(driver->nat, driver_now(driver), &args->request, session);
        else if (error == 0)
            error = nat_coordinate(driver->nat, driver_now(driver), &args->request, id);
    }
    if (error)
        drop_subscriber(all, args);
    return error;
}

/* The outcome of a request or a report, for following a session through the log: never suppressed.
 */
static void trace(const char *what, struct nat_bytes one, struct nat_bytes other,
                  struct nat_bytes session_id, const char *result)
{
    char one_text[ID_TEXT_SIZE], other_text[ID_TEXT_SIZE], id[ID_TEXT_SIZE];

    log_event(LOG_DEBUG, what, NULL, "%s %s %s: session %s: %s", what, id_text(one_text, one),
              id_text(other_text, other), id_text(id, session_id), result);
}

static void finish_request(struct requests *all, const struct caller *caller,
                           struct arguments *args)
{
    struct nat_session_view session = {.session_id = {0}};
    int error = enter_request(all, args, &session);

    if (log_writes(LOG_DEBUG))
        trace("request_connection", args->request.initiator_id, args->request.target_id,
              session.session_id,
              error == 0              ? strategy_name(session.strategy)
              : error == -ENETUNREACH ? "relay_required"
                                      : "overloaded");
    switch (error) {
    case 0:
        reply_session(caller, &session);
        break;
    case -ENETUNREACH:
        reply_error(caller, "relay_required");
        break;
    default:
        all->counters.overloaded++;
        reply_error(caller, "overloaded");
    }
    driver_act(all->driver);
}

/* Both the connector and the gateway of a macula node report a success: the second is the rule. */
static bool is_late_success(const struct requests *all, struct nat_bytes session_id,
                            enum nat_report report)
{
    struct nat_session_view session;

    return report == NAT_REPORT_SUCCESS &&
           nat_session_find(all->driver->nat, session_id, &session) == 0 &&
           session.state == NAT_COMPLETED;
}

static void note_ignored(struct requests *all, const char *peer, const char *what, int level,
                         struct nat_bytes session_id, int error)
{
    char id[ID_TEXT_SIZE];
    all->node->counters.no_memory += error == -ENOMEM;
    const char *why = error == -ENOENT   ? "no such session"
                      : error == -ESTALE ? "the session has ended"
                      : error == -EACCES ? "the session is one of other peers"
                      : error == -EINVAL ? "bad arguments"
                      : error == -ENOMEM ? "no memory"
                                         : "no room";

    id_text(id, session_id);
    log_event_about(level, what, peer, id, "%s for session %s ignored: %s", what, id, why);
}

static void finish_coordinate(struct requests *all, struct arguments *args)
{
    int error = enter_request(all, args, NULL);

    if (error)
        note_ignored(all, args->peer, "coordinate_punch", LOG_WARNING, args->session_id, error);
    if (log_writes(LOG_DEBUG))
        trace("coordinate_punch", args->request.initiator_id, args->request.target_id,
              args->session_id, error ? "ignored" : "taken");
    driver_act(all->driver);
}

static void finish(struct requests *all, const struct caller *caller, struct arguments *args)
{
    if (caller)
        finish_request(all, caller, args);
    else
        finish_coordinate(all, args);
}

static void waiting_free(struct waiting *w)
{
    DL_DELETE(w->all->waiting, w);
    w->all->waiting_bytes -= w->size;
    w->all->waiting_count--;
    caller_free(w->caller);
    nat_profile_unref(w->args.request.initiator_profile);
    nat_profile_unref(w->args.request.target_profile);
    free(w);
}

/* One thing less to wait for. While requests are paused, one that is ready waits on. */
static void waiting_step(struct waiting *w)
{
    if (w->left > 0)
        w->left--;
    if (w->left > 0 || w->all->is_paused)
        return;
    finish(w->all, w->caller, &w->args);
    waiting_free(w);
}

static void on_initiator_found(struct lookup_waiter *waiter, struct nat_profile *profile)
{
    struct waiting *w =
        (struct waiting *)((char *)waiter - offsetof(struct waiting, lookups[NAT_INITIATOR]));

    w->args.request.initiator_profile = nat_profile_ref(profile);
    waiting_step(w);
}

static void on_target_found(struct lookup_waiter *waiter, struct nat_profile *profile)
{
    struct waiting *w =
        (struct waiting *)((char *)waiter - offsetof(struct waiting, lookups[NAT_TARGET]));

    w->args.request.target_profile = nat_profile_ref(profile);
    waiting_step(w);
}

static void keep_bytes(uint8_t **to, struct nat_bytes *bytes)
{
    if (bytes->len)
        memcpy(*to, bytes->data, bytes->len);
    bytes->data = *to;
    *to += bytes->len;
}

/* A copy of the request that can outlive its message, or NULL. */
static struct waiting *waiting_new(struct requests *all, const struct caller *caller,
                                   const struct arguments *args)
{
    size_t own = sizeof(struct waiting) + args->request.initiator_id.len +
                 args->request.target_id.len + args->session_id.len +
                 (args->has_subscriber ? args->subscriber.node.len : 0);
    size_t size = own + (caller ? caller_size(caller) : 0);
    struct waiting *w = all->waiting_bytes + size > WAITING_MAX ? NULL : calloc(1, own);

    if (w && caller)
        w->caller = caller_keep(caller);
    if (!w || (caller && !w->caller)) {
        free(w);
        return NULL;
    }
    uint8_t *to = w->bytes;
    w->all = all;
    w->size = size;
    all->waiting_bytes += size;
    all->waiting_count++;
    w->args = *args;
    w->args.peer = all->node->name;
    keep_bytes(&to, &w->args.request.initiator_id);
    keep_bytes(&to, &w->args.request.target_id);
    keep_bytes(&to, &w->args.session_id);
    if (args->has_subscriber) {
        struct nat_bytes node = nat_bytes_of(args->subscriber.node);
        keep_bytes(&to, &node);
        w->args.subscriber.node = slice_of_nat(node);
    }
    w->lookups[NAT_INITIATOR].done = on_initiator_found;
    w->lookups[NAT_TARGET].done = on_target_found;
    DL_APPEND(all->waiting, w);
    return w;
}

static void look_up(struct waiting *w)
{
    struct nat_request *r = &w->args.request;
    uint32_t caller = r->options.origin;
    struct lookup *lookup = w->all->lookup;
    struct nat_profile *profile;

    /* Both profiles, and this function: answers may come before it has asked for both. */
    w->left = 3;
    if (lookup_profile(lookup, slice_of_nat(r->initiator_id), caller, &profile,
                       &w->lookups[NAT_INITIATOR]))
        on_initiator_found(&w->lookups[NAT_INITIATOR], profile);
    if (lookup_profile(lookup, slice_of_nat(r->target_id), caller, &profile,
                       &w->lookups[NAT_TARGET]))
        on_target_found(&w->lookups[NAT_TARGET], profile);
    waiting_step(w);
}

static void look_up_and_finish(struct requests *all, const struct caller *caller,
                               struct arguments *args)
{
    struct nat_request *r = &args->request;

    /* The usual case: both are known, and nothing needs to be kept. */
    if (lookup_known(all->lookup, slice_of_nat(r->initiator_id), &r->initiator_profile) &&
        lookup_known(all->lookup, slice_of_nat(r->target_id), &r->target_profile)) {
        finish(all, caller, args);
        return;
    }
    r->initiator_profile = r->target_profile = NULL;
    struct waiting *w = waiting_new(all, caller, args);
    if (w) {
        look_up(w);
        return;
    }
    all->counters.overloaded++;
    if (caller)
        reply_error(caller, "overloaded");
    else
        note_ignored(all, args->peer, "coordinate_punch", LOG_WARNING, args->session_id, -ENOMEM);
}

void requests_pause(struct requests *all)
{
    all->is_paused = true;
}

void requests_resume(struct requests *all)
{
    struct waiting *w, *next;

    all->is_paused = false;
    DL_FOREACH_SAFE (all->waiting, w, next)
        if (w->left == 0)
            waiting_step(w);
}

void requests_init(struct requests *all, struct node *node, struct driver *driver,
                   struct lookup *lookup)
{
    *all = (struct requests){.node = node, .driver = driver, .lookup = lookup};
}

void requests_free(struct requests *all)
{
    while (all->waiting)
        waiting_free(all->waiting);
}

/* --- the requests --- */

void request_refuse(struct requests *all, const struct caller *caller, struct slice bad_argument)
{
    struct reply reply;

    all->counters.bad_arguments++;
    if (!reply_open(&reply, caller))
        return;
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "error");
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "bad_argument");
    term_put_atom_slice(reply.out, bad_argument);
    reply_close(&reply);
}

void request_connection(struct requests *all, const struct caller *caller, struct cursor args)
{
    struct arguments arguments;
    struct slice bad;

    all->counters.requests++;
    if (!read_arguments(all, &arguments, false, &args, &bad)) {
        request_refuse(all, caller, bad);
        return;
    }
    arguments.request.options.origin =
        services_origin(connection_find(all->node, caller->pid.node));
    look_up_and_finish(all, caller, &arguments);
}

/* Who is named in log lines about a cast that came by a connection, or by none. */
static const char *peer_name(const struct requests *all, const struct connection *via)
{
    return via ? via->name : all->node->name;
}

void request_coordinate(struct requests *all, const struct connection *via, struct cursor args)
{
    struct arguments arguments;
    struct slice bad;

    if (!read_arguments(all, &arguments, true, &args, &bad)) {
        all->counters.bad_arguments++;
        note_ignored(all, peer_name(all, via), "coordinate_punch", LOG_WARNING,
                     arguments.session_id, -EINVAL);
        return;
    }
    arguments.peer = peer_name(all, via);
    arguments.request.options.origin = services_origin(via);
    look_up_and_finish(all, NULL, &arguments);
}

static const char *const report_names[] = {
    [NAT_REPORT_SUCCESS] = "success",
    [NAT_REPORT_FAILURE] = "failure",
    [NAT_REPORT_OTHER] = "other",
};

void request_report(struct requests *all, const struct connection *via, struct cursor args)
{
    struct nat_bytes session_id = {0};
    struct nat_bytes reporter_id;
    enum nat_report report = NAT_REPORT_OTHER;

    if (!read_id(&args, &session_id) || !read_id(&args, &reporter_id)) {
        all->counters.bad_arguments++;
        note_ignored(all, peer_name(all, via), "report_result", LOG_WARNING, session_id, -EINVAL);
        return;
    }
    if (cursor_is_atom(&args, "success"))
        report = NAT_REPORT_SUCCESS;
    else if (cursor_is_atom(&args, "failure"))
        report = NAT_REPORT_FAILURE;
    int error =
        nat_report(all->driver->nat, driver_now(all->driver), session_id, reporter_id, report);
    if (error)
        note_ignored(all, peer_name(all, via), "report_result",
                     is_late_success(all, session_id, report) ? LOG_DEBUG : LOG_WARNING, session_id,
                     error);
    if (log_writes(LOG_DEBUG))
        trace("report_result", reporter_id, nat_bytes_of(slice_of(report_names[report])),
              session_id, error ? "ignored" : "taken");
    driver_act(all->driver);
}
