%% SPDX-License-Identifier: Apache-2.0
%% Nodes and services of a cluster are taken away at random while callers on plain nodes keep asking. Every caller must
%% have an answer within gen_server's 5 s, and afterwards the program must be at rest.
%%
%% MACULA_NAT_CHAOS_S is for how many seconds (default 10, shared by the program and its sanitized build if there is
%% one), MACULA_NAT_CHAOS_SEED the seed of an earlier run: the order of events is the same then, their times are not.
-module(chaos_tests).
-include_lib("eunit/include/eunit.hrl").

-export([round/2]).

-define(NAME, macula_nat_coordinator).
-define(AT(Node), {macula_nat_coordinator, Node}).
-define(CACHE, macula_nat_cache).
-define(DHT, macula_routing_server).
-define(CONNECTOR, macula_peer_connector).
-define(SERVICES, [?CACHE, ?DHT, ?CONNECTOR]).
-define(SLOTS, [1, 2, 3]).
-define(CALLERS, 4).   % per plain node, each with several requests at once
-define(AT_ONCE, 8).
-define(AHEAD, 5).     % rounds
-define(PEERS, 60).    % that are asked for
-define(ROOM_KB, 16384).        % that the allocator may keep of what has been freed
-define(SESSION_KB, 1).         % a session with two profiles, until it is swept

%% A slot is a name that a macula node may have: not running, running, or stopped.
-record(slot, {name, state = down, peer, os_pid}).

chaos_test_() ->
    {setup,
     fun() -> [cnode:peer(), cnode:peer()] end,
     fun(Plain) -> lists:foreach(fun cnode:peer_stop/1, Plain) end,
     fun(Plain) ->
         Programs = programs(),
         Seconds = list_to_integer(os:getenv("MACULA_NAT_CHAOS_S", "10")) / length(Programs),
         [{Title, {timeout, Seconds + 240, fun() -> chaos(Program, Plain, Seconds) end}}
          || {Title, Program} <- Programs]
     end}.

