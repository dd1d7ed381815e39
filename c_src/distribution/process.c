/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/process.h"

#include "distribution/budget.h"
#include "term/term_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Old nodes know 15 bits of a pid's id and 13 of its serial; within those every node agrees with
 * us. */
#define ID_BITS     15
#define NUMBER_MASK 0x0fffffffu
/* Five words and the longest node name; term_check lets nothing longer pass. */
#define REFERENCE_MAX 1100

struct monitor {
    struct process *process;
    struct connection *via;
    bool by_name;
    struct pid *watcher;
    struct slice reference;              /* in `key` */
    struct monitor *prev, *next;         /* of the process */
    struct monitor *via_prev, *via_next; /* of the connection */
    UT_hash_handle hh;
    size_t key_len;
    uint8_t key[]; /* the connection's number, then the reference */
};

struct link_key {
    uint64_t connection;
    uint32_t id, serial, creation; /* of the pid over there */
    uint32_t process;
};

struct link {
    struct link_key key;
    struct process *process;
    struct connection *via;
    struct pid *peer;
    struct link *prev, *next;
    struct link *via_prev, *via_next;
    UT_hash_handle hh;
};

/* --- table --- */

static bool number_is_taken(const struct process_table *table, uint32_t number)
{
    struct process *found;

    HASH_FIND(hh, table->by_number, &number, sizeof number, found);
    return found;
}

int process_start(struct process *p, struct node *node, const struct process_behaviour *behaviour,
                  const char *name)
{
    struct process_table *table = &node->processes;

    *p = (struct process){.node = node, .behaviour = behaviour, .name = name};
    do {
        table->last_number = (table->last_number + 1) & NUMBER_MASK;
    } while (table->last_number == 0 || number_is_taken(table, table->last_number));
    p->number = table->last_number;
    HASH_ADD(hh, table->by_number, number, sizeof p->number, p);
    if (table_has(p->hh) && name)
        HASH_ADD_KEYPTR(hh_name, table->by_name, name, strlen(name), p);
    if (table_has(p->hh) && (!name || table_has(p->hh_name)))
        return 0;
    if (table_has(p->hh))
        HASH_DEL(table->by_number, p);
    p->number = 0;
    return -ENOMEM;
}

bool process_is_alive(const struct process *p)
{
    return p->number != 0;
}

struct pid process_pid(const struct process *p)
{
    return (struct pid){
        .node = p->node->name_slice,
        .id = p->number & ((1u << ID_BITS) - 1),
        .serial = p->number >> ID_BITS,
        .creation = p->node->creation,
    };
}

struct process *process_find(struct node *node, const struct pid *pid)
{
    struct process *found = NULL;

    if (pid->id >> ID_BITS || pid->serial > NUMBER_MASK >> ID_BITS ||
        pid->creation != node->creation || !node_is_self(node, pid->node))
        return NULL;
    uint32_t number = pid->serial << ID_BITS | pid->id;
    HASH_FIND(hh, node->processes.by_number, &number, sizeof number, found);
    return found;
}

struct process *process_find_name(struct node *node, struct slice name)
{
    struct process_table *table = &node->processes;

    /* Most often it is the same as the last time. */
    if (!table->last_found || !slice_is(name, table->last_found->name))
        HASH_FIND(hh_name, table->by_name, name.data, name.len, table->last_found);
    return table->last_found;
}

static struct process *find_end(struct node *node, const struct control_end *end)
{
    return control_end_is_name(end) ? process_find_name(node, end->name)
                                    : process_find(node, &end->pid);
}

/* --- monitors --- */

static size_t monitor_size(size_t key_len, const struct pid *watcher)
{
    return sizeof(struct monitor) + key_len + sizeof *watcher + watcher->node.len;
}

static void monitor_remove(struct monitor *m)
{
    HASH_DEL(m->process->node->processes.monitors, m);
    DL_DELETE(m->process->monitors, m);
    DL_DELETE2(m->via->monitors, m, via_prev, via_next);
    budget_remove_hold(m->via, monitor_size(m->key_len, m->watcher));
    free(m->watcher);
    free(m);
}

