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
        {"a request in the packet that ends the program", fun request_after_the_end/0}
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
