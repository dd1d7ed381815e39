/* SPDX-License-Identifier: Apache-2.0 */
#include "application.h"

#include "macula/api.h"
#include "otp/net_kernel.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define MINUTE_MS 60000

static void on_minute(uv_timer_t *timer)
{
    struct application *app = timer->data;

    profile_cache_sweep(&app->cache);
    lookup_drop_expired(&app->coordinator.lookup);
#ifdef __GLIBC__
    /* glibc by itself gives back only what is free at the end of its heap. Without this 616 MB stay
     * of a million sessions that have come and gone, and 15 MB after 200 MB of large frames; with
     * it 6 MB, as at the start. */
    malloc_trim(0);
#endif
}

static void on_terminated(void *ctx, struct slice reason)
{
    struct application *app = ctx;

    if (!app->is_stopping)
        app->on_terminated(app->ctx, reason);
}

/* One that has started. */
static void add_process(struct application *app, struct gen_server *process)
{
    process->terminated = on_terminated;
    process->terminated_ctx = app;
    app->processes[app->process_count++] = process;
}

static int start_processes(struct application *app, const struct coordinator_options *options)
{
    struct node *node = &app->server.node;

    int error = net_kernel_start(&app->net_kernel, node);
    if (error)
        return error;
    add_process(app, &app->net_kernel);
    error = profile_cache_start(&app->cache, node);
    if (error)
        return error;
    add_process(app, &app->cache.server);
    error = rpc_start(&app->rpc, node, api_functions, api_function_count, &app->coordinator);
    if (error)
        return error;
    add_process(app, &app->rpc.rex);
    error = coordinator_start(&app->coordinator, node, &app->cache, options);
    if (error)
        return error;
    add_process(app, &app->coordinator.server);
    return 0;
}

int application_init(struct application *app, const struct application_config *config)
{
    int error = server_init(&app->server, &config->server);

    if (error)
        return error;
    app->on_terminated = config->on_terminated;
    app->ctx = config->ctx;
    uv_timer_init(config->server.loop, &app->minute);
    app->minute.data = app;
    uv_timer_start(&app->minute, on_minute, MINUTE_MS, MINUTE_MS);
    error = start_processes(app, &config->coordinator);
    if (error) {
        application_stop(app);
        uv_run(config->server.loop, UV_RUN_DEFAULT);
        application_free(app);
    }
    return error;
}

int application_start(struct application *app)
{
    return server_start(&app->server);
}

void application_stop(struct application *app)
{
    if (app->is_stopping)
        return;
    app->is_stopping = true;
    for (size_t i = app->process_count; i-- > 0;)
        gen_server_stop(app->processes[i], "shutdown");
    if (app->process_count == APPLICATION_PROCESSES)
        coordinator_close(&app->coordinator);
    uv_close((uv_handle_t *)&app->minute, NULL);
    server_stop(&app->server);
}

void application_free(struct application *app)
{
    coordinator_free(&app->coordinator);
    profile_cache_free(&app->cache);
    server_free(&app->server);
}
