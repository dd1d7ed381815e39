%% SPDX-License-Identifier: Apache-2.0
%% How PUNCH_COORDINATE gets to peers in a macula cluster, and what exactly arrives.
-module(deliveries_tests).
-include_lib("eunit/include/eunit.hrl").

-define(NAME, macula_nat_coordinator).
-define(CACHE, macula_nat_cache).
-define(DHT, macula_routing_server).
-define(CONNECTOR, macula_peer_connector).
-define(I, <<"initiator">>).
-define(T, <<"target">>).

deliveries_test_() ->
    cluster:rows(60, [
        {"what the connector gets", fun arrives/1},
        {"a profile in its DHT form", fun binary_form/1},
        {"coordinate_punch", fun coordinate_punch/1},
        {"a retry", fun retry/1},
        {"one peer is attached, the other is not", fun mixed/1},
        {"the host of an attached peer's partner is in the DHT", fun host_for_mailbox/1}
    ] ++ [
        {"an endpoint: " ++ Title, fun(W) -> endpoint(W, Row) end} || {Title, Row} <- endpoints()
    ] ++ [
        {"the DHT as a last resort: " ++ Title, fun(W) -> last_resort(W, Services) end}
        || {Title, Services} <- failures()
    ] ++ [
        {"all ways fail: " ++ Title, fun(W) -> undelivered(W, Services) end} || {Title, Services} <- all_fail()
    ] ++ [
        {"the node of the caller first", fun caller_first/1},
        {"the DHT of another node", fun other_dht/1},
        {"a slow connection holds nobody up", fun slow/1},
        {"a connection that takes too long", fun too_slow/1},
        {"a DHT that never answers", fun silent_dht/1},
        {"a node without the module is not asked again", fun without_module/1},
        {"many nodes without the module", fun many_without_module/1},
        {"the connecting node is killed", fun(W) -> cut_off(W, "KILL") end},
        {"the connecting node is stopped", fun(W) -> cut_off(W, "STOP") end}
    ]).

%%%-------------------------------------------------------------------
%%% What arrives
%%%-------------------------------------------------------------------

