/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: defaults, both forms of a value, bounds, and what is refused with which line.
 */
#include "base/log.h"
#include "options.h"
#include "suites.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

Suite *suite_options(void);

#define ARGUMENTS_MAX 80

static struct options options;
static char error[OPTIONS_ERROR_SIZE];

/* Parses the NULL-ended arguments. */
static int parse(const char *const *arguments)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)"macula_nat_cnode"};
    int argc = 1;

    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = (char *)arguments[argc - 1];
    error[0] = 0;
    return options_parse(&options, argc, argv, error, sizeof error);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

/* The arguments are refused with one line that holds `part`. */
#define ck_refused(part, ...)                                                          \
    do {                                                                               \
        ck_assert_int_eq(PARSE(__VA_ARGS__), -EINVAL);                                 \
        ck_assert_msg(strstr(error, part) != NULL, "'%s' is not in: %s", part, error); \
        ck_assert_ptr_null(strchr(error, '\n'));                                       \
    } while (0)

#define ck_taken(...) ck_assert_msg(PARSE(__VA_ARGS__) == 0, "refused: %s", error)

START_TEST(defaults_are_those_of_the_documentation)
{
    char host[256];
    char expected[300];

    ck_assert_int_eq(gethostname(host, sizeof host), 0);
    host[strcspn(host, ".")] = 0;
    snprintf(expected, sizeof expected, "macula_nat@%s", host);
    ck_assert_int_eq(parse((const char *const[]){NULL}), 0);
    ck_assert_str_eq(options.node_name, expected);
    ck_assert(!options.long_names);
    ck_assert_ptr_null(options.cookie_file);
    ck_assert_int_eq(options.listen.ss_family, AF_UNSPEC);
    ck_assert_uint_eq(options.port, 0);
    ck_assert_uint_eq(options.connect_count, 0);
    ck_assert_uint_eq(options.coordinator.nat.punch_timeout_ms, 5000);
    ck_assert_uint_eq(options.coordinator.nat.max_punch_attempts, 3);
    ck_assert_uint_eq(options.coordinator.nat.coordination_delay_ms, 100);
    ck_assert_uint_eq(options.coordinator.lookup_timeout_ms, 2000);
    ck_assert_uint_eq(options.coordinator.profile_cache_ttl_ms, 2000);
    ck_assert_uint_eq(options.coordinator.nat.session_ttl_s, 300);
    ck_assert_uint_eq(options.coordinator.nat.max_sessions, 1000000);
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_DOCUMENTED);
    ck_assert(!options.coordinator.is_compatible);
    ck_assert_int_eq(options.log_level, LOG_INFO);
    ck_assert(!options.exit_on_stdin_eof);
    options_free(&options);
}
END_TEST

static void ck_numbers_are_set(void)
{
    ck_assert_uint_eq(options.port, 4370);
    ck_assert_uint_eq(options.coordinator.nat.punch_timeout_ms, 11);
    ck_assert_uint_eq(options.coordinator.nat.max_punch_attempts, 12);
    ck_assert_uint_eq(options.coordinator.nat.coordination_delay_ms, 13);
    ck_assert_uint_eq(options.coordinator.lookup_timeout_ms, 14);
    ck_assert_uint_eq(options.coordinator.profile_cache_ttl_ms, 15);
    ck_assert_uint_eq(options.coordinator.nat.session_ttl_s, 16);
    ck_assert_uint_eq(options.coordinator.nat.max_sessions, 17);
}

