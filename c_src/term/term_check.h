/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate for everything that comes off the wire: is this a whole, well-formed external term?
 *
 * ei's decoders take no length and trust the counts they read; nothing of ei may touch bytes that
 * did not pass here. The check is iterative and its depth bounded, so no term can exhaust the
 * stack. It accepts what an OTP node that knows our flags can send: no compressed terms, no atom
 * cache references, no local terms. Source: "External Term Format" of the ERTS documentation.
 */
#ifndef TERM_CHECK_H
#define TERM_CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TERM_MAX_DEPTH 256
/* Of all maps of a term: more would take longer to compare than others should wait. */
#define TERM_MAX_KEYS 32768
/* For the same reason: 16 MiB of empty lists take as long as a hundred times as much of a binary.
 */
#define TERM_MAX_TERMS (1 << 20)

/*
 * Returns the size in bytes of the one term (without version byte) that starts at `data`; -EBADMSG
 * if it is malformed, unknown or cut short, -E2BIG if it is nested deeper than TERM_MAX_DEPTH
 * or has more than TERM_MAX_KEYS or TERM_MAX_TERMS, -ENOMEM without memory to compare the keys of
 * its maps.
 */
ssize_t term_check(const uint8_t *data, size_t len);

/* Returns the size of a term that has passed the check, or is part of one that has. */
size_t term_size(const uint8_t *data);

#endif
