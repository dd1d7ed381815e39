/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_expect.h"
#include "nat/nat_internal.h"
#include "nat/nat_prefetch.h"
#include "nat/nat_profile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Ended sessions are remembered until the next sweep, so that late reports can be told from strange
 * ones; they do not count as live. A flood of sessions that end at once must not fill the memory:
 * beyond the larger of max_sessions and this the oldest is forgotten early.
 */
#define ENDED_MIN 65536u

/* RFC 4648, section 4. */
static void encode_base64(const uint8_t in[NAT_RANDOM_LEN], char out[NAT_MADE_ID_LEN])
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits;

    for (int i = 0; i < 15; i += 3) {
        bits = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
        *out++ = alphabet[bits >> 18];
        *out++ = alphabet[bits >> 12 & 63];
        *out++ = alphabet[bits >> 6 & 63];
        *out++ = alphabet[bits & 63];
    }
    *out++ = alphabet[in[15] >> 2];
    *out++ = alphabet[in[15] << 4 & 63];
    *out++ = '=';
    *out = '=';
}

static const UT_hash_bucket *expected_bucket(const struct nat_coordinator *c)
{
    return nat_bucket_of(c->sessions[NAT_SHARD(c->expected)], c->expected);
}

/* One step at a time, as each has to arrive before the next can be asked for. */
void nat_expect(struct nat_coordinator *c, const uint8_t random[NAT_RANDOM_LEN])
{
    const UT_hash_bucket *bucket = expected_bucket(c);
    char id[NAT_MADE_ID_LEN];

    if (bucket)
        __builtin_prefetch(bucket->hh_head, 1);
    encode_base64(random, id);
    c->expected = nat_hash(c->config.hash_key, id, sizeof id);
    bucket = expected_bucket(c);
    if (bucket)
        __builtin_prefetch(bucket, 1);
}

static struct nat_session *lookup(struct nat_coordinator *c, struct nat_bytes id, uint32_t hash)
{
    struct nat_session *session;

    HASH_FIND_BYHASHVALUE(hh, c->sessions[NAT_SHARD(hash)], id.data, id.len, hash, session);
    return session;
}

struct nat_session *nat_session_lookup(struct nat_coordinator *c, struct nat_bytes id)
{
    /* uthash takes an unsigned length: a longer one must not be cut down to another id. */
    if (id.len == 0 || id.len > NAT_ID_MAX)
        return NULL;
    return lookup(c, id, nat_hash(c->config.hash_key, id.data, id.len));
}

static void session_free(struct nat_coordinator *c, struct nat_session *session)
{
    if (session->hh.key != session->made_id) {
        c->counters.id_bytes -= session->hh.keylen;
        free((void *)(uintptr_t)session->hh.key);
    }
    free(session);
}

/* Enters the session into the table under a copy of `id`. */
static int enter(struct nat_coordinator *c, struct nat_session *session, struct nat_bytes id)
{
    uint32_t hash = nat_hash(c->config.hash_key, id.data, id.len);
    char *key = session->made_id;

    if (lookup(c, id, hash))
        return -EEXIST;
    if (id.len > sizeof session->made_id) {
        key = malloc(id.len);
        if (!key)
            return -ENOMEM;
        c->counters.id_bytes += id.len;
    }
    memmove(key, id.data, id.len);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, c->sessions[NAT_SHARD(hash)], key, id.len, hash, session);
    return !session->hh.tbl ? -ENOMEM : 0;
}

int nat_session_create(struct nat_coordinator *c, struct nat_now now,
                       const struct nat_request *request, const struct nat_bytes *id,
                       struct nat_peer *const peers[2], struct nat_session **out)
{
    struct nat_session *session = malloc(sizeof *session);
    struct nat_bytes made;
    int error;

