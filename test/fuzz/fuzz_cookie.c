/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a cookie. It includes its source, as the parser is not public. */
#include "../../c_src/cookie.c"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char cookie[COOKIE_SIZE], error[200] = "";
    const struct failure failure = {error, sizeof error};

    fuzz_check(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    if (parse_cookie(cookie, text, "fuzz", &failure) == 0) {
        size_t len = strlen(cookie);
        fuzz_check(len > 0 && memcmp(cookie, text, len) == 0);
    } else {
        fuzz_check(error[0] != 0);
    }
    free(text);
    return 0;
}
