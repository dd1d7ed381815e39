/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of the Erlang modules that this node stands for, as rpc finds them. Each does what
 * the module does: it calls or casts to the registered process, so that rpc and gen_server:call
 * take the same way from there.
 */
#include "macula/api.h"

#include "macula/coordinator.h"
#include "macula/profile_term.h"
#include "term/term_write.h"

/* How a call of a function becomes a request {Function, Argument, ...} or, without arguments, the
 * atom Function. */
struct request_form {
    bool is_cast;
    bool (*check)(struct cursor args);     /* NULL: the server checks */
    void (*put_default)(struct buffer *b); /* the last argument, of the function without it */
};

static void put_arguments(struct buffer *b, struct cursor args, int count)
{
    struct slice argument;

    for (int i = 0; i < count && cursor_term(&args, &argument); i++)
        term_put_raw(b, argument);
}

static void put_request(struct buffer *b, const struct rpc_function *f,
                        const struct request_form *form, struct cursor args)
{
    if (f->arity > 0)
        term_put_tuple(b, 1 + f->arity + (form->put_default ? 1 : 0));
    term_put_atom(b, f->function);
    put_arguments(b, args, f->arity);
    if (form->put_default)
        form->put_default(b);
}

static void reply_function_clause(const struct caller *caller, const struct rpc_function *f,
                                  struct cursor args)
{
    struct buffer list;

    buffer_init(&list);
    term_put_list(&list, f->arity);
    put_arguments(&list, args, f->arity);
    term_put_nil(&list);
    reply_failure(caller, "function_clause", slice_of(f->module), slice_of(f->function),
                  buffer_slice(&list));
    buffer_free(&list);
}

static void call(struct gen_server *gs, const struct caller *caller, const struct buffer *request)
{
    if (request->overflow)
        reply_error(caller, "overloaded");
    else
        gen_server_call(gs, caller, buffer_slice(request));
}

static void cast(struct gen_server *gs, const struct caller *caller, const struct buffer *request)
{
    if (request->overflow)
        node_note_no_memory(caller->node, gs->process.node->name, "a cast");
    else
        gen_server_cast(gs, buffer_slice(request));
    reply_atom(caller, "ok");
}

static void send_request(struct gen_server *gs, const struct rpc_function *f,
                         const struct caller *caller, struct cursor args)
{
    const struct request_form *form = f->data;
    struct buffer request;

    if (form->check && !form->check(args)) {
        reply_function_clause(caller, f, args);
        return;
    }
    buffer_init(&request);
    put_request(&request, f, form, args);
    if (form->is_cast)
        cast(gs, caller, &request);
    else
        call(gs, caller, &request);
    buffer_free(&request);
}

static void to_coordinator(void *ctx, const struct rpc_function *f, const struct caller *caller,
                           struct cursor args)
{
    send_request(&((struct coordinator *)ctx)->server, f, caller, args);
}

static void to_cache(void *ctx, const struct rpc_function *f, const struct caller *caller,
                     struct cursor args)
{
    send_request(&((struct coordinator *)ctx)->cache->server, f, caller, args);
}

/* --- checks and defaults --- */

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

static bool is_profile_with_ttl(struct cursor c)
{
    struct slice id, profile;
    int64_t ttl;

    return is_profile(c) && cursor_term(&c, &id) && cursor_term(&c, &profile) &&
           cursor_int(&c, &ttl) && ttl > 0;
}

static void put_no_options(struct buffer *b)
{
    term_put_map(b, 0);
}

static void put_default_ttl(struct buffer *b)
{
    term_put_int(b, PROFILE_CACHE_DEFAULT_TTL);
}

/* Without a macula node there is no DHT: what is not in the cache is what v0.14.3 says then. */
static void get_from_dht(void *ctx, const struct rpc_function *f, const struct caller *caller,
                         struct cursor args)
{
    struct coordinator *co = ctx;
    struct reply reply;
    struct slice id;
    bool stale;

    if (!is_id(args)) {
        reply_function_clause(caller, f, args);
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

/* --- the table --- */

#define COORDINATOR "macula_nat_coordinator"
#define CACHE       "macula_nat_cache"
#define FORM(...)   (&(const struct request_form){__VA_ARGS__})

static const struct request_form a_call = {.is_cast = false};
static const struct request_form a_cast = {.is_cast = true};

/* clang-format off */
const struct rpc_function api_functions[] = {
    {COORDINATOR, "request_connection", 2, to_coordinator, FORM(.put_default = put_no_options)},
    {COORDINATOR, "request_connection", 3, to_coordinator, &a_call},
    {COORDINATOR, "coordinate_punch", 3, to_coordinator, &a_cast},
    {COORDINATOR, "report_result", 3, to_coordinator, &a_cast},
    {COORDINATOR, "get_pending", 0, to_coordinator, &a_call},
    {CACHE, "put", 2, to_cache, FORM(true, is_profile, put_default_ttl)},
    {CACHE, "put", 3, to_cache, FORM(true, is_profile_with_ttl, NULL)},
    {CACHE, "get", 1, to_cache, FORM(false, is_id, NULL)},
    {CACHE, "get_from_dht", 1, get_from_dht, NULL},
    {CACHE, "invalidate", 1, to_cache, FORM(true, is_id, NULL)},
    {CACHE, "clear", 0, to_cache, &a_cast},
    {CACHE, "stats", 0, to_cache, &a_call},
};
/* clang-format on */
const size_t api_function_count = sizeof api_functions / sizeof api_functions[0];
