/* SPDX-License-Identifier: Apache-2.0 */
/* What sys:get_state and sys:get_status show to a person: options, sessions, what is waited for,
 * counts. */
#include "macula/coordinator.h"
#include "term/term_write.h"

struct entry {
    const char *key;
    uint64_t value;
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void put_map(struct buffer *b, const char *key, const struct entry *entries, size_t count)
{
    term_put_atom(b, key);
    term_put_map(b, (int)count);
    for (size_t i = 0; i < count; i++) {
        term_put_atom(b, entries[i].key);
        term_put_int(b, (int64_t)entries[i].value);
    }
}

static void put_options(struct coordinator *co, struct buffer *b)
{
    const struct coordinator_options *o = &co->options;
    const struct entry numbers[] = {
        {"punch_timeout_ms", o->nat.punch_timeout_ms},
        {"max_punch_attempts", o->nat.max_punch_attempts},
        {"coordination_delay_ms", o->nat.coordination_delay_ms},
        {"lookup_timeout_ms", o->lookup_timeout_ms},
        {"profile_cache_ttl_ms", o->profile_cache_ttl_ms},
        {"session_ttl_s", o->nat.session_ttl_s},
        {"max_sessions", o->nat.max_sessions},
    };

    put_map(b, "options", numbers, COUNT(numbers));
    term_put_atom(b, "strategy_rules");
    term_put_atom(b, nat_rules_name(o->nat.rules));
    term_put_atom(b, "compatibility");
    term_put_atom(b, o->is_compatible ? COORDINATOR_COMPATIBLE : "none");
}

static void put_sessions(struct coordinator *co, struct buffer *b)
{
    const struct nat_counters *n = nat_counters(co->nat);
    const struct entry sessions[] = {
        {"pending", n->live[NAT_PENDING]},
        {"coordinating", n->live[NAT_COORDINATING]},
        {"executing", n->live[NAT_EXECUTING]},
        {"ended", n->ended},
    };

    put_map(b, "sessions", sessions, COUNT(sessions));
}

static void put_counters(struct coordinator *co, struct buffer *b)
{
    const struct nat_counters *n = nat_counters(co->nat);
    const struct coordinator_counters *c = &co->counters;
    const struct deliveries *d = &co->deliveries;
    const struct entry counters[] = {
        {"requests", c->requests},
        {"direct", n->answers[NAT_DIRECT]},
        {"hole_punch", n->answers[NAT_HOLE_PUNCH]},
        {"relay", n->answers[NAT_RELAY]},
        {"joined", n->joins},
        {"relay_refused", n->relay_refused},
        {"overloaded", n->overloaded + c->overloaded},
        {"bad_arguments", c->bad_arguments},
        {"foreign_mailboxes", c->foreign_mailboxes},
        {"unknown_requests", c->unknown_requests},
        {"ignored_messages", c->ignored_messages},
        {"coordinated", n->coordinates_made},
        {"coordination_restarted", n->coordinates_restarted},
        {"coordinate_ignored", n->coordinates_bad + n->coordinates_ended + n->coordinates_foreign +
                                   n->coordinates_overloaded},
        {"delivered_to_mailboxes", d->to_mailboxes},
        {"delivered_by_connectors", d->to_connectors},
        {"delivered_to_dht", d->to_dht},
        {"undelivered", d->failed},
        {"slowest_delivery_ms", d->slowest_ms},
        {"leads_extended", n->leads_extended},
        {"reports", n->reports},
        {"reports_repeated", n->reports_repeated},
        {"reports_ended", n->reports_ended},
        {"reports_unknown", n->reports_unknown},
        {"reports_bad", n->reports_bad},
        {"retries", n->retries},
        {"completed", n->completed},
        {"failed_timeout", n->failed_timeout},
        {"failed_unreachable", n->failed_unreachable},
        {"evicted", n->evicted},
        {"swept_ended", n->swept_ended},
        {"swept_expired", n->swept_expired},
        {"notified", co->notifier.sent},
        {"notifications_dropped", co->notifier.dropped},
        {"watchers_refused", n->watchers_refused},
        {"get_pending_left_out", c->pending_left_out},
        {"cache_puts_refused", co->cache->refused},
        {"profile_bytes", n->profile_bytes},
        {"id_bytes", n->id_bytes},
    };

    put_map(b, "counters", counters, COUNT(counters));
}

static void put_network(struct coordinator *co, struct buffer *b)
{
    const struct node_counters *n = &co->node->counters;
    const struct entry counters[] = {
        {"connections", HASH_COUNT(co->node->by_name)},
        {"frames_in", n->frames_in},
        {"frames_out", n->frames_out},
        {"frames_malformed", n->frames_malformed},
        {"frames_too_large", n->frames_too_large},
        {"control_unknown", n->control_unknown},
        {"control_foreign", n->control_foreign},
        {"messages_to_nobody", n->messages_to_nobody},
        {"messages_undeliverable", n->messages_undeliverable},
        {"handshakes_late", n->handshakes_late},
        {"handshakes_dropped", n->handshakes_dropped},
        {"cookies_refused", n->cookies_refused},
        {"frames_late", n->frames_late},
        {"input_limit", n->input_limit},
        {"output_limit", n->output_limit},
        {"no_memory", n->no_memory},
        {"output_dropped", n->output_dropped},
        {"monitors_limit", n->monitors_limit},
        {"spawns", n->spawns},
    };

    put_map(b, "network", counters, COUNT(counters));
}

static void put_waiting(struct coordinator *co, struct buffer *b)
{
    const struct nat_counters *n = nat_counters(co->nat);
    const struct entry waiting[] = {
        {"punch_time", n->live[NAT_COORDINATING]},  {"results", n->live[NAT_EXECUTING]},
        {"lookups", lookup_in_flight(&co->lookup)}, {"requests", co->waiting_count},
        {"deliveries", co->deliveries.count},       {"calls", co->calls.in_flight},
        {"notifications", co->notifier.count},
    };

    put_map(b, "waiting_for", waiting, COUNT(waiting));
}

static void put_services(struct coordinator *co, struct buffer *b)
{
    const struct entry counts[] = {
        {"macula_nat_cache", services_count(&co->services, SERVICE_CACHE)},
        {"macula_routing_server", services_count(&co->services, SERVICE_ROUTING)},
        {"macula_peer_connector", services_count(&co->services, SERVICE_CONNECTOR)},
        {"mailboxes", mailboxes_count(&co->mailboxes)},
    };

    put_map(b, "services", counts, COUNT(counts));
}

static void put_lookups(struct coordinator *co, struct buffer *b)
{
    const struct lookup *l = &co->lookup;
    const struct entry counters[] = {
        {"from_own_cache", l->from_cache}, {"from_macula_nat_cache", l->from_macula},
        {"from_dht", l->from_dht},         {"from_embedded_cache", l->from_embedded},
        {"unknown", l->unknown},           {"overloaded", l->overloaded},
    };

    put_map(b, "lookups", counters, COUNT(counters));
}

/* Those that we make: for lookups, deliveries and clocks. */
static void put_calls(struct coordinator *co, struct buffer *b)
{
    const struct calls *c = &co->calls;
    const struct entry counters[] = {
        {"made", c->made},           {"answered", c->answered},     {"failed", c->failed},
        {"timed_out", c->timed_out}, {"answers_too_late", c->late},
    };

    put_map(b, "calls", counters, COUNT(counters));
}

void status_put(struct coordinator *co, struct buffer *b)
{
    term_put_map(b, 11);
    put_services(co, b);
    term_put_atom(b, "clocks");
    clocks_put(&co->clocks, b);
    put_lookups(co, b);
    put_calls(co, b);
    put_options(co, b);
    put_sessions(co, b);
    put_waiting(co, b);
    put_counters(co, b);
    put_network(co, b);
}