START_TEST(every_option_sets_its_field_and_no_other)
{
    ck_taken("--sname", "a@h", "--cookie-file", "/c", "--listen", "127.0.0.2", "--port=4370",
             "--connect", "b@h", "--connect=c@h", "--punch-timeout-ms", "11",
             "--max-punch-attempts=12", "--coordination-delay-ms", "13", "--lookup-timeout-ms=14",
             "--profile-cache-ttl-ms", "15", "--session-ttl-s=16", "--max-sessions", "17",
             "--strategy-rules=v0_14_3", "--log-level", "debug", "--exit-on-stdin-eof");
    ck_assert_str_eq(options.node_name, "a@h");
    ck_assert_str_eq(options.cookie_file, "/c");
    ck_assert_uint_eq(options.connect_count, 2);
    ck_assert_str_eq(options.connect[0], "b@h");
    ck_assert_str_eq(options.connect[1], "c@h");
    ck_numbers_are_set();
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_V0_14_3);
    ck_assert_int_eq(options.log_level, LOG_DEBUG);
    ck_assert(options.exit_on_stdin_eof);

    const struct sockaddr_in *listen = (const struct sockaddr_in *)&options.listen;
    ck_assert_int_eq(listen->sin_family, AF_INET);
    ck_assert_uint_eq(ntohs(listen->sin_port), 4370);
    ck_assert_uint_eq(ntohl(listen->sin_addr.s_addr), 0x7f000002);
    options_free(&options);
}
END_TEST

START_TEST(the_last_of_a_repeated_option_counts)
{
    ck_taken("--port", "1", "--port", "2", "--strategy-rules=v0_14_3",
             "--strategy-rules=documented");
    ck_assert_uint_eq(options.port, 2);
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_DOCUMENTED);
    options_free(&options);
}
END_TEST

START_TEST(all_rule_sets_have_a_name)
{
    for (int i = 0; i < NAT_RULE_SETS; i++) {
        ck_taken("--strategy-rules", nat_rules_name((enum nat_rules)i));
        ck_assert_int_eq(options.coordinator.nat.rules, i);
        options_free(&options);
    }
}
END_TEST

START_TEST(all_levels_have_a_name)
{
    for (int i = LOG_ERR; i <= LOG_DEBUG; i++) {
        ck_taken("--log-level", log_level_name(i));
        ck_assert_int_eq(options.log_level, i);
        options_free(&options);
    }
}
END_TEST

START_TEST(compatibility_brings_the_old_rules)
{
    ck_taken("--compatibility", "v0_14_3");
    ck_assert(options.coordinator.is_compatible);
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_V0_14_3);
    options_free(&options);
    ck_taken("--strategy-rules", "feasible", "--compatibility=v0_14_3");
    ck_assert(options.coordinator.is_compatible);
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_FEASIBLE);
    options_free(&options);
    ck_refused("--compatibility must be v0_14_3, not 'v0_14_4'", "--compatibility", "v0_14_4");
}
END_TEST

/* --- the environment --- */

static const char *const variables[][2] = {
    {"MACULA_NAT_NAME", "a@h.x"},
    {"MACULA_NAT_COOKIE_FILE", "/c"},
    {"MACULA_NAT_LISTEN", "127.0.0.2"},
    {"MACULA_NAT_PORT", "4370"},
    {"MACULA_NAT_CONNECT", "b@h.x,c@h.x"},
    {"MACULA_NAT_PUNCH_TIMEOUT_MS", "11"},
    {"MACULA_NAT_MAX_PUNCH_ATTEMPTS", "12"},
    {"MACULA_NAT_COORDINATION_DELAY_MS", "13"},
    {"MACULA_NAT_LOOKUP_TIMEOUT_MS", "14"},
    {"MACULA_NAT_PROFILE_CACHE_TTL_MS", "15"},
    {"MACULA_NAT_SESSION_TTL_S", "16"},
    {"MACULA_NAT_MAX_SESSIONS", "17"},
    {"MACULA_NAT_STRATEGY_RULES", "feasible"},
    {"MACULA_NAT_COMPATIBILITY", "v0_14_3"},
    {"MACULA_NAT_LOG_LEVEL", "debug"},
    {"MACULA_NAT_EXIT_ON_STDIN_EOF", "true"},
};
#define VARIABLES (sizeof variables / sizeof variables[0])

