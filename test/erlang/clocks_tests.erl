%% SPDX-License-Identifier: Apache-2.0
%% Peers whose nodes have other clocks get the same instant, each in its own clock.
-module(clocks_tests).
-include_lib("eunit/include/eunit.hrl").

-define(AT(Node), {macula_nat_coordinator, Node}).
-define(AHEAD_US, 5000000).

clocks_test_() ->
    [{spawn, {timeout, 120, {Title, Test}}} || {Title, Test} <- [
        {"both peers get the same instant in their own clocks", fun same_instant/0},
        {"a node that does not tell the time is taken to have ours", fun no_time/0}
    ]].

%% The clock of the second peer's node is ahead: its rex says so.
same_instant() ->
    punch(fun() -> erlang:system_time(microsecond) + ?AHEAD_US end, fun(#{a := A, b := B}, Clocks, Difference) ->
        #{A := #{ahead_us := AheadA}, B := #{ahead_us := AheadB, round_trip_us := RoundTrip}} = Clocks,
        ?assert(abs(AheadB - ?AHEAD_US) =< RoundTrip),
        ?assert(abs(Difference - (AheadB - AheadA) div 1000) =< 2)
    end).

no_time() ->
    punch(fun() -> {badrpc, {'EXIT', undef}} end, fun(#{a := A, b := B}, Clocks, Difference) ->
        ?assertNot(maps:is_key(B, Clocks)),
        #{A := #{ahead_us := AheadA}} = Clocks,
        ?assert(abs(Difference + AheadA div 1000) =< 2)
    end).

%% A punch between peers on two nodes, of which the second has that time. Checked is how much their punch times differ.
punch(Time, Check) ->
    Peers = #{a => cnode:peer(), b => cnode:peer()},
    cnode:with(#{}, fun(#{node := N}) ->
        attach(N, a, maps:get(a, Peers), fun() -> erlang:system_time(microsecond) end),
        attach(N, b, maps:get(b, Peers), Time),
        #{clocks := Clocks} = sys:get_state(?AT(N)),
        {ok, hole_punch, _} = gen_server:call(?AT(N), {request_connection, <<"a">>, <<"b">>, #{}}),
        [TimeA, TimeB] = [receive {told, Id, At} -> At end || Id <- [a, b]],
        Check(maps:map(fun(_, #{node := Node}) -> Node end, Peers), Clocks, TimeB - TimeA)
    end),
    [cnode:peer_stop(Peer) || Peer <- maps:values(Peers)],
    ok.

%% Attaches a process on the node, and returns when the node's clock has been measured.
attach(N, Id, Peer, Time) ->
    Self = self(),
    cnode:on(Peer, fun() ->
        spawn(fun() ->
            true = unregister(rex),
            true = register(rex, self()),
            Self ! {ready, Id},
            rex(N, {Self, {measured, Id}}, Time, 0)
        end)
    end),
    receive {ready, Id} -> ok end,
    cnode:on(Peer, fun() ->
        spawn(fun() ->
            ok = gen_server:call(?AT(N), {attach_peer, atom_to_binary(Id)}),
            receive {punch_coordinate, #{punch_time := At}} -> Self ! {told, Id, At} end
        end)
    end),
    receive {measured, Id} -> ok end.

%% The clock is read three times, or until it cannot be. What is sent after the last answer arrives after it.
rex(N, {Parent, Measured} = To, Time, Asked) ->
    receive
        {'$gen_call', From, {call, erlang, system_time, [microsecond], _}} ->
            Now = Time(),
            gen_server:reply(From, Now),
            case Asked =:= 2 orelse not is_integer(Now) of
                true ->
                    _ = sys:get_state(?AT(N)),
                    Parent ! Measured;
                false ->
                    ok
            end,
            rex(N, To, Time, Asked + 1);
        _ ->
            rex(N, To, Time, Asked)
    end.
