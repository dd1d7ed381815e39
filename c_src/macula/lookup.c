/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/lookup.h"

bool lookup_profile(struct coordinator *co, struct slice id, struct nat_profile **profile)
{
    bool stale;

    *profile = nat_cache_find(co->cache, id, &stale);
    return true;
}
