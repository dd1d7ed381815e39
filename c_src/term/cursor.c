/* SPDX-License-Identifier: Apache-2.0 */
#include "term/cursor.h"

#include "base/bytes.h"
#include "term/tags.h"
#include "term/term_check.h"

#include <ei.h>
#include <stdlib.h>
#include <string.h>

struct cursor cursor_of(struct slice term)
{
    return (struct cursor){(const char *)term.data, 0, (int)term.len};
}

uint8_t cursor_tag(const struct cursor *c)
{
    return c->at < c->end ? (uint8_t)c->data[c->at] : 0;
}

bool cursor_any_tuple(struct cursor *c, int *arity)
{
    uint8_t tag = cursor_tag(c);

    return (tag == TAG_SMALL_TUPLE || tag == TAG_LARGE_TUPLE) &&
           ei_decode_tuple_header(c->data, &c->at, arity) == 0;
}

bool cursor_tuple(struct cursor *c, int arity)
{
    int at = c->at;
    int found;

    if (cursor_any_tuple(c, &found) && found == arity)
        return true;
    c->at = at;
    return false;
}

bool cursor_list(struct cursor *c, int *length)
{
    uint8_t tag = cursor_tag(c);
    int at = c->at;

    if ((tag != TAG_LIST && tag != TAG_NIL) || ei_decode_list_header(c->data, &c->at, length) != 0)
        return false;
    /* A list of no elements is nil; with the other tag it would have a tail that nobody expects. */
    if (tag == TAG_NIL || *length > 0)
        return true;
    c->at = at;
    return false;
}

bool cursor_map(struct cursor *c, int *pairs)
{
    return cursor_tag(c) == TAG_MAP && ei_decode_map_header(c->data, &c->at, pairs) == 0;
}

bool cursor_atom(struct cursor *c, struct slice *name)
{
    uint8_t tag = cursor_tag(c);
    const uint8_t *p = (const uint8_t *)c->data + c->at;

    if (!tag_is_atom(tag))
        return false;
    if (tag == TAG_SMALL_ATOM_UTF8 || tag == TAG_SMALL_ATOM)
        *name = (struct slice){p + 2, p[1]};
    else
        *name = (struct slice){p + 3, get_u16(p + 1)};
    c->at = (int)(name->data + name->len - (const uint8_t *)c->data);
    return true;
}

bool cursor_bool(struct cursor *c, bool *value)
{
    if (cursor_is_atom(c, "true"))
        *value = true;
    else if (cursor_is_atom(c, "false"))
        *value = false;
    else
        return false;
    return true;
}

bool cursor_int(struct cursor *c, int64_t *value)
{
    EI_LONGLONG found;

    /* ei reads without looking where the end is. */
    if (cursor_tag(c) == 0 || ei_decode_longlong(c->data, &c->at, &found) != 0)
        return false;
    *value = found;
    return true;
}

bool cursor_binary(struct cursor *c, struct slice *bytes)
{
    const char *data;
    unsigned int offset;
    size_t bits;

    if (cursor_tag(c) != TAG_BINARY ||
        ei_decode_bitstring(c->data, &c->at, &data, &offset, &bits) != 0)
        return false;
    *bytes = (struct slice){(const uint8_t *)data, bits / 8};
    return true;
}

bool cursor_pid(struct cursor *c, struct pid *pid)
{
    uint8_t tag = cursor_tag(c);
    struct cursor inside = {c->data, c->at + 1, c->end};

    /* Not ei_decode_pid: its erlang_pid holds a kilobyte of node name, copied at every message. */
    if (tag != TAG_NEW_PID || !cursor_atom(&inside, &pid->node))
        return false;
    const uint8_t *p = (const uint8_t *)inside.data + inside.at;
    pid->id = get_u32(p);
    pid->serial = get_u32(p + 4);
    pid->creation = get_u32(p + 8);
    c->at = inside.at + 12;
    return true;
}

bool cursor_reference(struct cursor *c, struct slice *raw)
{
    return cursor_tag(c) == TAG_NEWER_REFERENCE && cursor_term(c, raw);
}

bool reference_number(struct slice reference, struct slice node, uint32_t creation,
                      uint64_t *number)
{
    struct cursor c = {(const char *)reference.data, 3, (int)reference.len};
    struct slice name;

    if (reference.len < 3 || reference.data[0] != TAG_NEWER_REFERENCE || reference.data[1] != 0 ||
        reference.data[2] != 3 || !cursor_atom(&c, &name) || !slice_equal(name, node))
        return false;
    const uint8_t *p = reference.data + c.at;
    *number =
        (uint64_t)get_u32(p + 4) | (uint64_t)get_u32(p + 8) << 18 | (uint64_t)get_u32(p + 12) << 50;
    return get_u32(p) == creation;
}

bool cursor_term(struct cursor *c, struct slice *raw)
{
    const uint8_t *p = (const uint8_t *)c->data + c->at;

    if (c->at >= c->end)
        return false;
    *raw = (struct slice){p, term_size(p)};
    c->at += (int)raw->len;
    return true;
}

struct pid *pid_copy(const struct pid *pid)
{
    struct pid *copy = malloc(sizeof *copy + pid->node.len);

    if (!copy)
        return NULL;
    *copy = *pid;
    memcpy(copy + 1, pid->node.data, pid->node.len);
    copy->node.data = (const uint8_t *)(copy + 1);
    return copy;
}

bool pid_equal(const struct pid *a, const struct pid *b)
{
    return a->id == b->id && a->serial == b->serial && a->creation == b->creation &&
           slice_equal(a->node, b->node);
}
