/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles, and the DHT's answers that may hold them. */
#include "fuzz.h"

#include "macula/dht.h"
#include "macula/profile_term.h"
#include "term/term_check.h"

#include <errno.h>
#include <stdlib.h>

static void check_profile(struct slice map)
{
    struct nat_profile *profile = NULL;
    struct buffer b;
    int error = profile_from_term(&profile, map);

    fuzz_check(error == 0 || error == -EINVAL || error == -EMSGSIZE);
    if (error)
        return;
    buffer_init(&b);
    profile_put(&b, profile);
    fuzz_check(slice_equal(buffer_slice(&b), map));
    buffer_reset(&b, 0);
    profile_put_dated(&b, map, 300, 1700000000);
    fuzz_check(!b.overflow);
    fuzz_check(term_check(buffer_data(&b), buffer_size(&b)) == (ssize_t)buffer_size(&b));
    buffer_free(&b);
    nat_profile_unref(profile);
}

static void check_answer(struct slice answer)
{
    struct dht_values values = {0};
    struct slice map;
    struct cursor value;

    dht_judge(answer);
    while (dht_next_value(answer, &values, &map)) {
        check_profile(map);
        if (dht_map_get(map, "host", &value))
            fuzz_check(value.at == 0 && value.end > 0);
        dht_map_get(map, "port", &value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy(data, size);
    struct slice term = fuzz_term(input);

    if (term.len > 0) {
        check_profile(term);
        check_answer(term);
    }
    free((void *)input.data);
    return 0;
}
