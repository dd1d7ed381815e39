/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load generator: connects to a server as one or several hidden nodes, keeps calls in flight,
 * and prints what was measured as one line of JSON. What is measured is the first argument, all
 * else are options; see usage() below. It is bounded in calls and in time, and ends by itself if
 * the server stops to answer.
 */
#include "callers.h"
#include "punches.h"
#include "usage.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENTS_MAX    16
#define LOOK_AGAIN_US  200000
#define LISTINGS       5
#define UNKNOWN_PEER   0x20000000u /* the first of those that have no profile */
#define NS_PER_S       UINT64_C(1000000000)
#define NS_PER_MS      UINT64_C(1000000)
#define WITHOUT_LIMIT  UINT64_MAX
#define FILLING_WINDOW 256

struct options {
    const char *bench, *server, *node, *cache;
    pid_t pid;
    uint32_t round;
    int connections;
    uint32_t window, peers, punches;
    uint64_t count, fill;
    uint64_t warmup_ms, limit_s;
    double seconds;
    enum nat_mix mix;
    enum call_form form;
};

static struct client clients[CLIENTS_MAX];

/* --- output --- */

static void print_begin(const struct options *o)
{
    printf("{\"bench\":\"%s\",\"server\":\"%s\",\"round\":%" PRIu32, o->bench, o->server, o->round);
}

static void print_number(const char *key, double value)
{
    printf(",\"%s\":%.6g", key, value);
}

/* In microseconds. */
static void print_times(const char *prefix, const struct histogram *h)
{
    static const struct {
        const char *name;
        double share;
    } percentiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};

    for (size_t i = 0; i < sizeof percentiles / sizeof percentiles[0]; i++)
        printf(",\"%s%s_us\":%.6g", prefix, percentiles[i].name,
               (double)histogram_percentile(h, percentiles[i].share) / 1000);
}

static void print_end(void)
{
    puts("}");
}

/* --- a measurement --- */

struct meter {
    uint64_t begun, cpu;
};

static struct meter meter_start(const struct options *o)
{
    return (struct meter){clock_monotonic_ns(), usage_cpu_ns(o->pid)};
}

/* Rate and cost of `count` operations since the start. `busy` is the share of a core that the
 * server took. */
static void print_rate(const struct options *o, const struct meter *start, uint64_t count)
{
    uint64_t cpu = usage_cpu_ns(o->pid) - start->cpu;
    uint64_t elapsed = clock_monotonic_ns() - start->begun;

    print_number("seconds", (double)elapsed / 1e9);
    print_number("count", (double)count);
    print_number("per_second", (double)count * 1e9 / (double)elapsed);
    print_number("cpu_us", count ? (double)cpu / 1e3 / (double)count : 0);
    print_number("busy", (double)cpu / (double)elapsed);
    print_number("rss_bytes", (double)usage_resident(o->pid));
}

static uint64_t deadline(const struct options *o)
{
    return clock_monotonic_ns() + (uint64_t)(o->seconds * 1e9);
}

static void connect_all(const struct options *o, int count)
{
    char name[32];

    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "load%d_%d", (int)getpid(), i);
        client_connect(&clients[i], name, o->node);
    }
    profiles_put(&clients[0], o->cache, o->mix, o->peers);
}

static void close_all(int count)
{
    for (int i = 0; i < count; i++)
        client_close(&clients[i]);
}

/* Makes sessions; returns by how many bytes the server has grown. */
static double fill(const struct options *o, uint64_t count)
{
    static struct callers callers;
    struct callers_config config = {
        .window = FILLING_WINDOW,
        .peers = o->mix == NAT_MIX_NONE ? 0 : o->peers,
    };
    uint64_t before = usage_resident(o->pid);

    if (count == 0)
        return 0;
    callers_init(&callers, &config, clients, 1);
    callers_start(&callers);
    callers_run(&callers, count > FILLING_WINDOW ? count - FILLING_WINDOW : 1, WITHOUT_LIMIT);
    callers_stop(&callers);
    if (callers.refused > 0)
        client_fail("%" PRIu64 " requests were refused", callers.refused);
    callers_free(&callers);
    return (double)usage_resident(o->pid) - (double)before;
}

