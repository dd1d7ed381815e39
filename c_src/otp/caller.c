/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/caller.h"

#include "otp/worker.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>

bool caller_is_foreign(const struct pid *pid, const struct connection *via)
{
    return !via || !slice_is(pid->node, via->name);
}

bool caller_read(struct caller *caller, const struct process *called, const struct connection *via,
                 struct cursor *c)
{
    struct cursor from = *c;

    *caller =
        (struct caller){.kind = CALLER_GEN, .node = called->node, .called = process_pid(called)};
    if (!cursor_tuple(&from, 2) || !cursor_pid(&from, &caller->pid) ||
        !cursor_term(&from, &caller->tag))
        return false;
    caller->is_foreign = caller_is_foreign(&caller->pid, via);
    *c = from;
    return true;
}

size_t caller_size(const struct caller *caller)
{
    return sizeof *caller + caller->pid.node.len + caller->tag.len;
}

struct caller *caller_keep(const struct caller *caller)
{
    size_t node_len = caller->pid.node.len;
    struct caller *copy = malloc(caller_size(caller));

    if (!copy)
        return NULL;
    uint8_t *bytes = (uint8_t *)(copy + 1);
    *copy = *caller;
    if (node_len)
        memcpy(bytes, caller->pid.node.data, node_len);
    if (caller->tag.len)
        memcpy(bytes + node_len, caller->tag.data, caller->tag.len);
    copy->pid.node.data = bytes;
    copy->tag.data = bytes + node_len;
    return copy;
}

void caller_free(struct caller *caller)
{
    free(caller);
}

/* The reference in [alias | Ref] or [[alias | Ref] | _], at any other tag false. */
static bool find_alias(struct slice tag, struct slice *alias)
{
    struct cursor c = cursor_of(tag);
    int length;

    if (!cursor_list(&c, &length) || length < 1)
        return false;
    if (cursor_is_atom(&c, "alias"))
        return length == 1 && cursor_reference(&c, alias);
    return cursor_list(&c, &length) && length == 1 && cursor_is_atom(&c, "alias") &&
           cursor_reference(&c, alias);
}

static void put_destination(struct buffer *b, const struct caller *caller)
{
    struct slice alias;

    /* Signals keep their order only from one process to another: no DOWN may overtake the answer.
     */
    if (caller->kind == CALLER_GEN && find_alias(caller->tag, &alias))
        control_put_alias_send(b, &caller->called, alias);
    else
        control_put_send(b, &caller->pid);
}

static bool has_worker(const struct caller *caller)
{
    return caller->kind == CALLER_ERPC || caller->kind == CALLER_ERPC_CAST;
}

static bool open_return(struct reply *reply, const struct caller *caller)
{
    reply->out = worker_open_reason(caller->node, caller->worker);
    if (!reply->out)
        return false;
    if (caller->kind == CALLER_ERPC) {
        term_put_tuple(reply->out, 3);
        term_put_raw(reply->out, caller->tag);
        term_put_atom(reply->out, "return");
    }
    return true;
}

static void close_return(const struct caller *caller)
{
    if (caller->kind == CALLER_ERPC_CAST) {
        struct buffer *reason = worker_open_reason(caller->node, caller->worker);
        if (reason) /* without the value, which nobody waits for */
            term_put_atom(reason, "normal");
    }
    worker_finish(caller->node, caller->worker);
}

bool reply_open(struct reply *reply, const struct caller *caller)
{
    reply->caller = caller;
    reply->via = NULL;
    if (caller->kind == CALLER_NOBODY)
        return false;
    if (has_worker(caller))
        return open_return(reply, caller);
    reply->via = connection_find(caller->node, caller->pid.node);
    if (!reply->via) {
        caller->node->counters.messages_undeliverable++;
        return false;
    }
    if (caller->is_foreign && connection_pending(reply->via) > OUTPUT_UNASKED) {
        caller->node->counters.output_dropped++;
        return false;
    }
    reply->out = connection_open_frame(reply->via);
    put_destination(reply->out, caller);
    term_put_tuple(reply->out, 2);
    if (caller->kind == CALLER_REX)
        term_put_atom(reply->out, "rex");
    else
        term_put_raw(reply->out, caller->tag);
    return true;
}

