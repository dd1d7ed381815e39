/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: the input's lines are the arguments, but for MACULA_NAT_X=Y, which go to the
 * environment. */
#include "fuzz.h"

#include "distribution/node_name.h"
#include "options.h"

#include <stdlib.h>
#include <string.h>

#define ARGUMENTS_MAX 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char *argv[ARGUMENTS_MAX + 2] = {"macula_nat_cnode"};
    char error[OPTIONS_ERROR_SIZE] = "";
    struct options o;
    int argc = 1;

    fuzz_check(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    char *rest = text;
    clearenv();
    while (rest && *rest && argc <= ARGUMENTS_MAX) {
        argv[argc] = strsep(&rest, "\n");
        if (strncmp(argv[argc], "MACULA_NAT_", 11) == 0 && strchr(argv[argc], '='))
            putenv(argv[argc]);
        else
            argc++;
    }
    argv[argc] = NULL;

    int result = options_parse(&o, argc, argv, error, sizeof error);
    if (result == 0) {
        fuzz_check(node_name_is_valid(o.node_name, strlen(o.node_name)));
        fuzz_check(o.port <= 65535 && o.coordinator.nat.max_sessions > 0 &&
                   o.connect_count <= OPTIONS_CONNECT_MAX);
        options_free(&o);
    } else if (result < 0) {
        fuzz_check(error[0] != 0 && !strpbrk(error, "\n\r\033"));
    }
    clearenv();
    free(text);
    return 0;
}
