%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc No memory, and no descriptors: while requests run each allocation of the program fails in turn, and after each
%% everything works again by itself. The program is a sanitized one whose allocations the test has in its hand
%% (test/unit/shortage.h); it is CNODE_SHORTAGE. What libuv, OpenSSL and libc allocate for themselves is not among them:
%% libuv ends a program that has no memory for its table of descriptors.
-module(shortage_tests).

-include_lib("eunit/include/eunit.hrl").

-define(AT(Node), {macula_nat_coordinator, Node}).
-define(CACHE(Node), {macula_nat_cache, Node}).
-define(LIMIT, 30000).
-define(FOREVER, 1 bsl 62).

shortage_test_() ->
    [{spawn, {timeout, 300, {Title, Test}}} || {Title, Test} <- [
        {"each allocation of the start fails", fun start_fails/0},
        {"each allocation fails while requests run", fun requests_fail/0},
        {"all allocations fail for a while", fun nothing_left/0},
        {"the limit of descriptors is below those in use for a while", fun no_descriptors/0}
    ]].

call(Server, Request) ->
    try
        gen_server:call(Server, Request, ?LIMIT)
    catch
        Class:Reason -> {Class, Reason}
    end.

%% It does not start, says so and exits with a status, or it starts and all of it is there.
start_fails() ->
    with_file(fun(File, Options) -> start_fails(File, Options, 0) end).

start_fails(File, Options, At) ->
    shortage(File, At, 1),
    _ = try cnode:start(Options) of
        #{node := N} = Handle ->
            [?assertNotMatch({exit, {noproc, _}}, call({Name, N}, get_pending))
             || Name <- [macula_nat_coordinator, macula_nat_cache, net_kernel]],
            _ = call({rex, N}, {call, macula_nat_coordinator, get_pending, [], self()}),
            ends(Handle)
    catch
        error:{not_ready, Status, Lines} ->
            ?assertMatch({71, [Line]} when is_list(Line), {Status, Lines}),
            ?assertMatch({match, _}, re:run(Lines, "not enough memory|out of memory"))
    end,
    case failed(File) of
        1 -> start_fails(File, Options, At + 1);
        0 -> ?assert(At > 10)
    end.

requests_fail() ->
    with_program(fun(File, Handle) ->
        requests_fail(File, Handle, 0),
        #{network := #{no_memory := Count}} = sys:get_state(?AT(maps:get(node, Handle))),
        ?assert(Count > 10)
    end).

