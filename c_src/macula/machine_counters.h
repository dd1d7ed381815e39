/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of the NAT library (macula_nat.h), which knows no visitors. */
#ifndef MACULA_MACHINE_COUNTERS_H
#define MACULA_MACHINE_COUNTERS_H

#include "base/counters.h"
#include "macula_nat.h"

void machine_counters_visit(const struct nat_counters *n, const struct counters_visitor *v);
/* Sessions by their state. */
void machine_sessions_visit(const struct nat_counters *n, const struct counters_visitor *v);

#endif
