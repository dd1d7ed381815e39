/* SPDX-License-Identifier: Apache-2.0 */
/* What is counted is shown under the name that it is counted by. */
#include "suites.h"

#include "macula/coordinator.h"
#include "macula/counters_term.h"
#include "term/term_check.h"

#include <check.h>
#include <ctype.h>
#include <string.h>

#define SHOWN_MAX 200

/* clang-format off */
#define PARCEL_COUNTERS(X) \
    X(sent, COUNTER, "Parcels sent") \
    X(waiting, GAUGE, "Parcels that wait")
/* clang-format on */

struct parcel_counters {
    PARCEL_COUNTERS(COUNTERS_MEMBER)
};
COUNTERS_VISIT(parcel_counters, PARCEL_COUNTERS)

struct shown {
    const char *group;
    struct counter counter;
    uint64_t value;
};

static struct shown shown[SHOWN_MAX];
static size_t shown_count;
static const char *group;

static void on_group(void *ctx, const char *name)
{
    (void)ctx;
    group = name;
}

static void on_count(void *ctx, const struct counter *counter, uint64_t value)
{
    (void)ctx;
    ck_assert_uint_lt(shown_count, SHOWN_MAX);
    shown[shown_count++] = (struct shown){group, *counter, value};
}

static const struct counters_visitor visitor = {NULL, on_group, on_count};

static void set_up(void)
{
    shown_count = 0;
    group = NULL;
}

START_TEST(a_list_makes_a_struct_and_its_visit)
{
    struct parcel_counters counters = {.sent = 1, .waiting = UINT64_C(1) << 40};

    counters_group(&visitor, "parcels");
    parcel_counters_visit(&counters, &visitor);
    ck_assert_uint_eq(shown_count, 2);
    ck_assert_str_eq(shown[0].group, "parcels");
    ck_assert_str_eq(shown[0].counter.name, "sent");
    ck_assert_int_eq(shown[0].counter.kind, COUNTER);
    ck_assert_str_eq(shown[0].counter.help, "Parcels sent");
    ck_assert_uint_eq(shown[0].value, 1);
    ck_assert_str_eq(shown[1].counter.name, "waiting");
    ck_assert_int_eq(shown[1].counter.kind, GAUGE);
    ck_assert_uint_eq(shown[1].value, UINT64_C(1) << 40);
}
END_TEST

START_TEST(groups_are_maps_of_their_own)
{
    struct parcel_counters counters = {.sent = 7};
    struct counters_term term;
    struct term_map map;
    struct buffer b;
    int64_t value;
    int pairs;

    buffer_init(&b);
    term_open_map(&map, &b);
    counters_term_open(&term, &map);
    counters_show(&term.visitor, "first", GAUGE, 5, "In no group");
    counters_group(&term.visitor, "parcels");
    parcel_counters_visit(&counters, &term.visitor);
    counters_group(&term.visitor, "nothing");
    counters_term_close(&term);
    term_close_map(&map);
    ck_assert(!b.overflow);
    ck_assert_int_eq(term_check(buffer_data(&b), buffer_size(&b)), (ssize_t)buffer_size(&b));
    struct cursor c = cursor_of(buffer_slice(&b));
    ck_assert(cursor_map(&c, &pairs) && pairs == 3);
    ck_assert(cursor_is_atom(&c, "first") && cursor_int(&c, &value) && value == 5);
    ck_assert(cursor_is_atom(&c, "parcels") && cursor_map(&c, &pairs) && pairs == 2);
    ck_assert(cursor_is_atom(&c, "sent") && cursor_int(&c, &value) && value == 7);
    ck_assert(cursor_is_atom(&c, "waiting") && cursor_int(&c, &value) && value == 0);
    ck_assert(cursor_is_atom(&c, "nothing") && cursor_map(&c, &pairs) && pairs == 0);
    buffer_free(&b);
}
END_TEST

static void show_all(void)
{
    struct node node = {.counters.spawns = 3};
    struct profile_cache cache = {.counters.cache_puts_refused = 4};
    struct coordinator co = {.node = &node, .cache = &cache, .requests.counters.overloaded = 5};
    struct nat_config config;

    nat_config_init(&config);
    ck_assert_int_eq(nat_coordinator_create(&co.driver.nat, &config), 0);
    coordinator_visit_counters(&co, &visitor);
    nat_coordinator_free(co.driver.nat);
}

static const struct shown *find(const char *in, const char *name)
{
    for (size_t i = 0; i < shown_count; i++)
        if (strcmp(shown[i].group, in) == 0 && strcmp(shown[i].counter.name, name) == 0)
            return &shown[i];
    ck_abort_msg("%s is not shown", name);
}

START_TEST(each_owner_s_are_shown)
{
    show_all();
    ck_assert_uint_eq(find("network", "spawns")->value, 3);
    ck_assert_uint_eq(find("counters", "cache_puts_refused")->value, 4);
    ck_assert_uint_eq(find("counters", "overloaded")->value, 5);
}
END_TEST

/* So that any writer can use the name as it is, and put the help on a line of its own. */
START_TEST(names_and_help_have_a_form)
{
    show_all();
    for (size_t i = 0; i < shown_count; i++) {
        const struct counter *c = &shown[i].counter;
        size_t len = strlen(c->help);
        ck_assert_ptr_eq(find(shown[i].group, c->name), &shown[i]);
        for (const char *p = c->name; *p; p++)
            ck_assert(islower((unsigned char)*p) || *p == '_');
        ck_assert_uint_gt(len, 0);
        ck_assert(isupper((unsigned char)c->help[0]));
        ck_assert(c->help[len - 1] != '.');
        ck_assert_ptr_null(strpbrk(c->help, "\n\"\\"));
    }
}
END_TEST

Suite *suite_counters(void);
Suite *suite_counters(void)
{
    Suite *s = suite_create("counters");
    TCase *tc = tcase_create("counters");

    tcase_add_checked_fixture(tc, set_up, NULL);
    tcase_add_test(tc, a_list_makes_a_struct_and_its_visit);
    tcase_add_test(tc, groups_are_maps_of_their_own);
    tcase_add_test(tc, each_owner_s_are_shown);
    tcase_add_test(tc, names_and_help_have_a_form);
    suite_add_tcase(s, tc);
    return s;
}