requests_fail(File, #{node := N} = Handle, At) ->
    shortage(File, At, 1),
    everything(N),
    Failed = failed(File),
    shortage(File, 0, 0),
    works(N),
    case Failed of
        1 -> requests_fail(File, Handle, At + 1);
        0 -> ?assert(At > 100)
    end.

%% From anywhere in the midst of it on.
nothing_left() ->
    with_program(fun(File, #{node := N}) ->
        [begin
             shortage(File, At, ?FOREVER),
             Worker = spawn(fun() -> everything(N) end),
             Ref = monitor(process, Worker),
             cnode:await(fun() -> failed(File) >= 3 end),
             shortage(File, 0, 0),
             receive {'DOWN', Ref, process, Worker, Reason} -> ?assertEqual(normal, Reason) end,
             works(N)
         end || At <- lists:seq(1, 150, 15)]
    end).

no_descriptors() ->
    os:find_executable("prlimit") =/= false orelse cnode:skip("prlimit is not installed"),
    cnode:with(hostile:program(), fun(#{node := N, port := Port, os_pid := OsPid}) ->
        works(N),
        [begin
             ok = limit(OsPid, "4"),
             %% The system takes the connection, the program cannot.
             Waiting = [raw_dist:open(N, #{name => hostile:raw_name("waits", I), port => Port}) || I <- lists:seq(1, 3)],
             ?assertEqual({error, unknown_request}, gen_server:call(?AT(N), are_you_there, ?LIMIT)),
             ok = limit(OsPid, "1024"),
             lists:foreach(fun raw_dist:close/1, Waiting),
             disconnect(N),
             works(N)
         end || _ <- [1, 2, 3]]
    end).

limit(OsPid, Count) ->
    [] = os:cmd(lists:concat(["prlimit --pid ", OsPid, " --nofile=", Count, ":1024 2>&1"])),
    ok.

%%%-------------------------------------------------------------------
%%% Requests
%%%-------------------------------------------------------------------

%% All that the node can be asked for, with a connection of its own. Whatever becomes of a request, it is answered, or
%% the connection is closed: nobody waits until a limit.
everything(N) ->
    disconnect(N),
    Self = self(),
    Watcher = spawn(fun() -> receive stop -> ok end end),
    Caller = spawn_monitor(fun() ->
        [begin
             answered(gen_server, call, [?AT(N), {attach_peer, Id}, ?LIMIT]),
             answered(gen_server, call, [?AT(N), {attach_peer, <<Id/binary, 0:2000>>}, ?LIMIT])
         end || Id <- [<<"a">>, <<"b">>]],
        Refs = [monitor(process, What) || What <- [?AT(N), ?CACHE(N), {rex, N}]],
        [gen_server:cast(?CACHE(N), {put, Id, profile(Id), 300}) || Id <- [<<"a">>, <<"c">>]],
        Asked = [answered(gen_server, call, [?AT(N), {request_connection, A, B, #{notify => Pid}}, ?LIMIT])
                 || {A, B, Pid} <- [{<<"a">>, <<"b">>, Self}, {<<"b">>, <<"a">>, Watcher}, {<<"c">>, <<"d">>, Watcher}]],
        answered(erpc, call, [N, macula_nat_coordinator, request_connection, [<<"e">>, <<"f">>], ?LIMIT]),
        answered(rpc, call, [N, macula_nat_coordinator, get_pending, [], ?LIMIT]),
        answered(erpc, call, [N, macula_nat_cache, get, [<<"a">>], ?LIMIT]),
        gen_server:cast(?AT(N), {coordinate_punch, <<"a">>, <<"b">>, #{session_id => binary:copy(<<"s">>, 100)}}),
        gen_server:cast(?AT(N), {coordinate_punch, no_id, <<"b">>, #{}}),
        [gen_server:cast(?AT(N), {report_result, Id, <<"a">>, Result}) || {ok, _, Id} <- Asked, Result <- [failure, success]],
        gen_server:cast(?AT(N), nonsense),
        answered(gen_server, call, [?AT(N), get_pending, ?LIMIT]),
        answered(sys, get_state, [?AT(N), ?LIMIT]),
        answered(sys, get_status, [?CACHE(N), ?LIMIT]),
        lists:foreach(fun demonitor/1, Refs),
        [answered(gen_server, call, [?AT(N), {detach_peer, Id}, ?LIMIT]) || Id <- [<<"a">>, <<"b">>]]
    end),
    receive {'DOWN', _, process, Pid, Reason} when {Pid, element(2, Caller)} =:= Caller -> ?assertEqual(normal, Reason) end,
    Watcher ! stop,
    ok.

answered(Module, Function, Arguments) ->
    try apply(Module, Function, Arguments)
    catch Class:Reason ->
        string:find(io_lib:format("~0p", [Reason]), "timeout") =:= nomatch
            orelse error({not_answered, Module, Function, Arguments, Class, Reason}),
        Reason
    end.

%% A punch goes its way on a new connection, and then nothing is left.
works(N) ->
    disconnect(N),
    flush(),
    [?assertEqual(ok, gen_server:call(?AT(N), {attach_peer, Id}, ?LIMIT)) || Id <- [<<"a">>, <<"b">>]],
    end_all(N),
    {ok, hole_punch, Id} = gen_server:call(?AT(N), {request_connection, <<"a">>, <<"b">>, #{notify => self()}}, ?LIMIT),
    [receive {punch_coordinate, #{session_id := Id, role := Role}} -> ok after ?LIMIT -> error({no_coordinate, Role}) end
     || Role <- [initiator, target]],
    gen_server:cast(?AT(N), {report_result, Id, <<"a">>, success}),
    receive {punch_session, Id, #{state := completed}} -> ok after ?LIMIT -> error(not_completed) end,
    ?assertEqual([], gen_server:call(?AT(N), get_pending, ?LIMIT)),
    [?assertEqual(ok, gen_server:call(?AT(N), {detach_peer, Peer}, ?LIMIT)) || Peer <- [<<"a">>, <<"b">>]],
    cnode:await(fun() ->
        #{services := #{mailboxes := Mailboxes}, waiting_for := Waiting} = sys:get_state(?AT(N)),
        {0, [0]} =:= {Mailboxes, lists:usort(maps:values(maps:without([calls], Waiting)))}
    end).

end_all(N) ->
    case gen_server:call(?AT(N), get_pending, ?LIMIT) of
        [] -> ok;
        Sessions ->
            [gen_server:cast(?AT(N), {report_result, Id, <<"a">>, success}) || #{session_id := Id} <- Sessions],
            end_all(N)
    end.

%% The program has heard of it, too, as it answers on the next connection.
disconnect(N) ->
    _ = erlang:disconnect_node(N),
    cnode:await(fun() -> not lists:member(N, nodes(connected)) end).

flush() ->
    receive {punch_coordinate, _} -> flush(); {punch_session, _, _} -> flush() after 0 -> ok end.

profile(Id) ->
    #{node_id => Id, mapping_policy => hd, filtering_policy => pd, allocation_policy => pp, relay_capable => false}.

%%%-------------------------------------------------------------------
%%% The program
%%%-------------------------------------------------------------------

with_program(Test) ->
    with_file(fun(File, Options) ->
        ok = double:start(macula_nat_cache, fun({get, Id}) -> {reply, {ok, profile(Id), fresh}} end),
        ok = double:start(macula_routing_server, fun(_) -> {reply, {ok, []}} end),
        Handle = cnode:start(Options),
        try
            works(maps:get(node, Handle)),
            Test(File, Handle),
            ends(Handle)
        after
            double:stop_all(),
            cnode:is_alive(Handle) andalso cnode:kill(Handle)
        end
    end).

%% A sanitizer's report, of memory left behind too, is a line of the log and changes the exit status.
ends(Handle) ->
    Status = cnode:stop(Handle),
    ?assertEqual({0, []}, {Status, hostile:reports(Handle)}).

with_file(Test) ->
    Program = os:getenv("CNODE_SHORTAGE"),
    Program =/= false orelse cnode:skip("CNODE_SHORTAGE is not set"),
    Name = filename:join(os:getenv("TMPDIR", "/tmp"), cnode:unique("shortage")),
    ok = file:write_file(Name, <<0:256>>),
    {ok, File} = file:open(Name, [read, write, raw, binary]),
    Options = #{program => Program, env => [{"SHORTAGE", Name}],
                args => ["--coordination-delay-ms", "1", "--profile-cache-ttl-ms", "0", "--connect", "nobody@127.0.0.1"]},
    Test(File, Options),
    ok = file:close(File),
    ok = file:delete(Name).

%% From here on so many allocations are granted, and then so many fail.
shortage(File, Skip, Fail) ->
    ok = file:pwrite(File, 0, <<Skip:64/native, Fail:64/native, 0:128>>).

failed(File) ->
    {ok, <<Failed:64/native>>} = file:pread(File, 24, 8),
    Failed.
