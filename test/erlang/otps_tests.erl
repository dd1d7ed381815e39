%% SPDX-License-Identifier: Apache-2.0
%% What depends on who calls: the flags of the oldest and the newest OTP and of jinterface, whatever OTP runs the tests;
%% and, where OTHER_ERL is the command of an `erl' of another OTP, real nodes of both at once.
-module(otps_tests).
-include_lib("eunit/include/eunit.hrl").

-define(NAME, macula_nat_coordinator).
-define(AT(Node), {macula_nat_coordinator, Node}).
-define(ROUNDS, 30).

otps_test_() ->
    Flags = [{"otp_25", otp_25, bare}, {"otp_29", otp_29, ok}, {"jinterface", jinterface, none}],
    [{spawn, {timeout, 60, {Title ++ ": " ++ What, fun() -> cnode:with(#{}, fun(H) -> Test(H, Who, Form) end) end}}}
     || {Title, Who, Form} <- Flags,
        {What, Test} <- [{"calls", fun calls/3}, {"get_state", fun get_state/3}, {"a mailbox", fun mailbox/3},
                         {"rpc through rex", fun rex/3}]]
    ++ [{spawn, {timeout, 60, {"two OTPs at once", fun two_otps/0}}}].

connect(N, Who) ->
    {ok, Peer} = raw_dist:connect(N, #{name => list_to_atom(cnode:unique("flags") ++ "@127.0.0.1"),
                                       flags => raw_dist:flags(Who)}),
    Peer.

calls(#{node := N}, Who, _) ->
    Peer = connect(N, Who),
    ?assertEqual({ok, []}, call(Peer, get_pending)),
    {ok, {ok, hole_punch, _}} = call(Peer, {request_connection, <<"a">>, <<"b">>, #{}}),
    ?assertMatch({ok, [#{initiator_id := <<"a">>}]}, call(Peer, get_pending)),
    raw_dist:close(Peer).

%% A node is asked about its own sys, once, and is answered in the same way; one that does not say is answered, too.
get_state(#{node := N}, Who, Form) ->
    Peer = connect(N, Who),
    ask_state(Peer, 1),
    {{6, From, '', kernel_refc}, {system, {From, Question}, get_state}} = raw_dist:recv_frame(Peer),
    Answer =
        case Form of
            none -> nothing;
            _ -> raw_dist:send_control(Peer, {2, '', From}, {Question, form(Form, #{})})
        end,
    Known = case Answer of nothing -> ok; ok -> Form end,
    ?assertEqual({Known, options}, state(Known, Peer, 1)),
    ask_state(Peer, 2),
    ?assertEqual({Known, options}, state(Known, Peer, 2)),
    raw_dist:close(Peer).

ask_state(Peer, Id) ->
    Request = {system, {raw_dist:pid(Peer, 1), raw_dist:reference(Peer, Id)}, get_state},
    ok = raw_dist:send_control(Peer, {6, raw_dist:pid(Peer, 1), '', ?NAME}, Request).

form(ok, State) -> {ok, State};
form(bare, State) -> State.

state(Form, Peer, Id) ->
    Tag = raw_dist:reference(Peer, Id),
    {_, {Tag, Shown}} = raw_dist:recv_frame(Peer),
    case {Form, Shown} of
        {ok, {ok, #{options := _}}} -> {ok, options};
        {bare, #{options := _}} -> {bare, options}
    end.

%% Monitors go to whoever knows them. The mailbox is gone with its connection in any case.
mailbox(#{node := N}, Who, _) ->
    Peer = connect(N, Who),
    Watcher = connect(N, otp_29),
    Self = raw_dist:pid(Peer, 1),
    ok = raw_dist:send_control(Peer, {6, Self, '', ?NAME}, {'$gen_call', {Self, attached}, {attach_peer, <<"b">>}}),
    Monitors = monitors(Peer, attached),
    ?assertEqual(Who =/= jinterface, lists:any(fun(Target) -> Target =:= Self end, Monitors)),
    ?assert(Who =/= jinterface orelse Monitors =:= []),
    {ok, {ok, hole_punch, Id}} = call(Watcher, {request_connection, <<"a">>, <<"b">>, #{}}),
    ?assertMatch({punch_coordinate, #{session_id := Id, role := target}}, punch(Peer)),
    ?assertMatch(#{mailboxes := 1}, services(Watcher)),
    raw_dist:close(Peer),
    cnode:await(fun() -> #{mailboxes := Left} = services(Watcher), Left =:= 0 end),
    raw_dist:close(Watcher).

%% What is monitored until the reply.
monitors(Peer, Tag) ->
    case raw_dist:recv(Peer) of
        {{19, _, Target, _}} -> [Target | monitors(Peer, Tag)];
        {_, {Tag, ok}} -> [];
        Other when Other =:= tick; element(1, Other) =/= error -> monitors(Peer, Tag)
    end.

punch(Peer) ->
    case raw_dist:recv_frame(Peer) of
        {_, {punch_coordinate, _} = Message} -> Message;
        Other when element(1, Other) =/= error -> punch(Peer)
    end.

services(Peer) ->
    Tag = raw_dist:reference(Peer, erlang:unique_integer([positive])),
    Self = raw_dist:pid(Peer, 1),
    ok = raw_dist:send_control(Peer, {6, Self, '', ?NAME}, {system, {Self, Tag}, get_state}),
    {ok, {ok, #{services := Services}}} = raw_dist:await_tag(Peer, Tag),
    Services.

rex(#{node := N}, Who, _) ->
    Peer = connect(N, Who),
    Self = raw_dist:pid(Peer, 1),
    ok = raw_dist:send_control(Peer, {6, Self, '', rex}, {Self, {call, ?NAME, get_pending, [], Self}}),
    ?assertMatch({_, {rex, []}}, raw_dist:recv_frame(Peer)),
    raw_dist:close(Peer).

call(Peer, Request) ->
    Self = raw_dist:pid(Peer, 1),
    Tag = raw_dist:reference(Peer, erlang:unique_integer([positive])),
    ok = raw_dist:send_control(Peer, {6, Self, '', ?NAME}, {'$gen_call', {Self, Tag}, Request}),
    raw_dist:await_tag(Peer, Tag).

%%%-------------------------------------------------------------------
%%% Real nodes
%%%-------------------------------------------------------------------

two_otps() ->
    case os:getenv("OTHER_ERL", "") of
        "" -> cnode:skip("OTHER_ERL is no erl of another OTP");
        Erl -> with_other(Erl, fun both_call/1)
    end.

%% The other node runs nothing but what its OTP has: what is compiled here need not load there.
with_other(Erl, Test) ->
    Node = list_to_atom(cnode:unique("other") ++ "@127.0.0.1"),
    Command = lists:concat([Erl, " -noinput -boot no_dot_erlang -hidden -name ", Node, " -setcookie ", erlang:get_cookie(),
                            " -kernel logger_level none +sbwt none"]),
    Port = open_port({spawn, Command}, [exit_status, stderr_to_stdout, hide]),
    cnode:await(fun() -> net_adm:ping(Node) =:= pong orelse ended(Port) end, 30000),
    try
        case erpc:call(Node, erlang, system_info, [otp_release]) =:= erlang:system_info(otp_release) of
            true -> cnode:skip("OTHER_ERL is of the same OTP");
            false -> Test(Node)
        end
    after
        ok = erpc:cast(Node, erlang, halt, []),
        receive {Port, {exit_status, _}} -> ok end
    end.

ended(Port) ->
    receive
        {Port, {exit_status, Status}} -> error({other_erl_ended, Status});
        {Port, {data, Data}} -> error({other_erl_said, Data})
    after 0 -> false
    end.

both_call(Other) ->
    Own = cnode:peer(),
    cnode:with(#{}, fun(#{node := N}) ->
        Ways = [{gen_server, call, [?AT(N), get_pending]}, {rpc, call, [N, ?NAME, get_pending, []]},
                {erpc, call, [N, ?NAME, get_pending, []]}, {sys, get_state, [?AT(N)]}, {sys, get_status, [?AT(N)]},
                {net_adm, ping, [N]}, {rpc, sbcast, [[N], ?NAME, message]}],
        Calls = [Way || _ <- lists:seq(1, ?ROUNDS), Way <- Ways],
        %% Both at once; `peer' gives a node, and the other is one.
        Ids = [erpc:send_request(Other, M, F, A) || {M, F, A} <- Calls],
        FromOwn = cnode:on(Own, fun() -> [apply(M, F, A) || {M, F, A} <- Calls] end),
        FromOther = [erpc:receive_response(Id, 20000) || Id <- Ids],
        [?assertEqual(answer(Way, N), {Way, shape(Way, Answer)})
         || Answers <- [FromOwn, FromOther], {Way, Answer} <- lists:zip(Calls, Answers)]
    end),
    cnode:peer_stop(Own).

answer({sys, get_state, _} = Way, _) -> {Way, options};
answer({sys, get_status, _} = Way, _) -> {Way, status};
answer({net_adm, ping, _} = Way, _) -> {Way, pong};
answer({rpc, sbcast, _} = Way, N) -> {Way, {[N], []}};
answer(Way, _) -> {Way, []}.

shape({sys, get_state, _}, #{options := _}) -> options;
shape({sys, get_status, _}, {status, _, _, _}) -> status;
shape(_, Answer) -> Answer.
