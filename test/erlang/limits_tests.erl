%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc What one peer may have of the program: at each limit it is told so, or ends, and all others are served.
-module(limits_tests).

-include_lib("eunit/include/eunit.hrl").

-define(SERVER, macula_nat_coordinator).
-define(AT(Node), {?SERVER, Node}).

limits_test_() ->
    [{spawn, {timeout, 120, {Title, Test}}} || {Title, Test} <- [
        {"monitors", fun monitors/0},
        {"attached peers", fun attached/0},
        {"lists in the making", fun listings/0},
        {"requests that wait for profiles", fun waiting/0},
        {"frames that are not finished", fun unfinished/0},
        {"answers and notifications that another asked for", fun unasked/0},
        {"callers of sys:get_state whose node is being asked", fun state_askers/0},
        {"mailboxes in the name of another", fun foreign_mailboxes/0},
        {"whose mailbox it is, of calls that had waited", fun mailboxes_that_waited/0}
    ]].

%% Each monitor is another, though all are of one process.
monitors() ->
    cnode:with(hostile_program(), fun(Handle) ->
        Peer = connect(Handle, 1),
        %% The references of calls are small.
        Monitor = fun(Number) ->
            raw_dist:frame({19, raw_dist:pid(Peer, 1), ?SERVER, raw_dist:reference(Peer, 1000000 + Number)})
        end,
        send_all(Peer, Monitor, 249999),
        %% The call has one of its own until it is answered.
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, macula_nat_cache, x)),
        send_all(Peer, fun(Number) -> Monitor(250000 + Number) end, 2),
        ?assertEqual(closed, raw_dist:await_close(Peer)),
        _ = cnode:await_log(Handle, "warning .*raw_limits1@.*too many monitors and links"),
        served(Handle)
    end).

attached() ->
    cnode:with(#{}, fun(Handle) ->
        Peer = connect(Handle, 1),
        Attach = fun(Number) -> call(Peer, Number, {attach_peer, <<Number:32>>}) end,
        send_all(Peer, Attach, 100001),
        ?assertEqual({ok, ok}, raw_dist:await_reply(Peer, 100000)),
        ?assertEqual({ok, {error, overloaded}}, raw_dist:await_reply(Peer, 100001)),
        %% One that goes makes room for one.
        ?assertEqual({ok, ok}, raw_dist:call(Peer, ?SERVER, {detach_peer, <<1:32>>})),
        ?assertEqual({ok, ok}, raw_dist:call(Peer, ?SERVER, {attach_peer, <<"new">>})),
        served(Handle),
        raw_dist:close(Peer)
    end).

