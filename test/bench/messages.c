/* SPDX-License-Identifier: Apache-2.0 */
#include "messages.h"

#include "usage.h"

#include "base/bytes.h"
#include "distribution/control.h"
#include "term/tags.h"
#include "term/term_write.h"

#include <string.h>

#define SYNC_SLOT   0x3ffffu /* the highest that fits: no call of a benchmark has it */
#define PROFILE_TTL 86400    /* s */

/* --- peers --- */

void peer_id(uint8_t id[static PEER_ID_LEN], uint32_t peer)
{
    static const char base[PEER_ID_LEN + 1] = "benchmark-peer-number-0000000000";
    static const char digits[] = "0123456789abcdef";

    memcpy(id, base, PEER_ID_LEN);
    for (int i = 0; i < 8; i++)
        id[PEER_ID_LEN - 1 - i] = (uint8_t)digits[peer >> 4 * i & 15];
}

static void put_peer_id(struct buffer *b, uint32_t peer)
{
    uint8_t id[PEER_ID_LEN];

    peer_id(id, peer);
    term_put_binary(b, (struct slice){id, sizeof id});
}

static void put_key(struct buffer *b, const char *key, const char *value)
{
    term_put_atom(b, key);
    term_put_atom(b, value);
}

static void put_profile(struct buffer *b, enum nat_mix mix, uint32_t peer)
{
    static const char *const policies[] = {"ei", "hd", "pd"};
    static const char *const allocations[] = {"pp", "pc", "rd"};
    unsigned mapping = mix == NAT_MIX_ALL ? peer % 3 : mix == NAT_MIX_PUNCH;
    unsigned filtering = mix == NAT_MIX_ALL ? peer / 3 % 3 : mapping;
    unsigned allocation = mix == NAT_MIX_ALL ? peer / 9 % 3 : 0;
    bool open = mapping == 0 && filtering == 0;
    bool symmetric = mapping == 2 && allocation == 2;

    term_put_map(b, 10);
    term_put_atom(b, "node_id");
    put_peer_id(b, peer);
    put_key(b, "mapping_policy", policies[mapping]);
    put_key(b, "filtering_policy", policies[filtering]);
    put_key(b, "allocation_policy", allocations[allocation]);
    put_key(b, "can_receive_unsolicited", open ? "true" : "false");
    put_key(b, "requires_relay", symmetric ? "true" : "false");
    put_key(b, "relay_capable", "false");
    term_put_atom(b, "reflexive_address");
    term_put_tuple(b, 2);
    term_put_tuple(b, 4);
    term_put_int(b, 198);
    term_put_int(b, 18);
    term_put_int(b, peer >> 8 & 0xff);
    term_put_int(b, peer & 0xff);
    term_put_int(b, 1024 + peer % 60000);
    term_put_atom(b, "detected_at");
    term_put_int(b, clock_unix_ns() / 1000000000);
    term_put_atom(b, "ttl_seconds");
    term_put_int(b, PROFILE_TTL);
}

static struct buffer *open_cast(struct client *c, const char *name)
{
    struct pid from = client_pid(c, 1);
    struct buffer *b = client_open_frame(c);

    control_put_reg_send(b, &from, name);
    term_put_tuple(b, 2);
    term_put_atom(b, "$gen_cast");
    return b;
}

void profiles_put(struct client *c, const char *cache, enum nat_mix mix, uint32_t count)
{
    struct pid from = client_pid(c, 1);
    struct cursor reply;

    if (mix == NAT_MIX_NONE || mix == NAT_MIX_ELSEWHERE || count == 0)
        return;
    for (uint32_t peer = 0; peer < count; peer++) {
        struct buffer *b = open_cast(c, cache);
        term_put_tuple(b, 4);
        term_put_atom(b, "put");
        put_peer_id(b, peer);
        put_profile(b, mix, peer);
        term_put_int(b, PROFILE_TTL);
        client_close_frame(c);
    }
    call_and_wait(c, &from, cache, 2, "get", count - 1, &reply);
}

