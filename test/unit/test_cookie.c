/* SPDX-License-Identifier: Apache-2.0 */
/* The cookie: where it is taken from, in which order, and what is refused. Each test has a home of
 * its own. */
#include "cookie.h"
#include "suites.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *suite_cookie(void);

#define PATH_SIZE 128

static char home[PATH_SIZE / 2];
static char cookie[COOKIE_SIZE];
static char error[512];

static void set_up(void)
{
    const char *base = getenv("TMPDIR");

    snprintf(home, sizeof home, "%s/cookie.XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(home));
    ck_assert_int_eq(setenv("HOME", home, 1), 0);
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("MACULA_NAT_COOKIE");
    memset(cookie, 0, sizeof cookie);
    memset(error, 0, sizeof error);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

static void tear_down(void)
{
    nftw(home, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The path of `name` in the home of this test. */
static const char *in_home(const char *name)
{
    static char path[PATH_SIZE];

    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static const char *write_file(const char *name, const char *content, size_t len, mode_t mode)
{
    const char *path = in_home(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, content, len), (ssize_t)len);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static int load(const char *cookie_file)
{
    return cookie_load(cookie, cookie_file, error, sizeof error);
}

static void ck_refused(const char *cookie_file, int status, const char *part)
{
    ck_assert_int_eq(load(cookie_file), status);
    ck_assert_msg(strstr(error, part) != NULL, "'%s' is not in: %s", part, error);
    ck_assert_ptr_null(strchr(error, '\n'));
}

START_TEST(environment_comes_first_then_the_file_then_home)
{
    const char *file = write_file("file", "FROMFILE\n", 9, 0400);
    char path[PATH_SIZE];

    snprintf(path, sizeof path, "%s", file);
    write_file(".erlang.cookie", "FROMHOME", 8, 0400);
    setenv("MACULA_NAT_COOKIE", "FROMENV", 1);
    ck_assert_int_eq(load(path), 0);
    ck_assert_str_eq(cookie, "FROMENV");
    unsetenv("MACULA_NAT_COOKIE");
    ck_assert_int_eq(load(path), 0);
    ck_assert_str_eq(cookie, "FROMFILE");
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_str_eq(cookie, "FROMHOME");
}
END_TEST

START_TEST(a_cookie_is_made_where_there_is_none)
{
    char first[COOKIE_SIZE];
    struct stat info;
    int entries = 0;

    ck_assert_msg(load(NULL) == 0, "%s", error);
    ck_assert_uint_eq(strlen(cookie), 20);
    ck_assert_uint_eq(strspn(cookie, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 20);
    ck_assert_int_eq(stat(in_home(".erlang.cookie"), &info), 0);
    ck_assert_uint_eq(info.st_mode, S_IFREG | 0400);
    ck_assert_int_eq(info.st_size, 20);
    ck_assert_uint_eq(info.st_nlink, 1);

    DIR *directory = opendir(home); /* nothing else is left there */
    ck_assert_ptr_nonnull(directory);
    while (readdir(directory) != NULL)
        entries++;
    closedir(directory);
    ck_assert_int_eq(entries, 3);

    memcpy(first, cookie, sizeof first);
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_str_eq(cookie, first);
    ck_assert_int_eq(unlink(in_home(".erlang.cookie")), 0);
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_str_ne(cookie, first);
}
END_TEST

START_TEST(programs_that_make_it_at_once_agree)
{
    enum { PROGRAMS = 8 };
    int go[2], results[2];
    char gathered[PROGRAMS][COOKIE_SIZE];

    ck_assert_int_eq(pipe(go), 0);
    ck_assert_int_eq(pipe(results), 0);
    for (int i = 0; i < PROGRAMS; i++) {
        pid_t child = fork();

        ck_assert_int_ge(child, 0);
        if (child == 0) {
            char byte;

            close(go[1]);
            if (read(go[0], &byte, 1) != 0 || load(NULL) != 0)
                cookie[0] = 0;
            _exit(write(results[1], cookie, sizeof cookie) != sizeof cookie);
        }
    }
    close(go[0]);
    close(go[1]); /* lets them all begin */
    for (int i = 0; i < PROGRAMS; i++)
        ck_assert_int_eq(read(results[0], gathered[i], COOKIE_SIZE), COOKIE_SIZE);
    for (int i = 0; i < PROGRAMS; i++) {
        ck_assert_int_gt(wait(NULL), 0);
        ck_assert_uint_eq(strlen(gathered[i]), 20);
        ck_assert_str_eq(gathered[i], gathered[0]);
    }
    close(results[0]);
    close(results[1]);
}
END_TEST

START_TEST(the_cookie_of_the_configuration_directory_is_found)
{
    ck_assert_int_eq(mkdir(in_home(".config"), 0700), 0);
    ck_assert_int_eq(mkdir(in_home(".config/erlang"), 0700), 0);
    write_file(".config/erlang/.erlang.cookie", "XDG", 3, 0400);
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_str_eq(cookie, "XDG");
    ck_assert_int_ne(access(in_home(".erlang.cookie"), F_OK), 0);

    setenv("XDG_CONFIG_HOME", in_home("elsewhere"), 1);
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_uint_eq(strlen(cookie), 20);
}
END_TEST

START_TEST(line_ends_are_not_part_of_it)
{
    static const struct {
        const char *content;
        const char *expected;
    } files[] = {{"A", "A"},        {"A\n", "A"},     {"A\r\n", "A"},
                 {"A\n\n \n", "A"}, {"A B\n", "A B"}, {"'\"~!", "'\"~!"}};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = write_file("file", files[i].content, strlen(files[i].content), 0600);
        ck_assert_int_eq(load(path), 0);
        ck_assert_str_eq(cookie, files[i].expected);
        ck_assert_int_eq(unlink(path), 0);
    }
}
END_TEST

START_TEST(wrong_contents_are_refused_and_not_shown)
{
    static const struct {
        const char *content;
        size_t len;
        const char *part;
    } files[] = {{"", 0, "is empty"},
                 {"\n", 1, "is empty"},
                 {"SECRET\nSECRET", 13, "not printable"},
                 {"SECRET\t", 7, "not printable"},
                 {"SECRET\xc3\xa4", 8, "not printable"},
                 {"SECRET\0SECRET", 13, "no cookie file"}};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = write_file("file", files[i].content, files[i].len, 0400);
        ck_refused(path, -EINVAL, files[i].part);
        ck_assert_ptr_null(strstr(error, "SECRET"));
        ck_assert_int_eq(unlink(path), 0);
    }
    setenv("MACULA_NAT_COOKIE", "", 1);
    ck_refused(NULL, -EINVAL, "MACULA_NAT_COOKIE is empty");
}
END_TEST

START_TEST(the_longest_cookie_has_255_characters)
{
    static char content[100000];

    memset(content, 'A', sizeof content);
    const char *path = write_file("file", content, 255, 0400);
    ck_assert_int_eq(load(path), 0);
    ck_assert_uint_eq(strlen(cookie), 255);
    unlink(path);
    ck_refused(write_file("file", content, 256, 0400), -EINVAL, "longer than 255");
    unlink(path);
    ck_refused(write_file("file", content, sizeof content, 0400), -EINVAL, "no cookie file");
    content[256] = 0;
    setenv("MACULA_NAT_COOKIE", content, 1);
    ck_refused(NULL, -EINVAL, "longer than 255");
    content[255] = 0;
    setenv("MACULA_NAT_COOKIE", content, 1);
    ck_assert_int_eq(load(NULL), 0);
}
END_TEST

START_TEST(a_file_that_others_can_access_is_refused)
{
    static const mode_t modes[] = {0404, 0420, 0402, 0410, 0401, 0444, 0460, 0644, 0777};

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        const char *path = write_file("file", "SECRET", 6, modes[i]);
        ck_refused(path, -EACCES, "must not be accessible by others");
        ck_assert_int_eq(unlink(path), 0);
    }
    write_file(".erlang.cookie", "SECRET", 6, 0440);
    ck_refused(NULL, -EACCES, "accessible by its owner only");
}
END_TEST

/* As secrets are handed to a service. */
START_TEST(a_named_file_may_be_readable_by_its_group)
{
    static const mode_t modes[] = {0440, 0640};

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        const char *path = write_file("file", "A", 1, modes[i]);
        ck_assert_msg(load(path) == 0, "%s", error);
        if (geteuid() == 0) {
            ck_assert_int_eq(chown(path, 65534, 65534), 0);
            ck_refused(path, -EACCES, "owned neither by root nor by this user");
        }
        ck_assert_int_eq(unlink(path), 0);
    }
}
END_TEST

START_TEST(the_variable_is_wiped)
{
    setenv("MACULA_NAT_COOKIE", "SECRET", 1);
    const char *value = getenv("MACULA_NAT_COOKIE");
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_str_eq(cookie, "SECRET");
    ck_assert_ptr_null(getenv("MACULA_NAT_COOKIE"));
    ck_assert_mem_eq(value, "\0\0\0\0\0\0", 6);
}
END_TEST

START_TEST(what_is_no_regular_file_is_refused)
{
    ck_refused(home, -EINVAL, "not a regular file");
    ck_refused("/dev/null", -EINVAL, "not a regular file");
    ck_assert_int_eq(mkfifo(in_home("fifo"), 0600), 0);
    ck_refused(in_home("fifo"), -EINVAL, "not a regular file");
    ck_assert_int_eq(mkdir(in_home(".erlang.cookie"), 0700), 0);
    ck_refused(NULL, -EINVAL, "not a regular file");
}
END_TEST

START_TEST(a_file_that_is_not_there_is_refused_and_not_made)
{
    ck_refused(in_home("file"), -ENOENT, "file does not exist");
    ck_assert_int_ne(access(in_home("file"), F_OK), 0);
    ck_refused(in_home("a\nb"), -ENOENT, "a\\x0ab does not exist");
    setenv("HOME", in_home("nowhere"), 1);
    ck_refused(NULL, -ENOENT, "can't be made");
}
END_TEST

Suite *suite_cookie(void)
{
    Suite *suite = suite_create("cookie");
    TCase *tests = tcase_create("cookie");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, environment_comes_first_then_the_file_then_home);
    tcase_add_test(tests, a_cookie_is_made_where_there_is_none);
    tcase_add_test(tests, programs_that_make_it_at_once_agree);
    tcase_add_test(tests, the_cookie_of_the_configuration_directory_is_found);
    tcase_add_test(tests, line_ends_are_not_part_of_it);
    tcase_add_test(tests, wrong_contents_are_refused_and_not_shown);
    tcase_add_test(tests, the_longest_cookie_has_255_characters);
    tcase_add_test(tests, a_file_that_others_can_access_is_refused);
    tcase_add_test(tests, a_named_file_may_be_readable_by_its_group);
    tcase_add_test(tests, the_variable_is_wiped);
    tcase_add_test(tests, what_is_no_regular_file_is_refused);
    tcase_add_test(tests, a_file_that_is_not_there_is_refused_and_not_made);
    suite_add_tcase(suite, tests);
    return suite;
}
