/* SPDX-License-Identifier: Apache-2.0 */
/* System messages, as sys.erl and gen_server.erl of stdlib answer them. Debug functions do not run
 * here: to turn on tracing, a log or a function is answered as what sys does not know. */
#include "otp/gen_server.h"

#include "term/term_write.h"

#include <string.h>
#include <time.h>

static void put_text_pair(struct buffer *b, const char *key)
{
    term_put_tuple(b, 2);
    term_put_string(b, key);
}

static void put_data_head(struct buffer *b, int pairs)
{
    term_put_tuple(b, 2);
    term_put_atom(b, "data");
    term_put_list(b, pairs);
}

static void put_process_dictionary(struct buffer *b, const char *name)
{
    term_put_list(b, 1);
    term_put_tuple(b, 2);
    term_put_atom(b, "$initial_call");
    term_put_tuple(b, 3);
    term_put_atom(b, name);
    term_put_atom(b, "init");
    term_put_int(b, 1);
    term_put_nil(b);
}

/* gen_server:format_status/2: what sys:get_status and observer show of a gen_server. */
static void put_misc(struct gen_server *gs, struct buffer *b, const struct pid *self)
{
    char header[320] = "Status for generic server ";
    strncat(header, gs->process.name, 256);

    term_put_list(b, 3);
    term_put_tuple(b, 2);
    term_put_atom(b, "header");
    term_put_string(b, header);
    put_data_head(b, 3);
    put_text_pair(b, "Status");
    term_put_atom(b, gs->is_suspended ? "suspended" : "running");
    put_text_pair(b, "Parent");
    term_put_pid(b, self);
    put_text_pair(b, "Logged events");
    term_put_nil(b);
    term_put_nil(b);
    put_data_head(b, 1);
    put_text_pair(b, "State");
    gs->callbacks->put_state(gs, b);
    term_put_nil(b);
    term_put_nil(b);
}

static void put_status(struct gen_server *gs, struct buffer *b)
{
    struct pid self = process_pid(&gs->process);

    term_put_tuple(b, 4);
    term_put_atom(b, "status");
    term_put_pid(b, &self);
    term_put_atoms(b, 2, "module", "gen_server");
    term_put_list(b, 5);
    put_process_dictionary(b, gs->process.name);
    term_put_atom(b, gs->is_suspended ? "suspended" : "running");
    term_put_pid(b, &self);
    term_put_nil(b);
    put_misc(gs, b, &self);
    term_put_nil(b);
}

static void put_time(struct buffer *b, const char *key, int64_t seconds)
{
    time_t when = (time_t)seconds;
    struct tm tm;

    localtime_r(&when, &tm);
    term_put_tuple(b, 2);
    term_put_atom(b, key);
    term_put_tuple(b, 2);
    term_put_tuple(b, 3);
    term_put_int(b, tm.tm_year + 1900);
    term_put_int(b, tm.tm_mon + 1);
    term_put_int(b, tm.tm_mday);
    term_put_tuple(b, 3);
    term_put_int(b, tm.tm_hour);
    term_put_int(b, tm.tm_min);
    term_put_int(b, tm.tm_sec);
}

static void put_count(struct buffer *b, const char *key, uint64_t count)
{
    term_put_tuple(b, 2);
    term_put_atom(b, key);
    term_put_int(b, (int64_t)count);
}

static void put_statistics(struct gen_server *gs, struct buffer *b)
{
    uint64_t in = gs->messages_in - gs->statistics_in;
    uint64_t out = gs->messages_out - gs->statistics_out;

    term_put_tuple(b, 2);
    term_put_atom(b, "ok");
    if (!gs->has_statistics) {
        term_put_atom(b, "no_statistics");
        return;
    }
    term_put_list(b, 5);
    put_time(b, "start_time", gs->statistics_since);
    put_time(b, "current_time", (int64_t)time(NULL));
    put_count(b, "reductions", in + out);
    put_count(b, "messages_in", in);
    put_count(b, "messages_out", out);
    term_put_nil(b);
}