/* --- requests --- */

/* A reference of this node, of which the words are patched later. */
static void put_reference(struct call_template *t, const struct client *c)
{
    term_put_reference(&t->bytes, slice_of(c->name), c->creation, 0);
    t->reference_at[t->references++] = buffer_size(&t->bytes) - 12;
}

static size_t open_template_frame(struct call_template *t)
{
    static const uint8_t head[5] = {0, 0, 0, 0, CONTROL_PASS_THROUGH};
    size_t start = buffer_size(&t->bytes);

    buffer_append(&t->bytes, head, sizeof head);
    return start;
}

static void close_template_frame(struct call_template *t, size_t start)
{
    put_u32(buffer_data(&t->bytes) + start, (uint32_t)(buffer_size(&t->bytes) - start - 4));
}

static void put_monitor(struct call_template *t, const struct client *c, const struct pid *from,
                        enum control_op op)
{
    size_t start = open_template_frame(t);

    term_put_version(&t->bytes);
    term_put_tuple(&t->bytes, 4);
    term_put_int(&t->bytes, op);
    term_put_pid(&t->bytes, from);
    term_put_atom(&t->bytes, COORDINATOR);
    put_reference(t, c);
    close_template_frame(t, start);
}

static void put_request(struct call_template *t, const struct client *c, const struct pid *from,
                        enum call_form form, bool notify)
{
    struct buffer *b = &t->bytes;
    size_t start = open_template_frame(t);

    control_put_reg_send(b, from, COORDINATOR);
    term_put_tuple(b, 3);
    term_put_atom(b, "$gen_call");
    term_put_tuple(b, 2);
    term_put_pid(b, from);
    if (form == CALL_MONITORED) {
        term_put_list(b, 1);
        term_put_atom(b, "alias");
    }
    put_reference(t, c);
    term_put_tuple(b, 4);
    term_put_atom(b, "request_connection");
    put_peer_id(b, 0);
    t->initiator_at = buffer_size(b) - PEER_ID_LEN;
    put_peer_id(b, 0);
    t->target_at = buffer_size(b) - PEER_ID_LEN;
    term_put_map(b, notify);
    if (notify) {
        term_put_atom(b, "notify");
        term_put_pid(b, from);
    }
    close_template_frame(t, start);
}

void call_template_init(struct call_template *t, const struct client *c, const struct pid *from,
                        enum call_form form, bool notify)
{
    memset(t, 0, sizeof *t);
    /* gen_server:call ends its monitor when it has the reply: here, with the next call. */
    if (form == CALL_MONITORED)
        put_monitor(t, c, from, CONTROL_DEMONITOR);
    if (form == CALL_MONITORED)
        put_monitor(t, c, from, CONTROL_MONITOR);
    put_request(t, c, from, form, notify);
    if (t->bytes.overflow)
        client_fail("out of memory");
}

void call_template_free(struct call_template *t)
{
    buffer_free(&t->bytes);
}

void call_send(struct call_template *t, struct client *c, uint32_t slot, uint32_t turn,
               uint32_t initiator, uint32_t target)
{
    uint8_t *bytes = buffer_data(&t->bytes);

    for (int i = 0; i < t->references; i++) {
        /* The first of three, where there are three, ends the monitor of the turn before. */
        bool previous = t->references == 3 && i == 0;
        put_u32(bytes + t->reference_at[i], slot);
        put_u32(bytes + t->reference_at[i] + 4, turn - previous);
    }
    peer_id(bytes + t->initiator_at, initiator);
    peer_id(bytes + t->target_at, target);
    client_put_frame(c, buffer_slice(&t->bytes));
}

void report_send(struct client *c, struct slice session_id, uint32_t peer)
{
    struct buffer *b = open_cast(c, COORDINATOR);

    term_put_tuple(b, 4);
    term_put_atom(b, "report_result");
    term_put_binary(b, session_id);
    put_peer_id(b, peer);
    term_put_atom(b, "success");
    client_close_frame(c);
}

