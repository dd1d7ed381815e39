/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/control.h"

#include "term/tags.h"
#include "term/term_check.h"
#include "term/term_write.h"

#include <errno.h>
#include <string.h>

/* The forms with a trace token, and the plain ones that they stand for. */
static const struct {
    uint8_t traced;
    uint8_t plain;
} traced_ops[] = {
    {12, CONTROL_SEND},       {13, CONTROL_EXIT},          {16, CONTROL_REG_SEND},
    {18, CONTROL_EXIT2},      {30, CONTROL_SPAWN_REQUEST}, {32, CONTROL_SPAWN_REPLY},
    {34, CONTROL_ALIAS_SEND},
};

static bool read_end(struct cursor *c, struct control_end *end)
{
    return cursor_pid(c, &end->pid) || cursor_atom(c, &end->name);
}

static bool read_mfa(struct cursor *c, struct control *control)
{
    return cursor_tuple(c, 3) && cursor_atom(c, &control->module) &&
           cursor_atom(c, &control->function) && cursor_int(c, &control->arity);
}

static bool read_any(struct cursor *c)
{
    struct slice ignored;

    return cursor_term(c, &ignored);
}

/* An unlink id is an integer of up to 64 bits, which goes back as it came. */
static bool read_id(struct cursor *c, struct slice *id)
{
    uint8_t tag = cursor_tag(c);

    return (tag == TAG_SMALL_INTEGER || tag == TAG_INTEGER || tag == TAG_SMALL_BIG) &&
           cursor_term(c, id);
}

/* Reads the elements behind the operation; `needs_message`: a term must follow the tuple. */
static int read_elements(struct cursor *c, struct control *k, bool *needs_message)
{
    struct pid group_leader;
    bool read = false;

    switch (k->op) {
    case CONTROL_SEND:
        *needs_message = true;
        read = read_any(c) && cursor_pid(c, &k->to.pid);
        break;
    case CONTROL_REG_SEND:
        *needs_message = true;
        read = cursor_pid(c, &k->from.pid) && read_any(c) && cursor_atom(c, &k->to.name);
        break;
    case CONTROL_ALIAS_SEND:
        *needs_message = true;
        read = cursor_pid(c, &k->from.pid) && cursor_reference(c, &k->reference);
        break;
    case CONTROL_LINK:
    case CONTROL_UNLINK:
    case CONTROL_GROUP_LEADER:
        read = cursor_pid(c, &k->from.pid) && cursor_pid(c, &k->to.pid);
        break;
    case CONTROL_UNLINK_ID:
    case CONTROL_UNLINK_ID_ACK:
        read = read_id(c, &k->id) && cursor_pid(c, &k->from.pid) && cursor_pid(c, &k->to.pid);
        break;
    case CONTROL_EXIT:
    case CONTROL_EXIT2:
        read = cursor_pid(c, &k->from.pid) && cursor_pid(c, &k->to.pid);
        break;
    case CONTROL_MONITOR:
    case CONTROL_DEMONITOR:
        read = cursor_pid(c, &k->from.pid) && read_end(c, &k->to) &&
               cursor_reference(c, &k->reference);
        break;
    case CONTROL_MONITOR_EXIT:
        read = read_end(c, &k->from) && cursor_pid(c, &k->to.pid) &&
               cursor_reference(c, &k->reference) && cursor_term(c, &k->reason);
        break;
    case CONTROL_SPAWN_REQUEST:
        *needs_message = true;
        read = cursor_reference(c, &k->reference) && cursor_pid(c, &k->from.pid) &&
               cursor_pid(c, &group_leader) && read_mfa(c, k) && cursor_term(c, &k->options);
        break;
    case CONTROL_SPAWN_REPLY:
        read = cursor_reference(c, &k->reference) && cursor_pid(c, &k->to.pid) && read_any(c) &&
               cursor_term(c, &k->reason);
        break;
    default:
        return -ENOTSUP;
    }
    return read ? 0 : -EBADMSG;
}

/* One version byte and one whole term at the front of `rest`; moves `rest` behind it. */
static int split_term(struct slice *rest, struct slice *term)
{
    if (rest->len < 2 || rest->data[0] != TAG_VERSION)
        return -EBADMSG;
    ssize_t size = term_check(rest->data + 1, rest->len - 1);
    if (size < 0)
        return (int)size;
    *term = (struct slice){rest->data + 1, (size_t)size};
    rest->data += size + 1;
    rest->len -= (size_t)size + 1;
    return 0;
}

/* The operation; one with a trace token (*traced) as the one without. */
static int64_t plain_op(int64_t op, bool *traced)
{
    *traced = true;
    for (size_t i = 0; i < sizeof traced_ops / sizeof traced_ops[0]; i++)
        if (op == traced_ops[i].traced)
            return traced_ops[i].plain;
    *traced = false;
    return op;
}

