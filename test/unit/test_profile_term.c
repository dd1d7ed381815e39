/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/profile_term.h"
#include "term/tags.h"
#include "term/term_check.h"
#include "term/term_write.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct buffer map;
static struct nat_profile *profile;
static struct nat_profile_fields fields;

static void set_up(void)
{
    buffer_init(&map);
    profile = NULL;
}

static void tear_down(void)
{
    nat_profile_unref(profile);
    buffer_free(&map);
}

static void put_binary(const char *text)
{
    term_put_binary(&map, slice_of(text));
}

static void read_map(void)
{
    nat_profile_unref(profile);
    profile = NULL;
    ck_assert(!map.overflow);
    ck_assert_int_eq(term_check(buffer_data(&map), buffer_size(&map)), (ssize_t)buffer_size(&map));
    ck_assert_int_eq(profile_from_term(&profile, buffer_slice(&map)), 0);
    nat_profile_get(profile, &fields);
}

static bool text_is(struct nat_bytes bytes, const char *text)
{
    return slice_is(slice_of_nat(bytes), text);
}

/* Puts `key` as an atom, or as a binary as in the DHT. */
static void put_key(bool is_binary, const char *key)
{
    if (is_binary)
        put_binary(key);
    else
        term_put_atom(&map, key);
}

static void put_policies(bool binary_keys, bool binary_values)
{
    static const char *const policies[][2] = {
        {"mapping_policy", "ei"}, {"filtering_policy", "pd"}, {"allocation_policy", "pc"}};

    for (size_t i = 0; i < 3; i++) {
        put_key(binary_keys, policies[i][0]);
        put_key(binary_values, policies[i][1]);
    }
}

START_TEST(test_all_keys)
{
    term_put_map(&map, 12);
    put_policies(_i & 1, _i & 2);
    put_key(_i & 1, "node_id");
    put_binary("peer");
    put_key(_i & 1, "can_receive_unsolicited");
    term_put_atom(&map, "true");
    put_key(_i & 1, "requires_relay");
    term_put_atom(&map, "true");
    put_key(_i & 1, "relay_capable");
    term_put_atom(&map, "true");
    put_key(_i & 1, "detected_at");
    term_put_int(&map, 1700000000);
    put_key(_i & 1, "ttl_seconds");
    term_put_int(&map, 300);
    put_key(_i & 1, "port_delta");
    term_put_int(&map, -7);
    put_key(_i & 1, "endpoint");
    put_binary("example.org:4433");
    put_key(_i & 1, "reflexive_address");
    term_put_tuple(&map, 2);
    term_put_tuple(&map, 4);
    for (int i = 1; i <= 4; i++)
        term_put_int(&map, i);
    term_put_int(&map, 65535);
    read_map();
    ck_assert_int_eq(fields.mapping, NAT_POLICY_EI);
    ck_assert_int_eq(fields.filtering, NAT_POLICY_PD);
    ck_assert_int_eq(fields.allocation, NAT_POLICY_PC);
    ck_assert(text_is(fields.node_id, "peer"));
    ck_assert(fields.can_receive_unsolicited && fields.requires_relay && fields.relay_capable);
    ck_assert_int_eq(fields.detected_at, 1700000000);
    ck_assert_int_eq(fields.ttl_seconds, 300);
    ck_assert(fields.has_port_delta);
    ck_assert_int_eq(fields.port_delta, -7);
    ck_assert(text_is(fields.endpoint, "example.org:4433"));
    ck_assert(text_is(fields.reflexive_ip, "1.2.3.4"));
    ck_assert_uint_eq(fields.reflexive_port, 65535);
    /* It is written as it was read. */
    struct buffer out;
    buffer_init(&out);
    profile_put(&out, profile);
    ck_assert(slice_equal(buffer_slice(&out), buffer_slice(&map)));
    buffer_free(&out);
}
END_TEST

START_TEST(test_empty)
{
    struct buffer out;

    term_put_map(&map, 0);
    read_map();
    ck_assert_int_eq(fields.mapping, NAT_POLICY_UNKNOWN);
    ck_assert_int_eq(fields.filtering, NAT_POLICY_UNKNOWN);
    ck_assert_int_eq(fields.allocation, NAT_POLICY_UNKNOWN);
    ck_assert_uint_eq(fields.node_id.len, 0);
    ck_assert_uint_eq(fields.endpoint.len, 0);
    ck_assert(!fields.has_port_delta && !fields.requires_relay);
    buffer_init(&out);
    profile_put(&out, NULL);
    struct cursor c = cursor_of(buffer_slice(&out));
    ck_assert(cursor_is_atom(&c, "undefined"));
    buffer_free(&out);
}
END_TEST

/* An atom outside of the type is invalid, an unknown text is unknown. */
START_TEST(test_odd_policies)
{
    term_put_map(&map, 3);
    term_put_atom(&map, "mapping_policy");
    term_put_atom(&map, "pp");
    term_put_atom(&map, "filtering_policy");
    put_binary("no such policy");
    term_put_atom(&map, "allocation_policy");
    term_put_int(&map, 1);
    read_map();
    ck_assert_int_eq(fields.mapping, NAT_POLICY_INVALID);
    ck_assert_int_eq(fields.filtering, NAT_POLICY_UNKNOWN);
    ck_assert_int_eq(fields.allocation, NAT_POLICY_INVALID);
}
END_TEST

