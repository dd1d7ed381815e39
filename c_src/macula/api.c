/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of the Erlang modules that this node stands for, as rpc finds them. Each does what
 * the module does: it calls or casts to the registered process, so that rpc and gen_server:call
 * take the same way from there.
 */
#include "macula/coordinator.h"
#include "macula/profile_term.h"
#include "term/term_write.h"

static struct gen_server *coordinator_server(void *ctx)
{
    return &((struct coordinator *)ctx)->server;
}

static struct gen_server *cache_server(void *ctx)
{
    return &((struct coordinator *)ctx)->cache->server;
}

static void put_arguments(struct buffer *b, struct cursor args, int count)
{
    struct slice argument;

    for (int i = 0; i < count && cursor_term(&args, &argument); i++)
        term_put_raw(b, argument);
}

/* Begins the request {Name, ...} of so many arguments; free the buffer. */
static void open_request(struct buffer *b, const char *name, int arity)
{
    buffer_init(b);
    term_put_tuple(b, 1 + arity);
    term_put_atom(b, name);
}

static void put_request(struct buffer *b, const char *name, struct cursor args, int arity)
{
    open_request(b, name, arity);
    put_arguments(b, args, arity);
}

static void call(struct gen_server *gs, const struct caller *caller, struct buffer *request)
{
    if (request->overflow)
        reply_error(caller, "overloaded");
    else
        gen_server_call(gs, caller, buffer_slice(request));
    buffer_free(request);
}

static void cast(struct gen_server *gs, const struct caller *caller, struct buffer *request)
{
    if (request->overflow)
        node_note_no_memory(caller->node, gs->process.node->name, "a cast");
    else
        gen_server_cast(gs, buffer_slice(request));
    buffer_free(request);
    reply_atom(caller, "ok");
}

static void call_atom(struct gen_server *gs, const struct caller *caller, const char *name)
{
    struct buffer request;

    buffer_init(&request);
    term_put_atom(&request, name);
    call(gs, caller, &request);
}

static void api_request_connection_2(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;

    open_request(&request, "request_connection", 3);
    put_arguments(&request, args, 2);
    term_put_map(&request, 0);
    call(coordinator_server(ctx), caller, &request);
}

static void api_request_connection_3(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;

    put_request(&request, "request_connection", args, 3);
    call(coordinator_server(ctx), caller, &request);
}

static void api_coordinate_punch(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;

    put_request(&request, "coordinate_punch", args, 3);
    cast(coordinator_server(ctx), caller, &request);
}

static void api_report_result(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;

    put_request(&request, "report_result", args, 3);
    cast(coordinator_server(ctx), caller, &request);
}

static void api_get_pending(void *ctx, const struct caller *caller, struct cursor args)
{
    (void)args;
    call_atom(coordinator_server(ctx), caller, "get_pending");
}

/* --- macula_nat_cache --- */

static bool is_id(struct cursor c)
{
    struct slice id;

    return cursor_binary(&c, &id);
}

static bool is_profile(struct cursor c)
{
    struct slice id;
    int pairs;

    return cursor_binary(&c, &id) && cursor_map(&c, &pairs);
}

static bool has_ttl(struct cursor c)
{
    struct slice id, profile;
    int64_t ttl;

    return cursor_term(&c, &id) && cursor_term(&c, &profile) && cursor_int(&c, &ttl) && ttl > 0;
}

static void reply_function_clause(const struct caller *caller, const char *function,
                                  struct cursor args, int arity)
{
    struct buffer list;

    buffer_init(&list);
    term_put_list(&list, arity);
    put_arguments(&list, args, arity);
    term_put_nil(&list);
    reply_failure(caller, "function_clause", slice_of("macula_nat_cache"), slice_of(function),
                  buffer_slice(&list));
    buffer_free(&list);
}

static void put_profile(void *ctx, const struct caller *caller, struct cursor args, bool with_ttl)
{
    struct buffer request;
    int arity = with_ttl ? 3 : 2;

    if (!is_profile(args) || (with_ttl && !has_ttl(args))) {
        reply_function_clause(caller, "put", args, arity);
        return;
    }
    open_request(&request, "put", 3);
    put_arguments(&request, args, arity);
    if (!with_ttl)
        term_put_int(&request, PROFILE_CACHE_DEFAULT_TTL);
    cast(cache_server(ctx), caller, &request);
}

static void api_cache_put_2(void *ctx, const struct caller *caller, struct cursor args)
{
    put_profile(ctx, caller, args, false);
}

static void api_cache_put_3(void *ctx, const struct caller *caller, struct cursor args)
{
    put_profile(ctx, caller, args, true);
}

static void api_cache_get(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;

    if (!is_id(args)) {
        reply_function_clause(caller, "get", args, 1);
        return;
    }
    put_request(&request, "get", args, 1);
    call(cache_server(ctx), caller, &request);
}

/* Without a macula node there is no DHT: what is not in the cache is what v0.14.3 says then. */
static void api_cache_get_from_dht(void *ctx, const struct caller *caller, struct cursor args)
{
    struct coordinator *co = ctx;
    struct reply reply;
    struct slice id;
    bool stale;

    if (!is_id(args)) {
        reply_function_clause(caller, "get_from_dht", args, 1);
        return;
    }
    cursor_binary(&args, &id);
    struct nat_profile *profile = profile_cache_find(co->cache, id, &stale);
    if (!reply_open(&reply, caller))
        return;
    if (profile) {
        term_put_tuple(reply.out, 2);
        term_put_atom(reply.out, "ok");
        profile_put(reply.out, profile);
    } else {
        term_put_atoms(reply.out, 2, "error", "routing_server_unavailable");
    }
    reply_close(&reply);
}

static void api_cache_invalidate(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;

    if (!is_id(args)) {
        reply_function_clause(caller, "invalidate", args, 1);
        return;
    }
    put_request(&request, "invalidate", args, 1);
    cast(cache_server(ctx), caller, &request);
}

static void api_cache_clear(void *ctx, const struct caller *caller, struct cursor args)
{
    struct buffer request;
    (void)args;

    buffer_init(&request);
    term_put_atom(&request, "clear");
    cast(cache_server(ctx), caller, &request);
}

static void api_cache_stats(void *ctx, const struct caller *caller, struct cursor args)
{
    (void)args;
    call_atom(cache_server(ctx), caller, "stats");
}

const struct rpc_function api_functions[] = {
    {"macula_nat_coordinator", "request_connection", 2, api_request_connection_2},
    {"macula_nat_coordinator", "request_connection", 3, api_request_connection_3},
    {"macula_nat_coordinator", "coordinate_punch", 3, api_coordinate_punch},
    {"macula_nat_coordinator", "report_result", 3, api_report_result},
    {"macula_nat_coordinator", "get_pending", 0, api_get_pending},
    {"macula_nat_cache", "put", 2, api_cache_put_2},
    {"macula_nat_cache", "put", 3, api_cache_put_3},
    {"macula_nat_cache", "get", 1, api_cache_get},
    {"macula_nat_cache", "get_from_dht", 1, api_cache_get_from_dht},
    {"macula_nat_cache", "invalidate", 1, api_cache_invalidate},
    {"macula_nat_cache", "clear", 0, api_cache_clear},
    {"macula_nat_cache", "stats", 0, api_cache_stats},
};
const size_t api_function_count = sizeof api_functions / sizeof api_functions[0];
