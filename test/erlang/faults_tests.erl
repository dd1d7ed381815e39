%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc What breaks around the program while it is at work: peers that die, stop or are cut off at any moment, EPMD,
%% descriptors, and its own end. Whoever is not concerned must be answered all the while, and nothing may stay behind.
%%
%% FAULTS_CONNECTS is the number of connections of the churn (default 2000).
-module(faults_tests).

-include_lib("eunit/include/eunit.hrl").

-define(AT(Node), {macula_nat_coordinator, Node}).
-define(CACHE(Node), {macula_nat_cache, Node}).
-define(SERVER, macula_nat_coordinator).
-define(LISTING, 32 bsl 20).

faults_test_() ->
    [{spawn, {timeout, 300, {Title, Test}}} || {Title, Test} <- [
        {"peers killed in the midst of everything", fun killed/0},
        {"a peer stopped for a while", fun stopped_and_resumed/0},
        {"a peer stopped while much is to be told", fun stopped_and_told/0},
        {"a conversation cut off at every byte", fun cut_off_anywhere/0},
        {"a connection that is closed on one side only", fun half_closed/0},
        {"connection churn", fun churn/0},
        {"no file descriptors left", fun no_descriptors/0},
        {"clients that connect and say nothing", fun silent_clients/0},
        {"more sessions than get_pending may answer", fun large_listing/0},
        {"more requests than wait for a suspended process", fun suspended/0},
        {"more of them in the name of another", fun suspended_forged/0},
        {"a flood from one peer", fun flooded/0},
        {"answers to what was no call", fun answers_to_no_call/0},
        {"EPMD gone under load", fun epmd_gone/0},
        {"SIGTERM under load", fun ended_under_load/0},
        {"a linked process that fails", fun linked_fails/0},
        {"the node of a linked process is gone", fun linked_node_goes/0}
    ]].

%%%-------------------------------------------------------------------
%%% Peers
%%%-------------------------------------------------------------------

