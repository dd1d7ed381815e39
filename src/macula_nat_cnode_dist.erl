%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc Distribution for a VM that has none.
%%
%% It is started without a listener, so nobody can connect to this VM, and stopped when the process that asked for it
%% has ended, however that has ended. Where distribution runs already, nothing is changed about it.
-module(macula_nat_cnode_dist).
-behaviour(gen_server).

-export([start/1, stop/1, is_own/0, identity/0, loopback/0, protocol/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(COOKIE_BYTES, 20).
-define(IDENTITY_BYTES, 8).
%% Long for what is done within milliseconds.
-define(START_MS, 10000).
%% With the time that the program is given to end, below the 5 s that supervisors give.
-define(STOP_MS, 1000).

%% @doc Start distribution for the calling process if there is none. `CNode' is a node that it is to connect to, with
%% the user's cookie; `undefined' means one that this VM starts itself, with a cookie that nobody else knows.
%% The answer has no process where distribution runs already.
-spec start(node() | undefined) -> {ok, pid() | undefined} | {error, term()}.
start(undefined) ->
    start_server({self(), undefined});
start(CNode) ->
    case protocol() of
        {ok, _} -> start_server({self(), CNode});
        Error -> Error
    end.

start_server(Arguments) ->
    case gen_server:start({local, ?MODULE}, ?MODULE, Arguments, [{timeout, ?START_MS}]) of
        {ok, Pid} ->
            {ok, Pid};
        ignore ->
            {ok, undefined};
        {error, {already_started, Pid}} ->
            %% There is one such process, so this is the one of a predecessor that was killed: about to end.
            Monitor = monitor(process, Pid),
            receive
                {'DOWN', Monitor, process, Pid, _} -> start_server(Arguments)
            after ?START_MS ->
                demonitor(Monitor, [flush]),
                {error, {distribution_not_started, {already_started, Pid}}}
            end;
        {error, timeout} ->
            {error, {distribution_not_started, timeout}};
        {error, {shutdown, Reason}} ->
            {error, Reason};
        {error, _} = Error ->
            Error
    end.

%% @doc Stop distribution if {@link start/1} has started it. Where that can't be done it is logged.
-spec stop(pid() | undefined) -> ok.
stop(undefined) ->
    ok;
stop(Pid) ->
    try
        gen_server:stop(Pid, normal, ?STOP_MS)
    catch
        _:Reason ->
            macula_nat_cnode_log:log(warning, "macula_nat_coordinator has not stopped distribution: ~0tp", [Reason])
    end.

%% @doc Whether distribution was started here.
-spec is_own() -> boolean().
is_own() ->
    whereis(?MODULE) =/= undefined.

%% @doc The loopback address that this VM's distribution can connect to.
-spec loopback() -> string().
loopback() ->
    case protocol() of
        {ok, "inet6_tcp"} -> "::1";
        _ -> "127.0.0.1"
    end.

%% @doc The protocol by which this VM's distribution can connect to a C node.
-spec protocol() -> {ok, string()} | {error, {distribution_not_tcp, [string()]}}.
protocol() ->
    Protocols = protocols(),
    case [Protocol || Protocol <- Protocols, lists:member(Protocol, ["inet_tcp", "inet6_tcp"])] of
        [Protocol | _] -> {ok, Protocol};
        [] -> {error, {distribution_not_tcp, Protocols}}
    end.

protocols() ->
    case init:get_argument(proto_dist) of
        {ok, Given} -> lists:append(Given);
        error -> ["inet_tcp"]
    end.

%% @private
%% @doc Start distribution, unless it runs already.
-spec init({pid(), node() | undefined}) -> {ok, node()} | ignore | {stop, term()}.
init({Owner, CNode}) ->
    case net_kernel:get_state() of
        #{started := no} ->
            %% net_kernel would take the name before it finds out.
            case [Error || Protocol <- protocols(), {error, _} = Error <- [code:ensure_loaded(list_to_atom(Protocol ++ "_dist"))]] of
                [] -> start_distribution(Owner, CNode);
                [{error, Reason} | _] -> {stop, {shutdown, {distribution_not_started, {protocols(), Reason}}}}
            end;
        _ ->
            ignore
    end.

start_distribution(Owner, CNode) ->
    {Name, Domain} = name(CNode),
    Start = fun() -> net_kernel:start(Name, #{name_domain => Domain, dist_listen => false, hidden => true}) end,
    case with_cookie_file(CNode, Start) of
        {ok, _} ->
            _ = [erlang:set_cookie(cookie()) || CNode =:= undefined],
            _ = monitor(process, Owner),
            _ = monitor(process, net_kernel),
            macula_nat_cnode_log:log(
                notice, "macula_nat_coordinator has started distribution to reach its C node: this node is now ~ts, "
                "which nobody can connect to", [Name]),
            {ok, Name};
        {error, Reason} ->
            {stop, {shutdown, {distribution_not_started, cause(Reason)}}}
    end.

%% @private
%% @doc Nobody calls.
-spec handle_call(term(), gen_server:from(), node()) -> {noreply, node()}.
handle_call(_Request, _From, Name) ->
    {noreply, Name}.

%% @private
%% @doc Nobody casts.
-spec handle_cast(term(), node()) -> {noreply, node()}.
handle_cast(_Msg, Name) ->
    {noreply, Name}.

%% @private
%% @doc End with the process that asked for distribution, or when somebody else has stopped it.
-spec handle_info(term(), node()) -> {noreply, node()} | {stop, normal, node()}.
handle_info({'DOWN', _, process, Owner, _}, Name) when is_pid(Owner) ->
    {stop, normal, Name};
handle_info({'DOWN', _, process, {net_kernel, _}, _}, _Name) ->
    %% What is stopped from now on would be theirs.
    {stop, normal, nonode@nohost};
handle_info(_Info, Name) ->
    {noreply, Name}.

%% @private
%% @doc Stop distribution, unless somebody else has done so.
-spec terminate(term(), node()) -> ok.
terminate(_Reason, Name) when node() =:= Name, Name =/= nonode@nohost ->
    case net_kernel:stop() of
        ok -> await_no_name(Name, erlang:monotonic_time(millisecond) + ?STOP_MS);
        {error, not_found} -> ok;
        {error, Reason} ->
            macula_nat_cnode_log:log(warning, "distribution of ~ts can't be stopped: ~0tp", [Name, Reason])
    end;
terminate(_Reason, _Name) ->
    ok.

%% The VM gives up its name a moment after net_kernel has ended, of which nothing tells.
await_no_name(Name, Deadline) when node() =:= Name ->
    case erlang:monotonic_time(millisecond) < Deadline of
        true -> timer:sleep(1), await_no_name(Name, Deadline);
        false -> macula_nat_cnode_log:log(warning, "distribution was stopped, but this node is still ~ts", [Name])
    end;
await_no_name(_Name, _Deadline) ->
    ok.

%% Distribution does not start without a cookie file, though its cookie is not used here. Where there is none in the home
%% directory, or no home directory, Erlang takes that of the user's configuration directory, and else makes one: it is
%% shown one that exists for the moment, and nothing is left anywhere.
with_cookie_file(undefined, Start) ->
    case has_cookie() of
        true -> Start();
        false -> with_temporary_cookie(Start)
    end;
with_cookie_file(_CNode, Start) ->
    Start().

has_cookie() ->
    case init:get_argument(home) of
        {ok, [[Home]]} -> file:read_file_info(filename:join(Home, ".erlang.cookie")) =/= {error, enoent};
        _ -> false
    end.

with_temporary_cookie(Start) ->
    Dir = filename:join(temporary_dir(), "macula_nat_" ++ random(?IDENTITY_BYTES)),
    File = filename:join([Dir, "erlang", ".erlang.cookie"]),
    Variables = ["HOME", "XDG_CONFIG_HOME"],
    Before = [{Variable, os:getenv(Variable)} || Variable <- Variables],
    try
        %% Whatever of this fails, distribution does not start and says why.
        _ = file:make_dir(Dir),
        _ = file:change_mode(Dir, 8#700),
        _ = file:make_dir(filename:dirname(File)),
        _ = file:write_file(File, random(?COOKIE_BYTES)),
        _ = file:change_mode(File, 8#400),
        _ = [os:putenv(Variable, Dir) || Variable <- Variables],
        Start()
    after
        _ = [case Value of false -> os:unsetenv(Variable); _ -> os:putenv(Variable, Value) end || {Variable, Value} <- Before],
        _ = file:delete(File),
        _ = file:del_dir(filename:dirname(File)),
        file:del_dir(Dir)
    end.

temporary_dir() ->
    case os:getenv("TMPDIR") of
        false -> "/tmp";
        Dir -> Dir
    end.

%% A name of our own. A shared C node may know VMs of several machines, and of containers whose host names and process ids
%% are the same. Nobody looks up what follows the `@', but its form must be that of the C node's.
name(CNode) ->
    {Host, Domain} =
        case CNode =:= undefined orelse is_long(CNode) of
            true -> {"127.0.0.1", longnames};
            false -> {"localhost", shortnames}
        end,
    {list_to_atom("macula_nat_vm_" ++ identity() ++ "@" ++ Host), Domain}.

is_long(Node) ->
    [_ | Host] = string:split(atom_to_list(Node), "@"),
    lists:any(fun(C) -> C =:= $. orelse C =:= $: end, lists:append(Host)).

%% @doc What tells this VM from all others.
-spec identity() -> string().
identity() ->
    once({?MODULE, identity}, fun() -> random(?IDENTITY_BYTES) end).

cookie() ->
    once({?MODULE, cookie}, fun() -> list_to_atom(random(?COOKIE_BYTES)) end).

%% The same at every start, as each name and cookie is an atom that stays.
once(Key, Make) ->
    case persistent_term:get(Key, undefined) of
        undefined ->
            ok = persistent_term:put(Key, Make()),
            once(Key, Make);
        Value ->
            Value
    end.

random(Bytes) ->
    [hexadecimal(N) || <<N:4>> <= crypto:strong_rand_bytes(Bytes)].

hexadecimal(N) when N < 10 -> $0 + N;
hexadecimal(N) -> $a + N - 10.

%% Why a child of net_kernel's supervisor did not start, without the stack.
cause({{shutdown, {failed_to_start_child, Child, {Reason, [{_, _, _, _} | _]}}}, _}) -> {Child, Reason};
cause({{shutdown, {failed_to_start_child, Child, Reason}}, _}) -> {Child, Reason};
cause(Reason) -> Reason.
