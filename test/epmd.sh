# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# To be sourced: an EPMD of a run's own.

# Sets epmd_pid, ERL_EPMD_PORT and ERL_EPMD_ADDRESS. The EPMD is in the foreground, so that it can be ended by its id.
# The ports are not among those that the kernel gives to clients.
start_epmd() {
    local tries port
    for ((tries = 0; tries < 50; tries++)); do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
        ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "$port" 2>/dev/null &
        epmd_pid=$!
        for ((; tries < 50; tries++)); do
            kill -0 "$epmd_pid" 2>/dev/null || break
            if epmd -port "$port" -names >/dev/null 2>&1 && kill -0 "$epmd_pid" 2>/dev/null; then
                export ERL_EPMD_PORT=$port ERL_EPMD_ADDRESS=127.0.0.1
                return 0
            fi
            sleep 0.1
        done
    done
    return 1
}
