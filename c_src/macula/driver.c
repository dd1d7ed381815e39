/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/driver.h"

#include "nat/nat_expect.h"

#include <errno.h>
#include <openssl/rand.h>
#include <string.h>
#include <time.h>

#define TICK_SESSIONS    100     /* at a time, then the clock is looked at */
#define TICK_NS          1000000 /* of a turn for what is due */
#define NEVER            UINT64_MAX
#define NS_PER_MS        1000000
#define CLOCK_READING_NS 1000 /* from reading one clock to reading the next, most often */
#define NS_PER_S         INT64_C(1000000000)

/* --- time and chance --- */

/*
 * The clock of the timers. At the start it is set to begin its milliseconds together with those of
 * wall time: a punch is executing as soon as the time that its peers were told has come.
 */
static uint64_t aligned_ns(const struct driver *d)
{
    return uv_hrtime() + d->phase_ns;
}

static int64_t wall_ns(void)
{
    struct timespec wall;

    clock_gettime(CLOCK_REALTIME, &wall);
    return (int64_t)wall.tv_sec * NS_PER_S + wall.tv_nsec;
}

struct nat_now driver_now(const struct driver *d)
{
    int64_t wall = wall_ns();
    uint64_t monotonic = aligned_ns(d);
    /* Wall time may have been adjusted since. Nothing is done before the millisecond that was told.
     */
    bool is_ahead = monotonic % NS_PER_MS > (uint64_t)wall % NS_PER_MS + CLOCK_READING_NS;

    return (struct nat_now){
        .monotonic_ms = monotonic / NS_PER_MS + is_ahead,
        .unix_ms = wall / NS_PER_MS,
    };
}

int driver_draw(struct driver *d, uint8_t out[static NAT_RANDOM_LEN])
{
    if (d->random_left < NAT_RANDOM_LEN) {
        if (RAND_bytes(d->random, sizeof d->random) != 1)
            return -EIO;
        d->random_left = sizeof d->random;
    }
    d->random_left -= NAT_RANDOM_LEN;
    memcpy(out, d->random + d->random_left, NAT_RANDOM_LEN);
    if (d->random_left >= (size_t)2 * NAT_RANDOM_LEN)
        nat_expect(d->nat, d->random + d->random_left - (size_t)2 * NAT_RANDOM_LEN);
    return 0;
}

/* --- actions --- */

static void carry_out(struct driver *d)
{
    struct nat_action action;

    while (nat_next_action(d->nat, &action)) {
        switch (action.type) {
        case NAT_COORDINATE:
            delivery_start(d->deliveries, &action);
            break;
        case NAT_NOTIFY:
            notifier_notify(d->notifier, &action);
            break;
        case NAT_RELEASE_WATCHER:
            subscriber_unref(d->subscribers, action.watcher);
            break;
        }
    }
}

/* --- the timer --- */

static void set_timer(struct driver *d);

/* As long as this took, nothing more is due: sessions that retry again and again have at most half
 * of the time. */
void driver_tick(struct driver *d)
{
    uint64_t start = aligned_ns(d), end;
    bool is_more;

    if (d->is_paused || start < d->rest_until_ns || nat_next_deadline(d->nat) > start / NS_PER_MS)
        return;
    do {
        is_more = nat_tick(d->nat, driver_now(d), TICK_SESSIONS);
        carry_out(d);
        end = aligned_ns(d);
    } while (is_more && end - start < TICK_NS);
    d->rest_until_ns = end + (end - start);
    set_timer(d);
}

static void on_timer(uv_timer_t *timer)
{
    struct driver *d = timer->data;

    d->timer_at = NEVER;
    driver_tick(d);
    set_timer(d);
}

static void set_timer(struct driver *d)
{
    uint64_t at = nat_next_deadline(d->nat);
    uint64_t rested = d->rest_until_ns / NS_PER_MS + 1;

    if (at < rested)
        at = rested;
    if (d->is_paused || at >= d->timer_at)
        return;
    d->timer_at = at;
    /* Never 0: libuv would run it again at once, and nobody else would get a turn. */
    uint64_t now = aligned_ns(d) / NS_PER_MS;
    uv_timer_start(&d->timer, on_timer, at > now ? at - now : 1, 0);
}

void driver_pause(struct driver *d)
{
    d->is_paused = true;
}

void driver_resume(struct driver *d)
{
    d->is_paused = false;
    set_timer(d);
}

void driver_act(struct driver *d)
{
    carry_out(d);
    set_timer(d);
}

/* --- life --- */

int driver_start(struct driver *d, uv_loop_t *loop, const struct nat_config *config,
                 struct deliveries *deliveries, struct notifier *notifier,
                 struct subscribers *subscribers)
{
    struct nat_config own = *config;

    *d = (struct driver){
        .deliveries = deliveries,
        .notifier = notifier,
        .subscribers = subscribers,
        .timer_at = NEVER,
        .phase_ns = ((uint64_t)wall_ns() - uv_hrtime()) % NS_PER_MS,
    };
    if (RAND_bytes(own.hash_key, sizeof own.hash_key) != 1)
        return -EIO;
    int error = nat_coordinator_create(&d->nat, &own);
    if (error)
        return error;
    uv_timer_init(loop, &d->timer);
    d->timer.data = d;
    set_timer(d);
    return 0;
}

void driver_close(struct driver *d)
{
    uv_close((uv_handle_t *)&d->timer, NULL);
}

void driver_free(struct driver *d)
{
    nat_coordinator_free(d->nat);
}