static void ck_all_are_set(void)
{
    ck_assert_str_eq(options.node_name, "a@h.x");
    ck_assert(options.long_names);
    ck_assert_str_eq(options.cookie_file, "/c");
    ck_assert_int_eq(options.listen.ss_family, AF_INET);
    ck_assert_uint_eq(options.connect_count, 2);
    ck_assert_str_eq(options.connect[0], "b@h.x");
    ck_assert_str_eq(options.connect[1], "c@h.x");
    ck_numbers_are_set();
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_FEASIBLE);
    ck_assert(options.coordinator.is_compatible);
    ck_assert_int_eq(options.log_level, LOG_DEBUG);
    ck_assert(options.exit_on_stdin_eof);
}

START_TEST(every_option_can_be_in_the_environment)
{
    for (size_t i = 0; i < VARIABLES; i++)
        setenv(variables[i][0], variables[i][1], 1);
    ck_assert_msg(parse((const char *const[]){NULL}) == 0, "refused: %s", error);
    ck_all_are_set();
    options_free(&options);
    ck_taken("--sname", "z", "--cookie-file", "/z", "--port", "1", "--connect", "y@z",
             "--strategy-rules", "documented", "--log-level", "error");
    ck_assert(!options.long_names);
    ck_assert_uint_eq(strncmp(options.node_name, "z@", 2), 0);
    ck_assert_str_eq(options.cookie_file, "/z");
    ck_assert_uint_eq(options.port, 1);
    ck_assert_uint_eq(options.connect_count, 1);
    ck_assert_str_eq(options.connect[0], "y@z");
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_DOCUMENTED);
    ck_assert_int_eq(options.log_level, LOG_ERR);
    ck_assert_uint_eq(options.coordinator.nat.session_ttl_s, 16);
    options_free(&options);
    ck_taken("--sname", "z", "--connect", "y@z", "--compatibility", "v0_14_3");
    ck_assert_int_eq(options.coordinator.nat.rules, NAT_RULES_V0_14_3);
    options_free(&options);
}
END_TEST

START_TEST(an_empty_variable_counts_as_none)
{
    for (size_t i = 0; i < VARIABLES; i++)
        setenv(variables[i][0], "", 1);
    setenv("MACULA_NAT_HELP", "true", 1);
    setenv("MACULA_NAT_NO_SUCH_OPTION", "x", 1);
    ck_assert_int_eq(parse((const char *const[]){NULL}), 0);
    ck_assert_uint_eq(options.port, 0);
    ck_assert(!options.exit_on_stdin_eof && !options.coordinator.is_compatible);
    options_free(&options);
    setenv("MACULA_NAT_EXIT_ON_STDIN_EOF", "false", 1);
    ck_assert_int_eq(parse((const char *const[]){NULL}), 0);
    ck_assert(!options.exit_on_stdin_eof);
    options_free(&options);
}
END_TEST

START_TEST(wrong_variables_are_refused)
{
    static const char *const wrong[][3] = {
        {"MACULA_NAT_PORT", "65536", "MACULA_NAT_PORT must be 0 to 65535, not '65536'"},
        {"MACULA_NAT_PORT", "x", "MACULA_NAT_PORT needs a whole number, not 'x'"},
        {"MACULA_NAT_EXIT_ON_STDIN_EOF", "1",
         "MACULA_NAT_EXIT_ON_STDIN_EOF must be true or false, not '1'"},
        {"MACULA_NAT_LOG_LEVEL", "a\nb", "MACULA_NAT_LOG_LEVEL must be"},
        {"MACULA_NAT_CONNECT", "a@h,,b@h", "MACULA_NAT_CONNECT has a comma with no name beside it"},
        {"MACULA_NAT_CONNECT", "a@h,", "MACULA_NAT_CONNECT has a comma with no name beside it"},
        {"MACULA_NAT_LISTEN", "x", "needs an IPv4 or IPv6 address"},
    };
    const char *const *row = wrong[_i];

    setenv(row[0], row[1], 1);
    ck_assert_int_eq(parse((const char *const[]){NULL}), -EINVAL);
    ck_assert_msg(strstr(error, row[2]) != NULL, "%s", error);
    ck_assert_ptr_null(strchr(error, '\n'));
    ck_assert_int_eq(PARSE("--help"), OPTIONS_ASKED_HELP);
}
END_TEST

