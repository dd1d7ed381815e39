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
    /* IPv4 or IPv6 as text without brackets, empty if there is none. */
    struct nat_bytes reflexive_ip;
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

/* The fields of a profile, which may not be NULL. The views in it live as long as the profile. An
 * unusable port comes back as 0. */
void nat_profile_get(const struct nat_profile *profile, struct nat_profile_fields *fields);

/* The `source` of a profile, which may not be NULL. Lives as long as the profile. */
struct nat_bytes nat_profile_source(const struct nat_profile *profile);

/* ---- Endpoints as text ---- */

#define NAT_HOST_MAX 255u /* longest host name that is taken, RFC 1035, section 2.3.4 */
/* Room for nat_endpoint_format: colon, port, terminator. */
#define NAT_ENDPOINT_MAX (NAT_HOST_MAX + 7u)

/*
 * Splits `host:port`, `https://host:port/...`, `[v6]:port` or `https://[v6]:port/...` (RFC 3986,
 * section 3.2). `host` becomes a view into `text`, without brackets; `port` is 0 if there is none
 * or it is outside 1..65535. An IPv6 address without brackets is all host. Reads nothing outside of
 * `text`. Errors: -EINVAL if there is no usable host (empty, longer than NAT_HOST_MAX, or with
 * characters no host has).
 */
int nat_endpoint_split(struct nat_bytes text, struct nat_bytes *host, uint16_t *port);

/*
 * Writes `host:port` and a terminating zero into `out` of `size` bytes; an IPv6 address without
 * brackets, as macula_peer_connector splits at the last colon and would take brackets as part of
 * the host. Returns the length without the zero, or -ENOSPC (nothing usable is in `out` then).
 */
int nat_endpoint_format(char *out, size_t size, struct nat_bytes host, uint16_t port);

/* ---- Strategy ---- */

enum nat_strategy {
    NAT_DIRECT,
    NAT_HOLE_PUNCH,
    NAT_RELAY,
};
#define NAT_STRATEGIES 3

/*
 * DOCUMENTED is what macula's documentation promises; V0_14_3 is what that version of the code
 * answered. FEASIBLE asks what the policies of both peers let through: it punches wherever a punch
 * can be expected to work, given what the coordinator can tell the peers, and relays where none
 * can.
 */
enum nat_rules {
    NAT_RULES_DOCUMENTED,
    NAT_RULES_V0_14_3,
    NAT_RULES_FEASIBLE,
};
#define NAT_RULE_SETS 3

/* "documented", "v0_14_3", "feasible". */
const char *nat_rules_name(enum nat_rules rules);

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
 * The same for a later attempt (0: the first, as nat_ports_predict), of a peer that `other` tries
 * to reach: what the earlier attempts have used up is taken into account. The first is the
 * likeliest.
 */
size_t nat_ports_plan(const struct nat_profile *profile, const struct nat_profile *other,
                      uint32_t attempt, uint16_t ports[NAT_PORTS_MAX]);

/*
 * The local port that the peer with this profile should open and fire from in an attempt, for the
 * other peer is told to expect it there; 0: the one that its known port was learned with.
 */
uint16_t nat_ports_local(const struct nat_profile *profile, uint32_t attempt);

/*
 * The peer's address: the IP of its reflexive address, else the host of its endpoint, else nothing
 * (`len` 0). Without brackets. Lives as long as the profile, which may be NULL.
 */
struct nat_bytes nat_peer_host(const struct nat_profile *profile);

/* ---- The coordinator ---- */

/*
 * A table of sessions and the state machine of hole punch coordination. Every call says what time
 * it is and leaves what should be done in a queue, which the caller empties with nat_next_action
 * after each call. Timers are inside: call nat_tick when nat_next_deadline says so. Nothing in here
 * waits for a delivery or an answer.
 */
struct nat_coordinator;

/* The time of a call. Only `monotonic_ms` decides anything; it must never go back. The other is for
 * users to read. */
struct nat_now {
    uint64_t monotonic_ms;
    int64_t unix_ms;
};

#define NAT_ID_MAX     1024u  /* longest id of a peer or a session, bytes */
#define NAT_RANDOM_LEN 16u    /* random bytes that make a session id */
#define NAT_SWEEP_MS   30000u /* between two sweeps of sessions that ended or grew too old */
#define NAT_STAGGER_MS 250u   /* by which one peer fires first where they take turns */

struct nat_config {
    enum nat_rules rules;
    uint32_t max_punch_attempts;    /* retries: attempts 0, 1, ..., max are made */
    uint32_t punch_timeout_ms;      /* from punch_time to the end of an attempt without a result */
    uint32_t coordination_delay_ms; /* from PUNCH_COORDINATE to punch_time */
    uint32_t session_ttl_s;         /* a session older than this is dropped by the next sweep */
    uint32_t max_sessions;          /* live ones */
    uint64_t max_profile_bytes;     /* sources of the profiles that live sessions keep */
    uint64_t max_id_bytes;          /* nat_counters.id_bytes */
    uint8_t hash_key[16];           /* secret and random where ids come from strangers */
};

