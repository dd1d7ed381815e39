/* SPDX-License-Identifier: Apache-2.0 */
/* What is said to `rex`, the process that runs functions of other nodes for rpc: the request of a
 * call to RPC_SERVER (call.h), and its answer. It runs each function in a process of its own. */
#ifndef OTP_RPC_CLIENT_H
#define OTP_RPC_CLIENT_H

#include "base/buffer.h"

#include <stdbool.h>

#define RPC_SERVER "rex"

/* Begins the request to run a function: put its `arity` > 0 arguments, then close it. */
void rpc_open_request(struct buffer *b, const char *module, const char *function, int arity);
void rpc_close_request(struct buffer *b);
/* Whether the answer says that the node has no such module, or not this function of it. */
bool rpc_is_undefined(struct slice answer, const char *module);

#endif
