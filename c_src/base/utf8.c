/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

size_t utf8_next(const uint8_t *s, size_t len, uint32_t *character)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    uint32_t c = len > 0 ? s[0] : 0xff;
    size_t more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;

    if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || len <= more)
        return 0;
    if (more > 0)
        c &= 0x3fu >> more;
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < smallest[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *character = c;
    return more + 1;
}
