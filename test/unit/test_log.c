/* SPDX-License-Identifier: Apache-2.0 */
/* The log: form of a line, levels, escaping, the limit per kind and peer, and a stderr that takes
 * no more. */
#include "base/log.h"
#include "suites.h"

#include <check.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

Suite *suite_log(void);

static int saved_stderr;
static int reader = -1; /* what the log wrote to stderr can be read here */
static char captured[1 << 20];

/* Replaces stderr with a pipe, so that a test sees what the log wrote. */
static void set_up(void)
{
    int fds[2];

    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    ck_assert_int_ge(fcntl(fds[1], F_SETPIPE_SZ, sizeof captured), 0);
    saved_stderr = dup(STDERR_FILENO);
    ck_assert_int_ge(saved_stderr, 0);
    ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
    close(fds[1]);
    reader = fds[0];
    log_init(LOG_DEBUG, STDERR_FILENO);
}

static void tear_down(void)
{
    log_free();
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    if (reader >= 0)
        close(reader);
}

/* All that was written since the last call. */
static const char *take(void)
{
    size_t len = 0;
    ssize_t got;

    while ((got = read(reader, captured + len, sizeof captured - 1 - len)) > 0)
        len += (size_t)got;
    captured[len] = 0;
    return captured;
}

/* The text of the one line that was written since the last call, without time and newline. */
static const char *take_line(void)
{
    char *text = (char *)take();
    char *end = strchr(text, '\n');

    ck_assert_msg(end != NULL && end[1] == 0, "not one line: '%s'", text);
    ck_assert_uint_gt(strlen(text), 25);
    *end = 0;
    return text + 25;
}

static size_t count_lines(const char *text)
{
    size_t count = 0;

    for (; *text != 0; text++)
        count += *text == '\n';
    return count;
}

