/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/profile_term.h"

#include "term/tags.h"
#include "term/term_write.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* The values of one policy's type. */
struct policy_name {
    const char *name;
    enum nat_policy policy;
};

static const struct policy_name mapping_names[] = {
    {"ei", NAT_POLICY_EI}, {"hd", NAT_POLICY_HD}, {"pd", NAT_POLICY_PD}, {NULL, 0}};
static const struct policy_name allocation_names[] = {
    {"pp", NAT_POLICY_PP}, {"pc", NAT_POLICY_PC}, {"rd", NAT_POLICY_RD}, {NULL, 0}};

static enum nat_policy read_policy(struct cursor *c, const struct policy_name *names)
{
    struct slice value;
    bool is_atom = cursor_atom(c, &value);

    if (!is_atom && !cursor_binary(c, &value))
        return NAT_POLICY_INVALID;
    for (; names->name; names++)
        if (slice_is(value, names->name))
            return names->policy;
    return is_atom ? NAT_POLICY_INVALID : NAT_POLICY_UNKNOWN;
}

/* {{A,B,C,D}, Port} or the same with eight words: `text` gets the address. */
static bool read_address(struct cursor *c, char text[static INET6_ADDRSTRLEN], uint32_t *port)
{
    uint8_t bytes[16];
    int arity;
    int64_t value;

    if (!cursor_tuple(c, 2) || !cursor_any_tuple(c, &arity) || (arity != 4 && arity != 8))
        return false;
    for (int i = 0; i < arity; i++) {
        int64_t limit = arity == 4 ? 0xff : 0xffff;
        if (!cursor_int(c, &value) || value < 0 || value > limit)
            return false;
        if (arity == 4) {
            bytes[i] = (uint8_t)value;
        } else {
            bytes[2 * (size_t)i] = (uint8_t)(value >> 8);
            bytes[2 * (size_t)i + 1] = (uint8_t)value;
        }
    }
    if (!inet_ntop(arity == 4 ? AF_INET : AF_INET6, bytes, text, INET6_ADDRSTRLEN))
        return false;
    *port = cursor_int(c, &value) && value > 0 && value <= UINT16_MAX ? (uint32_t)value : 0;
    return true;
}

static bool read_flag(struct cursor *c)
{
    bool value;

    return cursor_bool(c, &value) && value;
}

static int64_t read_integer(struct cursor *c)
{
    int64_t value;

    return cursor_int(c, &value) ? value : 0;
}

static void read_value(struct nat_profile_fields *f, struct slice key, struct cursor c,
                       char address[static INET6_ADDRSTRLEN])
{
    struct slice bytes;

    if (slice_is(key, "mapping_policy")) {
        f->mapping = read_policy(&c, mapping_names);
    } else if (slice_is(key, "filtering_policy")) {
        f->filtering = read_policy(&c, mapping_names);
    } else if (slice_is(key, "allocation_policy")) {
        f->allocation = read_policy(&c, allocation_names);
    } else if (slice_is(key, "can_receive_unsolicited")) {
        f->can_receive_unsolicited = read_flag(&c);
    } else if (slice_is(key, "requires_relay")) {
        f->requires_relay = read_flag(&c);
    } else if (slice_is(key, "relay_capable")) {
        f->relay_capable = read_flag(&c);
    } else if (slice_is(key, "detected_at")) {
        f->detected_at = read_integer(&c);
    } else if (slice_is(key, "ttl_seconds")) {
        f->ttl_seconds = read_integer(&c);
    } else if (slice_is(key, "port_delta")) {
        f->has_port_delta = cursor_int(&c, &f->port_delta);
    } else if (slice_is(key, "node_id")) {
        if (cursor_binary(&c, &bytes))
            f->node_id = nat_bytes_of(bytes);
    } else if (slice_is(key, "endpoint")) {
        if (cursor_binary(&c, &bytes))
            f->endpoint = nat_bytes_of(bytes);
    } else if (slice_is(key, "reflexive_address")) {
        if (read_address(&c, address, &f->reflexive_port))
            f->reflexive_ip = (struct nat_bytes){address, strlen(address)};
    }
}

int profile_from_term(struct nat_profile **out, struct slice term)
{
    struct nat_profile_fields fields = {.source = nat_bytes_of(term)};
    struct cursor c = cursor_of(term);
    char address[INET6_ADDRSTRLEN];
    int pairs;

    if (!cursor_map(&c, &pairs))
        return -EINVAL;
    if (term.len > PROFILE_TERM_MAX)
        return -EMSGSIZE;
    for (int i = 0; i < pairs; i++) {
        struct slice key, value;
        bool has_name = cursor_atom(&c, &key) || cursor_binary(&c, &key);
        if (!has_name && !cursor_term(&c, &key))
            return -EINVAL;
        if (!cursor_term(&c, &value))
            return -EINVAL;
        if (has_name)
            read_value(&fields, key, cursor_of(value), address);
    }
    return nat_profile_create(out, &fields);
}

