/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/clocks.h"

#include "otp/rpc_client.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Far beyond any clock, and so small that sums do not overflow. */
#define TIME_MAX (INT64_C(1) << 60)

struct clock {
    struct clocks *all;
    struct call *call; /* NULL: none is in flight */
    uint64_t asked_at; /* monotonic ns */
    unsigned samples;  /* of the series that is on or the last one */
    uint64_t begun_at; /* loop ms */
    bool known;
    int64_t ahead_us;
    uint64_t round_trip_us;
    UT_hash_handle hh; /* by name */
    size_t name_len;
    uint8_t name[];
};

void clocks_init(struct clocks *clocks, struct node *node, struct calls *calls)
{
    *clocks = (struct clocks){.node = node, .calls = calls};
}

static void clock_remove(struct clock *clock)
{
    if (clock->call)
        call_cancel(clock->call);
    HASH_DEL(clock->all->by_name, clock);
    free(clock);
}

void clocks_free(struct clocks *clocks)
{
    while (clocks->by_name)
        clock_remove(clocks->by_name);
}

static struct clock *find(const struct clocks *clocks, struct slice name)
{
    struct clock *clock;

    HASH_FIND(hh, clocks->by_name, name.data, name.len, clock);
    return clock;
}

static int64_t wall_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void ask(struct clock *clock);

/* The remote clock was read somewhere between question and answer: half-way, as far as we know. */
static void use_sample(struct clock *clock, int64_t remote_us)
{
    uint64_t round_trip_us = (uv_hrtime() - clock->asked_at) / 1000;

    if (clock->samples == 1 || round_trip_us < clock->round_trip_us) {
        clock->round_trip_us = round_trip_us;
        clock->ahead_us = remote_us - (wall_us() - (int64_t)(round_trip_us / 2));
        clock->known = true;
    }
    if (clock->samples < CLOCK_SAMPLES)
        ask(clock);
}

static void on_answer(void *ctx, enum call_outcome outcome, struct slice answer)
{
    struct clock *clock = ctx;
    struct cursor c = cursor_of(answer);
    int64_t remote_us;

    clock->call = NULL;
    /* Anything else is a node without rex, or one that does not know the time. */
    if (outcome == CALL_ANSWERED && cursor_int(&c, &remote_us) && remote_us > 0 &&
        remote_us < TIME_MAX)
        use_sample(clock, remote_us);
}

static void ask(struct clock *clock)
{
    struct slice name = {clock->name, clock->name_len};
    struct connection *via = connection_find(clock->all->node, name);
    struct buffer *b;

    if (!via)
        return;
    clock->call =
        call_open(clock->all->calls, via, RPC_SERVER, CLOCK_LIMIT_MS, on_answer, clock, &b);
    if (!clock->call)
        return;
    clock->samples++;
    clock->asked_at = uv_hrtime();
    rpc_open_request(b, "erlang", "system_time", 1);
    term_put_atom(b, "microsecond");
    rpc_close_request(b);
    call_send(clock->call);
}

void clocks_measure(struct clocks *clocks, struct slice node_name)
{
    struct clock *clock = find(clocks, node_name);
    uint64_t now = uv_now(clocks->node->loop);

    if (clock && (clock->call || now - clock->begun_at < CLOCK_FRESH_MS))
        return;
    if (!clock) {
        if (!connection_find(clocks->node, node_name))
            return;
        clock = calloc(1, sizeof *clock + node_name.len);
        if (!clock)
            return;
        clock->all = clocks;
        clock->name_len = node_name.len;
        memcpy(clock->name, node_name.data, node_name.len);
        HASH_ADD(hh, clocks->by_name, name, clock->name_len, clock);
        if (!table_has(clock->hh)) {
            free(clock);
            return;
        }
    }
    clock->begun_at = now;
    clock->samples = 0;
    ask(clock);
}

bool clocks_get(const struct clocks *clocks, struct slice node_name, int64_t *ahead_ms,
                uint32_t *delay_ms)
{
    const struct clock *clock = find(clocks, node_name);

    *ahead_ms = 0;
    *delay_ms = 0;
    if (!clock || !clock->known)
        return false;
    *ahead_ms = (clock->ahead_us + (clock->ahead_us < 0 ? -500 : 500)) / 1000;
    *delay_ms = (uint32_t)(clock->round_trip_us / 2000);
    return true;
}

void clocks_node_down(struct clocks *clocks, struct slice node_name)
{
    struct clock *clock = find(clocks, node_name);

    if (clock)
        clock_remove(clock);
}

void clocks_put(const struct clocks *clocks, struct buffer *b)
{
    struct term_map nodes, map;

    term_open_map(&nodes, b);
    for (const struct clock *clock = clocks->by_name; clock && nodes.pairs < CLOCK_SHOWN_MAX;
         clock = clock->hh.next) {
        if (!clock->known)
            continue;
        term_count_pair(&nodes);
        term_put_atom_slice(b, (struct slice){clock->name, clock->name_len});
        term_open_map(&map, b);
        term_put_key(&map, "ahead_us");
        term_put_int(b, clock->ahead_us);
        term_put_key(&map, "round_trip_us");
        term_put_int(b, (int64_t)clock->round_trip_us);
        term_close_map(&map);
    }
    term_close_map(&nodes);
}