START_TEST(wrong_options_are_refused)
{
    ck_refused("unknown option '--bogus'", "--bogus");
    ck_refused("unknown option '--por'", "--por", "1");
    ck_refused("unknown option '-h'", "-h");
    ck_refused("unknown option '--'", "--");
    ck_refused("unexpected argument 'word'", "word");
    ck_refused("unexpected argument ''", "");
    ck_refused("--port needs a value: N", "--port");
    ck_refused("--port needs a value: N", "--port=");
    ck_refused("--cookie-file needs a value: FILE", "--cookie-file", "--port", "1");
    ck_refused("--exit-on-stdin-eof takes no value", "--exit-on-stdin-eof=yes");
    ck_refused("--help takes no value", "--help=1");
    ck_refused("--strategy-rules must be documented, v0_14_3 or feasible, not 'v1'",
               "--strategy-rules", "v1");
    ck_refused("--log-level must be error, warning, notice, info or debug, not 'loud'",
               "--log-level", "loud");
    ck_refused("--log-level needs a value", "--log-level=");
}
END_TEST

START_TEST(an_error_is_one_short_line_whatever_the_argument_holds)
{
    char huge[20000];

    memset(huge, 'x', sizeof huge);
    huge[sizeof huge - 1] = 0;
    ck_refused("unexpected argument 'xxx", huge);
    ck_refused("...", huge);
    ck_refused("a\\x0ab\\x1b\\xff", "a\nb\033\xff");
    ck_refused("255 characters", "--sname", huge);
}
END_TEST

static const struct {
    const char *option;
    const char *min, *max;
    const char *below, *above; /* NULL: nothing is below 0 */
} bounds[] = {
    {"--port", "0", "65535", NULL, "65536"},
    {"--punch-timeout-ms", "1", "3600000", "0", "3600001"},
    {"--max-punch-attempts", "0", "1000", NULL, "1001"},
    {"--coordination-delay-ms", "0", "60000", NULL, "60001"},
    {"--lookup-timeout-ms", "1", "60000", "0", "60001"},
    {"--profile-cache-ttl-ms", "0", "3600000", NULL, "3600001"},
    {"--session-ttl-s", "1", "86400", "0", "86401"},
    {"--max-sessions", "1", "10000000", "0", "10000001"},
};

START_TEST(numbers_have_bounds)
{
    const char *option = bounds[_i].option;

    ck_taken(option, bounds[_i].min);
    options_free(&options);
    ck_taken(option, bounds[_i].max);
    options_free(&options);
    if (bounds[_i].below != NULL)
        ck_refused("must be", option, bounds[_i].below);
    ck_refused("must be", option, bounds[_i].above);
    ck_refused("must be", option, "4294967297");
    ck_refused("must be", option, "18446744073709551617");
    ck_refused("must be", option, "99999999999999999999999999999999999999999");
    ck_refused("needs a whole number", option, "-1");
    ck_refused("needs a whole number", option, "+1");
    ck_refused("needs a whole number", option, " 1");
    ck_refused("needs a whole number", option, "1 ");
    ck_refused("needs a whole number", option, "1x");
    ck_refused("needs a whole number", option, "0x1");
    ck_refused("needs a whole number", option, "1.0");
    ck_refused("needs a whole number", option, "x");
}
END_TEST

