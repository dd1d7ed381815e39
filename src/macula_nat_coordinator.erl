%% SPDX-License-Identifier: Apache-2.0
%% @doc The NAT hole punch coordinator of macula v0.14.3, served by a C node.
%%
%% The functions go from the calling process straight to the C node. The process that {@link start_link/1} starts owns
%% the C program (or watches one that runs already), holds the registered name, and forwards what is sent to it by that
%% name. It ends when the C node ends, and the C program ends when it ends, so a supervisor restarts both.
%%
%% Options, in the map given to {@link start_link/1} or, where that does not have them, in the environment of the
%% application `macula_nat_cnode':
%% <ul>
%% <li>`cnode': the name of a C node that runs already; without it a C program is started</li>
%% <li>`listen': the address that the C program listens on, a string; the loopback address if not given</li>
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
    cnode :: node(),
    monitor :: reference(),
    program :: macula_nat_cnode_port:program() | undefined,
    distribution :: pid() | undefined,
    relayed = gen_server:reqids_new() :: gen_server:request_id_collection()
}).

%% How long a C node that should be there may take to be there: as long as one needs to be started again.
-define(CONNECT_MS, 3000).
-define(CONNECT_RETRY_MS, 100).
%% The end of the connection and the exit status of the program come by different ways.
-define(EXIT_STATUS_MS, 1000).

%%%-------------------------------------------------------------------
%%% API
%%%-------------------------------------------------------------------

%% @doc Start the NAT coordinator server.
%%
%% It answers `{error, Reason}' with one of these reasons:
%% <ul>
%% <li>`{already_started, Pid}'</li>
%% <li>`{bad_option, Key, Value}': `cnode' is no atom, `listen' no string, `args' no list of strings, or one of the
%% others no integer</li>
%% <li>`{exit_status, Status}': the C program has ended before it could be called; 64 means an option that it refuses,
%% 69 that its name is taken or there is no EPMD, 77 that it got no cookie; its last line is in the log</li>
%% <li>`not_ready': it could not be called after 10 s, and was ended</li>
%% <li>`{cannot_run, File, Reason}': the C program is not there, or may not be executed</li>
%% <li>`{not_connected, Node}': the C node could not be connected to for 3 s</li>
%% <li>`{distribution_not_tcp, Protocols}': this VM's distribution cannot reach a C node</li>
%% <li>`{distribution_not_started, Reason}': this VM had none, and it could not be started</li>
%% </ul>
%% Unless it is stopped, the process ends with one of these reasons:
%% <ul>
%% <li>`{exit_status, Status}': the C program has ended; 128 and the signal's number if a signal killed it</li>
%% <li>`{cnode_down, Reason}': the C node that `cnode' names has ended for that reason, is not there (`noproc'), or its
%% connection is lost (`noconnection'); or the connection to the C program is lost, which is ended then</li>
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
    gen_server:cast(server(), {coordinate_punch, InitiatorId, TargetId, Opts}).

%% @doc Report result of a hole punch attempt.
-spec report_result(binary(), binary(), success | failure) -> ok.
report_result(SessionId, ReporterId, Result) ->
    gen_server:cast(server(), {report_result, SessionId, ReporterId, Result}).

%% @doc Get all pending punch sessions (for debugging).
-spec get_pending() -> [punch_session()].
get_pending() ->
    call(get_pending).

%% A C node that has just ended is to callers what a local server that has just ended is: not there.
call(Request) ->
    try
        gen_server:call(server(), Request)
    catch
        exit:{{nodedown, _}, _} -> exit({noproc, {gen_server, call, [?MODULE, Request]}});
        exit:{Reason, {gen_server, call, _}} -> exit({Reason, {gen_server, call, [?MODULE, Request]}})
    end.

%% The table ends with the local process, however that ends; without it the local name fails as it should.
server() ->
    try
        {?MODULE, ets:lookup_element(?MODULE, cnode, 2)}
    catch
        error:badarg -> ?MODULE
    end.

%%%-------------------------------------------------------------------
%%% gen_server
%%%-------------------------------------------------------------------

%% @private
%% @doc Start the C program, or find the C node that `cnode' names.
-spec init(map()) -> {ok, #state{}} | {stop, term()}.
init(Opts) ->
    process_flag(trap_exit, true),
    %% In a plain VM, where it is not loaded, the environment can come from the command line.
    _ = application:load(macula_nat_cnode),
    CNode = option(cnode, Opts),
    case macula_nat_cnode_dist:start(CNode) of
        {ok, Distribution} ->
            case start_cnode(CNode, Opts) of
                {ok, Node, Program} ->
                    true = ets:insert(ets:new(?MODULE, [named_table, {read_concurrency, true}]), {cnode, Node}),
                    Monitor = monitor(process, {?MODULE, Node}),
                    {ok, #state{cnode = Node, monitor = Monitor, program = Program, distribution = Distribution}};
                {error, Reason} ->
                    ok = macula_nat_cnode_dist:stop(Distribution),
                    {stop, Reason}
            end;
        {error, Reason} ->
            {stop, Reason}
    end.

%% @private
%% @doc Forward a request that was sent to the local name. The C node answers a caller of this node itself; it need not
%% be connected to another node's, whose answer is relayed.
-spec handle_call(term(), gen_server:from(), #state{}) -> {noreply, #state{}} | {reply, term(), #state{}}.
handle_call(Request, {Pid, _} = From, #state{cnode = Node} = State) when node(Pid) =:= node() ->
    {?MODULE, Node} ! {'$gen_call', From, Request},
    {noreply, State};
handle_call({Mailbox, _PeerId}, _From, State) when Mailbox =:= attach_peer; Mailbox =:= detach_peer ->
    %% These are about the caller itself, and relayed they would be about this process.
    {reply, {error, not_local}, State};
handle_call(Request, From, #state{cnode = Node, relayed = Relayed} = State) ->
    {noreply, State#state{relayed = gen_server:send_request({?MODULE, Node}, Request, From, Relayed)}}.

%% @private
%% @doc Forward a cast that was sent to the local name.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(Msg, #state{cnode = Node} = State) ->
    ok = gen_server:cast({?MODULE, Node}, Msg),
    {noreply, State}.

%% @private
%% @doc End when the C node has ended; log its lines; relay its answers; forward the rest.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({'DOWN', Monitor, process, _, Reason}, #state{monitor = Monitor, program = Program} = State) ->
    case Program =/= undefined andalso macula_nat_cnode_port:await_exit(Program, ?EXIT_STATUS_MS) of
        {exit_status, _} = Status -> {stop, Status, State#state{program = undefined}};
        _ -> {stop, {cnode_down, Reason}, State}
    end;
handle_info({'EXIT', From, Reason}, State) when is_pid(From), Reason =/= normal ->
    %% Exits are trapped only for the sake of an orderly end.
    {stop, Reason, State};
handle_info({'EXIT', _, _}, State) ->
    {noreply, State};
handle_info(Info, #state{program = Program} = State) ->
    case Program =/= undefined andalso macula_nat_cnode_port:take(Info, Program) of
        false -> relay(Info, State);
        ok -> {noreply, State};
        {exit_status, _} = Status -> {stop, Status, State#state{program = undefined}}
    end.

%% @private
%% @doc End the C program, and distribution if it was started here.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{program = Program, distribution = Distribution}) ->
    Program =:= undefined orelse macula_nat_cnode_port:stop(Program),
    macula_nat_cnode_dist:stop(Distribution).

relay(Info, #state{cnode = Node, relayed = Relayed} = State) ->
    case gen_server:check_response(Info, Relayed, true) of
        {{reply, Reply}, From, Left} ->
            ok = gen_server:reply(From, Reply),
            {noreply, State#state{relayed = Left}};
        {{error, _}, _From, Left} ->
            %% The C node is gone, and so will be this process, which the caller monitors.
            {noreply, State#state{relayed = Left}};
        _ ->
            {?MODULE, Node} ! Info,
            {noreply, State}
    end.

%%%-------------------------------------------------------------------
%%% Start of the C node
%%%-------------------------------------------------------------------

start_cnode(undefined, Opts) ->
    case macula_nat_cnode_port:start(maps:from_list([{Key, option(Key, Opts)} || Key <- macula_nat_cnode_port:options()])) of
        {ok, Node, Program} ->
            case connect(Node) of
                ok -> {ok, Node, Program};
                Error -> ok = macula_nat_cnode_port:stop(Program), Error
            end;
        Error ->
            Error
    end;
start_cnode(Node, _Opts) ->
    case connect(Node) of
        ok -> {ok, Node, undefined};
        Error -> Error
    end.

connect(Node) ->
    connect(Node, erlang:monotonic_time(millisecond) + ?CONNECT_MS).

connect(Node, Deadline) ->
    case net_kernel:connect_node(Node) of
        true ->
            ok;
        _ ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true -> timer:sleep(?CONNECT_RETRY_MS), connect(Node, Deadline);
                false -> {error, {not_connected, Node}}
            end
    end.

option(Key, Opts) ->
    case Opts of
        #{Key := Value} -> Value;
        #{} -> application:get_env(macula_nat_cnode, Key, undefined)
    end.