/* --- what can be measured --- */

static void warm_up(const struct options *o, struct callers *callers)
{
    callers_start(callers);
    callers_run(callers, WITHOUT_LIMIT - callers->answered,
                clock_monotonic_ns() + o->warmup_ms * NS_PER_MS);
    callers_reset(callers);
}

static void bench_calls(const struct options *o)
{
    static struct callers callers;
    struct callers_config config = {
        .window = o->window, .form = o->form, .peers = o->mix == NAT_MIX_NONE ? 0 : o->peers};

    connect_all(o, o->connections);
    double grown = fill(o, o->fill);
    callers_init(&callers, &config, clients, o->connections);
    warm_up(o, &callers);
    struct meter start = meter_start(o);
    callers_run(&callers, o->count, deadline(o));
    print_begin(o);
    print_rate(o, &start, callers.answered);
    print_number("refused", (double)callers.refused);
    print_times("", &callers.times);
    if (o->fill > 0)
        print_number("bytes_per_session", grown / (double)o->fill);
    print_end();
    callers_stop(&callers);
    callers_free(&callers);
    close_all(o->connections);
}

/* Memory of sessions alone. */
static void bench_memory(const struct options *o)
{
    connect_all(o, 1);
    uint64_t before = usage_resident(o->pid);
    double grown = fill(o, o->fill);
    print_begin(o);
    print_number("sessions", (double)o->fill);
    print_number("rss_before_bytes", (double)before);
    print_number("rss_bytes", (double)usage_resident(o->pid));
    print_number("bytes_per_session", grown / (double)o->fill);
    print_end();
    close_all(1);
}

static void bench_punches(const struct options *o)
{
    static struct punches punches;

    connect_all(o, 1);
    fill(o, o->fill);
    punches_init(&punches, &clients[0], o->punches, 0, false);
    punches_start(&punches);
    punches_run(&punches, WITHOUT_LIMIT, clock_monotonic_ns() + o->warmup_ms * NS_PER_MS);
    punches_reset(&punches);
    struct meter start = meter_start(o);
    punches_run(&punches, o->count, deadline(o));
    uint64_t finished = punches.finished;
    punches_stop(&punches);
    print_begin(o);
    print_rate(o, &start, finished);
    print_number("refused", (double)punches.refused);
    print_times("", &punches.times);
    print_end();
    punches_free(&punches);
    close_all(1);
}

/* One turn of callers on the first connection and punches on the second, which is looked at first.
 */
static void mixed_turn(struct callers *callers, struct punches *punches)
{
    struct incoming m;
    struct slice frame;

    clients_wait(clients, 2, -1);
    for (int i = 1; i >= 0; i--) {
        client_read(&clients[i]);
        while (client_next_frame(&clients[i], &frame)) {
            if (!incoming_read(&m, frame))
                continue;
            if (i == 1)
                punches_take(punches, &m);
            else
                callers_take(callers, 0, &m);
        }
        client_flush(&clients[i]);
    }
}

static void bench_punch_time(const struct options *o)
{
    static struct callers callers;
    static struct punches punches;
    struct callers_config config = {.window = o->window, .form = o->form, .peers = o->peers};

    connect_all(o, 2);
    punches_init(&punches, &clients[1], o->punches, UNKNOWN_PEER, true);
    callers_init(&callers, &config, clients, 1);
    warm_up(o, &callers);
    struct meter start = meter_start(o);
    uint64_t until = deadline(o);
    punches_start(&punches);
    while (clock_monotonic_ns() < until)
        mixed_turn(&callers, &punches);
    print_begin(o);
    print_rate(o, &start, callers.answered);
    callers.stopping = punches.stopping = true;
    while (callers.in_flight + punches.in_flight > 0)
        mixed_turn(&callers, &punches);
    print_number("punches", (double)punches.finished);
    print_number("earliest_us", punches.earliest_ms * 1000);
    print_times("late_", &punches.late);
    print_end();
    punches_free(&punches);
    callers_free(&callers);
    close_all(2);
}

