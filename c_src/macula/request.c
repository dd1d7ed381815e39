/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/coordinator.h"

#include "macula/id_text.h"
#include "macula/profile_term.h"
#include "macula/session_term.h"
#include "term/tags.h"
#include "term/term_write.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <utlist.h>

/* A request whose arguments have been read. The slices point into the message. */
struct arguments {
    struct nat_request request;
    bool is_coordinate; /* coordinate_punch has an option of its own */
    bool has_session_id;
    struct nat_bytes session_id;
    struct pid watcher;
    bool has_watcher;
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
        return args->has_watcher = cursor_pid(&value, &args->watcher);
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

static bool read_arguments(struct coordinator *co, struct arguments *args, bool is_coordinate,
                           struct cursor *c, struct slice *bad)
{
    memset(args, 0, sizeof *args);
    args->is_coordinate = is_coordinate;
    nat_options_init(co->nat, &args->request.options);
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
    struct coordinator *co;
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
static bool add_watcher(struct coordinator *co, struct arguments *args)
{
    struct nat_options *o = &args->request.options;

    if (!args->has_watcher)
        return true;
    o->watcher = watcher_take(&co->watchers, &args->watcher);
    o->has_watcher = o->watcher != 0;
    return o->has_watcher;
}

static void drop_watcher(struct coordinator *co, struct arguments *args)
{
    if (args->request.options.has_watcher)
        watcher_give_back(&co->watchers, args->request.options.watcher);
    args->request.options.has_watcher = false;
}

/* Hands the request to the library, with other random bytes as long as they make an id that is
 * taken. `session` NULL: coordinate_punch. */
static int enter_request(struct coordinator *co, struct arguments *args,
                         struct nat_session_view *session)
{
    const struct nat_bytes *id = args->has_session_id ? &args->session_id : NULL;
    int error = add_watcher(co, args) ? -EEXIST : -ENOMEM;

    while (error == -EEXIST) {
        error = coordinator_draw(co, args->request.random);
        if (error == 0 && session)
            error = nat_request(co->nat, coordinator_now(co), &args->request, session);
        else if (error == 0)
            error = nat_coordinate(co->nat, coordinator_now(co), &args->request, id);
    }
    if (error)
        drop_watcher(co, args);
    return error;
}

/* What a request or a report came to, for whoever follows a session through the log: never
 * suppressed. */
static void trace(struct coordinator *co, const char *what, struct nat_bytes one,
                  struct nat_bytes other, struct nat_bytes session_id, const char *result)
{
    char one_text[ID_TEXT_SIZE], other_text[ID_TEXT_SIZE], id[ID_TEXT_SIZE];

    node_log(co->node, LOG_DEBUG, what, NULL, "%s %s %s: session %s: %s", what,
             id_text(one_text, one), id_text(other_text, other), id_text(id, session_id), result);
}

static void finish_request(struct coordinator *co, const struct caller *caller,
                           struct arguments *args)
{
    struct nat_session_view session = {.session_id = {0}};
    int error = enter_request(co, args, &session);

    if (co->node->traces)
        trace(co, "request_connection", args->request.initiator_id, args->request.target_id,
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
    case -ENOBUFS: /* which the library counts */
        reply_error(caller, "overloaded");
        break;
    default:
        co->counters.overloaded++;
        reply_error(caller, "overloaded");
    }
    coordinator_act(co);
}

/* Both the connector and the gateway of a macula node report a success: the second is the rule. */
static bool is_late_success(const struct coordinator *co, struct nat_bytes session_id,
                            enum nat_report report)
{
    struct nat_session_view session;

    return report == NAT_REPORT_SUCCESS && nat_session_find(co->nat, session_id, &session) == 0 &&
           session.state == NAT_COMPLETED;
}

static void note_ignored(struct coordinator *co, const char *what, int level,
                         struct nat_bytes session_id, int error)
{
    char id[ID_TEXT_SIZE];
    co->node->counters.no_memory += error == -ENOMEM;
    const char *why = error == -ENOENT   ? "no such session"
                      : error == -ESTALE ? "the session has ended"
                      : error == -EACCES ? "the session is one of other peers"
                      : error == -EINVAL ? "bad arguments"
                      : error == -ENOMEM ? "no memory"
                                         : "no room";

