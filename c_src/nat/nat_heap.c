/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include <errno.h>
#include <stdlib.h>

#define CHILDREN 4u

static void put(struct nat_heap *heap, uint32_t at, struct nat_heap_entry entry)
{
    heap->entries[at] = entry;
    entry.session->places[heap->place] = at;
}

static void sift_up(struct nat_heap *heap, uint32_t at, struct nat_heap_entry entry)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / CHILDREN;

        if (heap->entries[parent].key <= entry.key)
            break;
        put(heap, at, heap->entries[parent]);
        at = parent;
    }
    put(heap, at, entry);
}

static void sift_down(struct nat_heap *heap, uint32_t at, struct nat_heap_entry entry)
{
    for (;;) {
        uint64_t child = (uint64_t)at * CHILDREN + 1, end = child + CHILDREN;
        uint32_t least;

        if (child >= heap->count)
            break;
        least = (uint32_t)child;
        for (child++; child < end && child < heap->count; child++)
            if (heap->entries[child].key < heap->entries[least].key)
                least = (uint32_t)child;
        if (heap->entries[least].key >= entry.key)
            break;
        put(heap, at, heap->entries[least]);
        at = least;
    }
    put(heap, at, entry);
}

static int resize(struct nat_heap *heap, uint32_t capacity)
{
    struct nat_heap_entry *entries = realloc(heap->entries, capacity * sizeof *entries);

    if (!entries)
        return -ENOMEM;
    heap->entries = entries;
    heap->capacity = capacity;
    return 0;
}

int nat_heap_reserve(struct nat_heap *heap)
{
    int error = 0;

    if (heap->owners == heap->capacity)
        error = resize(heap, heap->capacity == 0 ? 1 : 2 * heap->capacity);
    heap->owners += error == 0;
    return error;
}

void nat_heap_release(struct nat_heap *heap)
{
    heap->owners--;
    if (heap->owners < heap->capacity / 4)
        resize(heap, heap->capacity / 2); /* if that fails, it is merely larger than need be */
}

void nat_heap_push(struct nat_heap *heap, uint64_t key, struct nat_session *session)
{
    sift_up(heap, heap->count++, (struct nat_heap_entry){key, session});
}

void nat_heap_remove(struct nat_heap *heap, struct nat_session *session)
{
    uint32_t at = session->places[heap->place];
    struct nat_heap_entry last;

    if (at == NAT_NO_PLACE)
        return;
    session->places[heap->place] = NAT_NO_PLACE;
    last = heap->entries[--heap->count];
    if (at < heap->count) {
        if (at > 0 && heap->entries[(at - 1) / CHILDREN].key > last.key)
            sift_up(heap, at, last);
        else
            sift_down(heap, at, last);
    }
}