static size_t list_pending(struct client *c, int *sessions)
{
    struct pid self = client_pid(c, 1);
    struct cursor reply;
    size_t size = call_and_wait(c, &self, COORDINATOR, 0, "get_pending", 0, &reply);

    *sessions = 0;
    cursor_list(&reply, sessions);
    return size;
}

/* Sessions come, age (the server was told to forget them soon), and go; the memory should go with
 * them. */
static void bench_churn(const struct options *o)
{
    int left;

    connect_all(o, 1);
    /* Code that has never run and buffers that were never used are not what comes back. */
    fill(o, FILLING_WINDOW);
    list_pending(&clients[0], &left);
    uint64_t before = usage_resident(o->pid);
    double grown = fill(o, o->fill);
    uint64_t begun = clock_monotonic_ns();
    do {
        usleep(LOOK_AGAIN_US);
        list_pending(&clients[0], &left);
    } while (left > 0);
    print_begin(o);
    print_number("sessions", (double)o->fill);
    print_number("rss_before_bytes", (double)before);
    print_number("rss_full_bytes", (double)before + grown);
    print_number("rss_bytes", (double)usage_resident(o->pid));
    print_number("gone_after_s", (double)(clock_monotonic_ns() - begun) / 1e9);
    print_end();
    close_all(1);
}

/* get_pending by one process, on the second connection, while others call on the first. */
static void listings_under_load(struct callers *callers, struct histogram *times)
{
    struct pid self = client_pid(&clients[1], 1);
    struct slice frame;
    struct incoming m;

    for (int i = 0; i < LISTINGS; i++) {
        uint64_t begun = clock_monotonic_ns();
        bool answered = false;
        call_start(&clients[1], &self, COORDINATOR, 0, "get_pending", 0);
        while (!answered) {
            clients_wait(clients, 2, -1);
            for (int k = 0; k < 2; k++) {
                client_flush(&clients[k]);
                client_read(&clients[k]);
                while (client_next_frame(&clients[k], &frame)) {
                    if (!incoming_read(&m, frame))
                        continue;
                    if (k == 0)
                        callers_take(callers, 0, &m);
                    else
                        answered = true;
                }
                client_flush(&clients[k]);
            }
        }
        histogram_add(times, clock_monotonic_ns() - begun);
    }
}

static void bench_pending(const struct options *o)
{
    static struct callers callers;
    static struct histogram alone, loaded;
    struct callers_config config = {.window = o->window, .peers = o->peers};
    size_t bytes = 0;
    int sessions = 0;

    connect_all(o, 2);
    fill(o, o->fill);
    uint64_t cpu = usage_cpu_ns(o->pid);
    for (int i = 0; i < LISTINGS; i++) {
        uint64_t begun = clock_monotonic_ns();
        bytes = list_pending(&clients[1], &sessions);
        histogram_add(&alone, clock_monotonic_ns() - begun);
    }
    cpu = usage_cpu_ns(o->pid) - cpu;
    callers_init(&callers, &config, clients, 1);
    warm_up(o, &callers);
    callers_run(&callers, o->count, deadline(o));
    print_begin(o);
    print_number("live", (double)o->fill);
    print_number("listed", sessions);
    print_number("reply_bytes", (double)bytes);
    print_number("cpu_us", (double)cpu / 1e3 / LISTINGS);
    print_times("alone_", &alone);
    print_times("callers_before_", &callers.times);
    callers_reset(&callers);
    listings_under_load(&callers, &loaded);
    print_times("loaded_", &loaded);
    print_times("callers_during_", &callers.times);
    print_end();
    callers_stop(&callers);
    callers_free(&callers);
    close_all(2);
}

/* --- the command line --- */

static const struct {
    const char *name;
    void (*run)(const struct options *o);
} benches[] = {
    {"calls", bench_calls},           {"memory", bench_memory}, {"punches", bench_punches},
    {"punch_time", bench_punch_time}, {"churn", bench_churn},   {"pending", bench_pending},
};

