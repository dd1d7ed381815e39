/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a strategy: the table of known answers, and each rule on its own. Runs from the
 * project's root. */
#include "macula_nat.h"
#include "suites.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static const char TABLE[] = "test/unit/data/strategy.csv";

static struct nat_profile *make(const struct nat_profile_fields *fields)
{
    struct nat_profile *profile = NULL;

    ck_assert_int_eq(nat_profile_create(&profile, fields), 0);
    return profile;
}

static enum nat_strategy choose(enum nat_rules rules, const struct nat_profile_fields *initiator,
                                const struct nat_profile_fields *target)
{
    struct nat_profile *a = initiator != NULL ? make(initiator) : NULL;
    struct nat_profile *b = target != NULL ? make(target) : NULL;
    enum nat_strategy strategy = nat_strategy_choose(rules, a, b);
    enum nat_strategy fallback = nat_strategy_after_direct(rules, a, b);

    ck_assert(fallback != NAT_DIRECT);
    if (strategy != NAT_DIRECT)
        ck_assert(fallback == strategy);
    nat_profile_unref(a);
    nat_profile_unref(b);
    return strategy;
}

static enum nat_policy policy(const char *name)
{
    static const char names[][3] = {"ei", "hd", "pd", "pp", "pc", "rd"};

    for (int i = 0; i < 6; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum nat_policy)(NAT_POLICY_EI + i);
    ck_abort_msg("no policy: %s", name);
    return NAT_POLICY_INVALID;
}

static enum nat_strategy strategy(const char *name)
{
    static const char *const names[] = {"direct", "hole_punch", "relay"};

    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum nat_strategy)i;
    ck_abort_msg("no strategy: %s", name);
    return NAT_RELAY;
}

/* The fields as macula's detector sets them; NULL for a row's unknown peer. */
static struct nat_profile_fields *detect(struct nat_profile_fields *fields, char columns[][16])
{
    if (strcmp(columns[0], "-") == 0)
        return NULL;
    memset(fields, 0, sizeof *fields);
    fields->mapping = policy(columns[0]);
    fields->filtering = policy(columns[1]);
    fields->allocation = policy(columns[2]);
    fields->can_receive_unsolicited =
        fields->mapping == NAT_POLICY_EI && fields->filtering == NAT_POLICY_EI;
    fields->requires_relay =
        fields->mapping == NAT_POLICY_PD && fields->allocation == NAT_POLICY_RD;
    return fields;
}

START_TEST(agrees_with_the_table)
{
    FILE *file = fopen(TABLE, "r");
    char line[128], c[8][16];
    int rows = 0, different = 0;

    ck_assert_msg(file != NULL, "cannot open %s", TABLE);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, file));
    while (fgets(line, sizeof line, file) != NULL) {
        struct nat_profile_fields a, b, *initiator, *target;

        ck_assert_int_eq(sscanf(line,
                                "%15[^,],%15[^,],%15[^,],%15[^,],%15[^,],%15[^,],%15[^,],%15[^,\n]",
                                c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]),
                         8);
        initiator = detect(&a, c);
        target = detect(&b, c + 3);
        ck_assert_msg(choose(NAT_RULES_DOCUMENTED, initiator, target) == strategy(c[6]),
                      "documented: %s", line);
        ck_assert_msg(choose(NAT_RULES_V0_14_3, initiator, target) == strategy(c[7]), "v0_14_3: %s",
                      line);
        rows++;
        different += strcmp(c[6], c[7]) != 0;
    }
    fclose(file);
    ck_assert_int_eq(rows, 466);
    ck_assert_int_gt(different, 0);
}
END_TEST

/* Of all 729 pairs of types, 100 are answered differently by the two rule sets. */
START_TEST(rule_sets_differ_in_a_hundred_pairs)
{
    static char names[27][3][16];
    int different = 0;

    for (int i = 0; i < 27; i++) {
        strcpy(names[i][0], (const char *[]){"ei", "hd", "pd"}[i / 9]);
        strcpy(names[i][1], (const char *[]){"ei", "hd", "pd"}[i / 3 % 3]);
        strcpy(names[i][2], (const char *[]){"pp", "pc", "rd"}[i % 3]);
    }
    for (int i = 0; i < 27; i++)
        for (int j = 0; j < 27; j++) {
            struct nat_profile_fields a, b;

            detect(&a, names[i]);
            detect(&b, names[j]);
            different += choose(NAT_RULES_DOCUMENTED, &a, &b) != choose(NAT_RULES_V0_14_3, &a, &b);
        }
    ck_assert_int_eq(different, 100);
}
END_TEST

#define EI NAT_POLICY_EI
#define HD NAT_POLICY_HD
#define PD NAT_POLICY_PD
#define PP NAT_POLICY_PP
#define RD NAT_POLICY_RD

static const struct nat_profile_fields
    easy = {.mapping = EI, .filtering = PD, .allocation = PP},
    open_peer = {.mapping = PD, .filtering = PD, .allocation = RD, .can_receive_unsolicited = true},
    full_cone = {.mapping = EI, .filtering = EI, .allocation = RD},
    symmetric = {.mapping = PD, .filtering = PD, .allocation = RD},
    relayed = {.mapping = EI, .filtering = PD, .allocation = PP, .requires_relay = true},
    random_ports = {.mapping = HD, .filtering = PD, .allocation = RD},
    nothing = {.mapping = NAT_POLICY_UNKNOWN};

START_TEST(direct_comes_before_relay)
{
    ck_assert(choose(NAT_RULES_DOCUMENTED, &relayed, &open_peer) == NAT_DIRECT);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &open_peer, &relayed) == NAT_DIRECT);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &relayed, &full_cone) == NAT_DIRECT);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &full_cone, &relayed) == NAT_RELAY);
}
END_TEST

