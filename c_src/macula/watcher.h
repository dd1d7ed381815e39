/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that asked to be notified of a session, as the tokens that the NAT library keeps for
 * us. */
#ifndef MACULA_WATCHER_H
#define MACULA_WATCHER_H

#include "term/cursor.h"

/* A token for a process, or 0 without memory. It is a copy of the pid: free it with watcher_free.
 */
uint64_t watcher_token(const struct pid *pid);
const struct pid *watcher_pid(uint64_t token);
void watcher_free(uint64_t token);

#endif
