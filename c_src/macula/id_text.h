/* SPDX-License-Identifier: Apache-2.0 */
/* Ids of peers and sessions, which are any bytes, as text for log lines. */
#ifndef MACULA_ID_TEXT_H
#define MACULA_ID_TEXT_H

#include "macula_nat.h"

/* Room for 64 characters and the ending 0. */
#define ID_TEXT_SIZE 65

/*
 * Writes the id as it is if all its bytes are printable ASCII, else in hex. What does not fit is
 * cut and ends in "...". An empty id is written as two quotes. Returns `out`.
 */
const char *id_text(char out[static ID_TEXT_SIZE], struct nat_bytes id);

#endif