    if (!session)
        return -ENOMEM;
    *session = (struct nat_session){
        .hh.key = session->made_id,
        .peers = {peers[NAT_INITIATOR], peers[NAT_TARGET]},
        .number = c->next_number,
        .since = now.monotonic_ms,
        .created_at = now.unix_ms / 1000,
        .places = {NAT_NO_PLACE, NAT_NO_PLACE},
        .refs = 1,
        .max_attempts = request->options.max_punch_attempts,
        .timeout_ms = request->options.punch_timeout_ms,
        .origin = request->options.origin,
        .state = NAT_PENDING,
    };
    made = (struct nat_bytes){session->made_id, NAT_MADE_ID_LEN};
    if (!id)
        encode_base64(request->random, session->made_id);
    error = enter(c, session, id ? *id : made);
    if (error < 0) {
        session_free(c, session);
        return error;
    }
    for (int role = 0; role < 2; role++)
        peers[role]->refs++;
    nat_session_keep_profile(c, session, NAT_INITIATOR, request->initiator_profile);
    nat_session_keep_profile(c, session, NAT_TARGET, request->target_profile);
    c->next_number++;
    c->counters.live[NAT_PENDING]++;
    DL_PREPEND(c->live, session);
    DL_APPEND2(c->pending, session, pending_prev, pending_next);
    *out = session;
    return 0;
}

int nat_session_prepare(struct nat_coordinator *c, const struct nat_session *session)
{
    return nat_queue_reserve(&c->queue, NAT_TRANSITION_ACTIONS(session->watcher_count));
}

int nat_session_let_punch(struct nat_coordinator *c, struct nat_session *session)
{
    struct nat_heap *heaps[1 + NAT_TIMERS];
    struct nat_pair *pair;
    int reserved = 0;

    if (session->pair)
        return 0;
    pair =
        nat_pair_get(c, session->peers[NAT_INITIATOR], session->peers[NAT_TARGET], &session->first);
    if (!pair)
        return -ENOMEM;
    heaps[0] = &pair->punches[session->first];
    for (int i = 0; i < NAT_TIMERS; i++)
        heaps[1 + i] = &c->timers[i];
    while (reserved < 1 + NAT_TIMERS && nat_heap_reserve(heaps[reserved]) == 0)
        reserved++;
    if (reserved == 1 + NAT_TIMERS) {
        session->pair = pair;
        return 0;
    }
    while (reserved > 0)
        nat_heap_release(heaps[--reserved]);
    nat_pair_unref(c, pair);
    return -ENOMEM;
}

static void leave_pair(struct nat_coordinator *c, struct nat_session *session)
{
    struct nat_heap *punches = &session->pair->punches[session->first];

    nat_heap_remove(punches, session);
    nat_heap_release(punches);
    for (int i = 0; i < NAT_TIMERS; i++)
        nat_heap_release(&c->timers[i]);
    nat_pair_unref(c, session->pair);
    session->pair = NULL;
}

int nat_session_watch(struct nat_coordinator *c, struct nat_session *session,
                      const struct nat_options *options)
{
    struct nat_watcher *watcher;
    bool refused;

    if (!options->has_watcher)
        return 0;
    LL_SEARCH_SCALAR(session->watchers, watcher, token, options->watcher);
    refused = session->watcher_count >= NAT_WATCHERS_MAX ||
              c->counters.id_bytes >= c->config.max_id_bytes;
    if (watcher || refused) {
        c->counters.watchers_refused += !watcher;
        nat_queue_release(c, options->watcher);
        return 0;
    }
    watcher = malloc(sizeof *watcher);
    if (!watcher)
        return -ENOMEM;
    watcher->token = options->watcher;
    LL_PREPEND(session->watchers, watcher);
    session->watcher_count++;
    c->counters.id_bytes += sizeof *watcher;
    return 0;
}

static void release_watchers(struct nat_coordinator *c, struct nat_session *session)
{
    struct nat_watcher *watcher, *next;

    c->counters.id_bytes -= session->watcher_count * sizeof *watcher;
    LL_FOREACH_SAFE (session->watchers, watcher, next) {
        nat_queue_release(c, watcher->token);
        free(watcher);
    }
    session->watchers = NULL;
    session->watcher_count = 0;
}

/* Many sessions keep the same profile: its bytes are counted with the first, until the last. */
void nat_session_keep_profile(struct nat_coordinator *c, struct nat_session *session,
                              enum nat_role role, struct nat_profile *profile)
{
    struct nat_profile *old = session->profiles[role];

