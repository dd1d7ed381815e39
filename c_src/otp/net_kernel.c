/* SPDX-License-Identifier: Apache-2.0 */
#include "otp/net_kernel.h"

#include "term/term_write.h"

static void on_call(struct gen_server *gs, const struct caller *caller, struct slice request)
{
    struct cursor c = cursor_of(request);
    (void)gs;

    if (cursor_tuple(&c, 2) && cursor_is_atom(&c, "is_auth"))
        reply_atom(caller, "yes");
    else
        reply_atom(caller, "ignored");
}

static void on_other(struct gen_server *gs, struct connection *via, struct slice message)
{
    (void)gs;
    (void)via;
    (void)message;
}

static void put_state(struct gen_server *gs, struct buffer *b)
{
    struct term_map map;

    term_open_map(&map, b);
    term_put_key(&map, "node");
    term_put_atom(b, gs->process.node->name);
    term_close_map(&map);
}

static const struct gen_server_callbacks callbacks = {
    .call = on_call,
    .cast = on_other,
    .info = on_other,
    .put_state = put_state,
};

int net_kernel_start(struct gen_server *gs, struct node *node)
{
    int error = gen_server_start(gs, node, "net_kernel", &callbacks);

    gs->traps_exits = true;
    return error;
}
