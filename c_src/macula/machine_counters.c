/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/machine_counters.h"

/* Those that have the name of their member. */
/* clang-format off */
#define MACHINE_COUNTERS(X) \
    X(relay_refused, COUNTER, "Requests refused because only a relay would do, which was ruled out") \
    X(leads_extended, COUNTER, "Attempts whose punch time was put off for a slow peer") \
    X(reports, COUNTER, "Results of punches that counted") \
    X(reports_repeated, COUNTER, "Results of attempts that were over already") \
    X(reports_ended, COUNTER, "Results of sessions that had ended already") \
    X(reports_unknown, COUNTER, "Results of unknown sessions") \
    X(reports_bad, COUNTER, "Results that are neither success nor failure") \
    X(retries, COUNTER, "Attempts after the first") \
    X(completed, COUNTER, "Hole punches that were reported a success") \
    X(failed_timeout, COUNTER, "Hole punches given up because no results came") \
    X(failed_unreachable, COUNTER, "Hole punches given up after the last attempt") \
    X(evicted, COUNTER, "Pending sessions dropped to make room for new ones") \
    X(swept_ended, COUNTER, "Sessions dropped after their end") \
    X(swept_expired, COUNTER, "Sessions dropped because of their age") \
    X(watchers_refused, COUNTER, "Processes not notified because a session has too many already") \
    X(profile_bytes, GAUGE, "Bytes of the profiles that live sessions keep") \
    X(id_bytes, GAUGE, "Bytes of ids and watchers of all sessions")
/* clang-format on */

#define SHOW(name, kind, help) counters_show(v, #name, kind, n->name, help);

void machine_counters_visit(const struct nat_counters *n, const struct counters_visitor *v)
{
    uint64_t ignored = n->coordinates_bad + n->coordinates_ended + n->coordinates_foreign +
                       n->coordinates_overloaded;

    counters_show(v, "direct", COUNTER, n->answers[NAT_DIRECT],
                  "Requests answered with a direct connection");
    counters_show(v, "hole_punch", COUNTER, n->answers[NAT_HOLE_PUNCH],
                  "Requests answered with a hole punch");
    counters_show(v, "relay", COUNTER, n->answers[NAT_RELAY], "Requests answered with a relay");
    counters_show(v, "joined", COUNTER, n->joins,
                  "Requests that joined a hole punch in the other direction");
    counters_show(v, "coordinated", COUNTER, n->coordinates_made,
                  "Hole punches begun by coordinate_punch");
    counters_show(v, "coordination_restarted", COUNTER, n->coordinates_restarted,
                  "Hole punches begun anew by coordinate_punch");
    counters_show(v, "coordinate_ignored", COUNTER, ignored, "Casts of coordinate_punch ignored");
    MACHINE_COUNTERS(SHOW)
}

void machine_sessions_visit(const struct nat_counters *n, const struct counters_visitor *v)
{
    counters_show(v, "pending", GAUGE, n->live[NAT_PENDING], "Sessions without a hole punch");
    counters_show(v, "coordinating", GAUGE, n->live[NAT_COORDINATING],
                  "Sessions whose punch time is to come");
    counters_show(v, "executing", GAUGE, n->live[NAT_EXECUTING], "Sessions whose peers punch");
    counters_show(v, "ended", GAUGE, n->ended, "Sessions that have ended and are remembered");
}
