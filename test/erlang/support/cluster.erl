%% SPDX-License-Identifier: Apache-2.0
%% @doc A small macula cluster around the program: two Erlang nodes that may have macula services, and a plain one.
%%
%% The nodes serve all tests of a suite; the doubles of the services and the program are each test's own.
-module(cluster).
-include_lib("eunit/include/eunit.hrl").

-export([start/0, stop/1, with/4, rows/2]).
-export([ask/4, ask/5, asking/4, answer/1, session/3, await_services/3, await_services/4, state/2, state/3, await_rest/2]).
-export([act/4, calls/3, await_calls/4, release/4, connector/0]).
-export([profile/1, profile/2, public/1, relay/1, known/1, stored/1, key/2]).

-export_type([world/0, services/0]).

-type world() :: #{a := cnode:peer(), b := cnode:peer(), plain := cnode:peer()}.
-type services() :: [{Node :: a | b | plain, Service :: atom(), double:act()}].

-define(AT(Node), {macula_nat_coordinator, Node}).
-define(NOTHING, [lookups, requests, deliveries, calls]).

%% @doc Start the nodes.
-spec start() -> world().
start() ->
    #{a => cnode:peer(), b => cnode:peer(), plain => cnode:peer()}.

%% @doc End the nodes.
-spec stop(world()) -> ok.
stop(World) ->
    lists:foreach(fun cnode:peer_stop/1, maps:values(World)).

%% @doc A test generator of titled tests that share the nodes.
-spec rows(timeout(), [{string(), fun((world()) -> term())}]) -> term().
rows(Limit, Rows) ->
    {setup, fun start/0, fun stop/1,
     fun(World) -> [{Title, {timeout, Limit, fun() -> Test(World) end}} || {Title, Test} <- Rows] end}.

%% @doc Start services and the program, connect all nodes to it, and wait until it knows who has what. Afterwards
%% nothing may be left in flight, nothing may have been written to a macula_nat_cache, and every message for a peer must
%% have been one that v0.14.3 can encode.
-spec with(world(), [string()], services(), fun((node(), cnode:handle()) -> Result)) -> Result.
with(#{plain := Plain} = World, Args, Services, Fun) ->
    [cnode:on(Peer, fun double:stop_all/0) || Peer <- maps:values(World)],
    lists:foreach(fun({Key, Name, Act}) -> start_service(maps:get(Key, World), Name, Act) end, Services),
    cnode:with(#{args => Args}, fun(#{node := N} = Handle) ->
        [pong = cnode:on(maps:get(Key, World), fun() -> net_adm:ping(N) end) || Key <- [a, b, plain]],
        Count = fun(Wanted) -> length([Key || {Key, Name, _} <- Services, Name =:= Wanted]) end,
        await_services(Plain, N, #{macula_nat_cache => Count(macula_nat_cache),
                                   macula_routing_server => Count(macula_routing_server)}),
        %% Every node may have the module; there may be more nodes than ours.
        cnode:await(fun() -> state(Plain, N, [services, macula_peer_connector]) >= map_size(World) end),
        Result = Fun(N, Handle),
        await_rest(Plain, N),
        lists:foreach(fun check_doubles/1, maps:values(World)),
        Result
    end).

start_service(Peer, macula_peer_connector = Name, Act) ->
    cnode:on(Peer, fun() -> ok = double:start(Name, Act), double:load_connector() end);
start_service(Peer, Name, Act) ->
    cnode:on(Peer, fun() -> double:start(Name, Act) end).

check_doubles(Peer) ->
    Seen = fun(Name, What) ->
        cnode:on(Peer, fun() -> try double:What(Name) catch exit:{noproc, _} -> [] end end)
    end,
    ?assertEqual([], Seen(macula_nat_cache, casts)),
    ?assertEqual([], Seen(macula_routing_server, casts)),
    ?assertEqual([], cnode:on(Peer, fun() -> try double:refused() catch exit:{noproc, _} -> [] end end)).

