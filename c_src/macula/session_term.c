/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/session_term.h"

#include "macula/profile_term.h"
#include "term/term_write.h"

const char *strategy_name(enum nat_strategy strategy)
{
    static const char *const names[] = {
        [NAT_DIRECT] = "direct", [NAT_HOLE_PUNCH] = "hole_punch", [NAT_RELAY] = "relay"};

    return names[strategy];
}

static const char *state_name(enum nat_state state)
{
    static const char *const names[] = {
        [NAT_PENDING] = "pending",     [NAT_COORDINATING] = "coordinating",
        [NAT_EXECUTING] = "executing", [NAT_COMPLETED] = "completed",
        [NAT_FAILED] = "failed",
    };

    return names[state];
}

static const char *result_name(enum nat_result result)
{
    static const char *const names[] = {
        [NAT_RESULT_NONE] = "undefined",
        [NAT_RESULT_SUCCESS] = "success",
        [NAT_RESULT_TIMEOUT] = "timeout",
        [NAT_RESULT_UNREACHABLE] = "unreachable",
    };

    return names[result];
}

static void put_binary(struct buffer *b, const char *key, struct nat_bytes value)
{
    term_put_atom(b, key);
    term_put_binary(b, slice_of_nat(value));
}

static void put_atom(struct buffer *b, const char *key, const char *value)
{
    term_put_atom(b, key);
    term_put_atom(b, value);
}

void session_put(struct buffer *b, const struct nat_session_view *s)
{
    bool ended = s->result != NAT_RESULT_NONE;

    term_put_map(b, ended ? 10 : 9);
    put_binary(b, "session_id", s->session_id);
    put_binary(b, "initiator_id", s->initiator_id);
    put_binary(b, "target_id", s->target_id);
    term_put_atom(b, "initiator_profile");
    profile_put(b, s->initiator_profile);
    term_put_atom(b, "target_profile");
    profile_put(b, s->target_profile);
    put_atom(b, "strategy", strategy_name(s->strategy));
    put_atom(b, "state", state_name(s->state));
    term_put_atom(b, "attempts");
    term_put_int(b, s->attempts);
    term_put_atom(b, "created_at");
    term_put_int(b, s->created_at);
    if (ended)
        put_atom(b, "result", result_name(s->result));
}

/* The documented keys; a retry that differs from the first attempt has more, which old peers
 * ignore. */
void coordinate_put(struct buffer *b, const struct nat_action *a)
{
    bool is_retry = a->attempt > 0;

    term_put_map(b, 6 + is_retry + (a->local_port != 0));
    put_binary(b, "session_id", a->session.session_id);
    put_binary(b, "peer_id", a->peer_id);
    put_binary(b, "peer_host", a->peer_host);
    term_put_atom(b, "peer_ports");
    term_put_list(b, (int)a->port_count);
    for (size_t i = 0; i < a->port_count; i++)
        term_put_int(b, a->peer_ports[i]);
    term_put_nil(b);
    term_put_atom(b, "punch_time");
    term_put_int(b, a->punch_time);
    put_atom(b, "role", a->role == NAT_INITIATOR ? "initiator" : "target");
    if (is_retry) {
        term_put_atom(b, "attempt");
        term_put_int(b, a->attempt);
    }
    if (a->local_port != 0) {
        term_put_atom(b, "local_port");
        term_put_int(b, a->local_port);
    }
}
