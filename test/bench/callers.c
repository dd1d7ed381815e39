/* SPDX-License-Identifier: Apache-2.0 */
#include "callers.h"

#include "usage.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_OWN_PEER 0x10000000u /* beyond all peers that have a profile */

void callers_init(struct callers *cs, const struct callers_config *config, struct client *clients,
                  int client_count)
{
    memset(cs, 0, sizeof *cs);
    cs->config = *config;
    cs->clients = clients;
    cs->client_count = client_count;
    cs->slots = calloc(config->window, sizeof *cs->slots);
    if (!cs->slots)
        client_fail("out of memory");
    cs->next_peer = FIRST_OWN_PEER;
    cs->random = 88172645463325252; /* the same pairs in every run */
    for (int i = 0; i < client_count; i++) {
        struct pid from = client_pid(&clients[i], 1);
        call_template_init(&cs->templates[i], &clients[i], &from, config->form, false);
    }
}

void callers_free(struct callers *cs)
{
    for (int i = 0; i < cs->client_count; i++)
        call_template_free(&cs->templates[i]);
    free(cs->slots);
}

/* xorshift64 */
static uint32_t draw(struct callers *cs, uint32_t below)
{
    cs->random ^= cs->random << 13;
    cs->random ^= cs->random >> 7;
    cs->random ^= cs->random << 17;
    return (uint32_t)((cs->random >> 32) * below >> 32);
}

static void send_call(struct callers *cs, uint32_t slot, uint64_t now)
{
    int client = (int)(slot % (uint32_t)cs->client_count);
    uint32_t initiator, target;

    if (cs->config.peers == 0) {
        initiator = cs->next_peer++;
        target = cs->next_peer++;
    } else {
        initiator = draw(cs, cs->config.peers);
        target = draw(cs, cs->config.peers - 1);
        target += target >= initiator;
    }
    cs->slots[slot].turn++;
    cs->slots[slot].sent_at = now;
    cs->in_flight++;
    call_send(&cs->templates[client], &cs->clients[client], slot, cs->slots[slot].turn, initiator,
              target);
}

static void flush_all(struct callers *cs)
{
    for (int i = 0; i < cs->client_count; i++)
        client_flush(&cs->clients[i]);
}

void callers_start(struct callers *cs)
{
    uint64_t now = clock_monotonic_ns();

    cs->stopping = false;
    for (uint32_t slot = 0; slot < cs->config.window; slot++)
        send_call(cs, slot, now);
    flush_all(cs);
}

void callers_take(struct callers *cs, int client, const struct incoming *m)
{
    struct slice strategy, session_id;

    if (!m->is_reply || m->slot >= cs->config.window || cs->slots[m->slot].turn != m->turn ||
        client != (int)(m->slot % (uint32_t)cs->client_count))
        return;
    uint64_t now = clock_monotonic_ns();
    histogram_add(&cs->times, now - cs->slots[m->slot].sent_at);
    cs->answered++;
    cs->refused += !incoming_session(m->content, &strategy, &session_id);
    cs->in_flight--;
    if (!cs->stopping)
        send_call(cs, m->slot, now);
}

void callers_reset(struct callers *cs)
{
    cs->answered = cs->refused = 0;
    histogram_clear(&cs->times);
}

void callers_turn(struct callers *cs)
{
    struct incoming m;
    struct slice frame;

    clients_wait(cs->clients, cs->client_count, 100);
    for (int i = 0; i < cs->client_count; i++) {
        client_read(&cs->clients[i]);
        while (client_next_frame(&cs->clients[i], &frame))
            if (incoming_read(&m, frame))
                callers_take(cs, i, &m);
        client_flush(&cs->clients[i]);
    }
}

void callers_run(struct callers *cs, uint64_t count, uint64_t until)
{
    uint64_t end = cs->answered + count;

    while (cs->answered < end && clock_monotonic_ns() < until)
        callers_turn(cs);
}

void callers_stop(struct callers *cs)
{
    uint64_t until = clock_monotonic_ns() + CALLERS_PATIENCE;

    cs->stopping = true;
    while (cs->in_flight > 0 && clock_monotonic_ns() < until)
        callers_turn(cs);
}
