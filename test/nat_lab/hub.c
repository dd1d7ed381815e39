/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hub with a delay: `hub MILLISECONDS INTERFACE INTERFACE...` gives every frame that comes in on
 * an interface to all the others, that much later. It runs until it is ended. It stands between the
 * boxes of the NAT lab, where a kernel may have no netem. Frames travel with their offload header,
 * as the kernel leaves checksums and segmentation to the next one.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORTS     8
#define FRAME_MAX (sizeof(struct virtio_net_hdr) + 65536 + 64)
#define QUEUE_MAX 4096u /* frames on their way; what comes beyond is lost, as on any wire */

struct frame {
    struct frame *next;
    int64_t due; /* ns */
    int from;
    size_t len;
    uint8_t data[];
};

struct hub {
    int64_t delay; /* ns */
    int count;
    struct pollfd ports[PORTS];
    struct frame *first, **last;
    unsigned queued;
};

static int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int port_open(const char *name)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(name),
    };
    struct packet_mreq all = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    int fd, on = 1;

    if (address.sll_ifindex == 0)
        return -1;
    fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void take_frame(struct hub *hub, int from)
{
    static uint8_t data[FRAME_MAX];
    ssize_t len = recv(hub->ports[from].fd, data, sizeof data, MSG_DONTWAIT);
    struct frame *frame;

    if (len <= 0 || hub->queued == QUEUE_MAX)
        return;
    frame = malloc(sizeof *frame + (size_t)len);
    if (frame == NULL)
        return;
    *frame = (struct frame){.due = clock_now() + hub->delay, .from = from, .len = (size_t)len};
    __builtin_memcpy(frame->data, data, frame->len);
    *hub->last = frame;
    hub->last = &frame->next;
    hub->queued++;
}

static void give_due(struct hub *hub)
{
    while (hub->first != NULL && hub->first->due <= clock_now()) {
        struct frame *frame = hub->first;

        for (int i = 0; i < hub->count; i++)
            if (i != frame->from)
                (void)!send(hub->ports[i].fd, frame->data, frame->len, MSG_DONTWAIT);
        hub->first = frame->next;
        if (hub->first == NULL)
            hub->last = &hub->first;
        hub->queued--;
        free(frame);
    }
}

static void run(struct hub *hub)
{
    for (;;) {
        int64_t left = hub->first != NULL ? hub->first->due - clock_now() : 0;
        struct timespec wait = {left / 1000000000, left % 1000000000};

        if (left < 0)
            wait = (struct timespec){0};
        if (ppoll(hub->ports, (nfds_t)hub->count, hub->first != NULL ? &wait : NULL, NULL) < 0 &&
            errno != EINTR)
            return;
        for (int i = 0; i < hub->count; i++)
            if (hub->ports[i].revents != 0)
                take_frame(hub, i);
        give_due(hub);
    }
}

int main(int argc, char **argv)
{
    struct hub hub = {.last = &hub.first};

    if (argc < 4 || argc > 2 + PORTS) {
        fprintf(stderr, "usage: hub MILLISECONDS INTERFACE INTERFACE...\n");
        return 64;
    }
    hub.delay = strtol(argv[1], NULL, 10) * INT64_C(1000000);
    for (int i = 2; i < argc; i++) {
        int fd = port_open(argv[i]);

        if (fd < 0) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        hub.ports[hub.count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    run(&hub);
    return EXIT_FAILURE;
}
