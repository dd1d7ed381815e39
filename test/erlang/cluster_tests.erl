%% SPDX-License-Identifier: Apache-2.0
%% Where profiles come from in a macula cluster, and what happens when its services fail.
-module(cluster_tests).
-include_lib("eunit/include/eunit.hrl").

-define(CACHE, macula_nat_cache).
-define(DHT, macula_routing_server).
-define(I, <<"initiator">>).
-define(T, <<"target">>).
-define(CALLERS, 200).
-define(SPAWN, (1 bsl 32)).
-define(BUSY, 16384). % SERVICES_MAX_CALLS
-define(BURST, 20000).

cluster_test_() ->
    cluster:rows(60, [
        {"a profile from macula_nat_cache", fun cached/1},
        {"profiles from the DHT in all forms", fun dht/1},
        {"compatible with v0.14.3", fun compatible/1},
        {"a profile that nobody has", fun nowhere/1},
        {"a service is missing", fun missing/1},
        {"one service is slow", fun one_is_slow/1},
        {"all services are slow", fun all_are_slow/1},
        {"services die during the call", fun dying/1},
        {"a node is killed during the call", fun(W) -> cut_off(W, "KILL") end},
        {"a node is stopped during the call", fun(W) -> cut_off(W, "STOP") end},
        {"a service comes back under its name", fun comes_back/1},
        {"a service is started late", fun starts_late/1}
    ] ++ [
        {"macula_nat_cache: another node is asked after " ++ How, fun(W) -> another(W, ?CACHE, Act) end}
        || {How, Act} <- failures()
    ] ++ [
        {"macula_routing_server: another node is asked after " ++ How, fun(W) -> another(W, ?DHT, Act) end}
        || {How, Act} <- failures()
    ] ++ [
        {"one lookup for many requests", fun single_flight/1},
        {"no cache of its own", fun without_own_cache/1},
        {"the own cache", fun own_cache/1},
        {"more than the own cache may hold", fun full_own_cache/1},
        {"a miss is not remembered", fun misses/1},
        {"the nodes of --connect are asked first", fun connect_order/1},
        {"the node of the caller is asked before others", fun caller_first/1},
        {"the cache of the caller's node is asked after not_found", fun own_after_not_found/1},
        {"a plain node costs no waiting", fun plain/1},
        {"a C node as caller", fun c_node/1},
        {"references that are not an answer's", fun references/1},
        {"nodes that come and go keep nobody waiting", fun flapping/1},
        {"many lookups wait for a node that has just connected", fun burst/1},
        {"a node has too many questions unanswered", fun busy/1}
    ]).

%%%-------------------------------------------------------------------
%%% One source after the other
%%%-------------------------------------------------------------------