/* --- what comes back --- */

/* Ref or [alias | Ref]. */
static bool read_tag(struct cursor *c, uint32_t *slot, uint32_t *turn)
{
    struct slice node;
    int length;

    if (cursor_tag(c) == TAG_LIST && (!cursor_list(c, &length) || !cursor_is_atom(c, "alias")))
        return false;
    if (cursor_tag(c) != TAG_NEWER_REFERENCE)
        return false;
    int words = (uint8_t)c->data[c->at + 2];
    c->at += 3;
    if (!cursor_atom(c, &node))
        return false;
    const uint8_t *p = (const uint8_t *)c->data + c->at;
    *slot = get_u32(p + 4);
    *turn = get_u32(p + 8);
    c->at += 4 + 4 * words;
    return true;
}

bool incoming_read(struct incoming *m, struct slice frame)
{
    struct cursor c = {(const char *)frame.data, 2, (int)frame.len};
    struct slice cookie;
    int64_t op;
    int arity;

    memset(m, 0, sizeof *m);
    if (frame.len < 3 || !cursor_any_tuple(&c, &arity) || !cursor_int(&c, &op))
        return false;
    if (op == CONTROL_SEND) {
        if (!cursor_atom(&c, &cookie) || !cursor_pid(&c, &m->to))
            return false;
    } else if (op == CONTROL_ALIAS_SEND) {
        struct pid from;
        if (!cursor_pid(&c, &from) || !read_tag(&c, &m->slot, &m->turn))
            return false;
    } else {
        return false;
    }
    c.at++; /* the version byte of the message */
    m->content = c;
    if (cursor_tuple(&c, 2) && read_tag(&c, &m->slot, &m->turn)) {
        m->is_reply = true;
        m->content = c;
    }
    return true;
}

bool incoming_session(struct cursor content, struct slice *strategy, struct slice *session_id)
{
    return cursor_tuple(&content, 3) && cursor_is_atom(&content, "ok") &&
           cursor_atom(&content, strategy) && cursor_binary(&content, session_id);
}

bool incoming_find(struct cursor *c, const char *key)
{
    struct cursor at = *c;
    struct slice skipped;
    int pairs;

    if (!cursor_map(&at, &pairs))
        return false;
    for (int i = 0; i < pairs; i++) {
        if (cursor_is_atom(&at, key)) {
            *c = at;
            return true;
        }
        if (!cursor_term(&at, &skipped) || !cursor_term(&at, &skipped))
            return false;
    }
    return false;
}

static uint32_t last_call;

void call_start(struct client *c, const struct pid *from, const char *name, int arity,
                const char *request, uint32_t peer)
{
    struct buffer *b = client_open_frame(c);

    last_call++;
    control_put_reg_send(b, from, name);
    term_put_tuple(b, 3);
    term_put_atom(b, "$gen_call");
    term_put_tuple(b, 2);
    term_put_pid(b, from);
    term_put_reference(b, slice_of(c->name), c->creation, (uint64_t)last_call << 18 | SYNC_SLOT);
    if (arity > 0)
        term_put_tuple(b, arity);
    term_put_atom(b, request);
    if (arity > 1)
        put_peer_id(b, peer);
    client_close_frame(c);
}

size_t call_and_wait(struct client *c, const struct pid *from, const char *name, int arity,
                     const char *request, uint32_t peer, struct cursor *reply)
{
    struct incoming m;
    struct slice frame;

    call_start(c, from, name, arity, request, peer);
    for (;;) {
        client_flush(c);
        clients_wait(c, 1, -1);
        client_read(c);
        while (client_next_frame(c, &frame)) {
            if (incoming_read(&m, frame) && m.is_reply && m.slot == SYNC_SLOT &&
                m.turn == last_call) {
                *reply = m.content;
                return frame.len;
            }
        }
    }
}
