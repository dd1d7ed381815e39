/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole public interface of the NAT library: profiles, the choice of a connection strategy, the
 * prediction of ports, and (below) the coordinator of hole punches. The library is pure: it does no
 * I/O, makes no system call, reads no clock and draws no random bytes; it uses malloc and free and
 * nothing else of the world. What it needs of time and chance is passed in. It is not thread safe:
 * one thread at a time per coordinator and its profiles.
 *
 * Memory: what is passed in is copied or, for profiles, referenced; the caller keeps its own. Views
 * (struct nat_bytes) that are handed out point into the library's memory and are valid as long as
 * the function that gives them says. Functions that can fail return 0 or a negative errno.
 *
 * Terms: mapping and filtering are those of RFC 4787, section 4.1 and 5; allocation is how a NAT
 * picks the external port of a new mapping (section 4.2).
 */
#ifndef MACULA_NAT_H
#define MACULA_NAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that belong to somebody else. Not terminated, may contain anything; `data` may be NULL if
 * `len` is 0. */
struct nat_bytes {
    const void *data;
    size_t len;
};

/* ---- Profiles ---- */

/*
 * A policy that is missing, or a string that is not one of the type's, is UNKNOWN: decisions are
 * optimistic about it. One that is present with a value outside its type is INVALID: decisions take
 * it for unpredictable.
 */
enum nat_policy {
    NAT_POLICY_UNKNOWN,
    NAT_POLICY_INVALID,
    NAT_POLICY_EI, /* endpoint-independent (mapping, filtering) */
    NAT_POLICY_HD, /* address-dependent, "host" */
    NAT_POLICY_PD, /* address and port-dependent */
    NAT_POLICY_PP, /* port preservation (allocation) */
    NAT_POLICY_PC, /* port contiguity */
    NAT_POLICY_RD, /* random */
};

/* What is known about the NAT of one peer, as plain data. */
struct nat_profile_fields {
    struct nat_bytes node_id;
    enum nat_policy mapping, filtering, allocation;
    bool can_receive_unsolicited, requires_relay, relay_capable, has_port_delta;
    int64_t port_delta; /* only with has_port_delta */
    struct nat_bytes
        reflexive_ip;          /* IPv4 or IPv6 as text without brackets, empty if there is none */
    uint32_t reflexive_port;   /* outside 1..65535: none */
    struct nat_bytes endpoint; /* host:port or URL as published, empty if there is none */
    int64_t detected_at;       /* unix seconds */
    int64_t ttl_seconds;
    struct nat_bytes source; /* what the profile was read from; opaque, kept byte for byte */
};

/* A profile: immutable once made, counted references, one allocation. */
struct nat_profile;

/*
 * Makes a profile with one reference. `fields` and all it points to are copied; a view that lies
 * inside `fields->source` costs no memory of its own. Errors: -ENOMEM; -EMSGSIZE if the fields
 * together exceed NAT_PROFILE_MAX; -EINVAL if `reflexive_ip` is longer than any address can be.
 */
int nat_profile_create(struct nat_profile **out, const struct nat_profile_fields *fields);
#define NAT_PROFILE_MAX (64u << 20)

/* Takes one more reference; returns its argument, which may be NULL. */
struct nat_profile *nat_profile_ref(struct nat_profile *profile);

/* Gives a reference back; the last one frees the profile. NULL is allowed. */
void nat_profile_unref(struct nat_profile *profile);

/* The fields of a profile. The views in it live as long as the profile. An unusable port comes back
 * as 0. */
void nat_profile_get(const struct nat_profile *profile, struct nat_profile_fields *fields);

/* The `source` of a profile. Lives as long as the profile. */
struct nat_bytes nat_profile_source(const struct nat_profile *profile);

/* ---- Endpoints as text ---- */

#define NAT_HOST_MAX 255u /* longest host name that is taken, RFC 1035, section 2.3.4 */
#define NAT_ENDPOINT_MAX \
    (NAT_HOST_MAX + 9u) /* of nat_endpoint_format: brackets, colon, port, terminator */

/*
 * Splits `host:port`, `https://host:port/...`, `[v6]:port` or `https://[v6]:port/...` (RFC 3986,
 * section 3.2). `host` becomes a view into `text`, without brackets; `port` is 0 if there is none
 * or it is outside 1..65535. An IPv6 address without brackets is all host. Reads nothing outside of
 * `text`. Errors: -EINVAL if there is no usable host (empty, longer than NAT_HOST_MAX, or with
 * characters no host has).
 */
int nat_endpoint_split(struct nat_bytes text, struct nat_bytes *host, uint16_t *port);

/*
 * Writes `host:port`, an IPv6 address in brackets, and a terminating zero into `out` of `size`
 * bytes. Returns the length without the zero, or -ENOSPC (nothing usable is in `out` then).
 */
int nat_endpoint_format(char *out, size_t size, struct nat_bytes host, uint16_t port);

/* ---- Strategy ---- */

enum nat_strategy {
    NAT_DIRECT,
    NAT_HOLE_PUNCH,
    NAT_RELAY,
};

/* DOCUMENTED is what macula's documentation promises; V0_14_3 is what that version of the code
 * answered. */
enum nat_rules {
    NAT_RULES_DOCUMENTED,
    NAT_RULES_V0_14_3,
};

/* How `initiator` should connect to `target`. Either profile, or both, may be NULL: unknown. */
enum nat_strategy nat_strategy_choose(enum nat_rules rules, const struct nat_profile *initiator,
                                      const struct nat_profile *target);

/* The same after a direct connection has failed: never NAT_DIRECT. */
enum nat_strategy nat_strategy_after_direct(enum nat_rules rules,
                                            const struct nat_profile *initiator,
                                            const struct nat_profile *target);

/* ---- What a peer is told about the other one ---- */

#define NAT_PORTS_MAX 3

/*
 * The ports at which the peer with this profile (NULL: unknown) can be expected, in the order to
 * try them: 1 to NAT_PORTS_MAX of 1..65535, none twice. Returns how many.
 */
size_t nat_ports_predict(const struct nat_profile *profile, uint16_t ports[NAT_PORTS_MAX]);

/*
 * The peer's address: the IP of its reflexive address, else the host of its endpoint, else nothing
 * (`len` 0). Without brackets. Lives as long as the profile, which may be NULL.
 */
struct nat_bytes nat_peer_host(const struct nat_profile *profile);

#ifdef __cplusplus
}
#endif

#endif
