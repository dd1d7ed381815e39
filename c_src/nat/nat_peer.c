/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include <stdlib.h>
#include <string.h>

struct nat_peer *nat_peer_get(struct nat_coordinator *c, struct nat_bytes id)
{
    struct nat_peer **shard, *peer;
    uint32_t hash;

    if (id.len == 0)
        id.data = ""; /* memcmp wants a pointer even then */
    hash = nat_hash(c->config.hash_key, id.data, id.len);
    shard = &c->peers[NAT_SHARD(hash)];
    HASH_FIND_BYHASHVALUE(hh, *shard, id.data, id.len, hash, peer);
    if (peer) {
        peer->refs++;
        return peer;
    }
    peer = malloc(sizeof *peer + id.len);
    if (!peer)
        return NULL;
    peer->refs = 1;
    peer->delay_ms = 0;
    memcpy(peer->id, id.data, id.len);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, *shard, peer->id, id.len, hash, peer);
    if (!peer->hh.tbl) {
        free(peer);
        return NULL;
    }
    c->counters.peers++;
    c->counters.id_bytes += id.len;
    return peer;
}

void nat_peer_unref(struct nat_coordinator *c, struct nat_peer *peer)
{
    if (!peer || --peer->refs > 0)
        return;
    HASH_DELETE(hh, c->peers[NAT_SHARD(peer->hh.hashv)], peer);
    c->counters.peers--;
    c->counters.id_bytes -= peer->hh.keylen;
    free(peer);
}

void nat_peer_delay(struct nat_coordinator *c, struct nat_bytes id, uint32_t delay_ms)
{
    struct nat_peer *peer = id.len <= NAT_ID_MAX ? nat_peer_get(c, id) : NULL;

    if (peer)
        peer->delay_ms = delay_ms;
    nat_peer_unref(c, peer);
}

/* The key of a pair. Returns the index of `initiator` in it. */
static uint8_t order(struct nat_peer *key[2], struct nat_peer *initiator, struct nat_peer *target)
{
    uint8_t first = (uintptr_t)initiator > (uintptr_t)target;

    key[first] = initiator;
    key[!first] = target;
    return first;
}

static struct nat_pair *pair_find(struct nat_coordinator *c, struct nat_peer *const key[2],
                                  uint32_t hash)
{
    struct nat_pair *pair;

    HASH_FIND_BYHASHVALUE(hh, c->pairs[NAT_SHARD(hash)], key, sizeof pair->peers, hash, pair);
    return pair;
}

static struct nat_pair *pair_make(struct nat_coordinator *c, struct nat_peer *const key[2],
                                  uint32_t hash)
{
    struct nat_pair **shard = &c->pairs[NAT_SHARD(hash)];
    struct nat_pair *pair = malloc(sizeof *pair);

    if (!pair)
        return NULL;
    pair->refs = 0;
    for (int i = 0; i < 2; i++) {
        pair->peers[i] = key[i];
        pair->punches[i] = (struct nat_heap){.place = NAT_PLACE_PAIR};
    }
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, *shard, pair->peers, sizeof pair->peers, hash, pair);
    if (!pair->hh.tbl) {
        free(pair);
        return NULL;
    }
    c->counters.pairs++;
    return pair;
}

struct nat_session *nat_pair_newest_punch(struct nat_coordinator *c, struct nat_peer *initiator,
                                          struct nat_peer *target)
{
    struct nat_peer *key[2];
    const struct nat_pair *pair;
    uint8_t first;

    if (c->counters.pairs == 0)
        return NULL;
    first = order(key, initiator, target);
    pair = pair_find(c, key, nat_hash(c->config.hash_key, key, sizeof key));
    if (!pair || pair->punches[first].count == 0)
        return NULL;
    return pair->punches[first].entries[0].session;
}

struct nat_pair *nat_pair_get(struct nat_coordinator *c, struct nat_peer *initiator,
                              struct nat_peer *target, uint8_t *first)
{
    struct nat_peer *key[2];
    struct nat_pair *pair;
    uint32_t hash;

    *first = order(key, initiator, target);
    hash = nat_hash(c->config.hash_key, key, sizeof key);
    pair = pair_find(c, key, hash);
    if (!pair)
        pair = pair_make(c, key, hash);
    if (pair)
        pair->refs++;
    return pair;
}

void nat_pair_unref(struct nat_coordinator *c, struct nat_pair *pair)
{
    if (--pair->refs > 0)
        return;
    HASH_DELETE(hh, c->pairs[NAT_SHARD(pair->hh.hashv)], pair);
    c->counters.pairs--;
    free(pair->punches[0].entries);
    free(pair->punches[1].entries);
    free(pair);
}
