/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the NAT library's coordinator needs of the world: the time, random bytes, a timer, and
 * somebody who carries out its actions.
 *
 * The struct is the caller's, and so are the three that carry out actions; they must outlive it.
 * Call driver_act after every call of the library that may have changed a session.
 */
#ifndef MACULA_DRIVER_H
#define MACULA_DRIVER_H

#include "macula/delivery.h"
#include "macula/notifier.h"
#include "macula/subscribers.h"
#include "macula_nat.h"

#define DRIVER_RANDOM_POOL 4096 /* bytes drawn at once */

struct driver {
    struct nat_coordinator *nat;
    struct deliveries *deliveries;
    struct notifier *notifier;
    struct subscribers *subscribers;
    bool is_paused;
    uv_timer_t timer;
    uint64_t timer_at;      /* as nat_now.monotonic_ms */
    uint64_t rest_until_ns; /* of the same clock: before, nothing that is due is done */
    uint64_t phase_ns; /* by which wall time is further into its millisecond than uv_hrtime() */
    uint8_t random[DRIVER_RANDOM_POOL];
    size_t random_left;
};

/* Makes the library's coordinator, with a hash key of its own, and starts its timer. Returns 0 or a
 * negative errno; after an error there is nothing to close or free. */
int driver_start(struct driver *d, uv_loop_t *loop, const struct nat_config *config,
                 struct deliveries *deliveries, struct notifier *notifier,
                 struct subscribers *subscribers);
/* Stops the timer; the loop must run once more before the memory of the struct goes. */
void driver_close(struct driver *d);
/* Frees the coordinator. */
void driver_free(struct driver *d);

struct nat_now driver_now(const struct driver *d);
/* Returns 0 or -EIO. */
int driver_draw(struct driver *d, uint8_t out[static NAT_RANDOM_LEN]);
/* Carries out what the library asks for, and sets the timer. */
void driver_act(struct driver *d);
/* To be called in every turn: under load the loop's own timers lag behind by a millisecond or two.
 */
void driver_tick(struct driver *d);
/* Paused, it lets nothing become due. */
void driver_pause(struct driver *d);
void driver_resume(struct driver *d);

#endif
