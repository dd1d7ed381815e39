/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles, endpoints as text, and what a peer is told about the other one. */
#include "macula_nat.h"
#include "suites.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct nat_bytes text(const char *string)
{
    return (struct nat_bytes){string, strlen(string)};
}

static void assert_text(struct nat_bytes bytes, const char *expected)
{
    ck_assert_uint_eq(bytes.len, strlen(expected));
    ck_assert_mem_eq(bytes.data, expected, bytes.len);
}

static struct nat_profile *make(struct nat_profile_fields fields)
{
    struct nat_profile *profile = NULL;

    ck_assert_int_eq(nat_profile_create(&profile, &fields), 0);
    return profile;
}

START_TEST(keeps_every_field)
{
    /* The endpoint is a part of the source, the others are not; an id may hold any byte. */
    const char source[] = "#{endpoint=host.example:4433, more=\0 1}";
    struct nat_profile_fields in = {
        .node_id = {"\0\xff"
                    "id",
                    4},
        .mapping = NAT_POLICY_HD,
        .filtering = NAT_POLICY_UNKNOWN,
        .allocation = NAT_POLICY_INVALID,
        .relay_capable = true,
        .has_port_delta = true,
        .port_delta = INT64_MIN,
        .reflexive_ip = text("2001:db8::1"),
        .reflexive_port = 65535,
        .endpoint = {source + 11, 17},
        .detected_at = 1700000000,
        .ttl_seconds = 300,
        .source = {source, sizeof source},
    };
    struct nat_profile *profile = make(in), *second = nat_profile_ref(profile);
    struct nat_profile_fields out;

    nat_profile_unref(profile);
    nat_profile_get(second, &out);
    ck_assert_uint_eq(out.node_id.len, 4);
    ck_assert_mem_eq(out.node_id.data, in.node_id.data, 4);
    ck_assert_int_eq(out.mapping, NAT_POLICY_HD);
    ck_assert_int_eq(out.filtering, NAT_POLICY_UNKNOWN);
    ck_assert_int_eq(out.allocation, NAT_POLICY_INVALID);
    ck_assert(!out.can_receive_unsolicited && !out.requires_relay && out.relay_capable);
    ck_assert(out.has_port_delta && out.port_delta == INT64_MIN);
    assert_text(out.reflexive_ip, "2001:db8::1");
    ck_assert_uint_eq(out.reflexive_port, 65535);
    assert_text(out.endpoint, "host.example:4433");
    ck_assert_int_eq(out.detected_at, 1700000000);
    ck_assert_int_eq(out.ttl_seconds, 300);
    ck_assert_uint_eq(nat_profile_source(second).len, sizeof source);
    ck_assert_mem_eq(nat_profile_source(second).data, source, sizeof source);
    nat_profile_unref(second);
}
END_TEST

START_TEST(refuses_what_is_too_large)
{
    struct nat_profile *profile = NULL;
    char long_ip[65] = "1";
    struct nat_profile_fields fields = {.reflexive_ip = {long_ip, sizeof long_ip}};

    ck_assert_int_eq(nat_profile_create(&profile, &fields), -EINVAL);
    fields = (struct nat_profile_fields){.source = {"x", (size_t)NAT_PROFILE_MAX + 1}};
    ck_assert_int_eq(nat_profile_create(&profile, &fields), -EMSGSIZE);
    fields = (struct nat_profile_fields){.node_id = {"x", SIZE_MAX}};
    ck_assert_int_eq(nat_profile_create(&profile, &fields), -EMSGSIZE);
    ck_assert_ptr_null(profile);
}
END_TEST

static const struct {
    const char *text, *host;
    int port;
} endpoints[] = {
    {"host:1", "host", 1},
    {"192.0.2.1:65535", "192.0.2.1", 65535},
    {"https://h.example:4433", "h.example", 4433},
    {"https://h.example:4433/", "h.example", 4433},
    {"https://h.example/path:9", "h.example", 0},
    {"https://[2001:db8::1]:4433/", "2001:db8::1", 4433},
    {"[2001:db8::1]:4433", "2001:db8::1", 4433},
    {"[fe80::1%eth0]", "fe80::1%eth0", 0},
    {"2001:db8::1", "2001:db8::1", 0},
    {"host", "host", 0},
    {"host:", "host", 0},
    {"host:0", "host", 0},
    {"host:65536", "host", 0},
    {"host:99999999999999999999", "host", 0},
    {"host:-1", "host", 0},
    {"host: 1", "host", 0},
    {"host:007", "host", 7},
    {"https://host?q", "host", 0},
    /* none of these has a usable host */
    {"", NULL, 0},
    {":4433", NULL, 0},
    {"https://", NULL, 0},
    {"https://:1", NULL, 0},
    {"[]:1", NULL, 0},
    {"[::1", NULL, 0},
    {"[::1]4433", NULL, 0},
    {"user@host:1", NULL, 0},
    {"a b:1", NULL, 0},
    {"caf\xc3\xa9:1", NULL, 0},
    {"a\nb", NULL, 0},
};

