%% SPDX-License-Identifier: Apache-2.0
%% The coordinator as a whole against a model of it: {@link prop_coordinator} in three worlds.
%%
%% PROPER_NUMTESTS is how many sequences of commands are tried in each, PROPER_SEED (three numbers) the seed of a run that
%% is to be seen again.
-module(coordinator_tests).
-include_lib("eunit/include/eunit.hrl").

-define(TESTS, "1000").
-define(SECONDS, 36000).

property_test_() ->
    [{Title, {timeout, ?SECONDS, fun() -> holds(Args, Options, Never) end}} || {Title, Args, Options, Never} <- worlds()].

%% How the program is started, what the model must know of it, and which of the model's counters cannot move then.
worlds() ->
    [{"punch times and timeouts come soon",
      ["--coordination-delay-ms", "1"], #{delay => 1, timers => true, max_sessions => 1000000},
      [evicted, overloaded]},
     {"punch times never come",
      ["--coordination-delay-ms", "60000"], #{delay => 60000, timers => false, max_sessions => 1000000},
      [evicted, failed_timeout, overloaded]},
     {"three sessions at most",
      ["--coordination-delay-ms", "60000", "--max-sessions", "3"], #{delay => 60000, timers => false, max_sessions => 3},
      [failed_timeout]}].

holds(Args, Options, Never) ->
    Tests = list_to_integer(os:getenv("PROPER_NUMTESTS", ?TESTS)),
    Seed = seed(os:getenv("PROPER_SEED")),
    Always = ["--max-punch-attempts", "1", "--punch-timeout-ms", "3600000", "--session-ttl-s", "86400",
              "--log-level", "error"],
    cnode:with(#{args => Always ++ Args}, fun(#{node := Node}) ->
        Peer = cnode:peer(),
        Result = cnode:on(Peer, fun() -> prop_coordinator:check(prop_coordinator:world(Node, Options), Tests, Seed) end, infinity),
        #{counters := Counters} = cnode:on(Peer, fun() -> sys:get_state({macula_nat_coordinator, Node}) end),
        cnode:peer_stop(Peer),
        case Result of
            ok ->
                %% The commands have been everywhere: with less of them that is a matter of luck.
                Tests < list_to_integer(?TESTS) orelse
                    ?assertEqual(Never, lists:sort([Key || Key <- coordinator_model:counters(), maps:get(Key, Counters) =:= 0]));
            {failed, #{counterexample := Commands, text := Text}} ->
                io:format("seed: PROPER_SEED='~w ~w ~w'~n", tuple_to_list(Seed)),
                io:format("smallest failing commands:~n~tp~n~ts~n", [Commands, Text]),
                error(property_failed)
        end
    end).

seed(false) ->
    {A, B, C} = {erlang:monotonic_time(), erlang:unique_integer(), os:system_time()},
    {abs(A) rem 1000000, abs(B) rem 1000000, abs(C) rem 1000000};
seed(Text) ->
    list_to_tuple([list_to_integer(Number) || Number <- string:lexemes(Text, " ,")]).
