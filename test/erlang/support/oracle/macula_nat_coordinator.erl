%% SPDX-License-Identifier: Apache-2.0
%% @doc The coordinator as an ordinary gen_server: what the program must answer like. The strategy is written from its
%% description and shares nothing with the program.
-module(macula_nat_coordinator).
-behaviour(gen_server).

-export([request_connection/2, request_connection/3, coordinate_punch/3, report_result/3, get_pending/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-type strategy() :: direct | hole_punch | relay.

%% @equiv request_connection(InitiatorId, TargetId, #{})
-spec request_connection(binary(), binary()) -> {ok, strategy(), binary()} | {error, term()}.
request_connection(InitiatorId, TargetId) ->
    request_connection(InitiatorId, TargetId, #{}).

%% @doc Ask for a connection.
-spec request_connection(binary(), binary(), map()) -> {ok, strategy(), binary()} | {error, term()}.
request_connection(InitiatorId, TargetId, Opts) ->
    gen_server:call(?MODULE, {request_connection, InitiatorId, TargetId, Opts}).

%% @doc Coordinate a punch.
-spec coordinate_punch(binary(), binary(), map()) -> ok.
coordinate_punch(InitiatorId, TargetId, Opts) ->
    gen_server:cast(?MODULE, {coordinate_punch, InitiatorId, TargetId, Opts}).

%% @doc Report a result.
-spec report_result(binary(), binary(), success | failure) -> ok.
report_result(SessionId, ReporterId, Result) ->
    gen_server:cast(?MODULE, {report_result, SessionId, ReporterId, Result}).

%% @doc The live sessions.
-spec get_pending() -> [map()].
get_pending() ->
    gen_server:call(?MODULE, get_pending).

%% @private
init(Rules) ->
    {ok, #{rules => Rules, sessions => #{}, order => 0}}.

%% @private
handle_call({request_connection, InitiatorId, TargetId, Opts}, _From, State) ->
    case bad_argument(InitiatorId, TargetId, Opts) of
        none -> request(InitiatorId, TargetId, Opts, State);
        Which -> {reply, {error, {bad_argument, Which}}, State}
    end;
handle_call(get_pending, _From, #{sessions := Sessions} = State) ->
    Newest = lists:reverse(lists:sort(maps:values(Sessions))),
    {reply, [Session || {_, Session} <- Newest], State};
handle_call({attach_peer, PeerId}, _From, State) when is_binary(PeerId) ->
    {reply, ok, State};
handle_call({detach_peer, PeerId}, _From, State) when is_binary(PeerId) ->
    {reply, ok, State};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
handle_cast({report_result, SessionId, _ReporterId, success}, #{sessions := Sessions} = State) ->
    {noreply, State#{sessions := maps:remove(SessionId, Sessions)}};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
handle_info(_, State) ->
    {noreply, State}.

request(InitiatorId, TargetId, Opts, #{rules := Rules, sessions := Sessions, order := Order} = State) ->
    Initiator = profile(InitiatorId),
    Target = profile(TargetId),
    case strategy(Rules, Initiator, Target) of
        relay when map_get(allow_relay, Opts) =:= false ->
            {reply, {error, relay_required}, State};
        Strategy ->
            Id = base64:encode(crypto:strong_rand_bytes(16)),
            Session = #{session_id => Id, initiator_id => InitiatorId, target_id => TargetId,
                        initiator_profile => Initiator, target_profile => Target, strategy => Strategy,
                        state => case Strategy of hole_punch -> coordinating; _ -> pending end,
                        attempts => 0, created_at => erlang:system_time(second)},
            {reply, {ok, Strategy, Id}, State#{sessions := Sessions#{Id => {Order, Session}}, order := Order + 1}}
    end.

profile(NodeId) ->
    case gen_server:call(macula_nat_cache, {get, NodeId}) of
        {ok, Profile, _} -> Profile;
        not_found -> undefined
    end.

bad_argument(InitiatorId, TargetId, Opts) ->
    Checks = [
        {initiator_id, is_id(InitiatorId)},
        {target_id, is_id(TargetId) andalso TargetId =/= InitiatorId},
        {opts, is_map(Opts)}
    ],
    case [Which || {Which, false} <- Checks] of
        [Which | _] -> Which;
        [] ->
            case [Key || {Key, Valid} <- options(), is_map_key(Key, Opts), not Valid(map_get(Key, Opts))] of
                [Key | _] -> Key;
                [] -> none
            end
    end.

is_id(Id) ->
    is_binary(Id) andalso byte_size(Id) =< 1024.

options() ->
    [{max_punch_attempts, fun(N) -> is_integer(N) andalso N >= 0 end},
     {punch_timeout_ms, fun(N) -> is_integer(N) andalso N > 0 end},
     {allow_relay, fun is_boolean/1},
     {notify, fun is_pid/1}].

%%%-------------------------------------------------------------------
%%% Strategy
%%%-------------------------------------------------------------------

strategy(_, undefined, undefined) ->
    hole_punch;
strategy(_, undefined, Target) ->
    case {flag(can_receive_unsolicited, Target), flag(requires_relay, Target)} of
        {true, _} -> direct;
        {_, true} -> relay;
        _ -> hole_punch
    end;
strategy(_, Initiator, undefined) ->
    case flag(requires_relay, Initiator) of
        true -> relay;
        false -> hole_punch
    end;
strategy(Rules, Initiator, Target) ->
    Both = [Initiator, Target],
    Direct = lists:any(fun(P) -> flag(can_receive_unsolicited, P) end, Both)
        orelse (policy(mapping_policy, Target) =:= ei andalso policy(filtering_policy, Target) =:= ei),
    Relay = lists:any(fun(P) -> flag(requires_relay, P) orelse symmetric(P) end, Both),
    Mappings = lists:all(fun(P) -> predictable(mapping_policy, [ei, hd], P) end, Both),
    Allocations = [predictable(allocation_policy, [pp, pc], P) || P <- Both],
    Ports =
        case Rules of
            documented -> lists:member(true, Allocations);
            v0_14_3 -> not lists:member(false, Allocations)
        end,
    if
        Direct -> direct;
        Relay -> relay;
        Mappings, Ports -> hole_punch;
        true -> relay
    end.

symmetric(Profile) ->
    [policy(Key, Profile) || Key <- [mapping_policy, filtering_policy, allocation_policy]] =:= [pd, pd, rd].

%% Missing or unknown: be optimistic. Outside its type: not.
predictable(Key, Good, Profile) ->
    case policy(Key, Profile) of
        unknown -> true;
        Policy -> lists:member(Policy, Good)
    end.

flag(Key, Profile) ->
    value(Key, Profile) =:= true.

policy(Key, Profile) ->
    Known = case Key of allocation_policy -> [pp, pc, rd]; _ -> [ei, hd, pd] end,
    case value(Key, Profile) of
        undefined -> unknown;
        Text when is_binary(Text) ->
            case [Policy || Policy <- Known, atom_to_binary(Policy) =:= Text] of
                [Policy] -> Policy;
                [] -> unknown
            end;
        Value -> Value
    end.

value(Key, Profile) ->
    maps:get(Key, Profile, maps:get(atom_to_binary(Key), Profile, undefined)).
