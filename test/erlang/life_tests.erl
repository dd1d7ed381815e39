%% SPDX-License-Identifier: Apache-2.0
%% A long life and an orderly end: ticks, hosts that fall silent, an EPMD that comes and goes, signals.
%%
%% What takes long, as it waits for the program's own times, runs beside the others: the silent host 75 s, the sweep
%% 30 s.
-module(life_tests).
-include_lib("eunit/include/eunit.hrl").

-define(SERVER, macula_nat_coordinator).
-define(AT(Node), {?SERVER, Node}).
-define(IDLE, 12000).

life_test_() ->
    {inparallel, [
        test("a host that is gone without a word", fun silent_host/0),
        test("ended and old sessions are swept", fun swept/0),
        {inorder, [test(Title, Test) || {Title, Test} <- [
            {"an idle connection with a net_ticktime of 4 s stays up for 12 s", fun idle/0},
            {"EPMD killed and started again", fun epmd_comes_back/0},
            {"EPMD is started if there is none", fun epmd_is_started/0},
            {"nobody is answered before EPMD has given a creation", fun no_creation_yet/0},
            {"SIGTERM", fun() -> ends("TERM") end},
            {"SIGINT", fun() -> ends("INT") end},
            {"SIGTERM while output is queued", fun queued_at_the_end/0},
            {"SIGTERM while a peer does not read", fun unread_at_the_end/0}
        ]]}
    ]}.

test(Title, Test) ->
    {spawn, {timeout, 180, {Title, Test}}}.

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

