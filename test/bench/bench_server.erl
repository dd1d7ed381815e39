%% SPDX-License-Identifier: Apache-2.0
%% @doc A comparator of the benchmarks: a coordinator as one would write it in Erlang, a gen_server that does the same
%% job as the C node under the same registered name. Profiles, sessions and mailboxes are maps in its state, timers are
%% messages to itself. It knows what the benchmarks use: requests, attached peers, punches with attempts and timeouts,
%% reports, `notify', the limit of sessions, the sweep, and `put' of the profile cache, which is a cast to itself here.
%%
%% With BENCH_LOOKUP_NODE it has no profiles of its own but calls `macula_nat_cache' there, in line, as the module does
%% that the C node replaces.
%%
%% `erl -s bench_server main': starts it, prints `ready' and stays.
-module(bench_server).
-behaviour(gen_server).

-export([main/0, start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(SERVER, macula_nat_coordinator).
-define(SWEEP_MS, 30000).

-type id() :: binary().
-type profile() :: map().
-type strategy() :: direct | hole_punch | relay.

-record(session, {
    id :: id(),
    initiator :: id(),
    target :: id(),
    initiator_profile :: profile() | undefined,
    target_profile :: profile() | undefined,
    strategy :: strategy(),
    state = pending :: pending | coordinating | executing | completed | failed,
    attempts = 0 :: non_neg_integer(),
    failures = #{} :: #{id() => pos_integer()},
    created_at :: integer(),
    max_attempts :: non_neg_integer(),
    timeout_ms :: pos_integer(),
    watcher :: pid() | undefined,
    timer :: reference() | undefined,
    result :: success | timeout | unreachable | undefined
}).

-record(state, {
    max_sessions :: pos_integer(),
    session_ttl_s :: pos_integer(),
    lookup_node :: node() | undefined,
    delay_ms = 100 :: pos_integer(),
    live = 0 :: non_neg_integer(),
    profiles = #{} :: #{id() => profile()},
    sessions = #{} :: #{id() => #session{}},
    punches = #{} :: #{{id(), id()} => [id()]}, % live, the newest first
    pending = queue:new() :: queue:queue(id()), % some of them may have ended
    mailboxes = #{} :: #{id() => {pid(), reference()}},
    monitors = #{} :: #{reference() => id()}
}).

%% @doc Start the server as the settings BENCH_MAX_SESSIONS, BENCH_SESSION_TTL_S and BENCH_LOOKUP_NODE say.
-spec main() -> ok.
main() ->
    {ok, Pid} = start_link(#{
        max_sessions => setting("BENCH_MAX_SESSIONS", 1000000),
        session_ttl_s => setting("BENCH_SESSION_TTL_S", 300),
        lookup_node => list_to_atom(os:getenv("BENCH_LOOKUP_NODE", "undefined"))
    }),
    true = unlink(Pid),
    io:put_chars("ready\n").

setting(Name, Default) ->
    case os:getenv(Name) of
        false -> Default;
        Value -> list_to_integer(Value)
    end.

%% @doc Start the server under the coordinator's name.
-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Opts) ->
    gen_server:start_link({local, ?SERVER}, ?MODULE, Opts, []).

