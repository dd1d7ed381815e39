/* SPDX-License-Identifier: Apache-2.0 */
#include "node_world.h"

#include "base/bytes.h"
#include "distribution/process.h"
#include "term/term_write.h"

#include <check.h>
#include <ei.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void node_world_start(struct node_world *w)
{
    memset(w, 0, sizeof *w);
    w->node = fake_node_start();
    w->pid = (struct pid){slice_of(NODE_WORLD_PEER), 1, 0, 7};
    fake_peer_connect(&w->fake, NODE_WORLD_PEER);
    w->peer = w->fake.c;
}

void node_world_stop(struct node_world *w)
{
    ck_assert_ptr_null(w->node->processes.by_number);
    fake_peer_close(&w->fake);
    fake_node_stop();
}

void node_world_turn(struct node_world *w)
{
    (void)w;
    uv_run(&fake_loop, UV_RUN_NOWAIT);
}

struct slice node_world_term(const struct node_world *w, const char *text)
{
    erlang_pid pid = {.num = w->pid.id, .serial = w->pid.serial, .creation = w->pid.creation};
    ei_x_buff x;

    strcpy(pid.node, NODE_WORLD_PEER);
    ck_assert_int_eq(ei_x_new(&x), 0);
    ck_assert_msg(ei_x_format_wo_ver(&x, text, &pid, &pid, &pid) == 0, "no term: %s", text);
    struct slice term = {slice_copy((struct slice){(uint8_t *)x.buff, (size_t)x.index}),
                         (size_t)x.index};
    ei_x_free(&x);
    return term;
}

static void receive(struct node_world *w, struct process *to, struct slice message)
{
    w->node->sender = w->peer;
    to->behaviour->receive(to, w->peer, message);
    w->node->sender = NULL;
}

void node_world_say(struct node_world *w, struct process *to, const char *text)
{
    struct slice message = node_world_term(w, text);

    receive(w, to, message);
    free((void *)message.data);
}

void node_world_answer(struct node_world *w, struct process *to, const char *text)
{
    struct slice term = node_world_term(w, text);
    struct buffer message;

    buffer_init(&message);
    term_put_tuple(&message, 2);
    term_put_raw(&message, (struct slice){w->reference, w->reference_len});
    term_put_raw(&message, term);
    receive(w, to, buffer_slice(&message));
    buffer_free(&message);
    free((void *)term.data);
}

static void put_term(struct node_world *w, struct slice term)
{
    size_t len = strlen(w->text);
    char *text = malloc(BUFSIZ); /* ei wants it so */
    int index = 0;

    ck_assert_ptr_nonnull(text);
    ck_assert_int_ge(ei_s_print_term(&text, (const char *)term.data, &index), 0);
    snprintf(w->text + len, sizeof w->text - len, "%s", text);
    free(text);
}

static void put_told(struct node_world *w, const struct control *k)
{
    int name_len = (int)k->to.name.len;
    const char *name = (const char *)k->to.name.data;

    switch (k->op) {
    case CONTROL_SEND:
        put_term(w, k->message);
        break;
    case CONTROL_ALIAS_SEND:
        strcpy(w->text, "alias ");
        put_term(w, k->message);
        break;
    case CONTROL_REG_SEND:
        snprintf(w->text, sizeof w->text, "%.*s ! ", name_len, name);
        put_term(w, k->message);
        break;
    case CONTROL_MONITOR:
        snprintf(w->text, sizeof w->text, "monitor %.*s", name_len, name);
        ck_assert_uint_le(k->reference.len, sizeof w->reference);
        memcpy(w->reference, k->reference.data, k->reference.len);
        w->reference_len = k->reference.len;
        break;
    case CONTROL_DEMONITOR:
        strcpy(w->text, "demonitor");
        break;
    case CONTROL_MONITOR_EXIT:
        strcpy(w->text, "down ");
        put_term(w, k->reason);
        break;
    case CONTROL_EXIT:
        strcpy(w->text, "exit ");
        put_term(w, k->reason);
        break;
    case CONTROL_SPAWN_REPLY: {
        struct cursor c = cursor_of(k->reason);
        struct slice why;
        bool is_refused = cursor_atom(&c, &why);
        strcpy(w->text, is_refused ? "refused " : "spawned");
        if (is_refused)
            put_term(w, k->reason);
        break;
    }
    default:
        ck_abort_msg("told %d", k->op);
    }
}

const char *node_world_told(struct node_world *w)
{
    struct buffer *out = &w->peer->out;
    struct control control;

    w->text[0] = '\0';
    if (buffer_size(out) == 0)
        return w->text;
    size_t len = get_u32(buffer_data(out));
    ck_assert_uint_ge(buffer_size(out), 4 + len);
    ck_assert_int_eq(control_parse(&control, (struct slice){buffer_data(out) + 4, len}), 0);
    put_told(w, &control);
    buffer_consume(out, 4 + len);
    return w->text;
}
