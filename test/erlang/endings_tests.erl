%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc Ends that come in the midst of something else: a node that goes while one process is linked to it twice, a
%% process that ends while it hands on what had waited, a request that arrives in the packet that ended the program.
%% The sanitized program is used, where there is one: what it touches after it was freed shows in its exit status.
-module(endings_tests).

-include_lib("eunit/include/eunit.hrl").

-define(SERVER, macula_nat_coordinator).
-define(AT(Node), {?SERVER, Node}).

endings_test_() ->
    [{spawn, {timeout, 120, {Title, Test}}} || {Title, Test} <- [
        {"a node goes that a worker is linked to twice", fun worker_linked_twice/0},
        {"a node goes that the coordinator is linked to twice", fun coordinator_linked_twice/0},
        {"a linked process ends abnormally", fun linked_process_ends/0},
        {"what had waited ends the process that hands it on", fun ended_by_what_waited/0},
        {"an answer to sys that had waited is nobody's", fun answer_that_waited/0},
        {"a request in the packet that ends the program", fun request_after_the_end/0},
        {"every way to end a process ends the program", fun any_process_ends/0},
        {"SIGTERM under load: who waits is told why", fun under_load/0},
        {"gen_server:stop/1 is the first call", fun first_call/0},
        {"SIGTERM while a host name is looked up", fun while_resolving/0}
    ]].

%% The worker waits for the coordinator, which is suspended.
worker_linked_twice() ->
    with(fun(Handle) ->
        Peer = connect(Handle, 1),
        Self = raw_dist:pid(Peer, 1),
        Request = raw_dist:reference(Peer, 2),
        ok = raw_dist:send(Peer, [
            system(Peer, ?SERVER, suspend),
            raw_dist:frame({29, Request, Self, Self, {erpc, execute_call, 4}, [monitor]},
                           [Request, ?SERVER, get_pending, []])]),
        Worker = await_worker(Peer),
        ok = raw_dist:send(Peer, [raw_dist:frame({1, raw_dist:pid(Peer, Id), Worker}) || Id <- [1, 2]]),
        in_order(Peer),
        raw_dist:close(Peer),
        Other = connect(Handle, 2),
        ok = raw_dist:send(Other, system(Other, ?SERVER, resume)),
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Other, ?SERVER, x)),
        raw_dist:close(Other),
        ?assertEqual(0, cnode:stop(Handle))
    end).

