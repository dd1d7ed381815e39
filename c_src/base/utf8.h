/* SPDX-License-Identifier: Apache-2.0 */
/* Characters of strict UTF-8 (RFC 3629). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/*
 * Reads the character at the front of `len` bytes. Returns its size, or 0 if there is none: a
 * sequence that is cut short, an overlong form, a surrogate, or more than U+10FFFF.
 */
size_t utf8_next(const uint8_t *s, size_t len, uint32_t *character);

#endif