static void put_empty_log(struct buffer *b)
{
    term_put_tuple(b, 2);
    term_put_atom(b, "ok");
    term_put_nil(b);
}

static void set_statistics(struct gen_server *gs, bool on)
{
    gs->has_statistics = on;
    gs->statistics_in = gs->messages_in;
    gs->statistics_out = gs->messages_out;
    gs->statistics_since = (int64_t)time(NULL);
}

/* Whether it asks to turn off what is never on here, so that nothing is left to be done. */
static bool is_turned_off(struct slice name, struct cursor c)
{
    if (slice_is(name, "remove"))
        return true;
    if (slice_is(name, "log") && cursor_is_atom(&c, "print"))
        return true; /* the events kept: none */
    return (slice_is(name, "trace") || slice_is(name, "log") || slice_is(name, "log_to_file")) &&
           cursor_is_atom(&c, "false");
}

static void handle_debug(struct gen_server *gs, const struct caller *caller, struct cursor c)
{
    struct slice name;
    struct reply reply;

    if (cursor_is_atom(&c, "no_debug")) {
        gs->has_statistics = false;
        reply_atom(caller, "ok");
        return;
    }
    if (!cursor_tuple(&c, 2) || !cursor_atom(&c, &name)) {
        reply_atom(caller, "unknown_debug");
        return;
    }
    bool statistics = slice_is(name, "statistics");
    bool on;
    if (statistics && cursor_bool(&c, &on)) {
        set_statistics(gs, on);
        reply_atom(caller, "ok");
    } else if (statistics && cursor_is_atom(&c, "get")) {
        if (reply_open(&reply, caller)) {
            put_statistics(gs, reply.out);
            reply_close(&reply);
        }
    } else if (slice_is(name, "log") && cursor_is_atom(&c, "get")) {
        if (reply_open(&reply, caller)) {
            put_empty_log(reply.out);
            reply_close(&reply);
        }
    } else if (is_turned_off(name, c)) {
        reply_atom(caller, "ok");
    } else if (slice_is(name, "log_to_file")) {
        reply_error(caller, "open_file");
    } else {
        reply_atom(caller, "unknown_debug");
    }
}

static void reply_unknown(const struct caller *caller, struct slice request)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "error");
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "unknown_system_msg");
    term_put_raw(reply.out, request);
    reply_close(&reply);
}

/* The function that would replace the state cannot run here: answered as if it had failed. */
static void reply_cannot_replace(const struct caller *caller)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, "error");
    term_put_tuple(reply.out, 3);
    term_put_atom(reply.out, "callback_failed");
    term_put_atoms(reply.out, 2, "gen_server", "system_replace_state");
    term_put_atoms(reply.out, 2, "error", "notsup");
    reply_close(&reply);
}

void sys_handle_message(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    struct cursor c = cursor_of(request);
    struct cursor pair = c;
    struct reply reply;
    struct slice reason;

    if (cursor_is_atom(&c, "get_state")) {
        sys_handle_get_state(gs, caller);
    } else if (cursor_is_atom(&c, "get_status")) {
        if (reply_open(&reply, caller)) {
            put_status(gs, reply.out);
            reply_close(&reply);
        }
    } else if (cursor_is_atom(&c, "suspend")) {
        reply_atom(caller, "ok");
        gen_server_suspend(gs, true);
    } else if (cursor_is_atom(&c, "resume")) {
        reply_atom(caller, "ok");
        gen_server_suspend(gs, false);
    } else if (cursor_tuple(&pair, 2) && cursor_is_atom(&pair, "debug")) {
        handle_debug(gs, caller, pair);
    } else if (cursor_is_atom(&pair, "terminate") && cursor_term(&pair, &reason)) {
        reply_atom(caller, "ok");
        gen_server_stop_with(gs, reason);
    } else if (cursor_is_atom(&pair, "replace_state")) {
        reply_cannot_replace(caller);
    } else {
        reply_unknown(caller, request);
    }
}