/* Fills in the defaults: those of macula where it has the setting, and a zero hash key. */
void nat_config_init(struct nat_config *config);

/* Errors: -ENOMEM; -EINVAL if punch_timeout_ms is 0. */
int nat_coordinator_create(struct nat_coordinator **out, const struct nat_config *config);

/* Frees it with all sessions, without giving watchers back. Cursors must be closed before. NULL is
 * allowed. */
void nat_coordinator_free(struct nat_coordinator *coordinator);

enum nat_state {
    NAT_PENDING,
    NAT_COORDINATING,
    NAT_EXECUTING,
    NAT_COMPLETED, /* from here on the session has ended */
    NAT_FAILED,
};
#define NAT_LIVE_STATES 3 /* the states before NAT_COMPLETED */

enum nat_result {
    NAT_RESULT_NONE, /* not ended yet */
    NAT_RESULT_SUCCESS,
    NAT_RESULT_TIMEOUT,
    NAT_RESULT_UNREACHABLE,
};

enum nat_role {
    NAT_INITIATOR,
    NAT_TARGET,
};

/*
 * A session as users see it. The views and profiles live until the next call for this coordinator;
 * whoever needs a profile longer takes a reference. A session that has ended keeps its profiles
 * only in its last NAT_NOTIFY.
 */
struct nat_session_view {
    struct nat_bytes session_id, initiator_id, target_id;
    struct nat_profile *initiator_profile, *target_profile; /* NULL: unknown */
    enum nat_strategy strategy;
    enum nat_state state;
    enum nat_result result;
    uint32_t attempts;
    int64_t created_at; /* unix seconds */
};

/*
 * A watcher is a token of the caller's choice, never looked into, for somebody who wants to hear of
 * a session. It is told of the creation, each change of state and each retry. A call that takes a
 * watcher and returns 0 owns the token until NAT_RELEASE_WATCHER gives it back, once for each time
 * it was taken and after its last NAT_NOTIFY. The same token twice on one session is told once (the
 * second is given back at once). There is no way to take a watcher off: who has gone is found gone
 * at delivery. A session has at most NAT_WATCHERS_MAX; more are given back, and counted.
 */
#define NAT_WATCHERS_MAX 250u

struct nat_options {
    uint32_t max_punch_attempts; /* saturate what is larger */
    uint32_t punch_timeout_ms;   /* > 0; saturate what is larger */
    bool allow_relay;            /* of nat_request only */
    bool has_watcher;
    uint64_t watcher;
    uint32_t origin; /* never looked into; a new session keeps it, and its NAT_COORDINATE has it */
};

/* The coordinator's defaults: its own attempts and timeout, relay allowed, no watcher, origin 0. */
void nat_options_init(const struct nat_coordinator *coordinator, struct nat_options *options);

struct nat_request {
    struct nat_bytes initiator_id, target_id; /* up to NAT_ID_MAX bytes each, different */
    /* NULL: unknown; references are taken. */
    struct nat_profile *initiator_profile, *target_profile;
    struct nat_options options;
    uint8_t random[NAT_RANDOM_LEN]; /* fresh from a CSPRNG for every call */
};

enum nat_argument {
    NAT_ARGUMENT_NONE,
    NAT_ARGUMENT_INITIATOR_ID,
    NAT_ARGUMENT_TARGET_ID,
    NAT_ARGUMENT_PUNCH_TIMEOUT,
};

/* Which argument is bad, if any. Looks at ids and options only, so that it can be asked before
 * profiles are. */
enum nat_argument nat_request_check(const struct nat_request *request);

/*
 * Decides how the initiator should connect to the target, and opens a session (or joins the newest
 * hole punch that lives in the other direction). `view` gets what is to be answered: strategy
 * and session id as decided; its other fields are those of the session now. Errors, nothing
 * changed: -EINVAL (nat_request_check tells which); -ENETUNREACH if only a relay would do and
 * `allow_relay` is false; -ENOBUFS if there is no more room and nothing may be evicted; -EEXIST if
 * the random bytes name a session that exists (draw again); -ENOMEM.
 */
int nat_request(struct nat_coordinator *coordinator, struct nat_now now,
                const struct nat_request *request, struct nat_session_view *view);

/*
 * Starts coordination anew for a live session, or opens a new hole punch. `session_id` NULL: none
 * was given. Of `options` a session that lives already takes only the watcher, and a profile that
 * is NULL leaves it the one it has. Errors, nothing changed: -EINVAL (bad ids, options or session
 * id); -ESTALE if the session has ended; -EACCES if it is one of other peers; -ENOBUFS, -EEXIST,
 * -ENOMEM as nat_request.
 */
int nat_coordinate(struct nat_coordinator *coordinator, struct nat_now now,
                   const struct nat_request *request, const struct nat_bytes *session_id);

/*
 * Says that messages to a peer took `delay_ms` the last time. While the peer has sessions, its next
 * punch_time is set so that a message that takes as long again is there before; NAT_LEAD_MAX_MS is
 * the most that is waited. A peer without sessions is not remembered.
 */