static struct monitor *monitor_find(struct connection *c, struct slice reference)
{
    struct monitor *found = NULL;
    uint8_t key[sizeof c->number + REFERENCE_MAX];

    if (reference.len > sizeof key - sizeof c->number)
        return NULL;
    memcpy(key, &c->number, sizeof c->number);
    memcpy(key + sizeof c->number, reference.data, reference.len);
    HASH_FIND(hh, c->node->processes.monitors, key, sizeof c->number + reference.len, found);
    return found;
}

static struct monitor *monitor_new(struct connection *c, const struct pid *from,
                                   struct slice reference)
{
    size_t key_len = sizeof c->number + reference.len;
    struct monitor *m = calloc(1, sizeof *m + key_len);

    if (!m)
        return NULL;
    m->watcher = pid_copy(from);
    m->key_len = key_len;
    memcpy(m->key, &c->number, sizeof c->number);
    memcpy(m->key + sizeof c->number, reference.data, reference.len);
    m->reference = (struct slice){m->key + sizeof c->number, reference.len};
    if (m->watcher)
        HASH_ADD_KEYPTR(hh, c->node->processes.monitors, m->key, m->key_len, m);
    if (table_has(m->hh))
        return m;
    free(m->watcher);
    free(m);
    return NULL;
}

static void add_monitor(struct connection *c, struct process *p, const struct pid *from,
                        struct slice reference, bool by_name)
{
    size_t size = monitor_size(sizeof c->number + reference.len, from);

    if (monitor_find(c, reference) || !budget_add_hold(c, size))
        return;
    struct monitor *m = monitor_new(c, from, reference);
    if (!m) {
        c->node->counters.no_memory++;
        budget_remove_hold(c, size);
        connection_doom(c, "no memory for its monitors");
        return;
    }
    m->process = p;
    m->via = c;
    m->by_name = by_name;
    DL_APPEND(p->monitors, m);
    DL_APPEND2(c->monitors, m, via_prev, via_next);
}

void process_add_monitor(struct connection *c, struct process *p, const struct pid *from,
                         struct slice reference)
{
    add_monitor(c, p, from, reference, false);
}

static void send_down(struct connection *c, const struct control_end *process,
                      const struct pid *watcher, struct slice reference, struct slice reason)
{
    struct buffer *b = connection_open_frame(c);

    control_put_monitor_exit(b, process, watcher, reference);
    term_put_raw(b, reason);
    connection_close_frame(c);
}

void process_handle_monitor(struct connection *c, const struct control *k)
{
    struct process *p = find_end(c->node, &k->to);
    uint8_t room[TERM_ATOM_SIZE];

    if (p) {
        add_monitor(c, p, &k->from.pid, k->reference, control_end_is_name(&k->to));
        return;
    }
    send_down(c, &k->to, &k->from.pid, k->reference,
              term_atom(room, c->node->is_stopping ? "shutdown" : "noproc"));
}

void process_handle_demonitor(struct connection *c, const struct control *k)
{
    struct monitor *m = monitor_find(c, k->reference);

    if (m)
        monitor_remove(m);
}

/* --- links --- */

static struct link_key link_key(struct connection *c, const struct pid *peer, uint32_t process)
{
    struct link_key key;

    memset(&key, 0, sizeof key);
    key.connection = c->number;
    key.id = peer->id;
    key.serial = peer->serial;
    key.creation = peer->creation;
    key.process = process;
    return key;
}

static struct link *link_find(struct connection *c, const struct pid *peer, const struct process *p)
{
    struct link_key key = link_key(c, peer, p->number);
    struct link *found;

    HASH_FIND(hh, c->node->processes.links, &key, sizeof key, found);
    return found;
}

static size_t link_size(const struct pid *peer)
{
    return sizeof(struct link) + sizeof *peer + peer->node.len;
}

static void link_remove(struct link *l)
{
    HASH_DEL(l->process->node->processes.links, l);
    DL_DELETE(l->process->links, l);
    DL_DELETE2(l->via->links, l, via_prev, via_next);
    budget_remove_hold(l->via, link_size(l->peer));
    free(l->peer);
    free(l);
}

static void send_exit(struct connection *c, const struct pid *from, const struct pid *to,
                      struct slice reason)
{
    struct buffer *b = connection_open_frame(c);

