/* SPDX-License-Identifier: Apache-2.0 */
#include "cookie.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define MADE_LENGTH 20
#define VARIABLE    "MACULA_NAT_COOKIE"

struct failure {
    char *text;
    size_t size;
};

__attribute__((format(printf, 4, 5))) static int fail(const struct failure *failure, int error,
                                                      const char *path, const char *format, ...)
{
    char reason[160];
    char shown[200];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    log_escape(shown, sizeof shown, path);
    snprintf(failure->text, failure->size, "cookie: %s %s", shown, reason);
    return error;
}

/* Copies the cookie at the beginning of `text` to `cookie`; `source` is for the error. */
static int parse_cookie(char cookie[static COOKIE_SIZE], const char *text, const char *source,
                        const struct failure *failure)
{
    size_t len = 0;

    while (text[len] >= ' ' && text[len] <= '~')
        len++;
    if (text[len + strspn(text + len, "\r\n ")] != 0)
        return fail(failure, -EINVAL, source, "has a character that is not printable ASCII");
    if (len == 0)
        return fail(failure, -EINVAL, source, "is empty");
    if (len >= COOKIE_SIZE)
        return fail(failure, -EINVAL, source, "is longer than %d characters", COOKIE_SIZE - 1);
    memcpy(cookie, text, len);
    cookie[len] = 0;
    return 0;
}

/*
 * What auth.erl checks before it reads a cookie file. One that was named for this program may also
 * be read by its group, as secrets are handed to a service: owned by root, readable by the
 * service's group.
 */
static int check_file(int fd, const char *path, bool was_named, const struct failure *failure)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return fail(failure, -errno, path, "can't be read: %s", strerror(errno));
    if (!S_ISREG(info.st_mode))
        return fail(failure, -EINVAL, path, "is not a regular file");
    mode_t shared = info.st_mode & (S_IRWXG | S_IRWXO);
    if (shared == 0)
        return 0;
    if (!was_named)
        return fail(failure, -EACCES, path,
                    "must be accessible by its owner only (mode 0400), not by group or others");
    if (shared != S_IRGRP)
        return fail(
            failure, -EACCES, path,
            "must not be accessible by others, nor written by its group (mode 0400 or 0440)");
    if (info.st_uid != 0 && info.st_uid != geteuid())
        return fail(failure, -EACCES, path,
                    "is readable by its group, and is owned neither by root nor by this user");
    return 0;
}

/* Reads until `size` - 1 bytes or the end. Returns the number of bytes or a negative errno. */
static ssize_t read_all(int fd, char *text, size_t size)
{
    size_t len = 0;

    while (len < size - 1) {
        ssize_t got = read(fd, text + len, size - 1 - len);

        if (got == 0)
            break;
        if (got < 0 && errno != EINTR)
            return -errno;
        len += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)len;
}

