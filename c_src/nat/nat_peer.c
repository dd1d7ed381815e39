/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include <stdlib.h>
#include <string.h>

/* Finds or makes the peer and takes a reference. NULL if there is no memory. */
static struct nat_peer *peer_get(struct nat_coordinator *c, struct nat_bytes id)
{
    struct nat_peer **shard, *peer;
    uint32_t hash;

    if (id.len == 0)
        id.data = ""; /* memcmp wants a pointer even then */
    hash = nat_hash(c->config.hash_key, id.data, id.len);
    shard = &c->peers[NAT_SHARD(hash)];
    HASH_FIND_BYHASHVALUE(hh, *shard, id.data, id.len, hash, peer);
    if (peer != NULL) {
        peer->refs++;
        return peer;
    }
    peer = malloc(sizeof *peer + id.len);
    if (peer == NULL)
        return NULL;
    peer->refs = 1;
    memcpy(peer->id, id.data, id.len);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, *shard, peer->id, id.len, hash, peer);
    if (peer->hh.tbl == NULL) {
        free(peer);
        return NULL;
    }
    c->counters.peers++;
    return peer;
}

static void peer_unref(struct nat_coordinator *c, struct nat_peer *peer)
{
    if (peer == NULL || --peer->refs > 0)
        return;
    HASH_DELETE(hh, c->peers[NAT_SHARD(peer->hh.hashv)], peer);
    c->counters.peers--;
    free(peer);
}

/* Takes over a reference to each peer. */
static struct nat_pair *pair_make(struct nat_coordinator *c, struct nat_peer *const peers[2],
                                  uint32_t hash)
{
    struct nat_pair **shard = &c->pairs[NAT_SHARD(hash)];
    struct nat_pair *pair = malloc(sizeof *pair);

    if (pair == NULL)
        return NULL;
    pair->refs = 1;
    for (int i = 0; i < 2; i++) {
        pair->peers[i] = peers[i];
        pair->punches[i] = (struct nat_heap){.place = NAT_PLACE_PAIR};
    }
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, *shard, pair->peers, sizeof pair->peers, hash, pair);
    if (pair->hh.tbl == NULL) {
        free(pair);
        return NULL;
    }
    c->counters.pairs++;
    return pair;
}

struct nat_pair *nat_pair_get(struct nat_coordinator *c, struct nat_bytes initiator,
                              struct nat_bytes target, uint8_t *first)
{
    struct nat_peer *a = peer_get(c, initiator), *b = peer_get(c, target);
    struct nat_peer *peers[2];
    struct nat_pair *pair = NULL;
    uint32_t hash;

    if (a == NULL || b == NULL)
        goto unref;
    *first = (uintptr_t)a > (uintptr_t)b;
    peers[*first] = a;
    peers[!*first] = b;
    hash = nat_hash(c->config.hash_key, peers, sizeof peers);
    HASH_FIND_BYHASHVALUE(hh, c->pairs[NAT_SHARD(hash)], peers, sizeof peers, hash, pair);
    if (pair == NULL) {
        pair = pair_make(c, peers, hash);
        if (pair == NULL)
            goto unref;
        return pair;
    }
    pair->refs++;
unref:
    peer_unref(c, a);
    peer_unref(c, b);
    return pair;
}

void nat_pair_unref(struct nat_coordinator *c, struct nat_pair *pair)
{
    if (--pair->refs > 0)
        return;
    HASH_DELETE(hh, c->pairs[NAT_SHARD(pair->hh.hashv)], pair);
    c->counters.pairs--;
    peer_unref(c, pair->peers[0]);
    peer_unref(c, pair->peers[1]);
    free(pair->punches[0].entries);
    free(pair->punches[1].entries);
    free(pair);
}
