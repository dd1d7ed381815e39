%% SPDX-License-Identifier: Apache-2.0
%% @doc The NAT hole punch coordinator of macula v0.14.3, served by a C node.
%%
%% The functions go from the calling process straight to the C node. The process that {@link start_link/1} starts owns
%% the C program (or watches one that runs already), holds the registered name, and forwards what is sent to it by that
%% name. It ends when the C program ends, and the C program ends when it ends, so a supervisor restarts both. With a C
%% node of others, or where none can be started, it stays: calls exit with `{noproc, _}' and casts do nothing until
%% the C node is there (again).
%%
%% Options, in the map given to {@link start_link/1} or, where that does not have them, in the environment of the
%% application `macula_nat_cnode':
%% <ul>
%% <li>`cnode': the name of a C node that runs already; without it a C program is started</li>
%% <li>`listen': the address that the C program listens on, a string; the loopback address if not given</li>
%% <li>`compatibility': `v0_14_3' makes the C program answer as the old module did where its callers depend on it</li>
%% <li>`punch_timeout_ms', `max_punch_attempts': as in macula</li>
%% <li>`args': further arguments of the C program, a list of strings</li>
%% </ul>
%% All others are ignored.
%%
%% Counters, sessions and options are the C node's: `[{cnode, CNode}] = ets:lookup(macula_nat_coordinator, cnode)', then
%% `sys:get_state({macula_nat_coordinator, CNode})'. At the local name `sys' shows the process that forwards.
%%
%% There is no upgrade of the running code: a new version is used from the next start of the process on, and that has no
%% sessions.
-module(macula_nat_coordinator).
-behaviour(gen_server).

-export([start_link/1, request_connection/2, request_connection/3, coordinate_punch/3, report_result/3, get_pending/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([connection_strategy/0, punch_session/0]).

-type connection_strategy() :: direct | hole_punch | relay.

-type punch_session() ::
    #{session_id := binary(),
      initiator_id := binary(),
      target_id := binary(),
      initiator_profile := nat_profile() | undefined,
      target_profile := nat_profile() | undefined,
      strategy := connection_strategy(),
      state := pending | coordinating | executing | completed | failed,
      attempts := non_neg_integer(),
      created_at := integer(),
      result => success | timeout | unreachable}.

%% macula_nat_cache:nat_profile() of macula, which this application does not depend on.
-type nat_profile() ::
    #{node_id := binary(),
      mapping_policy := ei | hd | pd,
      filtering_policy := ei | hd | pd,
      allocation_policy := pp | pc | rd,
      can_receive_unsolicited := boolean(),
      requires_relay := boolean(),
      relay_capable := boolean(),
      detected_at := integer(),
      ttl_seconds := pos_integer(),
      reflexive_address => {inet:ip_address(), inet:port_number()},
      port_delta => integer(),
      endpoint => binary(),
      atom() | binary() => term()}.

-record(state, {
    cnode :: node() | undefined,
    program :: macula_nat_cnode_port:program() | undefined,
    %% Whether this VM connects to the C node, or the C node to this VM.
    direction = out :: in | out,
    distribution :: pid() | undefined,
    %% That of net_kernel, where distribution is our own.
    kernel :: reference() | undefined,
    %% While the C node can be called: the monitor of its watch. While it cannot: since when, and what is done about it.
    monitor :: reference() | undefined,
    down_since :: integer(),
    probe :: {macula_nat_cnode_watch:watch(), reference()} | undefined,
    retry :: reference() | undefined,
    delay = 0 :: non_neg_integer(),
    %% Whether its absence was logged.
    is_missed = false :: boolean(),
    relayed = gen_server:reqids_new() :: gen_server:request_id_collection()
}).

%% How long a program that is ready may take to be connected, at the start and later.
-define(CONNECT_MS, 3000).
-define(RECONNECT_MS, 10000).
%% How long a start waits for the C node of others.
-define(WAIT_MS, 1000).
%% From one attempt to the next, doubled up to the last.
-define(FIRST_DELAY_MS, 100).
-define(LAST_DELAY_MS, 5000).
%% For a program that has stopped our distribution to start its own.
-define(NO_DISTRIBUTION_MS, 1000).

%%%-------------------------------------------------------------------
%%% API
%%%-------------------------------------------------------------------

