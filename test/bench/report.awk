# SPDX-License-Identifier: Apache-2.0
#
# The table of the benchmarks. Reads results.jsonl, takes the median of the rounds, sets this node beside what it is
# compared with, and what is wanted beside what was reached. Variables: sessions, as in test/bench/run; figures, the
# file that gets the same as lines of JSON.

function field(line, key,    at, rest) {
    at = index(line, "\"" key "\":")
    if (!at)
        return ""
    rest = substr(line, at + length(key) + 3)
    sub(/^"/, "", rest)
    sub(/[",}].*/, "", rest)
    return rest
}

function median(bench, server, key,    name, n, i, j, t, v) {
    name = bench SUBSEP server SUBSEP key
    n = count[name]
    if (!n)
        return ""
    for (i = 1; i <= n; i++)
        v[i] = value[name, i]
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j] < v[j - 1]; j--) {
            t = v[j]
            v[j] = v[j - 1]
            v[j - 1] = t
        }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}

function number(v) {
    if (v == "")
        return "–"
    if (v >= 1000 || v <= -1000)
        return sprintf("%.0f", v)
    return sprintf("%.3g", v)
}

# Some awks count bytes, some characters: here the bytes that continue a character are left out.
function pad(text, width,    bare, n) {
    bare = text
    n = length("–") == 1 ? length(bare) : length(bare) - gsub(/[\200-\277]/, "", bare)
    while (n++ < width)
        text = text " "
    return text
}

function ratio(a, b) {
    return a == "" || b == "" || b == 0 ? "–" : sprintf("%.2f×", a / b)
}

function json(v) {
    return v == "" ? "null" : v
}

# One line of the table. `sense` is 1 if more is better, -1 if less is; `goal` is "" where nothing is wanted.
function row(title, ei, erlang, limit, node, sense, goal, wanted,    verdict, reached, share) {
    if (node == "")
        return
    # Nothing at all was answered in the time of a measurement.
    if (erlang == 0)
        erlang = ""
    verdict = share = ""
    reached = "null"
    if (goal != "") {
        reached = sense * (node - goal) >= 0 ? "true" : "false"
        missed += reached == "false"
        share = node / goal
        verdict = sprintf("%s: %.2f × what is wanted", reached == "true" ? "reached" : "not reached", share)
    }
    printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", pad(title, 56), pad(number(ei), 9), \
        pad(number(erlang), 9), pad(number(limit), 9), pad(number(node), 9), pad(ratio(node, ei), 8), \
        pad(ratio(node, erlang), 8), pad(ratio(node, limit), 10), pad(wanted, 22), verdict
    printf "{\"figure\":\"%s\",\"ei\":%s,\"erlang\":%s,\"limit\":%s,\"node\":%s,", title, json(ei), json(erlang), \
        json(limit), json(node) >figures
    printf "\"wanted\":%s,\"of_wanted\":%s,\"reached\":%s}\n", json(goal), json(share), reached >figures
}

# A row of one bench and key, for all servers.
function plain(title, bench, key, sense, goal, wanted) {
    row(title, median(bench, "ei", key), median(bench, "erlang", key), median(bench, "limit", key), \
        median(bench, "cnode", key), sense, goal, wanted)
}

# This node's figure by another server's.
function compared(title, bench, server, key, sense, goal, wanted,    node, other) {
    node = median(bench, "cnode", key)
    other = median(bench, server, key)
    row(title, "", "", "", node == "" || other == "" || other == 0 ? "" : node / other, sense, goal, wanted)
}

# `factor` times the figure, or "" where there is none.
function times(factor, v) {
    return v == "" ? "" : factor * v
}

function per_core(server,    cpu) {
    cpu = median("calls_256", server, "cpu_us")
    return cpu == "" || cpu == 0 ? "" : 1000000 / cpu
}

function percentiles(title, bench) {
    plain(title ", p50, µs", bench, "p50_us", -1, "", "")
    plain(title ", p99, µs", bench, "p99_us", -1, "", "")
    plain(title ", p99.9, µs", bench, "p999_us", -1, "", "")
}

{
    bench = field($0, "bench")
    server = field($0, "server")
    line = $0
    while (match(line, /"[a-z0-9_]+":-?[0-9][-+.0-9e]*/)) {
        pair = substr(line, RSTART + 1, RLENGTH - 1)
        line = substr(line, RSTART + RLENGTH)
        split(pair, part, "\":")
        name = bench SUBSEP server SUBSEP part[1]
        value[name, ++count[name]] = part[2] + 0
    }
}

END {
    printf "| %s | ei        | Erlang    | limit     | this node | node/ei  | node/Erl | node/limit | %s | reached? |\n", \
        pad("figure (median of the rounds)", 56), pad("wanted", 22)
    print "|---|---|---|---|---|---|---|---|---|---|"
    plain("request_connection/s, 256 in flight", "calls_256", "per_second", 1, 400000, "≥ 400,000")
    compared("… as multiple of the ei tutorial's", "calls_256", "ei", "per_second", 1, 2, "≥ 2")
    compared("… as multiple of Erlang's", "calls_256", "erlang", "per_second", 1, 25, "≥ 25")
    plain("server CPU per call, µs", "calls_256", "cpu_us", -1, 2, "≤ 2")
    row("calls per second that this allows on a whole core", per_core("ei"), per_core("erlang"), per_core("limit"), \
        per_core("cnode"), 1, "", "")
    plain("share of a core that the server used", "calls_256", "busy", 1, "", "")
    percentiles("256 in flight", "calls_256")
    plain("1 in flight, p50, µs", "calls_1", "p50_us", -1, times(1.05, median("calls_1", "limit", "p50_us")), \
        "≤ 1.05× the limit")
    plain("1 in flight, p99, µs", "calls_1", "p99_us", -1, "", "")
    plain("1 in flight, p99.9, µs", "calls_1", "p999_us", -1, "", "")
    plain("as gen_server:call (monitors)/s, 256 in flight", "calls_monitored", "per_second", 1, "", "")
    plain("as gen_server:call, server CPU per call, µs", "calls_monitored", "cpu_us", -1, "", "")
    plain("over 8 connections/s, 256 in flight on each", "calls_8_connections", "per_second", 1, "", "")
    compared("over 8 connections, calls/s by the limit's", "calls_8_connections", "limit", "per_second", 1, 0.5, "≥ 0.5")
    plain("over 8 connections, server CPU per call, µs", "calls_8_connections", "cpu_us", -1, "", "")
    plain("one kind of NAT/s, 256 in flight", "calls_one_kind", "per_second", 1, "", "")
    plain("one kind of NAT, server CPU per call, µs", "calls_one_kind", "cpu_us", -1, "", "")
    plain("all 27 kinds of NAT/s, 256 in flight", "calls_mixed", "per_second", 1, "", "")
    plain("all 27 kinds of NAT, server CPU per call, µs", "calls_mixed", "cpu_us", -1, \
        times(1.5, median("calls_one_kind", "cnode", "cpu_us")), "≤ 1.5× that of one")
    plain("resident memory after 256 in flight, bytes", "calls_256", "rss_bytes", -1, "", "")
    plain("bytes per live session, 1,000 peers", "memory_shared", "bytes_per_session", -1, 160, "≤ 160")
    plain("bytes per live session, two peers each", "memory_own", "bytes_per_session", -1, 500, "≤ 500")
    plain("full punches/s, 64 at a time", "punches", "per_second", 1, \
        times(25, median("punches", "erlang", "per_second")), "≥ 25× Erlang")
    plain("full punch, server CPU, µs", "punches", "cpu_us", -1, 2.5, "≤ 2.5")
    percentiles("full punch, request to coordinates", "punches")
    plain("executing after punch_time, p50, µs", "punch_time", "late_p50_us", -1, "", "")
    plain("executing after punch_time, p99, µs", "punch_time", "late_p99_us", -1, 2000, "≤ 2000")
    plain("executing after punch_time, earliest, µs", "punch_time", "earliest_us", 1, "", "")
    few = times(1.2, median("live_10", "cnode", "cpu_us"))
    plain("10 live sessions, CPU per call, µs", "live_10", "cpu_us", -1, "", "")
    plain("1,000 live sessions, calls/s, 256 in flight", "live_1000", "per_second", 1, "", "")
    compared("1,000 live sessions, calls/s by the limit's", "live_1000", "limit", "per_second", 1, 0.65, "≥ 0.65")
    plain("1,000 live sessions, CPU per call, µs", "live_1000", "cpu_us", -1, "", "")
    plain("10,000 live sessions, CPU per call, µs", "live_10000", "cpu_us", -1, few, "≤ 1.2× that of 10")
    many = "live_" sessions
    plain(sessions " live sessions, calls/s, 256 in flight", many, "per_second", 1, "", "")
    compared(sessions " live sessions, calls/s by the limit's", many, "limit", "per_second", 1, 0.5, "≥ 0.5")
    row(sessions " live sessions, CPU per call, µs (Erlang: a fifth)", "", \
        median("live_" sessions / 5, "erlang", "cpu_us"), median(many, "limit", "cpu_us"), \
        median(many, "cnode", "cpu_us"), -1, few, "≤ 1.2× that of 10")
    compared(sessions " live sessions, CPU per call by the limit's", many, "limit", "cpu_us", -1, 2, "≤ 2")
    plain("lookups of 50 ms, 1 in flight, p99, µs", "lookups_1", "p99_us", -1, 75000, "≤ 75,000")
    plain("lookups of 50 ms, 64 in flight, requests/s", "lookups_64", "per_second", 1, 1000, "≥ 1,000")
    plain("lookups of 50 ms, 64 in flight, p99, µs", "lookups_64", "p99_us", -1, 75000, "≤ 75,000")
    plain("lookups of 50 ms, 4096 in flight, requests/s", "lookups_4096", "per_second", 1, 40000, "≥ 40,000")
    plain("lookups of 50 ms, 4096 in flight, p99, µs", "lookups_4096", "p99_us", -1, 75000, "≤ 75,000")
    before = times(1.05, median("churn_shared", "cnode", "rss_before_bytes"))
    plain("resident before any session, bytes", "churn_shared", "rss_before_bytes", -1, "", "")
    plain(sessions " sessions came, bytes", "churn_shared", "rss_full_bytes", -1, "", "")
    plain("… and went, bytes", "churn_shared", "rss_bytes", -1, before, "≤ 1.05× before")
    plain("… and as many again, bytes", "churn_shared_again", "rss_bytes", -1, before, "≤ 1.05× before")
    plain("the same with two peers each: before, bytes", "churn_own", "rss_before_bytes", -1, "", "")
    before = times(1.05, median("churn_own", "cnode", "rss_before_bytes"))
    plain("… after, bytes", "churn_own", "rss_bytes", -1, before, "≤ 1.05× before")
    plain("get_pending of " sessions ", sessions listed", "pending", "listed", 1, "", "")
    plain("get_pending, server CPU, µs", "pending", "cpu_us", -1, "", "")
    plain("get_pending, answered after, nobody else calling, µs", "pending", "alone_p50_us", -1, "", "")
    plain("get_pending, answered after, 64 calls in flight, µs", "pending", "loaded_p50_us", -1, "", "")
    plain("the others' calls before, p50, µs", "pending", "callers_before_p50_us", -1, "", "")
    plain("the others' calls before, p99, µs", "pending", "callers_before_p99_us", -1, "", "")
    plain("the others' calls meanwhile, p50, µs", "pending", "callers_during_p50_us", -1, "", "")
    plain("the others' calls meanwhile, p99, µs", "pending", "callers_during_p99_us", -1, "", "")
    plain("the others' calls meanwhile, longest, µs", "pending", "callers_during_max_us", -1, "", "")
    if (missed > 0)
        print "\nWhat stands in the way of what is not reached: see doc/performance.md."
}
