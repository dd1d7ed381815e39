/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the coordinator, for the files of this folder only.
 *
 * Who owns what: the table owns each session until it is dropped; queued actions hold references,
 * so a session may outlive its place in the table by the time it takes to empty the queue. A
 * session owns references to its two peers, while it lives to two profiles, and from when it may
 * become a hole punch to its end to the pair of its peers. What nobody refers to is freed at once.
 *
 * Where a session is: in the table by its id; in `live` (newest first) or `ended` (oldest first);
 * while NAT_PENDING in `pending` (oldest first); while NAT_COORDINATING or NAT_EXECUTING in one
 * heap of timers and in the heap of its pair that finds the newest punch of one direction. Strategy
 * NAT_HOLE_PUNCH and these two states go together.
 *
 * Nothing half done, and nothing for want of memory: a session has its places in the heaps from
 * when it may become a hole punch (nat_session_let_punch), so that it runs to its end in the memory
 * that it has. The queue has room of its own for any one transition: a call that changes a session
 * first makes sure of it (nat_session_prepare), which fails only if more is queued and there is no
 * memory to make the queue longer.
 */
#ifndef NAT_INTERNAL_H
#define NAT_INTERNAL_H

#include "macula_nat.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>
/*
 * A table grows when one of its chains gets this long. Among a million sessions a request costs
 * mostly the walk along chains that are in no cache. Where every session has peers of its own, 7
 * saves a third of the time against uthash's 10, for 35 bytes a session; with 1,000 peers in all
 * the difference is within the noise.
 */
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 7U

struct nat_session;

/*
 * Every table is split into shards by the top bits of the hash, each a uthash table of its own. A
 * uthash table grows by moving all of its items at once, which for a million would stop everyone
 * for tens of milliseconds, and it gives its buckets back only when it is empty.
 */
#define NAT_SHARDS      64u
#define NAT_SHARD(hash) ((hash) >> 26)

/* Keyed (siphash.h), for whoever can choose ids must not be able to choose collisions. */
uint32_t nat_hash(const uint8_t key[16], const void *data, size_t len);

/* ---- Heaps of sessions ---- */

/* Which of a session's places a heap keeps up to date. */
enum nat_place {
    NAT_PLACE_TIMER,
    NAT_PLACE_PAIR,
};
#define NAT_PLACES   2
#define NAT_NO_PLACE UINT32_MAX

struct nat_heap_entry {
    uint64_t key;
    struct nat_session *session;
};

/* The smallest key is on top. Four children to a node: they share a cache line. All zero but
 * `place` is empty. */
struct nat_heap {
    struct nat_heap_entry *entries;
    uint32_t count;
    uint32_t owners; /* of a place, in use or not */
    uint32_t capacity : 31;
    uint32_t place : 1; /* enum nat_place */
};

/* Gives one session more a place of its own, so that it can be pushed at any time. Errors: -ENOMEM.
 */
int nat_heap_reserve(struct nat_heap *heap);

/* Takes back the place of a session that is not in the heap, and memory when little is in use. */
void nat_heap_release(struct nat_heap *heap);

/* Adds a session that has a place. */
void nat_heap_push(struct nat_heap *heap, uint64_t key, struct nat_session *session);

/* Takes out a session, which may be in it or not; its place stays its own. */
void nat_heap_remove(struct nat_heap *heap, struct nat_session *session);

/* ---- Peers and pairs ---- */

struct nat_peer {
    UT_hash_handle hh; /* by its id */
    uint32_t refs;
    uint32_t delay_ms; /* of the last message to it, 0 if not known */
    char id[];
};

/*
 * Two peers between whom hole punches live, in either direction; its sessions hold the peers. Only
 * punches are ever joined: sessions of another strategy, most of all, do without.
 */
struct nat_pair {
    UT_hash_handle hh;          /* by `peers` */
    struct nat_peer *peers[2];  /* the one at the lower address first */
    struct nat_heap punches[2]; /* live hole punches that peers[i] asked for, the newest on top */
    uint32_t refs;
};

/* Finds or makes the peer and takes a reference. Errors: NULL if there is no memory. */
struct nat_peer *nat_peer_get(struct nat_coordinator *coordinator, struct nat_bytes id);
/* NULL is no peer. */
void nat_peer_unref(struct nat_coordinator *coordinator, struct nat_peer *peer);

