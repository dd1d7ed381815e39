/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A coordinator with a clock that only the test moves, and a record of all actions it gave.
 * Everything in it is the test's; world_free checks that nothing is left of the sessions and that
 * every watcher was given back.
 */
#ifndef NAT_WORLD_H
#define NAT_WORLD_H

#include "macula_nat.h"

#define WORLD_EVENTS 1024u
#define WORLD_TOKENS 1024u
#define WORLD_ID_MAX 32u

/* An action with its texts copied. */
struct event {
    enum nat_action_type type;
    char session_id[NAT_ID_MAX + 1];
    char initiator_id[WORLD_ID_MAX], target_id[WORLD_ID_MAX];
    struct nat_profile *profiles[2]; /* to compare only */
    enum nat_strategy strategy;
    enum nat_state state;
    enum nat_result result;
    uint32_t attempts;
    uint64_t watcher;
    char recipient_id[WORLD_ID_MAX], peer_id[WORLD_ID_MAX], peer_host[WORLD_ID_MAX];
    uint16_t ports[NAT_PORTS_MAX];
    size_t port_count;
    enum nat_role role;
    int64_t punch_time;
};

struct world {
    struct nat_coordinator *nat;
    struct nat_config config;
    struct nat_now now;
    struct event
        events[WORLD_EVENTS]; /* of the last call, and those since the record was emptied */
    size_t event_count;
    int held[WORLD_TOKENS]; /* how often the coordinator holds each token */
    uint32_t random;
    struct nat_profile *easy, *open, *cone, *symmetric;
};

/* Fills in a configuration of defaults, for the test to change, and the profiles. */
void world_init(struct world *world);
void world_start(struct world *world);

/* Sweeps all sessions away, checks that all has returned, and frees everything. */
void world_free(struct world *world);

struct nat_bytes bytes_of(const char *text);

/* Moves the clock, ticking exactly when the coordinator wants it. */
void world_pass(struct world *world, uint64_t ms);

/* Records what is in the queue; world_forget empties the record. Every call below records too. */
void world_drain(struct world *world);
void world_forget(struct world *world);

/* A request with default options and no profiles, to be changed. */
struct nat_request world_ask(struct world *world, const char *initiator, const char *target);

/* The calls of the interface, at the world's time. `id` gets the session's, NAT_ID_MAX + 1 bytes at
 * most. */
int world_request(struct world *world, const struct nat_request *request, char *id);
int world_coordinate(struct world *world, const struct nat_request *request, const char *id);
int world_report(struct world *world, const char *id, const char *reporter, enum nat_report report);

/* Requests a hole punch between two peers without profiles, watched by `token`. */
void world_punch(struct world *world, const char *initiator, const char *target, uint64_t token,
                 char *id);

/* Checks how a session stands. */
#define assert_session(world, id, state, strategy, attempts, result) \
    check_session(__LINE__, world, id, state, strategy, attempts, result)
void check_session(int line, struct world *world, const char *id, enum nat_state state,
                   enum nat_strategy strategy, uint32_t attempts, enum nat_result result);

/* How many recorded events there are of a type. */
size_t world_count(const struct world *world, enum nat_action_type type);

/*
 * The states that a watcher was told of, in order, one letter each: p, c, e, + (completed), -
 * (failed). In a buffer that the next call overwrites.
 */
const char *world_story(const struct world *world, uint64_t watcher);

/* The n-th recorded PUNCH_COORDINATE. */
const struct event *world_message(const struct world *world, size_t n);

#endif
