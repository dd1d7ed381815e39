/* SPDX-License-Identifier: Apache-2.0 */
#include "macula/delivery.h"

#include "base/log.h"
#include "macula/dht.h"
#include "macula/id_text.h"
#include "macula/profile_term.h"
#include "macula/session_term.h"
#include "otp/rpc_client.h"
#include "term/term_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define CONNECTORS_MAX 2 /* nodes that try to reach a peer, the caller's own first */

static const char connector_module[] = "macula_peer_connector";

/* The steps of a delivery, in this order. One that is not needed or not possible is left out; after
 * the last of them it has failed. */
enum step {
    STEP_FIND_HOST,     /* asks the DHT for the other peer's host, which its profile lacks */
    STEP_MAILBOX,       /* to the process that stands for the recipient */
    STEP_FIND_ENDPOINT, /* asks the DHT for the recipient's endpoint, which its profile lacks */
    STEP_CONNECT,       /* has a macula node connect to that endpoint */
    STEP_STORE,         /* leaves it in the DHT, where the recipient looks for it */
    STEP_FAIL,
};

struct delivery {
    struct deliveries *all;
    enum step step;
    struct ask *ask;          /* the question of this step */
    uint64_t started;         /* loop ms */
    struct nat_action action; /* its views point into `bytes` */
    struct nat_profile *recipient_profile;
    char host[NAT_HOST_MAX + 1]; /* of the other peer, where it came from the DHT */
    /* Of the recipient; empty: not known. What its profile says may be a URL: longer by as much. */
    char endpoint[NAT_ENDPOINT_MAX * 2];
    struct delivery *prev, *next;
    uint8_t bytes[];
};

/* --- what becomes of it --- */

/* For following a session through the log: never suppressed. */
static void trace(const struct nat_action *a, const char *result)
{
    char recipient[ID_TEXT_SIZE], session[ID_TEXT_SIZE];

    if (!log_writes(LOG_DEBUG))
        return;
    log_event(LOG_DEBUG, "delivery", NULL, "PUNCH_COORDINATE to %s: session %s: %s",
              id_text(recipient, a->recipient_id), id_text(session, a->session.session_id), result);
}

static void note_delay(struct deliveries *all, struct nat_bytes recipient, uint64_t ms)
{
    if (ms > all->counters.slowest_delivery_ms)
        all->counters.slowest_delivery_ms = ms;
    nat_peer_delay(all->nat, recipient, (uint32_t)ms);
}

static void note_failure(struct deliveries *all, const struct nat_action *action, const char *why)
{
    char id[ID_TEXT_SIZE];

    all->counters.undelivered++;
    id_text(id, action->recipient_id);
    /* One line a second for all peers: where there is no way to one there is often none to any. */
    log_event_about(LOG_WARNING, "delivery", all->mailboxes->node->name, id,
                    "PUNCH_COORDINATE could not be delivered to %s: %s", id, why);
    trace(action, "could not be delivered");
}

static void delivery_free(struct delivery *d)
{
    DL_DELETE(d->all->under_way, d);
    d->all->count--;
    nat_profile_unref(d->recipient_profile);
    free(d);
}

/* --- the mailbox --- */

static bool send_to_mailbox(struct deliveries *all, const struct nat_action *action)
{
    const struct pid *pid = mailbox_find(all->mailboxes, slice_of_nat(action->recipient_id));
    struct connection *via;
    struct buffer *b = pid ? connection_open_send(all->mailboxes->node, pid, &via) : NULL;
    struct nat_action told = *action;
    int64_t ahead_ms;
    uint32_t delay_ms;

    if (!b)
        return false;
    bool known = clocks_get(all->clocks, pid->node, &ahead_ms, &delay_ms);
    told.punch_time += ahead_ms; /* the same instant, in the peer's clock */
    term_put_tuple(b, 2);
    term_put_atom(b, "punch_coordinate");
    coordinate_put(b, &told);
    connection_close_frame(via);
    all->counters.delivered_to_mailboxes++;
    trace(action, "to its mailbox");
    clocks_measure(all->clocks, pid->node);
    if (known)
        note_delay(all, action->recipient_id, delay_ms);
    return true;
}

/* --- addresses --- */

/* As the profile has it, but for an IPv6 address: its brackets would be taken as part of it. */
static bool set_endpoint(struct delivery *d, struct nat_bytes endpoint)
{
    struct nat_bytes host;
    uint16_t port;

    if (nat_endpoint_split(endpoint, &host, &port) == 0 && port > 0 &&
        memchr(host.data, ':', host.len))
        return nat_endpoint_format(d->endpoint, sizeof d->endpoint, host, port) > 0;
    if (endpoint.len == 0 || endpoint.len >= sizeof d->endpoint ||
        memchr(endpoint.data, '\0', endpoint.len))
        return false;
    memcpy(d->endpoint, endpoint.data, endpoint.len);
    d->endpoint[endpoint.len] = '\0';
    return true;
}

/* What the recipient's profile says of where to reach it: its endpoint, else its reflexive address.
 */
