/* SPDX-License-Identifier: Apache-2.0 */
/* Services, lookups and deliveries on connections without a socket: their output is never taken. */
#include "fake_node.h"
#include "suites.h"

#include "distribution/watch.h"
#include "macula/delivery.h"
#include "macula/lookup.h"
#include "term/term_write.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define NODES  3
#define PROBES (2 * SERVICE_KINDS) /* monitors on a new node: a service, its fence, and so on */

static struct node *node;
static struct fake_peer peers[NODES];
static struct connection *connections[NODES]; /* of these */
static struct profile_cache embedded;
static struct calls calls;
static struct services services;
static struct lookup lookup;
static size_t found, unknown;

static void on_changed(void *ctx)
{
    (void)ctx;
    lookup_note_services(&lookup);
}

static void on_done(struct lookup_waiter *waiter, struct nat_profile *profile)
{
    (void)waiter;
    found += profile != NULL;
    unknown += profile == NULL;
}

static void set_up(void)
{
    found = unknown = 0;
    node = fake_node_start();
    embedded = (struct profile_cache){.server.process.node = node};
    ck_assert_int_eq(calls_start(&calls, node), 0);
    services_init(&services, &calls.process, NULL, 0);
    services.changed = on_changed;
    lookup_init(&lookup, &services, &calls, &embedded, 60000, 1);
    for (int i = 0; i < NODES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d@host", i);
        fake_peer_connect(&peers[i], name);
        connections[i] = peers[i].c;
    }
    fake_log_take();
}

static void tear_down(void)
{
    lookup_free(&lookup);
    services_free(&services);
    for (int i = 0; i < NODES; i++) {
        ck_assert_ptr_null(connections[i]->watches);
        fake_peer_close(&peers[i]);
    }
    calls_stop(&calls);
    fake_node_stop();
}

static void put_number(struct buffer *b, uint64_t number)
{
    term_put_reference(b, node->name_slice, node->creation, number);
}

/* The DOWN for the nth of our monitors on a node. */
static void answer_monitor(struct connection *c, int n)
{
    struct watch *watch = c->watches;
    struct buffer reference;

    for (int i = 0; i < n; i++)
        watch = watch->next;
    buffer_init(&reference);
    put_number(&reference, watch->number);
    struct control control = {.reference = buffer_slice(&reference),
                              .reason = slice_of("w\6noproc")};
    watch_handle_exit(c, &control);
    buffer_free(&reference);
}

/* A node that has macula_nat_cache and nothing else. */
static void bring_up_with_cache(struct connection *c)
{
    services_node_up(&services, c);
    answer_monitor(c, 1);
    for (int i = 0; i < PROBES - 2; i++)
        answer_monitor(c, 1);
}

static struct slice id_of(uint32_t *number)
{
    return (struct slice){(const uint8_t *)number, sizeof *number};
}

/* True: the answer is known at once, and it is that nobody has the profile. */
static bool is_unknown_at_once(uint32_t number, struct lookup_waiter *waiter)
{
    struct nat_profile *profile = NULL;

    waiter->done = on_done;
    bool is_known = lookup_profile(&lookup, id_of(&number), 0, &profile, waiter);
    ck_assert_ptr_null(profile);
    return is_known;
}

START_TEST(nobody_waits_for_nodes_that_come_later)
{
    struct lookup_waiter waiters[2];

    services_node_up(&services, connections[0]);
    ck_assert(!is_unknown_at_once(1, &waiters[0]));
    services_node_up(&services, connections[1]);
    ck_assert(!is_unknown_at_once(2, &waiters[1]));
    for (int i = 0; i < PROBES - 2; i++)
        answer_monitor(connections[0], 0);
    ck_assert_uint_eq(unknown, 0);
    answer_monitor(connections[0], 0); /* the last service; the last fence tells no more */
    ck_assert_uint_eq(unknown, 1);
    /* The end of the other one is an answer too. */
    services_node_down(&services, connections[1]);
    ck_assert_uint_eq(unknown, 2);
    ck_assert_uint_eq(lookup_in_flight(&lookup), 0);
}
END_TEST

/* The loop ends only if nothing is left to wait for. */
START_TEST(a_node_that_never_answers_is_waited_for_a_while)
{
    struct lookup_waiter waiter;

    services_node_up(&services, connections[0]);
    ck_assert(!is_unknown_at_once(1, &waiter));
    uv_run(&fake_loop, UV_RUN_DEFAULT);
    ck_assert_uint_eq(unknown, 1);
    ck_assert(is_unknown_at_once(2, &waiter));
}
END_TEST

START_TEST(lookups_under_way_have_a_limit)
{
    struct lookup_waiter *waiters = calloc(LOOKUP_MAX_FLIGHTS + 1, sizeof *waiters);
    struct lookup_waiter second;

    services_node_up(&services, connections[0]);
    for (uint32_t i = 0; i < LOOKUP_MAX_FLIGHTS; i++)
        ck_assert(!is_unknown_at_once(i, &waiters[i]));
    ck_assert(is_unknown_at_once(LOOKUP_MAX_FLIGHTS, &waiters[LOOKUP_MAX_FLIGHTS]));
    ck_assert_uint_eq(lookup.counters.overloaded, 1);
    ck_assert(!is_unknown_at_once(0, &second));
    ck_assert_uint_eq(lookup_in_flight(&lookup), LOOKUP_MAX_FLIGHTS);
    for (int i = 0; i < PROBES; i++)
        answer_monitor(connections[0], 0);
    ck_assert_uint_eq(unknown, LOOKUP_MAX_FLIGHTS + 1);
    ck_assert_uint_eq(lookup_in_flight(&lookup), 0);
    free(waiters);
}
END_TEST

