/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process `macula_nat_coordinator`: what macula nodes call, between their terms and the NAT
 * library.
 *
 * coordinator.c is the process and its clock, request.c reads requests and waits for their
 * profiles, listing.c answers get_pending, status.c shows the state. The struct is the caller's;
 * the callbacks of its parts find it through their first member.
 */
#ifndef MACULA_COORDINATOR_H
#define MACULA_COORDINATOR_H

#include "macula/clocks.h"
#include "macula/delivery.h"
#include "macula/lookup.h"
#include "macula/mailboxes.h"
#include "macula/notifier.h"
#include "macula/profile_cache.h"
#include "macula/services.h"
#include "macula/watcher.h"
#include "macula_nat.h"
#include "otp/call.h"
#include "otp/gen_server.h"
#include "otp/rpc.h"
#include "otp/watch.h"

#define COORDINATOR_RANDOM_POOL 4096 /* bytes drawn at once */

struct listing;
struct waiting;

/* The release of macula that `is_compatible` means. */
#define COORDINATOR_COMPATIBLE "v0_14_3"

struct coordinator_options {
    struct nat_config nat;
    uint32_t lookup_timeout_ms;
    uint32_t profile_cache_ttl_ms;      /* 0: no cache of its own */
    const char *const *preferred_nodes; /* of --connect */
    size_t preferred_count;
    bool is_compatible; /* nothing is read from the DHT */
};

struct coordinator_counters {
    uint64_t requests;
    uint64_t unknown_requests; /* calls */
    uint64_t ignored_messages; /* casts and messages of no known form */
    uint64_t bad_arguments;
    uint64_t foreign_mailboxes; /* attached or detached in the name of another node's process */
    uint64_t overloaded;        /* requests refused because too much waits already */
    uint64_t pending_left_out;  /* sessions, by the last get_pending */
};

struct coordinator {
    struct gen_server server; /* first */
    struct node *node;
    struct coordinator_options options;
    struct coordinator_counters counters;
    struct nat_coordinator *nat;
    struct profile_cache *cache;
    struct watches watches;
    struct calls calls;
    struct services services;
    struct lookup lookup;
    struct mailboxes mailboxes;
    struct clocks clocks;
    struct deliveries deliveries;
    struct watchers watchers;
    struct notifier notifier;
    struct waiting *waiting; /* requests whose profiles are being looked up */
    size_t waiting_count, waiting_bytes;
    struct listing *listings; /* of get_pending, in line */
    size_t listing_count;
    uv_idle_t listing_turn;
    uv_check_t turn;
    uv_timer_t timer;
    uint64_t timer_at;      /* as nat_now.monotonic_ms */
    uint64_t rest_until_ns; /* of the same clock: before, nothing that is due is done */
    uint64_t phase_ns; /* by which wall time is further into its millisecond than uv_hrtime() */
    uint64_t crowd;    /* the most sessions at a time since memory was given back */
    bool some_stayed;  /* when it was */
    uint8_t random[COORDINATOR_RANDOM_POOL];
    size_t random_left;
};

/* Fills in the defaults. */
void coordinator_options_init(struct coordinator_options *options);

/* Starts the process. Returns 0 or a negative errno. */
int coordinator_start(struct coordinator *co, struct node *node, struct profile_cache *cache,
                      const struct coordinator_options *options);
/* From the node's hooks. */
void coordinator_take_up(struct coordinator *co, struct connection *c);
void coordinator_take_down(struct coordinator *co, struct connection *c);
/* Stops its timers; the loop must run once more before coordinator_free. */
void coordinator_close(struct coordinator *co);
void coordinator_free(struct coordinator *co);

/* The functions of macula_nat_coordinator and macula_nat_cache that rpc may call; its ctx is the
 * coordinator. */
extern const struct rpc_function api_functions[];
extern const size_t api_function_count;

/* --- between the files of the process --- */

struct nat_now coordinator_now(const struct coordinator *co);
/* Carries out what the library asks for after a call, and sets the timer. */
void coordinator_act(struct coordinator *co);
int coordinator_draw(struct coordinator *co, uint8_t out[static NAT_RANDOM_LEN]);

/* Answers {error, {bad_argument, Which}}, Which being an atom. */
void reply_bad_argument(struct coordinator *co, const struct caller *caller, struct slice which);
/* What became ready while the process was suspended. */
void requests_resume(struct coordinator *co);
void requests_free(struct coordinator *co);
void request_connection(struct coordinator *co, const struct caller *caller, struct cursor args);
void request_coordinate(struct coordinator *co, struct cursor args);
void request_report(struct coordinator *co, struct cursor args);

void listing_start(struct coordinator *co, const struct caller *caller);
/* In every turn: one may begin whose node has taken its output meanwhile. */
void listings_go_on(struct coordinator *co);
void listings_free(struct coordinator *co);

void status_put(struct coordinator *co, struct buffer *b);

#endif