%% From some moment on nothing passes between the program and two of its peers, and neither is told. In a network
%% namespace, so that no rule of this machine's firewall is touched. The program finds out by what it sends: by a
%% message at once, by a tick after 15 s of silence.
silent_host() ->
    os:cmd("id -u") =:= "0\n" orelse cnode:skip("it needs root"),
    [os:find_executable(Command) =/= false orelse cnode:skip(Command ++ " is not installed")
     || Command <- ["unshare", "ip", "nft"]],
    os:cmd("unshare --net -- sh -c 'ip link set lo up && nft add table ip try' >/dev/null 2>&1 && echo ok") =:= "ok\n"
        orelse cnode:skip("namespaces or nftables are not allowed here"),
    Erl = "ip link set lo up && exec erl \"$@\"",
    Inside = cnode:peer(#{inside => ["unshare", "--net", "--", "sh", "-c", Erl, "sh"]}),
    cnode:on(Inside, fun falls_silent/0, 170000),
    cnode:peer_stop(Inside).

falls_silent() ->
    Epmd = cnode:epmd_start(),
    Port = integer_to_list(cnode:epmd_port(Epmd)),
    cnode:with(#{env => [{"ERL_EPMD_PORT", Port}]}, fun(#{node := N, port := Listen} = Handle) ->
        Connect = fun(Title) ->
            %% This node is none, and has no cookie of its own.
            Options = #{name => hostile:raw_name(Title), port => Listen, cookie => list_to_atom(cnode:cookie())},
            {ok, Peer} = raw_dist:connect(N, Options),
            Peer
        end,
        Quiet = Connect("quiet"),
        Before = cnode:descriptors(Handle),
        [Told, Untold] = Gone = [Connect("told"), Connect("untold")],
        Attach = fun(Peer) -> ?assertEqual({ok, ok}, raw_dist:call(Peer, ?SERVER, {attach_peer, <<"told">>})) end,
        Attach(Told),
        ?assertEqual({ok, []}, raw_dist:call(Untold, ?SERVER, get_pending)),
        {#{services := #{mailboxes := 1}, network := #{connections := 3}}, _} = state(Quiet),
        [] = os:cmd("nft 'add table ip silence; add chain ip silence in { type filter hook input priority 0; }'"),
        [begin
             {ok, {_, PeerPort}} = inet:sockname(Socket),
             [] = os:cmd(io_lib:format("nft add rule ip silence in tcp ~s ~b drop", [End, PeerPort]))
         end || #{socket := Socket} <- Gone, End <- ["sport", "dport"]],
        Mark = cnode:mark(Handle),
        %% It has lost its mailbox, and is told so.
        Attach(Quiet),
        [begin
             Ended = ["warning connection with ", atom_to_list(raw_dist:name(Peer)), " closed: connection timed out"],
             cnode:await_log(Handle, Ended, Mark, 120000)
         end || Peer <- [Told, Untold]],
        %% The one that is there has got ticks all the while.
        {State, Ticks} = state(Quiet),
        ?assertMatch(#{services := #{mailboxes := 1}, network := #{connections := 1}}, State),
        ?assert(Ticks >= 3),
        cnode:await(fun() -> cnode:descriptors(Handle) =:= Before end),
        lists:foreach(fun raw_dist:close/1, [Quiet | Gone])
    end),
    cnode:epmd_stop(Epmd).

%% The program's state, and the number of ticks that came before it.
state(Peer) ->
    Self = raw_dist:pid(Peer, 1),
    Tag = raw_dist:reference(Peer, erlang:unique_integer([positive])),
    ok = raw_dist:send_control(Peer, {6, Self, '', ?SERVER}, {system, {Self, Tag}, get_state}),
    await_state(Peer, Tag, 0).

await_state(Peer, Tag, Ticks) ->
    case raw_dist:recv(Peer) of
        tick -> await_state(Peer, Tag, Ticks + 1);
        {_, {Tag, {ok, State}}} -> {State, Ticks};
        Other when element(1, Other) =/= error -> await_state(Peer, Tag, Ticks)
    end.

%% One has ended, one is older than it may be.
swept() ->
    Peer = cnode:peer(),
    cnode:with(#{args => ["--session-ttl-s", "1"]}, fun(#{node := N}) ->
        cnode:on(Peer, fun() ->
            Ask = fun(Target) ->
                Request = {request_connection, <<"a">>, Target, #{punch_timeout_ms => 600000}},
                {ok, hole_punch, Id} = gen_server:call(?AT(N), Request),
                Id
            end,
            [Ended, Old] = [Ask(<<"b">>), Ask(<<"c">>)],
            ok = gen_server:cast(?AT(N), {report_result, Ended, <<"a">>, success}),
            ?assertMatch([#{session_id := Old}], gen_server:call(?AT(N), get_pending)),
            Swept = fun() ->
                #{counters := Counters, sessions := Sessions} = sys:get_state(?AT(N)),
                {maps:with([swept_ended, swept_expired], Counters), lists:sum(maps:values(Sessions))}
            end,
            ?assertEqual({#{swept_ended => 0, swept_expired => 0}, 2}, Swept()),
            cnode:await(fun() -> Swept() =:= {#{swept_ended => 1, swept_expired => 1}, 0} end, 60000),
            ?assertEqual([], gen_server:call(?AT(N), get_pending))
        end, 70000)
    end),
    cnode:peer_stop(Peer).

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

%% An EPMD that answers late. Who has connected meanwhile waits, and is told the creation.
no_creation_yet() ->
    {ok, Epmd} = gen_tcp:listen(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}]),
    {ok, EpmdPort} = inet:port(Epmd),
    Port = cnode:free_port(),
    Name = cnode:unique("late"),
    Node = list_to_atom(Name ++ "@127.0.0.1"),
    Self = self(),
    Starter = spawn_link(fun() ->
        cnode:with(#{name => Name, args => ["--port", integer_to_list(Port)],
                     env => [{"ERL_EPMD_PORT", integer_to_list(EpmdPort)}]},
                   fun(_) -> Self ! {self(), ready}, receive stop -> ok end end),
        Self ! {self(), ended}
    end),
    {ok, Registration} = gen_tcp:accept(Epmd),
    {ok, <<_:16, 120, Port:16, _/binary>>} = gen_tcp:recv(Registration, 0),
    {ok, #{socket := Socket} = Peer} =
        raw_dist:connect(Node, #{name => hostile:raw_name("early"), port => Port, stop => name}),
    ?assertEqual({error, timeout}, gen_tcp:recv(Socket, 0, 300)),
    ok = gen_tcp:send(Registration, <<118, 0, 77:32>>),
    ?assertMatch({ok, <<3:16, "sok", _:16, "N", _Flags:64, _Challenge:32, 77:32>>}, gen_tcp:recv(Socket, 24)),
    receive {Starter, ready} -> ok end,
    raw_dist:close(Peer),
    Starter ! stop,
    receive {Starter, ended} -> ok end,
    gen_tcp:close(Registration),
    gen_tcp:close(Epmd).

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

%% Replies that a peer has not read when the end comes, more than its socket takes, arrive all the same.
queued_at_the_end() ->
    Handle = cnode:start(hostile:program()),
    {Peer, Ids} = queue_output(Handle),
    cnode:signal(Handle, "TERM"),
    _ = cnode:await_log(Handle, "ended by signal 15"),
    [?assertMatch({ok, {ok, #{node_id := <<"large">>}, fresh}}, raw_dist:await_reply(Peer, Id)) || Id <- Ids],
    %% The monitor of each call tells the end.
    [?assertEqual({down, shutdown}, raw_dist:await_reply(Peer, Id)) || Id <- Ids],
    ?assertEqual(closed, raw_dist:await_close(Peer)),
    ?assertEqual(0, cnode:await_exit(Handle)).

unread_at_the_end() ->
    Handle = cnode:start(hostile:program()),
    {Peer, _} = queue_output(Handle),
    ?assertEqual(0, cnode:stop(Handle)),
    raw_dist:close(Peer).

%% A peer with small buffers, to which 10 MB are on their way when this returns.
queue_output(#{node := N}) ->
    Large = #{node_id => <<"large">>, location_label => binary:copy(<<"x">>, 1000000)},
    ok = gen_server:cast({macula_nat_cache, N}, {put, <<"large">>, Large, 300}),
    {ok, #{socket := Socket} = Peer} = raw_dist:connect(N, #{name => hostile:raw_name("queued")}),
    ok = inet:setopts(Socket, [{recbuf, 65536}]),
    Ids = lists:seq(1, 10),
    #{counters := #{reports_unknown := Before}} = sys:get_state(?AT(N)),
    Call = fun(Id) -> element(1, raw_dist:call_frames(Peer, macula_nat_cache, {get, <<"large">>}, Id)) end,
    ok = raw_dist:send(Peer, lists:map(Call, Ids)),
    %% When this has been counted all requests have been handled.
    ok = raw_dist:send_control(Peer, {6, raw_dist:pid(Peer, 1), '', ?SERVER},
                               {'$gen_cast', {report_result, <<"none">>, <<"a">>, success}}),
    cnode:await(fun() -> #{counters := #{reports_unknown := Now}} = sys:get_state(?AT(N)), Now > Before end),
    {Peer, Ids}.
