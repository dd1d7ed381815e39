/* SPDX-License-Identifier: Apache-2.0 */
/* The requests to macula_routing_server, which keeps the DHT, and the values in its answers. */
#ifndef MACULA_DHT_H
#define MACULA_DHT_H

#include "macula/ask.h"

#define DHT_KEY_SIZE 32 /* SHA-256 */

/* The key of parts that follow each other: dht_key(key, "nat.profile.", id, none); `rest`, unless
 * it is empty, follows after a dot. Returns 0 or -EIO if there is no SHA-256. */
int dht_key(uint8_t key[static DHT_KEY_SIZE], const char *prefix, struct slice id,
            struct slice rest);
/* {find_value, Key, 20} */
void dht_put_find(struct buffer *b, const uint8_t key[static DHT_KEY_SIZE]);
/* {error, _} and whatever is no answer at all is a failure of the node that was asked. */
enum ask_verdict dht_judge(struct slice answer);

/*
 * Goes through the maps of an answer {ok, [Map, ...]} or {ok, Map}: start with a zeroed struct.
 * False at the end, after the first 256 terms, and for answers without any.
 */
struct dht_values {
    struct cursor cursor;
    int left;
    bool started;
};
bool dht_next_value(struct slice answer, struct dht_values *values, struct slice *map);

/* The value of a key of a map, as an atom or a binary; false if it is not there. */
bool dht_map_get(struct slice map, const char *key, struct cursor *value);

#endif