arrives(#{plain := P} = W) ->
    Other = cluster:profile(?T, #{reflexive_address => {{198, 51, 100, 7}, 6000}, allocation_policy => pp}),
    Cache = cluster:known([cluster:profile(?I), Other]),
    Args = ["--coordination-delay-ms", "1234"],
    cluster:with(W, Args, [{a, ?CACHE, Cache}, {b, ?CONNECTOR, cluster:connector()}], fun(N, _) ->
        Before = now_ms(),
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        Calls = cluster:await_calls(W, b, ?CONNECTOR, 2),
        After = now_ms(),
        [{_, _, _, #{punch_time := Time}} | _] = Calls,
        ?assertEqual({Before, Time, After}, {min(Before, Time - 1234), Time, max(After, Time - 1234)}),
        ?assertEqual(lists:sort([
            {send_message, <<"initiator.example:4433">>, punch_coordinate,
             #{session_id => Id, peer_id => ?T, peer_host => <<"198.51.100.7">>, peer_ports => [6000],
               punch_time => Time, role => initiator}},
            {send_message, <<"target.example:4433">>, punch_coordinate,
             #{session_id => Id, peer_id => ?I, peer_host => <<"192.0.2.1">>, peer_ports => [5000, 5002, 5004],
               punch_time => Time, role => target}}
        ]), Calls),
        cluster:await_rest(P, N),
        ?assertEqual({2, 0, 0}, delivered(P, N))
    end).

binary_form(#{plain := P} = W) ->
    Form = fun(Id) ->
        #{<<"node_id">> => Id, <<"mapping_policy">> => <<"hd">>, <<"filtering_policy">> => <<"pd">>,
          <<"allocation_policy">> => <<"pp">>, <<"endpoint">> => <<"https://", Id/binary, ".example:7000">>}
    end,
    Dht = cluster:stored(maps:from_list([{cluster:key(<<"nat.profile">>, Id), {ok, [Form(Id)]}} || Id <- [?I, ?T]])),
    cluster:with(W, [], [{a, ?DHT, Dht}, {a, ?CONNECTOR, cluster:connector()}], fun(N, _) ->
        {ok, hole_punch, _} = cluster:ask(P, N, ?I, ?T),
        ?assertMatch([{_, <<"https://initiator.example:7000">>, _,
                       #{peer_host := <<"target.example">>, peer_ports := [7000]}},
                      {_, <<"https://target.example:7000">>, _,
                       #{peer_host := <<"initiator.example">>, peer_ports := [7000]}}],
                     cluster:await_calls(W, a, ?CONNECTOR, 2))
    end).

coordinate_punch(#{plain := P} = W) ->
    cluster:with(W, [], [{a, ?CACHE, both()}, {b, ?CONNECTOR, cluster:connector()}], fun(N, _) ->
        Punch = {coordinate_punch, ?I, ?T, #{session_id => <<"of ours">>}},
        cnode:on(P, fun() -> gen_server:cast({?NAME, N}, Punch) end),
        ?assertMatch([{_, <<"initiator.example:4433">>, _,
                       #{session_id := <<"of ours">>, role := initiator, peer_id := ?T}},
                      {_, <<"target.example:4433">>, _, #{session_id := <<"of ours">>, role := target, peer_id := ?I}}],
                     cluster:await_calls(W, b, ?CONNECTOR, 2))
    end).

retry(#{plain := P} = W) ->
    cluster:with(W, [], [{a, ?CACHE, both()}, {b, ?CONNECTOR, cluster:connector()}], fun(N, _) ->
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        First = cluster:await_calls(W, b, ?CONNECTOR, 2),
        [{_, _, _, #{punch_time := Time}} | _] = First,
        cnode:await(fun() -> now_ms() > Time end),
        cnode:on(P, fun() -> gen_server:cast({?NAME, N}, {report_result, Id, ?I, failure}) end),
        Second = cluster:await_calls(W, b, ?CONNECTOR, 4) -- First,
        [{_, _, _, #{punch_time := Fresh}} | _] = Second,
        ?assert(Fresh > Time),
        ?assertEqual(First, [{What, To, Type, Info#{punch_time := Time}} || {What, To, Type, Info} <- Second])
    end).

mixed(#{plain := P} = W) ->
    cluster:with(W, [], [{a, ?CACHE, both()}, {b, ?CONNECTOR, cluster:connector()}], fun(N, _) ->
        {Id, Got} = cnode:on(P, fun() -> punch_attached(N) end),
        [{_, Endpoint, punch_coordinate, Sent}] = cluster:await_calls(W, b, ?CONNECTOR, 1),
        ?assertEqual(<<"initiator.example:4433">>, Endpoint),
        cluster:await_rest(P, N),
        #{punch_time := Time} = Sent,
        #{punch_time := Told} = Got,
        ?assertEqual(#{session_id => Id, peer_id => ?I, peer_host => <<"192.0.2.1">>, peer_ports => [5000, 5002, 5004],
                       punch_time => Told, role => target}, Got),
        ?assertEqual(Got#{peer_id := ?T, role := initiator, punch_time := Time}, Sent),
        %% It is told in its node's own clock, which may have been measured meanwhile: see the suite of clocks.
        ?assert(is_integer(Told)),
        ?assertEqual({1, 0, 0}, delivered(P, N)),
        ?assertEqual(1, cluster:state(P, N, [counters, delivered_to_mailboxes]))
    end).

host_for_mailbox(#{plain := P} = W) ->
    Bare = maps:without([endpoint, reflexive_address], cluster:profile(?I)),
    Dht = cluster:stored(#{cluster:key(<<"peer.endpoint">>, ?I) => {ok, [address(<<"203.0.113.9">>, 77)]}}),
    cluster:with(W, [], [{a, ?CACHE, cluster:known([Bare])}, {a, ?DHT, Dht}], fun(N, _) ->
        {_, Got} = cnode:on(P, fun() -> punch_attached(N) end),
        ?assertMatch(#{peer_host := <<"203.0.113.9">>, peer_ports := [4433, 4434, 4435]}, Got)
    end).

%% Stands for the target, asks for the punch, and returns what came.
punch_attached(N) ->
    ok = gen_server:call({?NAME, N}, {attach_peer, ?T}),
    {ok, hole_punch, Id} = gen_server:call({?NAME, N}, {request_connection, ?I, ?T, #{}}),
    receive {punch_coordinate, Info} -> {Id, Info} end.

%%%-------------------------------------------------------------------
%%% Where to
%%%-------------------------------------------------------------------

%% The target's profile (or none), what the DHT has as its endpoint; the endpoint that the message for it goes to (none:
%% it goes into the DHT), and the host and ports that the initiator is told.
endpoints() ->
    Bare = maps:without([endpoint, reflexive_address], cluster:profile(?T)),
    Default = [4433, 4434, 4435],
    V6 = {{16#2001, 16#db8, 0, 0, 0, 0, 0, 1}, 5000},
    [
        {"of the profile", {Bare#{endpoint => <<"h.example:7000">>}, none,
                            <<"h.example:7000">>, <<"h.example">>, [7000, 7002, 7004]}},
        {"with a scheme", {Bare#{endpoint => <<"https://h.example:7000">>}, none,
                           <<"https://h.example:7000">>, <<"h.example">>, [7000, 7002, 7004]}},
        {"with IPv6", {Bare#{endpoint => <<"[2001:db8::2]:7000">>}, none,
                       <<"2001:db8::2:7000">>, <<"2001:db8::2">>, [7000, 7002, 7004]}},
        {"the reflexive address", {Bare#{reflexive_address => {{192, 0, 2, 9}, 5000}}, none,
                                   <<"192.0.2.9:5000">>, <<"192.0.2.9">>, [5000, 5002, 5004]}},
        {"the reflexive IPv6 address", {Bare#{reflexive_address => V6}, none,
                                        <<"2001:db8::1:5000">>, <<"2001:db8::1">>, [5000, 5002, 5004]}},
        {"the profile's before the DHT's", {Bare#{endpoint => <<"h.example:7000">>}, {ok, address(<<"x.example">>, 1)},
                                            <<"h.example:7000">>, <<"h.example">>, [7000, 7002, 7004]}},
        {"a map of the DHT", {Bare, {ok, address(<<"203.0.113.9">>, 77)},
                              <<"203.0.113.9:77">>, <<"203.0.113.9">>, Default}},
        {"a list of the DHT", {Bare, {ok, [address(<<"203.0.113.9">>, 77), address(<<"203.0.113.10">>, 78)]},
                               <<"203.0.113.9:77">>, <<"203.0.113.9">>, Default}},
        {"IPv6 of the DHT", {Bare, {ok, [address(<<"2001:db8::3">>, 77)]},
                             <<"2001:db8::3:77">>, <<"2001:db8::3">>, Default}},
        {"garbage of the DHT", {Bare, {ok, [garbage, #{}, address(17, x), address(<<>>, 1), address(<<"a b">>, 1),
                                            address(<<"203.0.113.9">>, 77)]},
                                <<"203.0.113.9:77">>, <<"203.0.113.9">>, Default}},
        {"no port in the DHT", {Bare, {ok, [address(<<"203.0.113.9">>, 70000)]},
                                none, <<"203.0.113.9">>, Default}},
        {"nothing in the DHT", {Bare, {ok, []}, none, <<>>, Default}},
        {"an error of the DHT", {Bare, {error, timeout}, none, <<>>, Default}},
        {"nodes of the DHT", {Bare, {nodes, []}, none, <<>>, Default}},
        {"an unusable reflexive address", {Bare#{reflexive_address => {{192, 0, 2, 900}, 5000}},
                                           {ok, address(<<"203.0.113.9">>, 77)},
                                           <<"203.0.113.9:77">>, <<"203.0.113.9">>, Default}},
        {"no profile", {none, {ok, [address(<<"203.0.113.9">>, 77)]},
                        <<"203.0.113.9:77">>, <<"203.0.113.9">>, Default}}
    ].

address(Host, Port) ->
    #{<<"host">> => Host, <<"port">> => Port}.

endpoint(#{plain := P} = W, {Profile, InDht, Endpoint, Host, Ports}) ->
    Cache = cluster:known([cluster:profile(?I) | [Profile || Profile =/= none]]),
    Dht = cluster:stored(maps:from_list([{cluster:key(<<"peer.endpoint">>, ?T), InDht} || InDht =/= none])),
    Services = [{a, ?CACHE, Cache}, {a, ?DHT, Dht}, {b, ?CONNECTOR, cluster:connector()}],
    cluster:with(W, [], Services, fun(N, _) ->
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        Expected = length([x || Known <- [<<"of the initiator">>, Endpoint], Known =/= none]),
        Sent = cluster:await_calls(W, b, ?CONNECTOR, Expected),
        cluster:await_rest(P, N),
        [Info] = [I || {send_message, <<"initiator.example:4433">>, punch_coordinate, #{peer_id := ?T} = I} <- Sent],
        ?assertMatch(#{peer_host := Host, peer_ports := Ports, role := initiator}, Info),
        ?assertEqual([Endpoint || Endpoint =/= none],
                     [To || {send_message, To, punch_coordinate, #{peer_id := ?I, role := target}} <- Sent]),
        ?assertEqual([key(?T, Id) || Endpoint =:= none], [Key || {store, Key, _} <- cluster:calls(W, a, ?DHT)])
    end).

%%%-------------------------------------------------------------------
%%% When that fails
%%%-------------------------------------------------------------------

failures() ->
    [{"the connector says " ++ Title, [{b, ?CONNECTOR, Act}]} || {Title, Act} <- [
        {"error", fun(_) -> {reply, {error, timeout}} end},
        {"garbage", fun(_) -> {reply, <<"ok">>} end},
        {"nothing and dies", fun(_) -> crash end}
    ]] ++ [{"no node has the module", []}].

last_resort(#{plain := P} = W, Connector) ->
    Dht = cluster:stored(#{}),
    cluster:with(W, [], [{a, ?CACHE, both()}, {a, ?DHT, Dht} | Connector], fun(N, _) ->
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        Calls = cluster:await_calls(W, a, ?DHT, 2),
        [{store, _, #{payload := #{punch_time := Time}}} | _] = Calls,
        Info = #{session_id => Id, peer_host => <<"192.0.2.1">>, peer_ports => [5000, 5002, 5004], punch_time => Time},
        ?assertEqual(lists:sort([
            {store, key(?I, Id), #{type => punch_coordinate, payload => Info#{peer_id => ?T, role => initiator}}},
            {store, key(?T, Id), #{type => punch_coordinate, payload => Info#{peer_id => ?I, role => target}}}
        ]), Calls),
        cluster:await_rest(P, N),
        ?assertEqual({0, 2, 0}, delivered(P, N))
    end).

all_fail() ->
    Refuses = {b, ?CONNECTOR, fun(_) -> {reply, {error, refused}} end},
    [{"no services", []},
     {"no DHT", [Refuses]},
     {"the DHT says error", [Refuses, {a, ?DHT, fun(_) -> {reply, {error, not_stored}} end}]},
     {"the DHT dies", [Refuses, {a, ?DHT, fun(_) -> crash end}]}].

%% The attempt ends by its timeout, as if the message had been lost on its way.
undelivered(#{plain := P} = W, Services) ->
    cluster:with(W, [], [{a, ?CACHE, both()} | Services], fun(N, Handle) ->
        Ended = cnode:on(P, fun() ->
            {ok, hole_punch, Id} =
                gen_server:call({?NAME, N}, {request_connection, ?I, ?T, once(self())}),
            receive {punch_session, Id, #{result := _} = Session} -> Session end
        end),
        ?assertMatch(#{state := failed, result := timeout, strategy := relay}, Ended),
        cluster:await_rest(P, N),
        ?assertEqual({0, 0, 2}, delivered(P, N)),
        _ = cnode:await_log(Handle, "warning.*PUNCH_COORDINATE")
    end).

%% One attempt that does not last long.
once(Pid) ->
    #{max_punch_attempts => 0, punch_timeout_ms => 50, notify => Pid}.

other_dht(#{a := #{node := NodeA}, plain := P} = W) ->
    Services = [{a, ?CACHE, both()}, {a, ?DHT, fun(_) -> {reply, {error, full}} end}, {b, ?DHT, cluster:stored(#{})}],
    cluster:with(W, ["--connect", atom_to_list(NodeA)], Services, fun(N, _) ->
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertEqual(lists:sort([key(?I, Id), key(?T, Id)]),
                     lists:sort([Key || {store, Key, _} <- cluster:await_calls(W, b, ?DHT, 2)])),
        cluster:await_rest(P, N),
        ?assertEqual({0, 2, 0}, delivered(P, N))
    end).

%% The caller's own node connects, even beside nodes of --connect; after an error one other does, and after two the DHT
%% gets it. A retry goes the same way.
caller_first(#{a := #{node := NodeA}, b := B, plain := P} = W) ->
    Refuses = fun(_) -> {reply, {error, refused}} end,
    Services = [{a, ?CACHE, everybody()}, {a, ?DHT, cluster:stored(#{})}
                | [{Key, ?CONNECTOR, cluster:connector()} || Key <- [a, b, plain]]],
    Count = fun() -> [length(cluster:calls(W, Key, ?CONNECTOR)) || Key <- [b, a, plain]] end,
    cluster:with(W, ["--connect", atom_to_list(NodeA)], Services, fun(N, _) ->
        {ok, hole_punch, _} = cluster:ask(B, N, ?I, ?T),
        cnode:await(fun() -> delivered(P, N) =:= {2, 0, 0} end),
        ?assertEqual([2, 0, 0], Count()),
        cluster:act(W, b, ?CONNECTOR, Refuses),
        {ok, hole_punch, Id} = cluster:ask(B, N, <<"x">>, <<"y">>),
        cnode:await(fun() -> delivered(P, N) =:= {4, 0, 0} end),
        ?assertEqual([4, 2, 0], Count()),
        cluster:act(W, a, ?CONNECTOR, Refuses),
        %% The failed attempt is reported from elsewhere: it is not that node which has asked.
        cnode:on(P, fun() -> gen_server:cast({?NAME, N}, {report_result, Id, <<"x">>, failure}) end),
        cnode:await(fun() -> delivered(P, N) =:= {4, 2, 0} end),
        ?assertEqual([6, 4, 0], Count())
    end).

slow(#{plain := P} = W) ->
    Act = fun({send_message, <<"target", _/binary>>, _, _}) -> hold;
             (_) -> {reply, ok}
          end,
    cluster:with(W, [], [{a, ?CACHE, everybody()}, {b, ?CONNECTOR, Act}], fun(N, _) ->
        {ok, hole_punch, _} = cluster:ask(P, N, ?I, ?T),
        _ = cluster:await_calls(W, b, ?CONNECTOR, 2),
        {ok, hole_punch, _} = cluster:ask(P, N, <<"x">>, <<"y">>),
        _ = cluster:await_calls(W, b, ?CONNECTOR, 4),
        cnode:await(fun() -> delivered(P, N) =:= {3, 0, 0} end),
        ?assertEqual(1, cluster:state(P, N, [waiting_for, deliveries])),
        cluster:release(W, b, ?CONNECTOR, fun(_) -> ok end),
        cluster:await_rest(P, N),
        ?assertEqual({4, 0, 0}, delivered(P, N))
    end).

too_slow(#{plain := P} = W) ->
    Services = [{a, ?CACHE, both()}, {a, ?DHT, cluster:stored(#{})}, {b, ?CONNECTOR, fun(_) -> hold end}],
    cluster:with(W, [], Services, fun(N, _) ->
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertEqual(lists:sort([key(?I, Id), key(?T, Id)]),
                     lists:sort([Key || {store, Key, _} <- cluster:await_calls(W, a, ?DHT, 2)])),
        cluster:await_rest(P, N),
        %% The late answers change nothing.
        cluster:release(W, b, ?CONNECTOR, fun(_) -> ok end),
        cnode:await(fun() -> cluster:state(P, N, [calls, answers_too_late]) =:= 2 end),
        ?assertEqual({0, 2, 0}, delivered(P, N))
    end).

%% It is asked where the target is, for both peers, and then to store what is for them. The attempt ends by its timeout.
silent_dht(#{plain := P} = W) ->
    Bare = maps:without([endpoint, reflexive_address], cluster:profile(?T)),
    Services = [{a, ?CACHE, cluster:known([cluster:profile(?I), Bare])}, {a, ?DHT, fun(_) -> hold end}],
    cluster:with(W, [], Services, fun(N, Handle) ->
        Ended = cnode:on(P, fun() ->
            {ok, hole_punch, Id} = gen_server:call({?NAME, N}, {request_connection, ?I, ?T, once(self())}),
            receive {punch_session, Id, #{result := _} = Session} -> Session end
        end),
        ?assertMatch(#{state := failed, result := timeout, strategy := relay}, Ended),
        Id = maps:get(session_id, Ended),
        Find = {find_value, cluster:key(<<"peer.endpoint">>, ?T), 20},
        ?assertMatch([Find, Find, {store, _, _}, {store, _, _}], cluster:await_calls(W, a, ?DHT, 4)),
        cluster:await_rest(P, N),
        ?assertEqual(lists:sort([key(?I, Id), key(?T, Id)]),
                     lists:sort([Key || {store, Key, _} <- cluster:calls(W, a, ?DHT)])),
        ?assertEqual({0, 0, 2}, delivered(P, N)),
        _ = cnode:await_log(Handle, "warning.*PUNCH_COORDINATE"),
        %% The late answers change nothing.
        cluster:release(W, a, ?DHT, fun(_) -> ok end),
        cnode:await(fun() -> cluster:state(P, N, [calls, answers_too_late]) =:= 4 end),
        ?assertEqual({0, 0, 2}, delivered(P, N))
    end).

without_module(#{a := #{node := NodeA} = A, b := #{node := NodeB}, plain := P} = W) ->
    Args = ["--connect", atom_to_list(NodeA), "--connect", atom_to_list(NodeB)],
    cluster:with(W, Args, [{a, ?CACHE, everybody()}, {b, ?CONNECTOR, cluster:connector()}], fun(N, _) ->
        Calls = fun() -> cluster:state(P, N, [calls, made]) end,
        Nodes = fun() -> cluster:state(P, N, [services, ?CONNECTOR]) end,
        ?assertEqual({3, 0}, {Nodes(), Calls()}),
        {ok, hole_punch, _} = cluster:ask(P, N, ?I, ?T),
        _ = cluster:await_calls(W, b, ?CONNECTOR, 2),
        %% Two for profiles and two to the node with the module; those without it, the caller's first, are asked for each
        %% peer as long as neither has answered.
        First = Calls(),
        ?assertEqual(1, Nodes()),
        ?assert(First >= 6 andalso First =< 8),
        cnode:on(A, fun() -> ok = double:start(?CONNECTOR, cluster:connector()), double:load_connector() end),
        {ok, hole_punch, _} = cluster:ask(P, N, <<"x">>, <<"y">>),
        _ = cluster:await_calls(W, b, ?CONNECTOR, 4),
        ?assertEqual({1, First + 4}, {Nodes(), Calls()}),
        ?assertEqual([], cluster:calls(W, a, ?CONNECTOR)),
        cluster:await_rest(P, N),
        ?assertEqual({4, 0, 0}, delivered(P, N))
    end).

%% However many plain nodes are asked before it, the node that has the module is found.
many_without_module(#{a := A, plain := P} = W) ->
    Extra = [cnode:peer() || _ <- lists:seq(1, 3)],
    Nodes = [Node || #{node := Node} <- [A, P | Extra]],
    Args = lists:append([["--connect", atom_to_list(Node)] || Node <- Nodes]),
    Services = [{a, ?CACHE, both()}, {a, ?DHT, cluster:stored(#{})}, {b, ?CONNECTOR, cluster:connector()}],
    cluster:with(W, Args, Services, fun(N, _) ->
        cluster:await_services(P, N, #{?CONNECTOR => length(Nodes) + 1}),
        {ok, hole_punch, _} = cluster:ask(P, N, ?I, ?T),
        _ = cluster:await_calls(W, b, ?CONNECTOR, 2),
        cluster:await_rest(P, N),
        ?assertEqual({2, 0, 0}, delivered(P, N)),
        ?assertEqual(1, cluster:state(P, N, [services, ?CONNECTOR]))
    end),
    lists:foreach(fun cnode:peer_stop/1, Extra).

%% The node that is connecting to the peer is no more, or says no more; another one does it.
cut_off(#{plain := P} = W, Signal) ->
    Peer = #{peer := Pid, node := Node} = cnode:peer(),
    OsPid = cnode:on(Peer, fun os:getpid/0),
    Services = [{a, ?CACHE, both()}, {b, ?CONNECTOR, cluster:connector()}],
    cluster:with(W, ["--connect", atom_to_list(Node)], Services, fun(N, _) ->
        cnode:on(Peer, fun() -> ok = double:start(?CONNECTOR, fun(_) -> hold end), double:load_connector() end),
        cluster:await_services(P, N, #{?CONNECTOR => 4}),
        {ok, hole_punch, _} = cluster:ask(P, N, ?I, ?T),
        _ = cnode:on(Peer, fun() -> double:await_calls(?CONNECTOR, 2) end),
        _ = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
        ?assertMatch([{_, <<"initiator.example:4433">>, _, _}, {_, <<"target.example:4433">>, _, _}],
                     cluster:await_calls(W, b, ?CONNECTOR, 2)),
        cluster:await_rest(P, N),
        ?assertEqual({2, 0, 0}, delivered(P, N)),
        unlink(Pid),
        Ref = monitor(process, Pid),
        _ = os:cmd("kill -KILL " ++ OsPid),
        receive {'DOWN', Ref, process, Pid, _} -> ok end
    end).

%%%-------------------------------------------------------------------
%%% Helpers
%%%-------------------------------------------------------------------

both() ->
    cluster:known([cluster:profile(?I), cluster:profile(?T)]).

everybody() ->
    fun({get, Id}) -> {reply, {ok, cluster:profile(Id), fresh}} end.

key(Id, SessionId) ->
    crypto:hash(sha256, ["punch.coord.", Id, ".", SessionId]).

%% By connectors, by the DHT, not at all.
delivered(P, N) ->
    #{counters := #{delivered_by_connectors := Connectors, delivered_to_dht := Dht, undelivered := None}} =
        cluster:state(P, N),
    {Connectors, Dht, None}.

now_ms() ->
    erlang:system_time(millisecond).
