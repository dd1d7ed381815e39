%% SPDX-License-Identifier: Apache-2.0
%% The requests of the coordinator and of the embedded profile cache: the program against the oracle.
-module(requests_tests).
-include_lib("eunit/include/eunit.hrl").

-define(NAME, macula_nat_coordinator).
-define(AT(Node), {macula_nat_coordinator, Node}).
-define(CACHE(Node), {macula_nat_cache, Node}).
-define(RUNS, 1000).

requests_test_() ->
    [compare:rows(cache() ++ requests() ++ arguments()),
     [{setup, fun() -> compare:world(["--strategy-rules", Rules]) end, fun compare:stop/1, fun strategies/1}
      || Rules <- ["documented", "v0_14_3"]],
     {"the rules differ as they should", {timeout, 120, fun rules_differ/0}}].

%%%-------------------------------------------------------------------
%%% The embedded cache
%%%-------------------------------------------------------------------

cache() ->
    Put = fun(Act) ->
        fun(N) ->
            Id = <<"put">>,
            ok = gen_server:cast(?CACHE(N), {invalidate, Id}),
            not_found = gen_server:call(?CACHE(N), {get, Id}),
            Result = Act(N, Id, profile(Id)),
            {Result, got(gen_server:call(?CACHE(N), {get, Id}))}
        end
    end,
    Stored = fun(Result, Ttl) -> {Result, {ok, (profile(<<"put">>))#{ttl_seconds => Ttl, detected_at => now}, fresh}} end,
    [
        {"put with a cast", Put(fun(N, Id, P) -> gen_server:cast(?CACHE(N), {put, Id, P, 77}) end), Stored(ok, 77)},
        {"put with a message", Put(fun(N, Id, P) -> ?CACHE(N) ! {'$gen_cast', {put, Id, P, 78}}, sent end),
         Stored(sent, 78)},
        {"put/2 with rpc:call", Put(fun(N, Id, P) -> rpc:call(N, macula_nat_cache, put, [Id, P]) end), Stored(ok, 300)},
        {"put/3 with rpc:call", Put(fun(N, Id, P) -> rpc:call(N, macula_nat_cache, put, [Id, P, 79]) end), Stored(ok, 79)},
        {"put/3 with erpc:call", Put(fun(N, Id, P) -> erpc:call(N, macula_nat_cache, put, [Id, P, 80]) end), Stored(ok, 80)},
        {"put/2 with rpc:block_call", Put(fun(N, Id, P) -> rpc:block_call(N, macula_nat_cache, put, [Id, P]) end),
         Stored(ok, 300)},
        {"a later put takes the place of an earlier one",
         Put(fun(N, Id, P) -> [gen_server:cast(?CACHE(N), {put, Id, P#{try_number => I}, I}) || I <- [1, 2, 3]],
                              gen_server:cast(?CACHE(N), {put, Id, P, 81}) end), Stored(ok, 81)},
        {"put of what is no profile",
         Put(fun(N, Id, P) ->
             gen_server:cast(?CACHE(N), {put, Id, P, 82}),
             [gen_server:cast(?CACHE(N), Term) || Term <- [{put, Id, not_a_map, 1}, {put, Id}, put, {put, Id, P, x}]], ok
         end), Stored(ok, 82)},
        {"put/2 with a guard that fails", fun(N) -> guard(N, put, [<<"id">>, not_a_map]) end, function_clause},
        {"put/3 with a guard that fails", fun(N) -> guard(N, put, [<<"id">>, #{}, 0]) end, function_clause},
        {"invalidate/1 with a guard that fails", fun(N) -> guard(N, invalidate, [id]) end, function_clause},
        {"get_from_dht/1 with a guard that fails", fun(N) -> guard(N, get_from_dht, ["id"]) end, function_clause},
        {"get of an id that is no binary", fun(N) -> gen_server:call(?CACHE(N), {get, not_a_binary}) end, not_found},
        {"any other call", fun(N) -> gen_server:call(?CACHE(N), {no, such, request}) end, {error, unknown_request}},
        {"any other cast and message",
         fun(N) -> gen_server:cast(?CACHE(N), x), ?CACHE(N) ! x, gen_server:call(?CACHE(N), {get, <<"nobody">>}) end,
         not_found},
        {"get/1", fun(N) -> stored(N, <<"a">>), got(rpc:call(N, macula_nat_cache, get, [<<"a">>])) end,
         {ok, (profile(<<"a">>))#{ttl_seconds => 300, detected_at => now}, fresh}},
        {"get_from_dht/1 of what is here",
         fun(N) ->
             stored(N, <<"a">>),
             {ok, #{node_id := Id}} = rpc:call(N, macula_nat_cache, get_from_dht, [<<"a">>]),
             Id
         end, <<"a">>},
        {"get_from_dht/1 of what is not", fun(N) -> rpc:call(N, macula_nat_cache, get_from_dht, [<<"nobody">>]) end,
         {error, routing_server_unavailable}},
        {"stale after its time",
         fun(N) ->
             ok = gen_server:cast(?CACHE(N), {put, <<"s">>, public(<<"s">>), 1}),
             {ok, _, fresh} = gen_server:call(?CACHE(N), {get, <<"s">>}),
             cnode:await(fun() -> {ok, _, How} = gen_server:call(?CACHE(N), {get, <<"s">>}), How =:= stale end),
             {strategy(N, <<"nobody">>, <<"s">>), got(gen_server:call(?CACHE(N), {get, <<"s">>}))}
         end, {direct, {ok, (public(<<"s">>))#{ttl_seconds => 1, detected_at => now}, stale}}},
        {"invalidate",
         fun(N) ->
             stored(N, <<"a">>),
             {rpc:call(N, macula_nat_cache, invalidate, [<<"a">>]), gen_server:call(?CACHE(N), {get, <<"a">>})}
         end, {ok, not_found}},
        {"clear",
         fun(N) ->
             [stored(N, Id) || Id <- [<<"a">>, <<"b">>]],
             {rpc:call(N, macula_nat_cache, clear, []), [gen_server:call(?CACHE(N), {get, Id}) || Id <- [<<"a">>, <<"b">>]]}
         end, {ok, [not_found, not_found]}},
        {"stats",
         fun(N) ->
             ok = gen_server:cast(?CACHE(N), clear),
             Empty = gen_server:call(?CACHE(N), stats),
             [stored(N, Id) || Id <- [<<"a">>, <<"b">>, <<"a">>]],
             [gen_server:call(?CACHE(N), {get, Id}) || Id <- [<<"a">>, <<"b">>, <<"a">>, <<"nobody">>]],
             {Empty, rpc:call(N, macula_nat_cache, stats, [])}
         end,
         {#{size => 0, max_entries => 10000, hits => 0, misses => 0, evictions => 0, hit_rate => 0.0},
          #{size => 2, max_entries => 10000, hits => 3, misses => 1, evictions => 0, hit_rate => 0.75}}},
        {"at the limit the oldest goes first",
         fun(N) ->
             ok = gen_server:cast(?CACHE(N), clear),
             [gen_server:cast(?CACHE(N), {put, <<I:32>>, #{node_id => <<I:32>>}, 300}) || I <- lists:seq(1, 10003)],
             #{size := Size, evictions := Evictions} = gen_server:call(?CACHE(N), stats),
             Left = [I || I <- [1, 2, 3, 4, 5, 10000, 10003], gen_server:call(?CACHE(N), {get, <<I:32>>}) =/= not_found],
             ok = gen_server:cast(?CACHE(N), clear),
             {Size, Evictions, Left}
         end, {10000, 3, [4, 5, 10000, 10003]}},
        {"a profile is kept term for term",
         fun(N) ->
             Profile = (profile(<<"t">>))#{extra => terms(), {a, key} => 1, <<"binary key">> => x, "list" => y, 1.5 => z},
             ok = gen_server:cast(?CACHE(N), {put, <<"t">>, Profile, 300}),
             {ok, Got, fresh} = gen_server:call(?CACHE(N), {get, <<"t">>}),
             {ok, hole_punch, Id} = gen_server:call(?AT(N), {request_connection, <<"nobody">>, <<"t">>, #{}}),
             #{target_profile := Shown} = session(N, Id),
             Own = fun(P) -> maps:without([ttl_seconds, detected_at], P) end,
             {Own(Got) =:= Own(Profile), Shown =:= Got}
         end, {true, true}}
    ].

guard(N, Function, Arguments) ->
    {badrpc, {'EXIT', {Reason, _}}} = rpc:call(N, macula_nat_cache, Function, Arguments),
    Reason.

stored(N, Id) ->
    ok = gen_server:cast(?CACHE(N), {put, Id, profile(Id), 300}).

%% The date of a put is now, give or take what a loaded machine needs.
got({ok, #{detected_at := Date} = Profile, How}) when is_integer(Date) ->
    case abs(erlang:system_time(second) - Date) < 60 of
        true -> {ok, Profile#{detected_at := now}, How};
        false -> {wrong_date, Date}
    end;
got(Other) ->
    Other.

profile(Id) ->
    #{node_id => Id, mapping_policy => hd, filtering_policy => pd, allocation_policy => pp,
      can_receive_unsolicited => false, requires_relay => false, relay_capable => false, detected_at => 1,
      ttl_seconds => 2, reflexive_address => {{203, 0, 113, 5}, 4433}}.

public(Id) ->
    (profile(Id))#{mapping_policy => ei, filtering_policy => ei, can_receive_unsolicited => true}.

symmetric(Id) ->
    (profile(Id))#{mapping_policy => pd, allocation_policy => rd, requires_relay => true}.

terms() ->
    [foo, 'naïve ☃', [], [a | b], "text", {}, 0, -1, 256, 1 bsl 40, -(1 bsl 70), 1 bsl 3000, 1.5e300, <<>>, <<5:3>>, #{},
     #{a => #{b => [c]}}, make_ref(), self(), fun lists:map/2, fun() -> ok end, hd(erlang:ports()),
     list_to_tuple(lists:seq(1, 300)), binary:copy(<<"x">>, 10000),
     lists:foldl(fun(_, Inner) -> [Inner] end, x, lists:seq(1, 200))].

session(N, Id) ->
    [Session] = [S || #{session_id := I} = S <- gen_server:call(?AT(N), get_pending), I =:= Id],
    Session.

%% The strategy that is answered for two ids, or the error.
strategy(N, InitiatorId, TargetId) ->
    case gen_server:call(?AT(N), {request_connection, InitiatorId, TargetId, #{}}) of
        {ok, Strategy, Id} ->
            true = is_session_id(Id),
            Strategy;
        Other ->
            Other
    end.

%% 16 random bytes as base64.
is_session_id(Id) ->
    {byte_size(Id), byte_size(base64:decode(Id))} =:= {24, 16}.

%%%-------------------------------------------------------------------
%%% request_connection
%%%-------------------------------------------------------------------

requests() ->
    Put = fun(N, Profiles) -> [gen_server:cast(?CACHE(N), {put, Id, P, 300}) || #{node_id := Id} = P <- Profiles] end,
    Ways = [
        {"call by name", fun(N, Args) -> gen_server:call(?AT(N), list_to_tuple([request_connection | pad(Args)])) end},
        {"call by pid",
         fun(N, Args) -> gen_server:call(compare:pid(N), list_to_tuple([request_connection | pad(Args)])) end},
        {"rpc:call", fun(N, Args) -> rpc:call(N, ?NAME, request_connection, Args) end},
        {"rpc:block_call", fun(N, Args) -> rpc:block_call(N, ?NAME, request_connection, Args) end},
        {"erpc:call", fun(N, Args) -> erpc:call(N, ?NAME, request_connection, Args) end}
    ],
    [{"request_connection with " ++ Way,
      fun(N) ->
          Put(N, [profile(<<"p">>), public(<<"o">>), symmetric(<<"y">>)]),
          [begin {ok, Strategy, Id} = Call(N, Args), true = is_session_id(Id), Strategy end
           || Args <- [[<<"p">>, <<"o">>], [<<"p">>, <<"y">>], [<<"y">>, <<"p">>, #{}], [<<"p">>, <<"nobody">>],
                       [<<"nobody">>, <<"o">>], [<<"nobody">>, <<"y">>, #{unknown_option => x}],
                       [<<"nobody">>, <<"nobody else">>], [<<"y">>, <<"nobody">>], [<<>>, <<0>>]]]
      end, [direct, relay, relay, hole_punch, direct, relay, hole_punch, relay, hole_punch]} || {Way, Call} <- Ways]
    ++ [
        {"a session has what is documented, and nothing else",
         fun(N) ->
             Put(N, [profile(<<"p">>), symmetric(<<"y">>)]),
             {ok, relay, Id} = gen_server:call(?AT(N), {request_connection, <<"p">>, <<"y">>, #{}}),
             Session = #{session_id := Id, created_at := Created} = session(N, Id),
             true = abs(erlang:system_time(second) - Created) < 60,
             #{initiator_profile := I, target_profile := T} = Session,
             Session#{session_id := id, created_at := now, initiator_profile := I#{detected_at := now},
                      target_profile := T#{detected_at := now}}
         end,
         #{session_id => id, initiator_id => <<"p">>, target_id => <<"y">>, strategy => relay, state => pending,
           attempts => 0, created_at => now,
           initiator_profile => (profile(<<"p">>))#{detected_at => now, ttl_seconds => 300},
           target_profile => (symmetric(<<"y">>))#{detected_at => now, ttl_seconds => 300}}},
        {"an unknown profile is shown as undefined",
         fun(N) ->
             {ok, hole_punch, Id} = rpc:call(N, ?NAME, request_connection, [<<"nobody">>, <<"no one">>]),
             maps:with([initiator_profile, target_profile, strategy], session(N, Id))
         end, #{initiator_profile => undefined, target_profile => undefined, strategy => hole_punch}},
        {"sessions have ids of their own, the newest is shown first",
         fun(N) ->
             Put(N, [public(<<"o">>)]),
             Ids = [begin {ok, direct, Id} = rpc:call(N, ?NAME, request_connection, [<<"p">>, <<"o">>]), Id end
                    || _ <- lists:seq(1, 50)],
             Shown = [Id || #{session_id := Id} <- rpc:call(N, ?NAME, get_pending, []), lists:member(Id, Ids)],
             {length(lists:usort(Ids)), Shown =:= lists:reverse(Ids)}
         end, {50, true}},
        {"a put, invalidate and clear take effect at once",
         fun(N) ->
             Ask = fun() -> strategy(N, <<"p">>, <<"v">>) end,
             Put(N, [profile(<<"p">>), public(<<"v">>)]),
             First = Ask(),
             Put(N, [symmetric(<<"v">>)]),
             Second = Ask(),
             gen_server:cast(?CACHE(N), {invalidate, <<"v">>}),
             Third = Ask(),
             Put(N, [public(<<"v">>)]),
             Fourth = Ask(),
             gen_server:cast(?CACHE(N), clear),
             [First, Second, Third, Fourth, Ask()]
         end, [direct, relay, hole_punch, direct, hole_punch]},
        {"what was just unknown is not remembered as unknown",
         fun(N) ->
             Before = strategy(N, <<"p">>, <<"late">>),
             Put(N, [public(<<"late">>)]),
             {Before, strategy(N, <<"p">>, <<"late">>)}
         end, {hole_punch, direct}},
        {"a profile in its DHT form",
         fun(N) ->
             Dht = #{<<"node_id">> => <<"d">>, <<"mapping_policy">> => <<"pd">>, <<"filtering_policy">> => <<"pd">>,
                     <<"allocation_policy">> => <<"rd">>, <<"can_receive_unsolicited">> => false,
                     <<"requires_relay">> => false, <<"relay_capable">> => false, <<"detected_at">> => 1,
                     <<"ttl_seconds">> => 300},
             gen_server:cast(?CACHE(N), {put, <<"d">>, Dht, 300}),
             Put(N, [profile(<<"p">>)]),
             {ok, relay, Id} = gen_server:call(?AT(N), {request_connection, <<"p">>, <<"d">>, #{}}),
             #{target_profile := Shown} = session(N, Id),
             maps:without([ttl_seconds, detected_at], Shown) =:= Dht
         end, true},
        {"allow_relay",
         fun(N) ->
             Put(N, [profile(<<"p">>), symmetric(<<"y">>), public(<<"o">>)]),
             [case gen_server:call(?AT(N), {request_connection, <<"p">>, To, #{allow_relay => Allow}}) of
                  {ok, Strategy, _} -> Strategy;
                  Error -> Error
              end || To <- [<<"y">>, <<"o">>, <<"nobody">>], Allow <- [true, false]]
         end, [relay, {error, relay_required}, direct, direct, hole_punch, hole_punch]},
        {"report_result and coordinate_punch are accepted",
         fun(N) ->
             {rpc:call(N, ?NAME, report_result, [<<"no such session">>, <<"a">>, success]),
              rpc:call(N, ?NAME, coordinate_punch, [<<"a">>, <<"a">>, #{}]),
              gen_server:cast(?AT(N), {report_result, x, y, z}),
              gen_server:cast(?AT(N), {coordinate_punch, x, y, z}),
              gen_server:call(?AT(N), {unknown, request})}
         end, {ok, ok, ok, ok, {error, unknown_request}}},
        {"a success ends a session",
         fun(N) ->
             {ok, hole_punch, Id} = rpc:call(N, ?NAME, request_connection, [<<"nobody">>, <<"no one">>]),
             #{session_id := Id} = session(N, Id),
             ok = rpc:call(N, ?NAME, report_result, [Id, <<"nobody">>, success]),
             [x || #{session_id := I} <- rpc:call(N, ?NAME, get_pending, []), I =:= Id]
         end, []},
        {"a mailbox", fun(N) -> {gen_server:call(?AT(N), {attach_peer, <<"a">>}),
                                 gen_server:call(?AT(N), {detach_peer, <<"a">>})} end, {ok, ok}}
    ].

pad([_, _] = Args) -> Args ++ [#{}];
pad(Args) -> Args.

%% Every argument outside its type, by itself.
arguments() ->
    Long = binary:copy(<<"x">>, 1025),
    Ids = [id, "id", 1, 1.5, #{}, {}, [], <<1:3>>, make_ref(), Long],
    Bad =
        [{initiator_id, [Id, <<"b">>, #{}]} || Id <- Ids]
        ++ [{target_id, [<<"a">>, Id, #{}]} || Id <- Ids ++ [<<"a">>]]
        ++ [{opts, [<<"a">>, <<"b">>, Opts]} || Opts <- [opts, [], [{notify, self()}], {}, 1, <<"opts">>]]
        ++ [{Key, [<<"a">>, <<"b">>, #{Key => Value}]}
            || {Key, Values} <- [{max_punch_attempts, [-1, 1.0, three, "3", <<"3">>, -(1 bsl 70)]},
                                 {punch_timeout_ms, [0, -1, 5.0, infinity, "5", -(1 bsl 70)]},
                                 {allow_relay, [0, 1, maybe_so, "true", <<"false">>, undefined]},
                                 {notify, [me, {me, node()}, "pid", make_ref(), undefined]}], Value <- Values],
    Good = [[binary:copy(<<"x">>, 1024), <<"b">>, #{}], [<<"a">>, binary:copy(<<"x">>, 1024), #{}], [<<>>, <<"b">>, #{}],
            [<<"a">>, <<0, 255>>, #{}], [<<"a">>, <<"b">>, #{{any, key} => 1, 7 => x, <<"notify">> => y}],
            [<<"a">>, <<"b">>, #{max_punch_attempts => 0}], [<<"a">>, <<"b">>, #{punch_timeout_ms => 1}],
            [<<"a">>, <<"b">>, #{notify => self(), allow_relay => true}]],
    [{lists:flatten(io_lib:format("bad ~p: ~0P", [Which, Args, 12])),
      fun(N) -> {gen_server:call(?AT(N), list_to_tuple([request_connection | Args])),
                 rpc:call(N, ?NAME, request_connection, Args)} end,
      {{error, {bad_argument, Which}}, {error, {bad_argument, Which}}}} || {Which, Args} <- Bad]
    ++ [{lists:flatten(io_lib:format("good arguments: ~0P", [Args, 12])),
         fun(N) -> {ok, Strategy, Id} = rpc:call(N, ?NAME, request_connection, Args),
                   ok = rpc:call(N, ?NAME, report_result, [Id, <<"a">>, success]),
                   Strategy end, hole_punch} || Args <- Good].

%%%-------------------------------------------------------------------
%%% Strategies
%%%-------------------------------------------------------------------

strategies(World) ->
    [{"all pairs of policies",
      {timeout, 120, fun() -> compare:same(World, fun(N) -> lists:sort(all_pairs(N)) end, same) end}},
     {"any two profiles",
      {timeout, 120, fun() -> property(World) end}}].

%% The strategy for each of the 27 x 27 pairs, with the flags that the detector sets.
all_pairs(N) ->
    Policies = [{M, F, A} || M <- [ei, hd, pd], F <- [ei, hd, pd], A <- [pp, pc, rd]],
    Id = fun(Role, P) -> iolist_to_binary(io_lib:format("~p ~p", [Role, P])) end,
    [ok = gen_server:cast(?CACHE(N), {put, Id(Role, P), detected(Id(Role, P), P), 300})
     || Role <- [initiator, target], P <- Policies],
    [{I, T, strategy(N, Id(initiator, I), Id(target, T))} || I <- Policies, T <- Policies].

detected(Id, {M, F, A}) ->
    (profile(Id))#{mapping_policy => M, filtering_policy => F, allocation_policy => A,
                   can_receive_unsolicited => M =:= ei andalso F =:= ei, requires_relay => M =:= pd andalso A =:= rd}.

%% How many pairs differ from one set of rules to the other: it is known, and both programs must agree.
rules_differ() ->
    Caller = cnode:peer(),
    [Documented, Old] =
        [begin
             Program = cnode:start(#{args => ["--strategy-rules", Rules]}),
             {value, Pairs} = compare:outcome(Caller, compare:target(Program, fun all_pairs/1)),
             0 = cnode:stop(Program),
             Pairs
         end || Rules <- ["documented", "v0_14_3"]],
    cnode:peer_stop(Caller),
    ?assertEqual(729, length(Documented)),
    ?assertEqual(100, length(Documented -- Old)).

property(#{caller := Caller, program := Program, oracle := Oracle}) ->
    Property = proper:forall({profiles(), profiles()}, fun({Initiator, Target}) ->
            Scenario = fun(N) ->
                [gen_server:cast(?CACHE(N), case P of
                                                unknown -> {invalidate, Id};
                                                _ -> {put, Id, P, 300}
                                            end) || {Id, P} <- [{<<"i">>, Initiator}, {<<"t">>, Target}]],
                strategy(N, <<"i">>, <<"t">>)
            end,
            [FromOracle, FromProgram] =
                [compare:outcome(Caller, compare:target(Handle, Scenario)) || Handle <- [Oracle, Program]],
            {value, Strategy} = FromOracle,
            FromOracle =:= FromProgram andalso lists:member(Strategy, [direct, hole_punch, relay])
        end),
    Quiet = {on_output, fun(_, _) -> ok end},
    case proper:quickcheck(Property, [{numtests, ?RUNS}, Quiet]) of
        true -> ok;
        Failed -> error({Failed, proper:counterexample()})
    end.

%% Profiles with any of the fields missing, in either form, with values that are known, unknown or outside their type.
profiles() ->
    proper_types:union([unknown, fields(atom), fields(atom), fields(binary)]).

fields(Form) ->
    Policy = fun(Known) ->
        Written = case Form of
                      atom -> Known ++ [atom_to_binary(P) || P <- Known];
                      binary -> [atom_to_binary(P) || P <- Known]
                  end,
        proper_types:union([missing | Written ++ Written ++ [<<"new in another version">>, <<>>, other, 7, [ei]]])
    end,
    Flag = proper_types:union([missing, true, false, false, false, 1]),
    Fields = [{mapping_policy, Policy([ei, hd, pd])}, {filtering_policy, Policy([ei, hd, pd])},
              {allocation_policy, Policy([pp, pc, rd])}, {can_receive_unsolicited, Flag}, {requires_relay, Flag}],
    Keys = [case Form of atom -> Key; binary -> atom_to_binary(Key) end || {Key, _} <- Fields],
    proper_types:bind([Type || {_, Type} <- Fields],
        fun(Values) -> maps:from_list([{K, V} || {K, V} <- lists:zip(Keys, Values), V =/= missing]) end, false).
