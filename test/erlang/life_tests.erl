%% SPDX-License-Identifier: Apache-2.0
%% A long life and an orderly end: ticks, an EPMD that comes and goes, signals.
-module(life_tests).
-include_lib("eunit/include/eunit.hrl").

-define(AT(Node), {macula_nat_coordinator, Node}).
-define(IDLE, 12000).

life_test_() ->
    [{spawn, {timeout, 120, {Title, Test}}} || {Title, Test} <- [
        {"an idle connection with a net_ticktime of 4 s stays up for 12 s", fun idle/0},
        {"EPMD killed and started again", fun epmd_comes_back/0},
        {"EPMD is started if there is none", fun epmd_is_started/0},
        {"SIGTERM", fun() -> ends("TERM") end},
        {"SIGINT", fun() -> ends("INT") end}
    ]].

%% Two nodes: one that connects, and one that is connected to.
idle() ->
    Args = ["-kernel", "net_ticktime", "4"],
    [A, B = #{node := NodeB}] = [cnode:peer(#{args => Args}), cnode:peer(#{args => Args})],
    cnode:with(#{args => ["--connect", atom_to_list(NodeB)]}, fun(#{node := N}) ->
        Self = self(),
        cnode:on(B, fun() -> cnode:await(fun() -> lists:member(N, nodes(hidden)) end) end),
        [spawn_link(fun() -> Self ! {Peer, cnode:on(Peer, fun() -> watch(N) end)} end) || Peer <- [A, B]],
        [receive {Peer, Result} -> ?assertEqual({4, quiet, []}, Result) end || Peer <- [A, B]]
    end),
    [cnode:peer_stop(Peer) || Peer <- [A, B]],
    ok.

watch(N) ->
    pong = net_adm:ping(N),
    true = monitor_node(N, true),
    Result = receive {nodedown, N} -> nodedown after ?IDLE -> quiet end,
    {net_kernel:get_net_ticktime(), Result, gen_server:call(?AT(N), get_pending)}.

epmd_comes_back() ->
    First = cnode:epmd_start(),
    Port = cnode:epmd_port(First),
    Env = [{"ERL_EPMD_PORT", integer_to_list(Port)}],
    Peer = cnode:peer(#{env => Env}),
    cnode:with(#{env => Env}, fun(#{node := N, name := Name, port := Listen} = Handle) ->
        ?assertEqual({Name, Listen}, lists:keyfind(Name, 1, cnode:epmd_names(Port))),
        %% A process that never looks EPMD up again watches all the while.
        Pid = cnode:on(Peer, fun() -> compare:pid(N) end),
        Watcher = cnode:on(Peer, fun() -> watcher(N) end),
        cnode:epmd_stop(First),
        ?assertEqual([], cnode:on(Peer, fun() -> gen_server:call(?AT(N), get_pending) end)),
        Second = cnode:epmd_start(Port),
        cnode:await(fun() -> lists:keyfind(Name, 1, cnode:epmd_names(Port)) =:= {Name, Listen} end),
        New = cnode:peer(#{env => Env}),
        ?assertEqual(pong, cnode:on(New, fun() -> net_adm:ping(N) end)),
        %% The creation is the first one still: its pids are the same for old and new nodes.
        ?assertEqual([Pid, Pid], [cnode:on(Each, fun() -> compare:pid(N) end) || Each <- [Peer, New]]),
        ?assertEqual([], cnode:on(Peer, fun() -> Watcher ! {seen, self()}, receive {Watcher, Seen} -> Seen end end)),
        ?assertEqual(0, cnode:stop(Handle)),
        cnode:await(fun() -> not lists:keymember(Name, 1, cnode:epmd_names(Port)) end),
        cnode:peer_stop(New),
        cnode:epmd_stop(Second)
    end),
    cnode:peer_stop(Peer).

%% Remembers what happens to the connection.
watcher(N) ->
    Self = self(),
    Watcher = spawn(fun() ->
        Ref = monitor(process, ?AT(N)),
        true = monitor_node(N, true),
        Self ! {self(), ready},
        watcher_loop(Ref, [])
    end),
    receive {Watcher, ready} -> Watcher end.

watcher_loop(Ref, Seen) ->
    receive
        {seen, From} -> From ! {self(), Seen}, watcher_loop(Ref, Seen);
        Event -> watcher_loop(Ref, [Event | Seen])
    end.

epmd_is_started() ->
    Port = cnode:free_port(),
    Env = [{"ERL_EPMD_PORT", integer_to_list(Port)}],
    ?assertEqual({error, address}, cnode:epmd_names(Port)),
    try
        cnode:with(#{env => Env}, fun(#{node := N, name := Name, port := Listen}) ->
            ?assertEqual([{Name, Listen}], cnode:epmd_names(Port)),
            Peer = cnode:peer(#{env => Env}),
            ?assertEqual(pong, cnode:on(Peer, fun() -> net_adm:ping(N) end)),
            cnode:peer_stop(Peer)
        end),
        cnode:await(fun() -> cnode:epmd_names(Port) =:= [] end)
    after
        os:cmd(io_lib:format("epmd -port ~b -kill", [Port]))
    end.

ends(Signal) ->
    Peers = [cnode:peer(), cnode:peer()],
    Handle = #{node := N, name := Name} = cnode:start(),
    Watchers = [{Peer, cnode:on(Peer, fun() -> end_watcher(N) end)} || Peer <- Peers],
    cnode:signal(Handle, Signal),
    [?assertEqual([shutdown, shutdown, shutdown, shutdown],
                  cnode:on(Peer, fun() -> Watcher ! {seen, self()}, receive {Watcher, Seen} -> Seen end end))
     || {Peer, Watcher} <- Watchers],
    ?assertEqual(0, cnode:await_exit(Handle)),
    ?assertNot(lists:keymember(Name, 1, cnode:epmd_names())),
    [cnode:peer_stop(Peer) || Peer <- Peers],
    ok.

%% A process that has three monitors and a link, and tells what they said.
end_watcher(N) ->
    Self = self(),
    Watcher = spawn(fun() ->
        process_flag(trap_exit, true),
        Pid = compare:pid(N),
        true = link(Pid),
        Refs = [monitor(process, What) || What <- [Pid, ?AT(N), {macula_nat_cache, N}]],
        [] = gen_server:call(?AT(N), get_pending),
        Self ! {self(), ready},
        Downs = [receive {'DOWN', Ref, process, _, Reason} -> Reason end || Ref <- Refs],
        Exit = receive {'EXIT', Pid, Why} -> Why end,
        receive {seen, From} -> From ! {self(), [Exit | Downs]} end
    end),
    receive {Watcher, ready} -> Watcher end.
