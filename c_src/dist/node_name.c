/* SPDX-License-Identifier: Apache-2.0 */
#include "dist/node_name.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the UTF-8 character at `at`, 0 if it is not one or not printable. */
static size_t character_size(const uint8_t *at, size_t left)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    uint32_t code = size == 1 ? at[0] : at[0] & (0x7fu >> size);

    if ((at[0] & 0xc0) == 0x80 || at[0] > 0xf4 || size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (at[i] & 0x3f);
    }
    if (code < smallest[size] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    /* Space and the two blocks of control characters, which end with the no-break space. */
    if (code <= ' ' || (code >= 0x7f && code <= 0xa0))
        return 0;
    return size;
}

static bool is_printable(const char *name, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)name;

    for (size_t i = 0, size; i < len; i += size) {
        size = character_size(bytes + i, len - i);
        if (size == 0)
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
