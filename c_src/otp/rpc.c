/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/rpc.h"

#include "base/bytes.h"
#include "otp/worker.h"
#include "term/tags.h"
#include "term/term_write.h"

#include <stddef.h>
#include <string.h>

/* A module, function and argument list, as they stand in a request. */
struct mfa {
    struct slice module, function, arguments;
};

static bool read_mfa(struct cursor *c, struct mfa *mfa)
{
    return cursor_atom(c, &mfa->module) && cursor_atom(c, &mfa->function) &&
           cursor_term(c, &mfa->arguments);
}

static const struct rpc_function *find_function(const struct rpc_function *functions, size_t count,
                                                const struct mfa *mfa, int arity)
{
    for (size_t i = 0; i < count; i++) {
        const struct rpc_function *f = &functions[i];
        if (f->arity == arity && slice_is(mfa->function, f->function) &&
            slice_is(mfa->module, f->module))
            return f;
    }
    return NULL;
}

/* Runs it if there is such a function, else false. */
static bool run_function(struct rpc *rpc, const struct caller *caller, const struct mfa *mfa,
                         struct cursor arguments, int arity)
{
    const struct rpc_function *f = find_function(rpc->functions, rpc->count, mfa, arity);

    if (f) {
        f->run(rpc->ctx, f, caller, arguments);
        return true;
    }
    f = find_function(bif_functions, bif_function_count, mfa, arity);
    if (f)
        f->run(rpc->rex.process.node, f, caller, arguments);
    return f;
}

static void apply(struct rpc *rpc, const struct caller *caller, const struct mfa *mfa)
{
    struct cursor arguments = cursor_of(mfa->arguments);
    struct buffer integers;
    int arity;

    buffer_init(&integers);
    if (cursor_tag(&arguments) == TAG_STRING) {
        /* A list of bytes comes in a form of its own, but the functions read one term each. */
        const uint8_t *string = mfa->arguments.data + 1;
        arity = get_u16(string);
        for (int i = 0; i < arity; i++)
            term_put_int(&integers, string[2 + i]);
        arguments = cursor_of(buffer_slice(&integers));
    } else if (!cursor_list(&arguments, &arity)) {
        arity = -1;
    }
    if (integers.overflow || !run_function(rpc, caller, mfa, arguments, arity))
        reply_failure(caller, "undef", mfa->module, mfa->function, mfa->arguments);
    buffer_free(&integers);
}

/* --- erpc --- */

static void refuse_spawn(struct connection *via, const struct control *request, const char *why)
{
    struct buffer *b = connection_open_frame(via);

    control_put_spawn_reply(b, request->reference, &request->from.pid, false, NULL, why);
    connection_close_frame(via);
}

static bool wants_monitor(struct slice options)
{
    struct cursor c = cursor_of(options);
    int length;

    return cursor_list(&c, &length) && length == 1 && cursor_is_atom(&c, "monitor");
}

static bool has_no_options(struct slice options)
{
    struct cursor c = cursor_of(options);

    return cursor_tag(&c) == TAG_NIL;
}

static void on_spawn(struct node_spawner *spawner, struct connection *via,
                     const struct control *request)
{
    struct rpc *rpc = (struct rpc *)((char *)spawner - offsetof(struct rpc, spawner));
    struct node *node = via->node;
    struct cursor c = cursor_of(request->message);
    struct caller caller = {.kind = CALLER_ERPC, .is_rpc = true, .node = node};
    struct mfa mfa;
    int arity;
    bool monitored = wants_monitor(request->options);
    bool is_call = slice_is(request->function, "execute_call") && request->arity == 4;
    bool is_cast = slice_is(request->function, "execute_cast") && request->arity == 3;

    if (!process_is_alive(&rpc->rex.process))
        return;
    if (!slice_is(request->module, "erpc") || !(is_call || is_cast) ||
        !(monitored || has_no_options(request->options)) || !cursor_list(&c, &arity) ||
        arity != request->arity || (is_call && !cursor_term(&c, &caller.tag)) ||
        !read_mfa(&c, &mfa)) {
        refuse_spawn(via, request, "notsup");
        return;
    }
    if (is_cast)
        caller.kind = CALLER_ERPC_CAST;
    caller.pid = request->from.pid;
    caller.worker = worker_start(via, request, monitored);
    if (caller.worker != 0)
        apply(rpc, &caller, &mfa);
    else
        refuse_spawn(via, request, "system_limit");
}

/* --- rex --- */

