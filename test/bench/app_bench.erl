%% SPDX-License-Identifier: Apache-2.0
%% @doc Calls through the module macula_nat_coordinator beside the same calls to other servers, in one run:
%%
%% local_gen_server  a gen_server of this VM that only answers
%% erlang_node       the same in another Erlang node
%% erlang_job        a gen_server of this VM that does the job: bench_server
%% gen_server_call   the C node, called with gen_server:call/2 and over a connection with OTP's options: what the module
%%                   did once
%%
%% The servers take turns, round by round, so that what else the machine does meets all of them. One JSON object a line:
%% one for each server and number of callers, with the median over the rounds of calls per second and of the median and
%% 99th percentile of the time of a call; then one for each ratio to the other servers. A table of the same comes last.
-module(app_bench).
-behaviour(gen_server).

-export([main/1, start_server/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(NAME, macula_nat_coordinator).
-define(SERVER, app_bench).
-define(CALLERS, [1, 16, 64, 512]).
%% As many as the C node keeps at most.
-define(JOB, #{max_sessions => 1000000, session_ttl_s => 300, lookup_node => undefined}).

%% @doc Entry from the command line: how long a round takes in milliseconds, and how many there are.
-spec main([string()]) -> no_return().
main(Arguments) ->
    ok = io:setopts([{encoding, unicode}]),
    [RoundMs, Rounds] = [list_to_integer(Argument) || Argument <- Arguments],
    {ok, _} = start_server(),
    {ok, Peer, Node} = peer:start_link(#{name => "app_bench_peer_" ++ os:getpid(), host => "127.0.0.1", longnames => true,
                                         connection => standard_io,
                                         args => ["-pa", filename:absname(filename:dirname(code:which(?MODULE)))]}),
    {ok, _} = peer:call(Peer, ?MODULE, start_server, []),
    {ok, _} = ?NAME:start_link(#{}),
    [CNode] = nodes(hidden),
    pong = net_adm:ping(Node),
    {ok, OwnOptions} = net_kernel:getopts(CNode, [delay_send, buffer]),
    {ok, OtpOptions} = net_kernel:getopts(Node, [delay_send, buffer]),
    {ok, Job} = gen_server:start_link(bench_server, ?JOB, []),
    know_target(CNode, Job),
    Request = {request_connection, <<"initiator">>, <<"target">>, #{}},
    Servers = [
        {local_gen_server, fun() -> {ok, direct, _} = gen_server:call(?SERVER, Request) end},
        {erlang_node, fun() -> {ok, direct, _} = gen_server:call({?SERVER, Node}, Request) end},
        {erlang_job, fun() -> {ok, direct, _} = gen_server:call(Job, Request) end},
        {gen_server_call, fun() -> {ok, direct, _} = gen_server:call({?NAME, CNode}, Request) end},
        {module, fun() -> {ok, direct, _} = ?NAME:request_connection(<<"initiator">>, <<"target">>) end}
    ],
    Rows = [
        begin
            All = [
                begin
                    ok = net_kernel:setopts(CNode, case Name of gen_server_call -> OtpOptions; _ -> OwnOptions end),
                    {Name, round_of(Call, Callers, RoundMs)}
                end || _ <- lists:seq(1, Rounds), {Name, Call} <- Servers
            ],
            Results = [{Name, medians([Result || {Each, Result} <- All, Each =:= Name])} || {Name, _} <- Servers],
            report(Callers, Rounds, Results),
            {Callers, Results}
        end || Callers <- ?CALLERS
    ],
    table(Rows),
    ok = gen_server:stop(?NAME),
    peer:stop(Peer),
    halt(0).

%% A target that can be reached makes a session that asks nothing more of anybody.
know_target(CNode, Job) ->
    Profile = #{node_id => <<"target">>, mapping_policy => ei, filtering_policy => ei, allocation_policy => pp,
                can_receive_unsolicited => true, requires_relay => false, relay_capable => true},
    Put = {put, <<"target">>, Profile, 3600},
    ok = gen_server:cast({macula_nat_cache, CNode}, Put),
    {ok, _, fresh} = gen_server:call({macula_nat_cache, CNode}, {get, <<"target">>}),
    gen_server:cast(Job, Put).

%% Calls per second, median and 99th percentile in microseconds, of callers that call without a pause.
round_of(Call, Callers, RoundMs) ->
    Self = self(),
    Begin = erlang:monotonic_time(),
    End = Begin + erlang:convert_time_unit(RoundMs, millisecond, native),
    Pids = [
        spawn_link(fun() ->
            Times = calls(Call, End, []),
            Self ! {self(), erlang:monotonic_time(), Times}
        end) || _ <- lists:seq(1, Callers)
    ],
    {Ends, All} = lists:unzip([receive {Pid, Ended, Times} -> {Ended, Times} end || Pid <- Pids]),
    %% The last calls end after the round.
    Seconds = (lists:max(Ends) - Begin) / erlang:convert_time_unit(1, second, native),
    Times = list_to_tuple(lists:sort(lists:append(All))),
    {tuple_size(Times) / Seconds, percentile(50, Times), percentile(99, Times)}.

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

table(Rows) ->
    io:put_chars("\n| callers | server | calls/s | p50, µs | p99, µs | module: × its calls/s | × its p50 |\n"
                 "|---|---|---|---|---|---|---|\n"),
    [begin
         {module, {ModuleRate, ModuleP50, _}} = lists:keyfind(module, 1, Results),
         [io:format("| ~b | ~ts | ~b | ~.1f | ~.1f | ~.2f | ~.2f |~n",
                    [Callers, Name, round(Rate), P50, P99, ModuleRate / Rate, ModuleP50 / P50])
          || {Name, {Rate, P50, P99}} <- Results]
     end || {Callers, Results} <- Rows],
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
