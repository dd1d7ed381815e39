/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpc and erpc: the process `rex`, and the functions that other nodes spawn here.
 *
 * What can be called is one table of functions, given at the start by the layer above, and the few
 * of module erlang that say what this node is (bif.c); everything else is `undef`, as on a node
 * that does not have the module. See rpc.erl and erpc.erl of kernel.
 */
#ifndef OTP_RPC_H
#define OTP_RPC_H

#include "otp/caller.h"
#include "otp/gen_server.h"

struct rpc_function {
    const char *module;
    const char *function;
    int arity;
    /* `arguments` stands at the first of `arity` terms. Must answer the caller, now or later. `f`
     * is the row of the table. */
    void (*run)(void *ctx, const struct rpc_function *f, const struct caller *caller,
                struct cursor arguments);
    const void *data; /* for `run` */
};

/* For rpc.c: the functions of module erlang, each run with the node. */
extern const struct rpc_function bif_functions[];
extern const size_t bif_function_count;

struct rpc {
    struct gen_server rex; /* first: its callbacks find the rest through it */
    struct node_spawner spawner;
    const struct rpc_function *functions;
    size_t count;
    void *ctx;
};

/*
 * Registers `rex`, and becomes the node's spawner. They answer what is in the table of `count`
 * functions, each run with `ctx`; the table must outlive them. Of spawn requests erpc's
 * execute_call/4 and execute_cast/3 are run; others are refused with notsup, and all with
 * system_limit without memory. Returns 0 or -ENOMEM.
 */
int rpc_start(struct rpc *rpc, struct node *node, const struct rpc_function *functions,
              size_t count, void *ctx);
#endif