    control_put_exit(b, from, to, reason);
    connection_close_frame(c);
}

static struct link *link_new(struct connection *c, const struct pid *peer, struct process *p)
{
    struct link *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->peer = pid_copy(peer);
    l->key = link_key(c, peer, p->number);
    if (l->peer)
        HASH_ADD(hh, c->node->processes.links, key, sizeof l->key, l);
    if (table_has(l->hh))
        return l;
    free(l->peer);
    free(l);
    return NULL;
}

void process_handle_link(struct connection *c, const struct control *k)
{
    struct process *p = process_find(c->node, &k->to.pid);

    if (!p) {
        uint8_t room[TERM_ATOM_SIZE];
        send_exit(c, &k->to.pid, &k->from.pid, term_atom(room, "noproc"));
        return;
    }
    if (link_find(c, &k->from.pid, p) || !budget_add_hold(c, link_size(&k->from.pid)))
        return;
    struct link *l = link_new(c, &k->from.pid, p);
    if (!l) {
        c->node->counters.no_memory++;
        budget_remove_hold(c, link_size(&k->from.pid));
        connection_doom(c, "no memory for its links");
        return;
    }
    l->process = p;
    l->via = c;
    DL_APPEND(p->links, l);
    DL_APPEND2(c->links, l, via_prev, via_next);
}

void process_handle_unlink(struct connection *c, const struct control *k)
{
    struct process *p = process_find(c->node, &k->to.pid);
    struct link *l = p ? link_find(c, &k->from.pid, p) : NULL;

    if (l)
        link_remove(l);
    if (k->op != CONTROL_UNLINK_ID)
        return;
    struct buffer *b = connection_open_frame(c);
    control_put_unlink_ack(b, k->id, &k->to.pid, &k->from.pid);
    connection_close_frame(c);
}

/* --- exits --- */

static bool reason_is(struct slice reason, const char *name)
{
    struct cursor c = cursor_of(reason);

    return cursor_is_atom(&c, name);
}

/* What a process that traps no exits does with a signal; `kill` cannot come through a link. */
static void handle_exit_signal(struct process *p, struct slice reason, bool through_link)
{
    uint8_t room[TERM_ATOM_SIZE];

    if (reason_is(reason, "normal"))
        return;
    if (!through_link && reason_is(reason, "kill"))
        reason = term_atom(room, "killed");
    p->behaviour->exit_signal(p, reason);
}

void process_handle_exit(struct connection *c, const struct control *k)
{
    struct process *p = process_find(c->node, &k->to.pid);

    if (!p)
        return;
    if (k->op == CONTROL_EXIT) {
        struct link *l = link_find(c, &k->from.pid, p);
        if (!l)
            return; /* unlinked in the meantime */
        link_remove(l);
    }
    handle_exit_signal(p, k->reason, k->op == CONTROL_EXIT);
}

void process_exit(struct process *p, struct slice reason)
{
    struct process_table *table = &p->node->processes;
    struct pid self = process_pid(p);

    HASH_DELETE(hh, table->by_number, p);
    if (p->name)
        HASH_DELETE(hh_name, table->by_name, p);
    if (table->last_found == p)
        table->last_found = NULL;
    /* A send may cut its connection off, and that takes monitors away: unhook first, look again
     * after. */
    while (p->monitors) {
        struct monitor *m = p->monitors;
        struct control_end end = {.pid = self};
        if (m->by_name && p->name)
            end.name = slice_of(p->name);
        send_down(m->via, &end, m->watcher, m->reference, reason);
        monitor_remove(m);
    }
    while (p->links) {
        struct link *l = p->links;
        send_exit(l->via, &self, l->peer, reason);
        link_remove(l);
    }
    p->number = 0;
}

void process_forget_connection(struct connection *c)
{
    uint8_t room[TERM_ATOM_SIZE];
    struct slice reason = term_atom(room, "noconnection");

    while (c->monitors)
        monitor_remove(c->monitors);
    while (c->links) {
        struct process *p = c->links->process;
        link_remove(c->links);
        handle_exit_signal(p, reason, true);
    }
}
