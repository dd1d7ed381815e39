%% SPDX-License-Identifier: Apache-2.0
%% Hole punches from the request to the result, between processes of two Erlang nodes that stand for the peers.
%%
%% Two programs run beside each other. In the one that is called fast a punch time comes soon and a session then waits for
%% reports as long as need be, unless the request says otherwise. In the slow one a punch time never comes.
-module(punch_tests).
-include_lib("eunit/include/eunit.hrl").

-define(NAME, macula_nat_coordinator).
-define(NEVER, "3600000").
-define(DELAY, 10).
-define(SLOW_DELAY, 60000).
-define(SECONDS, 60).

-import(agent, [at/2, attach/2, detach/2, request/4, request/5, cast/2, report/3, report/4, session/2, sessions/2,
                coordinate/1, detached/2, silent/1]).

punch_test_() ->
    [{setup, fun() -> world(?DELAY, []) end, fun stop/1, fun(W) -> [tests(W, fast() ++ paths() ++ contacts())] end},
     {setup, fun() -> world(?SLOW_DELAY, []) end, fun stop/1, fun(W) -> [tests(W, slow())] end},
     {setup, fun() -> world(?SLOW_DELAY, ["--max-sessions", "3"]) end, fun stop/1, fun(W) -> [tests(W, small())] end}].

tests(W, Tests) ->
    [{Title, {timeout, ?SECONDS, fun() -> Test(W) end}} || {Title, Test} <- Tests].

%%%-------------------------------------------------------------------
%%% The world
%%%-------------------------------------------------------------------

world(Delay, Args) ->
    #{program => cnode:start(#{args => ["--coordination-delay-ms", integer_to_list(Delay),
                                        "--punch-timeout-ms", ?NEVER | Args]}),
      a => cnode:peer(), b => cnode:peer(), delay => Delay}.

