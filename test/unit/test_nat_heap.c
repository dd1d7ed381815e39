/* SPDX-License-Identifier: Apache-2.0 */
/* The heap of timers on its own: any order in, sorted order out, and removal from anywhere. */
#include "nat/nat_internal.h"
#include "suites.h"

#include <check.h>
#include <stdlib.h>

#define COUNT 600

static struct nat_heap heap;
static struct nat_session sessions[COUNT];
static uint64_t keys[COUNT];

/* No child is smaller than its parent, and every session knows its place. */
static void check_heap(void)
{
    for (uint32_t i = 0; i < heap.count; i++) {
        const struct nat_heap_entry *entry = &heap.entries[i];

        if (i > 0 && heap.entries[(i - 1) / 4].key > entry->key)
            ck_abort_msg("entry %u is out of order", i);
        if (entry->session->places[heap.place] != i)
            ck_abort_msg("entry %u has another place", i);
        if (keys[entry->session - sessions] != entry->key)
            ck_abort_msg("entry %u has another key", i);
    }
}

static void push(int i, uint64_t key)
{
    keys[i] = key;
    nat_heap_push(&heap, key, &sessions[i]);
}

static void setup(void)
{
    heap = (struct nat_heap){.place = NAT_PLACE_PAIR};
    for (int i = 0; i < COUNT; i++)
        sessions[i].places[NAT_PLACE_PAIR] = NAT_NO_PLACE;
    for (int i = 0; i < COUNT; i++)
        ck_assert_int_eq(nat_heap_reserve(&heap), 0);
}

static void teardown(void)
{
    ck_assert_uint_eq(heap.count, 0);
    for (int i = 0; i < COUNT; i++)
        nat_heap_release(&heap);
    ck_assert_uint_eq(heap.owners, 0);
    ck_assert_uint_le(heap.capacity, 4);
    free(heap.entries);
}

START_TEST(gives_in_order)
{
    uint64_t before = 0;

    for (int i = 0; i < COUNT; i++)
        push(i, (uint64_t)i * 7919 % 601);
    check_heap();
    while (heap.count > 0) {
        ck_assert_uint_le(before, heap.entries[0].key);
        before = heap.entries[0].key;
        nat_heap_remove(&heap, heap.entries[0].session);
        check_heap();
    }
}
END_TEST

START_TEST(loses_any)
{
    uint64_t seed = (uint64_t)_i + 1;

    for (int round = 0; round < 20000; round++) {
        int i;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        i = (int)(seed >> 33) % COUNT;
        if (sessions[i].places[NAT_PLACE_PAIR] == NAT_NO_PLACE)
            push(i, seed >> 50);
        else
            nat_heap_remove(&heap, &sessions[i]);
        if (round % 16 == 0)
            check_heap();
    }
    for (int i = 0; i < COUNT; i++) {
        nat_heap_remove(&heap, &sessions[i]);
        nat_heap_remove(&heap, &sessions[i]); /* which is not in it any more */
        check_heap();
    }
}
END_TEST

/* Whoever has a place keeps it, in the heap or not, while others come and go. */
START_TEST(keeps_places)
{
    for (int i = 0; i < COUNT; i++) {
        ck_assert_uint_ge(heap.capacity, heap.owners);
        ck_assert_uint_eq(heap.owners, COUNT - (uint32_t)i);
        nat_heap_release(&heap);
    }
    ck_assert_uint_le(heap.capacity, 4);
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(nat_heap_reserve(&heap), 0);
        ck_assert_uint_ge(heap.capacity, heap.owners);
    }
}
END_TEST

Suite *suite_nat_heap(void)
{
    Suite *suite = suite_create("nat_heap");
    TCase *tcase = tcase_create("heap");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, gives_in_order);
    tcase_add_loop_test(tcase, loses_any, 0, 5);
    tcase_add_test(tcase, keeps_places);
    suite_add_tcase(suite, tcase);
    return suite;
}
