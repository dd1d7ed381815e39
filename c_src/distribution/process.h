/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: what other nodes can send to, monitor, link to and ask to exit.
 *
 * A process is part of a larger struct of the layer above, which owns the memory; from
 * process_start to process_exit the table points to it. Monitors and links belong to the table and
 * go with the process or with the connection that they came by, whichever is first. A process has
 * no thread: its behaviour is called when a signal arrives, and must not block.
 */
#ifndef DISTRIBUTION_PROCESS_H
#define DISTRIBUTION_PROCESS_H

#include "distribution/connection.h"
#include "distribution/control.h"

struct process;

struct process_behaviour {
    /* A message, as a term that passed the check. */
    void (*receive)(struct process *p, struct connection *via, struct slice message);
    /*
     * An exit signal that would end an OTP process that does not trap exits; it is up to the
     * behaviour to call process_exit. The reason is already `killed` for an exit(Pid, kill).
     */
    void (*exit_signal)(struct process *p, struct slice reason);
};

struct process {
    struct node *node;
    const struct process_behaviour *behaviour;
    const char *name; /* registered, or NULL */
    uint32_t number;  /* 28 bits: the pid's id and serial */
    struct monitor *monitors;
    struct link *links;
    UT_hash_handle hh;      /* by number */
    UT_hash_handle hh_name; /* by name */
};

/*
 * Gives it a pid and registers it. `name` (NULL: none) must outlive the process. Returns 0 or
 * -ENOMEM, and then it is not alive (process_is_alive).
 */
int process_start(struct process *p, struct node *node, const struct process_behaviour *behaviour,
                  const char *name);
/* Sends the reason (a term) to all monitors and links, and takes the process out of the table. */
void process_exit(struct process *p, struct slice reason);
/* Whether process_exit has not been called yet. */
bool process_is_alive(const struct process *p);

/* Returns its pid; the node name points into the node. */
struct pid process_pid(const struct process *p);
/* Return the process, or NULL if there is none (any more). */
struct process *process_find(struct node *node, const struct pid *pid);
struct process *process_find_name(struct node *node, struct slice name);

/* Signals from other nodes, as the router reads them. */
void process_handle_monitor(struct connection *c, const struct control *k);
void process_handle_demonitor(struct connection *c, const struct control *k);
void process_handle_link(struct connection *c, const struct control *k);
void process_handle_unlink(struct connection *c, const struct control *k);
void process_handle_exit(struct connection *c, const struct control *k);

/* Adds a monitor of `from` on `p`, made by a spawn request. */
void process_add_monitor(struct connection *c, struct process *p, const struct pid *from,
                         struct slice reference);

/* Drops the monitors and links that came by a connection; links then act as exit signals
 * `noconnection`. */
void process_forget_connection(struct connection *c);

#endif
