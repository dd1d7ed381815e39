/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/id_text.h"

#include <string.h>

#define ROOM     (ID_TEXT_SIZE - 1)
#define ELLIPSIS "..."

const char *id_text(char out[static ID_TEXT_SIZE], struct nat_bytes id)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = id.data;
    bool is_text = true;

    if (id.len == 0)
        return strcpy(out, "\"\"");
    for (size_t i = 0; i < id.len && is_text; i++)
        is_text = bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '\\';

    size_t width = is_text ? 1 : 2;
    bool is_cut = id.len > ROOM / width;
    size_t shown = is_cut ? (ROOM - strlen(ELLIPSIS)) / width : id.len;
    if (is_text)
        memcpy(out, bytes, shown);
    for (size_t i = 0; !is_text && i < shown; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    strcpy(out + shown * width, is_cut ? ELLIPSIS : "");
    return out;
}
