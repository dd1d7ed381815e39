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
        {"requests that wait for profiles", fun waiting/0}
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
    cnode:with(#{args => ["--lookup-timeout-ms", "5000"]}, fun(#{node := N} = Handle) ->
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
        %% The others are answered when the lookup has run out.
        [?assertMatch({ok, {ok, hole_punch, _}}, raw_dist:await_tag(Peer, Tag(Number))) || Number <- lists:seq(1, 63)],
        raw_dist:close(Peer)
    end),
    cnode:peer_stop(Macula).

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
