/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks host names up, each in a thread of its own that nobody waits for. libuv's uv_getaddrinfo
 * would keep the program from exiting while the name servers do not answer, and aborts it where no
 * thread can be made.
 */
#ifndef DISTRIBUTION_RESOLVER_H
#define DISTRIBUTION_RESOLVER_H

#include <netinet/in.h>

/* What a lookup leaves, in one piece, in the stream that resolver_start returns. */
struct resolver_answer {
    int status; /* 0 or a UV_EAI_* error of libuv */
    struct sockaddr_in address;
};

/*
 * Looks the IPv4 address of `host` up: the first, as erl_epmd does. Returns a stream descriptor
 * that is the caller's, out of which one struct resolver_answer can be read some time; it may be
 * closed before that. Or a negative errno (-EAGAIN: no thread can be made).
 */
int resolver_start(const char *host);

#endif