static void read_profile_endpoint(struct delivery *d)
{
    struct nat_profile_fields fields;

    if (!d->recipient_profile)
        return;
    nat_profile_get(d->recipient_profile, &fields);
    if (set_endpoint(d, fields.endpoint) || fields.reflexive_ip.len == 0 ||
        fields.reflexive_port == 0)
        return;
    if (nat_endpoint_format(d->endpoint, sizeof d->endpoint, fields.reflexive_ip,
                            (uint16_t)fields.reflexive_port) < 0)
        d->endpoint[0] = '\0';
}

/* Of an answer of the DHT: the first value with a usable <<"host">>, and <<"port">> or 0. */
static bool read_address(struct slice answer, struct nat_bytes *host, uint16_t *port)
{
    struct dht_values values = {.left = 0};
    struct slice map, text;
    struct cursor value;
    uint16_t ignored;
    int64_t number;

    while (dht_next_value(answer, &values, &map)) {
        if (!dht_map_get(map, "host", &value) || !cursor_binary(&value, &text) ||
            nat_endpoint_split(nat_bytes_of(text), host, &ignored) != 0)
            continue;
        *port = dht_map_get(map, "port", &value) && cursor_int(&value, &number) && number > 0 &&
                        number <= UINT16_MAX
                    ? (uint16_t)number
                    : 0;
        return true;
    }
    return false;
}

static void read_found_host(struct delivery *d, struct slice answer)
{
    struct nat_bytes host;
    uint16_t port;

    if (!read_address(answer, &host, &port) || host.len >= sizeof d->host)
        return;
    memcpy(d->host, host.data, host.len);
    d->action.peer_host = (struct nat_bytes){d->host, host.len};
}

static void read_found_endpoint(struct delivery *d, struct slice answer)
{
    struct nat_bytes host;
    uint16_t port;

    if (!read_address(answer, &host, &port) || port == 0 ||
        nat_endpoint_format(d->endpoint, sizeof d->endpoint, host, port) < 0)
        d->endpoint[0] = '\0';
}

/* --- questions to macula nodes --- */

static int build_find(struct buffer *b, struct nat_bytes id)
{
    uint8_t key[DHT_KEY_SIZE];

    int error = dht_key(key, "peer.endpoint.", slice_of_nat(id), (struct slice){0});
    if (error)
        return error;
    dht_put_find(b, key);
    return 0;
}

static int build_find_host(void *ctx, struct buffer *b)
{
    return build_find(b, ((struct delivery *)ctx)->action.peer_id);
}

static int build_find_endpoint(void *ctx, struct buffer *b)
{
    return build_find(b, ((struct delivery *)ctx)->action.recipient_id);
}

static int build_connect(void *ctx, struct buffer *b)
{
    struct delivery *d = ctx;

    rpc_open_request(b, connector_module, "send_message", 3);
    term_put_binary(b, slice_of(d->endpoint));
    term_put_atom(b, "punch_coordinate");
    coordinate_put(b, &d->action);
    rpc_close_request(b);
    return 0;
}

static enum ask_verdict judge_connect(struct slice answer)
{
    struct cursor c = cursor_of(answer);

    if (cursor_is_atom(&c, "ok"))
        return ASK_ACCEPT;
    return rpc_is_undefined(answer, connector_module) ? ASK_MISSING : ASK_NEXT;
}

static int build_store(void *ctx, struct buffer *b)
{
    struct delivery *d = ctx;
    uint8_t key[DHT_KEY_SIZE];
    struct term_map map;

    int error = dht_key(key, "punch.coord.", slice_of_nat(d->action.recipient_id),
                        slice_of_nat(d->action.session.session_id));
    if (error)
        return error;
    term_put_tuple(b, 3);
    term_put_atom(b, "store");
    term_put_binary(b, (struct slice){key, sizeof key});
    term_open_map(&map, b);
    term_put_key(&map, "type");
    term_put_atom(b, "punch_coordinate");
    term_put_key(&map, "payload");
    coordinate_put(b, &d->action);
    term_close_map(&map);
    return 0;
}

static void on_answer(void *ctx, bool answered, struct slice answer);

/* By step, those that ask somebody. */
static const struct ask_kind questions[] = {
    [STEP_FIND_HOST] = {SERVICE_ROUTING, SERVICES_MAX_TRIES, build_find_host, dht_judge, on_answer},
    [STEP_FIND_ENDPOINT] = {SERVICE_ROUTING, SERVICES_MAX_TRIES, build_find_endpoint, dht_judge,
                            on_answer},
    [STEP_CONNECT] = {SERVICE_CONNECTOR, CONNECTORS_MAX, build_connect, judge_connect, on_answer},
    [STEP_STORE] = {SERVICE_ROUTING, SERVICES_MAX_TRIES, build_store, dht_judge, on_answer},
};

/* False if there is nobody to ask. */
static bool ask(struct delivery *d, enum step step)
{
    struct deliveries *all = d->all;
    uint64_t limit_ms = step == STEP_CONNECT ? DELIVERY_CONNECTOR_LIMIT : DELIVERY_DHT_LIMIT;

    d->step = step;
    d->ask = ask_start(all->services, all->calls, &questions[step], d->action.origin, limit_ms, d);
    return d->ask;
}