START_TEST(short_names)
{
    ck_taken("--sname", "Az_-09");
    ck_assert_uint_eq(strncmp(options.node_name, "Az_-09@", 7), 0);
    ck_assert_ptr_null(strchr(options.node_name, '.'));
    options_free(&options);
    ck_taken("--sname", "a@host");
    ck_assert_str_eq(options.node_name, "a@host");
    options_free(&options);
    ck_refused("dot in its host", "--sname", "a@host.example");
    ck_refused("no node name", "--sname", "a.b");
    ck_refused("no node name", "--sname", "@host");
    ck_refused("no node name", "--sname", "a b@host");
    ck_refused("no node name", "--sname", "\xc3\xa4@host");
    ck_refused("no host after the '@'", "--sname", "a@");
    ck_refused("wrong character", "--sname", "a@b@c");
    ck_refused("wrong character", "--sname", "a@b c");
    ck_refused("wrong character", "--sname", "a@b\n");
    ck_refused("a node has one of them", "--sname", "a", "--name", "a@b.c");
}
END_TEST

START_TEST(long_names)
{
    ck_taken("--name", "a@host.example");
    ck_assert_str_eq(options.node_name, "a@host.example");
    ck_assert(options.long_names);
    options_free(&options);
    ck_taken("--name=a@127.0.0.1");
    options_free(&options);
    ck_taken("--name=a@::1");
    options_free(&options);
    ck_refused("no dot in its host", "--name", "a@localhost");
    ck_refused("no node name", "--name", "a.b@host.example");
}
END_TEST

START_TEST(the_longest_node_name_has_255_characters)
{
    char name[300];

    memset(name, 'a', sizeof name);
    memcpy(name + 253, "@h", 3);
    ck_taken("--sname", name);
    ck_assert_str_eq(options.node_name, name);
    options_free(&options);
    memcpy(name + 253, "a@h", 4);
    ck_refused("255 characters", "--sname", name);
    name[255] = 0; /* too long only with the host of this machine */
    name[254] = 'a';
    ck_refused("255 characters", "--sname", name);
}
END_TEST

START_TEST(nodes_to_connect_to)
{
    char names[OPTIONS_CONNECT_MAX + 1][32];
    const char *arguments[OPTIONS_CONNECT_MAX + 2] = {NULL};

    for (int i = 0; i <= OPTIONS_CONNECT_MAX; i++) {
        snprintf(names[i], sizeof names[i], "--connect=n%d@h", i);
        arguments[i] = names[i];
    }
    ck_assert_int_eq(parse(arguments), -EINVAL);
    ck_assert_str_eq(error, "--connect may be given for at most 64 nodes");
    arguments[OPTIONS_CONNECT_MAX] = names[0]; /* named twice, counted once */
    ck_assert_int_eq(parse(arguments), 0);
    ck_assert_uint_eq(options.connect_count, OPTIONS_CONNECT_MAX);
    options_free(&options);

    ck_taken("--connect", "a@b.c", "--name", "x@y.z");
    options_free(&options);
    ck_taken("--connect", "a@h=65535", "--connect=b@h=1", "--connect", "c@h", "--connect", "a@h=7");
    ck_assert_uint_eq(options.connect_count, 3);
    ck_assert_str_eq(options.connect[1], "b@h");
    ck_assert_uint_eq(options.connect_port[0], 65535);
    ck_assert_uint_eq(options.connect_port[1], 1);
    ck_assert_uint_eq(options.connect_port[2], 0);
    options_free(&options);
    ck_refused("needs a port after the '='", "--connect", "a@h=0");
    ck_refused("needs a port after the '='", "--connect", "a@h=");
    ck_refused("needs a port after the '='", "--connect", "a@h=65536");
    ck_refused("needs a port after the '='", "--connect", "a@h=1x");
    ck_refused("needs a host", "--connect", "a");
    ck_refused("this node itself", "--connect", "a@h", "--sname", "a@h");
    ck_refused("dot in its host", "--connect", "a@b.c");
    ck_refused("no dot in its host", "--connect", "a@b", "--name", "x@y.z");
}
END_TEST

