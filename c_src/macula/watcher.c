/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/watcher.h"

#include "base/table.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>

struct watcher {
    struct pid *pid;
    size_t taken;
    size_t size;
    UT_hash_handle hh;
    size_t key_len;
    uint8_t key[]; /* the pid as a term, in the one form that we write */
};

static struct watcher *watcher_new(struct watchers *all, const struct pid *pid, struct slice key)
{
    size_t size = sizeof(struct watcher) + key.len + sizeof *pid + pid->node.len;
    bool has_room =
        HASH_COUNT(all->by_pid) < WATCHERS_MAX && all->bytes + size <= WATCHERS_BYTES_MAX;
    struct watcher *w = has_room ? calloc(1, sizeof *w + key.len) : NULL;

    if (!w)
        return NULL;
    w->size = size;
    w->pid = pid_copy(pid);
    w->key_len = key.len;
    memcpy(w->key, key.data, key.len);
    if (w->pid)
        HASH_ADD(hh, all->by_pid, key, w->key_len, w);
    if (table_has(w->hh)) {
        all->bytes += size;
        return w;
    }
    free(w->pid);
    free(w);
    return NULL;
}

uint64_t watcher_take(struct watchers *all, const struct pid *pid)
{
    struct watcher *w = NULL;
    struct buffer key;

    buffer_init(&key);
    term_put_pid(&key, pid);
    if (!key.overflow && key.data) {
        struct slice bytes = buffer_slice(&key);
        HASH_FIND(hh, all->by_pid, bytes.data, bytes.len, w);
        if (!w)
            w = watcher_new(all, pid, bytes);
    }
    buffer_free(&key);
    if (w)
        w->taken++;
    return (uint64_t)(uintptr_t)w;
}

static void watcher_free(struct watchers *all, struct watcher *w)
{
    HASH_DEL(all->by_pid, w);
    all->bytes -= w->size;
    free(w->pid);
    free(w);
}

void watcher_give_back(struct watchers *all, uint64_t token)
{
    struct watcher *w = (struct watcher *)(uintptr_t)token;

    if (--w->taken == 0)
        watcher_free(all, w);
}

const struct pid *watcher_pid(uint64_t token)
{
    return ((const struct watcher *)(uintptr_t)token)->pid;
}

void watchers_free(struct watchers *all)
{
    while (all->by_pid)
        watcher_free(all, all->by_pid);
}