    if (profile && profile->sessions++ == 0)
        c->counters.profile_bytes += profile->source_len;
    session->profiles[role] = nat_profile_ref(profile);
    if (old && --old->sessions == 0)
        c->counters.profile_bytes -= old->source_len;
    nat_profile_unref(old);
}

static void release_profiles(struct nat_coordinator *c, struct nat_session *session)
{
    nat_session_keep_profile(c, session, NAT_INITIATOR, NULL);
    nat_session_keep_profile(c, session, NAT_TARGET, NULL);
}

void nat_session_set_state(struct nat_coordinator *c, struct nat_session *session,
                           enum nat_state state)
{
    c->counters.live[session->state]--;
    c->counters.live[state]++;
    session->state = (uint8_t)state;
}

/* Out of everything that only live sessions are in. */
static void leave_the_living(struct nat_coordinator *c, struct nat_session *session)
{
    if (session->state == NAT_PENDING)
        DL_DELETE2(c->pending, session, pending_prev, pending_next);
    else
        nat_heap_remove(&c->timers[session->state - NAT_COORDINATING], session);
    if (session->pair)
        leave_pair(c, session);
    DL_DELETE(c->live, session);
    c->counters.live[session->state]--;
}

void nat_session_end(struct nat_coordinator *c, struct nat_now now, struct nat_session *session,
                     enum nat_state state, enum nat_result result)
{
    uint64_t most = c->config.max_sessions > ENDED_MIN ? c->config.max_sessions : ENDED_MIN;

    leave_the_living(c, session);
    session->state = (uint8_t)state;
    session->result = (uint8_t)result;
    session->since = now.monotonic_ms;
    nat_queue_notify(c, session);
    release_watchers(c, session);
    release_profiles(c, session);
    DL_APPEND(c->ended, session);
    c->counters.ended++;
    c->counters.completed += result == NAT_RESULT_SUCCESS;
    c->counters.failed_timeout += result == NAT_RESULT_TIMEOUT;
    c->counters.failed_unreachable += result == NAT_RESULT_UNREACHABLE;
    if (c->counters.ended > most)
        nat_session_drop(c, c->ended);
}

void nat_session_drop(struct nat_coordinator *c, struct nat_session *session)
{
    if (nat_session_is_live(session)) {
        leave_the_living(c, session);
        release_watchers(c, session);
    } else {
        DL_DELETE(c->ended, session);
        c->counters.ended--;
        c->counters.swept_ended++;
    }
    HASH_DELETE(hh, c->sessions[NAT_SHARD(session->hh.hashv)], session);
    nat_session_unref(c, session);
}

void nat_session_unref(struct nat_coordinator *c, struct nat_session *session)
{
    if (--session->refs > 0)
        return;
    release_profiles(c, session);
    nat_peer_unref(c, session->peers[NAT_INITIATOR]);
    nat_peer_unref(c, session->peers[NAT_TARGET]);
    session_free(c, session);
}

void nat_session_show(const struct nat_session *session, struct nat_session_view *view)
{
    const struct nat_peer *initiator = session->peers[NAT_INITIATOR];
    const struct nat_peer *target = session->peers[NAT_TARGET];

    *view = (struct nat_session_view){
        .session_id = {session->hh.key, session->hh.keylen},
        .initiator_id = {initiator->id, initiator->hh.keylen},
        .target_id = {target->id, target->hh.keylen},
        .initiator_profile = session->profiles[NAT_INITIATOR],
        .target_profile = session->profiles[NAT_TARGET],
        .strategy = (enum nat_strategy)session->strategy,
        .state = (enum nat_state)session->state,
        .result = (enum nat_result)session->result,
        .attempts = session->attempts,
        .created_at = session->created_at,
    };
}

struct nat_session *nat_session_oldest(struct nat_coordinator *c)
{
    struct nat_session *session = c->live ? c->live->prev : NULL;

    while (session && session->state == NAT_STATE_CURSOR)
        session = session == c->live ? NULL : session->prev;
    return session;
}
