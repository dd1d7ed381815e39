/* SPDX-License-Identifier: Apache-2.0 */
/* EPMD's answers, however they are cut: what has been answered once must not change with more. */
#include "fuzz.h"

#include "distribution/epmd_wire.h"

#include <stdlib.h>

struct answer {
    int result;
    uint32_t creation;
    uint16_t port, highest;
};

static struct answer parse(bool is_alive, const uint8_t *data, size_t size)
{
    struct slice part = fuzz_copy(data, size);
    struct answer a = {0};

    a.result = is_alive ? epmd_parse_alive2_response(part.data, part.len, &a.creation)
                        : epmd_parse_port2_response(part.data, part.len, &a.port, &a.highest);
    free((void *)part.data);
    return a;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int is_alive = 0; is_alive < 2; is_alive++) {
        struct answer last = {0};
        for (size_t len = 0; len <= size && len <= 2 * EPMD_ANSWER_MAX; len++) {
            struct answer now = parse(is_alive, data, len);
            if (last.result != 0) {
                fuzz_check(now.result == last.result && now.creation == last.creation);
                fuzz_check(now.port == last.port && now.highest == last.highest);
            }
            fuzz_check(now.result != 0 || len < EPMD_ANSWER_MAX);
            last = now;
        }
    }
    return 0;
}