void reply_close(struct reply *reply)
{
    if (reply->via)
        connection_close_frame(reply->via);
    else
        close_return(reply->caller);
}

void reply_atom(const struct caller *caller, const char *atom)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    term_put_atom(reply.out, atom);
    reply_close(&reply);
}

void reply_error(const struct caller *caller, const char *reason)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    term_put_atoms(reply.out, 2, "error", reason);
    reply_close(&reply);
}

void reply_term(const struct caller *caller, struct slice term)
{
    struct reply reply;

    if (!reply_open(&reply, caller))
        return;
    term_put_raw(reply.out, term);
    reply_close(&reply);
}

static void put_stack(struct buffer *b, struct slice module, struct slice function,
                      struct slice arguments)
{
    term_put_list(b, 1);
    term_put_tuple(b, 4);
    term_put_atom_slice(b, module);
    term_put_atom_slice(b, function);
    term_put_raw(b, arguments);
    term_put_nil(b);
    term_put_nil(b);
}

/* {badrpc, {'EXIT', _}}: put the reason behind it. */
static void put_badrpc(struct buffer *b)
{
    term_put_tuple(b, 2);
    term_put_atom(b, "badrpc");
    term_put_tuple(b, 2);
    term_put_atom(b, "EXIT");
}

/* erpc:execute_call/4 ends with {Tag, error, Error, Stack}, erpc:execute_cast/3 as any process does
 * with {{exception, {Error, Stack}}, _}, whose own stack is left empty. */
static void fail_worker(const struct caller *caller, const char *error, struct slice module,
                        struct slice function, struct slice arguments)
{
    struct buffer *b = worker_open_reason(caller->node, caller->worker);

    if (!b)
        return;
    if (caller->kind == CALLER_ERPC) {
        term_put_tuple(b, 4);
        term_put_raw(b, caller->tag);
        term_put_atom(b, "error");
        term_put_atom(b, error);
        put_stack(b, module, function, arguments);
    } else {
        term_put_tuple(b, 2);
        term_put_tuple(b, 2);
        term_put_atom(b, "exception");
        term_put_tuple(b, 2);
        term_put_atom(b, error);
        put_stack(b, module, function, arguments);
        term_put_nil(b);
    }
    worker_finish(caller->node, caller->worker);
}

/* The same for {Tag, exit, Reason}, and Reason. */
static void exit_worker(const struct caller *caller, struct slice reason)
{
    struct buffer *b = worker_open_reason(caller->node, caller->worker);

    if (!b)
        return;
    if (caller->kind == CALLER_ERPC) {
        term_put_tuple(b, 3);
        term_put_raw(b, caller->tag);
        term_put_atom(b, "exit");
    }
    term_put_raw(b, reason);
    worker_finish(caller->node, caller->worker);
}

void reply_failure(const struct caller *caller, const char *error, struct slice module,
                   struct slice function, struct slice arguments)
{
    struct reply reply;

    if (has_worker(caller)) {
        fail_worker(caller, error, module, function, arguments);
        return;
    }
    if (!reply_open(&reply, caller))
        return;
    put_badrpc(reply.out);
    term_put_tuple(reply.out, 2);
    term_put_atom(reply.out, error);
    put_stack(reply.out, module, function, arguments);
    reply_close(&reply);
}

void reply_exit(const struct caller *caller, struct slice reason)
{
    struct reply reply;

    if (has_worker(caller)) {
        exit_worker(caller, reason);
        return;
    }
    /* A gen_server that ends gives its callers no reply but a DOWN. */
    if (!caller->is_rpc || !reply_open(&reply, caller))
        return;
    put_badrpc(reply.out);
    term_put_raw(reply.out, reason);
    reply_close(&reply);
}
