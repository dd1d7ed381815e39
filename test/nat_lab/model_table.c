/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what the model says: `model_table` the counts for each rule set, `model_table pairs BARE
 * TYPE...` for every ordered pair of the types (like EI/PD/PP) the strategies of the three rule
 * sets and whether a punch connects, and in which attempt (- if in none).
 */
#include "nat_matrix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const strategy_names[] = {"direct", "hole_punch", "relay"};

static void print_counts(bool affine, bool bare, bool plain)
{
    for (int rules = 0; rules < NAT_RULE_SETS; rules++) {
        struct matrix_counts c = matrix_count((enum nat_rules)rules, affine, bare, plain);

        printf("%-11s %-7s %-5s %-6s %5u %9u %8u %8u  %4u %3u %3u %3u  %5.1f %%\n",
               nat_rules_name((enum nat_rules)rules), affine ? "affine" : "strict",
               bare ? "bare" : "drops", plain ? "plain" : "lab", c.promised, c.connected,
               c.promised_wrongly, c.relayed_wrongly, c.attempts[0], c.attempts[1], c.attempts[2],
               c.attempts[3], c.share);
    }
}

static int print_table(void)
{
    printf("rules       answers box   peers  promi- connected promised relayed  in attempt         "
           "share\n"
           "                               sed              wrongly  wrongly     0   1   2   3\n");
    for (int variant = 0; variant < 8; variant++)
        print_counts(!(variant & 2), variant & 1, variant & 4);
    return EXIT_SUCCESS;
}

static int find_type(const char *text, struct nat_type *type)
{
    char name[NAT_TYPE_NAME];

    for (unsigned i = 0; i < NAT_TYPES; i++) {
        *type = nat_type_at(i);
        if (strcmp(nat_type_name(*type, name), text) == 0)
            return 0;
    }
    return -1;
}

static void print_pair(const struct sim_peer_setup *a, const struct sim_peer_setup *b)
{
    char first[NAT_TYPE_NAME], second[NAT_TYPE_NAME];
    struct sim_result punch = sim_pair(NAT_RULES_FEASIBLE, 1, a, b, true);

    printf("%s %s", nat_type_name(a->type, first), nat_type_name(b->type, second));
    for (int rules = 0; rules < NAT_RULE_SETS; rules++)
        printf(" %s", strategy_names[sim_pair((enum nat_rules)rules, 1, a, b, false).strategy]);
    if (punch.connected)
        printf(" %u\n", punch.attempt);
    else
        printf(" -\n");
}

static int print_pairs(bool bare, int count, char **names)
{
    struct sim_peer_setup a = {.affine = true, .bare = bare}, b = a;

    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++) {
            if (find_type(names[i], &a.type) < 0 || find_type(names[j], &b.type) < 0) {
                fprintf(stderr, "no such pair: %s %s\n", names[i], names[j]);
                return EXIT_FAILURE;
            }
            print_pair(&a, &b);
        }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "pairs") == 0)
        return print_pairs(strcmp(argv[2], "true") == 0, argc - 3, argv + 3);
    return print_table();
}