%% @doc Start the NAT coordinator server.
%%
%% It answers `{error, Reason}' with one of these reasons:
%% <ul>
%% <li>`{already_started, Pid}'</li>
%% <li>`{bad_option, Key, Value}': `cnode' is no atom, `listen' no string, `args' no list of strings, `compatibility'
%% not `v0_14_3', or one of the others no integer</li>
%% <li>`{exit_status, Status}': the C program has ended before it could be called; 64 means an option that it refuses,
%% 69 that its name is taken or there is no EPMD, 77 that it got no cookie; its last line is in the log</li>
%% <li>`not_ready': it could not be called after 10 s, and was ended</li>
%% <li>`{cannot_run, File, Reason}': the C program is not there, or may not be executed</li>
%% <li>`{no_listener, Reason}': there is no port where the C program could connect to this VM</li>
%% <li>`{not_connected, Node}': it was ready, but not connected for 3 s</li>
%% </ul>
%% Unless it is stopped, the process ends with one of these reasons:
%% <ul>
%% <li>`{exit_status, Status}': the C program has ended; 128 and the signal's number if a signal killed it</li>
%% <li>`{port_closed, Reason}': the port of the C program was closed, which ends the program</li>
%% <li>`{cnode_down, Node}': the connection to the C program is lost and did not come back for 10 s</li>
%% <li>`distribution_stopped': somebody has stopped the distribution that was started here</li>
%% <li>that of a linked process, other than `normal'</li>
%% </ul>
-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Opts) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Opts, []).

%% @equiv request_connection(InitiatorId, TargetId, #{})
-spec request_connection(binary(), binary()) -> {ok, connection_strategy(), binary()} | {error, term()}.
request_connection(InitiatorId, TargetId) ->
    request_connection(InitiatorId, TargetId, #{}).

%% @doc Request a connection to a target peer. Returns the recommended strategy and a session ID for tracking.
%%
%% Options: `max_punch_attempts', `punch_timeout_ms', `allow_relay', `notify' (a pid that gets
%% `{punch_session, SessionId, Session}' at every change).
-spec request_connection(binary(), binary(), map()) -> {ok, connection_strategy(), binary()} | {error, term()}.
request_connection(InitiatorId, TargetId, Opts) ->
    call({request_connection, InitiatorId, TargetId, Opts}).

%% @doc Coordinate a hole punch between two peers. Called by a public-IP peer acting as coordinator.
-spec coordinate_punch(binary(), binary(), map()) -> ok | {error, term()}.
coordinate_punch(InitiatorId, TargetId, Opts) ->
    cast({coordinate_punch, InitiatorId, TargetId, Opts}).

%% @doc Report result of a hole punch attempt.
-spec report_result(binary(), binary(), success | failure) -> ok.
report_result(SessionId, ReporterId, Result) ->
    cast({report_result, SessionId, ReporterId, Result}).

%% @doc Get all pending punch sessions (for debugging).
-spec get_pending() -> [punch_session()].
get_pending() ->
    call(get_pending).

%% A C node that is not there is to callers what a local server that is not there is.
call(Request) ->
    Result =
        case lookup(call) of
            {Server, Watch} -> macula_nat_cnode_watch:call(Server, Watch, Request);
            undefined -> {error, noproc}
        end,
    case Result of
        {ok, Reply} -> Reply;
        {error, noconnection} -> exit({noproc, {gen_server, call, [?MODULE, Request]}});
        {error, Reason} -> exit({Reason, {gen_server, call, [?MODULE, Request]}})
    end.

cast(Msg) ->
    case lookup(cnode) of
        undefined -> ok;
        Node -> gen_server:cast({?MODULE, Node}, Msg)
    end.

%% The table ends with the local process, however that ends.
lookup(Key) ->
    try ets:lookup(?MODULE, Key) of
        [{_, Value}] -> Value;
        [] -> undefined
    catch
        error:badarg -> undefined
    end.

%%%-------------------------------------------------------------------
%%% gen_server
%%%-------------------------------------------------------------------

%% @private
%% @doc Start the C program, or look for the C node that `cnode' names.
-spec init(map()) -> {ok, #state{}} | {stop, term()}.
init(Opts) ->
    process_flag(trap_exit, true),
    %% In a plain VM, where it is not loaded, the environment can come from the command line.
    _ = application:load(macula_nat_cnode),
    case option(cnode, Opts) of
        CNode when is_atom(CNode) -> init_distribution(CNode, Opts);
        CNode -> {stop, {bad_option, cnode, CNode}}
    end.

init_distribution(CNode, Opts) ->
    ?MODULE = ets:new(?MODULE, [named_table, {read_concurrency, true}]),
    case macula_nat_cnode_dist:start(CNode) of
        {ok, Distribution} ->
            Kernel = case Distribution of undefined -> undefined; _ -> monitor(process, net_kernel) end,
            _ = net_kernel:monitor_nodes(true, [{node_type, hidden}]),
            init_cnode(CNode, Opts, #state{distribution = Distribution, kernel = Kernel, down_since = now_ms()});
        {error, Reason} ->
            {ok, unreachable(Reason, #state{down_since = now_ms()})}
    end.

init_cnode(undefined, Opts, State) ->
    case macula_nat_cnode_port:start(maps:from_list([{Key, option(Key, Opts)} || Key <- macula_nat_cnode_port:options()])) of
        {ok, Node, Direction, Program} ->
            case await_up(State#state{cnode = Node, direction = Direction, program = Program, down_since = now_ms()}, now_ms() + ?CONNECT_MS) of
                #state{monitor = undefined} = Down -> init_failed({not_connected, Node}, Down);
                Up -> {ok, Up}
            end;
        {error, {unreachable, Reason}} ->
            {ok, unreachable(Reason, State)};
        {error, Reason} ->
            init_failed(Reason, State)
    end;
init_cnode(CNode, _Opts, State) ->
    case await_up(State#state{cnode = CNode}, now_ms() + ?WAIT_MS) of
        #state{monitor = undefined} = Down ->
            macula_nat_cnode_log:log(warning, "macula_nat_coordinator: the C node ~ts is not there; it is tried again and "
                                     "again", [CNode]),
            {ok, Down#state{is_missed = true}};
        Up ->
            {ok, Up}
    end.

init_failed(Reason, State) ->
    ok = terminate(Reason, State),
    {stop, Reason}.

unreachable(Reason, State) ->
    macula_nat_cnode_log:log(error, "macula_nat_coordinator has no C node, as this VM can't connect to one: ~0tp", [Reason]),
    State.

%% @private
%% @doc Forward a request that was sent to the local name. One about a mailbox is about its caller, so a caller of this
%% node is answered by the C node itself; all others are relayed, as the C node need not be connected to their nodes, and
%% they are to be told if it goes.
-spec handle_call(term(), gen_server:from(), #state{}) -> {noreply, #state{}} | {reply, term(), #state{}}.
handle_call(_Request, _From, #state{monitor = undefined} = State) ->
    {reply, {error, noproc}, State};
handle_call(Request, {Pid, _} = From, #state{cnode = Node, relayed = Relayed} = State) ->
    case is_tuple(Request) andalso tuple_size(Request) > 0 andalso lists:member(element(1, Request), [attach_peer, detach_peer]) of
        true when node(Pid) =:= node() ->
            {?MODULE, Node} ! {'$gen_call', From, Request},
            {noreply, State};
        true ->
            {reply, {error, not_local}, State};
        false ->
            {noreply, State#state{relayed = gen_server:send_request({?MODULE, Node}, Request, From, Relayed)}}
    end.

%% @private
%% @doc Forward a cast that was sent to the local name.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(Msg, State) ->
    forward({'$gen_cast', Msg}, State),
    {noreply, State}.

%% @private
%% @doc Note that the C node goes or comes; end when the program has ended; log its lines; relay answers; forward the rest.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({'DOWN', Monitor, process, _, Reason}, #state{monitor = Monitor} = State) ->
    {noreply, down(Reason, State)};
handle_info({Watch, answers}, #state{probe = {Watch, _}} = State) ->
    {noreply, up(State)};
handle_info({'DOWN', Ref, process, _, _}, #state{probe = {_, Ref}} = State) ->
    not_up(State);
handle_info({'DOWN', Kernel, process, _, _}, #state{kernel = Kernel} = State) ->
    _ = erlang:send_after(?NO_DISTRIBUTION_MS, self(), distribution_stopped),
    {noreply, State#state{distribution = undefined}};
handle_info(distribution_stopped, #state{kernel = Kernel} = State) when Kernel =/= undefined ->
    {stop, distribution_stopped, State};
handle_info({timeout, Retry, probe}, #state{retry = Retry} = State) ->
    {noreply, probe(State)};
handle_info({nodeup, Node, _}, #state{cnode = Node} = State) ->
    {noreply, probe(State)};
handle_info({NodeEvent, _, _}, State) when NodeEvent =:= nodeup; NodeEvent =:= nodedown ->
    {noreply, State};
handle_info(Info, #state{program = Program} = State) ->
    case Program =/= undefined andalso macula_nat_cnode_port:take(Info, Program) of
        false -> other_info(Info, State);
        ok -> {noreply, State};
        End -> {stop, End, State#state{program = undefined}}
    end.

other_info({'EXIT', From, Reason}, State) when is_pid(From), Reason =/= normal ->
    %% Exits are trapped only for the sake of an orderly end.
    {stop, Reason, State};
other_info({'EXIT', _, _}, State) ->
    {noreply, State};
other_info(Info, #state{relayed = Relayed} = State) ->
    case gen_server:check_response(Info, Relayed, true) of
        {{reply, Reply}, From, Left} ->
            ok = gen_server:reply(From, Reply),
            {noreply, State#state{relayed = Left}};
        {{error, _}, From, Left} ->
            ok = gen_server:reply(From, {error, noproc}),
            {noreply, State#state{relayed = Left}};
        _ ->
            forward(Info, State),
            {noreply, State}
    end.

forward(_Message, #state{monitor = undefined}) ->
    ok;
forward(Message, #state{cnode = Node}) ->
    {?MODULE, Node} ! Message,
    ok.

%% @private
%% @doc End the C program, and distribution if it was started here.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{program = Program, distribution = Distribution}) ->
    Program =:= undefined orelse macula_nat_cnode_port:stop(Program),
    macula_nat_cnode_dist:stop(Distribution).

%%%-------------------------------------------------------------------
%%% Whether the C node can be called
%%%-------------------------------------------------------------------

%% At the start: until it can, or the time is over.
await_up(State, Deadline) ->
    #state{probe = {Watch, Ref}, cnode = Node} = Probing = probe(State),
    receive
        {Watch, answers} ->
            up(Probing);
        {'DOWN', Ref, process, _, _} ->
            {noreply, #state{retry = Retry} = Down} = not_up(Probing),
            receive
                {nodeup, Node, _} -> await_up(Down, Deadline);
                {timeout, Retry, probe} -> await_up(Down, Deadline)
            after left(Deadline) ->
                Down
            end
    after left(Deadline) ->
        Probing
    end.

%% By another process, as it may take seconds.
probe(#state{monitor = undefined, probe = undefined, cnode = Node, direction = Direction} = State) ->
    State#state{probe = macula_nat_cnode_watch:start(?MODULE, Node, Direction)};
probe(State) ->
    State.

up(#state{cnode = Node, probe = {Watch, Ref}, is_missed = IsMissed} = State) ->
    _ = [macula_nat_cnode_log:log(notice, "macula_nat_coordinator: the C node ~ts is there", [Node]) || IsMissed],
    true = ets:insert(?MODULE, [{cnode, Node}, {call, {{?MODULE, Node}, Watch}}]),
    State#state{monitor = Ref, probe = undefined, delay = 0, is_missed = false}.

not_up(#state{program = Program, cnode = Node, down_since = Since, delay = Delay} = State) ->
    case Program =/= undefined andalso now_ms() - Since > ?RECONNECT_MS of
        true ->
            {stop, {cnode_down, Node}, State};
        false ->
            Next = min(max(Delay * 2, ?FIRST_DELAY_MS), ?LAST_DELAY_MS),
            {noreply, State#state{probe = undefined, delay = Next, retry = erlang:start_timer(Next, self(), probe)}}
    end.

%% The connection is tried again at once: it may have been the connection only.
down(Reason, #state{cnode = Node} = State) ->
    true = ets:delete_all_objects(?MODULE),
    macula_nat_cnode_log:log(warning, "macula_nat_coordinator: the C node ~ts is gone: ~0tp", [Node, Reason]),
    probe(State#state{monitor = undefined, down_since = now_ms(), is_missed = true}).

now_ms() ->
    erlang:monotonic_time(millisecond).

left(Deadline) ->
    max(0, Deadline - now_ms()).

option(Key, Opts) ->
    case Opts of
        #{Key := Value} -> Value;
        #{} -> application:get_env(macula_nat_cnode, Key, undefined)
    end.