%% The sessions of a list are more than a turn takes, so that the others come while it is being made.
listings() ->
    cnode:with(#{}, fun(#{node := N} = Handle) ->
        [{ok, _, _} = gen_server:call(?AT(N), {request_connection, <<"a">>, <<"b", Number:16>>, #{}}) || Number <- lists:seq(1, 250)],
        Peer = connect(Handle, 1),
        Before = cnode:memory(Handle),
        ok = raw_dist:send(Peer, iolist_to_binary([call(Peer, Number, get_pending) || Number <- lists:seq(1, 3000)])),
        {Lists, Refused} = lists:partition(fun is_list/1, answers(Peer, 3000)),
        ?assert(length(Lists) >= 1000),
        ?assertEqual([], [List || List <- Lists, length(List) =/= 250]),
        ?assertEqual([{error, overloaded}], lists:usort(Refused)),
        ?assert(cnode:memory(Handle) - Before < 100 * 1024 orelse cnode:is_instrumented(Handle)),
        served(Handle),
        raw_dist:close(Peer)
    end).

%% In the order in which they come: who is refused is so at once.
answers(_Peer, 0) ->
    [];
answers(Peer, Count) ->
    case raw_dist:recv(Peer) of
        {_, {_, Answer}} -> [Answer | answers(Peer, Count - 1)];
        {error, Reason} -> error({Reason, Count});
        _ -> answers(Peer, Count)
    end.

%% The tag of a call is kept with it; 63 of a megabyte fit.
waiting() ->
    Macula = cnode:peer(),
    cnode:with(#{args => ["--lookup-timeout-ms", "60000"]}, fun(#{node := N} = Handle) ->
        cnode:on(Macula, fun() ->
            true = register(macula_nat_cache, spawn(fun() -> receive never -> ok end end)),
            cnode:await(fun() -> #{services := #{macula_nat_cache := Count}} = sys:get_state(?AT(N)), Count > 0 end)
        end),
        Peer = connect(Handle, 1),
        Tag = fun(Number) -> {Number, binary:copy(<<"x">>, 1 bsl 20)} end,
        Ask = fun(Number) ->
            raw_dist:frame({6, raw_dist:pid(Peer, 1), '', ?SERVER},
                           {'$gen_call', {raw_dist:pid(Peer, 1), Tag(Number)}, {request_connection, <<"a">>, <<"b">>, #{}}})
        end,
        [ok = raw_dist:send(Peer, Ask(Number)) || Number <- lists:seq(1, 64)],
        ?assertEqual({ok, {error, overloaded}}, raw_dist:await_tag(Peer, Tag(64))),
        served(Handle),
        %% The others are answered when nobody is left to be asked.
        cnode:on(Macula, fun() -> exit(whereis(macula_nat_cache), kill) end),
        [?assertMatch({ok, {ok, hole_punch, _}}, raw_dist:await_tag(Peer, Tag(Number))) || Number <- lists:seq(1, 63)],
        raw_dist:close(Peer)
    end),
    cnode:peer_stop(Macula).

%% Those who have sent the most make room; one with little is not touched.
unfinished() ->
    cnode:with(#{}, fun(#{node := N} = Handle) ->
        Before = cnode:memory(Handle),
        Victim = connect(Handle, 0),
        {Call, _} = raw_dist:call_frames(Victim, ?SERVER, x, 1),
        <<Begin:40/binary, Rest/binary>> = iolist_to_binary(Call),
        ok = raw_dist:send(Victim, Begin),
        Part = [<<(16 bsl 20):32>>, binary:copy(<<0>>, 15 bsl 20)],
        Peers = [begin
                     Peer = connect(Handle, Number),
                     _ = raw_dist:send(Peer, Part),
                     Peer
                 end || Number <- lists:seq(1, 40)],
        cnode:await(fun() -> #{network := #{input_limit := Cut}} = sys:get_state(?AT(N)), Cut >= 23 end),
        ?assert(cnode:memory(Handle) - Before < 400 * 1024 orelse cnode:is_instrumented(Handle)),
        ok = raw_dist:send(Victim, Rest),
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:await_reply(Victim, 1)),
        served(Handle),
        [raw_dist:close(Peer) || Peer <- [Victim | Peers]]
    end).

%% What one has asked to be sent to another waits, or is dropped: it does not cut the other off, and nobody waits for it.
unasked() ->
    cnode:with(#{args => ["--punch-timeout-ms", "600000"]}, fun(#{node := N} = Handle) ->
        Large = fun(Id) -> #{node_id => Id, location_label => binary:copy(<<"x">>, 900000)} end,
        [ok = gen_server:cast({macula_nat_cache, N}, {put, Id, Large(Id), 300}) || Id <- [<<"a">>, <<"b">>]],
        Victim = connect(Handle, 1),
        {ok, {error, unknown_request}} = raw_dist:call(Victim, ?SERVER, x),
        %% One request, and the others join it: 45 are told of each change, 81 MB.
        Pids = [raw_dist:pid(Victim, Number) || Number <- lists:seq(1, 45)],
        Ask = fun({From, To}, Pid) -> {ok, hole_punch, Id} = gen_server:call(?AT(N), {request_connection, From, To, #{notify => Pid}}), Id end,
        Id = Ask({<<"a">>, <<"b">>}, hd(Pids)),
        [?assertEqual(Id, Ask({<<"b">>, <<"a">>}, Pid)) || Pid <- tl(Pids)],
        ok = gen_server:cast(?AT(N), {report_result, Id, <<"a">>, success}),
        served(Handle),
        ?assertMatch(#{waiting_for := #{notifications := Waiting}} when Waiting > 0, sys:get_state(?AT(N))),
        Completed = notified(Victim, length(Pids)),
        ?assertEqual(Pids, lists:sort(Completed)),
        %% Answers: what is for one who has much to take yet is dropped.
        Ref = make_ref(),
        Forger = connect(Handle, 2),
        Forged = raw_dist:frame({6, raw_dist:pid(Forger, 1), '', macula_nat_cache},
                                {'$gen_call', {hd(Pids), Ref}, {get, <<"a">>}}),
        [ok = raw_dist:send(Forger, Forged) || _ <- lists:seq(1, 200)],
        {ok, {error, unknown_request}} = raw_dist:call(Forger, ?SERVER, x),
        #{network := #{output_dropped := Dropped, output_limit := 0}} = sys:get_state(?AT(N)),
        ?assert(Dropped > 100),
        [?assertMatch({ok, {ok, #{}, fresh}}, raw_dist:await_tag(Victim, Ref)) || _ <- lists:seq(1, 200 - Dropped)],
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Victim, ?SERVER, x)),
        [raw_dist:close(Peer) || Peer <- [Victim, Forger]]
    end).

%% Who has been told of the end.
notified(_Peer, 0) ->
    [];
notified(Peer, Count) ->
    case raw_dist:recv_frame(Peer) of
        {{2, _, Pid}, {punch_session, _, #{state := completed}}} -> [Pid | notified(Peer, Count - 1)];
        {{2, _, _}, {punch_session, _, #{}}} -> notified(Peer, Count)
    end.

%% Their node never says how it wants the state: 1000 wait for that until the time is over, the next one is answered first.
state_askers() ->
    cnode:with(#{}, fun(Handle) ->
        Peer = connect(Handle, 1),
        Self = raw_dist:pid(Peer, 1),
        Ask = fun(Number) -> raw_dist:frame({6, Self, '', ?SERVER}, {system, {Self, Number}, get_state}) end,
        ok = raw_dist:send(Peer, [Ask(Number) || Number <- lists:seq(1, 1001)]),
        ?assertEqual([1001 | lists:seq(1, 1000)], states(Peer, 1001)),
        served(Handle),
        raw_dist:close(Peer)
    end).

%% In the order in which they come, each in the form of today.
states(_Peer, 0) ->
    [];
states(Peer, Count) ->
    case raw_dist:recv_frame(Peer) of
        {_, {Number, {ok, #{options := _}}}} -> [Number | states(Peer, Count - 1)];
        {{6, _, '', kernel_refc}, _} -> states(Peer, Count)
    end.

foreign_mailboxes() ->
    cnode:with(#{}, fun(#{node := N} = Handle) ->
        Victim = connect(Handle, 1),
        ?assertEqual({ok, ok}, raw_dist:call(Victim, ?SERVER, {attach_peer, <<"mine">>})),
        Forger = connect(Handle, 2),
        [begin
             ok = raw_dist:send(Forger, raw_dist:frame({6, raw_dist:pid(Forger, 1), '', ?SERVER},
                                                       {'$gen_call', {raw_dist:pid(Victim, 1), Tag}, Request})),
             ?assertEqual({ok, Answer}, raw_dist:await_tag(Victim, Tag)),
             ?assertMatch(#{services := #{mailboxes := 1}}, sys:get_state(?AT(N)))
         end || {Tag, Request, Answer} <- [{1, {detach_peer, <<"mine">>}, ok},
                                           {2, {attach_peer, <<"another">>}, {error, foreign}}]],
        ?assertMatch(#{counters := #{foreign_mailboxes := 2}}, sys:get_state(?AT(N))),
        ?assertEqual({ok, ok}, raw_dist:call(Victim, ?SERVER, {detach_peer, <<"mine">>})),
        ?assertMatch(#{services := #{mailboxes := 0}}, sys:get_state(?AT(N))),
        [raw_dist:close(Peer) || Peer <- [Victim, Forger]]
    end).

%% rex hands on what came while it was suspended as its sender's, unless he is gone.
mailboxes_that_waited() ->
    cnode:with(#{}, fun(#{node := N} = Handle) ->
        Owner = connect(Handle, 1),
        [Forger, Gone] = [connect(Handle, Number) || Number <- [2, 3]],
        Attach = fun(Peer, Tag) ->
            Pid = raw_dist:pid(Owner, 1),
            ok = raw_dist:send(Peer, raw_dist:frame({6, raw_dist:pid(Peer, 1), '', rex},
                                                    {Pid, {sbcast, ?SERVER, {'$gen_call', {Pid, Tag}, {attach_peer, <<"mine">>}}}})),
            {ok, {error, unknown_request}} = raw_dist:call(Peer, ?SERVER, x)
        end,
        ok = sys:suspend({rex, N}),
        [Attach(Peer, Tag) || {Peer, Tag} <- [{Gone, 1}, {Forger, 2}, {Owner, 3}]],
        #{network := #{connections := Connections}} = sys:get_state(?AT(N)),
        raw_dist:close(Gone),
        cnode:await(fun() -> #{network := #{connections := Left}} = sys:get_state(?AT(N)), Left < Connections end),
        ok = sys:resume({rex, N}),
        [?assertEqual({ok, Answer}, raw_dist:await_tag(Owner, Tag))
         || {Tag, Answer} <- [{1, {error, foreign}}, {2, {error, foreign}}, {3, ok}]],
        [raw_dist:close(Peer) || Peer <- [Owner, Forger]]
    end).

%%%-------------------------------------------------------------------
%%% Helpers
%%%-------------------------------------------------------------------

hostile_program() ->
    maps:without([args], hostile:program()).

connect(Handle, Number) ->
    hostile:connect(Handle, hostile:raw_name("limits", Number)).

call(Peer, Id, Request) ->
    raw_dist:frame({6, raw_dist:pid(Peer, 1), '', ?SERVER}, {'$gen_call', {raw_dist:pid(Peer, 1), raw_dist:reference(Peer, Id)}, Request}).

%% Some at a time: a list of all of them would be large.
send_all(Peer, Frame, Count) ->
    [_ = raw_dist:send(Peer, [Frame(Number) || Number <- lists:seq(First, min(First + 999, Count))])
     || First <- lists:seq(1, Count, 1000)],
    ok.

served(#{node := N}) ->
    ?assertEqual({error, unknown_request}, gen_server:call(?AT(N), x)).