    id_text(id, session_id);
    node_log_about(co->node, level, what, co->server.via ? co->server.via->name : co->node->name,
                   id, "%s for session %s ignored: %s", what, id, why);
}

static void finish_coordinate(struct coordinator *co, struct arguments *args)
{
    int error = enter_request(co, args, NULL);

    if (error)
        note_ignored(co, "coordinate_punch", LOG_WARNING, args->session_id, error);
    if (co->node->traces)
        trace(co, "coordinate_punch", args->request.initiator_id, args->request.target_id,
              args->session_id, error ? "ignored" : "taken");
    coordinator_act(co);
}

static void finish(struct coordinator *co, const struct caller *caller, struct arguments *args)
{
    if (caller)
        finish_request(co, caller, args);
    else
        finish_coordinate(co, args);
}

static void waiting_free(struct waiting *w)
{
    DL_DELETE(w->co->waiting, w);
    w->co->waiting_bytes -= w->size;
    w->co->waiting_count--;
    caller_free(w->caller);
    nat_profile_unref(w->args.request.initiator_profile);
    nat_profile_unref(w->args.request.target_profile);
    free(w);
}

/* One thing less to wait for. While the process is suspended, what is ready waits for its end. */
static void waiting_step(struct waiting *w)
{
    if (w->left > 0)
        w->left--;
    if (w->left > 0 || w->co->server.is_suspended)
        return;
    finish(w->co, w->caller, &w->args);
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
static struct waiting *waiting_new(struct coordinator *co, const struct caller *caller,
                                   const struct arguments *args)
{
    size_t own = sizeof(struct waiting) + args->request.initiator_id.len +
                 args->request.target_id.len + args->session_id.len +
                 (args->has_watcher ? args->watcher.node.len : 0);
    size_t size = own + (caller ? caller_size(caller) : 0);
    struct waiting *w = co->waiting_bytes + size > WAITING_MAX ? NULL : calloc(1, own);

    if (w && caller)
        w->caller = caller_keep(caller);
    if (!w || (caller && !w->caller)) {
        free(w);
        return NULL;
    }
    uint8_t *to = w->bytes;
    w->co = co;
    w->size = size;
    co->waiting_bytes += size;
    co->waiting_count++;
    w->args = *args;
    keep_bytes(&to, &w->args.request.initiator_id);
    keep_bytes(&to, &w->args.request.target_id);
    keep_bytes(&to, &w->args.session_id);
    if (args->has_watcher) {
        struct nat_bytes node = nat_bytes_of(args->watcher.node);
        keep_bytes(&to, &node);
        w->args.watcher.node = slice_of_nat(node);
    }
    w->lookups[NAT_INITIATOR].done = on_initiator_found;
    w->lookups[NAT_TARGET].done = on_target_found;
    DL_APPEND(co->waiting, w);
    return w;
}

static void look_up(struct waiting *w)
{
    struct nat_request *r = &w->args.request;
    uint32_t caller = r->options.origin;
    struct lookup *lookup = &w->co->lookup;
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

/* The node that a request comes from. */
static uint32_t origin_of(const struct coordinator *co, const struct caller *caller)
{
    if (caller)
        return services_origin(caller->pid.node);
    return co->server.via ? services_origin(slice_of(co->server.via->name)) : 0;
}

static void look_up_and_finish(struct coordinator *co, const struct caller *caller,
                               struct arguments *args)
{
    struct nat_request *r = &args->request;

    r->options.origin = origin_of(co, caller);
    /* The usual case: both are known, and nothing needs to be kept. */
    if (lookup_known(&co->lookup, slice_of_nat(r->initiator_id), &r->initiator_profile) &&
        lookup_known(&co->lookup, slice_of_nat(r->target_id), &r->target_profile)) {
        finish(co, caller, args);
        return;
    }
    r->initiator_profile = r->target_profile = NULL;
    struct waiting *w = waiting_new(co, caller, args);
    if (w) {
        look_up(w);
        return;
    }
    co->counters.overloaded++;
    if (caller)
        reply_error(caller, "overloaded");
    else
        note_ignored(co, "coordinate_punch", LOG_WARNING, args->session_id, -ENOMEM);
}

void requests_resume(struct coordinator *co)
{
    struct waiting *w, *next;

    DL_FOREACH_SAFE (co->waiting, w, next)
        if (w->left == 0)
            waiting_step(w);
}

void requests_free(struct coordinator *co)
{
    lookup_free(&co->lookup);
    while (co->waiting)
        waiting_free(co->waiting);
}

/* --- the requests --- */

void reply_bad_argument(struct coordinator *co, const struct caller *caller, struct slice which)
{
    struct reply reply;

    co->counters.bad_arguments++;
    if (!reply_open(&reply, caller))
        return;
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "error");
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "bad_argument");
    term_put_atom_slice(reply.out, which);
    reply_close(&reply);
}

void request_connection(struct coordinator *co, const struct caller *caller, struct cursor args)
{
    struct arguments arguments;
    struct slice bad;

    co->counters.requests++;
    if (!read_arguments(co, &arguments, false, &args, &bad)) {
        reply_bad_argument(co, caller, bad);
        return;
    }
    look_up_and_finish(co, caller, &arguments);
}

void request_coordinate(struct coordinator *co, struct cursor args)
{
    struct arguments arguments;
    struct slice bad;

    if (!read_arguments(co, &arguments, true, &args, &bad)) {
        co->counters.bad_arguments++;
        note_ignored(co, "coordinate_punch", LOG_WARNING, arguments.session_id, -EINVAL);
        return;
    }
    look_up_and_finish(co, NULL, &arguments);
}

static const char *const report_names[] = {
    [NAT_REPORT_SUCCESS] = "success",
    [NAT_REPORT_FAILURE] = "failure",
    [NAT_REPORT_OTHER] = "other",
};

void request_report(struct coordinator *co, struct cursor args)
{
    struct nat_bytes session_id = {0};
    struct nat_bytes reporter_id;
    enum nat_report report = NAT_REPORT_OTHER;

    if (!read_id(&args, &session_id) || !read_id(&args, &reporter_id)) {
        co->counters.bad_arguments++;
        note_ignored(co, "report_result", LOG_WARNING, session_id, -EINVAL);
        return;
    }
    if (cursor_is_atom(&args, "success"))
        report = NAT_REPORT_SUCCESS;
    else if (cursor_is_atom(&args, "failure"))
        report = NAT_REPORT_FAILURE;
    int error = nat_report(co->nat, coordinator_now(co), session_id, reporter_id, report);
    if (error)
        note_ignored(co, "report_result",
                     is_late_success(co, session_id, report) ? LOG_DEBUG : LOG_WARNING, session_id,
                     error);
    if (co->node->traces)
        trace(co, "report_result", reporter_id, nat_bytes_of(slice_of(report_names[report])),
              session_id, error ? "ignored" : "taken");
    coordinator_act(co);
}
