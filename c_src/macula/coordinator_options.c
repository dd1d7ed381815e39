/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/coordinator_options.h"

void coordinator_options_init(struct coordinator_options *options)
{
    *options = (struct coordinator_options){
        .lookup_timeout_ms = 2000,
        .profile_cache_ttl_ms = 2000,
    };
    nat_config_init(&options->nat);
}

static void put_number(struct term_map *map, const char *key, uint64_t value)
{
    term_put_key(map, key);
    term_put_int(map->out, (int64_t)value);
}

static void put_name(struct term_map *map, const char *key, const char *name)
{
    term_put_key(map, key);
    term_put_atom(map->out, name);
}

void coordinator_options_put(const struct coordinator_options *o, struct term_map *state)
{
    struct term_map map;

    term_put_key(state, "options");
    term_open_map(&map, state->out);
    put_number(&map, "punch_timeout_ms", o->nat.punch_timeout_ms);
    put_number(&map, "max_punch_attempts", o->nat.max_punch_attempts);
    put_number(&map, "coordination_delay_ms", o->nat.coordination_delay_ms);
    put_number(&map, "lookup_timeout_ms", o->lookup_timeout_ms);
    put_number(&map, "profile_cache_ttl_ms", o->profile_cache_ttl_ms);
    put_number(&map, "session_ttl_s", o->nat.session_ttl_s);
    put_number(&map, "max_sessions", o->nat.max_sessions);
    term_close_map(&map);
    put_name(state, "strategy_rules", nat_rules_name(o->nat.rules));
    put_name(state, "compatibility", o->is_compatible ? COORDINATOR_COMPATIBLE : "none");
}
