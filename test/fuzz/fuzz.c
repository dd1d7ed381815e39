/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"

#include "term/term_check.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t draws;

void fuzz_begin(void)
{
    draws = 0;
}

/*
 * Instead of OpenSSL's. Blocks of 16 bytes, as session ids are, count from the end of the buffer,
 * where the coordinator takes its first from: corpus.erl gives the sessions in its frames the same
 * ids.
 */
int RAND_bytes(unsigned char *bytes, int size)
{
    draws++;
    for (int i = 0; i < size; i++)
        bytes[size - 1 - i] =
            (uint8_t)(i / 16 + (i % 16 < 4 ? (draws - 1) >> (8 * (i % 16)) : 'A'));
    return 1;
}

void fuzz_fail(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    abort();
}

struct slice fuzz_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    fuzz_check(copy);
    if (size)
        memcpy(copy, data, size);
    return (struct slice){copy, size};
}

struct slice fuzz_term(struct slice input)
{
    ssize_t size = term_check(input.data, input.len);

    fuzz_check(size <= (ssize_t)input.len);
    return size > 0 ? (struct slice){input.data, (size_t)size} : (struct slice){0};
}
