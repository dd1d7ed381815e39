/* SPDX-License-Identifier: Apache-2.0 */
#include "usage.h"

#include "client.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t usage_cpu_ns(pid_t pid)
{
    char path[64], line[1024];
    unsigned long user, system;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(line, sizeof line, file))
        client_fail("process %d is gone", (int)pid);
    fclose(file);
    /* The program's name, in parentheses, may hold anything. */
    const char *rest = strrchr(line, ')');
    if (!rest ||
        sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        client_fail("%s cannot be read", path);
    return (uint64_t)(user + system) * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK));
}

uint64_t usage_resident(pid_t pid)
{
    char path[64], line[256];
    unsigned long kilobytes = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        client_fail("process %d is gone", (int)pid);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %lu", &kilobytes) == 1)
            break;
    fclose(file);
    return (uint64_t)kilobytes * 1024;
}

uint64_t clock_monotonic_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int64_t clock_unix_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
