%% SPDX-License-Identifier: Apache-2.0
%% @doc What the coordinator must do with its sessions, written down a second time and in another way: as a pure function
%% from what was sent to what may have come back.
%%
%% Two processes watch: `d', which also asks, and `m'. An observation is all that both received, in order, during a step,
%% and the counters afterwards. Timers run in the program while requests are on their way, so one step can have more than
%% one history; as each timer tells the watchers something, the observation says which one it was. {@link step/3} takes all
%% models that are still possible, plays every history of the step, and answers those models whose story is exactly the
%% observed one. None left: the program did what no model does.
-module(coordinator_model).

-export([new/1, step/3, counters/0, show/1]).

-export_type([world/0, model/0, op/0, observed/0]).

-type watcher() :: d | m.
-type id() :: binary().
-type world() :: #{
    delay := non_neg_integer(),      % coordination delay in milliseconds
    timers := boolean(),             % whether punch times come at all
    max_sessions := pos_integer(),
    max_punch_attempts := non_neg_integer(),
    profiles := #{id() => map()}     % as the program shows them
}.
-type op() ::
    {request, term(), term(), term()}
    | {coordinate, term(), term(), term()}
    | {report, term(), term(), term()}
    | {attach | detach, watcher(), id()}
    | get_pending.
-type observed() :: #{
    d := [term()], m := [term()],    % `{reply, N, Term}' answers the Nth op of the step
    counters := #{atom() => integer()},
    live := #{atom() => non_neg_integer()},
    swept := boolean(),              % sessions that have ended were forgotten in this step
    from := integer(), till := integer() % unix milliseconds
}.

-record(session, {
    id, initiator, target, strategy, state = pending, attempts = 0, max, short, watchers, created, result = none,
    failures = #{initiator => 0, target => 0, third => 0}
}).
-record(model, {
    world :: world(),
    sessions = [],                   % newest first, those that have ended too
    holders = #{},                   % of mailboxes
    counters = #{}
}).

-opaque model() :: #model{}.

%% @doc The counters that the model knows.
-spec counters() -> [atom()].
counters() ->
    [requests, direct, hole_punch, relay, joined, relay_refused, overloaded, bad_arguments, coordinated,
     coordination_restarted, coordinate_ignored, delivered_to_mailboxes, undelivered, reports,
     reports_repeated, reports_ended, reports_unknown, reports_bad, retries, completed, failed_timeout,
     failed_unreachable, evicted, notified].

%% @doc A coordinator without sessions.
-spec new(world()) -> model().
new(World) ->
    #model{world = World}.

%% @doc What a model knows, for a person.
-spec show(model()) -> #{sessions := [map()], holders := map(), counters := map()}.
show(#model{sessions = Sessions, holders = Holders, counters = Counters}) ->
    Fields = record_info(fields, session),
    #{sessions => [maps:from_list(lists:zip(Fields, tl(tuple_to_list(S)))) || S <- Sessions], holders => Holders,
      counters => Counters}.

%% @doc The models that are possible after the ops of a step, given what was observed.
-spec step([model()], [op()], observed()) -> [model()].
step(Models, Ops, Observed) ->
    Numbered = lists:zip(lists:seq(1, length(Ops)), Ops),
    Before = lists:append([forget(Model, Observed) || Model <- Models]),
    After = lists:append([explore(Model, Numbered, Observed) || Model <- Before]),
    lists:usort([M || Model <- After, fits(Model, Observed), M <- forget(Model, Observed)]).

%% A sweep comes somewhere in the step.
forget(Model, #{swept := false}) ->
    [Model];
forget(#model{sessions = Sessions} = Model, #{swept := true}) ->
    [Model, Model#model{sessions = [S || S <- Sessions, is_live(S)]}].

fits(#model{sessions = Sessions, counters = Counters}, #{counters := Seen, live := Live}) ->
    lists:all(fun(Key) -> maps:get(Key, Counters, 0) =:= maps:get(Key, Seen) end, counters()) andalso
        lists:all(fun({State, Count}) -> length([x || #session{state = S} <- Sessions, S =:= State]) =:= Count end,
                  maps:to_list(Live)).

%% Either the next op is handled now, or the timer of a session that is told of next runs out before it.
explore(Model, [], #{d := [], m := []}) ->
    [Model];
explore(Model, Ops, Seen) ->
    Timed = [{M, Ops, S} || Id <- told_next(Seen), {M, S} <- timer(find(Id, Model), Model, Seen)],
    Handled = case Ops of
                  [{N, Op} | Later] -> [{M, Later, S} || {M, S} <- op(Op, N, Model, Seen)];
                  [] -> []
              end,
    lists:append([explore(M, Left, S) || {M, Left, S} <- Timed ++ Handled]).

told_next(#{d := D, m := M}) ->
    lists:usort([Id || [Event | _] <- [D, M], Id <- told_of(Event)]).

told_of({punch_session, Id, _}) -> [Id];
told_of({punch_coordinate, #{session_id := Id}}) -> [Id];
told_of(_) -> [].

%%%-------------------------------------------------------------------
%%% What happens. Each answers the model afterwards and what is left to explain, or nothing where the story is another.
%%%-------------------------------------------------------------------

timer(#session{state = coordinating} = S, #model{world = #{timers := true}} = Model, Seen) ->
    told(S#session{state = executing}, Model, Seen);
timer(#session{state = executing, short = true, attempts = Attempts} = S, Model, Seen) ->
    Failures = #{initiator => Attempts + 1, target => Attempts + 1, third => Attempts + 1},
    attempt_failed(S#session{failures = Failures}, timeout, Model, Seen);
timer(_, _, _) ->
    [].

op({request, I, T, Opts}, N, Model0, Seen) ->
    Model = count(requests, Model0),
    case bad_argument(I, T, Opts, []) of
        none -> request(I, T, Opts, N, Model, Seen);
        Which -> reply(N, {error, {bad_argument, Which}}, count(bad_arguments, Model), Seen)
    end;
op({coordinate, I, T, Opts}, _N, Model, Seen) ->
    case bad_argument(I, T, Opts, [session_id]) of
        none -> coordinate_punch(I, T, Opts, find(maps:get(session_id, Opts, none), Model), Model, Seen);
        _ -> [{count(bad_arguments, Model), Seen}]
    end;
op({report, Id, Reporter, _}, _N, Model, Seen) when not is_binary(Id); not is_binary(Reporter) ->
    [{count(bad_arguments, Model), Seen}];
op({report, _, _, Value}, _N, Model, Seen) when Value =/= success, Value =/= failure ->
    [{count(reports_bad, Model), Seen}];
op({report, Id, Reporter, Value}, _N, Model, Seen) ->
    report(find(Id, Model), Reporter, Value, Model, Seen);
op({attach, Who, Peer}, N, #model{holders = Holders} = Model, Seen) ->
    Attached = Model#model{holders = Holders#{Peer => Who}},
    Detached = case Holders of
                   #{Peer := Other} when Other =/= Who -> take(Other, {detached, Peer}, Attached, Seen);
                   #{} -> [{Attached, Seen}]
               end,
    then(Detached, fun(M, S) -> take(Who, {reply, N, ok}, M, S) end);
op({detach, Who, Peer}, N, #model{holders = Holders} = Model, Seen) ->
    Left = maps:filter(fun(Id, Holder) -> {Id, Holder} =/= {Peer, Who} end, Holders),
    take(Who, {reply, N, ok}, Model#model{holders = Left}, Seen);
op(get_pending, N, #model{sessions = Sessions} = Model, Seen) ->
    reply(N, [show(S, Model) || S <- Sessions, is_live(S)], Model, Seen).

request(I, T, #{notify := Watcher} = Opts, N, #model{sessions = Sessions} = Model, Seen) ->
    Strategy = strategy(profile(I, Model), profile(T, Model)),
    case [S || #session{initiator = Initiator, target = Target, strategy = hole_punch} = S <- Sessions, is_live(S),
               Initiator =:= T, Target =:= I] of
        [#session{id = Id} = Newest | _] ->
            Joined = count(joined, count(hole_punch, keep(watch(Watcher, Newest), Model))),
            reply(N, {ok, hole_punch, Id}, Joined, Seen);
        [] when Strategy =:= relay, not is_map_key(allow_relay, Opts);
                Strategy =:= relay, map_get(allow_relay, Opts);
                Strategy =/= relay ->
            case has_room(Model) of
                true -> answered(I, T, Strategy, Opts, N, Model, Seen);
                false -> reply(N, {error, overloaded}, count(overloaded, Model), Seen)
            end;
        [] ->
            reply(N, {error, relay_required}, count(relay_refused, Model), Seen)
    end.

answered(I, T, Strategy, Opts, N, Model, #{d := [{reply, N, {ok, Strategy, Id}} | Left]} = Seen) ->
    case is_new_id(Id, Model) of
        true -> create(Id, I, T, Strategy, Opts, count(Strategy, Model), Seen#{d := Left});
        false -> []
    end;
answered(_, _, _, _, _, _, _) ->
    [].

is_new_id(Id, Model) ->
    byte_size(Id) =:= 24 andalso byte_size(base64:decode(Id)) =:= 16 andalso find(Id, Model) =:= none.

%% Without an id of its own the new session has the one that its watcher is told of first.
coordinate_punch(I, T, #{notify := Watcher} = Opts, none, Model, Seen) ->
    case {has_room(Model), Opts} of
        {false, _} -> [{count(coordinate_ignored, Model), Seen}];
        {true, #{session_id := Id}} -> create(Id, I, T, hole_punch, Opts, count(coordinated, Model), Seen);
        {true, #{}} ->
            case [Id || {punch_session, Id, #{state := pending}} <- maps:get(Watcher, Seen), find(Id, Model) =:= none] of
                [Id | _] ->
                    [Made || is_new_id(Id, Model),
                             Made <- create(Id, I, T, hole_punch, Opts, count(coordinated, Model), Seen)];
                [] ->
                    []
            end
    end;
coordinate_punch(I, T, #{notify := Watcher}, #session{initiator = A, target = B, state = State, attempts = N} = S, Model, Seen) ->
    case is_live(S) andalso lists:sort([I, T]) =:= lists:sort([A, B]) of
        true ->
            Anew = (watch(Watcher, S))#session{strategy = hole_punch, state = coordinating,
                                               failures = #{initiator => N, target => N, third => N}},
            Sent = coordinate(Anew, count(coordination_restarted, Model), Seen),
            case State of
                coordinating -> Sent;
                _ -> then(Sent, fun(M, Left) -> told(Anew, M, Left) end)
            end;
        false ->
            [{count(coordinate_ignored, Model), Seen}]
    end.

%% The session is told of as pending, and a hole punch goes on at once.
create(Id, I, T, Strategy, #{notify := Watcher} = Opts, #model{sessions = Sessions, world = World} = Model, Seen) ->
    S = #session{id = Id, initiator = I, target = T, strategy = Strategy, watchers = [Watcher],
                 max = maps:get(max_punch_attempts, Opts, maps:get(max_punch_attempts, World)),
                 short = is_map_key(punch_timeout_ms, Opts), created = created(Id, Watcher, Seen)},
    New = told(S, Model#model{sessions = [S | Sessions]}, Seen),
    Gone = case Strategy of
               hole_punch ->
                   Coordinating = S#session{state = coordinating},
                   then(then(New, fun(M, Left) -> coordinate(Coordinating, M, Left) end),
                        fun(M, Left) -> told(Coordinating, M, Left) end);
               _ ->
                   New
           end,
    [{evict(M), Left} || {M, Left} <- Gone].

created(Id, Watcher, #{from := From, till := Till} = Seen) ->
    case [Created || {punch_session, I, #{created_at := Created}} <- maps:get(Watcher, Seen), I =:= Id] of
        [Created | _] when is_integer(Created), Created >= From div 1000, Created =< Till div 1000 -> Created;
        _ -> wrong
    end.

report(none, _, _, Model, Seen) ->
    [{count(reports_unknown, Model), Seen}];
report(#session{state = State}, _, _, Model, Seen) when State =:= completed; State =:= failed ->
    [{count(reports_ended, Model), Seen}];
report(S, _, success, Model, Seen) ->
    Ended = S#session{state = completed, result = success},
    told(Ended, count(completed, count(reports, Model)), Seen);
report(#session{initiator = I, target = T, attempts = Attempts, failures = Failures} = S, Reporter, failure, Model, Seen) ->
    Role = case Reporter of
               I -> initiator;
               T -> target;
               _ -> third
           end,
    About = maps:get(Role, Failures),
    Reported = S#session{failures = Failures#{Role := About + 1}},
    case {About =:= Attempts, S#session.state} of
        {false, _} -> [{count(reports_repeated, keep(Reported, Model)), Seen}];
        {true, pending} -> pending_failed(Reported, count(reports, Model), Seen);
        {true, _} -> attempt_failed(Reported, unreachable, count(reports, Model), Seen)
    end.

pending_failed(#session{initiator = I, target = T, strategy = direct, max = Max} = S, Model, Seen) when Max > 0 ->
    case after_direct(profile(I, Model), profile(T, Model)) of
        hole_punch -> retry(S, Model, Seen);
        relay -> failed(S, unreachable, Model, Seen)
    end;
pending_failed(S, Model, Seen) ->
    failed(S, unreachable, Model, Seen).

attempt_failed(#session{attempts = Attempts, max = Max} = S, _, Model, Seen) when Attempts < Max ->
    retry(S, Model, Seen);
attempt_failed(S, Why, Model, Seen) ->
    failed(S#session{strategy = relay}, Why, Model, Seen).

retry(#session{attempts = Attempts} = S, Model, Seen) ->
    Next = S#session{attempts = Attempts + 1, state = coordinating, strategy = hole_punch},
    then(coordinate(Next, count(retries, Model), Seen), fun(M, Left) -> told(Next, M, Left) end).

failed(S, Why, Model, Seen) ->
    Counter = case Why of timeout -> failed_timeout; unreachable -> failed_unreachable end,
    told(S#session{state = failed, result = Why}, count(Counter, Model), Seen).

%%%-------------------------------------------------------------------
%%% What is told
%%%-------------------------------------------------------------------

then(Stories, Fun) ->
    lists:append([Fun(Model, Seen) || {Model, Seen} <- Stories]).

take(To, Event, Model, Seen) ->
    case Seen of
        #{To := [Event | Left]} -> [{Model, Seen#{To := Left}}];
        #{} -> []
    end.

reply(N, Reply, Model, Seen) ->
    take(d, {reply, N, Reply}, Model, Seen).

%% The session stands as given, and its watchers are told so.
told(#session{id = Id, watchers = Watchers} = S, Model, Seen) ->
    lists:foldl(fun(Watcher, Stories) ->
        then(Stories, fun(M, Left) -> take(Watcher, {punch_session, Id, show(S, M)}, count(notified, M), Left) end)
    end, [{keep(S, Model), Seen}], Watchers).

%% Both peers are sent on their way, for the same instant; what is for a peer without a mailbox is dropped.
coordinate(#session{id = Id, initiator = I, target = T} = S, #model{holders = Holders} = Model, Seen) ->
    Times = [Time || #{I := Holder} <- [Holders], Time <- punch_times(Id, Holder, Seen)]
        ++ [Time || #{T := Holder} <- [Holders], Time <- punch_times(Id, Holder, Seen)],
    Time = case Times of [First | _] -> First; [] -> none end,
    lists:foldl(fun({Role, Peer, Other}, Stories) ->
        then(Stories, fun(M, Left) ->
            {Host, Ports} = contact(profile(Other, M)),
            Info = #{session_id => Id, peer_id => Other, peer_host => Host, peer_ports => Ports, punch_time => Time,
                     role => Role},
            case Holders of
                #{Peer := Holder} -> take(Holder, {punch_coordinate, Info}, count(delivered_to_mailboxes, M), Left);
                #{} -> [{count(undelivered, M), Left}]
            end
        end)
    end, [{keep(S, Model), Seen} || is_due(Time, Model, Seen)], [{initiator, I, T}, {target, T, I}]).

punch_times(Id, Holder, Seen) ->
    [Time || {punch_coordinate, #{session_id := I, punch_time := Time}} <- maps:get(Holder, Seen), I =:= Id].

is_due(none, _, _) ->
    true;
is_due(Time, #model{world = #{delay := Delay}}, #{from := From, till := Till}) ->
    is_integer(Time) andalso Time - Delay >= From andalso Time - Delay =< Till.

show(#session{id = Id, initiator = I, target = T} = S, Model) ->
    Shown = #{session_id => Id, initiator_id => I, target_id => T, initiator_profile => profile(I, Model),
              target_profile => profile(T, Model), strategy => S#session.strategy, state => S#session.state,
              attempts => S#session.attempts, created_at => S#session.created},
    case S#session.result of
        none -> Shown;
        Result -> Shown#{result => Result}
    end.

%%%-------------------------------------------------------------------
%%% The table
%%%-------------------------------------------------------------------

count(Counter, #model{counters = Counters} = Model) ->
    Model#model{counters = maps:update_with(Counter, fun(N) -> N + 1 end, 1, Counters)}.

find(Id, #model{sessions = Sessions}) ->
    case lists:keyfind(Id, #session.id, Sessions) of
        false -> none;
        S -> S
    end.

keep(#session{id = Id} = S, #model{sessions = Sessions} = Model) ->
    Model#model{sessions = lists:keyreplace(Id, #session.id, Sessions, S)}.

watch(Watcher, #session{watchers = Watchers} = S) ->
    S#session{watchers = lists:usort([Watcher | Watchers])}.

is_live(#session{result = Result}) ->
    Result =:= none.

live(#model{sessions = Sessions}) ->
    length([x || S <- Sessions, is_live(S)]).

has_room(#model{world = #{max_sessions := Max}, sessions = Sessions} = Model) ->
    live(Model) < Max orelse lists:keymember(pending, #session.state, Sessions).

evict(#model{world = #{max_sessions := Max}, sessions = Sessions} = Model) ->
    case {live(Model) > Max, lists:keytake(pending, #session.state, lists:reverse(Sessions))} of
        {true, {value, _, Left}} -> evict(count(evicted, Model#model{sessions = lists:reverse(Left)}));
        _ -> Model
    end.

profile(Id, #model{world = #{profiles := Profiles}}) ->
    maps:get(Id, Profiles, undefined).

%%%-------------------------------------------------------------------
%%% Arguments, strategies, ports
%%%-------------------------------------------------------------------

bad_argument(I, T, Opts, More) ->
    Checks = [{initiator_id, is_id(I)}, {target_id, is_id(T) andalso I =/= T}, {opts, is_map(Opts)}
              | [{Key, is_option(Key, Value)}
                 || is_map(Opts), {Key, Value} <- maps:to_list(Opts),
                    lists:member(Key, [max_punch_attempts, punch_timeout_ms, allow_relay, notify | More])]],
    case lists:keyfind(false, 2, Checks) of
        {Which, false} -> Which;
        false -> none
    end.

is_id(Id) ->
    is_binary(Id) andalso byte_size(Id) =< 1024.

is_option(max_punch_attempts, Value) -> is_integer(Value) andalso Value >= 0;
is_option(punch_timeout_ms, Value) -> is_integer(Value) andalso Value > 0;
is_option(allow_relay, Value) -> is_boolean(Value);
is_option(notify, Value) -> Value =:= d orelse Value =:= m;
is_option(session_id, Value) -> is_id(Value) andalso Value =/= <<>>.

strategy(undefined, #{can_receive_unsolicited := true}) -> direct;
strategy(I, T) when I =:= undefined; T =:= undefined -> after_direct(I, T);
strategy(#{can_receive_unsolicited := true}, _) -> direct;
strategy(_, #{can_receive_unsolicited := true}) -> direct;
strategy(_, #{mapping_policy := ei, filtering_policy := ei}) -> direct;
strategy(I, T) -> after_direct(I, T).

after_direct(undefined, undefined) -> hole_punch;
after_direct(undefined, #{requires_relay := Relay}) -> one_known(Relay);
after_direct(#{requires_relay := Relay}, undefined) -> one_known(Relay);
after_direct(I, T) ->
    NeedsRelay = fun(#{requires_relay := true}) -> true;
                    (#{mapping_policy := pd, filtering_policy := pd, allocation_policy := rd}) -> true;
                    (#{}) -> false
                 end,
    Maps = fun(#{mapping_policy := Policy}) -> Policy =/= pd end,
    Allocates = fun(#{allocation_policy := Policy}) -> Policy =/= rd end,
    case not lists:any(NeedsRelay, [I, T]) andalso lists:all(Maps, [I, T]) andalso lists:any(Allocates, [I, T]) of
        true -> hole_punch;
        false -> relay
    end.

one_known(true) -> relay;
one_known(false) -> hole_punch.

contact(#{reflexive_address := {Ip, Port}, mapping_policy := Mapping, allocation_policy := Allocation} = Profile) ->
    Step = case {Mapping, Allocation, Profile} of
               {ei, _, _} -> 0;
               {_, pp, _} -> 0;
               {_, pc, #{port_delta := Delta}} -> Delta;
               _ -> 1
           end,
    Ports = case Step of
                0 -> [Port];
                _ -> [P || P <- [Port, Port + Step, Port + 2 * Step], P >= 1, P =< 65535]
            end,
    {list_to_binary(inet:ntoa(Ip)), Ports};
contact(_) ->
    {<<>>, [4433, 4434, 4435]}.
