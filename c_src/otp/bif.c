/* SPDX-License-Identifier: Apache-2.0 */
/* Functions of module erlang that tools ask any node for: its name, its nodes, its processes. */
#include "otp/rpc.h"
#include "term/term_write.h"

static void bif_node(void *ctx, const struct rpc_function *f, const struct caller *caller,
                     struct cursor args)
{
    struct node *node = ctx;
    (void)f;
    (void)args;

    reply_atom(caller, node->name);
}

/* A hidden node is connected to others as hidden, so to it none is visible. */
static void bif_nodes(void *ctx, const struct rpc_function *f, const struct caller *caller,
                      struct cursor args)
{
    struct reply reply;
    (void)ctx;
    (void)f;
    (void)args;

    if (!reply_open(&reply, caller))
        return;
    term_put_nil(reply.out);
    reply_close(&reply);
}

static void bif_whereis(void *ctx, const struct rpc_function *f, const struct caller *caller,
                        struct cursor args)
{
    struct node *node = ctx;
    struct cursor c = args;
    struct slice name, argument;
    struct reply reply;

    if (!cursor_atom(&c, &name)) {
        struct buffer list;
        buffer_init(&list);
        term_put_list(&list, 1);
        if (cursor_term(&args, &argument))
            term_put_raw(&list, argument);
        term_put_nil(&list);
        reply_failure(caller, "badarg", slice_of(f->module), slice_of(f->function),
                      buffer_slice(&list));
        buffer_free(&list);
        return;
    }
    struct process *p = process_find_name(node, name);
    if (!reply_open(&reply, caller))
        return;
    if (p) {
        struct pid pid = process_pid(p);
        term_put_pid(reply.out, &pid);
    } else {
        term_put_atom(reply.out, "undefined");
    }
    reply_close(&reply);
}

const struct rpc_function bif_functions[] = {
    {"erlang", "node", 0, bif_node, NULL},
    {"erlang", "nodes", 0, bif_nodes, NULL},
    {"erlang", "whereis", 1, bif_whereis, NULL},
};
const size_t bif_function_count = sizeof bif_functions / sizeof bif_functions[0];
