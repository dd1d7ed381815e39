/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of macula_nat_coordinator and macula_nat_cache that rpc may call; their ctx is the
 * coordinator. */
#ifndef MACULA_API_H
#define MACULA_API_H

#include "otp/rpc.h"

extern const struct rpc_function api_functions[];
extern const size_t api_function_count;

#endif
