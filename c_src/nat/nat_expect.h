/* SPDX-License-Identifier: Apache-2.0 */
/* For who calls nat_request with random bytes that were drawn in bulk: speed and nothing else. */
#ifndef NAT_EXPECT_H
#define NAT_EXPECT_H

#include "macula_nat.h"

/*
 * Says which random bytes the nat_request after the next one will bring. Changes nothing but its
 * time: where the session will be in a large table is fetched from memory meanwhile.
 */
void nat_expect(struct nat_coordinator *coordinator, const uint8_t random[NAT_RANDOM_LEN]);

#endif