/* Values of other types, keys of any type: counted as absent, kept in the term. */
START_TEST(test_wrong_types)
{
    static const char *const keys[] = {"node_id",          "can_receive_unsolicited",
                                       "requires_relay",   "relay_capable",
                                       "detected_at",      "ttl_seconds",
                                       "port_delta",       "endpoint",
                                       "reflexive_address"};

    term_put_map(&map, 9 + 3);
    for (size_t i = 0; i < 9; i++) {
        term_put_atom(&map, keys[i]);
        term_put_atoms(&map, 2, "not", "this");
    }
    term_put_int(&map, 1);
    term_put_int(&map, 2);
    term_put_atoms(&map, 1, "tuple");
    term_put_nil(&map);
    term_put_float(&map, 1.5);
    term_put_map(&map, 0);
    read_map();
    ck_assert_uint_eq(fields.node_id.len, 0);
    ck_assert_uint_eq(fields.endpoint.len, 0);
    ck_assert_uint_eq(fields.reflexive_ip.len, 0);
    ck_assert(!fields.can_receive_unsolicited && !fields.requires_relay && !fields.relay_capable);
    ck_assert(!fields.has_port_delta);
    ck_assert_int_eq(fields.detected_at, 0);
    ck_assert_int_eq(fields.ttl_seconds, 0);
}
END_TEST

static void put_address(int arity, int64_t word, int64_t port)
{
    buffer_reset(&map, SIZE_MAX);
    term_put_map(&map, 1);
    term_put_atom(&map, "reflexive_address");
    term_put_tuple(&map, 2);
    term_put_tuple(&map, arity);
    for (int i = 0; i < arity; i++)
        term_put_int(&map, word);
    term_put_int(&map, port);
    read_map();
}

START_TEST(test_addresses)
{
    put_address(8, 0xffff, 1);
    ck_assert(text_is(fields.reflexive_ip, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    ck_assert_uint_eq(fields.reflexive_port, 1);
    put_address(4, 256, 1);
    ck_assert_uint_eq(fields.reflexive_ip.len, 0);
    put_address(8, 65536, 1);
    ck_assert_uint_eq(fields.reflexive_ip.len, 0);
    put_address(4, -1, 1);
    ck_assert_uint_eq(fields.reflexive_ip.len, 0);
    put_address(5, 1, 1);
    ck_assert_uint_eq(fields.reflexive_ip.len, 0);
    put_address(4, 1, 65536);
    ck_assert(text_is(fields.reflexive_ip, "1.1.1.1"));
    ck_assert_uint_eq(fields.reflexive_port, 0);
    put_address(4, 1, -1);
    ck_assert_uint_eq(fields.reflexive_port, 0);
}
END_TEST

START_TEST(test_no_profile)
{
    static const char *const terms[] = {"j", "a\1", "h\1j", "w\2ok"};

    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(profile_from_term(&profile, slice_of(terms[i])), -EINVAL);
    ck_assert_ptr_null(profile);
}
END_TEST

START_TEST(test_size)
{
    uint8_t *bytes = calloc(1, PROFILE_TERM_MAX);
    const size_t around = 5 + 2 + 5 + 5; /* a map's, an atom's and a binary's heads, `label` */

    ck_assert_ptr_nonnull(bytes);
    for (int more = 0; more < 2; more++) {
        buffer_reset(&map, SIZE_MAX);
        term_put_map(&map, 1);
        term_put_atom(&map, "label");
        term_put_binary(&map, (struct slice){bytes, PROFILE_TERM_MAX - around + (size_t)more});
        ck_assert_uint_eq(buffer_size(&map), PROFILE_TERM_MAX + (size_t)more);
        ck_assert_int_eq(profile_from_term(&profile, buffer_slice(&map)), more ? -EMSGSIZE : 0);
    }
    free(bytes);
}
END_TEST

/* The dates are set, whatever there was; everything else stays. */
START_TEST(test_dated)
{
    struct buffer out;

    term_put_map(&map, 4);
    term_put_atom(&map, "ttl_seconds");
    term_put_int(&map, 1);
    put_binary("ttl_seconds");
    term_put_int(&map, 2);
    term_put_atom(&map, "detected_at");
    term_put_atom(&map, "never");
    term_put_atoms(&map, 1, "other");
    term_put_int(&map, 3);
    buffer_init(&out);
    profile_put_dated(&out, buffer_slice(&map), 77, -5);
    ck_assert_int_eq(term_check(buffer_data(&out), buffer_size(&out)), (ssize_t)buffer_size(&out));
    struct cursor c = cursor_of(buffer_slice(&out));
    struct slice key;
    int64_t value;
    int pairs;
    ck_assert(cursor_map(&c, &pairs));
    ck_assert_int_eq(pairs, 4);
    ck_assert(cursor_binary(&c, &key) && cursor_int(&c, &value) && value == 2);
    ck_assert(cursor_tuple(&c, 1) && cursor_is_atom(&c, "other"));
    ck_assert(cursor_int(&c, &value) && value == 3);
    ck_assert(cursor_is_atom(&c, "ttl_seconds") && cursor_int(&c, &value) && value == 77);
    ck_assert(cursor_is_atom(&c, "detected_at") && cursor_int(&c, &value) && value == -5);
    ck_assert_int_eq(c.at, c.end);
    buffer_free(&out);
}
END_TEST

Suite *suite_profile_term(void);
Suite *suite_profile_term(void)
{
    Suite *s = suite_create("profile_term");
    TCase *tc = tcase_create("all");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, test_all_keys, 0, 4);
    tcase_add_test(tc, test_empty);
    tcase_add_test(tc, test_odd_policies);
    tcase_add_test(tc, test_wrong_types);
    tcase_add_test(tc, test_addresses);
    tcase_add_test(tc, test_no_profile);
    tcase_add_test(tc, test_size);
    tcase_add_test(tc, test_dated);
    suite_add_tcase(s, tc);
    return s;
}
