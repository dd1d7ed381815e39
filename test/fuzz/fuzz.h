/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share. Each target is one libFuzzer program with a corpus of its own
 * (corpus/NAME) that corpus.erl has grown from real traffic.
 *
 * A run must depend on its input alone, or what it finds cannot be found again: fuzz.c takes the
 * place of OpenSSL's random bytes with a known sequence, which every run begins with fuzz_begin.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "base/buffer.h"

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Starts the sequence of random bytes from its beginning. */
void fuzz_begin(void);

/* Ends the program with a report of what was not as it must be. */
#define fuzz_check(condition)                          \
    do {                                               \
        if (!(condition))                              \
            fuzz_fail(#condition, __FILE__, __LINE__); \
    } while (0)
_Noreturn void fuzz_fail(const char *condition, const char *file, int line);

/*
 * A copy of the input with nothing behind it that may be read, so that a sanitizer sees the first
 * byte too many; free() its data.
 */
struct slice fuzz_copy(const uint8_t *data, size_t size);

/* The input as one term that has passed the check, or an empty slice. */
struct slice fuzz_term(struct slice input);

#endif