/* Returns -ENOENT, and nothing in the failure's text, if there is no such file. */
static int read_cookie(char cookie[static COOKIE_SIZE], const char *path, bool was_named,
                       const struct failure *failure)
{
    /* O_NONBLOCK: opening a FIFO that nobody writes to must not wait. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    char text[4 * COOKIE_SIZE];

    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    if (fd < 0)
        return fail(failure, -errno, path, "can't be opened: %s", strerror(errno));

    int error = check_file(fd, path, was_named, failure);
    if (error == 0) {
        ssize_t len = read_all(fd, text, sizeof text);

        if (len < 0)
            error = fail(failure, (int)len, path, "can't be read: %s", strerror((int)-len));
        else if ((size_t)len == sizeof text - 1 || memchr(text, 0, (size_t)len) != NULL)
            error = fail(failure, -EINVAL, path, "is no cookie file");
        else {
            text[len] = 0;
            error = parse_cookie(cookie, text, path, failure);
        }
        OPENSSL_cleanse(text, sizeof text);
    }
    close(fd);
    return error;
}

/* Fills `letters` with random capital letters and an ending 0. */
static int draw_letters(char *letters, size_t count)
{
    const unsigned even = 256 / 26 * 26; /* bytes from here on would favour the first letters */
    unsigned char byte;

    for (size_t i = 0; i < count;) {
        if (RAND_bytes(&byte, 1) != 1)
            return -EIO;
        if (byte < even)
            letters[i++] = (char)('A' + byte % 26);
    }
    letters[count] = 0;
    return 0;
}

/*
 * Makes the cookie file at `path`. It is written under another name and then linked, so nobody ever
 * reads half a cookie, and of two programs that do this at once one gets -EEXIST.
 */
static int make_cookie_file(const char *path, const struct failure *failure)
{
    char temporary[PATH_MAX];
    char letters[MADE_LENGTH + 1];
    int error = 0;

    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return fail(failure, -ENAMETOOLONG, path, "can't be made: the path is too long");
    if (draw_letters(letters, MADE_LENGTH) != 0)
        return fail(failure, -EIO, path, "can't be made: no random bytes");
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        error = fail(failure, -errno, path, "can't be made: %s", strerror(errno));
        goto cleanse;
    }
    errno = EIO; /* for a write that is cut short */
    if (write(fd, letters, MADE_LENGTH) != MADE_LENGTH || fchmod(fd, S_IRUSR) != 0 ||
        link(temporary, path) != 0)
        error = fail(failure, -errno, path, "can't be made: %s", strerror(errno));
    close(fd);
    unlink(temporary);
cleanse:
    OPENSSL_cleanse(letters, sizeof letters);
    return error;
}

/* Puts `directory`/`rest` into `path`. */
static int join(char path[static PATH_MAX], const char *directory, const char *rest,
                const struct failure *failure)
{
    if ((size_t)snprintf(path, PATH_MAX, "%s/%s", directory, rest) >= PATH_MAX)
        return fail(failure, -ENAMETOOLONG, directory, "is too long a path");
    return 0;
}

/* The cookie of this user, made if there is none. */
static int load_user_cookie(char cookie[static COOKIE_SIZE], const struct failure *failure)
{
    char home[PATH_MAX], path[PATH_MAX], xdg_path[PATH_MAX];
    size_t home_size = sizeof home;
    const char *xdg = getenv("XDG_CONFIG_HOME");
    int error = uv_os_homedir(home, &home_size);

    if (error != 0)
        return fail(failure, error, "~/.erlang.cookie", "can't be found: no home directory");
    error = join(path, home, ".erlang.cookie", failure);
    if (error == 0)
        error = xdg && xdg[0] != 0 ? join(xdg_path, xdg, "erlang/.erlang.cookie", failure)
                                   : join(xdg_path, home, ".config/erlang/.erlang.cookie", failure);
    if (error != 0)
        return error;

    error = read_cookie(cookie, path, false, failure);
    /* Without this the file made below would change the cookie of the user's Erlang nodes. */
    if (error == -ENOENT)
        error = read_cookie(cookie, xdg_path, false, failure);
    if (error != -ENOENT)
        return error;
    error = make_cookie_file(path, failure);
    if (error != 0 && error != -EEXIST)
        return error;
    error = read_cookie(cookie, path, false, failure);
    return error == -ENOENT ? fail(failure, error, path, "was made and is gone") : error;
}

/* Neither a program started from here nor /proc/PID/environ is to show it. */
static int take_from_environment(char cookie[static COOKIE_SIZE], char *value,
                                 const struct failure *failure)
{
    int error = parse_cookie(cookie, value, VARIABLE, failure);

    OPENSSL_cleanse(value, strlen(value));
    unsetenv(VARIABLE);
    return error;
}

int cookie_load(char cookie[static COOKIE_SIZE], const char *cookie_file, char *error,
                size_t error_size)
{
    const struct failure failure = {error, error_size};
    char *from_environment = getenv(VARIABLE);

    if (from_environment)
        return take_from_environment(cookie, from_environment, &failure);
    if (!cookie_file)
        return load_user_cookie(cookie, &failure);
    int result = read_cookie(cookie, cookie_file, true, &failure);
    return result == -ENOENT ? fail(&failure, result, cookie_file, "does not exist") : result;
}
