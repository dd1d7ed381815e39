/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/watcher.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define ATOM_BYTES_MAX (255u * 4) /* characters of UTF-8 */
#define KEY_MAX        (3 * sizeof(uint32_t) + ATOM_BYTES_MAX)

struct watcher {
    struct pid *pid;
    uint64_t given; /* tokens that were not freed yet */
    UT_hash_handle hh;
    uint8_t key[];
};

/* A pid as bytes; 0 if its node is longer than an atom can be. */
static size_t key_of(const struct pid *pid, uint8_t key[static KEY_MAX])
{
    const uint32_t numbers[] = {pid->id, pid->serial, pid->creation};

    if (pid->node.len > ATOM_BYTES_MAX)
        return 0;
    memcpy(key, numbers, sizeof numbers);
    memcpy(key + sizeof numbers, pid->node.data, pid->node.len);
    return sizeof numbers + pid->node.len;
}

static struct watcher *watcher_create(struct watchers *all, const struct pid *pid,
                                      const uint8_t *key, size_t key_len)
{
    struct watcher *w = calloc(1, sizeof *w + key_len);

    if (!w || !(w->pid = pid_copy(pid))) {
        free(w);
        return NULL;
    }
    memcpy(w->key, key, key_len);
    HASH_ADD(hh, all->by_pid, key, key_len, w);
    return w;
}

static void watcher_remove(struct watchers *all, struct watcher *w)
{
    HASH_DEL(all->by_pid, w);
    free(w->pid);
    free(w);
}

void watchers_free(struct watchers *all)
{
    while (all->by_pid)
        watcher_remove(all, all->by_pid);
}

uint64_t watcher_token(struct watchers *all, const struct pid *pid)
{
    uint8_t key[KEY_MAX];
    size_t key_len = key_of(pid, key);
    struct watcher *w = NULL;

    if (key_len == 0)
        return 0;
    HASH_FIND(hh, all->by_pid, key, key_len, w);
    if (!w)
        w = watcher_create(all, pid, key, key_len);
    if (!w)
        return 0;
    w->given++;
    return (uint64_t)(uintptr_t)w;
}

const struct pid *watcher_pid(uint64_t token)
{
    return ((const struct watcher *)(uintptr_t)token)->pid;
}

void watcher_free(struct watchers *all, uint64_t token)
{
    struct watcher *w = (struct watcher *)(uintptr_t)token;

    if (--w->given == 0)
        watcher_remove(all, w);
}
