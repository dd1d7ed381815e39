%% SPDX-License-Identifier: Apache-2.0
%% @doc A macula node for the benchmarks, as far as lookups go: the registered process `macula_nat_cache', which knows
%% every profile and answers after BENCH_LOOKUP_MS. It answers any number of lookups at a time.
%%
%% `erl -s bench_cache main': starts it, prints `ready' and stays.
-module(bench_cache).
-behaviour(gen_server).

-export([main/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% @doc Start the process.
-spec main() -> ok.
main() ->
    Delay = list_to_integer(os:getenv("BENCH_LOOKUP_MS", "50")),
    {ok, Pid} = gen_server:start_link({local, macula_nat_cache}, ?MODULE, Delay, []),
    true = unlink(Pid),
    io:put_chars("ready\n").

%% @private
init(Delay) ->
    {ok, Delay}.

%% @private
handle_call({get, Id}, From, Delay) ->
    _ = erlang:send_after(Delay, self(), {found, Id, From}),
    {noreply, Delay}.

%% @private
handle_cast(_, Delay) ->
    {noreply, Delay}.

%% @private
handle_info({found, Id, From}, Delay) ->
    gen_server:reply(From, {ok, profile(Id), fresh}),
    {noreply, Delay};
handle_info(_, Delay) ->
    {noreply, Delay}.

profile(Id) ->
    #{
        node_id => Id,
        mapping_policy => ei,
        filtering_policy => ei,
        allocation_policy => pp,
        can_receive_unsolicited => true,
        requires_relay => false,
        relay_capable => false,
        reflexive_address => {{198, 18, 0, 1}, 4433},
        detected_at => erlang:system_time(second),
        ttl_seconds => 300
    }.
