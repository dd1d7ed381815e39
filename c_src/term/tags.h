/* SPDX-License-Identifier: Apache-2.0 */
/* The tags of the external term format ("External Term Format" of the ERTS documentation) that we
 * know. */
#ifndef TERM_TAGS_H
#define TERM_TAGS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TAG_VERSION = 131,
    TAG_NEW_FLOAT = 70,
    TAG_BIT_BINARY = 77,
    TAG_NEW_PID = 88,
    TAG_NEW_PORT = 89,
    TAG_NEWER_REFERENCE = 90,
    TAG_SMALL_INTEGER = 97,
    TAG_INTEGER = 98,
    TAG_ATOM = 100,
    TAG_SMALL_TUPLE = 104,
    TAG_LARGE_TUPLE = 105,
    TAG_NIL = 106,
    TAG_STRING = 107,
    TAG_LIST = 108,
    TAG_BINARY = 109,
    TAG_SMALL_BIG = 110,
    TAG_LARGE_BIG = 111,
    TAG_NEW_FUN = 112,
    TAG_EXPORT = 113,
    TAG_SMALL_ATOM = 115,
    TAG_MAP = 116,
    TAG_ATOM_UTF8 = 118,
    TAG_SMALL_ATOM_UTF8 = 119,
    TAG_V4_PORT = 120,
};

/* An atom has at most this many characters, each up to 4 bytes of UTF-8. */
#define TERM_MAX_ATOM_CHARS 255

static inline bool tag_is_atom(uint8_t tag)
{
    return tag == TAG_SMALL_ATOM_UTF8 || tag == TAG_ATOM_UTF8 || tag == TAG_SMALL_ATOM ||
           tag == TAG_ATOM;
}

#endif
