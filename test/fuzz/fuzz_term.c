/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check of a term, every reader at every place of it, and the writers: what was read and
 * written again must pass the check, be read as the same, and then be written as the same bytes.
 */
#include "fuzz.h"

#include "term/cursor.h"
#include "term/tags.h"
#include "term/term_check.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>

/* Every reader that does not match must stay where it was. */
static void try_all(struct cursor c)
{
    union {
        int count;
        struct slice slice;
        bool flag;
        int64_t integer;
        struct pid pid;
    } v;
    const int at = c.at;

#define TRY(read)                                   \
    do {                                            \
        if (read)                                   \
            fuzz_check(c.at > at && c.at <= c.end); \
        else                                        \
            fuzz_check(c.at == at);                 \
        c.at = at;                                  \
    } while (0)
    TRY(cursor_tuple(&c, 2));
    TRY(cursor_any_tuple(&c, &v.count));
    TRY(cursor_list(&c, &v.count));
    TRY(cursor_map(&c, &v.count));
    TRY(cursor_atom(&c, &v.slice));
    TRY(cursor_is_atom(&c, "ok"));
    TRY(cursor_bool(&c, &v.flag));
    TRY(cursor_int(&c, &v.integer));
    TRY(cursor_binary(&c, &v.slice));
    TRY(cursor_pid(&c, &v.pid));
    TRY(cursor_reference(&c, &v.slice));
    TRY(cursor_term(&c, &v.slice));
#undef TRY
}

/* Reads one term's head, or all of a term that holds none, and writes it; how many follow in it. */
static size_t copy_one(struct cursor *c, struct buffer *out)
{
    struct slice slice;
    struct pid pid;
    int64_t integer;
    uint64_t number;
    int count;

    if (cursor_any_tuple(c, &count)) {
        term_put_tuple(out, count);
        return (size_t)count;
    }
    if (cursor_list(c, &count)) {
        if (count == 0)
            term_put_nil(out);
        else
            term_put_list(out, count);
        return count ? (size_t)count + 1 : 0;
    }
    if (cursor_map(c, &count)) {
        term_put_map(out, count);
        return (size_t)count * 2;
    }
    uint8_t tag = cursor_tag(c);
    if (tag != TAG_ATOM && tag != TAG_SMALL_ATOM && cursor_atom(c, &slice))
        term_put_atom_slice(out, slice);
    else if (cursor_int(c, &integer))
        term_put_int(out, integer);
    else if (cursor_binary(c, &slice))
        term_put_binary(out, slice);
    else if (tag == TAG_NEW_PID && c->data[c->at + 1] == TAG_SMALL_ATOM_UTF8 && cursor_pid(c, &pid))
        term_put_pid(out, &pid);
    else {
        fuzz_check(cursor_term(c, &slice));
        reference_number(slice, slice_of("node@host"), 1, &number);
        term_put_raw(out, slice);
    }
    return 0;
}

static struct slice copy_term(struct slice term, struct buffer *out)
{
    struct cursor c = cursor_of(term);

    for (size_t left = 1; left > 0; left--) {
        fuzz_check(c.at < c.end);
        try_all(c);
        left += copy_one(&c, out);
    }
    fuzz_check(c.at == c.end);
    fuzz_check(!out->overflow);
    return buffer_slice(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy(data, size);
    struct slice term = fuzz_term(input);
    struct buffer first, second;

    if (term.len > 0) {
        buffer_init(&first);
        buffer_init(&second);
        struct slice written = copy_term(term, &first);
        fuzz_check(term_check(written.data, written.len) == (ssize_t)written.len);
        fuzz_check(slice_equal(copy_term(written, &second), written));
        buffer_free(&first);
        buffer_free(&second);
    }
    free((void *)input.data);
    return 0;
}
