/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one list of unit test suites. A suite lives in test_NAME.c and defines suite_NAME(), which
 * answers a Suite *; adding a line here is all it takes to run it.
 */
#ifndef TEST_SUITES_H
#define TEST_SUITES_H

/*
 * How many of `rounds` a test should make here: all, or a part where programs run slowly
 * (TEST_SLOWDOWN=50 in the environment, as under valgrind).
 */
int test_rounds(int rounds);

/* clang-format off */
#define TEST_SUITES(X) \
    X(application) \
    X(buffer) \
    X(call) \
    X(caller) \
    X(connection) \
    X(control) \
    X(cookie) \
    X(coordinator) \
    X(counters) \
    X(cursor) \
    X(dht) \
    X(epmd) \
    X(gen_server) \
    X(handshake) \
    X(id_text) \
    X(input) \
    X(log) \
    X(lookup) \
    X(mailboxes) \
    X(nat_coordinator) \
    X(nat_heap) \
    X(nat_lab) \
    X(nat_profile) \
    X(nat_session) \
    X(nat_shortage) \
    X(nat_soak) \
    X(nat_strategy) \
    X(net_kernel) \
    X(notifier) \
    X(options) \
    X(process) \
    X(profile_term) \
    X(requests) \
    X(router) \
    X(rpc) \
    X(subscribers) \
    X(sys) \
    X(term_check) \
    X(term_write) \
    X(watch) \
    X(worker)
/* clang-format on */

#endif
