%% SPDX-License-Identifier: Apache-2.0
%% Several Erlang nodes around the program: at once, coming and going, with names and cookies of all kinds.
-module(nodes_tests).
-include_lib("eunit/include/eunit.hrl").

-define(NAME, macula_nat_coordinator).
-define(AT(Node), {macula_nat_coordinator, Node}).
-define(CALLS, 300).
-define(ROUNDS, 10).

nodes_test_() ->
    [{spawn, {timeout, 120, {Title, Test}}} || {Title, Test} <- [
        {"two nodes at once", fun two_at_once/0},
        {"a node goes away and comes back under its name", fun comes_back/0},
        {"a node that was killed comes back under its name", fun killed_comes_back/0},
        {"a node goes away while its call waits", fun gone_while_waiting/0},
        {"the program comes back under its name", fun program_comes_back/0},
        {"a node with a dynamic name", fun dynamic_name/0},
        {"short names", fun short_names/0},
        {"the default name", fun default_name/0},
        {"--connect is kept up", fun connect_is_kept_up/0},
        {"--connect to several nodes, one of them late", fun connect_to_several/0},
        {"--connect to a node that is not there is said once", fun connect_to_nobody/0},
        {"both connect at the same time", fun simultaneous/0},
        {"a node with another cookie", fun wrong_cookie/0},
        {"--connect to a node with another cookie", fun connect_with_wrong_cookie/0},
        {"the cookie from a file", fun cookie_file/0},
        {"the cookie from the home directory", fun cookie_at_home/0}
    ]].

