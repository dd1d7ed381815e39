/* SPDX-License-Identifier: Apache-2.0 */
#include "nat_matrix.h"

#define ONE_WAY_MS 20u

#define EI NAT_POLICY_EI
#define HD NAT_POLICY_HD
#define PD NAT_POLICY_PD
#define PP NAT_POLICY_PP
#define PC NAT_POLICY_PC
#define RD NAT_POLICY_RD

/* From a published simulator of NAT traversal. */
static const struct {
    struct nat_type type;
    double percent;
} shares[] = {
    {{EI, PD, PP}, 46.6}, {{PD, PD, RD}, 12.4}, {{EI, PD, RD}, 9.9}, {{EI, EI, PP}, 9.3},
    {{EI, EI, RD}, 7.7},  {{EI, HD, PP}, 4.6},  {{EI, EI, PC}, 4.4}, {{PD, PD, PP}, 2.6},
    {{PD, EI, PP}, 0.7},  {{PD, EI, RD}, 0.6},  {{EI, PD, PC}, 0.6}, {{EI, HD, RD}, 0.4},
    {{HD, PD, RD}, 0.2},
};

double matrix_weight(struct nat_type type)
{
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
        if (nat_type_index(shares[i].type) == nat_type_index(type))
            return shares[i].percent;
    return 0;
}

static bool is_predicted(struct nat_type type)
{
    return type.mapping == EI || type.allocation != RD;
}

/* Whether `x` can be reached by `o`, whatever o's port is. */
static bool is_one_enough(struct nat_type x, struct nat_type o, bool affine)
{
    if (is_predicted(x) && x.filtering < PD && (affine || x.mapping < PD || o.filtering < PD))
        return true;
    return x.filtering == EI && (affine || x.mapping == EI || o.filtering < PD);
}

bool matrix_derived(struct nat_type a, struct nat_type b, bool affine)
{
    return is_one_enough(a, b, affine) || is_one_enough(b, a, affine) ||
           (is_predicted(a) && is_predicted(b));
}

static void count_pair(struct matrix_counts *counts, enum nat_rules rules,
                       const struct sim_peer_setup *a, const struct sim_peer_setup *b)
{
    double share = matrix_weight(a->type) * matrix_weight(b->type) / 100;
    struct sim_result result = sim_pair(rules, ONE_WAY_MS, a, b, false);

    if (result.strategy == NAT_RELAY) {
        counts->relayed_wrongly += sim_pair(NAT_RULES_FEASIBLE, ONE_WAY_MS, a, b, true).connected;
        return;
    }
    counts->promised++;
    if (result.connected) {
        counts->connected++;
        counts->attempts[result.attempt]++;
        counts->share += share;
    } else {
        counts->promised_wrongly++;
        counts->share_broken += share;
    }
}

struct matrix_counts matrix_count(enum nat_rules rules, bool affine, bool bare, bool plain)
{
    struct matrix_counts counts = {0};
    struct sim_peer_setup a = {.affine = affine, .bare = bare, .plain = plain}, b = a;

    for (unsigned i = 0; i < NAT_TYPES; i++)
        for (unsigned j = 0; j < NAT_TYPES; j++) {
            a.type = nat_type_at(i);
            b.type = nat_type_at(j);
            count_pair(&counts, rules, &a, &b);
        }
    return counts;
}