static void rex_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    struct cursor c = cursor_of(request);
    struct caller rpc_caller = *caller;
    struct mfa mfa;
    int arity;

    rpc_caller.is_rpc = true;
    if (cursor_any_tuple(&c, &arity) && arity == 5 &&
        (cursor_is_atom(&c, "block_call") || cursor_is_atom(&c, "call")) && read_mfa(&c, &mfa))
        apply((struct rpc *)gs, &rpc_caller, &mfa);
    /* rex of OTP leaves a call that it does not know unanswered, too. */
}

static void rex_cast(struct gen_server *gs, struct connection *via, struct slice request)
{
    struct cursor c = cursor_of(request);
    struct caller nobody = {.kind = CALLER_NOBODY, .is_rpc = true, .node = gs->process.node};
    struct mfa mfa;
    (void)via;

    nobody.pid.node = gs->process.node->name_slice;
    if (cursor_tuple(&c, 5) && cursor_is_atom(&c, "cast") && read_mfa(&c, &mfa))
        apply((struct rpc *)gs, &nobody, &mfa);
}

static void put_features(struct buffer *b, struct node *node)
{
    term_put_tuple(b, 3);
    term_put_atom(b, "features_reply");
    term_put_atom(b, node->name);
    term_put_list(b, 1);
    term_put_atom(b, "erpc");
    term_put_nil(b);
}

/* {sbcast, Name, Message} from rpc:sbcast, which waits for {rex, Node, Result}. */
static void handle_sbcast(struct gen_server *gs, struct connection *via, const struct pid *from,
                          struct cursor c)
{
    struct node *node = gs->process.node;
    struct slice name, message;
    struct connection *back;

    if (!cursor_term(&c, &name) || !cursor_term(&c, &message))
        return;
    struct cursor atom = cursor_of(name);
    struct slice text;
    struct process *to = cursor_atom(&atom, &text) ? process_find_name(node, text) : NULL;
    struct buffer *b = connection_open_send(node, from, &back);
    if (b) {
        term_put_tuple(b, 3);
        term_put_atom(b, "rex");
        term_put_atom(b, node->name);
        if (to) {
            term_put_atom(b, node->name);
        } else {
            term_put_tuple(b, 2);
            term_put_atom(b, "nonexisting_name");
            term_put_raw(b, name);
        }
        connection_close_frame(back);
    }
    if (to)
        to->behaviour->receive(to, via, message);
}

/* {From, {call, M, F, A, GroupLeader}} of erl_call, ei_rpc and jinterface, {From, {sbcast, Name,
 * Message}}, and {From, features_request}. */
static void rex_info(struct gen_server *gs, struct connection *via, struct slice message)
{
    struct cursor c = cursor_of(message);
    struct node *node = gs->process.node;
    struct caller caller = {.kind = CALLER_REX, .is_rpc = true, .node = node};
    struct mfa mfa;
    int arity;

    if (!cursor_tuple(&c, 2) || !cursor_pid(&c, &caller.pid))
        return;
    caller.is_foreign = caller_is_foreign(&caller.pid, via);
    if (cursor_is_atom(&c, "features_request")) {
        struct connection *back;
        struct buffer *b = connection_open_send(node, &caller.pid, &back);
        if (b) {
            put_features(b, node);
            connection_close_frame(back);
        }
        return;
    }
    if (!cursor_any_tuple(&c, &arity))
        return;
    if (arity == 5 && cursor_is_atom(&c, "call") && read_mfa(&c, &mfa))
        apply((struct rpc *)gs, &caller, &mfa);
    else if (arity == 3 && cursor_is_atom(&c, "sbcast"))
        handle_sbcast(gs, via, &caller.pid, c);
}

static void rex_put_state(struct gen_server *gs, struct buffer *b)
{
    (void)gs;
    term_put_map(b, 0);
}

static const struct gen_server_callbacks rex_callbacks = {
    .call = rex_call,
    .cast = rex_cast,
    .info = rex_info,
    .put_state = rex_put_state,
};

int rpc_start(struct rpc *rpc, struct node *node, const struct rpc_function *functions,
              size_t count, void *ctx)
{
    int error = gen_server_start(&rpc->rex, node, "rex", &rex_callbacks);

    rpc->rex.traps_exits = true;
    rpc->functions = functions;
    rpc->count = count;
    rpc->ctx = ctx;
    rpc->spawner.on_spawn = on_spawn;
    if (error == 0)
        node->spawner = &rpc->spawner;
    return error;
}
