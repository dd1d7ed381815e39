/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cookie: where it comes from, and what is refused. The rules are those of OTP's auth.erl. A
 * cookie is a secret: it is never logged, and no error text holds any part of it. The caller owns
 * the buffer and may overwrite it (OPENSSL_cleanse) when the cookie is no longer needed.
 */
#ifndef COOKIE_H
#define COOKIE_H

#include <stddef.h>

/* A cookie is an atom of at most 255 characters; and the ending 0. */
#define COOKIE_SIZE 256

/*
 * Loads the cookie into `cookie`. The first of these is taken: the environment variable
 * MACULA_NAT_COOKIE; the file `cookie_file` unless NULL; ~/.erlang.cookie; erlang/.erlang.cookie in
 * $XDG_CONFIG_HOME (or ~/.config). If there is none, ~/.erlang.cookie is made with 20 random
 * capital letters and mode 0400.
 *
 * A file must be a regular one that neither group nor others can access; `cookie_file` may be
 * readable by its group if its owner is root or this user. A cookie is 1 to 255 printable ASCII
 * characters; line ends and spaces after a line end are ignored. The variable is wiped and taken
 * out of the environment.
 *
 * Returns 0, or a negative errno with one line (no newline) in `error`.
 */
int cookie_load(char cookie[static COOKIE_SIZE], const char *cookie_file, char *error,
                size_t error_size);

#endif