%% @doc Ask from a node, with gen_server's own limit of 5 s: an answer that is later fails the test.
-spec ask(cnode:peer(), node(), binary(), binary()) -> term().
ask(Peer, N, Initiator, Target) ->
    ask(Peer, N, Initiator, Target, #{}).

%% @doc The same with options.
-spec ask(cnode:peer(), node(), binary(), binary(), map()) -> term().
ask(Peer, N, Initiator, Target, Options) ->
    cnode:on(Peer, fun() -> gen_server:call(?AT(N), {request_connection, Initiator, Target, Options}) end).

%% @doc Ask from a process of its own; `answer/1' gets the answer.
-spec asking(cnode:peer(), node(), binary(), binary()) -> pid().
asking(Peer, N, Initiator, Target) ->
    Self = self(),
    spawn_link(fun() -> Self ! {self(), ask(Peer, N, Initiator, Target)} end).

%% @doc The answer to `asking/4'.
-spec answer(pid()) -> term().
answer(Asking) ->
    receive {Asking, Answer} -> Answer end.

%% @doc A session as get_pending shows it.
-spec session(cnode:peer(), node(), binary()) -> map().
session(Peer, N, Id) ->
    Pending = cnode:on(Peer, fun() -> gen_server:call(?AT(N), get_pending) end),
    [Session] = [S || #{session_id := Each} = S <- Pending, Each =:= Id],
    Session.

%% @doc Wait until the program knows of so many nodes with each service.
-spec await_services(cnode:peer(), node(), #{atom() => non_neg_integer()}) -> ok.
await_services(Peer, N, Expected) ->
    await_services(Peer, N, Expected, 30000).

%% @doc The same within a limit (milliseconds).
-spec await_services(cnode:peer(), node(), #{atom() => non_neg_integer()}, timeout()) -> ok.
await_services(Peer, N, Expected, Limit) ->
    cnode:on(Peer, fun() -> cnode:await(fun() ->
        #{services := Services} = sys:get_state(?AT(N)),
        maps:with(maps:keys(Expected), Services) =:= Expected
    end, Limit) end).

%% @doc A part of the program's state.
-spec state(cnode:peer(), node()) -> map().
state(Peer, N) ->
    cnode:on(Peer, fun() -> sys:get_state(?AT(N)) end).

%% @doc One number of it.
-spec state(cnode:peer(), node(), [atom()]) -> term().
state(Peer, N, Path) ->
    lists:foldl(fun maps:get/2, state(Peer, N), Path).

%% @doc Wait until no question to another node is in flight.
-spec await_rest(cnode:peer(), node()) -> ok.
await_rest(Peer, N) ->
    cnode:on(Peer, fun() -> cnode:await(fun() ->
        #{waiting_for := Waiting} = sys:get_state(?AT(N)),
        lists:all(fun(Key) -> maps:get(Key, Waiting) =:= 0 end, ?NOTHING)
    end) end).

%% @doc Tell a double what to do from now on.
-spec act(world(), atom(), atom(), double:act()) -> ok.
act(World, Key, Name, Act) ->
    cnode:on(maps:get(Key, World), fun() -> double:act(Name, Act) end).

%% @doc What a double has been asked, sorted.
-spec calls(world(), atom(), atom()) -> [term()].
calls(World, Key, Name) ->
    lists:sort(cnode:on(maps:get(Key, World), fun() -> double:calls(Name) end)).

%% @doc The same once it has been asked so many times.
-spec await_calls(world(), atom(), atom(), non_neg_integer()) -> [term()].
await_calls(World, Key, Name, Count) ->
    lists:sort(cnode:on(maps:get(Key, World), fun() -> double:await_calls(Name, Count) end)).

%% @doc Answer what a double holds.
-spec release(world(), atom(), atom(), fun((term()) -> term())) -> ok.
release(World, Key, Name, Answer) ->
    cnode:on(maps:get(Key, World), fun() -> double:release(Name, Answer) end).

%% @doc A connector that reaches every peer.
-spec connector() -> double:act().
connector() ->
    fun(_) -> {reply, ok} end.

%% @doc A profile with which peers punch, with all of its keys.
-spec profile(binary()) -> map().
profile(Id) ->
    #{node_id => Id, mapping_policy => hd, filtering_policy => pd, allocation_policy => pc, port_delta => 2,
      can_receive_unsolicited => false, requires_relay => false, relay_capable => false,
      reflexive_address => {{192, 0, 2, 1}, 5000}, endpoint => <<Id/binary, ".example:4433">>,
      detected_at => 1700000000, ttl_seconds => 300,
      latitude => 52.5, longitude => 13.4, location_label => <<"a place">>}.

%% @doc The same with other keys or values.
-spec profile(binary(), map()) -> map().
profile(Id, Other) ->
    maps:merge(profile(Id), Other).

%% @doc The profile of a peer that everybody can reach.
-spec public(binary()) -> map().
public(Id) ->
    profile(Id, #{mapping_policy => ei, filtering_policy => ei, can_receive_unsolicited => true}).

%% @doc The profile of a peer that nobody can reach.
-spec relay(binary()) -> map().
relay(Id) ->
    profile(Id, #{mapping_policy => pd, allocation_policy => rd, requires_relay => true}).

%% @doc A macula_nat_cache that knows these profiles.
-spec known([map()]) -> double:act().
known(Profiles) ->
    fun({get, Id}) ->
        case [P || #{node_id := Each} = P <- Profiles, Each =:= Id] of
            [Profile] -> {reply, {ok, Profile, fresh}};
            [] -> {reply, not_found}
        end
    end.

%% @doc A macula_routing_server that has these answers by key, and takes what is stored.
-spec stored(#{binary() => term()}) -> double:act().
stored(Answers) ->
    fun({find_value, Key, 20}) -> {reply, maps:get(Key, Answers, {ok, []})};
       ({store, _, _}) -> {reply, ok}
    end.

%% @doc The key of a kind of value of a peer in the DHT.
-spec key(binary(), binary()) -> binary().
key(Kind, Id) ->
    crypto:hash(sha256, [Kind, ".", Id]).
