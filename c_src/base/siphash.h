/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A keyed hash for tables: whoever can choose what goes into a table must not be able to choose
 * collisions. Uses nothing; the key is the caller's, random and secret.
 */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIPHASH_KEY_LEN 16

static inline uint64_t siphash_rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline __attribute__((always_inline)) void siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = siphash_rotate(v[1], 13) ^ v[0];
    v[0] = siphash_rotate(v[0], 32);
    v[2] += v[3];
    v[3] = siphash_rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = siphash_rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = siphash_rotate(v[1], 17) ^ v[2];
    v[2] = siphash_rotate(v[2], 32);
}

/*
 * SipHash (Aumasson, Bernstein), one round per word and three at the end, as the tables of other
 * runtimes use it. Words are read in the machine's byte order: the hash never leaves this process.
 */
static inline uint32_t siphash(const uint8_t key[SIPHASH_KEY_LEN], const void *data, size_t len)
{
    const uint8_t *at = data;
    uint64_t k[2], word, last = (uint64_t)len << 56;
    uint64_t v[4];

    memcpy(k, key, sizeof k);
    v[0] = k[0] ^ 0x736f6d6570736575u;
    v[1] = k[1] ^ 0x646f72616e646f6du;
    v[2] = k[0] ^ 0x6c7967656e657261u;
    v[3] = k[1] ^ 0x7465646279746573u;
    for (; len >= sizeof word; len -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        v[3] ^= word;
        siphash_round(v);
        v[0] ^= word;
    }
    for (size_t i = 0; i < len; i++)
        last |= (uint64_t)at[i] << (8 * i);
    v[3] ^= last;
    siphash_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    siphash_round(v);
    siphash_round(v);
    siphash_round(v);
    word = v[0] ^ v[1] ^ v[2] ^ v[3];
    return (uint32_t)(word ^ word >> 32);
}

#endif