/* The newest live hole punch that `initiator` asked for, NULL if there is none. */
struct nat_session *nat_pair_newest_punch(struct nat_coordinator *coordinator,
                                          struct nat_peer *initiator, struct nat_peer *target);

/*
 * Finds or makes the pair of two different peers and takes a reference. `first` gets the index of
 * `initiator`. Errors: NULL if there is no memory.
 */
struct nat_pair *nat_pair_get(struct nat_coordinator *coordinator, struct nat_peer *initiator,
                              struct nat_peer *target, uint8_t *first);
void nat_pair_unref(struct nat_coordinator *coordinator, struct nat_pair *pair);

/* ---- Actions ---- */

/* An action with what can change about its session, as it was when it was queued. */
struct nat_item {
    struct nat_session *session;     /* a reference; NULL for NAT_RELEASE_WATCHER */
    struct nat_profile *profiles[2]; /* references, by role */
    uint64_t value;                  /* the watcher, or punch_time */
    uint32_t attempts;
    uint8_t type, role, strategy, state, result;
};

/*
 * The actions of one transition, at most. The most that happens at once is a creation: told twice,
 * two messages, and maybe watchers given back.
 */
#define NAT_TRANSITION_ACTIONS(watchers) (2 + 3 * ((size_t)(watchers) + 1))

/* The room that a queue has at any time. */
#define NAT_QUEUE_OWN 1024u
_Static_assert(NAT_QUEUE_OWN >= NAT_TRANSITION_ACTIONS(NAT_WATCHERS_MAX), "any one transition");

/* A ring; `capacity` is a power of two. */
struct nat_queue {
    struct nat_item *items;
    size_t head, count, capacity;
    struct nat_item own[NAT_QUEUE_OWN];
};

void nat_queue_init(struct nat_queue *queue);

/* Makes room for `more` items; an empty queue has it for any transition. Errors: -ENOMEM. */
int nat_queue_reserve(struct nat_queue *queue, size_t more);

/* Queue an action, for which there is room. */
void nat_queue_coordinate(struct nat_coordinator *coordinator, struct nat_session *session,
                          enum nat_role role, int64_t punch_time);
void nat_queue_notify(struct nat_coordinator *coordinator, struct nat_session *session);
void nat_queue_release(struct nat_coordinator *coordinator, uint64_t watcher);

/* Gives all references of the queue back. */
void nat_queue_free(struct nat_coordinator *coordinator);

/* ---- Sessions ---- */

#define NAT_MADE_ID_LEN 24u /* base64 of NAT_RANDOM_LEN bytes */

/* The states of a cursor's place in the list of live sessions. Not seen outside. */
#define NAT_STATE_CURSOR 0xff

struct nat_watcher {
    struct nat_watcher *next;
    uint64_t token;
};

enum nat_reporter {
    NAT_REPORTER_THIRD = NAT_TARGET + 1,
    NAT_REPORTERS,
};

struct nat_session {
    UT_hash_handle hh;               /* by its id, which is hh.key and hh.keylen */
    struct nat_session *prev, *next; /* in `live` or `ended` */
    struct nat_session *pending_prev, *pending_next;
    struct nat_peer *peers[2];       /* by role */
    struct nat_pair *pair;           /* NULL: no hole punch, or ended */
    struct nat_profile *profiles[2]; /* by role; NULL: unknown, or ended */
    struct nat_watcher *watchers;
    uint64_t number;    /* in the order of creation */
    uint64_t since;     /* monotonic ms of creation; once ended, of the end */
    int64_t created_at; /* unix seconds */
    uint32_t places[NAT_PLACES];
    uint32_t refs;
    uint32_t max_attempts, timeout_ms;
    uint32_t origin; /* of the request */
    uint32_t attempts;
    uint32_t failures[NAT_REPORTERS]; /* attempts each reporter has called failed; never more than
                                         `attempts` */
    uint8_t strategy, state, result;
    uint8_t first; /* which peer of the pair is the initiator */
    uint8_t watcher_count;
    char made_id[NAT_MADE_ID_LEN]; /* unused if the id was given and is longer */
};

static inline bool nat_session_is_live(const struct nat_session *session)
{
    return session->state < NAT_LIVE_STATES;
}

/* NULL if there is none. */
struct nat_session *nat_session_lookup(struct nat_coordinator *coordinator, struct nat_bytes id);

