/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_profile.h"

static bool is_open(const struct nat_profile *profile)
{
    return profile && profile->can_receive_unsolicited;
}

/* Endpoint-independent mapping and filtering: once it has a mapping, anyone reaches it. */
static bool is_full_cone(const struct nat_profile *profile)
{
    return profile->mapping == NAT_POLICY_EI && profile->filtering == NAT_POLICY_EI;
}

static bool is_symmetric(const struct nat_profile *profile)
{
    return profile->mapping == NAT_POLICY_PD && profile->filtering == NAT_POLICY_PD &&
           profile->allocation == NAT_POLICY_RD;
}

static bool is_mapping_predictable(const struct nat_profile *profile)
{
    return profile->mapping == NAT_POLICY_EI || profile->mapping == NAT_POLICY_HD ||
           profile->mapping == NAT_POLICY_UNKNOWN;
}

static bool is_allocation_predictable(const struct nat_profile *profile)
{
    return profile->allocation == NAT_POLICY_PP || profile->allocation == NAT_POLICY_PC ||
           profile->allocation == NAT_POLICY_UNKNOWN;
}

/* Whether a relay is needed before ports are even looked at. With one profile only, its own word
 * decides. */
static bool is_relay_needed(const struct nat_profile *a, const struct nat_profile *b)
{
    if ((a && a->requires_relay) || (b && b->requires_relay))
        return true;
    return a && b && (is_symmetric(a) || is_symmetric(b));
}

/* The one rule in which the rule sets differ. */
static bool are_ports_predictable(enum nat_rules rules, const struct nat_profile *a,
                                  const struct nat_profile *b)
{
    bool first = is_allocation_predictable(a), second = is_allocation_predictable(b);

    return rules == NAT_RULES_V0_14_3 ? first && second : first || second;
}

/* A policy that is missing is taken for the best one of its kind, a wrong one for the worst. */
static enum nat_policy assume(enum nat_policy policy, enum nat_policy best, enum nat_policy worst)
{
    if (policy == NAT_POLICY_UNKNOWN)
        return best;
    return policy >= best && policy <= worst ? policy : worst;
}

/* Whether the other peer can be told the port at which this one will send: the one that is known
 * already, or one that its NAT can be expected to take next. */
static bool is_predicted(const struct nat_profile *profile)
{
    return assume(profile->mapping, NAT_POLICY_EI, NAT_POLICY_PD) == NAT_POLICY_EI ||
           assume(profile->allocation, NAT_POLICY_PP, NAT_POLICY_RD) != NAT_POLICY_RD;
}

/*
 * Whether the peer can be reached from any port, so that the other one's need not be known. With
 * endpoint-independent filtering the known port itself is open to everyone. Otherwise the peer
 * opens its NAT for the other's address, and must be expected at the right port.
 */
static bool is_reachable_from_any_port(const struct nat_profile *profile)
{
    enum nat_policy filtering = assume(profile->filtering, NAT_POLICY_EI, NAT_POLICY_PD);

    return filtering == NAT_POLICY_EI || (filtering == NAT_POLICY_HD && is_predicted(profile));
}

/* `requires_relay` is a conclusion from mapping and allocation; it only counts where they are not
 * there to be looked at. */
static bool is_relay_all_we_know(const struct nat_profile *profile)
{
    return profile->requires_relay &&
           (profile->mapping == NAT_POLICY_UNKNOWN || profile->allocation == NAT_POLICY_UNKNOWN);
}

static bool is_punch_feasible(const struct nat_profile *a, const struct nat_profile *b)
{
    if (is_relay_all_we_know(a) || is_relay_all_we_know(b))
        return false;
    return is_reachable_from_any_port(a) || is_reachable_from_any_port(b) ||
           (is_predicted(a) && is_predicted(b));
}

enum nat_strategy nat_strategy_after_direct(enum nat_rules rules,
                                            const struct nat_profile *initiator,
                                            const struct nat_profile *target)
{
    if (rules == NAT_RULES_FEASIBLE && initiator && target)
        return is_punch_feasible(initiator, target) ? NAT_HOLE_PUNCH : NAT_RELAY;
    if (is_relay_needed(initiator, target))
        return NAT_RELAY;
    if (!initiator || !target)
        return NAT_HOLE_PUNCH;
    if (is_mapping_predictable(initiator) && is_mapping_predictable(target) &&
        are_ports_predictable(rules, initiator, target))
        return NAT_HOLE_PUNCH;
    return NAT_RELAY;
}

const char *nat_rules_name(enum nat_rules rules)
{
    static const char *const names[NAT_RULE_SETS] = {
        [NAT_RULES_DOCUMENTED] = "documented",
        [NAT_RULES_V0_14_3] = "v0_14_3",
        [NAT_RULES_FEASIBLE] = "feasible",
    };

    return names[rules];
}

enum nat_strategy nat_strategy_choose(enum nat_rules rules, const struct nat_profile *initiator,
                                      const struct nat_profile *target)
{
    if (is_open(target))
        return NAT_DIRECT;
    /* What is known of the initiator alone, or a target that is a full cone by its policies alone,
     * says little about a peer that is otherwise unknown: both of these ask for both profiles. */
    if (initiator && target && (is_open(initiator) || is_full_cone(target)))
        return NAT_DIRECT;
    return nat_strategy_after_direct(rules, initiator, target);
}
