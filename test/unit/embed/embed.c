/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that uses the NAT library and nothing else:
 *     gcc -std=c11 -Iinclude -Ic_src -o embed test/unit/embed/embed.c c_src/nat/nat_*.c
 * It prints the strategy for two peers that nothing is known of, and both PUNCH_COORDINATE
 * messages.
 */
#include <macula_nat.h>

#include <stdio.h>

int main(void)
{
    struct nat_now now = {.monotonic_ms = 0, .unix_ms = 1700000000000};
    struct nat_request request = {.initiator_id = {"alice", 5}, .target_id = {"bob", 3}};
    struct nat_coordinator *coordinator;
    struct nat_session_view session;
    struct nat_action action;
    struct nat_config config;

    nat_config_init(&config);
    if (nat_coordinator_create(&coordinator, &config) < 0)
        return 1;
    nat_options_init(coordinator, &request.options);
    if (nat_request(coordinator, now, &request, &session) < 0)
        return 1;
    printf("strategy %d session %.*s\n", session.strategy, (int)session.session_id.len,
           (const char *)session.session_id.data);
    while (nat_next_action(coordinator, &action))
        if (action.type == NAT_COORDINATE)
            printf("to %.*s: port %u at %lld\n", (int)action.recipient_id.len,
                   (const char *)action.recipient_id.data, action.peer_ports[0],
                   (long long)action.punch_time);
    nat_coordinator_free(coordinator);
    return 0;
}
