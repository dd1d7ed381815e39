/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole lines to a standard stream that may take no more: written at once or not at all, so that
 * neither a reader that has stopped nor a full disk ever stops the program. The flags of the open
 * file are not touched, as it is shared with the program that started us.
 */
#ifndef BASE_LINE_OUT_H
#define BASE_LINE_OUT_H

#include <stdbool.h>
#include <stddef.h>

struct line_out {
    int fd;
    bool is_own;  /* opened here */
    bool is_torn; /* a part of the last line was taken */
};

/* Prepares to write to the stream `fd`, which stays the caller's. */
void line_out_open(struct line_out *out, int fd);
void line_out_close(struct line_out *out);

/* Writes a line of `len` bytes, its newline included, no longer than PIPE_BUF. Returns whether all
 * of it was taken. What was not is lost; the next line begins on a line of its own all the same. */
bool line_out_write(struct line_out *out, const char *line, size_t len);

#endif
