%% SPDX-License-Identifier: Apache-2.0
%% @doc A property of the running program: whatever is asked, reported and attached in whatever order, what comes back is
%% what {@link coordinator_model} says.
%%
%% The commands are PropEr's (proper_statem). Each one sends something, waits until the program has handled it, and
%% answers all that was received meanwhile. Timers may run out at any time; no command guesses whether one has, and
%% `await' waits for what a timer must bring. With the program suspended several requests are handled in one go.
%%
%% Commands name sessions by their place in the order of their making, not by a value of an earlier command, so that PropEr
%% can leave out any of them when it looks for a smaller counterexample.
-module(prop_coordinator).
-behaviour(proper_statem).

-export([world/2, check/3]).
-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([step/1, suspend/0, resume/0, await/1]).

-export_type([world/0]).

-type world() :: #{node := node(), timers := boolean(), max_sessions := pos_integer()}.
-type failure() :: #{seed := tuple(), counterexample := term(), text := iolist()}.

-define(NAME, macula_nat_coordinator).
-define(LIMIT, 30000).
-define(PEERS, [<<"a">>, <<"b">>, <<"c">>, <<"d">>, <<"e">>, <<"f">>, <<"g">>]).
-define(STRANGERS, [<<"x">>, <<"y">>, <<>>]).

%%%-------------------------------------------------------------------
%%% The property
%%%-------------------------------------------------------------------

%% @doc Make what the model must know of a program that runs with the given options: to be called on the node that also runs
%% {@link check/3}. The peers' profiles are put into the program's cache.
-spec world(node(), map()) -> coordinator_model:world().
world(Node, Options) ->
    Options#{node => Node, max_punch_attempts => 1,
             profiles => maps:from_list([{Id, put_profile(Node, Id, Profile)} || {Id, Profile} <- profiles()])}.

put_profile(Node, Id, Profile) ->
    Whole = maps:merge(#{node_id => Id, mapping_policy => hd, filtering_policy => pd, allocation_policy => pp,
                         can_receive_unsolicited => false, requires_relay => false, relay_capable => false}, Profile),
    ok = gen_server:cast({macula_nat_cache, Node}, {put, Id, Whole, 86400}),
    {ok, Stored, fresh} = gen_server:call({macula_nat_cache, Node}, {get, Id}),
    Stored.

%% `a' is known as punchable, and nothing is known of `b': most requests are between these.
profiles() ->
    [{<<"a">>, #{reflexive_address => {{192, 0, 2, 1}, 1000}}},
     {<<"c">>, #{allocation_policy => pc, port_delta => 2, reflexive_address => {{8193, 3512, 0, 0, 0, 0, 0, 3}, 65533}}},
     {<<"d">>, #{mapping_policy => ei, filtering_policy => ei, can_receive_unsolicited => true}},
     {<<"e">>, #{mapping_policy => pd, allocation_policy => rd, requires_relay => true}},
     {<<"f">>, #{mapping_policy => ei, filtering_policy => ei, allocation_policy => rd}},
     {<<"g">>, #{allocation_policy => rd, reflexive_address => {{192, 0, 2, 7}, 7000}}}].

%% @doc Run a number of random sequences of commands against the program. The same seed gives the same sequences.
-spec check(coordinator_model:world(), pos_integer(), {integer(), integer(), integer()}) -> ok | {failed, failure()}.
check(World, Tests, Seed) ->
    Self = self(),
    %% PropEr keeps its state in the process dictionary, the random numbers' too.
    {_, Monitor} = spawn_monitor(fun() ->
        _ = rand:seed(exsplus, Seed),
        Self ! {self(), run(World, Tests, Seed)}
    end),
    receive
        {_, Result} when Result =:= ok; element(1, Result) =:= failed -> demonitor(Monitor, [flush]), Result;
        {'DOWN', Monitor, process, _, Reason} -> {failed, #{seed => Seed, counterexample => none, text => io_lib:format("~tp", [Reason])}}
    end.

run(World, Tests, Seed) ->
    Parent = self(),
    put(helper, spawn_link(fun() -> helper(Parent) end)),
    put(sink, spawn_link(fun sink/0)),
    Start = #{world => World, models => [coordinator_model:new(World)]},
    Property = proper:forall(proper_statem:commands(?MODULE, Start), fun(Commands) ->
        %% This PropEr asks for a stack trace in a way that OTP 24 and later no longer know: no exception may reach it.
        try holds(World, Commands) of
            ok -> true;
            Text -> put(text, Text), false
        catch Class:Reason:Stack ->
            put(text, io_lib:format("~0tp:~0tp~n~tp", [Class, Reason, Stack])),
            false
        end
    end),
    case proper:quickcheck(Property, [{numtests, Tests}, {on_output, fun(_, _) -> ok end}]) of
        true -> ok;
        Failed -> {failed, #{seed => Seed, counterexample => commands(proper:counterexample(), Failed), text => get(text)}}
    end.

holds(World, Commands) ->
    begin_run(World),
    {History, _State, Result} = proper_statem:run_commands(?MODULE, Commands),
    case end_run() of
        [] when Result =:= ok -> ok;
        Left -> explain(History, Result, Left)
    end.

%% Without the state that PropEr starts from.
commands([[{init, _} | Commands]], _) -> [Call || {set, _, {call, _, Name, Arguments}} <- Commands, Call <- [{Name, Arguments}]];
commands(Other, Failed) -> {Failed, Other}.

explain(History, Result, Left) ->
    {Models, Last} = case History of
                         [] -> {[], none};
                         _ -> {#{models := Possible}, Got} = lists:last(History), {Possible, Got}
                     end,
    io_lib:format("~0tP~nmodels before the last command:~n~tp~nwhat it did:~n~tp~nsessions left over: ~tp~n",
                  [Result, 60, [coordinator_model:show(Model) || Model <- Models], Last, Left]).

%%%-------------------------------------------------------------------
%%% The callbacks of proper_statem
%%%-------------------------------------------------------------------

%% @private
initial_state() ->
    error(needs_a_world).

%% Always the same type, which takes long to make.
%% @private
command(#{world := World}) ->
    case get(command) of
        undefined -> put(command, command_type(World)), get(command);
        Type -> Type
    end.

command_type(#{timers := Timers}) ->
    Op = op(),
    proper_types:weighted_union(
        [{12, {call, ?MODULE, step, [Op]}},
         {1, {call, ?MODULE, suspend, []}},
         {2, {call, ?MODULE, resume, []}}
         | [{4, {call, ?MODULE, await, [session()]}} || Timers]]).

%% @private
precondition(_, _) ->
    true.

%% @private
postcondition(#{models := Models}, _Call, Result) ->
    after_step(Models, Result) =/= [].

%% @private
next_state(State, {var, _}, _Call) ->
    State;
next_state(#{models := Models} = State, Result, _Call) ->
    State#{models := after_step(Models, Result)}.

after_step(_, #{nothing_came := _}) -> [];
after_step(Models, #{ops := Ops, observed := Observed}) -> coordinator_model:step(Models, Ops, Observed);
after_step(Models, #{}) -> Models.

op() ->
    proper_types:weighted_union(
        [{8, {request, pair(), opts([allow_relay])}},
         {10, {report, session(), reporter(), proper_types:weighted_union([{8, failure}, {2, success}, {1, maybe_so}])}},
         {4, {coordinate, peers(), named(), opts([])}},
         {2, {attach, watcher(), peer()}},
         {1, {detach, watcher(), peer()}},
         {1, get_pending}]).

peer() ->
    proper_types:weighted_union([{6, <<"a">>}, {6, <<"b">>} | [{1, Peer} || Peer <- ?PEERS]]).

pair() ->
    proper_types:weighted_union(
        [{6, {<<"a">>, <<"b">>}}, {6, {<<"b">>, <<"a">>}}, {8, {peer(), peer()}},
         {1, {proper_types:union([id, <<1:3>>, binary:copy(<<"x">>, 1025)]), peer()}}, {1, {peer(), "b"}}]).

%% The peers of the session that is named with it, in either order, or any others.
peers() ->
    proper_types:weighted_union([{4, in_order}, {2, swapped}, {2, pair()}]).

%% The newest of the sessions that were made have the smallest numbers.
session() ->
    proper_types:weighted_union([{4, 0}, {2, 1}, {2, proper_types:range(0, 5)}, {1, unknown}]).

named() ->
    proper_types:weighted_union([{6, session()}, {2, {given, proper_types:range(1, 3)}}, {1, none}, {1, <<>>}, {1, id}]).

reporter() ->
    proper_types:weighted_union([{4, initiator}, {4, target}, {2, proper_types:union(?STRANGERS)}, {1, peer()}, {1, me}]).

watcher() ->
    proper_types:weighted_union([{3, d}, {2, m}]).

%% Options with a watcher and with any of the others or none, sometimes one of them wrong.
opts(More) ->
    Good = [{max_punch_attempts, [0, 1, 2, 3]}, {punch_timeout_ms, [1]} | [{Key, [true, false]} || Key <- More]],
    Maps = lists:foldl(fun({Key, Values}, Maps) -> Maps ++ [Map#{Key => Value} || Map <- Maps, Value <- Values] end,
                       [#{}], Good),
    Bad = [#{Key => Value} || {Key, Value} <- [{max_punch_attempts, -1}, {punch_timeout_ms, 0}, {allow_relay, 1}]],
    proper_types:weighted_union(
        [{12, proper_types:elements([Map#{notify => d} || Map <- Maps])},
         {4, proper_types:elements([Map#{notify => m} || Map <- Maps])},
         {1, proper_types:elements([#{notify => nobody} | [Map#{notify => d} || Map <- Bad]])},
         {1, no_map}]).

%%%-------------------------------------------------------------------
%%% The commands
%%%-------------------------------------------------------------------

%% @doc One op. While the program is suspended it is only sent.
-spec step(term()) -> map().
step(Symbolic) ->
    Op = concrete(Symbolic),
    case get(suspended) of
        no ->
            send(1, Op),
            observe([Op], []);
        Ops ->
            send(length(Ops) + 1, Op),
            put(suspended, Ops ++ [Op]),
            #{sent => Op}
    end.

%% @doc Suspend the program.
-spec suspend() -> map().
suspend() ->
    case get(suspended) of
        no ->
            system(suspend),
            put(suspended, []),
            #{};
        _ ->
            #{}
    end.

%% @doc Let the program handle all that was sent while it was suspended.
-spec resume() -> map().
resume() ->
    case put(suspended, no) of
        no ->
            #{};
        Ops ->
            system(resume),
            observe(Ops, [])
    end.

%% @doc If the punch time of a session is still to come: wait until it has come.
-spec await(term()) -> map().
await(Symbolic) ->
    {Id, _, _} = session(Symbolic),
    case {get(suspended), get(running)} of
        {no, #{Id := true}} -> await(Id, []);
        {no, #{}} -> observe([], []);
        _ -> #{}
    end.

await(Id, Before) ->
    receive
        {punch_session, Id, _} = Event -> observe([], lists:reverse(Before, [Event]));
        Event -> await(Id, [Event | Before])
    after ?LIMIT -> #{ops => [], nothing_came => Id, events => Before}
    end.

name() ->
    #{node := Node} = get(world),
    {?NAME, Node}.

%% What the symbols in an op stand for.
concrete({request, {I, T}, Opts}) ->
    {request, I, T, Opts};
concrete({report, Session, Reporter, Value}) ->
    {Id, I, T} = session(Session),
    {report, Id, case Reporter of initiator -> I; target -> T; _ -> Reporter end, Value};
concrete({coordinate, Peers, Named, Opts}) ->
    {Id, I, T} = session(case is_symbol(Named) of true -> Named; false -> 0 end),
    {A, B} = case Peers of in_order -> {I, T}; swapped -> {T, I}; Pair -> Pair end,
    {coordinate, A, B,
     case Opts of
         #{} when Named =:= none -> Opts;
         #{} -> Opts#{session_id => case is_symbol(Named) of true -> Id; false -> session_id(Named) end};
         _ -> Opts
     end};
concrete(Op) ->
    Op.

session_id({given, N}) -> given(integer_to_list(N));
session_id(Other) -> Other.

is_symbol(Named) ->
    Named =:= unknown orelse is_integer(Named).

%% An id that no other run has used: the program remembers sessions that have ended for a while.
given(Name) ->
    iolist_to_binary(io_lib:format("~s in run ~b", [Name, get(run)])).

session(N) when is_integer(N), N >= 0 ->
    case get(sessions) of
        [] -> session(unknown);
        Sessions -> lists:nth(1 + N rem length(Sessions), Sessions)
    end;
session(unknown) ->
    {given("unknown"), <<"a">>, <<"b">>}.

send(N, {request, I, T, Opts}) ->
    call(N, d, {request_connection, I, T, pids(Opts)});
send(_, {coordinate, I, T, Opts}) ->
    gen_server:cast(name(), {coordinate_punch, I, T, pids(Opts)});
send(_, {report, Id, Reporter, Value}) ->
    gen_server:cast(name(), {report_result, Id, Reporter, Value});
send(N, {attach, Who, Peer}) ->
    call(N, Who, {attach_peer, Peer});
send(N, {detach, Who, Peer}) ->
    call(N, Who, {detach_peer, Peer});
send(N, get_pending) ->
    call(N, d, get_pending).

%% A call whose answer is a message like any other, so that its place among them is seen.
call(N, Who, Request) ->
    name() ! {'$gen_call', {pid(Who), {reply, N}}, Request},
    ok.

pid(d) -> self();
pid(m) -> get(helper).

pids(#{notify := Who} = Opts) when Who =:= d; Who =:= m -> Opts#{notify := pid(Who)};
pids(Opts) -> Opts.

%%%-------------------------------------------------------------------
%%% What is observed
%%%-------------------------------------------------------------------

%% No timer runs while the program is suspended: what both processes were sent until then belongs together, and to the
%% counters that are read then.
observe(Ops, Before) ->
    system(suspend),
    system(d, get_state),
    system(m, get_state),
    {Events, #{sessions := Live} = State} = until_state([]),
    Counters = counters(State),
    Helper = get(helper),
    Collected = receive {Helper, Told} -> Told end,
    Till = os:system_time(millisecond),
    system(resume),
    D = [seen(Event) || Event <- Before ++ Events],
    M = [seen(Event) || Event <- Collected],
    Base = get(base),
    lists:foreach(fun learn_session/1, D ++ M),
    lists:foreach(fun learn_state/1, D),
    Swept = maps:get(swept_ended, Counters),
    Observed = #{d => D, m => M, from => get(from), till => Till, swept => Swept =/= get(swept),
                 counters => maps:from_list([{Key, maps:get(Key, Counters) - maps:get(Key, Base)}
                                             || Key <- coordinator_model:counters()]),
                 live => maps:with([pending, coordinating, executing], Live)},
    put(swept, Swept),
    %% What comes next comes after this.
    put(from, Till),
    #{ops => Ops, observed => Observed}.

%% Whether this node has a connector is asked once in a while: until the answer is there, what has no mailbox is under way.
counters(#{counters := #{undelivered := Undelivered} = Counters, waiting_for := #{deliveries := UnderWay}}) ->
    Counters#{undelivered := Undelivered + UnderWay}.

seen({{reply, N}, Reply}) -> {reply, N, Reply};
seen(Event) -> Event.

%% Which sessions there are, and which of them have a timer running that will be heard of here. Nothing else is looked at.
learn_session({punch_session, Id, #{initiator_id := I, target_id := T}}) ->
    Sessions = get(sessions),
    lists:keymember(Id, 1, Sessions) orelse put(sessions, [{Id, I, T} | Sessions]);
learn_session(_) ->
    ok.

learn_state({punch_session, Id, #{state := State}}) ->
    #{timers := Timers} = get(world),
    Running = maps:remove(Id, get(running)),
    put(running, case State of coordinating when Timers -> Running#{Id => true}; _ -> Running end);
learn_state(_) ->
    ok.

%% The answers to suspend and resume are nobody's business.
system(Request) ->
    name() ! {system, {get(sink), ok}, Request},
    ok.

system(Who, Request) ->
    name() ! {system, {pid(Who), state}, Request},
    ok.

until_state(Events) ->
    receive
        {state, {ok, State}} -> {lists:reverse(Events), State}; % from OTP 26.1 on
        {state, State} -> {lists:reverse(Events), State};
        Event -> until_state([Event | Events])
    end.

sink() ->
    receive _ -> sink() end.

%% The process `m': hands on what it was sent until it was sent the state.
helper(Parent) ->
    {Events, _} = until_state([]),
    Parent ! {self(), Events},
    helper(Parent).

%%%-------------------------------------------------------------------
%%% The begin and the end of a sequence
%%%-------------------------------------------------------------------

begin_run(World) ->
    put(world, World),
    put(run, erlang:unique_integer([positive])),
    put(sessions, []),
    put(running, #{}),
    put(suspended, no),
    put(from, os:system_time(millisecond)),
    system(d, get_state),
    {[], State} = until_state([]),
    Base = counters(State),
    put(base, Base),
    put(swept, maps:get(swept_ended, Base)).

%% Ends every session and detaches every peer; answers the sessions that do not go.
end_run() ->
    _ = resume(),
    lists:foreach(fun(#{session_id := Id}) -> gen_server:cast(name(), {report_result, Id, <<>>, success}) end,
                  gen_server:call(name(), get_pending)),
    [ok = call(0, Who, {detach_peer, Peer}) || Who <- [d, m], Peer <- ?PEERS],
    Left = gen_server:call(name(), get_pending),
    _ = observe([], []),
    Left.