%% @private
init(#{max_sessions := Max, session_ttl_s := Ttl, lookup_node := Node}) ->
    _ = erlang:send_after(?SWEEP_MS, self(), sweep),
    {ok, #state{max_sessions = Max, session_ttl_s = Ttl, lookup_node = Node}}.

%% @private
handle_call({request_connection, A, B, Opts}, _From, State) when
    is_binary(A), is_binary(B), A =/= B, is_map(Opts)
->
    request(A, B, Opts, State);
handle_call(get_pending, _From, State) ->
    Live = [show(S) || S <- maps:values(State#state.sessions), is_live(S)],
    {reply, Live, State};
handle_call({attach_peer, Id}, {Pid, _}, #state{mailboxes = Boxes, monitors = Monitors} = State) ->
    Ref = monitor(process, Pid),
    {reply, ok, State#state{mailboxes = Boxes#{Id => {Pid, Ref}}, monitors = Monitors#{Ref => Id}}};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
handle_cast({report_result, Id, Reporter, Result}, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{state = S} = Session} when S =/= completed, S =/= failed ->
            {noreply, report(Result, Reporter, Session, State)};
        _ ->
            {noreply, State}
    end;
handle_cast({put, Id, Profile, Ttl}, #state{profiles = Profiles} = State) ->
    Dated = Profile#{ttl_seconds => Ttl, detected_at => erlang:system_time(second)},
    {noreply, State#state{profiles = Profiles#{Id => Dated}}};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
handle_info({punch_time, Id, Attempt}, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{state = coordinating, attempts = Attempt} = Session} ->
            Timer = erlang:send_after(Session#session.timeout_ms, self(), {no_result, Id, Attempt}),
            {noreply, change(Session#session{state = executing, timer = Timer}, State)};
        _ ->
            {noreply, State}
    end;
handle_info({no_result, Id, Attempt}, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{state = executing, attempts = Attempt} = Session} ->
            {noreply, attempt_failed(timeout, Session, State)};
        _ ->
            {noreply, State}
    end;
handle_info({'DOWN', Ref, process, _, _}, #state{monitors = Monitors, mailboxes = Boxes} = State) ->
    case maps:take(Ref, Monitors) of
        {Id, Rest} -> {noreply, State#state{monitors = Rest, mailboxes = maps:remove(Id, Boxes)}};
        error -> {noreply, State}
    end;
handle_info(sweep, State) ->
    _ = erlang:send_after(?SWEEP_MS, self(), sweep),
    {noreply, sweep(State)};
handle_info(_, State) ->
    {noreply, State}.

%%%-------------------------------------------------------------------
%%% Requests
%%%-------------------------------------------------------------------

request(A, B, Opts, #state{punches = Punches} = State) ->
    case Punches of
        #{{B, A} := [Id | _]} ->
            {reply, {ok, hole_punch, Id}, State};
        _ ->
            PA = profile(A, State),
            PB = profile(B, State),
            open(A, B, PA, PB, strategy(PA, PB), Opts, make_room(State))
    end.

profile(Id, #state{lookup_node = undefined, profiles = Profiles}) ->
    maps:get(Id, Profiles, undefined);
profile(Id, #state{lookup_node = Node}) ->
    case gen_server:call({macula_nat_cache, Node}, {get, Id}) of
        {ok, Profile, _} -> Profile;
        not_found -> undefined
    end.

open(_, _, _, _, relay, #{allow_relay := false}, State) ->
    {reply, {error, relay_required}, State};
open(_, _, _, _, _, _, #state{live = Live, max_sessions = Max} = State) when Live >= Max ->
    {reply, {error, overloaded}, State};
open(A, B, PA, PB, Strategy, Opts, #state{pending = Pending, live = Live} = State) ->
    Id = base64:encode(crypto:strong_rand_bytes(16)),
    Session = #session{
        id = Id,
        initiator = A,
        target = B,
        initiator_profile = PA,
        target_profile = PB,
        strategy = Strategy,
        created_at = erlang:system_time(second),
        max_attempts = maps:get(max_punch_attempts, Opts, 3),
        timeout_ms = maps:get(punch_timeout_ms, Opts, 5000),
        watcher = maps:get(notify, Opts, undefined)
    },
    Opened = change(Session, State#state{live = Live + 1}),
    case Strategy of
        hole_punch ->
            #state{punches = Punches} = Opened,
            Ids = maps:get({A, B}, Punches, []),
            With = Opened#state{punches = Punches#{{A, B} => [Id | Ids]}},
            {reply, {ok, Strategy, Id}, coordinate(Session, With)};
        _ ->
            {reply, {ok, Strategy, Id}, Opened#state{pending = queue:in(Id, Pending)}}
    end.

%% At the limit the oldest pending session makes room.
make_room(#state{live = Live, max_sessions = Max} = State) when Live < Max ->
    State;
make_room(#state{pending = Pending, sessions = Sessions, live = Live} = State) ->
    case queue:out(Pending) of
        {{value, Id}, Rest} ->
            case Sessions of
                #{Id := #session{state = pending}} ->
                    State#state{
                        pending = Rest, sessions = maps:remove(Id, Sessions), live = Live - 1
                    };
                _ ->
                    make_room(State#state{pending = Rest})
            end;
        {empty, _} ->
            State
    end.

-spec strategy(profile() | undefined, profile() | undefined) -> strategy().
strategy(undefined, undefined) ->
    hole_punch;
strategy(undefined, #{can_receive_unsolicited := true}) ->
    direct;
strategy(undefined, #{requires_relay := true}) ->
    relay;
strategy(undefined, _) ->
    hole_punch;
strategy(#{requires_relay := true}, undefined) ->
    relay;
strategy(_, undefined) ->
    hole_punch;
strategy(_, #{can_receive_unsolicited := true}) ->
    direct;
strategy(#{can_receive_unsolicited := true}, _) ->
    direct;
strategy(_, #{mapping_policy := ei, filtering_policy := ei}) ->
    direct;
strategy(A, B) ->
    case needs_relay(A) orelse needs_relay(B) of
        true ->
            relay;
        false ->
            Maps = is_predictable(A) andalso is_predictable(B),
            Ports = keeps_ports(A) orelse keeps_ports(B),
            if
                Maps, Ports -> hole_punch;
                true -> relay
            end
    end.

needs_relay(#{requires_relay := true}) -> true;
needs_relay(#{mapping_policy := pd, filtering_policy := pd, allocation_policy := rd}) -> true;
needs_relay(_) -> false.

is_predictable(#{mapping_policy := Mapping}) -> Mapping =:= ei orelse Mapping =:= hd;
is_predictable(_) -> true.

keeps_ports(#{allocation_policy := Allocation}) -> Allocation =:= pp orelse Allocation =:= pc;
keeps_ports(_) -> true.

%%%-------------------------------------------------------------------
%%% Punches
%%%-------------------------------------------------------------------

coordinate(#session{id = Id, attempts = Attempt} = Session, #state{delay_ms = Delay} = State) ->
    PunchTime = erlang:system_time(millisecond) + Delay,
    Timer = erlang:send_after(Delay, self(), {punch_time, Id, Attempt}),
    #session{initiator = A, target = B, initiator_profile = PA, target_profile = PB} = Session,
    deliver(A, Id, B, PB, PunchTime, initiator, State),
    deliver(B, Id, A, PA, PunchTime, target, State),
    change(Session#session{strategy = hole_punch, state = coordinating, timer = Timer}, State).

deliver(To, Id, Peer, Profile, PunchTime, Role, #state{mailboxes = Boxes}) ->
    case Boxes of
        #{To := {Pid, _}} ->
            {Host, Port} = address(Profile),
            Info = #{
                session_id => Id,
                peer_id => Peer,
                peer_host => Host,
                peer_ports => ports(Port, Profile),
                punch_time => PunchTime,
                role => Role
            },
            Pid ! {punch_coordinate, Info},
            ok;
        _ ->
            ok
    end.

address(#{reflexive_address := {Ip, Port}}) -> {list_to_binary(inet:ntoa(Ip)), Port};
address(_) -> {<<>>, undefined}.

ports(undefined, _) -> [4433, 4434, 4435];
ports(P, #{mapping_policy := ei}) -> [P];
ports(P, #{allocation_policy := pp}) -> [P];
ports(P, #{allocation_policy := pc, port_delta := D}) -> in_range([P, P + D, P + 2 * D]);
ports(P, _) -> in_range([P, P + 1, P + 2]).

in_range(Ports) -> [P || P <- Ports, P > 0, P < 65536].

report(success, _, Session, State) ->
    finish(completed, success, Session, State);
report(failure, Reporter, #session{failures = Failures, attempts = Attempts} = Session, State) ->
    Count = maps:get(Reporter, Failures, 0),
    Counted = Session#session{failures = Failures#{Reporter => Count + 1}},
    if
        Count < Attempts -> store(Counted, State);
        Session#session.state =:= pending -> pending_failed(Counted, State);
        true -> attempt_failed(unreachable, Counted, State)
    end;
report(_, _, _, State) ->
    State.

pending_failed(#session{strategy = direct, max_attempts = Max} = Session, State) when Max > 0 ->
    #session{initiator = A, target = B, id = Id} = Session,
    Punches = State#state.punches,
    Ids = maps:get({A, B}, Punches, []),
    coordinate(Session#session{attempts = 1}, State#state{punches = Punches#{{A, B} => [Id | Ids]}});
pending_failed(Session, State) ->
    finish(failed, unreachable, Session, State).

attempt_failed(_, #session{attempts = N, max_attempts = Max} = Session, State) when N < Max ->
    cancel(Session),
    coordinate(Session#session{attempts = N + 1}, State);
attempt_failed(Result, Session, State) ->
    finish(failed, Result, Session#session{strategy = relay}, State).

finish(As, Result, Session, #state{live = Live} = State) ->
    cancel(Session),
    Ended = Session#session{state = As, result = Result, timer = undefined},
    change(Ended, forget_punch(Session, State#state{live = Live - 1})).

forget_punch(#session{initiator = A, target = B, id = Id}, #state{punches = Punches} = State) ->
    case Punches of
        #{{A, B} := [Id]} -> State#state{punches = maps:remove({A, B}, Punches)};
        #{{A, B} := Ids} -> State#state{punches = Punches#{{A, B} => lists:delete(Id, Ids)}};
        _ -> State
    end.

cancel(#session{timer = undefined}) ->
    ok;
cancel(#session{timer = Timer}) ->
    _ = erlang:cancel_timer(Timer),
    ok.

%%%-------------------------------------------------------------------
%%% Sessions
%%%-------------------------------------------------------------------

store(#session{id = Id} = Session, #state{sessions = Sessions} = State) ->
    State#state{sessions = Sessions#{Id => Session}}.

%% Stores the session, and tells who wants to know of it.
change(#session{watcher = undefined} = Session, State) ->
    store(Session, State);
change(#session{watcher = Watcher, id = Id} = Session, State) ->
    Watcher ! {punch_session, Id, show(Session)},
    store(Session, State).

is_live(#session{state = State}) -> State =/= completed andalso State =/= failed.

show(#session{result = Result} = S) ->
    Map = #{
        session_id => S#session.id,
        initiator_id => S#session.initiator,
        target_id => S#session.target,
        initiator_profile => S#session.initiator_profile,
        target_profile => S#session.target_profile,
        strategy => S#session.strategy,
        state => S#session.state,
        attempts => S#session.attempts,
        created_at => S#session.created_at
    },
    case Result of
        undefined -> Map;
        _ -> Map#{result => Result}
    end.

sweep(#state{sessions = Sessions, session_ttl_s = Ttl} = State) ->
    Oldest = erlang:system_time(second) - Ttl,
    {Gone, Left} = maps:fold(
        fun(Id, S, {Gone, Left}) ->
            case is_live(S) andalso S#session.created_at > Oldest of
                true -> {Gone, Left#{Id => S}};
                false -> {[S | Gone], Left}
            end
        end,
        {[], #{}},
        Sessions
    ),
    Punches = lists:foldl(fun forget_punch/2, State, Gone),
    lists:foreach(fun cancel/1, Gone),
    Pending = queue:filter(fun(Id) -> is_map_key(Id, Left) end, State#state.pending),
    Live = length([S || S <- maps:values(Left), is_live(S)]),
    Punches#state{sessions = Left, pending = Pending, live = Live}.
