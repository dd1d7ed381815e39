/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/node_name.h"

#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Neither space nor in one of the two blocks of control characters, of which the second ends with
 * the no-break space. */
static bool is_printable(const char *name, size_t len)
{
    const uint8_t *at = (const uint8_t *)name;
    uint32_t c;

    for (size_t left = len, size; left > 0; at += size, left -= size) {
        size = utf8_next(at, left, &c);
        if (size == 0 || c <= ' ' || (c >= 0x7f && c <= 0xa0))
            return false;
    }
    return len > 0;
}

bool node_name_is_valid(const char *name, size_t len)
{
    const char *at = memchr(name, '@', len);

    if (len > NODE_NAME_MAX || !at || at == name || at == name + len - 1)
        return false;
    return !memchr(at + 1, '@', len - (size_t)(at + 1 - name)) && is_printable(name, len);
}

bool node_name_host_is_valid(const char *host, size_t len)
{
    return len <= NODE_NAME_MAX && !memchr(host, '@', len) && is_printable(host, len);
}
