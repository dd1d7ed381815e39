/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/subscribers.h"

#include "base/table.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>

struct subscriber {
    struct pid *pid;
    size_t references;
    size_t size;
    UT_hash_handle hh;
    size_t key_len;
    uint8_t key[]; /* the pid as a term, in the one form that we write */
};

static struct subscriber *subscriber_new(struct subscribers *all, const struct pid *pid,
                                         struct slice key)
{
    size_t size = sizeof(struct subscriber) + key.len + sizeof *pid + pid->node.len;
    bool has_room =
        HASH_COUNT(all->by_pid) < SUBSCRIBERS_MAX && all->bytes + size <= SUBSCRIBERS_BYTES_MAX;
    struct subscriber *s = has_room ? calloc(1, sizeof *s + key.len) : NULL;

    if (!s)
        return NULL;
    s->size = size;
    s->pid = pid_copy(pid);
    s->key_len = key.len;
    memcpy(s->key, key.data, key.len);
    if (s->pid)
        HASH_ADD(hh, all->by_pid, key, s->key_len, s);
    if (table_has(s->hh)) {
        all->bytes += size;
        return s;
    }
    free(s->pid);
    free(s);
    return NULL;
}

uint64_t subscriber_ref(struct subscribers *all, const struct pid *pid)
{
    struct subscriber *s = NULL;
    struct buffer key;

    buffer_init(&key);
    term_put_pid(&key, pid);
    if (!key.overflow && key.data) {
        struct slice bytes = buffer_slice(&key);
        HASH_FIND(hh, all->by_pid, bytes.data, bytes.len, s);
        if (!s)
            s = subscriber_new(all, pid, bytes);
    }
    buffer_free(&key);
    if (s)
        s->references++;
    return (uint64_t)(uintptr_t)s;
}

static void subscriber_free(struct subscribers *all, struct subscriber *s)
{
    HASH_DEL(all->by_pid, s);
    all->bytes -= s->size;
    free(s->pid);
    free(s);
}

void subscriber_unref(struct subscribers *all, uint64_t token)
{
    struct subscriber *s = (struct subscriber *)(uintptr_t)token;

    if (--s->references == 0)
        subscriber_free(all, s);
}

const struct pid *subscriber_pid(uint64_t token)
{
    return ((const struct subscriber *)(uintptr_t)token)->pid;
}

void subscribers_free(struct subscribers *all)
{
    while (all->by_pid)
        subscriber_free(all, all->by_pid);
}
