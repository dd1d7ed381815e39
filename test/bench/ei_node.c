/* SPDX-License-Identifier: Apache-2.0 */
#include "ei_node.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BACKLOG 16

void ei_node_fail(const char *what)
{
    fprintf(stderr, "%s failed\n", what);
    exit(EXIT_FAILURE);
}

static int listen_anywhere(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        ei_node_fail("listen");
    *port = ntohs(address.sin_port);
    return fd;
}

int ei_node_start(ei_cnode *node, int argc, char **argv)
{
    const char *cookie = getenv("MACULA_NAT_COOKIE");
    struct in_addr host = {htonl(INADDR_LOOPBACK)};
    char full_name[256];
    int port;

    if (argc != 2 || !cookie)
        ei_node_fail("reading the command line");
    snprintf(full_name, sizeof full_name, "%s@127.0.0.1", argv[1]);
    ei_init();
    if (ei_connect_xinit(node, "127.0.0.1", argv[1], full_name, &host, cookie, 0) < 0)
        ei_node_fail("ei_connect_xinit");
    int listener = listen_anywhere(&port);
    if (ei_publish(node, port) < 0)
        ei_node_fail("ei_publish");
    puts("ready");
    fflush(stdout);
    return listener;
}
