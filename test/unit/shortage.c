/* SPDX-License-Identifier: Apache-2.0 */
#include "shortage.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static struct shortage own;
struct shortage *shortage = &own;

/* What the linker makes of the functions, and of the calls of them. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool is_granted(void)
{
    shortage->asked++;
    if (shortage->skip > 0) {
        shortage->skip--;
        return true;
    }
    if (shortage->fail == 0)
        return true;
    shortage->fail--;
    shortage->failed++;
    return false;
}

void *__wrap_malloc(size_t size)
{
    return is_granted() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return is_granted() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
    return is_granted() ? __real_realloc(old, size) : NULL;
}

/* Before main, whose allocations are to fail, too. */
__attribute__((constructor)) static void map_file(void)
{
    const char *name = getenv("SHORTAGE");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = MAP_FAILED;

    if (!name)
        return;
    if (fd >= 0) {
        mapped = mmap(NULL, sizeof *shortage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    if (mapped == MAP_FAILED) {
        perror(name);
        _exit(EXIT_FAILURE);
    }
    shortage = mapped;
}