programs() ->
    [{"the program", #{}} |
     [{"its sanitized build", #{program => Asan}} || Asan <- [os:getenv("CNODE_ASAN", "")], Asan =/= ""]].

chaos(Program, Plain, Seconds) ->
    Seed = list_to_integer(os:getenv("MACULA_NAT_CHAOS_SEED", integer_to_list(erlang:system_time(microsecond)))),
    io:format(user, "chaos: seed ~b, ~.1f s~n", [Seed, float(Seconds)]),
    _ = rand:seed(exsss, Seed),
    Slots = [#slot{name = cnode:unique("macula")} || _ <- ?SLOTS],
    Connect = lists:append([["--connect", Name ++ "@127.0.0.1"] || #slot{name = Name} <- lists:sublist(Slots, 2)]),
    Args = ["--punch-timeout-ms", "200", "--max-punch-attempts", "1", "--coordination-delay-ms", "20",
            "--profile-cache-ttl-ms", "20", "--session-ttl-s", "5" | Connect],
    cnode:with(Program#{args => Args}, fun(#{node := N} = Handle) ->
        [pong = cnode:on(Peer, fun() -> net_adm:ping(N) end) || Peer <- Plain],
        await_rest(Plain, N),
        Before = {cnode:descriptors(Handle), cnode:memory(Handle)},
        Up = [start(Slot, N) || Slot <- Slots],
        Callers = [caller(Peer, N) || Peer <- Plain, _ <- lists:seq(1, ?CALLERS)],
        End = erlang:monotonic_time(millisecond) + round(Seconds * 1000),
        {Left, Events} = play(Up, N, End, 0),
        Answers = lists:sum([finish(Caller) || Caller <- Callers]),
        check_answered(),
        lists:foreach(fun remove/1, Left),
        io:format(user, "chaos: ~b events, ~b answers~n", [Events, Answers]),
        ?assert(Events > 0),
        await_rest(Plain, N),
        check_rest(Before, Plain, N, Handle),
        ?assertEqual([], hostile:reports(Handle))
    end).

%%%-------------------------------------------------------------------
%%% Rest
%%%-------------------------------------------------------------------

%% Only the plain nodes are there, and nothing is waited for.
await_rest([Peer | _] = Plain, N) ->
    Services = #{?CACHE => 0, ?DHT => 0, mailboxes => 0},
    cnode:on(Peer, fun() -> cnode:await(fun() ->
        #{services := Now, waiting_for := Waiting, network := #{connections := Connections}} = sys:get_state(?AT(N)),
        maps:with(maps:keys(Services), Now) =:= Services andalso Connections =:= length(Plain)
            andalso lists:usort(maps:values(Waiting)) =:= [0]
    end) end).

check_rest({Descriptors, Memory}, [Peer | _], N, Handle) ->
    cnode:await(fun() -> cnode:descriptors(Handle) =< Descriptors end),
    #{sessions := #{pending := Pending, ended := Ended}, counters := Counters} =
        cnode:on(Peer, fun() -> sys:get_state(?AT(N)) end),
    ?assertMatch(#{overloaded := 0}, Counters),
    Grown = cnode:memory(Handle) - Memory,
    Allowed = ?ROOM_KB + ?SESSION_KB * (Pending + Ended),
    cnode:is_instrumented(Handle) orelse ?assertEqual({Grown, Allowed}, {min(Grown, Allowed), Allowed}).

%%%-------------------------------------------------------------------
%%% Callers
%%%-------------------------------------------------------------------

%% Asks round after round and tells of each. It is never more than some rounds ahead of the events: they would have no
%% processor left.
caller(Peer, N) ->
    Self = self(),
    Seed = rand:uniform(1 bsl 50),
    spawn_link(fun() -> caller_loop(Self, Peer, N, Seed, ?AHEAD, 0) end).

caller_loop(Test, Peer, N, Seed, Ahead, Answers) ->
    receive
        finish -> Test ! {self(), Answers};
        seen -> caller_loop(Test, Peer, N, Seed, Ahead + 1, Answers)
    after case Ahead of 0 -> infinity; _ -> 0 end ->
        Test ! {answered, self(), cnode:on(Peer, fun() -> ?MODULE:round(N, Seed) end)},
        caller_loop(Test, Peer, N, Seed + 1, Ahead - 1, Answers + ?AT_ONCE)
    end.

finish(Caller) ->
    Caller ! finish,
    receive {Caller, Answers} -> Answers end.

%% @private
%% Some requests at once; the reasons why those without an answer have none.
round(N, Seed) ->
    Asking = [spawn_monitor(fun() -> ask(N, Seed * ?AT_ONCE + I) end) || I <- lists:seq(1, ?AT_ONCE)],
    Ends = [receive {'DOWN', Ref, process, Pid, Reason} -> Reason end || {Pid, Ref} <- Asking],
    [Reason || Reason <- Ends, Reason =/= normal].

ask(N, Seed) ->
    _ = rand:seed(exsss, Seed),
    Initiator = rand:uniform(?PEERS),
    Target = (Initiator + rand:uniform(?PEERS - 1)) rem ?PEERS,
    rand:uniform(10) =:= 1 andalso (ok = gen_server:call(?AT(N), {attach_peer, id(Target)})),
    {ok, Strategy, Id} = gen_server:call(?AT(N), {request_connection, id(Initiator), id(Target), #{}}),
    true = lists:member(Strategy, [direct, hole_punch, relay]),
    after_answer(rand:uniform(4), N, Id, id(Initiator), id(Target)).

after_answer(1, N, Id, Initiator, _) -> gen_server:cast(?AT(N), {report_result, Id, Initiator, success});
after_answer(2, N, Id, _, Target) -> gen_server:cast(?AT(N), {report_result, Id, Target, failure});
after_answer(3, N, Id, Initiator, Target) ->
    gen_server:cast(?AT(N), {coordinate_punch, Initiator, Target, #{session_id => Id}});
after_answer(4, _, _, _, _) -> ok.

id(Number) ->
    <<"peer ", (integer_to_binary(Number))/binary>>.

%%%-------------------------------------------------------------------
%%% Events
%%%-------------------------------------------------------------------

%% After each event some requests are answered, so that events fall into all moments of a request.
play(Slots, N, End, Events) ->
    case erlang:monotonic_time(millisecond) < End of
        false ->
            {Slots, Events};
        true ->
            {Before, [Slot | Behind]} = lists:split(rand:uniform(length(Slots)) - 1, Slots),
            New = event(Slot, N),
            await_answered(rand:uniform(4) - 1),
            play(Before ++ [New | Behind], N, End, Events + 1)
    end.

await_answered(0) -> check_answered();
await_answered(Count) -> receive {answered, _, _} = Round -> check(Round) end, await_answered(Count - 1).

%% All rounds that have not been looked at.
check_answered() ->
    receive {answered, _, _} = Round -> check(Round), check_answered() after 0 -> ok end.

check({answered, Caller, Failures}) ->
    ?assertEqual([], Failures),
    Caller ! seen,
    ok.

event(#slot{state = down} = Slot, N) ->
    start(Slot, N);
event(#slot{state = stopped} = Slot, _N) ->
    send_signal(Slot, "CONT"),
    Slot#slot{state = up};
event(#slot{state = up, peer = Peer} = Slot, N) ->
    Service = lists:nth(rand:uniform(length(?SERVICES)), ?SERVICES),
    case rand:uniform(20) of
        1 ->
            remove(Slot),
            Slot#slot{state = down};
        2 ->
            send_signal(Slot, "STOP"),
            Slot#slot{state = stopped};
        3 ->
            cnode:on(Peer, fun() -> erlang:disconnect_node(N) end),
            Slot;
        4 ->
            _ = cnode:on(Peer, fun() -> net_adm:ping(N) end),
            Slot;
        5 ->
            cnode:on(Peer, fun double:unload_connector/0),
            Slot;
        6 ->
            cnode:on(Peer, fun double:load_connector/0),
            Slot;
        Some when Some =< 9 ->
            cnode:on(Peer, fun() -> double:stop(Service) end),
            Slot;
        _ ->
            Act = act(Service, rand:uniform(10)),
            cnode:on(Peer, fun() -> double:start(Service, Act) end),
            Slot
    end.

start(#slot{name = Name} = Slot, N) ->
    Peer = cnode:peer(#{name => Name}),
    OsPid = cnode:on(Peer, fun() ->
        [ok = double:start(Service, act(Service, 10)) || Service <- ?SERVICES],
        ok = double:load_connector(),
        pong = net_adm:ping(N),
        os:getpid()
    end),
    Slot#slot{state = up, peer = Peer, os_pid = OsPid}.

send_signal(#slot{os_pid = OsPid}, Signal) ->
    _ = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    ok.

remove(#slot{state = down}) ->
    ok;
remove(#slot{peer = #{peer := Pid}} = Slot) ->
    unlink(Pid),
    Ref = monitor(process, Pid),
    send_signal(Slot, "KILL"),
    receive {'DOWN', Ref, process, Pid, _} -> ok end.

%% What a service does: mostly what it should.
act(_, 1) -> fun(_) -> hold end;
act(_, 2) -> fun(_) -> crash end;
act(_, 3) -> fun(_) -> {reply, {error, overloaded}} end;
act(_, 4) -> fun(_) -> {reply, [garbage]} end;
act(Service, 5) -> fun(Request) -> {later, rand:uniform(3000), answer(Service, Request)} end;
act(Service, 6) ->
    fun(Request) ->
        case rand:uniform(3) of
            1 -> hold;
            2 -> crash;
            3 -> {reply, answer(Service, Request)}
        end
    end;
act(Service, _) -> fun(Request) -> {reply, answer(Service, Request)} end.

answer(?CACHE, {get, Id}) ->
    case erlang:phash2(Id, 4) of
        0 -> {ok, cluster:public(Id), fresh};
        1 -> {ok, cluster:relay(Id), stale};
        2 -> {ok, cluster:profile(Id), fresh};
        3 -> not_found
    end;
answer(?DHT, {find_value, Key, 20}) ->
    case [Id || Id <- [id(Number) || Number <- lists:seq(0, ?PEERS)], cluster:key(<<"nat.profile">>, Id) =:= Key] of
        [Id] -> {ok, [cluster:profile(Id)]};
        [] -> {ok, []}
    end;
answer(?DHT, {store, _, _}) -> ok;
answer(?CONNECTOR, {send_message, _, _, _}) -> ok.