stop(#{program := Program, a := A, b := B}) ->
    [cnode:peer_stop(Peer) || Peer <- [A, B]],
    ?assertEqual(0, cnode:stop(Program)).

node_of(#{program := #{node := Node}}) ->
    Node.

agent(Side, W) ->
    agent:start(maps:get(Side, W), node_of(W)).

id(Prefix) ->
    list_to_binary(cnode:unique(Prefix)).

%% Two processes on two nodes, attached as peers.
pair(W) ->
    [A, B] = [agent(Side, W) || Side <- [a, b]],
    [IdA, IdB] = [id(Name) || Name <- ["a", "b"]],
    ok = attach(A, IdA),
    ok = attach(B, IdB),
    {A, IdA, B, IdB}.

state(#{a := A} = W) ->
    Node = node_of(W),
    cnode:on(A, fun() -> sys:get_state({?NAME, Node}) end).

%% What a fun changes in the counters, of those that are asked for.
changes(W, Keys, Fun) ->
    #{counters := Before} = state(W),
    Fun(),
    #{counters := After} = state(W),
    maps:from_list([{Key, maps:get(Key, After) - maps:get(Key, Before)}
                    || Key <- Keys, maps:get(Key, After) =/= maps:get(Key, Before)]).

call(#{a := A} = W, Request) ->
    Node = node_of(W),
    cnode:on(A, fun() -> gen_server:call({?NAME, Node}, Request) end).

pending(W, Id) ->
    [Session || #{session_id := I} = Session <- call(W, get_pending), I =:= Id].

put_profile(#{a := A} = W, #{node_id := Id} = Profile) ->
    Node = node_of(W),
    cnode:on(A, fun() ->
        ok = gen_server:cast({macula_nat_cache, Node}, {put, Id, Profile, 3600}),
        {ok, Stored, fresh} = gen_server:call({macula_nat_cache, Node}, {get, Id}),
        Stored
    end).

profile(Id) ->
    #{node_id => Id, mapping_policy => hd, filtering_policy => pd, allocation_policy => pp,
      can_receive_unsolicited => false, requires_relay => false, relay_capable => false, detected_at => 1,
      ttl_seconds => 2}.

profile(Id, public) ->
    (profile(Id))#{mapping_policy => ei, filtering_policy => ei, can_receive_unsolicited => true};
profile(Id, symmetric) ->
    (profile(Id))#{mapping_policy => pd, allocation_policy => rd, requires_relay => true};
profile(Id, punchable) ->
    profile(Id).

%% How a session stands, in short.
short(#{strategy := Strategy, state := State, attempts := Attempts} = Session) ->
    {Strategy, State, Attempts, maps:get(result, Session, none)}.

states(Sessions) ->
    [short(Session) || Session <- Sessions].

%% Both peers' PUNCH_COORDINATE for the next attempt of a session, the time of the caller's last look at the clock: every
%% key is checked. Answers the time now.
coordinated(#{delay := Delay}, Id, {A, IdA, InfoA}, {B, IdB, InfoB}, Since) ->
    #{punch_time := Time} = ToA = coordinate(A),
    ToB = coordinate(B),
    {HostA, PortsA} = InfoA,
    {HostB, PortsB} = InfoB,
    ?assertEqual(#{session_id => Id, peer_id => IdB, peer_host => HostB, peer_ports => PortsB, punch_time => Time,
                   role => initiator}, ToA),
    ?assertEqual(#{session_id => Id, peer_id => IdA, peer_host => HostA, peer_ports => PortsA, punch_time => Time,
                   role => target}, ToB),
    Now = os:system_time(millisecond),
    ?assert(Time - Delay >= Since),
    ?assert(Time - Delay =< Now),
    Now.

unknown() ->
    {<<>>, [4433, 4434, 4435]}.

%%%-------------------------------------------------------------------
%%% With punch times that come soon
%%%-------------------------------------------------------------------

fast() ->
    [{"both peers succeed", fun both_succeed/1},
     {"all attempts fail", fun all_fail/1},
     {"one peer's process dies half-way", fun(W) -> peer_dies(W, fun(B, _) -> agent:kill(B) end) end},
     {"one peer's node ends half-way", fun(W) -> peer_dies(W, fun(_, Peer) -> cnode:peer_stop(Peer) end) end},
     {"one peer's node is killed half-way", fun(W) -> peer_dies(W, fun(_, Peer) -> cnode:peer_kill(Peer) end) end},
     {"both ask for each other at once", fun glare/1},
     {"a report during each attempt by one peer alone", fun one_reporter/1},
     {"strangers are one third reporter", fun strangers/1},
     {"a timeout brings all counts up to date", fun counts_after_timeout/1},
     {"reports that change nothing", fun useless_reports/1},
     {"detach_peer", fun detaching/1},
     {"a later attach_peer takes over", fun takeover/1},
     {"one process as both peers", fun one_process/1},
     {"a process that is gone cannot be a mailbox", fun dead_mailbox/1},
     {"attach_peer with what is no id", fun bad_peer_ids/1},
     {"a watcher is told once", fun told_once/1},
     {"a watcher that is gone or was never there", fun dead_watchers/1},
     {"more watchers than a session may have", fun many_watchers/1},
     {"suspended, reports wait for the end of the suspension", fun suspended/1},
     {"coordinate_punch starts an executing session anew", fun restart_executing/1}].

both_succeed(W) ->
    {A, IdA, B, IdB} = Pair = pair(W),
    Stored = put_profile(W, (profile(IdA))#{reflexive_address => {{198, 51, 100, 7}, 40000}}),
    Since = os:system_time(millisecond),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    _ = coordinated(W, Id, {A, IdA, {<<"198.51.100.7">>, [40000]}}, {B, IdB, unknown()}, Since),
    Seen = [#{created_at := Created} = First, Second, Third] = sessions(A, {Id, 3}),
    Expected = #{session_id => Id, initiator_id => IdA, target_id => IdB, initiator_profile => Stored,
                 target_profile => undefined, strategy => hole_punch, state => pending, attempts => 0,
                 created_at => Created},
    ?assertEqual(Expected, First),
    ?assertEqual(Expected#{state => coordinating}, Second),
    ?assertEqual(Expected#{state => executing}, Third),
    ?assert(Created * 1000 > Since - 1000),
    ?assert(Created * 1000 =< os:system_time(millisecond)),
    ?assertEqual([lists:last(Seen)], pending(W, Id)),
    Changed = changes(W, [completed, reports, reports_ended], fun() ->
        ok = report(A, Id, IdA, success),
        ok = report(B, Id, IdB, success)
    end),
    ?assertEqual(#{completed => 1, reports => 1, reports_ended => 1}, Changed),
    ?assertEqual(Expected#{state => completed, result => success}, session(A, Id)),
    ?assertEqual([], pending(W, Id)),
    all_silent(Pair).

all_silent({A, _, B, _}) ->
    ok = silent(A),
    ok = silent(B).

all_fail(W) ->
    {A, IdA, B, IdB} = Pair = pair(W),
    Attempts = [0, 1, 2, 3],
    Changed = changes(W, [reports, reports_repeated, reports_ended, retries, failed_unreachable,
                          delivered_to_mailboxes, undelivered], fun() ->
        Since = os:system_time(millisecond),
        {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
        ?assertEqual({hole_punch, pending, 0, none}, short(session(A, Id))),
        lists:foldl(fun(Attempt, Last) ->
            ?assertEqual({hole_punch, coordinating, Attempt, none}, short(session(A, Id))),
            Next = coordinated(W, Id, {A, IdA, unknown()}, {B, IdB, unknown()}, Last),
            ?assertEqual({hole_punch, executing, Attempt, none}, short(session(A, Id))),
            ok = report(B, Id, IdB),
            ok = report(A, Id, IdA),
            Next
        end, Since, Attempts),
        ?assertEqual({relay, failed, 3, unreachable}, short(session(A, Id)))
    end),
    ?assertEqual(#{reports => 4, reports_repeated => 3, reports_ended => 1, retries => 3, failed_unreachable => 1,
                   delivered_to_mailboxes => 8}, Changed),
    all_silent(Pair).

%% What is for a peer that is gone is dropped and counted; the others go on, and the timeout ends it.
peer_dies(W, End) ->
    Peer = cnode:peer(),
    A = agent(a, W),
    B = agent:start(Peer, node_of(W)),
    {IdA, IdB} = {id("a"), id("b")},
    ok = attach(A, IdA),
    ok = attach(B, IdB),
    #{services := #{mailboxes := Mailboxes}} = state(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 1}),
    ?assertEqual([pending, coordinating, executing], [State || #{state := State} <- sessions(A, {Id, 3})]),
    #{peer_id := IdB} = coordinate(A),
    #{peer_id := IdA} = coordinate(B),
    End(B, Peer),
    cnode:await(fun() -> #{services := #{mailboxes := Left}} = state(W), Left =:= Mailboxes - 1 end),
    Changed = changes(W, [delivered_to_mailboxes, undelivered], fun() -> ok = report(A, Id, IdA) end),
    ?assertEqual(#{delivered_to_mailboxes => 1, undelivered => 1}, Changed),
    #{peer_id := IdB} = coordinate(A),
    ?assertEqual([{hole_punch, coordinating, 1, none}, {hole_punch, executing, 1, none}],
                 states(sessions(A, {Id, 2}))),
    %% The session that it leaves behind ends as any other; and with a short timeout nobody need say so.
    ok = report(A, Id, IdA),
    ?assertEqual({relay, failed, 1, unreachable}, short(session(A, Id))),
    {ok, hole_punch, Other} = request(A, IdA, IdB, #{max_punch_attempts => 0, punch_timeout_ms => 1}),
    #{session_id := Other} = coordinate(A),
    ?assertEqual({relay, failed, 0, timeout}, short(lists:last(sessions(A, Other)))),
    ok = silent(A),
    try cnode:peer_stop(Peer) catch _:_ -> ok end,
    ok.

%% Whoever comes second joins: one session, one id, and both are told.
glare(W) ->
    Joined = 20,
    Changed = changes(W, [joined, hole_punch, completed], fun() ->
        [glare_once(W) || _ <- lists:seq(1, Joined)]
    end),
    ?assertEqual(#{joined => Joined, hole_punch => 2 * Joined, completed => Joined}, Changed).

glare_once(W) ->
    {A, IdA, B, IdB} = Pair = pair(W),
    Self = self(),
    [spawn_link(fun() -> Self ! {Me, request(Me, From, To, #{})} end)
     || {Me, From, To} <- [{A, IdA, IdB}, {B, IdB, IdA}]],
    [{ok, hole_punch, Id}, {ok, hole_punch, Id}] = [receive {Me, Answer} -> Answer end || Me <- [A, B]],
    InfoA = coordinate(A),
    InfoB = coordinate(B),
    ?assertEqual([initiator, target], lists:sort([Role || #{role := Role} <- [InfoA, InfoB]])),
    #{session_id := Id, peer_id := IdB, punch_time := Time} = InfoA,
    #{session_id := Id, peer_id := IdA, punch_time := Time} = InfoB,
    [#{initiator_id := Initiator}] = pending(W, Id),
    {First, Second, Roles} =
        case Initiator of
            IdA -> {A, B, [initiator, target]};
            IdB -> {B, A, [target, initiator]}
        end,
    ?assertEqual(Roles, [Role || #{role := Role} <- [InfoA, InfoB]]),
    ?assertEqual([pending, coordinating, executing], [State || #{state := State} <- sessions(First, {Id, 3})]),
    ok = report(B, Id, IdB, success),
    ?assertEqual({hole_punch, completed, 0, success}, short(session(First, Id))),
    %% The one that joined is told of what came after, and before it can have been executing or not.
    After = states(sessions(Second, Id)),
    ?assertEqual({hole_punch, completed, 0, success}, lists:last(After)),
    ?assert(lists:member(lists:droplast(After), [[], [{hole_punch, executing, 0, none}]])),
    all_silent(Pair).

one_reporter(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 2}),
    _ = sessions(A, {Id, 3}),
    [begin
         ok = report(B, Id, IdB),
         ?assertEqual([{hole_punch, coordinating, N, none}, {hole_punch, executing, N, none}],
                      states(sessions(A, {Id, 2})))
     end || N <- [1, 2]],
    %% The other peer has three attempts to catch up with: the third report is about the last one.
    ?assertEqual(#{reports_repeated => 2},
                 changes(W, [reports, reports_repeated], fun() -> [ok = report(A, Id, IdA) || _ <- [0, 1]] end)),
    [#{state := executing, attempts := 2}] = pending(W, Id),
    ?assertEqual(#{reports => 1}, changes(W, [reports, reports_repeated], fun() -> ok = report(A, Id, IdA) end)),
    ?assertEqual({relay, failed, 2, unreachable}, short(session(A, Id))).

strangers(W) ->
    {A, IdA, _B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 3}),
    _ = sessions(A, {Id, 3}),
    ok = report(A, Id, id("stranger")),
    ?assertEqual([1, 1], [N || #{attempts := N} <- sessions(A, {Id, 2})]),
    %% Another stranger's report is the third reporter's second: about attempt 1.
    ok = report(A, Id, <<>>),
    ?assertEqual([2, 2], [N || #{attempts := N} <- sessions(A, {Id, 2})]),
    %% The peers' first two are late, the third is about attempt 2.
    ?assertEqual(#{reports => 1, reports_repeated => 2}, changes(W, [reports, reports_repeated], fun() ->
        [ok = report(A, Id, IdA) || _ <- [0, 1, 2]]
    end)),
    ?assertEqual([3, 3], [N || #{attempts := N} <- sessions(A, {Id, 2})]),
    ok = report(A, Id, id("stranger"), success),
    ?assertEqual({hole_punch, completed, 3, success}, short(session(A, Id))).

%% While the process is suspended no timeout can come between: nobody has reported on the attempts that have timed out,
%% and yet the first report is about the one that is under way.
counts_after_timeout(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 1 bsl 30, punch_timeout_ms => 1}),
    Seen = lists:last(sessions(A, {Id, 4})),
    Counted = fun() -> maps:with([reports, reports_repeated], maps:get(counters, state(W))) end,
    {#{attempts := Attempts}, #{reports := Reports, reports_repeated := Repeated}} = while_suspended(A, fun() ->
        ok = send(B, {report_result, Id, IdB, failure}),
        {at(A, fun() -> last(Id, Seen) end), Counted()}
    end),
    ?assert(Attempts >= 1),
    ?assertEqual({hole_punch, coordinating, Attempts + 1, none}, short(session(A, Id))),
    ?assertEqual(#{reports => Reports + 1, reports_repeated => Repeated}, Counted()),
    ok = report(A, Id, IdA, success),
    ?assertMatch(#{state := completed}, lists:last(sessions(A, Id))).

%% Runs a fun while the process is suspended.
while_suspended(#{node := Node} = Agent, Fun) ->
    ok = at(Agent, fun() -> sys:suspend({?NAME, Node}) end),
    try Fun() after ok = at(Agent, fun() -> sys:resume({?NAME, Node}) end) end.

%% Sends a cast and waits until it has arrived at the process, suspended or not.
send(#{node := Node} = Agent, Request) ->
    at(Agent, fun() ->
        ok = gen_server:cast({?NAME, Node}, Request),
        #{} = sys:get_state({?NAME, Node}),
        ok
    end).

useless_reports(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    _ = sessions(A, {Id, 3}),
    [Before] = pending(W, Id),
    Keys = [reports, reports_repeated, reports_ended, reports_unknown, reports_bad, bad_arguments],
    Count = fun(Reports) -> changes(W, Keys, fun() -> [ok = report(B, S, R, V) || {S, R, V} <- Reports] end) end,
    ?assertEqual(#{reports_bad => 5},
                 Count([{Id, IdB, V} || V <- [ok, <<"success">>, {failure, x}, undefined, #{}]])),
    ?assertEqual(#{reports_unknown => 4},
                 Count([{S, IdB, success} || S <- [<<"x">>, <<>>, binary:copy(<<"x">>, 5000), IdB]])),
    ?assertEqual(#{bad_arguments => 4},
                 Count([{S, IdB, success} || S <- [x, "x"]] ++ [{Id, R, success} || R <- [me, <<1:3>>]])),
    ?assertEqual([Before], pending(W, Id)),
    #{session_id := Id} = coordinate(A),
    ok = silent(A),
    ok = report(A, Id, IdA, success),
    _ = session(A, Id),
    ?assertEqual(#{reports_ended => 4},
                 Count([{Id, R, V} || R <- [IdA, IdB], V <- [success, failure]])),
    ok = silent(A).

detaching(W) ->
    {A, IdA, B, IdB} = pair(W),
    %% Only the holder may: from another it changes nothing, and the answer is the same.
    ok = detach(A, IdB),
    ok = detach(A, id("nobody")),
    {ok, hole_punch, First} = request(A, IdA, IdB, #{}),
    #{session_id := First} = coordinate(B),
    ok = detach(B, IdB),
    ok = detach(B, IdB),
    ?assertEqual(#{delivered_to_mailboxes => 1, undelivered => 1},
                 changes(W, [delivered_to_mailboxes, undelivered], fun() ->
                     {ok, hole_punch, _} = request(A, IdA, IdB, #{})
                 end)),
    ok = silent(B),
    ok = attach(B, IdB),
    {ok, hole_punch, Third} = request(A, IdA, IdB, #{}),
    #{session_id := Third} = coordinate(B).

takeover(W) ->
    {A, IdA, B, IdB} = pair(W),
    C = agent(a, W),
    ok = attach(B, IdB),
    ok = silent(B),
    ok = attach(C, IdB),
    ok = detached(B, IdB),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    #{session_id := Id} = coordinate(C),
    %% The one that was replaced holds nothing any more, and its end is nobody's business.
    ok = detach(B, IdB),
    ok = agent:kill(B),
    ok = report(A, Id, IdA),
    #{session_id := Id} = coordinate(C),
    D = agent(b, W),
    ok = attach(D, IdB),
    ok = detached(C, IdB),
    ok = report(A, Id, IdA),
    #{session_id := Id} = coordinate(D),
    ok = silent(C),
    ok = silent(D).

one_process(W) ->
    A = agent(a, W),
    {IdA, IdB} = {id("a"), id("b")},
    ok = attach(A, IdA),
    ok = attach(A, IdB),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    #{session_id := Id, role := initiator, peer_id := IdB} = coordinate(A),
    #{session_id := Id, role := target, peer_id := IdA} = coordinate(A),
    #{services := #{mailboxes := Mailboxes}} = state(W),
    ok = agent:kill(A),
    cnode:await(fun() -> #{services := #{mailboxes := Left}} = state(W), Left =:= Mailboxes - 2 end).

%% The process ends before its request is handled: the monitor answers at once, and nothing is left of it.
dead_mailbox(#{a := A} = W) ->
    Node = node_of(W),
    Id = id("dead"),
    #{services := #{mailboxes := Mailboxes}} = state(W),
    cnode:on(A, fun() ->
        {Pid, Ref} = spawn_monitor(fun() -> ok end),
        receive {'DOWN', Ref, process, Pid, _} -> ok end,
        {?NAME, Node} ! {'$gen_call', {Pid, make_ref()}, {attach_peer, Id}}
    end),
    cnode:await(fun() -> #{services := #{mailboxes := Left}} = state(W), Left =:= Mailboxes end),
    {ok, hole_punch, _} = request(agent(a, W), Id, id("b"), #{}).

bad_peer_ids(W) ->
    A = agent(a, W),
    [begin
         ?assertEqual({error, {bad_argument, peer_id}}, attach(A, Id)),
         ?assertEqual({error, {bad_argument, peer_id}}, detach(A, Id))
     end || Id <- [id, "id", 1, <<1:3>>, binary:copy(<<"x">>, 1025), {}]],
    [begin ?assertEqual(ok, attach(A, Id)), ?assertEqual(ok, detach(A, Id)) end
     || Id <- [<<>>, <<0>>, binary:copy(<<"x">>, 1024)]].

told_once(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    {ok, hole_punch, Id} = request(A, IdB, IdA, #{}),
    {ok, hole_punch, Id} = request(B, A, IdB, IdA, #{}),
    ok = cast(B, {coordinate_punch, IdA, IdB, #{session_id => Id, notify => agent:pid(A)}}),
    ok = report(B, Id, IdB, success),
    Seen = states(sessions(A, Id)),
    ?assertEqual({hole_punch, completed, 0, success}, lists:last(Seen)),
    [_, _] = [coordinate(B) || _ <- [1, 2]],
    [_, _] = [coordinate(A) || _ <- [1, 2]],
    ok = silent(A),
    ok = silent(B).

dead_watchers(#{b := Peer} = W) ->
    {A, IdA, _, IdB} = pair(W),
    Short = cnode:peer(),
    Far = agent:start(Short, node_of(W)),
    Dead = agent(b, W),
    ok = agent:kill(Dead),
    Stranger = cnode:on(Peer, fun() -> list_to_pid("<0.32000.1000>") end),
    Elsewhere = self(),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 0}),
    [{ok, hole_punch, Id} = request(A, Watcher, IdB, IdA, #{})
     || Watcher <- [#{pid => Pid} || Pid <- [agent:pid(Dead), agent:pid(Far), Stranger, Elsewhere]]],
    cnode:peer_stop(Short),
    ok = report(A, Id, IdB, success),
    ?assertEqual({hole_punch, completed, 0, success}, short(lists:last(sessions(A, Id)))).

many_watchers(W) ->
    {A, IdA, B, IdB} = pair(W),
    Node = node_of(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    _ = sessions(A, {Id, 3}),
    Join = {request_connection, IdB, IdA, #{}},
    Watch = fun(Parent) ->
        {ok, hole_punch, Id} = gen_server:call({?NAME, Node}, setelement(4, Join, #{notify => self()})),
        Parent ! {joined, self()},
        receive look -> ok end,
        Parent ! {self(), receive {punch_session, Id, #{state := State}} -> State after 0 -> untold end}
    end,
    %% The first watcher is A.
    {Most, TooMany} = {250, 5},
    Number = Most - 1 + TooMany,
    Watchers = at(B, fun() ->
        Self = self(),
        Pids = [spawn_link(fun() -> Watch(Self) end) || _ <- lists:seq(1, Number)],
        [receive {joined, Pid} -> Pid end || Pid <- Pids]
    end),
    #{counters := #{watchers_refused := TooMany}} = state(W),
    ok = report(B, Id, IdA, success),
    ?assertEqual({hole_punch, completed, 0, success}, short(session(A, Id))),
    States = at(B, fun() -> [begin Pid ! look, receive {Pid, State} -> State end end || Pid <- Watchers] end),
    ?assertEqual({Most - 1, TooMany}, {length([x || completed <- States]), length([x || untold <- States])}).

%% Neither punch time nor timeout is looked at while the process is suspended, and what was reported comes first then.
suspended(W) ->
    {A, IdA, B, IdB} = pair(W),
    Node = node_of(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{punch_timeout_ms => 1, max_punch_attempts => 1 bsl 30}),
    Seen = lists:last(sessions(A, {Id, 4})),
    #{attempts := Attempts} = while_suspended(A, fun() ->
        Last = at(A, fun() -> last(Id, Seen) end),
        ok = send(B, {report_result, Id, IdB, success}),
        at(B, fun() ->
            %% An instant that is later than the punch time and the timeout.
            Ref = erlang:start_timer(2 * ?DELAY + 2, self(), later),
            receive {timeout, Ref, later} -> ok end
        end),
        none = at(A, fun() -> suspended = status({?NAME, Node}), last(Id, none) end),
        Last
    end),
    ?assertEqual({hole_punch, completed, Attempts, success}, short(session(A, Id))),
    running = at(A, fun() -> status({?NAME, Node}) end).

last(Id, Last) ->
    receive {punch_session, Id, Session} -> last(Id, Session) after 0 -> Last end.

status(Name) ->
    {status, _, {module, gen_server}, [_, Status | _]} = sys:get_status(Name),
    Status.

restart_executing(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 2}),
    _ = sessions(A, {Id, 3}),
    ok = report(A, Id, IdA),
    _ = sessions(A, {Id, 2}),
    _ = [coordinate(X) || X <- [A, A, B, B]],
    %% Anyone may ask, the peers may be named in either order, and roles stay.
    Since = os:system_time(millisecond),
    ok = cast(agent(b, W), {coordinate_punch, IdB, IdA, #{session_id => Id}}),
    _ = coordinated(W, Id, {A, IdA, unknown()}, {B, IdB, unknown()}, Since),
    ?assertEqual([{hole_punch, coordinating, 1, none}, {hole_punch, executing, 1, none}],
                 states(sessions(A, {Id, 2}))),
    %% All counts are those of attempt 1: the other peer's first report is about it.
    ok = report(B, Id, IdB),
    ?assertEqual([{hole_punch, coordinating, 2, none}, {hole_punch, executing, 2, none}],
                 states(sessions(A, {Id, 2}))),
    ok = report(A, Id, IdA),
    ok = report(A, Id, IdA),
    ?assertEqual({relay, failed, 2, unreachable}, short(session(A, Id))).

%%%-------------------------------------------------------------------
%%% notify, for every path through the states
%%%-------------------------------------------------------------------

%% Who the peers are, the options, the reports, and the states that a watcher sees. A report is made when the session waits
%% for one; where none is left the session has ended or ends by itself.
paths() ->
    Punch = fun(N) -> [{hole_punch, coordinating, N, none}, {hole_punch, executing, N, none}] end,
    New = {hole_punch, pending, 0, none},
    Direct = {direct, pending, 0, none},
    Relay = {relay, pending, 0, none},
    [{"notify: " ++ Title, fun(W) -> path(W, Kinds, Opts, Reports, Expected) end}
     || {Title, Kinds, Opts, Reports, Expected} <- [
        {"direct succeeds", {punchable, public}, #{}, [{i, success}], [Direct, {direct, completed, 0, success}]},
        {"direct succeeds for an initiator that is public", {public, punchable}, #{}, [{t, success}],
         [Direct, {direct, completed, 0, success}]},
        {"direct fails, the punch succeeds", {punchable, public}, #{}, [{i, failure}, {t, success}],
         [Direct | Punch(1)] ++ [{hole_punch, completed, 1, success}]},
        {"direct fails for both, which is one attempt", {punchable, public}, #{}, [{i, failure}, {t, failure}, {i, success}],
         [Direct | Punch(1)] ++ [{hole_punch, completed, 1, success}]},
        {"direct fails, the punches fail", {punchable, public}, #{max_punch_attempts => 2},
         [{i, failure}, {i, failure}, {i, failure}],
         [Direct | Punch(1)] ++ Punch(2) ++ [{relay, failed, 2, unreachable}]},
        {"direct fails, the punches time out", {punchable, public}, #{max_punch_attempts => 2, punch_timeout_ms => 1},
         [{t, failure}], [Direct | Punch(1)] ++ Punch(2) ++ [{relay, failed, 2, timeout}]},
        {"direct fails, and it was the only attempt", {punchable, public}, #{max_punch_attempts => 0}, [{i, failure}],
         [Direct, {direct, failed, 0, unreachable}]},
        {"direct fails, and only a relay would do", {symmetric, public}, #{}, [{i, failure}],
         [Direct, {direct, failed, 0, unreachable}]},
        {"relay succeeds", {punchable, symmetric}, #{}, [{i, success}], [Relay, {relay, completed, 0, success}]},
        {"relay fails", {symmetric, punchable}, #{}, [{t, failure}], [Relay, {relay, failed, 0, unreachable}]},
        {"the first punch succeeds", {punchable, punchable}, #{}, [{i, success}],
         [New | Punch(0)] ++ [{hole_punch, completed, 0, success}]},
        {"a retry succeeds", {punchable, unknown}, #{}, [{i, failure}, {t, success}],
         [New | Punch(0)] ++ Punch(1) ++ [{hole_punch, completed, 1, success}]},
        {"one punch only, which fails", {unknown, unknown}, #{max_punch_attempts => 0}, [{t, failure}],
         [New | Punch(0)] ++ [{relay, failed, 0, unreachable}]},
        {"exhausted", {unknown, punchable}, #{max_punch_attempts => 2}, [{i, failure}, {t, failure}, {t, failure}, {t, failure}],
         [New | Punch(0)] ++ Punch(1) ++ Punch(2) ++ [{relay, failed, 2, unreachable}]},
        {"exhausted with the attempts of the command line", {punchable, punchable}, #{}, [{i, failure} || _ <- "0123"],
         [New | lists:append([Punch(N) || N <- [0, 1, 2, 3]])] ++ [{relay, failed, 3, unreachable}]},
        {"timeout", {punchable, punchable}, #{max_punch_attempts => 0, punch_timeout_ms => 1}, [],
         [New | Punch(0)] ++ [{relay, failed, 0, timeout}]},
        {"timeout of every attempt", {punchable, punchable}, #{max_punch_attempts => 5, punch_timeout_ms => 1}, [],
         [New | lists:append([Punch(N) || N <- [0, 1, 2, 3, 4, 5]])] ++ [{relay, failed, 5, timeout}]},
        {"options of any size", {punchable, punchable}, #{max_punch_attempts => 1 bsl 100, punch_timeout_ms => 1 bsl 5000},
         [{i, failure}, {i, success}], [New | Punch(0)] ++ Punch(1) ++ [{hole_punch, completed, 1, success}]}]].

path(W, {KindA, KindB}, Opts, Reports, Expected) ->
    {A, IdA, _, IdB} = pair(W),
    [put_profile(W, profile(Id, Kind)) || {Id, Kind} <- [{IdA, KindA}, {IdB, KindB}], Kind =/= unknown],
    {ok, _, Id} = request(A, IdA, IdB, Opts),
    Names = #{i => IdA, t => IdB},
    Waits = fun Waits(Seen) ->
        Session = session(A, Id),
        case Session of
            #{result := _} -> [Session | Seen];
            #{state := pending, strategy := Strategy} when Strategy =/= hole_punch -> [Session | Seen];
            #{state := executing} when not is_map_key(punch_timeout_ms, Opts);
                                       map_get(punch_timeout_ms, Opts) > 1 -> [Session | Seen];
            #{} -> Waits([Session | Seen])
        end
    end,
    Step = fun({Who, Result}, Seen) ->
        #{counters := #{reports_repeated := Before}} = state(W),
        ok = report(A, Id, maps:get(Who, Names), Result),
        case state(W) of
            #{counters := #{reports_repeated := Before}} -> Waits(Seen);
            #{} -> Seen
        end
    end,
    Seen = lists:foldl(Step, Waits([]), Reports),
    ?assertEqual(Expected, states(lists:reverse(Seen))),
    ?assertEqual([], pending(W, Id)).

%%%-------------------------------------------------------------------
%%% What a peer is told of the other one
%%%-------------------------------------------------------------------

contacts() ->
    V4 = {{203, 0, 113, 9}, 5000},
    V6 = {{16#2001, 16#db8, 0, 0, 0, 0, 0, 1}, 5000},
    Pp = #{allocation_policy => pp},
    Pc = #{allocation_policy => pc},
    Rd = #{allocation_policy => rd},
    Rows = [
        {"port preservation", Pp#{reflexive_address => V4}, <<"203.0.113.9">>, [5000]},
        {"endpoint-independent mapping", Rd#{mapping_policy => ei, reflexive_address => V4}, <<"203.0.113.9">>, [5000]},
        {"contiguous", Pc#{reflexive_address => V4, port_delta => 2}, <<"203.0.113.9">>, [5000, 5002, 5004]},
        {"contiguous downwards", Pc#{reflexive_address => V4, port_delta => -3}, <<"203.0.113.9">>, [5000, 4997, 4994]},
        {"contiguous without a delta", Pc#{reflexive_address => V4}, <<"203.0.113.9">>, [5000, 5001, 5002]},
        {"contiguous with delta 0", Pc#{reflexive_address => V4, port_delta => 0}, <<"203.0.113.9">>, [5000]},
        {"contiguous with a huge delta", Pc#{reflexive_address => V4, port_delta => 1 bsl 62}, <<"203.0.113.9">>, [5000]},
        {"contiguous over the end", Pc#{reflexive_address => {{1, 2, 3, 4}, 65534}, port_delta => 1}, <<"1.2.3.4">>,
         [65534, 65535]},
        {"contiguous below the start", Pc#{reflexive_address => {{1, 2, 3, 4}, 3}, port_delta => -2}, <<"1.2.3.4">>, [3, 1]},
        {"random", Rd#{reflexive_address => V4, port_delta => 7}, <<"203.0.113.9">>, [5000, 5001, 5002]},
        {"random at the end", Rd#{reflexive_address => {{1, 2, 3, 4}, 65535}}, <<"1.2.3.4">>, [65535]},
        {"allocation unknown", #{allocation_policy => <<"new">>, reflexive_address => V4}, <<"203.0.113.9">>,
         [5000, 5001, 5002]},
        {"IPv6", Pp#{reflexive_address => V6}, <<"2001:db8::1">>, [5000]},
        {"IPv6, random", Rd#{reflexive_address => V6}, <<"2001:db8::1">>, [5000, 5001, 5002]},
        {"endpoint only", Pp#{endpoint => <<"host.example:4000">>}, <<"host.example">>, [4000]},
        {"endpoint only, a URL", Rd#{endpoint => <<"https://host.example:4000">>}, <<"host.example">>, [4000, 4001, 4002]},
        {"endpoint only, IPv6", Pc#{endpoint => <<"https://[2001:db8::2]:4000">>, port_delta => 10}, <<"2001:db8::2">>,
         [4000, 4010, 4020]},
        {"endpoint without a port", Pp#{endpoint => <<"host.example">>}, <<"host.example">>, [4433, 4434, 4435]},
        {"endpoint with a port out of range", Pp#{endpoint => <<"host.example:65536">>}, <<"host.example">>,
         [4433, 4434, 4435]},
        {"both", Pp#{reflexive_address => V4, endpoint => <<"host.example:4000">>}, <<"203.0.113.9">>, [5000]},
        {"an address with port 0 beside an endpoint",
         Pp#{reflexive_address => {{1, 2, 3, 4}, 0}, endpoint => <<"host.example:4000">>}, <<"1.2.3.4">>, [4000]},
        {"an address that is none", Pp#{reflexive_address => {{256, 2, 3, 4}, 80}}, <<>>, [4433, 4434, 4435]},
        {"neither", Pp, <<>>, [4433, 4434, 4435]},
        {"no profile", unknown, <<>>, [4433, 4434, 4435]}
    ],
    [{"contact: " ++ Title, fun(W) -> contact(W, Profile, Host, Ports) end} || {Title, Profile, Host, Ports} <- Rows].

%% The same is told of a peer whether it is the initiator or the target.
contact(W, Profile, Host, Ports) ->
    {A, IdA, B, IdB} = pair(W),
    [put_profile(W, maps:merge(profile(IdA), Profile)) || Profile =/= unknown],
    Since = os:system_time(millisecond),
    {ok, hole_punch, First} = request(A, IdA, IdB, #{}),
    Then = coordinated(W, First, {A, IdA, {Host, Ports}}, {B, IdB, unknown()}, Since),
    ok = report(A, First, IdA, success),
    case request(B, IdB, IdA, #{}) of
        {ok, hole_punch, Second} ->
            coordinated(W, Second, {B, IdB, unknown()}, {A, IdA, {Host, Ports}}, Then);
        Other ->
            error({no_hole_punch, Other})
    end.

%%%-------------------------------------------------------------------
%%% With punch times that never come
%%%-------------------------------------------------------------------

slow() ->
    [{"reports before the punch time", fun early_reports/1},
     {"the same direction again is another session", fun same_direction/1},
     {"of several the newest is joined", fun newest_joined/1},
     {"what has ended or is no punch is not joined", fun not_joined/1},
     {"allow_relay", fun allow_relay/1},
     {"coordinate_punch without an id, and with a new one", fun coordinate_new/1},
     {"coordinate_punch starts a live session anew", fun coordinate_restart/1},
     {"coordinate_punch makes a punch of a direct and of a relay session", fun coordinate_pending/1},
     {"coordinate_punch that is ignored", fun coordinate_ignored/1},
     {"what get_state shows", fun shown_state/1}].

early_reports(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 1}),
    ok = report(B, Id, IdB),
    ok = report(A, Id, IdA),
    [#{state := coordinating, attempts := 1}] = pending(W, Id),
    ok = report(A, Id, IdA),
    ?assertEqual([{hole_punch, pending, 0, none}, {hole_punch, coordinating, 0, none}, {hole_punch, coordinating, 1, none},
                  {relay, failed, 1, unreachable}], states(sessions(A, Id))),
    {ok, hole_punch, Other} = request(A, IdA, IdB, #{}),
    ok = report(B, Other, IdB, success),
    ?assertEqual([{hole_punch, pending, 0, none}, {hole_punch, coordinating, 0, none}, {hole_punch, completed, 0, success}],
                 states(sessions(A, Other))).

same_direction(W) ->
    {A, IdA, B, IdB} = pair(W),
    Ids = [begin {ok, hole_punch, Id} = request(A, IdA, IdB, #{}), Id end || _ <- [1, 2, 3]],
    ?assertEqual(3, length(lists:usort(Ids))),
    ?assertEqual(Ids, [begin #{session_id := Id} = coordinate(B), Id end || _ <- Ids]).

newest_joined(W) ->
    {A, IdA, B, IdB} = pair(W),
    Ids = [First, Second, Third] =
        [begin {ok, hole_punch, Id} = request(A, IdA, IdB, #{}), Id end || _ <- [1, 2, 3]],
    Join = fun() -> {ok, hole_punch, Id} = request(B, IdB, IdA, #{}), Id end,
    ?assertEqual(Third, Join()),
    ok = report(A, Third, IdA, success),
    ?assertEqual(Second, Join()),
    %% A retry or a new start does not make a session newer.
    ok = report(A, First, IdA),
    ok = cast(A, {coordinate_punch, IdA, IdB, #{session_id => First}}),
    ?assertEqual(Second, Join()),
    ok = report(A, Second, IdA, success),
    ?assertEqual(First, Join()),
    ok = report(A, First, IdA, success),
    New = Join(),
    ?assertNot(lists:member(New, Ids)),
    [#{initiator_id := IdB, target_id := IdA}] = pending(W, New).

not_joined(W) ->
    {A, IdA, B, IdB} = pair(W),
    put_profile(W, profile(IdA)),
    put_profile(W, profile(IdB, public)),
    {ok, direct, First} = request(A, IdA, IdB, #{}),
    {ok, direct, Second} = request(B, IdB, IdA, #{}),
    ?assertNotEqual(First, Second),
    %% Once the direct try has failed it is a hole punch, and can be joined whatever the profiles are now.
    ok = report(A, First, IdA),
    {ok, hole_punch, First} = request(B, IdB, IdA, #{allow_relay => false}),
    ok = report(A, First, IdA, success),
    {ok, direct, Third} = request(B, IdB, IdA, #{}),
    ?assertNot(lists:member(Third, [First, Second])),
    put_profile(W, profile(IdB, symmetric)),
    {ok, relay, Fourth} = request(A, IdA, IdB, #{}),
    {ok, relay, Fifth} = request(B, IdB, IdA, #{}),
    ?assertNotEqual(Fourth, Fifth).

allow_relay(W) ->
    {A, IdA, _, IdB} = pair(W),
    put_profile(W, profile(IdB, symmetric)),
    Before = length(call(W, get_pending)),
    ?assertEqual(#{relay_refused => 2}, changes(W, [relay_refused, relay, overloaded, bad_arguments], fun() ->
        [{error, relay_required} = request(A, IdA, IdB, #{allow_relay => false}) || _ <- [1, 2]]
    end)),
    ?assertEqual(Before, length(call(W, get_pending))),
    ok = silent(A),
    {ok, relay, _} = request(A, IdA, IdB, #{allow_relay => true}),
    put_profile(W, profile(IdB)),
    {ok, hole_punch, _} = request(A, IdA, IdB, #{allow_relay => false}).

coordinate_new(W) ->
    {A, IdA, B, IdB} = pair(W),
    Node = node_of(W),
    put_profile(W, profile(IdB, symmetric)),
    Given = [<<"x">>, id("given"), binary:copy(<<"long">>, 256), <<0, 255, 10>>],
    Opts = [#{notify => agent:pid(A)} | [#{notify => agent:pid(A), session_id => Id, max_punch_attempts => 0} || Id <- Given]],
    [begin
         Since = os:system_time(millisecond),
         ok = at(A, fun() -> rpc:call(Node, ?NAME, coordinate_punch, [IdA, IdB, O]) end),
         {Id, First} = at(A, fun() -> receive {punch_session, I, S} -> {I, S} after 30000 -> error(no_notification) end end),
         ?assertEqual(maps:get(session_id, O, Id), Id),
         ?assertEqual({hole_punch, pending, 0, none}, short(First)),
         ?assertEqual({hole_punch, coordinating, 0, none}, short(session(A, Id))),
         coordinated(W, Id, {A, IdA, unknown()}, {B, IdB, unknown()}, Since),
         [#{strategy := hole_punch, state := coordinating}] = pending(W, Id),
         ok = report(A, Id, IdA, case O of #{session_id := _} -> failure; #{} -> success end),
         ?assertEqual(case O of
                          #{session_id := _} -> {relay, failed, 0, unreachable};
                          #{} -> {hole_punch, completed, 0, success}
                      end, short(session(A, Id)))
     end || O <- Opts],
    %% A session that was made so can be joined.
    Id = id("joined"),
    ok = cast(A, {coordinate_punch, IdA, IdB, #{session_id => Id}}),
    ?assertMatch({ok, hole_punch, Id}, request(B, IdB, IdA, #{})),
    ok = report(A, Id, IdA, success).

coordinate_restart(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{max_punch_attempts => 1}),
    [_, _] = sessions(A, {Id, 2}),
    [coordinate(X) || X <- [A, B]],
    [begin
         Since = os:system_time(millisecond),
         %% Options of a session that lives change nothing but the watcher.
         ok = cast(B, {coordinate_punch, From, To, #{session_id => Id, max_punch_attempts => 100}}),
         coordinated(W, Id, {A, IdA, unknown()}, {B, IdB, unknown()}, Since)
     end || {From, To} <- [{IdA, IdB}, {IdB, IdA}]],
    %% Neither state nor attempts changed: there is nothing to tell.
    ok = silent(A),
    ok = report(A, Id, IdA),
    ?assertEqual({hole_punch, coordinating, 1, none}, short(session(A, Id))),
    ok = cast(B, {coordinate_punch, IdA, IdB, #{session_id => Id, notify => agent:pid(B)}}),
    ok = report(B, Id, IdB),
    ?assertEqual({relay, failed, 1, unreachable}, short(session(A, Id))),
    ?assertEqual({relay, failed, 1, unreachable}, short(session(B, Id))).

coordinate_pending(W) ->
    [begin
         {A, IdA, B, IdB} = pair(W),
         put_profile(W, profile(IdB, Kind)),
         {ok, Strategy, Id} = request(A, IdA, IdB, #{}),
         Since = os:system_time(millisecond),
         ok = cast(A, {coordinate_punch, IdA, IdB, #{session_id => Id}}),
         coordinated(W, Id, {A, IdA, unknown()}, {B, IdB, unknown()}, Since),
         ok = report(A, Id, IdA),
         ok = report(A, Id, IdA, success),
         ?assertEqual([{Strategy, pending, 0, none}, {hole_punch, coordinating, 0, none},
                       {hole_punch, coordinating, 1, none}, {hole_punch, completed, 1, success}], states(sessions(A, Id)))
     end || {Kind, Strategy} <- [{public, direct}, {symmetric, relay}]].

coordinate_ignored(W) ->
    {A, IdA, B, IdB} = pair(W),
    {ok, hole_punch, Id} = request(A, IdA, IdB, #{}),
    {ok, hole_punch, Ended} = request(A, IdA, IdB, #{}),
    ok = report(A, Ended, IdA, success),
    _ = sessions(A, Ended),
    _ = sessions(A, {Id, 2}),
    [coordinate(X) || X <- [A, B, A, B]],
    Before = call(W, get_pending),
    Keys = [bad_arguments, coordinate_ignored, coordinated, coordination_restarted],
    Node = node_of(W),
    Coordinate = fun(Arguments) ->
        changes(W, Keys, fun() ->
            [begin
                 ?assertEqual(ok, at(A, fun() -> rpc:call(Node, ?NAME, coordinate_punch, tuple_to_list(Args)) end)),
                 ok = cast(A, erlang:insert_element(1, Args, coordinate_punch))
             end || Args <- Arguments]
        end)
    end,
    Others = [{IdA, id("c"), #{session_id => Id}}, {id("c"), IdB, #{session_id => Id}}, {id("c"), id("d"), #{session_id => Id}}],
    ?assertEqual(#{coordinate_ignored => 6}, Coordinate(Others)),
    ?assertEqual(#{coordinate_ignored => 2}, Coordinate([{IdA, IdB, #{session_id => Ended}}])),
    Long = binary:copy(<<"x">>, 1025),
    Bad = [{id, IdB, #{}}, {IdA, "id", #{}}, {IdA, IdA, #{}}, {Long, IdB, #{}}, {IdA, Long, #{}}, {IdA, IdB, []}]
        ++ [{IdA, IdB, #{session_id => S}} || S <- [id, <<>>, Long, "id", undefined]]
        ++ [{IdA, IdB, #{session_id => Id, Key => Value}}
            || {Key, Value} <- [{max_punch_attempts, -1}, {punch_timeout_ms, 0}, {allow_relay, x}, {notify, x}]],
    ?assertEqual(#{bad_arguments => 2 * length(Bad)}, Coordinate(Bad)),
    ?assertEqual(Before, call(W, get_pending)),
    ok = silent(A),
    ok = silent(B).

shown_state(W) ->
    {A, IdA, _, IdB} = pair(W),
    put_profile(W, profile(IdB, public)),
    #{sessions := Before} = state(W),
    {ok, direct, First} = request(A, IdA, IdB, #{}),
    #{sessions := Pending} = state(W),
    ?assertEqual(Before#{pending := maps:get(pending, Before) + 1}, Pending),
    ok = report(A, First, IdA),
    #{sessions := #{coordinating := Coordinating} = Punch, waiting_for := Waiting, options := Options,
      strategy_rules := Rules} = state(W),
    ?assertEqual(Before#{coordinating := maps:get(coordinating, Before) + 1}, Punch),
    ?assertMatch(#{punch_time := Coordinating, results := 0}, Waiting),
    ?assertEqual(#{punch_timeout_ms => 3600000, max_punch_attempts => 3, coordination_delay_ms => ?SLOW_DELAY,
                   lookup_timeout_ms => 2000, profile_cache_ttl_ms => 2000, session_ttl_s => 300,
                   max_sessions => 1000000}, Options),
    ?assertEqual(documented, Rules),
    ok = report(A, First, IdA, success),
    #{sessions := #{ended := Ended} = After} = state(W),
    ?assert(Ended >= 1),
    ?assertEqual(maps:remove(ended, Before), maps:remove(ended, After)).

%%%-------------------------------------------------------------------
%%% Three sessions at most
%%%-------------------------------------------------------------------

small() ->
    [{"the oldest that nobody will report on makes room", fun evicted/1},
     {"hole punches stay, and then there is no room", fun overloaded/1}].

evicted(W) ->
    {A, IdA, _, _} = pair(W),
    Targets = [begin
                   Id = id("target"),
                   put_profile(W, profile(Id, Kind)),
                   Id
               end || Kind <- [public, symmetric, public, symmetric, public]],
    Live = fun() -> [I || #{session_id := I} <- call(W, get_pending)] end,
    ?assertEqual([], Live()),
    Changed = changes(W, [evicted, overloaded], fun() ->
        lists:foldl(fun(Target, Last) ->
            {ok, _, Id} = request(A, IdA, Target, #{}),
            Now = lists:sublist([Id | Last], 3),
            ?assertEqual(Now, Live()),
            #{state := pending} = session(A, Id),
            Now
        end, [], Targets)
    end),
    ?assertEqual(#{evicted => 2}, Changed),
    %% Nobody is told that a session was dropped, and nobody knows it any more.
    ok = silent(A),
    [ok = report(A, Id, IdA, success) || Id <- Live()],
    ?assertEqual([], Live()).

overloaded(W) ->
    {A, IdA, B, IdB} = pair(W),
    Public = id("public"),
    put_profile(W, profile(Public, public)),
    {ok, direct, Direct} = request(A, IdA, Public, #{}),
    [First, Second, Third] = [begin {ok, hole_punch, Id} = request(A, IdA, IdB, #{}), Id end || _ <- [1, 2, 3]],
    Live = fun() -> [I || #{session_id := I} <- call(W, get_pending)] end,
    ?assertEqual([Third, Second, First], Live()),
    _ = [session(A, Id) || Id <- [Direct, First, First, Second, Second, Third, Third]],
    ?assertEqual(#{overloaded => 2, coordinate_ignored => 1}, changes(W, [overloaded, coordinate_ignored, evicted], fun() ->
        {error, overloaded} = request(A, IdA, IdB, #{}),
        {error, overloaded} = request(A, IdA, Public, #{}),
        ok = cast(A, {coordinate_punch, IdA, IdB, #{notify => agent:pid(A)}})
    end)),
    %% To join, to start anew and to report need no room.
    {ok, hole_punch, Third} = request(B, IdB, IdA, #{}),
    ok = cast(A, {coordinate_punch, IdA, IdB, #{session_id => First}}),
    ok = report(A, Second, IdA, success),
    ?assertEqual({hole_punch, completed, 0, success}, short(session(A, Second))),
    ?assertEqual([Third, First], Live()),
    %% One that has ended does not count.
    {ok, direct, Another} = request(A, IdA, Public, #{}),
    ?assertEqual([Another, Third, First], Live()),
    {ok, hole_punch, Last} = request(A, IdA, IdB, #{}),
    ?assertEqual([Last, Third, First], Live()).
