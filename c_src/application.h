/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node and all processes on it, as one: what the program runs, and what the fuzz targets run
 * without sockets.
 *
 * The struct is the caller's, all zero before. After application_init: application_start or not,
 * application_stop, the loop until it has nothing left to do, application_free.
 */
#ifndef APPLICATION_H
#define APPLICATION_H

#include "distribution/server.h"
#include "macula/coordinator.h"
#include "macula/profile_cache.h"
#include "otp/rpc.h"

#define APPLICATION_PROCESSES 4

struct application_config {
    struct server_config server; /* its ctx and callbacks are called as they are */
    struct coordinator_options coordinator;
    /* One of the processes has ended, for `reason` (a term). Not called after application_stop. */
    void (*on_terminated)(void *ctx, struct slice reason);
    void *ctx;
};

struct application {
    struct server server;
    struct profile_cache cache;
    struct coordinator coordinator;
    struct gen_server net_kernel;
    struct rpc rpc;
    struct gen_server *processes[APPLICATION_PROCESSES]; /* all of these that have started */
    size_t process_count;
    uv_timer_t minute;
    bool is_stopping;
    void (*on_terminated)(void *ctx, struct slice reason);
    void *ctx;
};

/* Makes the node and starts the processes. Returns 0 or a negative errno, -EINVAL if ERL_EPMD_PORT
 * is not a port; after an error there is nothing to stop or free. */
int application_init(struct application *app, const struct application_config *config);
/* Opens the listener and publishes the name. Returns 0 or libuv's error of the listener. */
int application_start(struct application *app);
/* Ends the processes with the reason `shutdown`, then the node. */
void application_stop(struct application *app);
void application_free(struct application *app);

#endif
