/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/watcher.h"

#include <stdlib.h>

uint64_t watcher_token(const struct pid *pid)
{
    return (uint64_t)(uintptr_t)pid_copy(pid);
}

const struct pid *watcher_pid(uint64_t token)
{
    return (const struct pid *)(uintptr_t)token;
}

void watcher_free(uint64_t token)
{
    free((void *)(uintptr_t)token);
}
