/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A comparator of the benchmarks: the C node of the ei tutorial (Interoperability Tutorial, "C
 * Nodes"), which is how C nodes are usually written. A thread per connection, one ei_xreceive_msg
 * and one ei_send per call. It gives every request_connection the same kind of answer as the real
 * node and keeps nothing.
 *
 * Usage: ei_tutorial NAME, with the cookie in MACULA_NAT_COOKIE. It prints `ready`, and is ended by
 * a signal.
 */
#include "ei_node.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* {'$gen_call', {Pid, Tag}, {request_connection, Initiator, Target, Opts}}: the index of Tag, or
 * -1. */
static int read_call(const ei_x_buff *in, erlang_pid *from)
{
    char atom[MAXATOMLEN_UTF8];
    int index = 0, version, arity;

    if (ei_decode_version(in->buff, &index, &version) != 0 ||
        ei_decode_tuple_header(in->buff, &index, &arity) != 0 || arity != 3 ||
        ei_decode_atom_as(in->buff, &index, atom, sizeof atom, ERLANG_UTF8, NULL, NULL) != 0 ||
        strcmp(atom, "$gen_call") != 0 || ei_decode_tuple_header(in->buff, &index, &arity) != 0 ||
        arity != 2 || ei_decode_pid(in->buff, &index, from) != 0)
        return -1;
    int tag = index;
    if (ei_skip_term(in->buff, &index) != 0 ||
        ei_decode_tuple_header(in->buff, &index, &arity) != 0 || arity != 4 ||
        ei_decode_atom_as(in->buff, &index, atom, sizeof atom, ERLANG_UTF8, NULL, NULL) != 0 ||
        strcmp(atom, "request_connection") != 0)
        return -1;
    return tag;
}

/* {Tag, {ok, direct, SessionId}} */
static void put_reply(ei_x_buff *out, const char *tag, unsigned number)
{
    char session_id[25];
    erlang_ref reference;
    int index = 0;

    if (ei_decode_ref(tag, &index, &reference) != 0)
        return;
    snprintf(session_id, sizeof session_id, "%024u", number);
    out->index = 0;
    ei_x_encode_version(out);
    ei_x_encode_tuple_header(out, 2);
    ei_x_encode_ref(out, &reference);
    ei_x_encode_tuple_header(out, 3);
    ei_x_encode_atom(out, "ok");
    ei_x_encode_atom(out, "direct");
    ei_x_encode_binary(out, session_id, 24);
}

static void *serve(void *argument)
{
    int fd = (int)(long)argument;
    unsigned number = 0;
    erlang_msg message;
    ei_x_buff in, out;

    ei_x_new(&in);
    ei_x_new(&out);
    for (;;) {
        erlang_pid from;
        in.index = 0;
        int got = ei_xreceive_msg(fd, &message, &in);
        if (got == ERL_ERROR)
            break;
        if (got != ERL_MSG || (message.msgtype != ERL_REG_SEND && message.msgtype != ERL_SEND))
            continue;
        int tag = read_call(&in, &from);
        if (tag < 0)
            continue;
        put_reply(&out, in.buff + tag, ++number);
        if (ei_send(fd, &from, out.buff, out.index) < 0)
            break;
    }
    ei_x_free(&in);
    ei_x_free(&out);
    ei_close_connection(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    ei_cnode node;
    int listener = ei_node_start(&node, argc, argv);

    for (;;) {
        ErlConnect peer;
        pthread_t thread;
        int fd = ei_accept(&node, listener, &peer);
        if (fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(long)fd) == 0)
            pthread_detach(thread);
    }
}