START_TEST(relay_where_one_needs_it)
{
    ck_assert(choose(NAT_RULES_DOCUMENTED, &relayed, &easy) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &easy, &relayed) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &symmetric, &easy) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &easy, &symmetric) == NAT_RELAY);
}
END_TEST

START_TEST(only_the_target_is_known)
{
    ck_assert(choose(NAT_RULES_DOCUMENTED, NULL, &open_peer) == NAT_DIRECT);
    ck_assert(choose(NAT_RULES_DOCUMENTED, NULL, &relayed) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, NULL, &full_cone) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_DOCUMENTED, NULL, &symmetric) == NAT_HOLE_PUNCH);
}
END_TEST

START_TEST(only_the_initiator_is_known)
{
    ck_assert(choose(NAT_RULES_DOCUMENTED, &open_peer, NULL) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &relayed, NULL) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &symmetric, NULL) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_V0_14_3, &random_ports, NULL) == NAT_HOLE_PUNCH);
}
END_TEST

START_TEST(none_is_known)
{
    ck_assert(choose(NAT_RULES_DOCUMENTED, NULL, NULL) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_V0_14_3, NULL, NULL) == NAT_HOLE_PUNCH);
}
END_TEST

/* An unknown policy is taken for a good one, a wrong one for a bad one. */
START_TEST(unknown_is_optimistic_and_invalid_is_not)
{
    struct nat_profile_fields bad_mapping = easy, bad_allocation = random_ports;

    ck_assert(choose(NAT_RULES_DOCUMENTED, &nothing, &nothing) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_V0_14_3, &nothing, &easy) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &nothing, &random_ports) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_V0_14_3, &nothing, &random_ports) == NAT_RELAY);
    bad_mapping.mapping = NAT_POLICY_INVALID;
    bad_allocation.allocation = NAT_POLICY_INVALID;
    ck_assert(choose(NAT_RULES_DOCUMENTED, &bad_mapping, &easy) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &easy, &bad_mapping) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &bad_allocation, &random_ports) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_DOCUMENTED, &bad_allocation, &easy) == NAT_HOLE_PUNCH);
}
END_TEST

/* What FEASIBLE makes of policies that are not there, and of profiles that are not. */
START_TEST(feasible_is_optimistic_where_nothing_speaks_against)
{
    struct nat_profile_fields relay_unexplained = {.requires_relay = true};
    struct nat_profile_fields bad = {.mapping = NAT_POLICY_INVALID,
                                     .filtering = NAT_POLICY_INVALID,
                                     .allocation = NAT_POLICY_INVALID};
    struct nat_profile_fields mixed = {.mapping = PP, .filtering = PD, .allocation = EI};

    ck_assert(choose(NAT_RULES_FEASIBLE, NULL, NULL) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_FEASIBLE, &symmetric, NULL) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_FEASIBLE, NULL, &relayed) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_FEASIBLE, NULL, &open_peer) == NAT_DIRECT);
    ck_assert(choose(NAT_RULES_FEASIBLE, &nothing, &nothing) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_FEASIBLE, &nothing, &symmetric) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_FEASIBLE, &easy, &symmetric) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_FEASIBLE, &easy, &relayed) == NAT_HOLE_PUNCH);
    ck_assert(choose(NAT_RULES_FEASIBLE, &easy, &relay_unexplained) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_FEASIBLE, &bad, &easy) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_FEASIBLE, &easy, &mixed) == NAT_RELAY);
    ck_assert(choose(NAT_RULES_FEASIBLE, &bad, &full_cone) == NAT_DIRECT);
    ck_assert(choose(NAT_RULES_FEASIBLE, &full_cone, &bad) == NAT_HOLE_PUNCH);
}
END_TEST

static enum nat_strategy after_direct(const struct nat_profile_fields *initiator,
                                      const struct nat_profile_fields *target)
{
    struct nat_profile *a = make(initiator), *b = make(target);
    enum nat_strategy chosen = nat_strategy_after_direct(NAT_RULES_DOCUMENTED, a, b);

    nat_profile_unref(a);
    nat_profile_unref(b);
    return chosen;
}

START_TEST(after_a_failed_direct_try)
{
    ck_assert(after_direct(&easy, &full_cone) == NAT_HOLE_PUNCH);
    ck_assert(after_direct(&random_ports, &full_cone) == NAT_RELAY);
    ck_assert(after_direct(&relayed, &full_cone) == NAT_RELAY);
    ck_assert(after_direct(&easy, &open_peer) == NAT_RELAY);
}
END_TEST

Suite *suite_nat_strategy(void)
{
    Suite *suite = suite_create("nat_strategy");
    TCase *tcase = tcase_create("rules");

    tcase_add_test(tcase, agrees_with_the_table);
    tcase_add_test(tcase, rule_sets_differ_in_a_hundred_pairs);
    tcase_add_test(tcase, direct_comes_before_relay);
    tcase_add_test(tcase, relay_where_one_needs_it);
    tcase_add_test(tcase, only_the_target_is_known);
    tcase_add_test(tcase, only_the_initiator_is_known);
    tcase_add_test(tcase, none_is_known);
    tcase_add_test(tcase, unknown_is_optimistic_and_invalid_is_not);
    tcase_add_test(tcase, feasible_is_optimistic_where_nothing_speaks_against);
    tcase_add_test(tcase, after_a_failed_direct_try);
    suite_add_tcase(suite, tcase);
    return suite;
}
