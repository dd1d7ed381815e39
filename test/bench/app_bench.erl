%% SPDX-License-Identifier: Apache-2.0
%% @doc Calls through the module macula_nat_coordinator beside the same calls to a gen_server of this node and to one of
%% another Erlang node, in one run.
%%
%% Each server answers request_connection with a strategy and a session id; only the C node does something for it. The
%% servers take turns, round by round, so that what else the machine does meets all of them. One JSON object a line: one
%% for each server and number of callers, with the median over the rounds of calls per second and of the median and 99th
%% percentile of the time of a call; then one for each ratio to the other servers.
-module(app_bench).
-behaviour(gen_server).

-export([main/1, start_server/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(NAME, macula_nat_coordinator).
-define(SERVER, app_bench).
-define(CALLERS, [1, 16]).

%% @doc Entry from the command line: how long a round takes in milliseconds, and how many there are.
-spec main([string()]) -> no_return().
main(Arguments) ->
    [RoundMs, Rounds] = [list_to_integer(Argument) || Argument <- Arguments],
    {ok, _} = start_server(),
    {ok, Peer, Node} = peer:start_link(#{name => "app_bench_peer_" ++ os:getpid(), host => "127.0.0.1", longnames => true,
                                         connection => standard_io,
                                         args => ["-pa", filename:absname(filename:dirname(code:which(?MODULE)))]}),
    {ok, _} = peer:call(Peer, ?MODULE, start_server, []),
    {ok, _} = ?NAME:start_link(#{}),
    know_target(),
    Request = {request_connection, <<"initiator">>, <<"target">>, #{}},
    Servers = [
        {local_gen_server, fun() -> {ok, direct, _} = gen_server:call(?SERVER, Request) end},
        {erlang_node, fun() -> {ok, direct, _} = gen_server:call({?SERVER, Node}, Request) end},
        {module, fun() -> {ok, direct, _} = ?NAME:request_connection(<<"initiator">>, <<"target">>) end}
    ],
    [begin
         All = [{Name, round_of(Call, Callers, RoundMs)} || _ <- lists:seq(1, Rounds), {Name, Call} <- Servers],
         Results = [{Name, medians([Result || {Each, Result} <- All, Each =:= Name])} || {Name, _} <- Servers],
         report(Callers, Rounds, Results)
     end || Callers <- ?CALLERS],
    ok = gen_server:stop(?NAME),
    peer:stop(Peer),
    halt(0).

%% A target that can be reached makes a session that asks nothing more of anybody.
know_target() ->
    [CNode] = nodes(hidden),
    Profile = #{node_id => <<"target">>, mapping_policy => ei, filtering_policy => ei, allocation_policy => pp,
                can_receive_unsolicited => true, requires_relay => false, relay_capable => true},
    ok = gen_server:cast({macula_nat_cache, CNode}, {put, <<"target">>, Profile, 3600}),
    {ok, _, fresh} = gen_server:call({macula_nat_cache, CNode}, {get, <<"target">>}),
    ok.

%% Calls per second, median and 99th percentile in microseconds, of callers that call without a pause.
round_of(Call, Callers, RoundMs) ->
    Self = self(),
    End = erlang:monotonic_time() + erlang:convert_time_unit(RoundMs, millisecond, native),
    Pids = [spawn_link(fun() -> Self ! {self(), calls(Call, End, [])} end) || _ <- lists:seq(1, Callers)],
    Times = list_to_tuple(lists:sort(lists:append([receive {Pid, Each} -> Each end || Pid <- Pids]))),
    {tuple_size(Times) * 1000 / RoundMs, percentile(50, Times), percentile(99, Times)}.

calls(Call, End, Times) ->
    Begin = erlang:monotonic_time(),
    case Begin < End of
        true ->
            _ = Call(),
            calls(Call, End, [erlang:monotonic_time() - Begin | Times]);
        false ->
            Times
    end.

percentile(Percent, Times) ->
    Native = element(max(1, ceil(tuple_size(Times) * Percent / 100)), Times),
    erlang:convert_time_unit(Native, native, nanosecond) / 1000.

medians(Results) ->
    list_to_tuple([median([element(N, Result) || Result <- Results]) || N <- [1, 2, 3]]).

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

report(Callers, Rounds, Results) ->
    [io:format("{\"benchmark\":\"app\",\"server\":\"~s\",\"callers\":~b,\"rounds\":~b,\"calls_per_s\":~.1f,"
               "\"p50_us\":~.1f,\"p99_us\":~.1f}~n", [Name, Callers, Rounds, Rate, P50, P99])
     || {Name, {Rate, P50, P99}} <- Results],
    {module, {Rate, P50, P99}} = lists:keyfind(module, 1, Results),
    [io:format("{\"benchmark\":\"app\",\"ratio\":\"module/~s\",\"callers\":~b,\"calls_per_s\":~.3f,\"p50\":~.3f,"
               "\"p99\":~.3f}~n", [Name, Callers, Rate / OtherRate, P50 / OtherP50, P99 / OtherP99])
     || {Name, {OtherRate, OtherP50, OtherP99}} <- Results, Name =/= module],
    ok.

%% @doc Start the server that the C node is compared with.
-spec start_server() -> {ok, pid()} | {error, term()}.
start_server() ->
    gen_server:start({local, ?SERVER}, ?MODULE, [], []).

%% @private
init([]) ->
    {ok, <<"AAAAAAAAAAAAAAAAAAAAAA==">>}.

%% @private
handle_call({request_connection, _, _, _}, _From, Id) ->
    {reply, {ok, direct, Id}, Id}.

%% @private
handle_cast(_, Id) ->
    {noreply, Id}.
