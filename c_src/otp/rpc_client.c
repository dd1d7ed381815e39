/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/rpc_client.h"

#include "term/term_write.h"

void rpc_open_request(struct buffer *b, const char *module, const char *function, int arity)
{
    term_put_tuple(b, 5);
    term_put_atom(b, "call");
    term_put_atom(b, module);
    term_put_atom(b, function);
    term_put_list(b, arity);
}

void rpc_close_request(struct buffer *b)
{
    term_put_nil(b);
    /* As group leader: we have no process that would answer input and output requests. */
    term_put_atom(b, "user");
}

/* {badrpc, {'EXIT', {undef, [{Module, _, _, _} | _]}}} */
bool rpc_is_undefined(struct slice answer, const char *module)
{
    struct cursor c = cursor_of(answer);
    int length;

    return cursor_tuple(&c, 2) && cursor_is_atom(&c, "badrpc") && cursor_tuple(&c, 2) &&
           cursor_is_atom(&c, "EXIT") && cursor_tuple(&c, 2) && cursor_is_atom(&c, "undef") &&
           cursor_list(&c, &length) && cursor_tuple(&c, 4) && cursor_is_atom(&c, module);
}