static void usage(void)
{
    fputs("load calls|memory|punches|punch_time|churn|pending --node NODE --pid PID\n"
          "  --bench NAME --server NAME --round N   how the result is labelled\n"
          "  --connections N --window N --seconds S --count N --warmup-ms N --limit-s N\n"
          "  --peers N --nat none|open|punch|all|elsewhere --cache NAME   peers with profiles, put "
          "there\n"
          "  --form plain|monitored                 how calls are made\n"
          "  --fill N                               sessions that are made first\n"
          "  --punches N                            hole punches at a time\n",
          stderr);
    exit(EXIT_FAILURE);
}

static int choose(const char *value, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(value, names[i]) == 0)
            return i;
    usage();
    return -1;
}

static void read_option(struct options *o, int option, const char *value)
{
    static const char *const mixes[] = {"none", "open", "punch", "all", "elsewhere"};
    static const char *const forms[] = {"plain", "monitored"};

    switch (option) {
    case 'n':
        o->node = value;
        break;
    case 'p':
        o->pid = (pid_t)strtol(value, NULL, 10);
        break;
    case 'b':
        o->bench = value;
        break;
    case 's':
        o->server = value;
        break;
    case 'r':
        o->round = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 'c':
        o->connections = (int)strtol(value, NULL, 10);
        break;
    case 'w':
        o->window = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 't':
        o->seconds = strtod(value, NULL);
        break;
    case 'k':
        o->count = strtoull(value, NULL, 10);
        break;
    case 'u':
        o->warmup_ms = strtoull(value, NULL, 10);
        break;
    case 'l':
        o->limit_s = strtoull(value, NULL, 10);
        break;
    case 'e':
        o->peers = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 'm':
        o->mix = (enum nat_mix)choose(value, mixes, 5);
        break;
    case 'a':
        o->cache = value;
        break;
    case 'f':
        o->form = (enum call_form)choose(value, forms, 2);
        break;
    case 'i':
        o->fill = strtoull(value, NULL, 10);
        break;
    case 'h':
        o->punches = (uint32_t)strtoul(value, NULL, 10);
        break;
    default:
        usage();
    }
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"node", 1, NULL, 'n'},      {"pid", 1, NULL, 'p'},     {"bench", 1, NULL, 'b'},
        {"server", 1, NULL, 's'},    {"round", 1, NULL, 'r'},   {"connections", 1, NULL, 'c'},
        {"window", 1, NULL, 'w'},    {"seconds", 1, NULL, 't'}, {"count", 1, NULL, 'k'},
        {"warmup-ms", 1, NULL, 'u'}, {"limit-s", 1, NULL, 'l'}, {"peers", 1, NULL, 'e'},
        {"nat", 1, NULL, 'm'},       {"cache", 1, NULL, 'a'},   {"form", 1, NULL, 'f'},
        {"fill", 1, NULL, 'i'},      {"punches", 1, NULL, 'h'}, {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1)
        read_option(o, option, optarg);
    if (!o->node || o->pid <= 0 || o->connections < 1 || o->connections > CLIENTS_MAX ||
        o->window == 0 || o->window >= 1u << 18 || o->punches == 0 || optind != argc)
        usage();
}

int main(int argc, char **argv)
{
    struct options o = {
        .bench = argc > 1 ? argv[1] : "",
        .server = "server",
        .cache = "macula_nat_cache",
        .connections = 1,
        .window = 256,
        .seconds = 2,
        .count = UINT64_MAX / 2,
        .warmup_ms = 300,
        .limit_s = 120,
        .peers = 1000,
        .mix = NAT_MIX_OPEN,
        .punches = 64,
    };

    if (argc < 2)
        usage();
    const char *what = argv[1];
    read_options(&o, argc - 1, argv + 1);
    alarm((unsigned)o.limit_s);
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
        if (strcmp(benches[i].name, what) == 0) {
            benches[i].run(&o);
            return EXIT_SUCCESS;
        }
    }
    usage();
}