cached(#{plain := P} = W) ->
    Profiles = [Target, _] = [cluster:public(?T), cluster:relay(?I)],
    Known = cluster:known(Profiles),
    Stale = fun(Request) ->
        {reply, {ok, Profile, fresh}} = Known(Request),
        {reply, {ok, Profile, stale}}
    end,
    [cluster:with(W, [], [{a, ?CACHE, Act}, {a, ?DHT, nothing_stored()}], fun(N, _) ->
        {ok, direct, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertMatch(#{target_profile := Target, strategy := direct, state := pending}, cluster:session(P, N, Id)),
        ?assertEqual(cluster:relay(?I), maps:get(initiator_profile, cluster:session(P, N, Id))),
        ?assertEqual([{get, ?I}, {get, ?T}], cluster:calls(W, a, ?CACHE)),
        ?assertEqual([], cluster:calls(W, a, ?DHT))
     end) || Act <- [Known, Stale]].

dht(#{plain := P} = W) ->
    Rows = [{<<"peer ", (integer_to_binary(I))/binary>>, Row} || {I, Row} <- lists:enumerate(dht_rows())],
    Answers = maps:from_list([{cluster:key(<<"nat.profile">>, Id), Answer(Id)} || {Id, {Answer, _, _}} <- Rows]),
    Act = cluster:stored(Answers),
    cluster:with(W, [], [{a, ?CACHE, cluster:known([])}, {a, ?DHT, Act}], fun(N, _) ->
        [begin
             {ok, Got, Session} = cluster:ask(P, N, <<"nobody">>, Id),
             ?assertEqual({Id, Strategy, Profile(Id)},
                          {Id, Got, maps:get(target_profile, cluster:session(P, N, Session))}),
             ?assert(lists:member({find_value, cluster:key(<<"nat.profile">>, Id), 20}, cluster:calls(W, a, ?DHT)))
         end || {Id, {_, Strategy, Profile}} <- Rows]
    end).

%% What the DHT answers for a peer, and what is to come of it.
dht_rows() ->
    Now = erlang:system_time(second),
    Public = fun cluster:public/1,
    At = fun(Seconds) -> fun(Id) -> (cluster:public(Id))#{detected_at => Now + Seconds} end end,
    RelayAt = fun(Seconds) -> fun(Id) -> (cluster:relay(Id))#{detected_at => Now + Seconds} end end,
    Unknown = fun(_) -> undefined end,
    List = fun(Profiles) -> fun(Id) -> {ok, [Profile(Id) || Profile <- Profiles]} end end,
    Constant = fun(Term) -> fun(_) -> Term end end,
    Other = fun(_) -> (cluster:relay(<<"another">>))#{detected_at => Now} end,
    WithoutDate = fun(Id) -> maps:remove(detected_at, cluster:relay(Id)) end,
    OddDate = fun(Id) -> (cluster:relay(Id))#{detected_at => 1 bsl 100} end,
    [
        {List([Public]), direct, Public},
        {fun(Id) -> {ok, Public(Id)} end, direct, Public},
        {List([fun binary_form/1]), direct, fun atom_form/1},
        {fun(Id) -> {ok, binary_form(Id)} end, direct, fun atom_form/1},
        {List([fun both_forms/1]), direct, fun both_forms/1},
        {List(lists:duplicate(256, Constant(#{})) ++ [Public]), hole_punch, Unknown},
        {List([fun binary_policies/1]), direct, fun atom_policies/1},
        {List([fun unknown_policies/1]), hole_punch, fun odd_policies/1},
        {List([RelayAt(-200), At(-100), RelayAt(-300)]), direct, At(-100)},
        {List([At(-100), RelayAt(-200)]), direct, At(-100)},
        {List([RelayAt(-100), At(30)]), direct, At(30)},
        {List([RelayAt(3600), At(-100), RelayAt(1 bsl 40)]), direct, At(-100)},
        {List([At(3600)]), direct, At(3600)},
        {List([WithoutDate, At(-100), OddDate]), direct, At(-100)},
        {List([Other, At(-100)]), direct, At(-100)},
        {List([Other]), hole_punch, Unknown},
        {fun(_) -> {ok, Other(x)} end, hole_punch, Unknown},
        {List([Constant(garbage), Constant(#{}), Constant(#{node_id => 17}), Constant(1.5), Constant(<<"x">>), Public]),
         direct, Public},
        {fun(Id) -> {ok, [Public(Id) | garbage]} end, direct, Public},
        {Constant({ok, [a | b]}), hole_punch, Unknown},
        {Constant({ok, []}), hole_punch, Unknown},
        {Constant({ok, "a string"}), hole_punch, Unknown},
        {Constant({ok, garbage}), hole_punch, Unknown},
        {Constant({ok, #{}}), hole_punch, Unknown},
        {Constant({nodes, []}), hole_punch, Unknown},
        {Constant({nodes, [#{id => <<1>>, address => {{127, 0, 0, 1}, 1}}]}), hole_punch, Unknown},
        {Constant({error, timeout}), hole_punch, Unknown},
        {Constant({error, {not_found, lists:seq(1, 1000)}}), hole_punch, Unknown},
        {Constant(garbage), hole_punch, Unknown},
        {Constant({ok, [Public(?T)], more}), hole_punch, Unknown},
        {Constant(binary:copy(<<"x">>, 1000000)), hole_punch, Unknown}
    ].

binary_form(Id) ->
    #{<<"node_id">> => Id, <<"mapping_policy">> => <<"ei">>, <<"filtering_policy">> => <<"ei">>,
      <<"allocation_policy">> => <<"pp">>, <<"can_receive_unsolicited">> => true, <<"requires_relay">> => false,
      <<"relay_capable">> => true, <<"detected_at">> => 1700000000, <<"ttl_seconds">> => 300,
      <<"endpoint">> => <<"192.0.2.1:4433">>, <<"unknown">> => <<"ei">>, {<<"node_id">>, 1} => []}.

%% As nat_profile() has it; what is not of its keys stays as it was.
atom_form(Id) ->
    #{node_id => Id, mapping_policy => ei, filtering_policy => ei, allocation_policy => pp,
      can_receive_unsolicited => true, requires_relay => false, relay_capable => true, detected_at => 1700000000,
      ttl_seconds => 300, endpoint => <<"192.0.2.1:4433">>, <<"unknown">> => <<"ei">>, {<<"node_id">>, 1} => []}.

%% No key is there twice afterwards.
both_forms(Id) ->
    (cluster:public(Id))#{<<"latitude">> => 1, <<"mapping_policy">> => ei}.

%% With these policies the target is a full cone.
binary_policies(Id) ->
    (cluster:public(Id))#{mapping_policy => <<"ei">>, filtering_policy => <<"ei">>, allocation_policy => <<"pp">>}.

atom_policies(Id) ->
    (cluster:public(Id))#{allocation_policy => pp}.

odd_policies(Id) ->
    (atom_form(Id))#{mapping_policy => <<"of another world">>, can_receive_unsolicited => false}.

unknown_policies(Id) ->
    (binary_form(Id))#{<<"mapping_policy">> => <<"of another world">>, <<"can_receive_unsolicited">> => false}.

%% The old rules, and nothing is read from the DHT: a peer that only the DHT knows is unknown, and never reached directly.
compatible(#{plain := P} = W) ->
    Dht = cluster:stored(#{cluster:key(<<"nat.profile">>, ?T) => {ok, [cluster:public(?T)]},
                           cluster:key(<<"peer.endpoint">>, ?T) =>
                               {ok, [#{<<"host">> => <<"h.example">>, <<"port">> => 1}]}}),
    Profiles = [cluster:profile(<<"pc">>), cluster:profile(<<"rd">>, #{allocation_policy => rd})],
    cluster:with(W, ["--compatibility", "v0_14_3"], [{a, ?CACHE, cluster:known(Profiles)}, {a, ?DHT, Dht}], fun(N, _) ->
        ?assertMatch({ok, relay, _}, cluster:ask(P, N, <<"pc">>, <<"rd">>)),
        ?assertMatch(#{strategy_rules := v0_14_3, compatibility := v0_14_3}, cluster:state(P, N)),
        {ok, hole_punch, Id} = cluster:ask(P, N, <<"pc">>, ?T),
        ?assertMatch(#{target_profile := undefined}, cluster:session(P, N, Id)),
        ?assertMatch([{store, _, _}, {store, _, _}], cluster:await_calls(W, a, ?DHT, 2))
    end),
    %% Without a cache nothing is waited for.
    cluster:with(W, ["--compatibility", "v0_14_3"], [{a, ?DHT, hold()}], fun(N, _) ->
        embed(P, N, cluster:public(?T)),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T))
    end).

nowhere(#{plain := P} = W) ->
    cluster:with(W, [], [{a, ?CACHE, cluster:known([])}, {a, ?DHT, nothing_stored()}], fun(N, _) ->
        {ok, hole_punch, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertMatch(#{initiator_profile := undefined, target_profile := undefined}, cluster:session(P, N, Id)),
        embed(P, N, cluster:public(?T)),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)),
        ?assertEqual(4, length(cluster:calls(W, a, ?CACHE))),
        Keys = [cluster:key(<<"nat.profile">>, Peer) || Peer <- [?I, ?T]],
        ?assertEqual(4, length([x || {find_value, Key, 20} <- cluster:calls(W, a, ?DHT), lists:member(Key, Keys)]))
    end).

missing(#{plain := P} = W) ->
    Profile = cluster:public(?T),
    InDht = cluster:stored(#{cluster:key(<<"nat.profile">>, ?T) => {ok, [Profile]}}),
    [cluster:with(W, [], [Service], fun(N, _) ->
        {ok, direct, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertEqual(Profile, maps:get(target_profile, cluster:session(P, N, Id)))
     end) || Service <- [{a, ?CACHE, cluster:known([Profile])}, {b, ?DHT, InDht}]].

%%%-------------------------------------------------------------------
%%% Services that fail
%%%-------------------------------------------------------------------

one_is_slow(#{plain := P} = W) ->
    Profile = cluster:public(?T),
    InDht = cluster:stored(#{cluster:key(<<"nat.profile">>, ?T) => {ok, [Profile]}}),
    cluster:with(W, ["--lookup-timeout-ms", "1000"], [{a, ?CACHE, hold()}, {a, ?DHT, InDht}], fun(N, _) ->
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T))
    end),
    %% An answer of the cache that comes while the DHT is being asked is good.
    cluster:with(W, ["--lookup-timeout-ms", "1000"], [{a, ?CACHE, hold()}, {a, ?DHT, hold()}], fun(N, _) ->
        Asking = cluster:asking(P, N, ?I, ?T),
        _ = cluster:await_calls(W, a, ?DHT, 2),
        cluster:release(W, a, ?CACHE, fun({get, Id}) -> {ok, cluster:public(Id), stale} end),
        ?assertMatch({ok, direct, _}, cluster:answer(Asking))
    end).

all_are_slow(#{plain := P} = W) ->
    cluster:with(W, [], [{Key, Name, hold()} || Key <- [a, b], Name <- [?CACHE, ?DHT]], fun(N, _) ->
        embed(P, N, cluster:public(?T)),
        {ok, direct, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertMatch(#{initiator_profile := undefined, target_profile := #{node_id := ?T}}, cluster:session(P, N, Id)),
        %% Answers that come after all change nothing.
        Held = lists:sum([length(cluster:calls(W, Key, Name)) || Key <- [a, b], Name <- [?CACHE, ?DHT]]),
        [cluster:release(W, Key, Name, fun(_) -> {ok, cluster:relay(?T), fresh} end)
         || Key <- [a, b], Name <- [?CACHE, ?DHT]],
        cnode:await(fun() -> cluster:state(P, N, [calls, answers_too_late]) =:= Held end),
        ?assertEqual(0, cluster:state(P, N, [lookups, from_macula_nat_cache]))
    end).

dying(#{plain := P} = W) ->
    Profile = cluster:public(?T),
    InDht = cluster:stored(#{cluster:key(<<"nat.profile">>, ?T) => {ok, [Profile]}}),
    cluster:with(W, [], [{a, ?CACHE, crash()}, {a, ?DHT, InDht}], fun(N, _) ->
        {ok, direct, Id} = cluster:ask(P, N, ?I, ?T),
        ?assertEqual(Profile, maps:get(target_profile, cluster:session(P, N, Id)))
    end),
    cluster:with(W, [], [{a, ?CACHE, crash()}, {a, ?DHT, crash()}], fun(N, _) ->
        embed(P, N, Profile),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)),
        cluster:await_services(P, N, #{?CACHE => 0, ?DHT => 0})
    end).

%% The node that has been asked is no more, or says no more; another one has the profile.
cut_off(#{a := A, plain := P} = W, Signal) ->
    Peer = #{node := Node} = cnode:peer(),
    OsPid = cnode:on(Peer, fun os:getpid/0),
    Args = ["--connect", atom_to_list(Node), "--lookup-timeout-ms", "1000"],
    cluster:with(W, Args, [], fun(N, _) ->
        cnode:on(Peer, fun() -> [ok = double:start(Name, hold()) || Name <- [?CACHE, ?DHT]] end),
        cnode:on(A, fun() -> ok = double:start(?CACHE, cluster:known([cluster:public(?T)])) end),
        cluster:await_services(P, N, #{?CACHE => 2, ?DHT => 1}),
        Asking = cluster:asking(P, N, ?I, ?T),
        _ = cnode:on(Peer, fun() -> double:await_calls(?CACHE, 2) end),
        _ = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
        ?assertMatch({ok, direct, _}, cluster:answer(Asking)),
        Signal =:= "KILL" andalso cluster:await_services(P, N, #{?CACHE => 1, ?DHT => 0}),
        %% No other has it now, and one of those to be asked may still be the silent one.
        cluster:act(W, a, ?CACHE, crash()),
        embed(P, N, cluster:relay(<<"y">>)),
        ?assertMatch({ok, relay, _}, cluster:ask(P, N, <<"x">>, <<"y">>)),
        cluster:await_rest(P, N),
        end_by_force(Peer, OsPid)
    end).

end_by_force(#{peer := Pid}, OsPid) ->
    unlink(Pid),
    Ref = monitor(process, Pid),
    _ = os:cmd("kill -KILL " ++ OsPid),
    receive {'DOWN', Ref, process, Pid, _} -> ok end.

comes_back(#{a := A, plain := P} = W) ->
    cluster:with(W, [], [{a, ?CACHE, cluster:known([cluster:public(?T)])}], fun(N, _) ->
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)),
        cnode:on(A, fun() -> double:stop(?CACHE) end),
        cluster:await_services(P, N, #{?CACHE => 0}),
        ?assertMatch({ok, hole_punch, _}, cluster:ask(P, N, <<"x">>, <<"y">>)),
        cnode:on(A, fun() -> double:start(?CACHE, cluster:known([cluster:public(<<"y">>)])) end),
        cluster:await_services(P, N, #{?CACHE => 1}),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, <<"x">>, <<"y">>))
    end).

starts_late(#{b := B, plain := P} = W) ->
    cluster:with(W, [], [], fun(N, _) ->
        ?assertMatch({ok, hole_punch, _}, cluster:ask(P, N, ?I, ?T)),
        cnode:on(B, fun() -> double:start(?CACHE, cluster:known([cluster:public(?T)])) end),
        cluster:await_services(P, N, #{?CACHE => 1}, 10000),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T))
    end).

failures() ->
    [{"a crash", crash()},
     {"silence", hold()},
     {"an error", fun(_) -> {reply, {error, not_now}} end},
     {"garbage", fun(_) -> {reply, [garbage, #{a => 1}]} end}].

%% One node fails, the other has the profile: with --connect the one that fails is asked first.
another(#{a := #{node := NodeA}, plain := P} = W, Name, Failure) ->
    Profile = cluster:public(?T),
    Good =
        case Name of
            ?CACHE -> cluster:known([Profile]);
            ?DHT -> cluster:stored(#{cluster:key(<<"nat.profile">>, ?T) => {ok, [Profile]}})
        end,
    Args = ["--connect", atom_to_list(NodeA), "--lookup-timeout-ms", "1000"],
    cluster:with(W, Args, [{a, Name, Failure}, {b, Name, Good}], fun(N, _) ->
        {ok, direct, Id} = cluster:ask(P, N, <<"nobody">>, ?T),
        ?assertEqual(Profile, maps:get(target_profile, cluster:session(P, N, Id)))
    end).

%%%-------------------------------------------------------------------
%%% How often, and whom
%%%-------------------------------------------------------------------

single_flight(#{a := A, plain := P} = W) ->
    Args = ["--lookup-timeout-ms", "60000"],
    cluster:with(W, Args, [{a, ?CACHE, hold()}], fun(N, _) ->
        %% Both directions, from two nodes.
        Asking = [cluster:asking(Peer, N, From, To)
                  || Peer <- [A, P], {From, To} <- [{?I, ?T}, {?T, ?I}], _ <- lists:seq(1, ?CALLERS div 4)],
        %% Both peers are being looked up although neither has been found.
        ?assertEqual([{get, ?I}, {get, ?T}], cluster:await_calls(W, a, ?CACHE, 2)),
        cnode:await(fun() -> cluster:state(P, N, [waiting_for, requests]) =:= ?CALLERS end),
        ?assertEqual(2, cluster:state(P, N, [waiting_for, lookups])),
        %% Another pair does not stand behind them.
        Other = cluster:asking(P, N, <<"x">>, <<"y">>),
        _ = cluster:await_calls(W, a, ?CACHE, 4),
        cluster:release(W, a, ?CACHE, fun({get, Id}) -> {ok, cluster:public(Id), fresh} end),
        [?assertMatch({ok, direct, _}, cluster:answer(Each)) || Each <- [Other | Asking]],
        ?assertEqual(4, length(cluster:calls(W, a, ?CACHE))),
        ?assertEqual(4, cluster:state(P, N, [calls, made]))
    end).

without_own_cache(#{plain := P} = W) ->
    Known = cluster:known([cluster:public(?T), cluster:public(?I)]),
    cluster:with(W, ["--profile-cache-ttl-ms", "0"], [{a, ?CACHE, Known}], fun(N, _) ->
        [?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)) || _ <- lists:seq(1, 3)],
        ?assertEqual(6, length(cluster:calls(W, a, ?CACHE)))
    end).

%% The time that it keeps profiles is so long that nothing but a change ends it.
own_cache(#{plain := P} = W) ->
    Known = cluster:known([cluster:public(?T), cluster:public(?I)]),
    cluster:with(W, ["--profile-cache-ttl-ms", "600000"], [{a, ?CACHE, Known}], fun(N, _) ->
        Ask = fun() ->
            {ok, Strategy, _} = cluster:ask(P, N, ?I, ?T),
            {Strategy, length(cluster:calls(W, a, ?CACHE))}
        end,
        ?assertEqual([{direct, 2}, {direct, 2}], [Ask(), Ask()]),
        cluster:act(W, a, ?CACHE, cluster:known([cluster:relay(?T), cluster:relay(?I)])),
        ?assertEqual({direct, 2}, Ask()),
        cast(P, N, {invalidate, ?T}),
        ?assertEqual([{direct, 3}, {direct, 3}], [Ask(), Ask()]),
        cast(P, N, {put, ?I, cluster:public(?I), 300}),
        ?assertEqual([{relay, 4}, {relay, 4}], [Ask(), Ask()]),
        cluster:act(W, a, ?CACHE, cluster:known([cluster:public(?T), cluster:public(?I)])),
        cast(P, N, clear),
        ?assertEqual([{direct, 6}, {direct, 6}], [Ask(), Ask()]),
        cast(P, N, {invalidate, <<"another">>}),
        ?assertEqual({direct, 6}, Ask())
    end),
    %% What it has is dropped after its time.
    cluster:with(W, ["--profile-cache-ttl-ms", "50"], [{a, ?CACHE, Known}], fun(N, _) ->
        cnode:await(fun() ->
            {ok, direct, _} = cluster:ask(P, N, ?I, ?T),
            length(cluster:calls(W, a, ?CACHE)) >= 6
        end)
    end).

%% Its 256 MiB have room for fewer of the profiles than are asked for; one more may come before the oldest goes. The few
%% sessions that are kept hold no others.
full_own_cache(#{plain := P} = W) ->
    Large = fun(Id) -> (cluster:public(Id))#{location_label => binary:copy(<<"x">>, 1000000)} end,
    Args = ["--profile-cache-ttl-ms", "600000", "--max-sessions", "2"],
    cluster:with(W, Args, [{a, ?CACHE, fun({get, Id}) -> {reply, {ok, Large(Id), fresh}} end}], fun(N, Handle) ->
        Size = byte_size(term_to_binary(Large(<<"100">>))),
        Room = (256 bsl 20) div Size,
        Ask = fun(Id) -> {ok, direct, _} = cluster:ask(P, N, integer_to_binary(Id), integer_to_binary(Id + 1)) end,
        Asked = fun() -> length(cluster:calls(W, a, ?CACHE)) end,
        [Ask(Id) || Id <- lists:seq(1, 299, 2)],
        ?assertEqual(300, Asked()),
        %% What came last is all there.
        [Ask(Id) || Id <- lists:seq(301 - (Room div 2) * 2, 299, 2)],
        ?assertEqual(300, Asked()),
        cnode:is_instrumented(Handle) orelse ?assert(cnode:memory(Handle) < 300 * 1024),
        %% What came first is not.
        Gone = lists:seq(1, 300 - Room - 2, 2),
        [Ask(Id) || Id <- Gone],
        ?assertEqual(300 + 2 * length(Gone), Asked())
    end).

misses(#{plain := P} = W) ->
    Services = [{a, ?CACHE, cluster:known([])}, {a, ?DHT, nothing_stored()}],
    cluster:with(W, ["--profile-cache-ttl-ms", "600000"], Services, fun(N, _) ->
        ?assertMatch({ok, hole_punch, _}, cluster:ask(P, N, ?I, ?T)),
        cluster:act(W, a, ?CACHE, cluster:known([cluster:public(?T)])),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)),
        ?assertEqual([{get, ?I}, {get, ?I}, {get, ?T}, {get, ?T}], cluster:calls(W, a, ?CACHE))
    end),
    %% What the embedded cache has is not kept either: macula is asked again.
    cluster:with(W, ["--profile-cache-ttl-ms", "600000"], Services, fun(N, _) ->
        embed(P, N, cluster:public(?T)),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)),
        cluster:act(W, a, ?CACHE, cluster:known([cluster:relay(?T)])),
        ?assertMatch({ok, relay, _}, cluster:ask(P, N, ?I, ?T))
    end).

connect_order(#{a := #{node := NodeA} = A, b := #{node := NodeB} = B, plain := P} = W) ->
    Args = ["--connect", atom_to_list(NodeB), "--connect", atom_to_list(NodeA)],
    cluster:with(W, Args, everywhere(), fun(N, _) ->
        ?assertEqual([b], asked(W, P, N, <<"1">>)),
        ?assertEqual([b], asked(W, A, N, <<"2">>)),
        cnode:on(B, fun() -> double:stop(?CACHE) end),
        cluster:await_services(P, N, #{?CACHE => 2}),
        ?assertEqual([a], asked(W, P, N, <<"3">>)),
        cnode:on(A, fun() -> double:stop(?CACHE) end),
        cluster:await_services(P, N, #{?CACHE => 1}),
        ?assertEqual([plain], asked(W, P, N, <<"4">>)),
        cnode:on(B, fun() -> double:start(?CACHE, every_profile()) end),
        cluster:await_services(P, N, #{?CACHE => 2}),
        ?assertEqual([b], asked(W, P, N, <<"5">>))
    end).

caller_first(#{a := A, b := B, plain := P} = W) ->
    cluster:with(W, [], everywhere(), fun(N, _) ->
        ?assertEqual([a], asked(W, A, N, <<"1">>)),
        ?assertEqual([b], asked(W, B, N, <<"2">>)),
        ?assertEqual([plain], asked(W, P, N, <<"3">>)),
        cnode:on(P, fun() -> double:stop(?CACHE) end),
        cluster:await_services(A, N, #{?CACHE => 2}),
        %% A caller without macula on its node is served through another one.
        ?assertMatch([Key] when Key =:= a; Key =:= b, asked(W, P, N, <<"4">>))
    end).

%% After the first node of --connect the caller's own, whatever else is connected; then the DHT.
own_after_not_found(#{a := #{node := NodeA} = A, b := #{node := NodeB}, plain := P} = W) ->
    Dht = cluster:stored(#{cluster:key(<<"nat.profile">>, <<"2">>) => {ok, [cluster:public(<<"2">>)]}}),
    Services = [{a, ?CACHE, cluster:known([])}, {b, ?CACHE, every_profile()}, {a, ?DHT, Dht},
                {plain, ?CACHE, cluster:known([cluster:public(<<"1">>)])}],
    Args = ["--connect", atom_to_list(NodeA), "--connect", atom_to_list(NodeB)],
    cluster:with(W, Args, Services, fun(N, _) ->
        ?assertEqual([a, plain], asked(W, P, N, <<"1">>)),
        Find = fun(Id) -> {find_value, cluster:key(<<"nat.profile">>, Id), 20} end,
        ?assertNot(lists:member(Find(<<"1">>), cluster:calls(W, a, ?DHT))),
        ?assertEqual([a, plain], asked(W, P, N, <<"2">>)),
        ?assert(lists:member(Find(<<"2">>), cluster:calls(W, a, ?DHT))),
        %% It is asked once, where it is the first as well.
        {ok, hole_punch, _} = cluster:ask(A, N, ?I, <<"3">>),
        ?assertEqual([{get, <<"3">>}], [Get || {get, <<"3">>} = Get <- cluster:calls(W, a, ?CACHE)]),
        ?assertEqual([], cluster:calls(W, b, ?CACHE))
    end).

everywhere() ->
    [{Key, ?CACHE, every_profile()} || Key <- [a, b, plain]].

every_profile() ->
    fun({get, Id}) -> {reply, {ok, cluster:public(Id), fresh}} end.

%% The nodes that were asked for a peer when a node wanted to know.
asked(W, From, N, Id) ->
    {ok, direct, _} = cluster:ask(From, N, ?I, Id),
    [Key || Key <- [a, b, plain],
            cnode:on(maps:get(Key, W), fun() ->
                whereis(?CACHE) =/= undefined andalso lists:member({get, Id}, double:calls(?CACHE))
            end)].

%% With a limit of a minute, whatever waits for somebody is too late for the caller's 5 s.
plain(#{a := A, b := B, plain := P} = W) ->
    cluster:with(W, ["--lookup-timeout-ms", "60000"], [], fun(N, _) ->
        [?assertMatch({ok, hole_punch, _}, cluster:ask(Peer, N, ?I, ?T)) || Peer <- [A, B, P]],
        New = cnode:peer(),
        ?assertMatch({ok, hole_punch, _}, cluster:ask(New, N, ?I, ?T)),
        cnode:peer_stop(New)
    end).

%% A C node cannot spawn for others and need not answer monitors. Neither may keep itself or others waiting.
c_node(#{plain := P} = W) ->
    OfC = raw_dist:flags() band bnot ?SPAWN,
    [cluster:with(W, ["--lookup-timeout-ms", "60000"], Services, fun(N, _) ->
        Peer = raw_peer(N, Flags),
        {Frames, _} = raw_dist:call_frames(Peer, macula_nat_coordinator, {request_connection, ?I, ?T, #{}}, 1),
        ok = raw_dist:send(Peer, Frames),
        %% A C node is asked for no services: the answer is the first that it gets.
        case raw_dist:recv(Peer) of
            {_, {_, Answer}} -> ?assertMatch({OfC, {ok, Strategy, _}}, {Flags, Answer});
            {{19, _, _, _}} ->
                ?assertNotEqual(OfC, Flags),
                ?assertMatch({ok, {ok, Strategy, _}}, raw_dist:await_reply(Peer, 1))
        end,
        ?assertMatch({ok, Strategy, _}, cluster:ask(P, N, <<"x">>, <<"y">>)),
        raw_dist:close(Peer)
     end) || {Services, Strategy} <- [{[], hole_punch}, {[{a, ?CACHE, every_profile()}], direct}],
             Flags <- [OfC, raw_dist:flags()]].

%%%-------------------------------------------------------------------
%%% A service that answers other questions than it was asked
%%%-------------------------------------------------------------------

%% The program's references are numbers: a service can guess those of its monitors and of other calls.
references(#{a := A, plain := P} = W) ->
    cluster:with(W, [], [], fun(N, Handle) ->
        Service = cnode:on(A, fun() -> guesser() end),
        cluster:await_services(P, N, #{?CACHE => 1}),
        ?assertMatch({ok, direct, _}, cluster:ask(P, N, ?I, ?T)),
        ?assert(cnode:is_alive(Handle)),
        ?assertMatch(#{?CACHE := 1}, maps:get(services, cluster:state(P, N))),
        cnode:on(A, fun() ->
            Ref = monitor(process, Service),
            exit(Service, kill),
            receive {'DOWN', Ref, process, Service, _} -> ok end
        end),
        cluster:await_services(P, N, #{?CACHE => 0})
    end).

guesser() ->
    Self = self(),
    Pid = spawn(fun() -> register(?CACHE, self()), Self ! {self(), ready}, guess() end),
    receive {Pid, ready} -> Pid end.

guess() ->
    receive
        {'$gen_call', {Pid, Ref}, {get, Id}} ->
            Binary = term_to_binary(Ref),
            Size = byte_size(Binary) - 12,
            <<Head:Size/binary, Number:32, Rest/binary>> = Binary,
            [Pid ! {binary_to_term(<<Head/binary, Guess:32, Rest/binary>>), {ok, cluster:relay(Id), fresh}}
             || Guess <- lists:seq(0, Number + 20), Guess =/= Number, Guess < Number orelse Guess > Number + 3],
            Pid ! {Ref, {ok, cluster:public(Id), fresh}},
            guess()
    end.

%%%-------------------------------------------------------------------
%%% Nodes that do not answer
%%%-------------------------------------------------------------------

%% There is always one of them that has not yet said what it has.
flapping(#{plain := P} = W) ->
    cluster:with(W, ["--lookup-timeout-ms", "60000"], [], fun(N, _) ->
        Flapping = flap(N),
        [?assertMatch({ok, hole_punch, _}, cluster:ask(P, N, <<X>>, ?T)) || X <- lists:seq(1, 5)],
        stop_flapping(Flapping)
    end).

%% The node that they wait for says that it has a macula_nat_cache, and no more: nobody may notice how many go on then.
burst(#{plain := P} = W) ->
    cluster:with(W, ["--lookup-timeout-ms", "60000"], [], fun(N, Handle) ->
        Flapping = flap(N),
        Peer = raw_peer(N, raw_dist:flags()),
        {{19, Process, ?CACHE, _}} = raw_dist:recv(Peer),
        {{19, Process, Fence, Ref}} = raw_dist:recv(Peer),
        ok = raw_dist:send(Peer, [requests(Peer, ?BURST), raw_dist:frame({21, Fence, Process, Ref, noproc})]),
        _ = spawn_link(fun() -> raw_dist:await_close(Peer) end),
        cluster:await_services(P, N, #{?CACHE => 1}),
        stop_flapping(Flapping),
        raw_dist:close(Peer),
        cluster:await_rest(P, N),
        ?assertEqual(?BURST, cluster:state(P, N, [counters, requests])),
        ?assert(cnode:is_alive(Handle))
    end).

%% Others are asked then, and if there are none, the profile counts as unknown.
busy(#{a := #{node := NodeA}, b := B, plain := P} = W) ->
    Args = ["--connect", atom_to_list(NodeA), "--lookup-timeout-ms", "60000"],
    cluster:with(W, Args, [{a, ?CACHE, hold()}], fun(N, _) ->
        Peer = raw_peer(N, raw_dist:flags() band bnot ?SPAWN),
        ok = raw_dist:send(Peer, requests(Peer, ?BUSY div 2)),
        Calls = fun() -> cluster:state(P, N, [waiting_for, calls]) end,
        cnode:await(fun() -> Calls() =:= ?BUSY end),
        ?assertMatch({ok, hole_punch, _}, cluster:ask(P, N, ?I, ?T)),
        ?assertEqual(?BUSY, Calls()),
        cnode:on(B, fun() -> ok = double:start(?CACHE, every_profile()) end),
        cluster:await_services(P, N, #{?CACHE => 2}),
        ?assertEqual([b], asked(W, P, N, <<"1">>)),
        cluster:act(W, a, ?CACHE, every_profile()),
        cluster:release(W, a, ?CACHE, fun({get, Id}) -> {ok, cluster:public(Id), fresh} end),
        cnode:await(fun() -> Calls() =:= 0 end),
        ?assertEqual([a], asked(W, P, N, <<"2">>)),
        raw_dist:close(Peer)
    end).

requests(Peer, Count) ->
    [begin
         {Frames, _} = raw_dist:call_frames(Peer, macula_nat_coordinator,
                                            {request_connection, <<X:32>>, <<X:32, "target">>, #{}}, X),
         Frames
     end || X <- lists:seq(1, Count)].

%% Nodes that answer no monitors come and go, a few of them at a time, until that is stopped.
flap(N) ->
    Self = self(),
    Pid = spawn_link(fun() ->
        First = raw_peer(N, raw_dist:flags()),
        Self ! {self(), flapping},
        flap(N, [First])
    end),
    receive {Pid, flapping} -> Pid end.

flap(N, Peers) ->
    receive
        {stop, From} ->
            lists:foreach(fun raw_dist:close/1, Peers),
            From ! {self(), stopped}
    after 20 ->
        {Stay, Go} = lists:split(min(4, length(Peers)), Peers),
        lists:foreach(fun raw_dist:close/1, Go),
        flap(N, [raw_peer(N, raw_dist:flags()) | Stay])
    end.

stop_flapping(Pid) ->
    Pid ! {stop, self()},
    receive {Pid, stopped} -> ok end.

raw_peer(N, Flags) ->
    {ok, Peer} = raw_dist:connect(N, #{name => list_to_atom(cnode:unique("c") ++ "@127.0.0.1"), flags => Flags}),
    Peer.

%%%-------------------------------------------------------------------
%%% Helpers
%%%-------------------------------------------------------------------

hold() ->
    fun(_) -> hold end.

crash() ->
    fun(_) -> crash end.

nothing_stored() ->
    cluster:stored(#{}).

cast(P, N, Message) ->
    cnode:on(P, fun() ->
        ok = gen_server:cast({?CACHE, N}, Message),
        %% From here on it has been handled.
        #{} = gen_server:call({?CACHE, N}, stats)
    end).

embed(P, N, #{node_id := Id} = Profile) ->
    cast(P, N, {put, Id, Profile, 300}).
