/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NAT profiles between terms and the NAT library: nat_profile() maps as macula nodes keep them,
 * with atom keys, and as the DHT has them, with binary keys and policies as binaries.
 */
#ifndef MACULA_PROFILE_TERM_H
#define MACULA_PROFILE_TERM_H

#include "base/buffer.h"
#include "macula_nat.h"
#include "term/cursor.h"

/* A larger map is no profile: nobody's NAT needs so many words. */
#define PROFILE_TERM_MAX ((size_t)1 << 20)

/*
 * Reads a profile, which keeps the term as its source. Keys that are not known, or have a value of
 * another type than theirs, count as absent (policies: see enum nat_policy). Returns 0 (one
 * reference in `out`), -EINVAL if the term is no map, -EMSGSIZE, or -ENOMEM.
 */
int profile_from_term(struct nat_profile **out, struct slice term);

/*
 * Reads a profile from the DHT. It keeps as its source the map as nat_profile() has it: with the
 * keys that are known as atoms, and the policies that are; what is not known stays as it is.
 * Returns as profile_from_term().
 */
int profile_from_dht(struct nat_profile **out, struct slice term);

/* Writes the map with its keys ttl_seconds and detected_at set, as `put` of macula_nat_cache does.
 */
void profile_put_dated(struct buffer *b, struct slice map, int64_t ttl_seconds,
                       int64_t detected_at);

/* Writes the profile as it was read, or `undefined` for NULL. */
void profile_put(struct buffer *b, const struct nat_profile *profile);

static inline struct nat_bytes nat_bytes_of(struct slice s)
{
    return (struct nat_bytes){s.data, s.len};
}

static inline struct slice slice_of_nat(struct nat_bytes b)
{
    return (struct slice){b.data, b.len};
}

#endif