START_TEST(splits_endpoints)
{
    const char *given = endpoints[_i].text;
    struct nat_bytes host = {NULL, 0};
    uint16_t port = 0;
    /* A copy of just these bytes, so that the sanitizer sees a read past them. */
    size_t len = strlen(given);
    char *copy = malloc(len + (len == 0));
    int status;

    memcpy(copy, given, len);
    status = nat_endpoint_split((struct nat_bytes){copy, len}, &host, &port);
    if (endpoints[_i].host == NULL) {
        ck_assert_int_eq(status, -EINVAL);
    } else {
        ck_assert_int_eq(status, 0);
        assert_text(host, endpoints[_i].host);
        ck_assert_int_eq(port, endpoints[_i].port);
    }
    free(copy);
}
END_TEST

/* All texts of up to six characters of those that mean something: nothing is read outside, hosts
 * lie inside. */
START_TEST(splits_anything)
{
    static const char alphabet[] = "a1:/[]";
    unsigned accepted = 0;

    for (size_t len = 0; len <= 6; len++) {
        char *copy = malloc(len + (len == 0));
        unsigned total = 1;

        for (size_t i = 0; i < len; i++)
            total *= 6;
        for (unsigned n = 0; n < total; n++) {
            struct nat_bytes host;
            uint16_t port;

            for (unsigned i = 0, rest = n; i < len; i++, rest /= 6)
                copy[i] = alphabet[rest % 6];
            if (nat_endpoint_split((struct nat_bytes){copy, len}, &host, &port) < 0)
                continue;
            accepted++;
            ck_assert_uint_ge(host.len, 1);
            ck_assert((const char *)host.data >= copy);
            ck_assert((const char *)host.data + host.len <= copy + len);
        }
        free(copy);
    }
    ck_assert_uint_gt(accepted, 0);
}
END_TEST

START_TEST(limits_the_length_of_a_host)
{
    char name[NAT_HOST_MAX + 1];
    struct nat_bytes host;
    uint16_t port;

    memset(name, 'a', sizeof name);
    ck_assert_int_eq(nat_endpoint_split((struct nat_bytes){name, NAT_HOST_MAX}, &host, &port), 0);
    ck_assert_int_eq(nat_endpoint_split((struct nat_bytes){name, NAT_HOST_MAX + 1}, &host, &port),
                     -EINVAL);
}
END_TEST

START_TEST(formats_endpoints)
{
    char out[NAT_ENDPOINT_MAX], name[NAT_HOST_MAX];

    ck_assert_int_eq(nat_endpoint_format(out, sizeof out, text("192.0.2.1"), 80), 12);
    ck_assert_str_eq(out, "192.0.2.1:80");
    ck_assert_int_eq(nat_endpoint_format(out, sizeof out, text("::1"), 65535), 9);
    ck_assert_str_eq(out, "::1:65535");
    ck_assert_int_eq(nat_endpoint_format(out, 9, text("::1"), 65535), -ENOSPC);
    ck_assert_int_eq(nat_endpoint_format(out, 10, text("::1"), 65535), 9);
    memset(name, ':', sizeof name);
    ck_assert_int_eq(
        nat_endpoint_format(out, sizeof out, (struct nat_bytes){name, sizeof name}, 65535),
        NAT_ENDPOINT_MAX - 1);
}
END_TEST

#define EI   NAT_POLICY_EI
#define HD   NAT_POLICY_HD
#define NONE NAT_POLICY_UNKNOWN
#define PP   NAT_POLICY_PP
#define PC   NAT_POLICY_PC
#define RD   NAT_POLICY_RD