START_TEST(addresses_to_listen_on)
{
    ck_taken("--listen", "::1", "--port", "9");
    const struct sockaddr_in6 *listen = (const struct sockaddr_in6 *)&options.listen;
    ck_assert_int_eq(listen->sin6_family, AF_INET6);
    ck_assert_uint_eq(ntohs(listen->sin6_port), 9);
    ck_assert(IN6_IS_ADDR_LOOPBACK(&listen->sin6_addr));
    options_free(&options);
    ck_taken("--listen=0.0.0.0");
    ck_assert_int_eq(options.listen.ss_family, AF_INET);
    options_free(&options);
    ck_refused("--listen needs", "--listen", "localhost");
    ck_refused("--listen needs", "--listen", "1");
    ck_refused("--listen needs", "--listen", "127.0.0.256");
    ck_refused("--listen needs", "--listen", "[::1]");
    ck_refused("--listen needs", "--listen", "127.0.0.1:80");
    ck_refused("--listen needs", "--listen", "1:2:3:4:5:6:7:8:9");
}
END_TEST

START_TEST(help_and_version_are_answered_where_they_stand)
{
    ck_assert_int_eq(PARSE("--help"), OPTIONS_ASKED_HELP);
    ck_assert_int_eq(PARSE("--version"), OPTIONS_ASKED_VERSION);
    ck_assert_int_eq(PARSE("--port", "1", "--help", "--bogus"), OPTIONS_ASKED_HELP);
    ck_refused("unknown option", "--bogus", "--help");
}
END_TEST

/* Every option that the help names is one that the parser knows, with or without a value as the
 * help says. */
START_TEST(help_names_what_the_parser_takes)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    int count = 0;

    ck_assert_ptr_nonnull(file);
    options_print_help(file);
    fclose(file);
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
        char option[64];
        char argument[64] = "";

        ck_assert_uint_le(strlen(line), 120);
        if (sscanf(line, "  --%60[a-z-] %60[A-Z@]", option + 2, argument) < 1)
            continue;
        memcpy(option, "--", 2);
        count++;
        if (argument[0] >= 'A' && argument[0] <= 'Z')
            ck_refused("needs a value", option);
        else if (PARSE(option) == 0)
            options_free(&options);
        else
            ck_assert_str_eq(error, "");
    }
    ck_assert_int_eq(count, 20);
    free(text);
}
END_TEST

Suite *suite_options(void)
{
    Suite *suite = suite_create("options");
    TCase *tests = tcase_create("options");

    tcase_add_test(tests, defaults_are_those_of_the_documentation);
    tcase_add_test(tests, every_option_sets_its_field_and_no_other);
    tcase_add_test(tests, the_last_of_a_repeated_option_counts);
    tcase_add_test(tests, compatibility_brings_the_old_rules);
    tcase_add_test(tests, every_option_can_be_in_the_environment);
    tcase_add_test(tests, an_empty_variable_counts_as_none);
    tcase_add_loop_test(tests, wrong_variables_are_refused, 0, 7);
    tcase_add_test(tests, wrong_options_are_refused);
    tcase_add_test(tests, all_rule_sets_have_a_name);
    tcase_add_test(tests, all_levels_have_a_name);
    tcase_add_test(tests, an_error_is_one_short_line_whatever_the_argument_holds);
    tcase_add_loop_test(tests, numbers_have_bounds, 0, sizeof bounds / sizeof bounds[0]);
    tcase_add_test(tests, short_names);
    tcase_add_test(tests, long_names);
    tcase_add_test(tests, the_longest_node_name_has_255_characters);
    tcase_add_test(tests, nodes_to_connect_to);
    tcase_add_test(tests, addresses_to_listen_on);
    tcase_add_test(tests, help_and_version_are_answered_where_they_stand);
    tcase_add_test(tests, help_names_what_the_parser_takes);
    suite_add_tcase(suite, tests);
    return suite;
}