START_TEST(a_line_has_time_level_and_text)
{
    regex_t form;

    ck_assert_int_eq(regcomp(&form,
                             "^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
                             "\\.[0-9]{3}Z warning it happened\n$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    log_event(LOG_WARNING, "kind", NULL, "it happened");
    ck_assert_int_eq(regexec(&form, take(), 0, NULL, 0), 0);
    regfree(&form);
    log_event(LOG_ERR, "kind", "a@h", "%s %d", "number", 7);
    ck_assert_str_eq(take_line(), "error number 7");
}
END_TEST

START_TEST(levels_have_names_and_a_threshold)
{
    static const char *const names[] = {"error", "warning", "notice", "info", "debug"};
    static const int levels[] = {LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG};

    for (int i = 0; i < 5; i++) {
        ck_assert_str_eq(log_level_name(levels[i]), names[i]);
        log_init(levels[i], STDERR_FILENO);
        for (int j = 0; j < 5; j++)
            log_event(levels[j], "kind", NULL, "%s", names[j]);
        ck_assert_uint_eq(count_lines(take()), (size_t)i + 1);
    }
}
END_TEST

static const struct {
    const char *text;
    const char *escaped;
} escapes[] = {
    {"", ""},
    {"plain ~ text", "plain ~ text"},
    {"a\nb\r\t\033[2J\x7f", "a\\x0ab\\x0d\\x09\\x1b[2J\\x7f"},
    {"\\x0a", "\\\\x0a"},
    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
     "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
    {"\xc2\x85", "\\xc2\\x85"},          /* NEL, a control character */
    {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"}, /* LINE SEPARATOR */
    {"\xe2\x80\xae", "\\xe2\\x80\\xae"}, /* RIGHT-TO-LEFT OVERRIDE */
    {"\xc3", "\\xc3"},                   /* ends early */
    {"\xe2\x82", "\\xe2\\x82"},
    {"\xf0\x9f\x98x", "\\xf0\\x9f\\x98x"},
    {"\x80\xbf\xfe\xff", "\\x80\\xbf\\xfe\\xff"}, /* never begin a character */
    {"\xc0\xaf", "\\xc0\\xaf"},                   /* overlong */
    {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},
    {"\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf"},
    {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* surrogate */
    {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* above U+10FFFF */
    {"\xef\xbf\xbd\xf4\x8f\xbf\xbf", "\xef\xbf\xbd\xf4\x8f\xbf\xbf"},
};

START_TEST(text_is_escaped)
{
    char expected[200];
    char out[200];

    log_event(LOG_INFO, "kind", NULL, "%s", escapes[_i].text);
    snprintf(expected, sizeof expected, "info %s", escapes[_i].escaped);
    ck_assert_str_eq(take_line(), expected);

    /* In a room of any size: the whole text, or a beginning of it with the mark; never half an
     * escape. */
    size_t full = strlen(escapes[_i].escaped);
    for (size_t size = 4; size <= full + 2; size++) {
        memset(out, '#', sizeof out);
        size_t len = log_escape(out, size, escapes[_i].text);
        ck_assert_uint_eq(len, strlen(out));
        ck_assert_uint_lt(len, size);
        ck_assert_int_eq(out[size], '#');
        if (size > full) {
            ck_assert_str_eq(out, escapes[_i].escaped);
        } else {
            ck_assert_str_eq(out + len - 3, "...");
            ck_assert_mem_eq(out, escapes[_i].escaped, len - 3);
        }
    }
}
END_TEST

START_TEST(a_line_is_cut_at_its_limit)
{
    static char huge[100000];

    memset(huge, 'x', sizeof huge - 1);
    log_event(LOG_INFO, "kind", NULL, "%s", huge);
    const char *line = take();
    ck_assert_uint_eq(strlen(line), LOG_LINE_MAX - 1);
    ck_assert_str_eq(line + LOG_LINE_MAX - 6, "x...\n");
    ck_assert_uint_eq(count_lines(line), 1);
    memset(huge, 1, sizeof huge - 1);
    log_event(LOG_INFO, "kind", huge, "%s", huge);
    ck_assert_uint_lt(strlen(take()), LOG_LINE_MAX);
}
END_TEST

START_TEST(one_line_a_second_of_a_kind_from_a_peer)
{
    log_event_at(5000, LOG_INFO, "kind", "a@h", NULL, "first");
    ck_assert_str_eq(take_line(), "info first");
    for (int i = 0; i < 41; i++)
        log_event_at(5000 + 24 * (uint64_t)i, LOG_INFO, "kind", "a@h", NULL, "again");
    ck_assert_str_eq(take(), "");
    log_event_at(5999, LOG_INFO, "kind", "a@h", NULL, "again");
    ck_assert_str_eq(take(), "");
    log_event_at(6000, LOG_INFO, "kind", "a@h", NULL, "next");
    ck_assert_str_eq(take_line(), "info next (42 like it suppressed)");
    log_event_at(7000, LOG_INFO, "kind", "a@h", NULL, "last");
    ck_assert_str_eq(take_line(), "info last");
}
END_TEST

START_TEST(other_kinds_and_peers_are_not_suppressed)
{
    log_event_at(5000, LOG_INFO, "kind", "a@h", NULL, "1");
    log_event_at(5000, LOG_INFO, "other", "a@h", NULL, "2");
    log_event_at(5000, LOG_INFO, "kind", "b@h", NULL, "3");
    log_event_at(5000, LOG_INFO, "kind", NULL, NULL, "4");
    log_event_at(5000, LOG_INFO, "kind", NULL, NULL, "5");
    ck_assert_uint_eq(count_lines(take()), 5);
}
END_TEST

START_TEST(a_count_is_told_when_the_next_line_comes)
{
    log_event_at(5000, LOG_NOTICE, "kind", "a@h", NULL, "first");
    log_event_at(5001, LOG_NOTICE, "kind", "a@h", NULL, "again");
    log_event_at(5002, LOG_NOTICE, "kind", "a@h", NULL, "again");
    take();
    log_event_at(5999, LOG_INFO, "kind", NULL, NULL, "too early");
    ck_assert_str_eq(take_line(), "info too early");
    log_event_at(6000, LOG_INFO, "kind", NULL, NULL, "later");
    const char *text = take();
    ck_assert_uint_eq(count_lines(text), 2);
    ck_assert_ptr_nonnull(strstr(text, " notice kind: 2 more from a@h suppressed\n"));
    log_event_at(6001, LOG_INFO, "kind", "a@h", NULL, "next");
    ck_assert_str_eq(take_line(), "info next");
}
END_TEST

START_TEST(counts_are_told_at_the_end)
{
    log_event_at(5000, LOG_NOTICE, "kind", "a@h", NULL, "first");
    log_event_at(5001, LOG_NOTICE, "kind", "a@h", NULL, "again");
    log_event_at(5001, LOG_NOTICE, "kind", "b@h", NULL, "first");
    take();
    log_free();
    ck_assert_str_eq(take_line(), "notice kind: 1 more from a@h suppressed");
    log_free();
    ck_assert_str_eq(take(), "");
}
END_TEST

START_TEST(what_is_below_the_level_is_not_counted)
{
    log_event_at(5000, LOG_INFO, "kind", "a@h", NULL, "first");
    log_init(LOG_INFO, STDERR_FILENO);
    log_event_at(5001, LOG_DEBUG, "kind", "a@h", NULL, "again");
    take();
    log_event_at(6000, LOG_INFO, "kind", "a@h", NULL, "next");
    ck_assert_str_eq(take_line(), "info next");
}
END_TEST

/* A line that stands for others names the first few that they were about, each once. */
START_TEST(merged_lines_name_what_they_were_about)
{
    char about[32];

    for (int i = 0; i < 100; i++) {
        snprintf(about, sizeof about, "p%d", i / 2);
        log_event_at(5000, LOG_WARNING, "kind", "a@h", about, "no way to %s", about);
        log_event_at(5000, LOG_INFO, "other", "a@h", i == 1 ? "x\n" : NULL, "hello");
    }
    take();
    log_event_at(6000, LOG_WARNING, "kind", "a@h", "p7", "no way to p7");
    const char *text = take();
    ck_assert_uint_eq(count_lines(text), 2);
    ck_assert_ptr_nonnull(
        strstr(text, " warning no way to p7 (99 like it suppressed: p0, p1, p2 ...)\n"));
    ck_assert_ptr_nonnull(strstr(text, " info other: 99 more from a@h suppressed: x\\x0a\n"));
    log_event_at(6000, LOG_WARNING, "kind", "a@h", "p8", "no way to p8");
    log_event_at(7000, LOG_WARNING, "kind", "a@h", "p9", "no way to p9");
    ck_assert_str_eq(take_line(), "warning no way to p9 (1 like it suppressed: p8)");
}
END_TEST

/* However many peers there are, there is a bounded number of lines a second, and each line is told
 * or counted. */
START_TEST(many_peers_do_not_grow_the_table)
{
    char peer[32];

    for (int i = 0; i < 10000; i++) {
        snprintf(peer, sizeof peer, "n%d@h", i);
        log_event_at(5000, LOG_INFO, "kind", peer, NULL, "hello");
    }
    ck_assert_uint_eq(count_lines(take()), LOG_PAIRS_MAX);
    log_event_at(5000, LOG_INFO, "kind", NULL, NULL, "own");
    ck_assert_str_eq(take_line(), "info own");
    log_event_at(6000, LOG_INFO, "kind", "late@h", NULL, "next");
    const char *text = take();
    ck_assert_uint_eq(count_lines(text), 2);
    snprintf(peer, sizeof peer, " %d lines", 10000 - LOG_PAIRS_MAX);
    ck_assert_ptr_nonnull(strstr(text, peer));

    for (int i = 0; i < 10000; i++) {
        snprintf(peer, sizeof peer, "n%d@h", i);
        log_event_at(7000 + 10 * (uint64_t)i, LOG_INFO, "kind", peer, NULL, "hello");
    }
    ck_assert_uint_eq(count_lines(take()), 10000); /* 100 a second are no crowd */
}
END_TEST

START_TEST(long_kinds_and_peers_are_told_apart_by_their_beginning)
{
    char kind[1000];
    char peer[1000];

    memset(kind, 'k', sizeof kind);
    memset(peer, 'p', sizeof peer);
    kind[999] = peer[999] = 0;
    log_event_at(5000, LOG_INFO, kind, peer, NULL, "first");
    peer[998] = 'q';
    log_event_at(5000, LOG_INFO, kind, peer, NULL, "again");
    ck_assert_str_eq(take_line(), "info first");
}
END_TEST

/* Nobody reads: the log must come back at once, and tell later how much is missing. */
START_TEST(a_full_pipe_costs_lines_but_no_time)
{
    const int total = 20000; /* more than the pipe takes */
    char expected[64];

    for (int i = 0; i < total; i++)
        log_event(LOG_INFO, "kind", NULL, "a line that is a little longer than the shortest ones");
    size_t written = count_lines(take());
    ck_assert_uint_gt(written, 0);
    ck_assert_uint_lt(written, total);
    log_event(LOG_INFO, "kind", NULL, "again");
    snprintf(expected, sizeof expected, " warning %zu log lines dropped", (size_t)total - written);
    const char *text = take();
    ck_assert_uint_eq(count_lines(text), 2);
    ck_assert_ptr_nonnull(strstr(text, expected));
    log_event(LOG_INFO, "kind", NULL, "once");
    ck_assert_str_eq(take_line(), "info once");
}
END_TEST

/* A terminal whose reader has stopped says that it takes data, and then takes a part of a line. */
START_TEST(a_terminal_that_takes_no_more_costs_lines_but_no_time)
{
    struct termios raw;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    int flags;

    ck_assert_int_ge(master, 0);
    ck_assert_int_eq(grantpt(master) | unlockpt(master), 0);
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    ck_assert_int_ge(terminal, 0);
    ck_assert_int_eq(tcgetattr(terminal, &raw), 0);
    flags = fcntl(terminal, F_GETFL);
    ck_assert_int_eq(dup2(terminal, STDERR_FILENO), STDERR_FILENO);
    log_init(LOG_DEBUG, STDERR_FILENO);
    for (int i = 0; i < 2000; i++)
        log_event(LOG_INFO, "kind", NULL, "a line that is a little longer than the shortest ones");
    ck_assert_int_eq(fcntl(terminal, F_GETFL), flags);

    close(reader);
    reader = master;
    size_t written = count_lines(take());
    ck_assert_uint_gt(written, 0);
    ck_assert_uint_lt(written, 2000);
    log_event(LOG_INFO, "kind", NULL, "again");
    const char *text = take();
    ck_assert_ptr_nonnull(strstr(text, " log lines dropped"));
    ck_assert_ptr_nonnull(strstr(text, " info again\r\n"));
    close(terminal);
}
END_TEST

/* What a full disk takes of a line is not run together with the next one. */
START_TEST(a_file_that_may_not_grow_costs_lines)
{
    const struct rlimit small = {200, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    FILE *file = tmpfile();
    struct stat info;

    ck_assert_ptr_nonnull(file);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(dup2(fileno(file), STDERR_FILENO), STDERR_FILENO);
    log_init(LOG_DEBUG, STDERR_FILENO);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 10; i++)
        log_event(LOG_INFO, "kind", NULL, "a line that is a little longer than the shortest ones");
    ck_assert_int_eq(fstat(fileno(file), &info), 0);
    ck_assert_int_eq(info.st_size, 200);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    log_event(LOG_INFO, "kind", NULL, "again");

    close(reader);
    reader = dup(fileno(file));
    lseek(reader, 0, SEEK_SET);
    const char *text = take();
    ck_assert_uint_eq(count_lines(text), 5);
    ck_assert_ptr_nonnull(strstr(text, "warning 8 log lines dropped"));
    ck_assert_ptr_nonnull(strstr(text, "info again\n"));
    fclose(file);
}
END_TEST

START_TEST(a_reader_that_is_gone_is_no_signal)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    ck_assert_int_eq(sigaction(SIGPIPE, &action, NULL), 0);
    close(reader);
    reader = -1;
    for (int i = 0; i < 100; i++)
        log_event(LOG_INFO, "kind", NULL, "to nobody");
    ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
}
END_TEST

Suite *suite_log(void)
{
    Suite *suite = suite_create("log");
    TCase *tests = tcase_create("log");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_line_has_time_level_and_text);
    tcase_add_test(tests, levels_have_names_and_a_threshold);
    tcase_add_loop_test(tests, text_is_escaped, 0, sizeof escapes / sizeof escapes[0]);
    tcase_add_test(tests, a_line_is_cut_at_its_limit);
    tcase_add_test(tests, one_line_a_second_of_a_kind_from_a_peer);
    tcase_add_test(tests, other_kinds_and_peers_are_not_suppressed);
    tcase_add_test(tests, a_count_is_told_when_the_next_line_comes);
    tcase_add_test(tests, counts_are_told_at_the_end);
    tcase_add_test(tests, what_is_below_the_level_is_not_counted);
    tcase_add_test(tests, merged_lines_name_what_they_were_about);
    tcase_add_test(tests, many_peers_do_not_grow_the_table);
    tcase_add_test(tests, long_kinds_and_peers_are_told_apart_by_their_beginning);
    tcase_add_test(tests, a_full_pipe_costs_lines_but_no_time);
    tcase_add_test(tests, a_terminal_that_takes_no_more_costs_lines_but_no_time);
    tcase_add_test(tests, a_file_that_may_not_grow_costs_lines);
    tcase_add_test(tests, a_reader_that_is_gone_is_no_signal);
    suite_add_tcase(suite, tests);
    return suite;
}
