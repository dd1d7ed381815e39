/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/id_text.h"

#include <stdio.h>
#include <string.h>

#define ROOM     (ID_TEXT_SIZE - 1)
#define ELLIPSIS "..."

const char *id_text(char out[static ID_TEXT_SIZE], struct nat_bytes id)
{
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
    else
        for (size_t i = 0; i < shown; i++)
            snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    strcpy(out + shown * width, is_cut ? ELLIPSIS : "");
    return out;
}
