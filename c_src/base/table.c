/* SPDX-License-Identifier: Apache-2.0 */
#include "base/table.h"

#include "base/siphash.h"

#include <errno.h>
#include <openssl/rand.h>

static uint8_t table_key[SIPHASH_KEY_LEN];

int table_init(void)
{
    return RAND_bytes(table_key, sizeof table_key) == 1 ? 0 : -EIO;
}

uint32_t table_hash(const void *key, size_t len)
{
    return siphash(table_key, key, len);
}
