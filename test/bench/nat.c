/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the NAT library costs by itself, without sockets and terms:
 *     gcc -std=c11 -D_GNU_SOURCE -O2 -Iinclude -Ic_src -o bench_nat test/bench/nat.c
 * c_src/nat/nat_*.c For each number of live sessions: nanoseconds of processor time per request
 * (its actions taken), per full punch (request, punch_time, both results), and bytes of malloc per
 * live session; with 1,000 peers in all, and with two peers of its own for every session. One line
 * of JSON each.
 */
#include <macula_nat.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 1000u
#define BATCH  200u

static struct nat_coordinator *coordinator;
static struct nat_now now = {.monotonic_ms = 1000, .unix_ms = 1700000000000};
static uint64_t seed = 88172645463325252u;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static double processor_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static size_t allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static void take_actions(void)
{
    struct nat_action action;

    while (nat_next_action(coordinator, &action))
        ;
}

/* A profile as large as those of real peers: 320 bytes of source, the id and the endpoint in it. */
static struct nat_profile *make_profile(const char *id)
{
    char source[320];
    struct nat_profile_fields fields = {
        .node_id = {source + 20, 32},
        .mapping = NAT_POLICY_HD,
        .filtering = NAT_POLICY_PD,
        .allocation = NAT_POLICY_PC,
        .reflexive_ip = {"192.0.2.111", 11},
        .reflexive_port = 4433,
        .endpoint = {source + 100, 16},
        .source = {source, sizeof source},
    };
    struct nat_profile *profile = NULL;

    memset(source, 'x', sizeof source);
    memcpy(source + 20, id, 32);
    memcpy(source + 100, "192.0.2.111:4433", 16);
    return nat_profile_create(&profile, &fields) == 0 ? profile : NULL;
}

static void name_peer(char id[33], uint64_t number)
{
    snprintf(id, 33, "peer-%027llu", (unsigned long long)number);
}

/* One request between two random peers out of `peers`, or, if that is 0, between two that nobody
 * else has. */
static void request(uint64_t peers, struct nat_profile *const *shared, char id[24])
{
    static uint64_t next_peer;
    struct nat_request ask = {.initiator_profile = NULL};
    struct nat_session_view view;
    uint64_t a = next_peer++, b = next_peer++, random[2] = {draw(), draw()};
    char ids[2][33];

    if (peers > 0) {
        a = draw() % peers;
        b = (a + 1 + draw() % (peers - 1)) % peers;
    }
    name_peer(ids[0], a);
    name_peer(ids[1], b);
    ask.initiator_id = (struct nat_bytes){ids[0], 32};
    ask.target_id = (struct nat_bytes){ids[1], 32};
    ask.initiator_profile = peers > 0 ? shared[a] : make_profile(ids[0]);
    ask.target_profile = peers > 0 ? shared[b] : make_profile(ids[1]);
    nat_options_init(coordinator, &ask.options);
    memcpy(ask.random, random, sizeof random);
    if (nat_request(coordinator, now, &ask, &view) < 0)
        abort();
    memcpy(id, view.session_id.data, 24);
    take_actions();
    if (peers == 0) {
        nat_profile_unref(ask.initiator_profile);
        nat_profile_unref(ask.target_profile);
    }
}

static void report_success(const char id[24])
{
    struct nat_bytes session_id = {id, 24}, reporter = {"peer", 4};

    nat_report(coordinator, now, session_id, reporter, NAT_REPORT_SUCCESS);
    nat_report(coordinator, now, session_id, reporter, NAT_REPORT_SUCCESS);
    take_actions();
}

static uint64_t live(void)
{
    const uint64_t *states = nat_counters(coordinator)->live;

    return states[NAT_PENDING] + states[NAT_COORDINATING] + states[NAT_EXECUTING];
}

static void tick(void)
{
    while (nat_tick(coordinator, now, 1000))
        take_actions();
    take_actions();
}

static void measure(uint64_t sessions, uint64_t peers)
{
    static char ids[BATCH][24];
    struct nat_profile *shared[1000];
    struct nat_config config;
    double began, asked = 0, punched = 0;
    size_t before, bytes;
    char id[33];

    for (uint64_t i = 0; i < 1000; i++) {
        name_peer(id, i);
        shared[i] = make_profile(id);
    }
    nat_config_init(&config);
    config.max_sessions = 4000000;
    config.punch_timeout_ms = 1000000000;
    config.session_ttl_s = 1000000;
    if (nat_coordinator_create(&coordinator, &config) < 0)
        abort();
    before = allocated();
    while (live() < sessions)
        request(peers, shared, id);
    bytes = allocated() - before;
    now.monotonic_ms += 100;
    tick();
    for (unsigned round = 0; round < ROUNDS; round++) {
        began = processor_ns();
        for (unsigned i = 0; i < BATCH; i++)
            request(peers, shared, ids[i]);
        asked += processor_ns() - began;
        now.monotonic_ms += 100;
        tick();
        for (unsigned i = 0; i < BATCH; i++)
            report_success(ids[i]);
        punched += processor_ns() - began;
        now.monotonic_ms += NAT_SWEEP_MS; /* so that only `sessions` of them are there again */
        tick();
    }
    asked /= ROUNDS * BATCH;
    punched /= ROUNDS * BATCH;
    printf("{\"live\":%llu,\"peers\":%llu,\"request_ns\":%.0f,\"punch_ns\":%.0f,"
           "\"bytes_per_session\":%.0f",
           (unsigned long long)sessions, (unsigned long long)peers, asked, punched,
           (double)bytes / (double)sessions);
    now.monotonic_ms += config.session_ttl_s * UINT64_C(1000);
    tick();
    now.monotonic_ms += config.session_ttl_s * UINT64_C(1000);
    tick();
    printf(",\"bytes_left\":%lld}\n", (long long)allocated() - (long long)before);
    fflush(stdout);
    nat_coordinator_free(coordinator);
    for (int i = 0; i < 1000; i++)
        nat_profile_unref(shared[i]);
}

int main(void)
{
    const uint64_t sessions[] = {10, 10000, 1000000};

    for (int i = 0; i < 3; i++)
        measure(sessions[i], 1000);
    for (int i = 0; i < 3; i++)
        measure(sessions[i], 0);
    return 0;
}
