%% SPDX-License-Identifier: Apache-2.0
%% @doc The profile cache as an ordinary gen_server: what the embedded cache of the program must answer like.
-module(macula_nat_cache).
-behaviour(gen_server).

-export([get/1, get_from_dht/1, put/2, put/3, invalidate/1, clear/0, stats/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(MAX_ENTRIES, 10000).
-define(TTL, 300).
-define(STALE, 60).

%% @doc A profile, and whether it is fresh.
-spec get(binary()) -> {ok, map(), fresh | stale} | not_found.
get(NodeId) when is_binary(NodeId) ->
    gen_server:call(?MODULE, {get, NodeId}).

%% @doc As `get/1'; there is no DHT here.
-spec get_from_dht(binary()) -> {ok, map()} | {error, routing_server_unavailable}.
get_from_dht(NodeId) when is_binary(NodeId) ->
    case ?MODULE:get(NodeId) of
        {ok, Profile, _} -> {ok, Profile};
        not_found -> {error, routing_server_unavailable}
    end.

%% @doc Keep a profile for the default time.
-spec put(binary(), map()) -> ok.
put(NodeId, Profile) when is_binary(NodeId), is_map(Profile) ->
    gen_server:cast(?MODULE, {put, NodeId, Profile, ?TTL}).

%% @doc Keep a profile for a number of seconds.
-spec put(binary(), map(), pos_integer()) -> ok.
put(NodeId, Profile, Ttl) when is_binary(NodeId), is_map(Profile), Ttl > 0 ->
    gen_server:cast(?MODULE, {put, NodeId, Profile, Ttl}).

%% @doc Forget a profile.
-spec invalidate(binary()) -> ok.
invalidate(NodeId) when is_binary(NodeId) ->
    gen_server:cast(?MODULE, {invalidate, NodeId}).

%% @doc Forget all profiles.
-spec clear() -> ok.
clear() ->
    gen_server:cast(?MODULE, clear).

%% @doc Counters.
-spec stats() -> map().
stats() ->
    gen_server:call(?MODULE, stats).

%% @private
init([]) ->
    {ok, empty()}.

empty() ->
    #{entries => #{}, order => 0, hits => 0, misses => 0, evictions => 0}.

%% @private
handle_call({get, NodeId}, _From, #{entries := Entries, hits := Hits, misses := Misses} = State) ->
    Now = erlang:system_time(second),
    case Entries of
        #{NodeId := {_, Put, #{ttl_seconds := Ttl} = Profile}} when Now - Put =< Ttl ->
            {reply, {ok, Profile, fresh}, State#{hits := Hits + 1}};
        #{NodeId := {_, Put, #{ttl_seconds := Ttl} = Profile}} when Now - Put =< Ttl + ?STALE ->
            {reply, {ok, Profile, stale}, State#{hits := Hits + 1}};
        #{} ->
            {reply, not_found, State#{misses := Misses + 1}}
    end;
handle_call(stats, _From, #{entries := Entries, hits := Hits, misses := Misses, evictions := Evictions} = State) ->
    Rate = case Hits + Misses of 0 -> 0.0; Total -> Hits / Total end,
    Stats = #{size => map_size(Entries), max_entries => ?MAX_ENTRIES, hits => Hits, misses => Misses,
              evictions => Evictions, hit_rate => Rate},
    {reply, Stats, State};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
handle_cast({put, NodeId, Profile, Ttl}, #{order := Order} = State0)
  when is_binary(NodeId), is_map(Profile), is_integer(Ttl), Ttl > 0 ->
    #{entries := Entries} = State = evict(NodeId, State0),
    Now = erlang:system_time(second),
    Entry = {Order, Now, Profile#{ttl_seconds => Ttl, detected_at => Now}},
    {noreply, State#{entries := Entries#{NodeId => Entry}, order := Order + 1}};
handle_cast({invalidate, NodeId}, #{entries := Entries} = State) ->
    {noreply, State#{entries := maps:remove(NodeId, Entries)}};
handle_cast(clear, _State) ->
    {noreply, empty()};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
handle_info(_, State) ->
    {noreply, State}.

evict(NodeId, #{entries := Entries, evictions := Evictions} = State)
  when map_size(Entries) >= ?MAX_ENTRIES, not is_map_key(NodeId, Entries) ->
    {_, Oldest} = lists:min([{Order, Id} || {Id, {Order, _, _}} <- maps:to_list(Entries)]),
    State#{entries := maps:remove(Oldest, Entries), evictions := Evictions + 1};
evict(_NodeId, State) ->
    State.