/* --- from the DHT --- */

static const char *const known_keys[] = {
    "node_id",           "mapping_policy",    "filtering_policy",
    "allocation_policy", "reflexive_address", "can_receive_unsolicited",
    "requires_relay",    "relay_capable",     "detected_at",
    "ttl_seconds",       "port_delta",        "endpoint",
    "latitude",          "longitude",         "location_label",
};
#define KNOWN_KEYS (sizeof known_keys / sizeof known_keys[0])

static size_t known_index(struct slice key)
{
    size_t i = 0;

    while (i < KNOWN_KEYS && !slice_is(key, known_keys[i]))
        i++;
    return i;
}

/* Which of the known keys the map has as atoms already, a bit for each. */
static uint32_t known_atoms(struct cursor c, int pairs)
{
    struct slice key, value;
    uint32_t atoms = 0;

    for (int i = 0; i < pairs; i++) {
        bool is_atom = cursor_atom(&c, &key);
        if ((!is_atom && !cursor_term(&c, &key)) || !cursor_term(&c, &value))
            break;
        atoms |= is_atom ? UINT32_C(1) << known_index(key) : 0;
    }
    return atoms;
}

static void put_value(struct buffer *b, struct slice key, struct slice value)
{
    struct cursor c = cursor_of(value);
    struct slice name;
    const struct policy_name *names =
        slice_is(key, "allocation_policy")                                     ? allocation_names
        : slice_is(key, "mapping_policy") || slice_is(key, "filtering_policy") ? mapping_names
                                                                               : NULL;

    if (names && cursor_binary(&c, &name))
        for (; names->name; names++)
            if (slice_is(name, names->name)) {
                term_put_atom(b, names->name);
                return;
            }
    term_put_raw(b, value);
}

static void put_known_as_atoms(struct buffer *b, struct slice map)
{
    struct cursor c = cursor_of(map);
    int pairs = 0;

    if (!cursor_map(&c, &pairs))
        return;
    uint32_t atoms = known_atoms(c, pairs);
    term_put_map(b, pairs);
    for (int i = 0; i < pairs; i++) {
        struct slice raw, value, key = {0};
        struct cursor name = c;
        bool is_binary = cursor_binary(&name, &key);
        if ((!is_binary && !cursor_atom(&name, &key)) || known_index(key) == KNOWN_KEYS)
            key = (struct slice){0};
        if (!cursor_term(&c, &raw) || !cursor_term(&c, &value))
            return;
        /* One that is there as an atom too stays a binary: no map has a key twice. */
        if (key.len > 0 && is_binary && !(atoms & UINT32_C(1) << known_index(key)))
            term_put_atom_slice(b, key);
        else
            term_put_raw(b, raw);
        put_value(b, key, value);
    }
}

int profile_from_dht(struct nat_profile **out, struct slice term)
{
    struct buffer b;

    if (term.len > PROFILE_TERM_MAX)
        return -EMSGSIZE;
    buffer_init(&b);
    put_known_as_atoms(&b, term);
    int error = b.overflow ? -ENOMEM : profile_from_term(out, buffer_slice(&b));
    buffer_free(&b);
    return error;
}

static bool is_date_key(struct slice key)
{
    struct cursor c = cursor_of(key);

    return cursor_is_atom(&c, "ttl_seconds") || cursor_is_atom(&c, "detected_at");
}

void profile_put_dated(struct buffer *b, struct slice map, int64_t ttl_seconds, int64_t detected_at)
{
    struct cursor c = cursor_of(map);
    struct slice key, value;
    struct term_map dated;
    int pairs = 0;

    if (!cursor_map(&c, &pairs))
        pairs = 0;
    term_open_map(&dated, b);
    for (int i = 0; i < pairs && cursor_term(&c, &key) && cursor_term(&c, &value); i++) {
        if (is_date_key(key))
            continue;
        term_count_pair(&dated);
        term_put_raw(b, key);
        term_put_raw(b, value);
    }
    term_put_key(&dated, "ttl_seconds");
    term_put_int(b, ttl_seconds);
    term_put_key(&dated, "detected_at");
    term_put_int(b, detected_at);
    term_close_map(&dated);
}

void profile_put(struct buffer *b, const struct nat_profile *profile)
{
    if (profile)
        term_put_raw(b, slice_of_nat(nat_profile_source(profile)));
    else
        term_put_atom(b, "undefined");
}