static const struct {
    enum nat_policy mapping, allocation;
    const char *ip;
    unsigned port;
    const char *endpoint;
    bool has_delta;
    int64_t delta;
    const char *host;
    uint16_t ports[NAT_PORTS_MAX]; /* 0 ends the list */
} contacts[] = {
    {HD, PP, "192.0.2.1", 1000, "", false, 0, "192.0.2.1", {1000}},
    {EI, RD, "192.0.2.1", 1000, "", false, 0, "192.0.2.1", {1000}},
    {EI, PC, "192.0.2.1", 1000, "", true, 5, "192.0.2.1", {1000}},
    {HD, PC, "192.0.2.1", 1000, "", true, 5, "192.0.2.1", {1000, 1005, 1010}},
    {HD, PC, "192.0.2.1", 1000, "", true, -7, "192.0.2.1", {1000, 993, 986}},
    {HD, PC, "192.0.2.1", 1000, "", true, 0, "192.0.2.1", {1000}},
    {HD, PC, "192.0.2.1", 1000, "", false, 0, "192.0.2.1", {1000, 1001, 1002}},
    {HD, RD, "192.0.2.1", 1000, "", true, 5, "192.0.2.1", {1000, 1001, 1002}},
    {NONE, NONE, "192.0.2.1", 1000, "", true, 5, "192.0.2.1", {1000, 1001, 1002}},
    {HD, PC, "192.0.2.1", 1, "", true, -1, "192.0.2.1", {1}},
    {HD, RD, "192.0.2.1", 65534, "", false, 0, "192.0.2.1", {65534, 65535}},
    {HD, RD, "192.0.2.1", 65535, "", false, 0, "192.0.2.1", {65535}},
    {HD, PC, "192.0.2.1", 9, "", true, 40000, "192.0.2.1", {9, 40009}},
    {HD, PC, "192.0.2.1", 9, "", true, INT64_MAX, "192.0.2.1", {9}},
    {HD, PC, "192.0.2.1", 9, "", true, INT64_MIN, "192.0.2.1", {9}},
    /* the reflexive address comes first, for either half; then the endpoint */
    {HD, PP, "2001:db8::1", 1000, "h:2000", false, 0, "2001:db8::1", {1000}},
    {HD, PP, "", 0, "https://[2001:db8::2]:2000/", false, 0, "2001:db8::2", {2000}},
    {HD, PP, "192.0.2.1", 0, "h:2000", false, 0, "192.0.2.1", {2000}},
    {HD, PP, "192.0.2.1", 65536, "h", false, 0, "192.0.2.1", {4433, 4434, 4435}},
    {HD, PP, "", 0, "h:0", false, 0, "h", {4433, 4434, 4435}},
    {HD, PP, "", 0, "not a host", false, 0, "", {4433, 4434, 4435}},
    {EI, PC, "", 0, "", true, 9, "", {4433, 4434, 4435}},
};

START_TEST(says_where_a_peer_is)
{
    struct nat_profile *profile = make((struct nat_profile_fields){
        .mapping = contacts[_i].mapping,
        .allocation = contacts[_i].allocation,
        .reflexive_ip = text(contacts[_i].ip),
        .reflexive_port = contacts[_i].port,
        .endpoint = text(contacts[_i].endpoint),
        .has_port_delta = contacts[_i].has_delta,
        .port_delta = contacts[_i].delta,
    });
    uint16_t ports[NAT_PORTS_MAX] = {0, 0, 0};
    size_t count = nat_ports_predict(profile, ports);

    assert_text(nat_peer_host(profile), contacts[_i].host);
    ck_assert_uint_ge(count, 1);
    ck_assert_mem_eq(ports, contacts[_i].ports, sizeof ports);
    ck_assert(count == NAT_PORTS_MAX || ports[count] == 0);
    nat_profile_unref(profile);
}
END_TEST

START_TEST(knows_nothing_without_a_profile)
{
    uint16_t ports[NAT_PORTS_MAX];

    ck_assert_uint_eq(nat_ports_predict(NULL, ports), 3);
    ck_assert(ports[0] == 4433 && ports[1] == 4434 && ports[2] == 4435);
    ck_assert_uint_eq(nat_peer_host(NULL).len, 0);
    nat_profile_unref(NULL);
    ck_assert_ptr_null(nat_profile_ref(NULL));
}
END_TEST

Suite *suite_nat_profile(void)
{
    Suite *suite = suite_create("nat_profile");
    TCase *tcase = tcase_create("profile");

    tcase_add_test(tcase, keeps_every_field);
    tcase_add_test(tcase, refuses_what_is_too_large);
    tcase_add_loop_test(tcase, splits_endpoints, 0, sizeof endpoints / sizeof endpoints[0]);
    tcase_add_test(tcase, splits_anything);
    tcase_add_test(tcase, limits_the_length_of_a_host);
    tcase_add_test(tcase, formats_endpoints);
    tcase_add_loop_test(tcase, says_where_a_peer_is, 0, sizeof contacts / sizeof contacts[0]);
    tcase_add_test(tcase, knows_nothing_without_a_profile);
    suite_add_tcase(suite, tcase);
    return suite;
}
