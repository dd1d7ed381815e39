%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc Handshakes that are wrong, late, or never end, in both directions.
-module(hostile_handshake_tests).

-include_lib("eunit/include/eunit.hrl").

-import(hostile, [program/0, answers/1, connect/2, counted/3, logged/4, raw_name/1, raw_name/2]).

-define(SERVER, macula_nat_coordinator).

hostile_handshake_test_() ->
    hostile:suite(
      [{"200 handshakes that never end", fun unfinished_handshakes/1},
       {"a wrong cookie", fun wrong_cookie/1},
       {"names that are none", fun bad_names/1},
       {"flags that are missing", fun missing_flags/1},
       {"a first message that is none", fun bad_first_messages/1},
       {"a name that is connected already", fun alive/1},
       {"a handshake of single bytes", fun slow_handshake/1},
       {"simultaneous connects", fun simultaneous_connects/1},
       {"a node whose listener is silent connects to us", fun silent_listener/1},
       {"challenges of our own", fun reflected_challenges/1},
       {"nodes that are connected to and are hostile", fun hostile_listeners/1}]).

%%% Handshakes

%% Each is ended when its 7 s are over, whatever the step that it stopped at.
unfinished_handshakes(Handle = #{node := Node}) ->
    Before = cnode:descriptors(Handle),
    Mark = cnode:mark(Handle),
    Unnamed = [tcp, half_length, half_name],
    Steps = Unnamed ++ [name, status, challenge, half_reply],
    Count = 200,
    Name = fun(I) -> raw_name("unfinished", I) end,
    %% Lines about who has proved no name are counted by address.
    Address = fun(I) -> {127, 0, 1, I} end,
    Counted = counted(Handle, [handshakes_late], fun() ->
        Unfinished = [begin
                          Stop = lists:nth(I rem length(Steps) + 1, Steps),
                          {ok, Peer} = raw_dist:connect(Node, #{name => Name(I), from => Address(I), stop => Stop}),
                          I rem 20 =:= 0 andalso answers(Handle),
                          Peer
                      end || I <- lists:seq(1, Count)],
        %% Only what the program says last is not read by this one: it is connected.
        {ok, Up} = raw_dist:connect(Node, #{name => raw_name("up"), stop => reply}),
        [answers(Handle) || _ <- lists:seq(1, 100)],
        [?assertEqual(closed, raw_dist:await_close(Peer)) || Peer <- Unfinished],
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(raw_dist:finish(Up), ?SERVER, still_here)),
        raw_dist:close(Up)
    end),
    ?assertEqual(#{handshakes_late => Count}, Counted),
    %% Whoever has said no name is known by the address.
    [begin
         Named = [[atom_to_list(Name(I)), " at "] || I rem length(Steps) >= length(Unnamed)],
         Who = [Named, inet:ntoa(Address(I))],
         cnode:await_log(Handle, ["warning no connection with ", Who, ": the handshake took too long"], Mark)
     end || I <- lists:seq(1, Count)],
    cnode:await(fun() -> cnode:descriptors(Handle) =< Before end).

wrong_cookie(Handle = #{node := Node}) ->
    Name = raw_name("wrong_cookie"),
    Mark = cnode:mark(Handle),
    ?assertEqual(#{cookies_refused => 1, handshakes_late => 0},
                 counted(Handle, [cookies_refused, handshakes_late], fun() ->
                     ?assertMatch({error, {done, _}}, raw_dist:connect(Node, #{name => Name, cookie => not_the_cookie}))
                 end)),
    logged(Handle, Name, "wrong cookie", Mark),
    ?assertEqual([], [Line || Line <- cnode:log(Handle), string:find(Line, cnode:cookie()) =/= nomatch]),
    %% The name is free for the right cookie.
    raw_dist:close(connect(Handle, Name)).

bad_names(#{node := Node}) ->
    [?assertMatch({error, _}, raw_dist:connect(Node, #{name => 'x@y', raw_name => Name}))
     || Name <- ["", "nohost", "@", "@host", "name@", "a@b@c", [255, "@host"], ["a", 0, "@b"], ["a\n@b"],
                 [lists:duplicate(60000, $a), "@b"], [lists:duplicate(256, $a), "@b"], atom_to_list(Node)]].

missing_flags(Handle = #{node := Node}) ->
    %% MANDATORY_25_DIGEST speaks for all of OTP 25's mandatory flags, so it is left out with each.
    Mandatory = [extended_references, extended_pids_ports, utf8_atoms, map_tag, big_creation, handshake_23,
                 new_floats],
    [begin
         Flags = raw_dist:flags() band bnot (raw_dist:flag(Flag) bor raw_dist:flag(mandatory_25_digest)),
         Name = raw_name("without_" ++ atom_to_list(Flag)),
         ?assertMatch({error, {_, _}}, raw_dist:connect(Node, #{name => Name, flags => Flags}))
     end || Flag <- Mandatory],
    ?assertMatch({error, _}, raw_dist:connect(Node, #{name => raw_name("without_any"), flags => 0})),
    answers(Handle).

bad_first_messages(Handle) ->
    [begin
         Peer = raw_dist:open(maps:get(node, Handle), #{name => raw_name("first")}),
         _ = raw_dist:send(Peer, Bytes),
         ?assertEqual(closed, raw_dist:await_close(Peer))
     end || Bytes <- [<<0:16>>, <<1:16, "N">>, <<1:16, "X">>, <<65535:16, "N">>, <<14:16, "N", 0:104>>,
                      <<15:16, "N", -1:64, 0:32, 65535:16>>, <<7:16, "n", 5:16, 0:32>>, <<5:16, "sok", 0, 0>>,
                      <<"GET / HTTP/1.1\r\n\r\n">>, <<22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3>>, rand:bytes(70000)]].

alive(Handle = #{node := Node}) ->
    Name = raw_name("alive"),
    Old = connect(Handle, Name),
    ?assertEqual({error, {status, <<"alive">>}}, raw_dist:connect(Node, #{name => Name})),
    {ok, No} = raw_dist:connect(Node, #{name => Name, alive => false, stop => status}),
    ?assertEqual(closed, raw_dist:await_close(No)),
    ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Old, ?SERVER, still_here)),
    {ok, New} = raw_dist:connect(Node, #{name => Name, alive => true}),
    ?assertEqual(closed, raw_dist:await_close(Old)),
    ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(New, ?SERVER, here_now)),
    raw_dist:close(New).

slow_handshake(#{node := Node}) ->
    {ok, Peer} = raw_dist:connect(Node, #{name => raw_name("slow"), byte_by_byte => true}),
    {Request, _} = raw_dist:call_frames(Peer, ?SERVER, slow, 1),
    [raw_dist:send(Peer, <<Byte>>) || <<Byte>> <= iolist_to_binary(Request)],
    ?assertEqual({ok, {error, unknown_request}}, raw_dist:await_reply(Peer, 1)),
    raw_dist:close(Peer).

%% Two nodes that connect to each other: the connection of the greater name stays.
simultaneous_connects(_) ->
    Name = cnode:unique("raw_m"),
    Smaller = raw_dist:listen(raw_name("a")),
    Greater = raw_dist:listen(raw_name("z")),
    cnode:with(connecting(Name, [Smaller, Greater]),
               fun(#{node := Node}) ->
                       FromNode = raw_dist:accept(Smaller),
                       ?assertEqual({error, {status, <<"nok">>}},
                                    raw_dist:connect(Node, #{name => raw_dist:listener_name(Smaller)})),
                       {ok, Up, Node} = raw_dist:accept_handshake(FromNode, #{}),
                       ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Up, ?SERVER, x)),

                       Lost = raw_dist:accept(Greater),
                       {ok, Won} = raw_dist:connect(Node, #{name => raw_dist:listener_name(Greater)}),
                       ?assertEqual(<<"ok_simultaneous">>, raw_dist:status(Won)),
                       ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Won, ?SERVER, x)),
                       ?assertEqual(closed, raw_dist:await_close(Lost)),
                       [raw_dist:close(Peer) || Peer <- [Up, Won]]
               end),
    [raw_dist:stop_listening(Listener) || Listener <- [Smaller, Greater]].

%% Our attempt to it is under way for 7 s, and keeps it out only as long as the two may be crossing each other. Its name
%% is the smaller, so that in a crossing ours would win.
silent_listener(_) ->
    Listener = raw_dist:listen(raw_name("a")),
    Name = raw_dist:listener_name(Listener),
    cnode:with(connecting(cnode:unique("raw_m"), [Listener]),
               fun(Handle = #{node := Node}) ->
                       Silent = raw_dist:accept(Listener),
                       Up = come_in(Node, Name),
                       ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Up, ?SERVER, x)),
                       %% It was that very attempt that gave way: it did not end by itself, and no other has been made.
                       ?assertEqual(closed, raw_dist:await_close(Silent)),
                       ?assertEqual(nobody, raw_dist:accept_now(Listener)),
                       ?assertEqual([], [Line || Line <- cnode:log(Handle), string:find(Line, "took too long") =/= nomatch]),
                       raw_dist:close(Up)
               end),
    raw_dist:stop_listening(Listener).

come_in(Node, Name) ->
    Self = self(),
    cnode:await(fun() ->
        case raw_dist:connect(Node, #{name => Name}) of
            {ok, Peer} -> Self ! {up, Peer}, true;
            {error, {status, <<"nok">>}} -> false
        end
    end),
    receive {up, Peer} -> Peer end.

%% Somebody without the cookie has our challenge answered by ourselves: what he gets when he connects he sends to us
%% when we connect to him.
reflected_challenges(_) ->
    Listener = raw_dist:listen(raw_name("z")),
    Name = raw_dist:listener_name(Listener),
    cnode:with(connecting(cnode:unique("raw_m"), [Listener]),
               fun(Handle = #{node := Node}) ->
                       FromNode = raw_dist:accept(Listener),
                       {ok, Asked} = raw_dist:connect(Node, #{name => Name, stop => challenge}),
                       Reflected = #{challenge => raw_dist:challenge(Asked), unchecked => true},
                       ?assertEqual({error, {reply, closed}}, raw_dist:accept_handshake(FromNode, Reflected)),
                       _ = cnode:await_log(Handle, ["warning no connection with ", atom_to_list(Name),
                                                    ": it sent us a challenge of our own"]),
                       raw_dist:close(Asked),
                       answers(Handle)
               end),
    raw_dist:stop_listening(Listener).

connecting(Name, Listeners) ->
    Args = lists:append([["--connect", atom_to_list(raw_dist:listener_name(Listener))] || Listener <- Listeners]),
    maps:update_with(args, fun(Before) -> Before ++ Args end, (program())#{name => Name}).

hostile_listeners(_) ->
    [Silent, Garbage, Cookie, Nok, Slow] = Listeners =
        [raw_dist:listen(raw_name(Name)) || Name <- ["silent", "garbage", "cookie", "nok", "slow"]],
    cnode:with(connecting(cnode:unique("connecting"), Listeners),
               fun(Handle) ->
                       NeverAnswered = raw_dist:accept(Silent),
                       {ok, Up, _} = raw_dist:accept_handshake(raw_dist:accept(Slow), #{byte_by_byte => true}),
                       ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Up, ?SERVER, x)),
                       %% Each of the others is closed, and tried again until it is a good node.
                       Bad = raw_dist:accept(Garbage),
                       _ = raw_dist:send(Bad, rand:bytes(100000)),
                       ?assertEqual(closed, raw_dist:await_close(Bad)),
                       {ok, Stranger, _} = raw_dist:accept_handshake(raw_dist:accept(Cookie),
                                                                     #{cookie => another, unchecked => true}),
                       ?assertEqual(closed, raw_dist:await_close(Stranger)),
                       ?assertMatch({error, {_, _}},
                                    raw_dist:accept_handshake(raw_dist:accept(Nok), #{status => "not_allowed"})),
                       Join = fun(Listener) ->
                                      {ok, Peer, _} = raw_dist:accept_handshake(raw_dist:accept(Listener), #{}),
                                      ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, x)),
                                      Peer
                              end,
                       %% These three at once: a connection that waits to be accepted is given up after 7 s, too.
                       Tried = [Join(Listener) || Listener <- [Garbage, Cookie, Nok]],
                       ?assertEqual(closed, raw_dist:await_close(NeverAnswered)),
                       Peers = [Join(Silent) | Tried],
                       answers(Handle),
                       [raw_dist:close(Peer) || Peer <- [Up | Peers]]
               end),
    [raw_dist:stop_listening(Listener) || Listener <- Listeners].
