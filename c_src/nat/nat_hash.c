/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include "base/siphash.h"

uint32_t nat_hash(const uint8_t key[16], const void *data, size_t len)
{
    return siphash(key, data, len);
}
