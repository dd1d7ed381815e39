/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uthash for tables whose keys come from outside: include this and not <uthash.h>.
 *
 * The hash is keyed (siphash.h), so that nobody can fill one chain of a table. An add that finds
 * no memory leaves the item out and its hh.tbl NULL, instead of ending the program: look at it
 * (table_has) after every add.
 */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define HASH_NONFATAL_OOM                1
#define HASH_FUNCTION(keyptr, len, hash) ((hash) = table_hash((keyptr), (len)))
#include <uthash.h>

/* Whether an add has found its memory. */
#define table_has(handle) ((handle).tbl != NULL)

/* Draws the key of all tables; before the first add. Returns 0 or -EIO. */
int table_init(void);
uint32_t table_hash(const void *key, size_t len);

#endif
