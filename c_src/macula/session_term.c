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

static void put_binary(struct term_map *map, const char *key, struct nat_bytes value)
{
    term_put_key(map, key);
    term_put_binary(map->out, slice_of_nat(value));
}

static void put_atom(struct term_map *map, const char *key, const char *value)
{
    term_put_key(map, key);
    term_put_atom(map->out, value);
}

static void put_int(struct term_map *map, const char *key, int64_t value)
{
    term_put_key(map, key);
    term_put_int(map->out, value);
}

static void put_profile(struct term_map *map, const char *key, const struct nat_profile *profile)
{
    term_put_key(map, key);
    profile_put(map->out, profile);
}

void session_put(struct buffer *b, const struct nat_session_view *s)
{
    struct term_map map;

    term_open_map(&map, b);
    put_binary(&map, "session_id", s->session_id);
    put_binary(&map, "initiator_id", s->initiator_id);
    put_binary(&map, "target_id", s->target_id);
    put_profile(&map, "initiator_profile", s->initiator_profile);
    put_profile(&map, "target_profile", s->target_profile);
    put_atom(&map, "strategy", strategy_name(s->strategy));
    put_atom(&map, "state", state_name(s->state));
    put_int(&map, "attempts", s->attempts);
    put_int(&map, "created_at", s->created_at);
    if (s->result != NAT_RESULT_NONE)
        put_atom(&map, "result", result_name(s->result));
    term_close_map(&map);
}

/* The documented keys; a retry that differs from the first attempt has more, which old peers
 * ignore. */
void coordinate_put(struct buffer *b, const struct nat_action *a)
{
    struct term_map map;

    term_open_map(&map, b);
    put_binary(&map, "session_id", a->session.session_id);
    put_binary(&map, "peer_id", a->peer_id);
    put_binary(&map, "peer_host", a->peer_host);
    term_put_key(&map, "peer_ports");
    term_put_list(b, (int)a->port_count);
    for (size_t i = 0; i < a->port_count; i++)
        term_put_int(b, a->peer_ports[i]);
    term_put_nil(b);
    put_int(&map, "punch_time", a->punch_time);
    put_atom(&map, "role", a->role == NAT_INITIATOR ? "initiator" : "target");
    if (a->attempt > 0)
        put_int(&map, "attempt", a->attempt);
    if (a->local_port != 0)
        put_int(&map, "local_port", a->local_port);
    term_close_map(&map);
}