/*
 * Makes a NAT_PENDING session and puts it into the table and its lists, nothing else; takes
 * references to the peers (by role). `id` NULL: made from the random bytes of the request. Errors,
 * nothing changed: -EEXIST, -ENOMEM.
 */
int nat_session_create(struct nat_coordinator *coordinator, struct nat_now now,
                       const struct nat_request *request, const struct nat_bytes *id,
                       struct nat_peer *const peers[2], struct nat_session **out);

/* Makes sure that the queue has room for any one transition. Errors: -ENOMEM. */
int nat_session_prepare(struct nat_coordinator *coordinator, const struct nat_session *session);

/*
 * Gives a live session what it needs to be a hole punch, to the end of its life: its pair, and
 * places in the heaps. Of one that has it all nothing changes. Errors, nothing changed: -ENOMEM.
 */
int nat_session_let_punch(struct nat_coordinator *coordinator, struct nat_session *session);

/* Adds the watcher of `options`, if any. Errors: -ENOMEM, and the token stays the caller's. */
int nat_session_watch(struct nat_coordinator *coordinator, struct nat_session *session,
                      const struct nat_options *options);

/* Lets the session keep this profile, NULL being none, instead of the one it has. */
void nat_session_keep_profile(struct nat_coordinator *coordinator, struct nat_session *session,
                              enum nat_role role, struct nat_profile *profile);

/* Moves a live session to another live state, counts kept; lists and timers are the caller's
 * business. */
void nat_session_set_state(struct nat_coordinator *coordinator, struct nat_session *session,
                           enum nat_state state);

/* Ends a live session: tells and releases its watchers, and keeps only what a late report needs. */
void nat_session_end(struct nat_coordinator *coordinator, struct nat_now now,
                     struct nat_session *session, enum nat_state state, enum nat_result result);

/* Takes a session, live or ended, out of the table for good, without a notification. */
void nat_session_drop(struct nat_coordinator *coordinator, struct nat_session *session);

void nat_session_unref(struct nat_coordinator *coordinator, struct nat_session *session);

void nat_session_show(const struct nat_session *session, struct nat_session_view *view);

/* The oldest live session, NULL if there is none. */
struct nat_session *nat_session_oldest(struct nat_coordinator *coordinator);

/* ---- The state machine ---- */

/* Sends both peers on their way to a fresh punch_time. */
void nat_machine_coordinate(struct nat_coordinator *coordinator, struct nat_now now,
                            struct nat_session *session);

/* The timer of a session has run out: punch_time (`deadline`) has come, or no result has. */
void nat_machine_timer(struct nat_coordinator *coordinator, struct nat_now now,
                       struct nat_session *session, uint64_t deadline);

/* ---- The whole ---- */

enum nat_timer {
    NAT_TIMER_PUNCH,  /* of NAT_COORDINATING sessions */
    NAT_TIMER_RESULT, /* of NAT_EXECUTING sessions */
};
#define NAT_TIMERS      2
#define NAT_NO_DEADLINE UINT64_MAX

struct nat_coordinator {
    struct nat_config config;
    struct nat_session *sessions[NAT_SHARDS];
    struct nat_peer *peers[NAT_SHARDS];
    struct nat_pair *pairs[NAT_SHARDS];
    struct nat_session *live;    /* newest first, with cursors in between */
    struct nat_session *ended;   /* oldest first */
    struct nat_session *pending; /* oldest first */
    /*
     * Two heaps, since all punch times are about equally far ahead, and all timeouts: within each a
     * new deadline is nearly always the latest, and adding it moves nothing.
     */
    struct nat_heap timers[NAT_TIMERS];
    uint64_t sweep_at; /* monotonic ms */
    bool sweeping;     /* a sweep is under way, of what was there at `sweep_from` */
    uint64_t sweep_from;
    uint64_t next_number;
    uint32_t expected; /* hash of an id that is to come */
    struct nat_queue queue;
    struct nat_item current; /* the action that the caller looks at */
    struct nat_counters counters;
};

/* Whether retries differ from the first attempt: other ports, one peer before the other. */
static inline bool nat_plans_retries(const struct nat_coordinator *c)
{
    return c->config.rules == NAT_RULES_FEASIBLE;
}

static inline uint64_t nat_live_count(const struct nat_coordinator *coordinator)
{
    const uint64_t *live = coordinator->counters.live;

    return live[NAT_PENDING] + live[NAT_COORDINATING] + live[NAT_EXECUTING];
}

#endif