/* --- the steps --- */

static bool can_search(const struct deliveries *all)
{
    return !all->reads_no_dht && services_count(all->services, SERVICE_ROUTING) > 0;
}

/* Goes on with this step, up to one that has to wait for an answer, or to the end. */
static void advance(struct delivery *d, enum step step)
{
    switch (step) {
    case STEP_FIND_HOST:
        if (d->action.peer_host.len == 0 && can_search(d->all) && ask(d, STEP_FIND_HOST))
            return;
        /* fall through */
    case STEP_MAILBOX:
        if (send_to_mailbox(d->all, &d->action)) {
            delivery_free(d);
            return;
        }
        /* fall through */
    case STEP_FIND_ENDPOINT:
        read_profile_endpoint(d);
        if (d->endpoint[0] == '\0' && can_search(d->all) && ask(d, STEP_FIND_ENDPOINT))
            return;
        /* fall through */
    case STEP_CONNECT:
        if (d->endpoint[0] != '\0' && ask(d, STEP_CONNECT))
            return;
        /* fall through */
    case STEP_STORE:
        if (ask(d, STEP_STORE))
            return;
        /* fall through */
    case STEP_FAIL:
        note_failure(d->all, &d->action, "no mailbox, no connection, no DHT");
        delivery_free(d);
    }
}

static void finish(struct delivery *d, uint64_t *counter, const char *way)
{
    (*counter)++;
    trace(&d->action, way);
    delivery_free(d);
}

/* The question of the current step has its answer, or will get none. */
static void on_answer(void *ctx, bool answered, struct slice answer)
{
    struct delivery *d = ctx;
    struct deliveries *all = d->all;

    d->ask = NULL;
    switch (answered ? d->step : STEP_FAIL) {
    case STEP_FIND_HOST:
        read_found_host(d, answer);
        break;
    case STEP_FIND_ENDPOINT:
        read_found_endpoint(d, answer);
        break;
    case STEP_CONNECT:
        note_delay(all, d->action.recipient_id, uv_now(all->services->node->loop) - d->started);
        finish(d, &all->counters.delivered_by_connectors, "by a macula node");
        return;
    case STEP_STORE:
        finish(d, &all->counters.delivered_to_dht, "to the DHT");
        return;
    case STEP_MAILBOX:
    case STEP_FAIL:
        break;
    }
    advance(d, d->step + 1);
}

/* --- the start --- */

static struct nat_bytes keep(uint8_t **to, struct nat_bytes from)
{
    struct nat_bytes kept = {*to, from.len};

    if (from.len)
        memcpy(*to, from.data, from.len);
    *to += from.len;
    return kept;
}

static struct delivery *delivery_new(struct deliveries *all, const struct nat_action *a)
{
    size_t size =
        a->session.session_id.len + a->recipient_id.len + a->peer_id.len + a->peer_host.len;
    struct delivery *d = calloc(1, sizeof *d + size);

    if (!d)
        return NULL;
    uint8_t *to = d->bytes;
    d->all = all;
    d->started = uv_now(all->services->node->loop);
    d->action = *a;
    d->action.session = (struct nat_session_view){.session_id = keep(&to, a->session.session_id)};
    d->action.recipient_id = keep(&to, a->recipient_id);
    d->action.peer_id = keep(&to, a->peer_id);
    d->action.peer_host = keep(&to, a->peer_host);
    d->action.recipient_profile = NULL;
    d->recipient_profile = nat_profile_ref(a->recipient_profile);
    DL_APPEND(all->under_way, d);
    all->count++;
    return d;
}

void delivery_start(struct deliveries *all, const struct nat_action *action)
{
    bool searches = action->peer_host.len == 0 && can_search(all);

    /* The usual case: nothing needs to be kept. */
    if (!searches && send_to_mailbox(all, action))
        return;
    /* Without a macula node there is nobody to ask. */
    bool has_service = services_count(all->services, SERVICE_ROUTING) > 0 ||
                       services_count(all->services, SERVICE_CONNECTOR) > 0;
    bool is_one_too_many = all->count >= DELIVERIES_MAX;
    struct delivery *d = has_service && !is_one_too_many ? delivery_new(all, action) : NULL;
    if (!d) {
        note_failure(all, action,
                     is_one_too_many ? "too many deliveries under way"
                     : has_service   ? "no memory"
                                     : "no mailbox, no connection, no DHT");
        return;
    }
    advance(d, searches ? STEP_FIND_HOST : STEP_FIND_ENDPOINT);
}

void deliveries_init(struct deliveries *all, struct services *services, struct calls *calls,
                     struct mailboxes *mailboxes, struct clocks *clocks,
                     struct nat_coordinator *nat)
{
    *all = (struct deliveries){
        .services = services,
        .calls = calls,
        .mailboxes = mailboxes,
        .clocks = clocks,
        .nat = nat,
    };
}

void deliveries_free(struct deliveries *all)
{
    while (all->under_way) {
        if (all->under_way->ask)
            ask_cancel(all->under_way->ask);
        delivery_free(all->under_way);
    }
}
