/* SPDX-License-Identifier: Apache-2.0 */
#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int descriptors_prepare(void)
{
    int taken[DESCRIPTORS_MIN];
    int count = 0;
    int error = 0;
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return -errno;
    taken[count++] = fd;
    while (error == 0 && count < DESCRIPTORS_MIN) {
        taken[count] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (taken[count] < 0)
            error = -errno;
        else
            count++;
    }
    while (count > 0)
        close(taken[--count]);
    return error;
}