int control_parse(struct control *control, struct slice frame)
{
    struct slice tuple;
    int64_t op;
    int arity;

    memset(control, 0, sizeof *control);
    if (frame.len == 0 || frame.data[0] != CONTROL_PASS_THROUGH)
        return -EBADMSG;
    frame.data++;
    frame.len--;
    int error = split_term(&frame, &tuple);
    if (error)
        return error;
    if (frame.len > 0 && (error = split_term(&frame, &control->message)) != 0)
        return error;
    if (frame.len > 0)
        return -EBADMSG;

    struct cursor c = cursor_of(tuple);
    if (!cursor_any_tuple(&c, &arity) || arity < 1 || !cursor_int(&c, &op))
        return -EBADMSG;
    bool traced;
    op = plain_op(op, &traced);
    if (op < 0 || op > UINT8_MAX)
        return -ENOTSUP;
    control->op = (enum control_op)op;
    bool needs_message = false;
    if ((error = read_elements(&c, control, &needs_message)) != 0)
        return error;
    /* EXIT and EXIT2 have the token before the reason, the others at the end. */
    bool has_reason = op == CONTROL_EXIT || op == CONTROL_EXIT2;
    if ((traced && !read_any(&c)) || (has_reason && !cursor_term(&c, &control->reason)))
        return -EBADMSG;
    if (c.at != c.end || needs_message != (control->message.len > 0))
        return -EBADMSG;
    return 0;
}

static void put_head(struct buffer *b, int arity, enum control_op op)
{
    term_put_version(b);
    term_put_tuple(b, arity);
    term_put_int(b, op);
}

static void put_cookie(struct buffer *b)
{
    term_put_atom(b, "");
}

static void put_name_or_pid(struct buffer *b, const struct control_end *end)
{
    if (control_end_is_name(end))
        term_put_atom_slice(b, end->name);
    else
        term_put_pid(b, &end->pid);
}

void control_put_send(struct buffer *b, const struct pid *to)
{
    put_head(b, 3, CONTROL_SEND);
    put_cookie(b);
    term_put_pid(b, to);
    term_put_version(b);
}

void control_put_reg_send(struct buffer *b, const struct pid *from, const char *name)
{
    put_head(b, 4, CONTROL_REG_SEND);
    term_put_pid(b, from);
    put_cookie(b);
    term_put_atom(b, name);
    term_put_version(b);
}

void control_put_alias_send(struct buffer *b, const struct pid *from, struct slice alias)
{
    put_head(b, 3, CONTROL_ALIAS_SEND);
    term_put_pid(b, from);
    term_put_raw(b, alias);
    term_put_version(b);
}

void control_put_exit(struct buffer *b, const struct pid *from, const struct pid *to,
                      struct slice reason)
{
    put_head(b, 4, CONTROL_EXIT);
    term_put_pid(b, from);
    term_put_pid(b, to);
    term_put_raw(b, reason);
}

static void put_monitor(struct buffer *b, enum control_op op, const struct pid *from,
                        const struct control_end *to, struct slice reference)
{
    put_head(b, 4, op);
    term_put_pid(b, from);
    put_name_or_pid(b, to);
    term_put_raw(b, reference);
}

void control_put_monitor(struct buffer *b, const struct pid *from, const struct control_end *to,
                         struct slice reference)
{
    put_monitor(b, CONTROL_MONITOR, from, to, reference);
}

void control_put_demonitor(struct buffer *b, const struct pid *from, const struct control_end *to,
                           struct slice reference)
{
    put_monitor(b, CONTROL_DEMONITOR, from, to, reference);
}

void control_put_monitor_exit(struct buffer *b, const struct control_end *from,
                              const struct pid *to, struct slice reference)
{
    put_head(b, 5, CONTROL_MONITOR_EXIT);
    put_name_or_pid(b, from);
    term_put_pid(b, to);
    term_put_raw(b, reference);
}

void control_put_spawn_reply(struct buffer *b, struct slice request_id, const struct pid *to,
                             bool monitored, const struct pid *pid, const char *error)
{
    put_head(b, 5, CONTROL_SPAWN_REPLY);
    term_put_raw(b, request_id);
    term_put_pid(b, to);
    term_put_int(b, monitored ? 2 : 0);
    if (pid)
        term_put_pid(b, pid);
    else
        term_put_atom(b, error);
}

void control_put_unlink_ack(struct buffer *b, struct slice id, const struct pid *from,
                            const struct pid *to)
{
    put_head(b, 4, CONTROL_UNLINK_ID_ACK);
    term_put_raw(b, id);
    term_put_pid(b, from);
    term_put_pid(b, to);
}
