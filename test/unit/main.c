/* SPDX-License-Identifier: Apache-2.0 */
/* Runs every suite of suites.h, or only those named as arguments. Exit status 1 if one failed. */
#include "suites.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define DECLARE(name) Suite *suite_##name(void);
TEST_SUITES(DECLARE)
#undef DECLARE

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define ENTRY(name) {#name, suite_##name},
    TEST_SUITES(ENTRY)
#undef ENTRY
};

int test_rounds(int rounds)
{
    const char *slowdown = getenv("TEST_SLOWDOWN");
    int divisor = slowdown ? atoi(slowdown) : 1;

    return divisor > 1 && rounds > divisor ? rounds / divisor : rounds;
}

static int is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return argc < 2;
}

int main(int argc, char **argv)
{
    SRunner *runner = srunner_create(NULL);

    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++)
        if (is_wanted(suites[i].name, argc, argv))
            srunner_add_suite(runner, suites[i].make());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
