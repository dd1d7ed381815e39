%% SPDX-License-Identifier: Apache-2.0
%% @doc Grows the corpora of the fuzz targets from real traffic: an Erlang node and the program talk to each other
%% through a proxy that keeps what the Erlang node sends. Each step of the conversation is a connection of its own to a
%% program of its own. Session ids and the program's creation are replaced by those that the fuzz targets have.
%% Run by `make fuzz-corpus'.
-module(corpus).

-export([main/1]).

-define(NODE, 'macula_nat@127.0.0.1').
-define(PEER, 'peer@127.0.0.1').
-define(SERVER, {macula_nat_coordinator, ?NODE}).
-define(CACHE, {macula_nat_cache, ?NODE}).
-define(CREATION, 16#01010101).

%% @doc Write one folder for each target; the files are to be minimised.
-spec main([string()]) -> no_return().
main([Directory]) ->
    put(directory, Directory),
    try
        grow()
    catch
        Class:Reason:Stack ->
            io:format("~0tp~n", [{Class, Reason, Stack}]),
            cnode:kill_all(),
            halt(1)
    end,
    cnode:kill_all(),
    halt(0).

grow() ->
    EpmdOfNode = cnode:epmd_start(),
    EpmdOfPeer = cnode:epmd_start(),
    Env = fun(Epmd) -> [{"ERL_EPMD_PORT", integer_to_list(cnode:epmd_port(Epmd))}] end,
    Self = self(),
    Proxy = spawn_link(fun() -> proxy(Self) end),
    ProxyPort = receive {Proxy, Port} -> Port end,
    publish(EpmdOfPeer, "macula_nat", ProxyPort),
    Peer = cnode:peer(#{name => "peer", env => Env(EpmdOfPeer)}),
    {ok, PeerPort} = lookup(EpmdOfPeer, "peer"),
    Streams = [{Name, converse(Proxy, Env(EpmdOfNode), Peer, Step)} || {Name, Step} <- steps()],
    publish(EpmdOfNode, "peer", ProxyPort),
    Accepted = be_connected(Proxy, Env(EpmdOfNode), PeerPort, Peer),
    [write_stream(Name, Stream) || {Name, Stream} <- Streams],
    {Answer, _} = handshake(3, Accepted),
    write("handshake", "accepted", [<<2, 0>>, Answer]),
    [write("epmd", Name, epmd(EpmdOfNode, Request))
     || {Name, Request} <- [{"port", [122, "peer"]}, {"none", [122, "nobody"]},
                            {"alive", <<120, 4370:16, 72, 0, 6:16, 6:16, 3:16, "new", 0:16>>},
                            {"taken", <<120, 4370:16, 72, 0, 6:16, 6:16, 4:16, "peer", 0:16>>}]],
    write("epmd", "old", <<121, 0, 3:16>>),
    [write("profile", io_lib:format("~2..0b", [I]), binary_part(Term, 1, byte_size(Term) - 1))
     || {I, Term} <- numbered([term_to_binary(Value) || Value <- values()])],
    [write("term", io_lib:format("rare_~3..0b", [I]), Term) || {I, Term} <- numbered(rare())],
    [write("options", io_lib:format("~2..0b", [I]), lists:join("\n", string:lexemes(Line, " ")))
     || {I, Line} <- numbered(command_lines())],
    [write("cookie", io_lib:format("~b", [I]), Text)
     || {I, Text} <- numbered(["ABCDEFGHIJKLMNOPQRST", "cookie\n", "a b \r\n\r\n", "", "\n", "tab\there",
                               lists:duplicate(255, $c), lists:duplicate(256, $c)])],
    cnode:peer_stop(Peer).

%%% The conversation

steps() ->
    Self = fun() -> self() end,
    Call = fun(Request) -> gen_server:call(?SERVER, Request) end,
    Ask = fun(A, B, Options) -> Call({request_connection, A, B, Options}) end,
    Put = fun(Id, Changes) -> gen_server:cast(?CACHE, {put, Id, maps:merge(profile(Id), Changes), 300}) end,
    Report = fun(Session, Who, How) -> gen_server:cast(?SERVER, {report_result, Session, Who, How}) end,
    [{"ping", fun() -> pong = net_adm:ping(?NODE) end},
     {"cache", fun() ->
         Put(<<"a">>, #{}),
         {ok, _, fresh} = gen_server:call(?CACHE, {get, <<"a">>}),
         _ = gen_server:call(?CACHE, stats),
         gen_server:cast(?CACHE, {invalidate, <<"a">>}),
         not_found = gen_server:call(?CACHE, {get, <<"a">>}),
         gen_server:cast(?CACHE, clear)
     end},
     {"punch", fun() ->
         [Put(Id, #{mapping_policy => hd, filtering_policy => pd}) || Id <- [<<"a">>, <<"b">>]],
         [ok = Call({attach_peer, Id}) || Id <- [<<"a">>, <<"b">>]],
         {ok, hole_punch, Session} = Ask(<<"a">>, <<"b">>, #{notify => Self()}),
         [receive {punch_coordinate, _} -> ok end || _ <- "ab"],
         {ok, hole_punch, Session} = Ask(<<"b">>, <<"a">>, #{max_punch_attempts => 2}),
         receive {punch_session, Session, #{state := executing}} -> ok end,
         Report(Session, <<"a">>, failure),
         Report(Session, <<"b">>, failure),
         receive {punch_session, Session, #{state := executing, attempts := 1}} -> ok end,
         [#{session_id := Session}] = Call(get_pending),
         Report(Session, <<"a">>, success),
         Report(Session, <<"b">>, success),
         receive {punch_session, Session, #{state := completed}} -> ok end,
         ok = Call({detach_peer, <<"a">>})
     end},
     {"strategies", fun() ->
         Put(<<"open">>, #{can_receive_unsolicited => true}),
         Put(<<"closed">>, #{mapping_policy => pd, allocation_policy => rd, requires_relay => true}),
         {ok, direct, Session} = Ask(<<"closed">>, <<"open">>, #{}),
         Report(Session, <<"closed">>, failure),
         {ok, relay, _} = Ask(<<"x">>, <<"closed">>, #{punch_timeout_ms => 100}),
         {error, relay_required} = Ask(<<"y">>, <<"closed">>, #{allow_relay => false}),
         {error, _} = Ask(a, <<"b">>, #{}),
         {error, _} = Ask(<<"a">>, <<"b">>, [])
     end},
     {"coordinate", fun() ->
         Options = #{session_id => <<"chosen">>, notify => Self()},
         gen_server:cast(?SERVER, {coordinate_punch, <<"a">>, <<"b">>, Options}),
         receive {punch_session, <<"chosen">>, _} -> ok end,
         gen_server:cast(?SERVER, {coordinate_punch, <<"b">>, <<"a">>, Options}),
         gen_server:cast(?SERVER, {coordinate_punch, <<"b">>, x, #{}}),
         [_] = Call(get_pending)
     end},
     {"rpc", fun() ->
         [] = rpc:call(?NODE, macula_nat_coordinator, get_pending, []),
         [] = erpc:call(?NODE, macula_nat_coordinator, get_pending, []),
         {ok, _, _} = erpc:call(?NODE, macula_nat_coordinator, request_connection, [<<"a">>, <<"b">>, #{}]),
         ok = erpc:cast(?NODE, macula_nat_coordinator, report_result, [<<"s">>, <<"a">>, failure]),
         ok = rpc:call(?NODE, macula_nat_cache, put, [<<"a">>, profile(<<"a">>)]),
         {badrpc, _} = rpc:call(?NODE, no_module, no_function, [1]),
         {badrpc, _} = rpc:block_call(?NODE, macula_nat_cache, no_function, [1]),
         {rex, ?NODE} ! {Self(), {call, macula_nat_cache, stats, [], group_leader()}},
         receive {rex, _} -> ok end,
         _ = spawn_request(?NODE, lists, reverse, [[]], [monitor, link]),
         receive _ -> ok end
     end},
     {"sys", fun() ->
         _ = sys:get_state(?SERVER),
         _ = sys:get_status(?SERVER),
         ok = sys:statistics(?SERVER, true),
         {ok, _} = sys:statistics(?SERVER, get),
         ok = sys:suspend(?SERVER),
         gen_server:cast(?SERVER, while_suspended),
         ok = sys:resume(?SERVER),
         {ok, _} = sys:log(?SERVER, get),
         try sys:replace_state(?SERVER, fun(S) -> S end) catch _:_ -> failed end
     end},
     {"stop", fun() -> ok = gen_server:stop(?SERVER) end},
     {"signals", fun() ->
         Pid = compare:pid(?NODE),
         true = link(Pid),
         true = unlink(Pid),
         Ref = monitor(process, Pid),
         Other = monitor(process, {macula_nat_cache, ?NODE}),
         true = demonitor(Ref),
         None = monitor(process, {nobody, ?NODE}),
         receive {'DOWN', None, process, _, noproc} -> ok end,
         group_leader(group_leader(), Pid),
         exit(Pid, normal),
         true = demonitor(Other),
         [] = Call(get_pending)
     end},
     {"link_ends", fun() ->
         Pid = compare:pid(?NODE),
         {_, Ref} = spawn_monitor(fun() -> link(Pid), exit(normal) end),
         receive {'DOWN', Ref, _, _, _} -> ok end,
         [] = Call(get_pending)
     end},
     {"services", fun() ->
         services(),
         {ok, hole_punch, _} = Ask(<<"a">>, <<"b">>, #{notify => Self()}),
         receive {punch_session, _, #{state := executing}} -> ok end,
         {ok, _, _} = Ask(<<"in_dht">>, <<"nowhere">>, #{}),
         _ = sys:get_state(?SERVER),
         [unregister(Name) || Name <- [macula_nat_cache, macula_routing_server]]
     end}].

%% A macula node's services: profiles of two peers, one more in the DHT, and everything that is sent succeeds.
services() ->
    Serve = fun(Serve, Answer) ->
        receive {'$gen_call', {Pid, _} = From, Request} when is_pid(Pid) ->
            gen_server:reply(From, Answer(Request)),
            Serve(Serve, Answer)
        end
    end,
    Known = #{<<"a">> => profile(<<"a">>), <<"b">> => profile(<<"b">>)},
    Dht = #{<<"node_id">> => <<"in_dht">>, <<"mapping_policy">> => <<"ei">>, <<"detected_at">> => 1700000000},
    register(macula_nat_cache, spawn(fun() ->
        Serve(Serve, fun({get, Id}) ->
            case Known of #{Id := Profile} -> {ok, Profile, fresh}; #{} -> not_found end
        end)
    end)),
    register(macula_routing_server, spawn(fun() ->
        Serve(Serve, fun({find_value, _, 20}) -> {ok, [Dht, #{}]}; ({store, _, _}) -> ok end)
    end)),
    {ok, Module, Binary} = compile:forms(
        [{attribute, 1, module, macula_peer_connector}, {attribute, 1, export, [{send_message, 3}]},
         {function, 1, send_message, 3,
          [{clause, 1, [{var, 1, '_'}, {var, 1, '_'}, {var, 1, '_'}], [], [{atom, 1, ok}]}]}]),
    {module, Module} = code:load_binary(Module, "made", Binary),
    ok.

profile(Id) ->
    #{node_id => Id, mapping_policy => ei, filtering_policy => pd, allocation_policy => pc,
      can_receive_unsolicited => false, requires_relay => false, relay_capable => true,
      reflexive_address => {{192, 0, 2, 1}, 4433}, port_delta => 2, detected_at => 1700000000, ttl_seconds => 300,
      latitude => 52.5, location_label => <<"here">>}.

converse(Proxy, Env, #{} = Peer, Step) ->
    Handle = #{port := Port} = cnode:start(#{name => "macula_nat", env => Env}),
    Proxy ! {forward_to, Port},
    _ = cnode:on(Peer, Step),
    cnode:on(Peer, fun() -> erlang:disconnect_node(?NODE) end),
    Stream = receive {stream, FromPeer, FromNode} -> like_fuzzed(FromPeer, FromNode) end,
    _ = cnode:is_alive(Handle) andalso cnode:kill(Handle),
    Stream.

%% The other direction: the program connects to the Erlang node.
be_connected(Proxy, Env, PeerPort, Peer) ->
    Proxy ! {forward_to, PeerPort},
    Handle = cnode:start(#{name => "macula_nat", env => Env, args => ["--connect", atom_to_list(?PEER)]}),
    cnode:on(Peer, fun() -> cnode:await(fun() -> lists:member(?NODE, nodes(hidden)) end) end),
    cnode:kill(Handle),
    receive {stream, _, FromPeer} -> FromPeer end.

%%% The proxy: keeps both directions of one connection at a time

proxy(Owner) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}, {nodelay, true}]),
    {ok, Port} = inet:port(Listener),
    Owner ! {self(), Port},
    proxy_loop(Owner, Listener).

proxy_loop(Owner, Listener) ->
    {ok, Client} = gen_tcp:accept(Listener),
    Port = receive {forward_to, To} -> To end,
    {ok, Server} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, true}, {nodelay, true}, {exit_on_close, false}]),
    ok = inet:setopts(Client, [{active, true}]),
    {FromClient, FromServer} = relay(Client, Server, [], []),
    Owner ! {stream, FromClient, FromServer},
    proxy_loop(Owner, Listener).

relay(Client, Server, FromClient, FromServer) ->
    receive
        {tcp, Client, Data} ->
            _ = gen_tcp:send(Server, Data),
            relay(Client, Server, [FromClient, Data], FromServer);
        {tcp, Server, Data} ->
            _ = gen_tcp:send(Client, Data),
            relay(Client, Server, FromClient, [FromServer, Data]);
        {tcp_closed, Closed} ->
            %% What the other side still sends is read, or the farewell would be lost with a reset connection.
            [Other] = [Client, Server] -- [Closed],
            _ = gen_tcp:shutdown(Other, write),
            read_to_end(Other),
            {iolist_to_binary(FromClient), iolist_to_binary(FromServer)}
    end.

read_to_end(Socket) ->
    receive
        {tcp, Socket, _} -> read_to_end(Socket);
        {tcp_closed, Socket} -> ok
    end.

publish(Epmd, Name, Port) ->
    os:putenv("ERL_EPMD_PORT", integer_to_list(cnode:epmd_port(Epmd))),
    {ok, _, _} = raw_dist:epmd_register(Name, Port),
    ok.

lookup(Epmd, Name) ->
    {Name, Port} = lists:keyfind(Name, 1, cnode:epmd_names(cnode:epmd_port(Epmd))),
    {ok, Port}.

epmd(Epmd, Request) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, cnode:epmd_port(Epmd), [binary, {active, false}]),
    ok = gen_tcp:send(Socket, [<<(iolist_size(Request)):16>>, Request]),
    {ok, Answer} = gen_tcp:recv(Socket, 0, 30000),
    gen_tcp:close(Socket),
    Answer.

%%% What is kept

%% The creation of the program follows its name in each of its pids; its session ids are in its replies.
like_fuzzed(FromPeer, FromNode) ->
    {match, [<<Creation:4/binary>> | _]} =
        re:run(FromNode, <<"^.*?N.{8}.{4}(.{4})..macula_nat@">>, [dotall, {capture, all_but_first, binary}]),
    {_, Frames} = handshake(2, FromPeer),
    Found = case re:run(FromNode, <<"m\\0\\0\\0\\x18([A-Za-z0-9+/]{22}==)">>,
                        [global, {capture, all_but_first, binary}]) of
                {match, Matches} -> lists:usort(fun(A, B) -> A =:= B end, lists:append(Matches));
                nomatch -> []
            end,
    Ids = lists:reverse(lists:foldl(fun(Id, Seen) -> [Id | Seen -- [Id]] end, [], Found)),
    Replaced = lists:foldl(
        fun({I, Id}, Data) -> binary:replace(Data, Id, fuzzed_id(I - 1), [global]) end,
        binary:replace(Frames, Creation, <<?CREATION:32>>, [global]), numbered(Ids)),
    {binary_part(FromPeer, 0, byte_size(FromPeer) - byte_size(Frames)), Replaced}.

%% The random bytes of fuzz.c.
fuzzed_id(I) ->
    base64:encode(<<(binary:copy(<<($A + I)>>, 12))/binary, I, I, I, (I + 1)>>).

handshake(Count, Stream) ->
    Rest = lists:foldl(fun(_, <<Size:16, _:Size/binary, Rest/binary>>) -> Rest end, Stream, lists:seq(1, Count)),
    {binary_part(Stream, 0, byte_size(Stream) - byte_size(Rest)), Rest}.

write_stream(Name, {Handshake, Frames}) ->
    Name =:= "ping" andalso write("handshake", "connected", [<<3, 0>>, Handshake]),
    write("requests", Name, [0, Frames]),
    [begin
         write("control", io_lib:format("~s_~3..0b", [Name, I]), Frame),
         [write("term", io_lib:format("~s_~3..0b_~b", [Name, I, J]), Term) || {J, Term} <- numbered(terms(Frame))]
     end || {I, Frame} <- numbered(frames(Frames))].

frames(<<0:32, Rest/binary>>) -> frames(Rest);
frames(<<Size:32, Frame:Size/binary, Rest/binary>>) -> [Frame | frames(Rest)];
frames(<<>>) -> [].

terms(<<112, Terms/binary>>) -> terms_in(Terms).

terms_in(<<>>) ->
    [];
terms_in(Terms) ->
    {_, Used} = binary_to_term(Terms, [used]),
    <<131, Term:(Used - 1)/binary, Rest/binary>> = Terms,
    [Term | terms_in(Rest)].

values() ->
    Binary = #{<<"node_id">> => <<"a">>, <<"mapping_policy">> => <<"pd">>, <<"allocation_policy">> => <<"rd">>,
               <<"endpoint">> => <<"https://[2001:db8::1]:4433">>, <<"host">> => <<"h">>, <<"port">> => 1},
    [profile(<<"a">>), Binary, #{}, (profile(<<"b">>))#{reflexive_address => {{8193, 3512, 0, 0, 0, 0, 0, 1}, 65535}},
     (profile(<<"c">>))#{endpoint => <<"example.org:1">>, port_delta => -7, {odd, key} => [1, 2 | x]},
     {ok, [Binary, profile(<<"a">>), odd]}, {ok, Binary}, {ok, []}, {nodes, [x]}, {error, not_found}, ok,
     {ok, [#{mapping_policy => <<"none">>, detected_at => 1 bsl 70, ttl_seconds => -1}]}].

rare() ->
    bad_terms_rare() ++
    [<<99, (list_to_binary(io_lib:format("~-31..0s", ["1.00000000000000000000e+00"])))/binary>>,
     <<100, 2:16, "ok">>, <<115, 2, "ok">>, <<118, 2:16, "ok">>, <<119, 4, "é€"/utf8>>,
     <<103, 100, 6:16, "a@host", 1:32, 2:32, 3>>, <<114, 3:16, 100, 6:16, "a@host", 1, 1:32, 2:32, 3:32>>,
     <<89, 119, 6, "a@host", 1:32, 2:32>>, <<120, 119, 6, "a@host", 1:64, 2:32>>, <<108, 1:32, 97, 1, 97, 2>>,
     <<105, 1:32, 97, 1>>, <<111, 9:32, 0, 1:72>>].

bad_terms_rare() ->
    [begin <<131, Term/binary>> = term_to_binary(Value), Term end
     || Value <- [0, 255, -1, 1 bsl 40, -(1 bsl 63), 1 bsl 63, 1 bsl 3000, 1.5, -0.0, a, '', <<>>, <<1, 2>>, <<5:3>>, [],
                  "text", [a | b], {}, {a, {b, [c]}}, #{a => 1, "b" => [x]}, self(), make_ref(), fun lists:map/2,
                  fun() -> ok end, hd(erlang:ports()), list_to_tuple(lists:seq(1, 300))]].

command_lines() ->
    ["", "--help", "--version", "--sname a", "--name a@b.c --cookie-file /f --listen ::1 --port 65535",
     "--listen 127.0.0.1 --connect a@b --connect c@d --punch-timeout-ms 5000 --max-punch-attempts 3",
     "--coordination-delay-ms 100 --lookup-timeout-ms 2000 --profile-cache-ttl-ms 0 --session-ttl-s 300",
     "--max-sessions 1000000 --strategy-rules v0_14_3 --log-level debug --exit-on-stdin-eof",
     "--sname a --name a@b", "--port=1 --unknown", "--strategy-rules=documented x", "--port 65536", "--port -1"].

numbered(List) ->
    lists:zip(lists:seq(1, length(List)), List).

write(Target, Name, Data) ->
    File = filename:join([get(directory), Target, Name]),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, Data).
