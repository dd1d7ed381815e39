/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include <errno.h>
#include <string.h>

/*
 *              request_connection, coordinate_punch
 *                            |
 *                         pending ------- direct, relay: until a report ------+
 *                            | hole_punch: at once                            |
 *        +--------------> coordinating ----- success ---------------+         |
 *        |                   | punch_time                           |         |
 *  attempt failed,        executing -------- success ------------+  |         |
 *  attempts left             |                                   |  |         |
 *        +-------------------+-- none left: failed            completed <-----+
 */

/*
 * Who fires later than punch_time, and by how much. Where a packet that comes too early spoils the
 * port it comes to, on a NAT that takes it for its own, the peer behind such a NAT must fire first
 * unless both fire within the time that a packet takes. So both fire at once in the first attempts,
 * and take turns in those that follow when even fresh ports have not helped.
 */
static uint32_t fires_later(const struct nat_coordinator *c, enum nat_role role, uint32_t attempt)
{
    enum nat_role later = attempt % 4 == 2 ? NAT_TARGET : NAT_INITIATOR;

    return nat_plans_retries(c) && attempt % 4 >= 2 && role == later ? NAT_STAGGER_MS : 0;
}

/* From now to punch_time: long enough for the slower of the peers to have the message before. */
static uint32_t lead_of(struct nat_coordinator *c, const struct nat_session *session)
{
    uint32_t configured = c->config.coordination_delay_ms;
    uint32_t a = session->peers[NAT_INITIATOR]->delay_ms;
    uint32_t b = session->peers[NAT_TARGET]->delay_ms;
    uint32_t slower = a > b ? a : b;

    if (slower <= configured || configured >= NAT_LEAD_MAX_MS)
        return configured;
    c->counters.leads_extended++;
    return slower < NAT_LEAD_MAX_MS - configured ? slower + configured : NAT_LEAD_MAX_MS;
}

/* The way to the first or the next attempt. */
void nat_machine_coordinate(struct nat_coordinator *c, struct nat_now now,
                            struct nat_session *session)
{
    uint64_t lead = lead_of(c, session);
    int64_t punch_time = now.unix_ms + (int64_t)lead;

    if (session->state == NAT_PENDING) {
        DL_DELETE2(c->pending, session, pending_prev, pending_next);
        /* The newest has the smallest key. */
        nat_heap_push(&session->pair->punches[session->first], ~session->number, session);
    } else {
        nat_heap_remove(&c->timers[session->state - NAT_COORDINATING], session);
    }
    session->strategy = NAT_HOLE_PUNCH;
    nat_session_set_state(c, session, NAT_COORDINATING);
    nat_heap_push(&c->timers[NAT_TIMER_PUNCH], now.monotonic_ms + lead, session);
    nat_queue_coordinate(c, session, NAT_INITIATOR,
                         punch_time + fires_later(c, NAT_INITIATOR, session->attempts));
    nat_queue_coordinate(c, session, NAT_TARGET,
                         punch_time + fires_later(c, NAT_TARGET, session->attempts));
    c->counters.attempts++;
}

static void retry(struct nat_coordinator *c, struct nat_now now, struct nat_session *session)
{
    session->attempts++;
    c->counters.retries++;
    nat_machine_coordinate(c, now, session);
    nat_queue_notify(c, session);
}

static void attempt_failed(struct nat_coordinator *c, struct nat_now now,
                           struct nat_session *session, enum nat_result result)
{
    if (session->attempts < session->max_attempts) {
        retry(c, now, session);
        return;
    }
    session->strategy = NAT_RELAY;
    nat_session_end(c, now, session, NAT_FAILED, result);
}

/* No punch has been tried: the direct try was attempt 0, and a punch would be the first retry. */
static void pending_failed(struct nat_coordinator *c, struct nat_now now,
                           struct nat_session *session)
{
    if (session->strategy == NAT_DIRECT && session->max_attempts > 0 &&
        nat_strategy_after_direct(c->config.rules, session->profiles[NAT_INITIATOR],
                                  session->profiles[NAT_TARGET]) == NAT_HOLE_PUNCH)
        retry(c, now, session);
    else
        nat_session_end(c, now, session, NAT_FAILED, NAT_RESULT_UNREACHABLE);
}

void nat_machine_timer(struct nat_coordinator *c, struct nat_now now, struct nat_session *session,
                       uint64_t deadline)
{
    if (session->state == NAT_COORDINATING) {
        nat_heap_remove(&c->timers[NAT_TIMER_PUNCH], session);
        nat_session_set_state(c, session, NAT_EXECUTING);
        nat_heap_push(&c->timers[NAT_TIMER_RESULT], deadline + session->timeout_ms, session);
        nat_queue_notify(c, session);
        return;
    }
    /* Whoever has not reported on this attempt has missed it: what comes now is about the next. */
    for (int i = 0; i < NAT_REPORTERS; i++)
        session->failures[i] = session->attempts + 1;
    attempt_failed(c, now, session, NAT_RESULT_TIMEOUT);
}

static bool is_peer(const struct nat_session *session, enum nat_role role, struct nat_bytes id)
{
    const struct nat_peer *peer = session->peers[role];

    return id.data && id.len == peer->hh.keylen && memcmp(id.data, peer->id, id.len) == 0;
}

static int reporter_of(const struct nat_session *session, struct nat_bytes id)
{
    if (is_peer(session, NAT_INITIATOR, id))
        return NAT_INITIATOR;
    return is_peer(session, NAT_TARGET, id) ? NAT_TARGET : NAT_REPORTER_THIRD;
}

static void failure_reported(struct nat_coordinator *c, struct nat_now now,
                             struct nat_session *session, int reporter)
{
    /* A reporter's (n+1)-th report is about attempt n. */
    if (session->failures[reporter]++ < session->attempts) {
        c->counters.reports_repeated++;
        return;
    }
    c->counters.reports++;
    if (session->state == NAT_PENDING)
        pending_failed(c, now, session);
    else
        attempt_failed(c, now, session, NAT_RESULT_UNREACHABLE);
}

int nat_report(struct nat_coordinator *c, struct nat_now now, struct nat_bytes session_id,
               struct nat_bytes reporter_id, enum nat_report report)
{
    struct nat_session *session;
    int error;

    if (report != NAT_REPORT_SUCCESS && report != NAT_REPORT_FAILURE) {
        c->counters.reports_bad++;
        return -EINVAL;
    }
    session = nat_session_lookup(c, session_id);
    if (!session) {
        c->counters.reports_unknown++;
        return -ENOENT;
    }
    if (!nat_session_is_live(session)) {
        c->counters.reports_ended++;
        return -ESTALE;
    }
    error = nat_session_prepare(c, session);
    if (error == 0 && report == NAT_REPORT_FAILURE)
        error = nat_session_let_punch(c, session);
    if (error < 0)
        return error;
    if (report == NAT_REPORT_FAILURE) {
        failure_reported(c, now, session, reporter_of(session, reporter_id));
        return 0;
    }
    c->counters.reports++;
    nat_session_end(c, now, session, NAT_COMPLETED, NAT_RESULT_SUCCESS);
    return 0;
}
