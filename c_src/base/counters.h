/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers that a person or a program may want to see, and the way in which they are shown.
 *
 * A part that counts something declares all its counters in one list, from which the struct and its
 * visit function are made; `name` is the member, and the name that is shown:
 *
 *     #define PARCEL_COUNTERS(X) \
 *         X(sent, COUNTER, "Parcels sent") \
 *         X(waiting, GAUGE, "Parcels that wait")
 *     struct parcel_counters {
 *         PARCEL_COUNTERS(COUNTERS_MEMBER)
 *     };
 *     COUNTERS_VISIT(parcel_counters, PARCEL_COUNTERS)
 *
 * A visitor sees each with its name, kind and meaning, and writes it in a form of its own. What is
 * not counted but looked up (how many are connected) is shown by counters_show.
 */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include <stdint.h>

enum counter_kind {
    COUNTER, /* since the start; it only grows */
    GAUGE,   /* as it is now */
};

struct counter {
    const char *name;
    enum counter_kind kind;
    const char *help; /* what it counts, in a line without a full stop */
};

struct counters_visitor {
    void *ctx;
    /* What follows belongs to the group of this name, up to the next group. */
    void (*group)(void *ctx, const char *name);
    void (*count)(void *ctx, const struct counter *counter, uint64_t value);
};

static inline void counters_group(const struct counters_visitor *v, const char *name)
{
    v->group(v->ctx, name);
}

static inline void counters_show(const struct counters_visitor *v, const char *name,
                                 enum counter_kind kind, uint64_t value, const char *help)
{
    v->count(v->ctx, &(struct counter){name, kind, help}, value);
}

#define COUNTERS_MEMBER(name, kind, help) uint64_t name;

/* Defines NAME_visit(const struct NAME *, const struct counters_visitor *). */
/* clang-format off */
#define COUNTERS_VISIT(name, list)                                                             \
    static inline void name##_visit(const struct name *counters,                               \
                                    const struct counters_visitor *v)                          \
    {                                                                                          \
        list(COUNTERS_SHOW)                                                                    \
    }
#define COUNTERS_SHOW(name, kind, help) counters_show(v, #name, kind, counters->name, help);
/* clang-format on */

#endif