two_at_once() ->
    Peers = [A, B] = [cnode:peer(), cnode:peer()],
    cnode:with(#{}, fun(#{node := N}) ->
        Self = self(),
        Workers = [spawn_link(fun() -> Self ! {self(), cnode:on(Peer, fun() -> sessions(N) end)} end) || Peer <- Peers],
        [FromA, FromB] = [receive {Worker, Ids} -> Ids end || Worker <- Workers],
        Pending = fun() -> lists:sort([Id || #{session_id := Id} <- gen_server:call(?AT(N), get_pending)]) end,
        All = lists:sort(FromA ++ FromB),
        ?assertEqual(2 * ?CALLS, length(lists:usort(All))),
        ?assertEqual(All, cnode:on(A, Pending)),
        ?assertEqual(All, cnode:on(B, Pending)),
        %% Both are connected to it and, since it is hidden, know nothing of each other.
        [?assertEqual({[], [N]}, cnode:on(Peer, fun() -> {nodes(), nodes(hidden)} end)) || Peer <- Peers]
    end),
    [cnode:peer_stop(Peer) || Peer <- Peers],
    ok.

sessions(N) ->
    [begin {ok, hole_punch, Id} = gen_server:call(?AT(N), {request_connection, <<I>>, <<"b">>, #{}}), Id end
     || I <- lists:duplicate(?CALLS, 1)].

comes_back() ->
    comes_back(fun cnode:peer_stop/1).

killed_comes_back() ->
    comes_back(fun cnode:peer_kill/1).

comes_back(End) ->
    Other = cnode:peer(),
    Name = cnode:unique("returning"),
    cnode:with(#{}, fun(#{node := N} = Handle) ->
        [] = cnode:on(Other, fun() -> gen_server:call(?AT(N), get_pending) end),
        Visit = fun() ->
            Peer = cnode:peer(#{name => Name}),
            Answer = cnode:on(Peer, fun() ->
                Ref = monitor(process, ?AT(N)),
                Reply = gen_server:call(?AT(N), get_pending),
                {Reply, demonitor(Ref, [info]), rpc:call(N, ?NAME, get_pending, [])}
            end),
            End(Peer),
            Answer
        end,
        ?assertEqual([{[], true, []}], lists:usort([Visit() || _ <- lists:seq(1, 3)])),
        %% The descriptors of the connections that are gone are closed: that of the other node is left.
        {Before, _} = {cnode:descriptors(Handle), Visit()},
        cnode:await(fun() -> cnode:descriptors(Handle) =< Before end),
        ?assertEqual([], cnode:on(Other, fun() -> gen_server:call(?AT(N), get_pending) end))
    end),
    cnode:peer_stop(Other).

gone_while_waiting() ->
    [A, B] = [cnode:peer(), cnode:peer()],
    cnode:with(#{}, fun(#{node := N}) ->
        ok = cnode:on(B, fun() -> sys:suspend(?AT(N)) end),
        cnode:on(A, fun() ->
            [gen_server:send_request(?AT(N), get_pending) || _ <- lists:seq(1, 100)],
            %% When this is answered, the calls before it have arrived.
            {status, _, _, _} = sys:get_status(?AT(N))
        end),
        cnode:peer_kill(A),
        ok = cnode:on(B, fun() -> sys:resume(?AT(N)) end),
        ?assertEqual([], cnode:on(B, fun() -> gen_server:call(?AT(N), get_pending) end))
    end),
    cnode:peer_stop(B).

program_comes_back() ->
    Peer = cnode:peer(),
    Name = cnode:unique("again"),
    Ends = [fun(Handle) -> 0 = cnode:stop(Handle) end, fun cnode:kill/1, fun(Handle) -> 0 = cnode:stop(Handle) end],
    Pids = [begin
                Handle = #{node := N} = cnode:start(#{name => Name}),
                Pid = cnode:on(Peer, fun() ->
                    [] = gen_server:call(?AT(N), get_pending),
                    compare:pid(N)
                end),
                End(Handle),
                cnode:on(Peer, fun() -> cnode:await(fun() -> not lists:member(N, nodes(hidden)) end) end),
                Pid
            end || End <- Ends],
    %% Each time it is another process, as the creation of its node says.
    ?assertEqual(3, length(lists:usort(Pids))),
    cnode:peer_stop(Peer).

dynamic_name() ->
    {Epmd, Env} = epmd_for_short_names(),
    Peer = cnode:dynamic_peer(Env),
    cnode:with(#{node_args => ["--sname", cnode:unique("namer")], env => Env}, fun(#{node := N}) ->
        ?assertEqual(nonode@nohost, cnode:on(Peer, fun() -> node() end)),
        ?assertEqual(true, cnode:on(Peer, fun() -> net_kernel:connect_node(N) end)),
        Given = cnode:on(Peer, fun() -> node() end),
        ?assertNotEqual(nonode@nohost, Given),
        ?assertEqual({pong, [], [], [N]},
                     cnode:on(Peer, fun() -> {net_adm:ping(N), gen_server:call(?AT(N), get_pending),
                                              rpc:call(N, ?NAME, get_pending, []), nodes(hidden)} end)),
        %% Another one gets another name.
        Second = cnode:dynamic_peer(Env),
        ?assertEqual(true, cnode:on(Second, fun() -> net_kernel:connect_node(N) end)),
        ?assertNotEqual(Given, cnode:on(Second, fun() -> node() end)),
        ?assertEqual([], cnode:on(Second, fun() -> gen_server:call(?AT(N), get_pending) end)),
        %% The name goes with the connection, and comes again with the next one.
        cnode:on(Peer, fun() ->
            true = erlang:disconnect_node(N),
            cnode:await(fun() -> node() =:= nonode@nohost end)
        end),
        ?assertEqual({true, []}, cnode:on(Peer, fun() -> {net_kernel:connect_node(N),
                                                          gen_server:call(?AT(N), get_pending)} end)),
        cnode:peer_stop(Second)
    end),
    cnode:peer_stop(Peer),
    cnode:epmd_stop(Epmd).

short_names() ->
    Name = cnode:unique("short"),
    {Epmd, Env} = epmd_for_short_names(),
    cnode:with(#{node_args => ["--sname", Name], env => Env}, fun(#{node := N}) ->
        ?assertEqual(Name ++ "@" ++ short_host(), atom_to_list(N)),
        Peer = cnode:peer(#{shortnames => true, env => Env}),
        ?assertEqual({pong, []}, cnode:on(Peer, fun() -> {net_adm:ping(N), gen_server:call(?AT(N), get_pending)} end)),
        cnode:peer_stop(Peer)
    end),
    cnode:epmd_stop(Epmd).

default_name() ->
    {Epmd, Env} = epmd_for_short_names(),
    cnode:with(#{node_args => [], env => Env}, fun(#{node := N}) ->
        ?assertEqual("macula_nat@" ++ short_host(), atom_to_list(N))
    end),
    cnode:epmd_stop(Epmd).

%% Short names are looked for at the address of this host's name.
epmd_for_short_names() ->
    case inet:getaddr(short_host(), inet) of
        {ok, Address} ->
            Epmd = cnode:epmd_start(cnode:free_port(), inet:ntoa(Address)),
            {Epmd, [{"ERL_EPMD_PORT", integer_to_list(cnode:epmd_port(Epmd))}]};
        {error, Reason} ->
            cnode:skip(io_lib:format("this host's name has no address (~p)", [Reason]))
    end.

short_host() ->
    {ok, Host} = inet:gethostname(),
    hd(string:split(Host, ".")).

connect_is_kept_up() ->
    Name = cnode:unique("kept"),
    First = #{node := Node} = cnode:peer(#{name => Name}),
    cnode:with(#{args => ["--connect", atom_to_list(Node)]}, fun(#{node := N}) ->
        connected(First, N),
        %% A connection that is cut comes back by itself.
        cnode:on(First, fun() -> cnode:nodedown(N, fun() -> erlang:disconnect_node(N) end) end),
        connected(First, N),
        cnode:peer_stop(First),
        Second = cnode:peer(#{name => Name}),
        connected(Second, N),
        ?assertEqual([], cnode:on(Second, fun() -> gen_server:call(?AT(N), get_pending) end)),
        cnode:peer_kill(Second),
        Third = cnode:peer(#{name => Name}),
        connected(Third, N),
        cnode:peer_stop(Third)
    end).

connect_to_several() ->
    Late = cnode:unique("late"),
    First = #{node := Node} = cnode:peer(),
    Args = ["--connect", atom_to_list(Node), "--connect", Late ++ "@127.0.0.1"],
    cnode:with(#{args => Args}, fun(#{node := N}) ->
        connected(First, N),
        Second = cnode:peer(#{name => Late}),
        connected(Second, N),
        ?assertEqual([], cnode:on(Second, fun() -> gen_server:call(?AT(N), get_pending) end)),
        ?assertEqual([], cnode:on(First, fun() -> gen_server:call(?AT(N), get_pending) end)),
        cnode:peer_stop(Second)
    end),
    cnode:peer_stop(First).

connect_to_nobody() ->
    Name = cnode:unique("nobody") ++ "@127.0.0.1",
    Failure = "no connection with " ++ Name ++ ": EPMD does not know the name",
    cnode:with(#{args => ["--connect", Name, "--log-level", "debug"]}, fun(Handle) ->
        _ = cnode:await_log(Handle, ["debug ", Failure]),
        ?assertMatch([_], [Line || Line <- cnode:log(Handle), string:find(Line, "warning " ++ Failure) =/= nomatch])
    end).

%% The node does nothing to connect: the program does.
connected(Peer, N) ->
    cnode:on(Peer, fun() -> cnode:await(fun() -> lists:member(N, nodes(hidden)) end) end).

simultaneous() ->
    Peer = #{node := Node} = cnode:peer(),
    [begin
         Name = cnode:unique("both"),
         N = list_to_atom(Name ++ "@127.0.0.1"),
         Ping = spawn_link(fun() ->
             receive go -> cnode:on(Peer, fun() -> cnode:await(fun() -> net_adm:ping(N) =:= pong end) end) end
         end),
         Ref = monitor(process, Ping),
         Ping ! go,
         cnode:with(#{name => Name, args => ["--connect", atom_to_list(Node)]}, fun(_) ->
             receive {'DOWN', Ref, process, Ping, normal} -> ok end,
             connected(Peer, N),
             ?assertEqual([], cnode:on(Peer, fun() -> gen_server:call(?AT(N), get_pending) end))
         end)
     end || _ <- lists:seq(1, ?ROUNDS)],
    cnode:peer_stop(Peer).

wrong_cookie() ->
    Right = cnode:peer(),
    Wrong = #{node := Node} = cnode:peer(#{args => ["-setcookie", "another"]}),
    cnode:with(#{}, fun(#{node := N} = Handle) ->
        ?assertEqual([pang, pang], cnode:on(Wrong, fun() -> [net_adm:ping(N), net_adm:ping(N)] end)),
        _ = cnode:await_log(Handle, "(?i)cookie"),
        _ = cnode:await_log(Handle, atom_to_list(Node)),
        ?assertEqual(pong, cnode:on(Right, fun() -> net_adm:ping(N) end)),
        %% With the right one it may come in.
        Cookie = list_to_atom(cnode:cookie()),
        ?assertEqual({true, pong}, cnode:on(Wrong, fun() -> {erlang:set_cookie(N, Cookie), net_adm:ping(N)} end)),
        ?assertEqual(nomatch, string:find(lists:join("\n", cnode:log(Handle)), cnode:cookie()))
    end),
    [cnode:peer_stop(Peer) || Peer <- [Right, Wrong]],
    ok.

connect_with_wrong_cookie() ->
    Right = cnode:peer(),
    Wrong = #{node := Node} = cnode:peer(#{args => ["-setcookie", "another"]}),
    cnode:with(#{args => ["--connect", atom_to_list(Node)]}, fun(#{node := N} = Handle) ->
        _ = cnode:await_log(Handle, atom_to_list(Node)),
        ?assertEqual([], cnode:on(Right, fun() -> gen_server:call(?AT(N), get_pending) end)),
        ?assertEqual([], cnode:on(Wrong, fun() -> nodes(hidden) end))
    end),
    [cnode:peer_stop(Peer) || Peer <- [Right, Wrong]],
    ok.

cookie_file() ->
    Cookie = "a_cookie_of_its_own",
    File = filename:join(os:getenv("TMPDIR", "/tmp"), cnode:unique("cookie")),
    ok = file:write_file(File, [Cookie, $\n]),
    ok = file:change_mode(File, 8#400),
    Peer = cnode:peer(#{args => ["-setcookie", Cookie]}),
    cnode:with(#{cookie => none, args => ["--cookie-file", File]}, fun(#{node := N}) ->
        ?assertEqual(pong, cnode:on(Peer, fun() -> net_adm:ping(N) end))
    end),
    cnode:peer_stop(Peer).

cookie_at_home() ->
    Peer = cnode:peer(),
    cnode:with(#{cookie => none}, fun(#{node := N}) ->
        ?assertEqual(pong, cnode:on(Peer, fun() -> net_adm:ping(N) end))
    end),
    cnode:peer_stop(Peer).