%% Each has calls that wait for lookups, mailboxes, watchers and monitors when it is killed. A link would end
%% the program with it, as it would an OTP process that does not trap exits.
killed() ->
    Other = cnode:peer(),
    with(["--lookup-timeout-ms", "500"], fun(#{node := N} = Handle) ->
        State = calm(Other, N),
        Before = cnode:descriptors(Handle),
        [begin
             Peer = cnode:peer(),
             cnode:on(Peer, fun() -> entangle(N, Round) end),
             cnode:peer_kill(Peer),
             ?assertEqual({error, unknown_request}, cnode:on(Other, fun() -> gen_server:call(?AT(N), Round) end))
         end || Round <- lists:seq(1, 3)],
        cnode:await(fun() -> cnode:descriptors(Handle) =< Before end),
        cnode:await(fun() -> calm(Other, N) =:= State end)
    end),
    cnode:peer_stop(Other).

%% A process that has everything to do with the program, and services that never answer it.
entangle(N, Round) ->
    Self = self(),
    _ = [register(Name, spawn(fun() -> receive never -> ok end end)) || Name <- [macula_nat_cache, macula_routing_server]],
    spawn(fun() ->
        Pid = compare:pid(N),
        [monitor(process, What) || What <- [Pid, ?AT(N), ?CACHE(N), {rex, N}], _ <- lists:seq(1, 20)],
        [ok = gen_server:call(?AT(N), {attach_peer, <<Round, Id>>}) || Id <- lists:seq(1, 20)],
        cnode:await(fun() -> #{services := #{macula_nat_cache := C}} = sys:get_state(?AT(N)), C > 0 end),
        [gen_server:send_request(?AT(N), {request_connection, <<Round, A>>, <<Round, A, 1>>, #{notify => self()}})
         || A <- lists:seq(1, 50)],
        [gen_server:cast(?AT(N), {coordinate_punch, <<Round, A>>, <<Round, A, 2>>, #{}}) || A <- lists:seq(1, 50)],
        [erpc:send_request(N, ?SERVER, request_connection, [<<Round, A>>, <<Round, A, 3>>]) || A <- lists:seq(1, 50)],
        #{waiting_for := #{requests := Requests, calls := Calls}} = sys:get_state(?AT(N)),
        true = Requests > 0 andalso Calls > 0,
        Self ! ready,
        receive never -> ok end
    end),
    receive ready -> ok end.

stopped_and_resumed() ->
    [Peer, Other] = [cnode:peer(), cnode:peer()],
    with([], fun(#{node := N}) ->
        Large = profile(<<"large">>, 100000),
        ok = cnode:on(Peer, fun() -> gen_server:call(?AT(N), {attach_peer, <<"a">>}), gen_server:cast(?CACHE(N), {put, <<"large">>, Large, 300}) end),
        OsPid = cnode:on(Peer, fun() -> os:getpid() end),
        %% The calls are on their way when the node stops; their answers pile up meanwhile.
        Caller = cnode:on(Peer, fun() ->
            Self = self(),
            Pid = spawn(fun() ->
                Requests = [gen_server:send_request(?CACHE(N), {get, <<"large">>}) || _ <- lists:seq(1, 100)],
                Self ! asked,
                Answers = [gen_server:receive_response(Request, infinity) || Request <- Requests],
                receive {answers, To} -> To ! {answers, Answers} end
            end),
            receive asked -> Pid end
        end),
        ok = os_signal("STOP", OsPid),
        ?assertEqual(1000, cnode:on(Other, fun() -> length([gen_server:call(?AT(N), get_pending) || _ <- lists:seq(1, 1000)]) end)),
        ok = os_signal("CONT", OsPid),
        Answers = cnode:on(Peer, fun() -> Caller ! {answers, self()}, receive {answers, All} -> All end end),
        ?assertEqual(100, length([x || {reply, {ok, #{node_id := <<"large">>}, fresh}} <- Answers])),
        ?assertEqual([], cnode:on(Peer, fun() -> gen_server:call(?AT(N), get_pending) end))
    end),
    cnode:peer_stop(Peer),
    cnode:peer_stop(Other).

%% It watches sessions of large profiles that somebody else asks for, and many times what it may leave unread is to be
%% told to it: that waits, others are answered, and it hears how each session ended when it goes on.
stopped_and_told() ->
    [Peer, Other] = [cnode:peer(), cnode:peer()],
    with([], fun(#{node := N}) ->
        {Watcher, OsPid} = cnode:on(Peer, fun() ->
            [] = gen_server:call(?AT(N), get_pending),
            {spawn(fun() -> watched(#{}) end), os:getpid()}
        end),
        cnode:on(Other, fun() -> [gen_server:cast(?CACHE(N), {put, Id, profile(Id, 900000), 300}) || Id <- [<<"a">>, <<"b">>]] end),
        ok = os_signal("STOP", OsPid),
        %% With both profiles, 1.8 MB, in each of two notifications at least: 720 MB.
        Ids = cnode:on(Other, fun() ->
            [Id || _ <- lists:seq(1, 200),
                   {ok, hole_punch, Id} <- [gen_server:call(?AT(N), {request_connection, <<"a">>, <<"b">>, #{notify => Watcher}})]]
        end),
        ?assertEqual(200, length(Ids)),
        cnode:on(Other, fun() -> [gen_server:cast(?AT(N), {report_result, Id, <<"a">>, success}) || Id <- Ids] end),
        [] = cnode:on(Other, fun() -> gen_server:call(?AT(N), get_pending) end),
        ok = os_signal("CONT", OsPid),
        cnode:on(Peer, fun() ->
            Watcher ! {await_ends, Ids, self()},
            receive ended -> ok end
        end),
        ?assertMatch(#{counters := #{notifications_dropped := 0}}, cnode:on(Other, fun() -> sys:get_state(?AT(N)) end)),
        ?assertEqual({error, unknown_request}, cnode:on(Peer, fun() -> gen_server:call(?AT(N), again) end)),
        ?assertMatch(#{network := #{output_limit := 0}}, cnode:on(Other, fun() -> sys:get_state(?AT(N)) end))
    end),
    cnode:peer_stop(Peer),
    cnode:peer_stop(Other).

%% Keeps which sessions have ended, without their profiles.
watched(Ended) ->
    receive
        {punch_session, Id, #{result := _}} -> watched(Ended#{Id => true});
        {punch_session, _, _} -> watched(Ended);
        {await_ends, Ids, To} ->
            [receive {punch_session, Id, #{result := _}} -> ok end || Id <- Ids, not is_map_key(Id, Ended)],
            To ! ended
    end.

%% The handshake and some requests, cut off behind each byte, with and without a reset.
cut_off_anywhere() ->
    Other = cnode:peer(),
    with([], fun(#{node := N, port := Port} = Handle) ->
        State = calm(Other, N),
        Before = cnode:descriptors(Handle),
        Name = 'raw_cut_off@127.0.0.1',
        Options = #{name => Name, port => Port},
        {ok, First} = raw_dist:connect(N, Options),
        Conversation = conversation(First),
        raw_dist:close(First),
        [begin
             {ok, Peer} = raw_dist:connect(N, Options#{name => raw_name(Cut)}),
             ok = raw_dist:send(Peer, binary:part(Conversation, 0, Cut)),
             cut(Cut, Peer)
         end || Cut <- lists:seq(0, byte_size(Conversation))],
        [begin
             Peer = raw_dist:open(N, Options),
             _ = raw_dist:send(Peer, binary:part(first_message(Name), 0, Cut)),
             cut(Cut, Peer)
         end || Cut <- lists:seq(0, byte_size(first_message(Name)))],
        [begin
             {ok, Peer} = raw_dist:connect(N, Options#{stop => Step}),
             cut(Cut, Peer)
         end || Step <- [tcp, half_length, half_name, name, status, challenge, half_reply, reply], Cut <- [1, 2]],
        cnode:await(fun() -> cnode:descriptors(Handle) =< Before end),
        cnode:await(fun() -> calm(Other, N) =:= State end)
    end),
    cnode:peer_stop(Other).

%% Monitor, call, cast, rpc, link, unlink: all of them without anything that stays.
conversation(Peer) ->
    Self = raw_dist:pid(Peer, 1),
    Ref = raw_dist:reference(Peer, 1),
    Coordinator = raw_dist:their_pid(Peer, 3),
    iolist_to_binary([
        raw_dist:frame({19, Self, ?SERVER, Ref}),
        raw_dist:frame({6, Self, '', ?SERVER}, {'$gen_call', {Self, [alias | Ref]}, {attach_peer, <<"a">>}}),
        raw_dist:frame({6, Self, '', ?SERVER}, {'$gen_call', {Self, Ref}, get_pending}),
        raw_dist:frame({6, Self, '', ?SERVER}, {'$gen_cast', {report_result, <<"s">>, <<"a">>, success}}),
        raw_dist:tick(),
        raw_dist:frame({29, Ref, Self, Self, {erpc, execute_call, 4}, [monitor]}, [Ref, ?SERVER, get_pending, []]),
        raw_dist:frame({1, Self, Coordinator}),
        raw_dist:frame({35, 7, Self, Coordinator}),
        raw_dist:frame({20, Self, ?SERVER, Ref})]).

first_message(Name) ->
    Text = atom_to_binary(Name),
    <<(15 + byte_size(Text)):16, "N", (raw_dist:flags()):64, 7:32, (byte_size(Text)):16, Text/binary>>.

%% Every other one by a reset, as of a host that has lost its memory.
cut(Number, #{socket := Socket} = Peer) ->
    ok = inet:setopts(Socket, [{linger, {Number rem 2 =:= 0, 0}}]),
    raw_dist:close(Peer).

half_closed() ->
    Other = cnode:peer(),
    with([], fun(#{node := N} = Handle) ->
        _ = calm(Other, N),
        Before = cnode:descriptors(Handle),
        [begin
             {ok, #{socket := Socket} = Peer} = raw_dist:connect(N, #{name => raw_name(I), stop => Stop}),
             ok = raw_dist:send(Peer, <<255, 0:Bytes/unit:8>>),
             ok = gen_tcp:shutdown(Socket, write),
             ?assertEqual(closed, raw_dist:await_close(Peer))
         end || {I, Stop, Bytes} <- [{1, tcp, 0}, {2, name, 0}, {3, challenge, 5}, {4, done, 0}, {5, done, 2}]],
        cnode:await(fun() -> cnode:descriptors(Handle) =< Before end)
    end),
    cnode:peer_stop(Other).

churn() ->
    Count = list_to_integer(os:getenv("FAULTS_CONNECTS", "2000")),
    Other = cnode:peer(),
    cnode:with(#{}, fun(#{node := N, port := Port} = Handle) ->
        State = calm(Other, N),
        Before = cnode:descriptors(Handle),
        Visit = fun(I) ->
            {ok, Peer} = raw_dist:connect(N, #{name => raw_name(I rem 100), port => Port}),
            ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, I)),
            %% Each leaves a monitor and, unanswered, a call behind.
            ok = raw_dist:send(Peer, element(1, raw_dist:call_frames(Peer, ?SERVER, get_pending, I))),
            cut(I, Peer)
        end,
        lists:foreach(Visit, lists:seq(1, Count div 10)),
        Memory = cnode:memory(Handle),
        lists:foreach(Visit, lists:seq(1, Count)),
        cnode:await(fun() -> cnode:descriptors(Handle) =< Before end),
        cnode:await(fun() -> calm(Other, N) =:= State end),
        %% 1 MiB is less than what a kilobyte left behind by each would be.
        cnode:is_instrumented(Handle) andalso cnode:skip("an instrumented program keeps freed memory back"),
        hostile:no_growth(Handle, Memory, 1)
    end),
    cnode:peer_stop(Other).

%%%-------------------------------------------------------------------
%%% Resources
%%%-------------------------------------------------------------------

no_descriptors() ->
    Other = cnode:peer(),
    with_few_descriptors(fun(#{node := N, name := Name, port := Port} = Handle) ->
        _ = calm(Other, N),
        {Peers, Refused} = connect_all(N, Port, []),
        ?assertMatch({error, {_, _}}, Refused),
        _ = cnode:await_log(Handle, "a connection was not accepted: too many open files"),
        %% Who is connected is served, and nobody else gets in.
        ?assertMatch({error, {_, _}}, raw_dist:connect(N, #{name => raw_name(1000), port => Port})),
        [?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, x)) || Peer <- Peers],
        ?assertEqual([], cnode:on(Other, fun() -> gen_server:call(?AT(N), get_pending) end)),
        ?assertMatch({Name, Port}, lists:keyfind(Name, 1, cnode:epmd_names())),
        %% One that goes makes room for one.
        Full = cnode:descriptors(Handle),
        raw_dist:close(hd(Peers)),
        cnode:await(fun() -> cnode:descriptors(Handle) < Full end),
        {ok, New} = raw_dist:connect(N, #{name => raw_name(2000), port => Port}),
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(New, ?SERVER, x)),
        lists:foreach(fun raw_dist:close/1, [New | tl(Peers)])
    end),
    cnode:peer_stop(Other).

with_few_descriptors(Test) ->
    Script = filename:join(os:getenv("TMPDIR", "/tmp"), cnode:unique("few_descriptors")),
    Program = maps:get(program, hostile:program(), cnode:command()),
    ok = file:write_file(Script, ["#!/bin/sh\nulimit -n 60\nexec \"", Program, "\" \"$@\"\n"]),
    ok = file:change_mode(Script, 8#700),
    cnode:with(#{program => Script}, Test),
    ok = file:delete(Script).

%% They have no cookie, and take every descriptor. The oldest goes for whoever comes.
silent_clients() ->
    with_few_descriptors(fun(#{node := N, port := Port} = Handle) ->
        Clients = [begin
                       {ok, Client} = raw_dist:connect(N, #{name => raw_name(I), port => Port, stop => tcp}),
                       Client
                   end || I <- lists:seq(1, 100)],
        {ok, Peer} = raw_dist:connect(N, #{name => raw_name(1000), port => Port}),
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, x)),
        ?assertEqual(closed, raw_dist:await_close(hd(Clients))),
        _ = cnode:await_log(Handle, "warning no connection with .*too many others connect"),
        {ok, #{network := #{handshakes_dropped := Dropped}}} = state(Peer),
        ?assert(Dropped >= 40),
        lists:foreach(fun raw_dist:close/1, [Peer | Clients])
    end).

connect_all(N, Port, Peers) when length(Peers) < 100 ->
    case raw_dist:connect(N, #{name => raw_name(length(Peers)), port => Port}) of
        {ok, Peer} -> connect_all(N, Port, [Peer | Peers]);
        Refused -> {Peers, Refused}
    end.

%% The newest are answered, as many as there is room for, and how many were left out is counted.
large_listing() ->
    Other = cnode:peer(),
    with(["--coordination-delay-ms", "60000"], fun(#{node := N}) ->
        cnode:on(Other, fun() ->
            [gen_server:cast(?CACHE(N), {put, Id, profile(Id, 900000), 300}) || Id <- [<<"a">>, <<"b">>]],
            Ids = [begin
                       {ok, hole_punch, Id} = gen_server:call(?AT(N), {request_connection, <<"a">>, <<"b">>, #{}}),
                       Id
                   end || _ <- lists:seq(1, 40)],
            Sessions = gen_server:call(?AT(N), get_pending, infinity),
            Listed = [Id || #{session_id := Id} <- Sessions],
            #{counters := #{get_pending_left_out := LeftOut}} = sys:get_state(?AT(N)),
            ?assertEqual(40, length(Listed) + LeftOut),
            ?assertEqual(lists:sort(lists:nthtail(LeftOut, Ids)), lists:sort(Listed)),
            %% One more would have been too much.
            [Size, More] = [byte_size(term_to_binary(List)) || List <- [Sessions, [hd(Sessions) | Sessions]]],
            ?assertMatch({_, _, true}, {Size, More, Size =< ?LISTING andalso More > ?LISTING})
        end)
    end),
    cnode:peer_stop(Other).

suspended() ->
    Other = cnode:peer(),
    with([], fun(#{node := N} = Handle) ->
        ok = cnode:on(Other, fun() -> sys:suspend(?AT(N)) end),
        {ok, Peer} = raw_dist:connect(N, #{name => 'raw_suspended@127.0.0.1'}),
        Frame = raw_dist:frame({6, raw_dist:pid(Peer, 1), '', ?SERVER}, {'$gen_cast', <<0:1000000/unit:8>>}),
        [raw_dist:send(Peer, Frame) || _ <- lists:seq(1, 80)],
        ?assertEqual(closed, raw_dist:await_close(Peer)),
        _ = cnode:await_log(Handle, "warning .*raw_suspended"),
        ok = cnode:on(Other, fun() -> sys:resume(?AT(N)) end),
        ?assertEqual([], cnode:on(Other, fun() -> gen_server:call(?AT(N), get_pending) end))
    end),
    cnode:peer_stop(Other).

%% Who sends pays, not the one whom he names as the caller, nor the one whose request is one too many.
suspended_forged() ->
    with([], fun(#{node := N} = Handle) ->
        {ok, Victim} = raw_dist:connect(N, #{name => 'raw_victim@127.0.0.1'}),
        {ok, Peer} = raw_dist:connect(N, #{name => 'raw_forger@127.0.0.1'}),
        ok = sys:suspend(?AT(N)),
        Send = fun(From, To, Tag) ->
            raw_dist:send(From, raw_dist:frame({6, raw_dist:pid(From, 1), '', ?SERVER},
                                               {'$gen_call', {raw_dist:pid(To, 1), Tag}, {x, <<0:1000000/unit:8>>}}))
        end,
        [ok = Send(Peer, Victim, forged) || _ <- lists:seq(1, 60)],
        {ok, #{}} = state(Peer),
        [ok = Send(Victim, Victim, own) || _ <- lists:seq(1, 10)],
        ?assertEqual(closed, raw_dist:await_close(Peer)),
        _ = cnode:await_log(Handle, "warning .*raw_forger"),
        ok = sys:resume(?AT(N)),
        [?assertEqual({ok, {error, unknown_request}}, raw_dist:await_tag(Victim, own)) || _ <- lists:seq(1, 10)],
        raw_dist:close(Victim)
    end).

%% One peer sends as fast as it can while another calls: all of its calls are answered.
flooded() ->
    Other = cnode:peer(),
    with(["--max-sessions", "100"], fun(#{node := N} = Handle) ->
        [] = cnode:on(Other, fun() -> gen_server:call(?AT(N), get_pending) end),
        {Flood, Ref} = spawn_monitor(fun() ->
            {ok, Peer} = raw_dist:connect(N, #{name => 'raw_flood@127.0.0.1'}),
            Self = raw_dist:pid(Peer, 1),
            Frames = [raw_dist:frame({6, Self, '', ?SERVER},
                                     {'$gen_call', {Self, raw_dist:reference(Peer, I)}, {request_connection, <<I>>, <<"b">>, #{}}})
                      || I <- lists:seq(1, 100)],
            flood(Peer, Frames)
        end),
        Call = fun(I) -> gen_server:call(?AT(N), {request_connection, <<"x">>, <<I:32>>, #{}}, infinity) end,
        %% The flood has arrived, and does not end before the calls do.
        cnode:await(fun() -> #{counters := #{requests := R}} = cnode:on(Other, fun() -> sys:get_state(?AT(N)) end), R > 1000 end),
        Answers = cnode:on(Other, fun() -> [Call(I) || I <- lists:seq(1, 300)] end),
        ?assertEqual([], [Answer || Answer <- Answers, Answer =/= {error, overloaded}, element(1, Answer) =/= ok]),
        exit(Flood, kill),
        receive {'DOWN', Ref, process, Flood, Reason} -> ?assertEqual(killed, Reason) end,
        ?assertEqual({error, unknown_request}, cnode:on(Other, fun() -> gen_server:call(?AT(N), x) end)),
        ?assert(cnode:is_alive(Handle))
    end),
    cnode:peer_stop(Other).

%% Reads its answers as they come, so that it is not cut off for not reading.
flood(#{socket := Socket} = Peer, Frames) ->
    ok = inet:setopts(Socket, [{active, true}]),
    flood_on(Peer, Frames).

flood_on(Peer, Frames) ->
    ok = raw_dist:send(Peer, Frames),
    drain(),
    flood_on(Peer, Frames).

drain() ->
    receive {tcp, _, _} -> drain() after 0 -> ok end.

%% The node asks whoever connects for services. That is no call: an answer to it means nothing.
answers_to_no_call() ->
    with([], fun(#{node := N}) ->
        {ok, Peer} = raw_dist:connect(N, #{name => 'raw_answers@127.0.0.1'}),
        Refs = asked(Peer, 4),
        Pids = [raw_dist:their_pid(Peer, Id) || Id <- lists:seq(1, 20)],
        [ok = raw_dist:send_control(Peer, {2, '', Pid}, {Ref, answer}) || Pid <- Pids, Ref <- Refs],
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, x)),
        {ok, #{calls := #{answers_too_late := Late}}} = state(Peer),
        ?assertEqual(length(Refs), Late),
        raw_dist:close(Peer)
    end).

%% The references of the monitors that come first.
asked(_Peer, 0) -> [];
asked(Peer, Count) ->
    case raw_dist:recv(Peer) of
        {{19, _, _, Ref}} -> [Ref | asked(Peer, Count - 1)];
        _ -> asked(Peer, Count)
    end.

state(Peer) ->
    Self = raw_dist:pid(Peer, 1),
    Ref = raw_dist:reference(Peer, 77),
    ok = raw_dist:send_control(Peer, {6, Self, '', ?SERVER}, {system, {Self, Ref}, get_state}),
    {ok, {ok, State}} = raw_dist:await_tag(Peer, Ref),
    {ok, State}.

%%%-------------------------------------------------------------------
%%% The surroundings
%%%-------------------------------------------------------------------

epmd_gone() ->
    First = cnode:epmd_start(),
    Port = cnode:epmd_port(First),
    Env = [{"ERL_EPMD_PORT", integer_to_list(Port)}],
    Peer = cnode:peer(#{env => Env}),
    cnode:with((hostile:program())#{args => [], env => Env}, fun(#{node := N, name := Name, port := Listen} = Handle) ->
        Callers = cnode:on(Peer, fun() -> callers(N, 8) end),
        cnode:await(fun() -> {_, Calls} = cnode:on(Peer, fun() -> calls(Callers) end), Calls > 500 end),
        Mark = cnode:mark(Handle),
        cnode:epmd_stop(First),
        _ = cnode:await_log(Handle, "warning .*EPMD", Mark),
        {_, Before} = cnode:on(Peer, fun() -> calls(Callers) end),
        %% They go on calling while there is none.
        cnode:await(fun() -> {_, Now} = cnode:on(Peer, fun() -> calls(Callers) end), Now > Before + 500 end),
        Second = cnode:epmd_start(Port),
        cnode:await(fun() -> lists:keyfind(Name, 1, cnode:epmd_names(Port)) =:= {Name, Listen} end),
        {Ends, _} = cnode:on(Peer, fun() -> [Pid ! stop || Pid <- Callers], ends(Callers) end),
        ?assertEqual([stopped], lists:usort(Ends)),
        cnode:peer_stop(Peer),
        cnode:epmd_stop(Second)
    end).

%% Every caller gets answers until it gets the end of the process or of the connection: nobody waits for ever, though
%% none of the calls has a time limit.
ended_under_load() ->
    Peers = [cnode:peer(), cnode:peer()],
    Handle = #{node := N} = cnode:start((hostile:program())#{args => []}),
    All = [{Peer, cnode:on(Peer, fun() ->
               %% Lookups are never answered: some requests wait when the end comes.
               register(macula_nat_cache, spawn(fun() -> receive never -> ok end end)),
               callers(N, 20)
           end)} || Peer <- Peers],
    cnode:await(fun() -> lists:all(fun({Peer, Callers}) -> {_, Calls} = cnode:on(Peer, fun() -> calls(Callers) end), Calls > 500 end, All) end),
    ?assertEqual(0, cnode:stop(Handle)),
    [begin
         {Ends, _} = cnode:on(Peer, fun() -> ends(Callers) end),
         ?assertEqual(20, length(Ends)),
         ?assertEqual([], [End || End <- Ends, not is_end(End)])
     end || {Peer, Callers} <- All],
    lists:foreach(fun cnode:peer_stop/1, Peers).

is_end({shutdown, {gen_server, call, _}}) -> true;
is_end({noproc, {gen_server, call, _}}) -> true;
is_end({{nodedown, _}, {gen_server, call, _}}) -> true;
is_end(_) -> false.

%% Processes that call until they are stopped or a call fails.
callers(N, Count) ->
    Counts = counters:new(1, []),
    persistent_term:put({?MODULE, counts}, Counts),
    Callers = [spawn(fun() -> exit(call_on(N, I, Counts)) end) || I <- lists:seq(1, Count)],
    Self = self(),
    Keeper = spawn(fun() -> Refs = [monitor(process, Pid) || Pid <- Callers], Self ! kept, keep(Refs, []) end),
    receive kept -> ok end,
    persistent_term:put({?MODULE, keeper}, Keeper),
    Callers.

call_on(N, I, Counts) ->
    Request = lists:nth(I rem 4 + 1, [get_pending, unknown, {attach_peer, <<I>>}, {request_connection, <<I>>, <<"b">>, #{}}]),
    try gen_server:call(?AT(N), Request, infinity) of
        _ ->
            counters:add(Counts, 1, 1),
            receive stop -> stopped after 0 -> call_on(N, I, Counts) end
    catch
        exit:Reason -> Reason
    end.

%% Remembers how each ended until somebody asks.
keep([], Ends) ->
    receive {ends, From} -> From ! {ends, Ends} end;
keep(Refs, Ends) ->
    receive {'DOWN', Ref, process, _, Reason} -> keep(Refs -- [Ref], [Reason | Ends]) end.

ends(Callers) ->
    persistent_term:get({?MODULE, keeper}) ! {ends, self()},
    receive {ends, Ends} -> {Ends, calls(Callers)} end.

calls(Callers) ->
    {Callers, counters:get(persistent_term:get({?MODULE, counts}), 1)}.

linked_fails() ->
    Peer = cnode:peer(),
    linked(Peer, boom, fun(Linked) -> true = cnode:on(Peer, fun() -> exit(Linked, boom) end) end),
    cnode:peer_stop(Peer).

linked_node_goes() ->
    Peer = cnode:peer(),
    linked(Peer, noconnection, fun(_) -> ok = cnode:peer_kill(Peer) end).

%% The program shuts down, as a process does that does not trap exits: others get the reason, and its status shows it.
linked(Peer, Reason, End) ->
    Other = cnode:peer(),
    Handle = #{node := N, name := Name} = cnode:start((hostile:program())#{args => []}),
    Linked = cnode:on(Peer, fun() -> process(fun() -> link(compare:pid(N)) end, N) end),
    Watcher = cnode:on(Other, fun() -> process(fun() -> monitor(process, ?AT(N)) end, N) end),
    _ = End(Linked),
    ?assertMatch({'DOWN', _, process, _, Reason},
                 cnode:on(Other, fun() -> Watcher ! self(), receive {Watcher, Seen} -> Seen end end)),
    ?assertEqual(1, cnode:await_exit(Handle)),
    _ = cnode:await_log(Handle, "error ended by an exit of another node"),
    ?assertEqual([], hostile:reports(Handle)),
    ?assertNot(lists:keymember(Name, 1, cnode:epmd_names())),
    cnode:peer_stop(Other).

%% Does something that the program has heard of when this returns, and then tells whoever asks what came of it.
process(Do, N) ->
    Self = self(),
    Pid = spawn(fun() ->
        _ = Do(),
        [] = gen_server:call(?AT(N), get_pending),
        Self ! {self(), done},
        Seen = receive {'DOWN', _, process, {?SERVER, N}, _} = Down -> Down end,
        receive From -> From ! {self(), Seen} end
    end),
    receive {Pid, done} -> Pid end.

%%%-------------------------------------------------------------------
%%% Helpers
%%%-------------------------------------------------------------------

%% A sanitized program, where there is one: what is wrong shows in its exit status.
with(Args, Fun) ->
    cnode:with((hostile:program())#{args => Args}, Fun).

raw_name(Number) ->
    hostile:raw_name("faults", Number).

%% Waits until no request is under way; what is left to compare: who is connected, and what it is to the program.
calm(Peer, N) ->
    cnode:on(Peer, fun() ->
        Waiting = fun() ->
            #{waiting_for := W} = sys:get_state(?AT(N)),
            maps:values(maps:with([lookups, requests, deliveries, calls], W))
        end,
        cnode:await(fun() -> Waiting() =:= [0, 0, 0, 0] end),
        #{services := Services, network := #{connections := Connections}} = sys:get_state(?AT(N)),
        {Services, Connections}
    end).

profile(Id, Size) ->
    #{node_id => Id, mapping_policy => hd, filtering_policy => pd, allocation_policy => pp,
      location_label => binary:copy(<<"x">>, Size)}.

os_signal(Signal, OsPid) ->
    [] = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    ok.
