/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/counters_term.h"

static void on_group(void *ctx, const char *name)
{
    struct counters_term *t = ctx;

    counters_term_close(t);
    term_put_key(t->map, name);
    term_open_map(&t->group, t->map->out);
    t->has_group = true;
}

static void on_count(void *ctx, const struct counter *counter, uint64_t value)
{
    struct counters_term *t = ctx;

    term_put_key(t->has_group ? &t->group : t->map, counter->name);
    term_put_int(t->map->out, (int64_t)value);
}

void counters_term_open(struct counters_term *t, struct term_map *map)
{
    *t = (struct counters_term){.visitor = {t, on_group, on_count}, .map = map};
}

void counters_term_close(struct counters_term *t)
{
    if (t->has_group)
        term_close_map(&t->group);
    t->has_group = false;
}