coordinator_linked_twice() ->
    with(fun(#{node := N} = Handle) ->
        Peer = connect(Handle, 1),
        Coordinator = compare:pid(N),
        ok = raw_dist:send(Peer, [raw_dist:frame({1, raw_dist:pid(Peer, Id), translate(Peer, Coordinator)}) || Id <- [1, 2]]),
        in_order(Peer),
        raw_dist:close(Peer),
        ?assertEqual(1, cnode:await_exit(Handle))
    end).

linked_process_ends() ->
    with(fun(#{node := N} = Handle) ->
        Coordinator = compare:pid(N),
        spawn(fun() -> true = link(Coordinator), exit(broken) end),
        ?assertEqual(1, cnode:await_exit(Handle))
    end).

%% The call that rex hands on finds the coordinator's 64 MiB full. That cuts its node off, to which the coordinator is
%% linked.
ended_by_what_waited() ->
    with(fun(#{node := N} = Handle) ->
        Peer = connect(Handle, 1),
        Self = raw_dist:pid(Peer, 1),
        Coordinator = translate(Peer, compare:pid(N)),
        ok = raw_dist:send(Peer, [
            system(Peer, rex, suspend), system(Peer, ?SERVER, suspend),
            [cast(Peer, 15 bsl 20) || _ <- lists:seq(1, 4)], cast(Peer, 4 bsl 20 - 6000),
            raw_dist:frame({1, Self, Coordinator}),
            raw_dist:frame({6, Self, '', rex},
                           {Self, {call, ?SERVER, request_connection, [binary:copy(<<"x">>, 20000), <<"b">>], user}})]),
        in_order(Peer),
        ok = raw_dist:send(Peer, system(Peer, rex, resume)),
        ?assertEqual(1, cnode:await_exit(Handle))
    end).

%% What rex hands on after it was suspended comes in no frame, and answers nothing: this node gets its state as before.
answer_that_waited() ->
    with(fun(#{node := N} = Handle) ->
        Pid = term_to_binary(compare:pid(N)),
        Size = byte_size(Pid) - 14,
        <<131, 88, Node:Size/binary, _:8/binary, Creation:4/binary>> = Pid,
        Reference = binary_to_term(<<131, 90, 3:16, Node/binary, Creation/binary, 0:96>>),
        Monitor = monitor(process, {rex, N}),
        ok = sys:suspend({rex, N}),
        Wrong = case erlang:system_info(otp_release) of "25" -> {ok, answer}; _ -> answer end,
        {rex, N} ! {self(), {sbcast, ?SERVER, {Reference, Wrong}}},
        ok = sys:resume({rex, N}),
        ?assertEqual(taken, receive {rex, N, N} -> taken; {'DOWN', Monitor, _, _, Reason} -> Reason end),
        ?assertMatch(#{options := _}, sys:get_state(?AT(N))),
        ?assertEqual(0, cnode:stop(Handle))
    end).

request_after_the_end() ->
    with(fun(#{node := N} = Handle) ->
        [{ok, _, _} = gen_server:call(?AT(N), {request_connection, <<"a", I:16>>, <<"b">>, #{}}) || I <- lists:seq(1, 1000)],
        Peer = connect(Handle, 1),
        Self = raw_dist:pid(Peer, 1),
        Request = raw_dist:reference(Peer, 2),
        ok = raw_dist:send(Peer, iolist_to_binary([
            system(Peer, ?SERVER, {terminate, shutdown}),
            raw_dist:frame({29, Request, Self, Self, {erpc, execute_call, 4}, [monitor]},
                           [Request, ?SERVER, get_pending, []])])),
        ?assertEqual(0, cnode:await_exit(Handle))
    end).

%% One of a program's own processes is not missed without a word.
any_process_ends() ->
    [with(fun(#{node := N} = Handle) ->
         ?assertEqual({Name, ok}, {Name, gen_server:stop({Name, N})}),
         ?assertEqual({Name, 0}, {Name, cnode:await_exit(Handle)})
     end) || Name <- [?SERVER, macula_nat_cache, rex, net_kernel]].

%% Callers that never stop calling, each of which watches the coordinator as well: the reason of the end arrives, as
%% nothing that was sent before is lost. A call ends like it, or, if it began too late, for want of a connection.
under_load() ->
    in_parallel(3, fun(_) ->
        with(fun(#{node := N} = Handle) ->
            Peer = cnode:peer(),
            Callers = cnode:on(Peer, fun() -> [caller(N) || _ <- lists:seq(1, 64)] end),
            cnode:signal(Handle, "TERM"),
            Told = cnode:on(Peer, fun() -> [begin C ! {tell, self()}, receive {C, Seen} -> Seen end end || C <- Callers] end),
            ?assertEqual([shutdown], lists:usort([Watched || {Watched, _} <- Told])),
            ?assertEqual([], lists:usort([Call || {_, Call} <- Told]) -- [shutdown, noconnection, {nodedown, N}]),
            ?assertEqual(0, cnode:await_exit(Handle)),
            cnode:peer_stop(Peer)
        end)
    end).

%% A process that calls until that fails: why that was, and what the monitor said that it has had all the while.
caller(N) ->
    Self = self(),
    Caller = spawn(fun() ->
        Ref = monitor(process, ?AT(N)),
        [] = gen_server:call(?AT(N), get_pending),
        Self ! {self(), calls},
        Failed = call_on(N),
        receive {'DOWN', Ref, process, _, Watched} -> receive {tell, From} -> From ! {self(), {Watched, Failed}} end end
    end),
    receive {Caller, calls} -> Caller end.

call_on(N) ->
    try gen_server:call(?AT(N), get_pending) of
        [] -> call_on(N)
    catch
        exit:{Reason, _} -> Reason
    end.

%% What a node says by itself when it has connected lies unread when the program ends.
first_call() ->
    in_parallel(4, fun(_) ->
        [with(fun(#{node := N} = Handle) ->
             ?assertEqual(ok, gen_server:stop(?AT(N))),
             ?assertEqual(0, cnode:await_exit(Handle))
         end) || _ <- lists:seq(1, 10)]
    end).

%% A name server that does not answer for minutes. Only this program asks it, in a mount namespace of its own.
while_resolving() ->
    os:cmd("id -u") =:= "0\n" orelse cnode:skip("it needs root"),
    os:cmd("unshare --mount -- true >/dev/null 2>&1 && echo ok") =:= "ok\n" orelse cnode:skip("namespaces are not allowed here"),
    {ok, Server} = gen_udp:open(53, [binary, {ip, {127, 0, 0, 99}}]),
    Resolv = filename:join(os:getenv("TMPDIR", "/tmp"), cnode:unique("resolv")),
    ok = file:write_file(Resolv, "nameserver 127.0.0.99\noptions timeout:30 attempts:5\n"),
    Mounted = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"",
    Handle = cnode:start(#{
        program => os:find_executable("unshare"),
        node_args => ["--mount", "--", "sh", "-c", Mounted, Resolv, cnode:command(),
                      "--name", cnode:unique("resolving") ++ "@127.0.0.1", "--connect", "a@nowhere.example"]
    }),
    receive {udp, Server, _, _, _} -> ok end,
    ?assertEqual(0, cnode:stop(Handle)),
    gen_udp:close(Server).

%%%-------------------------------------------------------------------
%%% Helpers
%%%-------------------------------------------------------------------

%% The test ends the program.
with(Test) ->
    Handle = cnode:start(maps:without([args], hostile:program())),
    try
        Test(Handle)
    after
        ?assertEqual([], [Line || Line <- cnode:log(Handle), re:run(Line, "Sanitizer|runtime error:", [{capture, none}]) =:= match]),
        cnode:kill(Handle)
    end.

in_parallel(Count, Fun) ->
    Workers = [spawn_monitor(fun() -> Fun(I) end) || I <- lists:seq(1, Count)],
    ?assertEqual([normal], lists:usort([receive {'DOWN', Ref, process, Pid, Reason} -> Reason end || {Pid, Ref} <- Workers])).

connect(Handle, Number) ->
    hostile:connect(Handle, hostile:raw_name("endings", Number)).

system(Peer, Name, Message) ->
    Self = raw_dist:pid(Peer, 1),
    raw_dist:frame({6, Self, '', Name}, {system, {Self, raw_dist:reference(Peer, 1)}, Message}).

cast(Peer, Size) ->
    raw_dist:frame({6, raw_dist:pid(Peer, 1), '', ?SERVER}, {'$gen_cast', binary:copy(<<"x">>, Size)}).

await_worker(Peer) ->
    case raw_dist:recv(Peer) of
        {{31, _, _, _, Worker}} when is_pid(Worker) -> Worker;
        {error, Reason} -> error(Reason);
        _ -> await_worker(Peer)
    end.

%% What was sent before has been taken when a process that is not suspended answers.
in_order(Peer) ->
    ?assertMatch({ok, _}, raw_dist:call(Peer, macula_nat_cache, x)).

%% A pid of the program, as the peer writes it.
translate(Peer, Pid) ->
    [_, Id, _] = string:lexemes(pid_to_list(Pid), "<.>"),
    raw_dist:their_pid(Peer, list_to_integer(Id)).