void nat_peer_delay(struct nat_coordinator *coordinator, struct nat_bytes peer_id,
                    uint32_t delay_ms);
#define NAT_LEAD_MAX_MS 3000u

enum nat_report {
    NAT_REPORT_SUCCESS,
    NAT_REPORT_FAILURE,
    NAT_REPORT_OTHER, /* any other value */
};

/*
 * Takes the result of a punch from a peer. All reporters that are neither of the peers count as one
 * third; `data` NULL is always a third. A repeated report about an attempt that is over is counted
 * and returns 0. Errors, nothing changed: -EINVAL for NAT_REPORT_OTHER; -ENOENT if no such session
 * is known; -ESTALE if it has ended; -ENOMEM.
 */
int nat_report(struct nat_coordinator *coordinator, struct nat_now now, struct nat_bytes session_id,
               struct nat_bytes reporter_id, enum nat_report report);

/* Shows a session, ended ones too until they are swept. Errors: -ENOENT. */
int nat_session_find(struct nat_coordinator *coordinator, struct nat_bytes session_id,
                     struct nat_session_view *view);

/* When nat_tick should be called next, on the monotonic clock; in the past if work is left,
 * UINT64_MAX for never. */
uint64_t nat_next_deadline(const struct nat_coordinator *coordinator);

/*
 * Does what is due: punch times, timeouts, sweeping. At most `budget` sessions are touched per
 * call, each watcher counting as one more, so that no one waits long behind it; returns whether
 * more is due already.
 */
bool nat_tick(struct nat_coordinator *coordinator, struct nat_now now, unsigned budget);

enum nat_action_type {
    NAT_COORDINATE,      /* send PUNCH_COORDINATE to a peer */
    NAT_NOTIFY,          /* tell a watcher how a session stands */
    NAT_RELEASE_WATCHER, /* the token will not be used again; `session` is empty */
};

struct nat_action {
    enum nat_action_type type;
    struct nat_session_view session; /* as it was when the action came up */
    uint64_t watcher;                /* NAT_NOTIFY, NAT_RELEASE_WATCHER */
    uint32_t origin;                 /* NAT_COORDINATE */
    /* NAT_COORDINATE: who gets the message, and what is in it besides the session id */
    struct nat_bytes recipient_id;
    struct nat_profile *recipient_profile; /* NULL: unknown */
    enum nat_role role;                    /* the recipient's */
    struct nat_bytes peer_id;
    struct nat_bytes peer_host; /* empty: not known from the profile */
    uint16_t peer_ports[NAT_PORTS_MAX];
    size_t port_count;
    uint32_t attempt; /* of a retry that differs from the first attempt (feasible rules), else 0 */
    uint16_t local_port; /* that the recipient should fire from; 0: no other than before */
    /* Unix milliseconds; in later attempts one peer may be told to fire first. */
    int64_t punch_time;
};

/* Takes the next action out of the queue; false if there is none. What it shows lives until the
 * next call. */
bool nat_next_action(struct nat_coordinator *coordinator, struct nat_action *action);

/*
 * Goes through the live sessions, newest first, in as many steps as wanted; anything may be called
 * in between. Sessions made after the cursor was opened are not shown, sessions that ended
 * meanwhile neither.
 */
struct nat_cursor;

/* Errors: -ENOMEM. */
int nat_cursor_open(struct nat_coordinator *coordinator, struct nat_cursor **out);

/* Shows the next session; false at the end. */
bool nat_cursor_next(struct nat_cursor *cursor, struct nat_session_view *session);

/* Frees the cursor, at the end or before. NULL is allowed. */
void nat_cursor_close(struct nat_cursor *cursor);

/* All since creation, except those under "now". */
struct nat_counters {
    /* Requests answered, by enum nat_strategy; joins count as NAT_HOLE_PUNCH. */
    uint64_t answers[NAT_STRATEGIES];
    uint64_t joins;
    uint64_t requests_bad, relay_refused, overloaded;
    uint64_t coordinates_made, coordinates_restarted;
    uint64_t coordinates_bad, coordinates_ended, coordinates_foreign, coordinates_overloaded;
    uint64_t reports; /* that counted, and below those that did not */
    uint64_t reports_repeated, reports_ended, reports_unknown, reports_bad;
    uint64_t attempts, retries;
    uint64_t completed, failed_timeout, failed_unreachable;
    uint64_t evicted;       /* pending ones that made room for new ones */
    uint64_t swept_ended;   /* dropped after their end */
    uint64_t swept_expired; /* dropped alive, for their age */
    uint64_t watchers_refused;
    uint64_t leads_extended; /* attempts whose punch_time was put off for a slow peer */
    /* now */
    uint64_t live[NAT_LIVE_STATES]; /* by enum nat_state */
    uint64_t ended, peers, pairs;
    uint64_t profile_bytes; /* that live sessions keep */
    uint64_t id_bytes;      /* of peers, given session ids and watchers, of all sessions */
};

/* Lives as long as the coordinator and is always up to date. */
const struct nat_counters *nat_counters(const struct nat_coordinator *coordinator);

#ifdef __cplusplus
}
#endif

#endif
