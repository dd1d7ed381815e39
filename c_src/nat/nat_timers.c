/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

static uint64_t top_key(const struct nat_heap *heap)
{
    return heap->count > 0 ? heap->entries[0].key : NAT_NO_DEADLINE;
}

static struct nat_heap *next_timer(struct nat_coordinator *c)
{
    struct nat_heap *punch = &c->timers[NAT_TIMER_PUNCH], *result = &c->timers[NAT_TIMER_RESULT];

    return top_key(punch) <= top_key(result) ? punch : result;
}

uint64_t nat_next_deadline(const struct nat_coordinator *c)
{
    uint64_t next = c->sweeping ? 0 : c->sweep_at;

    for (int i = 0; i < NAT_TIMERS; i++)
        if (top_key(&c->timers[i]) < next)
            next = top_key(&c->timers[i]);
    return next;
}

/* One session that the sweep has to drop; NULL if there is none left. */
static struct nat_session *next_swept(struct nat_coordinator *c)
{
    struct nat_session *oldest = nat_session_oldest(c);

    if (c->ended && c->ended->since <= c->sweep_from)
        return c->ended;
    if (oldest && oldest->since <= c->sweep_from &&
        c->sweep_from - oldest->since > c->config.session_ttl_s * UINT64_C(1000))
        return oldest;
    return NULL;
}

/* Returns false if the queue has to be emptied before it can go on. */
static bool sweep_one(struct nat_coordinator *c)
{
    struct nat_session *session = next_swept(c);

    if (!session) {
        c->sweeping = false;
        /* On a grid of NAT_SWEEP_MS, leaving out times at which nothing was asked. */
        c->sweep_at += NAT_SWEEP_MS;
        if (c->sweep_at <= c->sweep_from)
            c->sweep_at = c->sweep_from + NAT_SWEEP_MS;
        if (!c->live && !c->ended)
            c->sweep_at = NAT_NO_DEADLINE;
        return true;
    }
    if (nat_session_is_live(session)) {
        if (nat_session_prepare(c, session) < 0)
            return false;
        c->counters.swept_expired++;
    }
    nat_session_drop(c, session);
    return true;
}

bool nat_tick(struct nat_coordinator *c, struct nat_now now, unsigned budget)
{
    unsigned cost;

    for (; budget > 0; budget = budget > cost ? budget - cost : 0) {
        struct nat_heap *timer = next_timer(c);
        uint64_t deadline = top_key(timer);

        if (timer->count > 0 && deadline <= now.monotonic_ms) {
            struct nat_session *session = timer->entries[0].session;

            cost = 1u + session->watcher_count;
            if (nat_session_prepare(c, session) < 0)
                break;
            nat_machine_timer(c, now, session, deadline);
            continue;
        }
        cost = 1;
        if (!c->sweeping) {
            if (c->sweep_at > now.monotonic_ms)
                return false;
            c->sweeping = true;
            c->sweep_from = now.monotonic_ms;
        }
        if (!sweep_one(c))
            break;
    }
    return nat_next_deadline(c) <= now.monotonic_ms;
}
