/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/resolver.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

/* All that the thread knows. It is the thread's, so that nothing is shared with the program. */
struct job {
    int fd;
    char host[];
};

/* libuv's numbers, for which uv_strerror has words. */
static int status_of(int error)
{
    switch (error) {
    case 0:
        return 0;
    case EAI_AGAIN:
        return UV_EAI_AGAIN;
    case EAI_FAIL:
        return UV_EAI_FAIL;
    case EAI_MEMORY:
        return UV_EAI_MEMORY;
    case EAI_SYSTEM:
        return -errno;
    default:
        return UV_EAI_NONAME;
    }
}

static void *run(void *ctx)
{
    struct job *job = ctx;
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    struct resolver_answer answer = {.status = 0};

    answer.status = status_of(getaddrinfo(job->host, NULL, &hints, &found));
    if (answer.status == 0) {
        memcpy(&answer.address, found->ai_addr, sizeof answer.address);
        freeaddrinfo(found);
    }
    /* Nobody may be there any more to read it. */
    (void)!send(job->fd, &answer, sizeof answer, MSG_NOSIGNAL);
    close(job->fd);
    free(job);
    return NULL;
}

/* Signals are for the loop's thread. */
static int start_thread(struct job *job)
{
    pthread_t thread;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, run, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        pthread_detach(thread);
    return -error;
}

int resolver_start(const char *host)
{
    size_t size = strlen(host) + 1;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return -errno;
    struct job *job = malloc(sizeof *job + size);
    int error = -ENOMEM;
    if (job) {
        job->fd = ends[1];
        memcpy(job->host, host, size);
        error = start_thread(job);
    }
    if (error) {
        free(job);
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    return ends[0];
}
