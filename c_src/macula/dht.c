/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/dht.h"

#include "term/term_write.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#define FIND_COUNT 20  /* what v0.14.3 asks for */
#define LOOKED_AT  256 /* of an answer that has more nobody needs the rest */

int dht_key(uint8_t key[static DHT_KEY_SIZE], const char *prefix, struct slice id,
            struct slice rest)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(ctx, prefix, strlen(prefix)) == 1 &&
              EVP_DigestUpdate(ctx, id.data, id.len) == 1 &&
              (rest.len == 0 || (EVP_DigestUpdate(ctx, ".", 1) == 1 &&
                                 EVP_DigestUpdate(ctx, rest.data, rest.len) == 1)) &&
              EVP_DigestFinal_ex(ctx, key, NULL) == 1;

    EVP_MD_CTX_free(ctx);
    return ok ? 0 : -EIO;
}

void dht_put_find(struct buffer *b, const uint8_t key[static DHT_KEY_SIZE])
{
    term_put_tuple(b, 3);
    term_put_atom(b, "find_value");
    term_put_binary(b, (struct slice){key, DHT_KEY_SIZE});
    term_put_int(b, FIND_COUNT);
}

enum ask_verdict dht_judge(struct slice answer)
{
    struct cursor c = cursor_of(answer);

    if (!cursor_tuple(&c, 2))
        return cursor_is_atom(&c, "ok") ? ASK_ACCEPT : ASK_NEXT;
    return cursor_is_atom(&c, "ok") || cursor_is_atom(&c, "nodes") ? ASK_ACCEPT : ASK_NEXT;
}

static bool start(struct slice answer, struct dht_values *values)
{
    struct cursor c = cursor_of(answer);
    int pairs;

    values->started = true;
    if (!cursor_tuple(&c, 2) || !cursor_is_atom(&c, "ok"))
        return false;
    values->cursor = c;
    if (cursor_map(&c, &pairs)) {
        values->left = 1;
        return true;
    }
    if (!cursor_list(&values->cursor, &values->left))
        return false;
    if (values->left > LOOKED_AT)
        values->left = LOOKED_AT;
    return true;
}

bool dht_next_value(struct slice answer, struct dht_values *values, struct slice *map)
{
    if (!values->started && !start(answer, values))
        values->left = 0;
    while (values->left > 0) {
        struct cursor probe;
        int pairs;
        values->left--;
        if (!cursor_term(&values->cursor, map))
            break;
        probe = cursor_of(*map);
        if (cursor_map(&probe, &pairs))
            return true;
    }
    return false;
}

bool dht_map_get(struct slice map, const char *key, struct cursor *value)
{
    struct cursor c = cursor_of(map);
    int pairs;

    if (!cursor_map(&c, &pairs))
        return false;
    for (int i = 0; i < pairs; i++) {
        struct slice name, raw;
        bool named = cursor_atom(&c, &name) || cursor_binary(&c, &name);
        if (!named && !cursor_term(&c, &raw))
            return false;
        if (!cursor_term(&c, &raw))
            return false;
        if (named && slice_is(name, key)) {
            *value = cursor_of(raw);
            return true;
        }
    }
    return false;
}