/* {Reference, {ok, #{node_id => Id}, fresh}} to our newest call on a node. */
static void answer_call(struct connection *c, struct slice id)
{
    struct buffer b;

    buffer_init(&b);
    term_put_tuple(&b, 2);
    put_number(&b, c->watches->prev->number);
    term_put_tuple(&b, 3);
    term_put_atom(&b, "ok");
    term_put_map(&b, 1);
    term_put_atom(&b, "node_id");
    term_put_binary(&b, id);
    term_put_atom(&b, "fresh");
    calls.process.behaviour->receive(&calls.process, c, buffer_slice(&b));
    buffer_free(&b);
}

START_TEST(copies_are_dropped_when_their_time_is_over)
{
    struct lookup_waiter waiter;
    uint32_t number = 1;

    bring_up_with_cache(connections[0]);
    ck_assert(!is_unknown_at_once(number, &waiter));
    answer_call(connections[0], id_of(&number));
    ck_assert_uint_eq(found, 1);
    ck_assert_uint_gt(lookup.cached_bytes, 0);
    for (uint64_t start = uv_now(&fake_loop); uv_now(&fake_loop) == start;)
        uv_update_time(&fake_loop);
    lookup_drop_expired(&lookup);
    ck_assert_uint_eq(lookup.cached_bytes, 0);
    ck_assert_ptr_null(lookup.cached);
}
END_TEST

static struct connection *chosen(uint32_t caller)
{
    struct service_tries tries = {.count = 0};

    return services_choose(&services, SERVICE_CACHE, caller, &tries);
}

START_TEST(busy_nodes_are_passed_over)
{
    static const uint8_t output[4096];
    uint32_t second = services_origin(connections[1]);
    struct lookup_waiter waiter;

    bring_up_with_cache(connections[0]);
    for (int i = 0; i < SERVICES_MAX_CALLS; i++) {
        ck_assert_ptr_eq(chosen(second), connections[0]);
        services_note_call(&services, connections[0]);
    }
    ck_assert_ptr_null(chosen(second));
    ck_assert(!is_unknown_at_once(1, &waiter) && unknown == 1 && lookup.counters.overloaded == 1);
    bring_up_with_cache(connections[1]);
    ck_assert_ptr_eq(chosen(second), connections[1]);
    services_note_call_end(&services, connections[0]);
    ck_assert_ptr_eq(chosen(12345), connections[0]);
    ck_assert_ptr_eq(chosen(second), connections[1]);
    while (connection_pending(connections[1]) <= SERVICES_MAX_OUTPUT)
        buffer_append(&connections[1]->out, output, sizeof output);
    ck_assert_ptr_eq(chosen(second), connections[0]);
}
END_TEST

START_TEST(a_node_without_the_module_does_not_count)
{
    struct service_tries tries = {.count = 0};

    services_node_up(&services, connections[0]);
    for (int i = 0; i < SERVICE_KINDS; i++)
        answer_monitor(connections[0], i + 1); /* all fences: it has all services */
    ck_assert_uint_eq(services_count(&services, SERVICE_CONNECTOR), 1);
    services_note_missing(&services, connections[0], SERVICE_CONNECTOR);
    services_note_missing(&services, connections[0], SERVICE_CONNECTOR);
    services_note_missing(&services, connections[1], SERVICE_CONNECTOR);
    ck_assert_uint_eq(services_count(&services, SERVICE_CONNECTOR), 0);
    ck_assert_ptr_null(services_choose(&services, SERVICE_CONNECTOR, 0, &tries));
    ck_assert_uint_eq(services_count(&services, SERVICE_ROUTING), 1);
    services_node_down(&services, connections[0]);
    ck_assert_uint_eq(services_count(&services, SERVICE_ROUTING), 0);
}
END_TEST

static void check_logged(const char *text)
{
    const char *lines = fake_log_take();

    ck_assert_msg(strstr(lines, text) != NULL, "%s", lines);
}

START_TEST(deliveries_under_way_have_a_limit)
{
    struct mailboxes mailboxes;
    struct deliveries all;
    const struct nat_action action = {.type = NAT_COORDINATE, .recipient_id = {"peer", 4}};

    mailboxes_init(&mailboxes, &calls.process);
    deliveries_init(&all, &services, &calls, &mailboxes, NULL, NULL);
    services_node_up(&services, connections[0]);
    answer_monitor(connections[0], PROBES - 1); /* rex */
    all.count = DELIVERIES_MAX - 1;
    delivery_start(&all, &action);
    ck_assert_uint_eq(all.count, DELIVERIES_MAX - 1); /* it had nowhere to go */
    check_logged(
        "PUNCH_COORDINATE could not be delivered to peer: no mailbox, no connection, no DHT");
    all.count = DELIVERIES_MAX;
    delivery_start(&all, &action);
    ck_assert_uint_eq(all.counters.undelivered, 2);
    ck_assert_ptr_null(all.under_way);
}
END_TEST

Suite *suite_lookup(void);
Suite *suite_lookup(void)
{
    Suite *s = suite_create("lookup");
    TCase *tc = tcase_create("all");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, nobody_waits_for_nodes_that_come_later);
    tcase_add_test(tc, a_node_that_never_answers_is_waited_for_a_while);
    tcase_add_test(tc, lookups_under_way_have_a_limit);
    tcase_add_test(tc, copies_are_dropped_when_their_time_is_over);
    tcase_add_test(tc, busy_nodes_are_passed_over);
    tcase_add_test(tc, a_node_without_the_module_does_not_count);
    tcase_add_test(tc, deliveries_under_way_have_a_limit);
    suite_add_tcase(s, tc);
    return s;
}
