%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc Distribution for a VM that has none.
%%
%% It is started without a listener, so nobody can connect to this VM, and stopped when the process that asked for it
%% has ended, however that has ended. Where distribution runs already, nothing is changed about it.
-module(macula_nat_cnode_dist).
-behaviour(gen_server).

-export([start/1, stop/1, is_own/0, loopback/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

-define(COOKIE_BYTES, 20).
%% Long for what is done within milliseconds.
-define(START_MS, 10000).
%% With the time that the program is given to end, below the 5 s that supervisors give.
-define(STOP_MS, 1000).

%% @doc Start distribution for the calling process if there is none. `CNode' is a node that it is to connect to, with
%% the user's cookie; `undefined' means one that this VM starts itself, with a cookie that nobody else knows; anything
%% else is an error. The answer has no process where distribution runs already.
-spec start(term()) -> {ok, pid() | undefined} | {error, term()}.
start(CNode) when is_atom(CNode) ->
    case protocol() of
        {ok, _} -> start_server({self(), CNode});
        Error -> Error
    end;
start(CNode) ->
    {error, {bad_option, cnode, CNode}}.

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
            ?LOG_WARNING("macula_nat_coordinator has not stopped distribution: ~0tp", [Reason])
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

protocol() ->
    Protocols =
        case init:get_argument(proto_dist) of
            {ok, Given} -> lists:append(Given);
            error -> ["inet_tcp"]
        end,
    case [Protocol || Protocol <- Protocols, lists:member(Protocol, ["inet_tcp", "inet6_tcp"])] of
        [Protocol | _] -> {ok, Protocol};
        [] -> {error, {distribution_not_tcp, Protocols}}
    end.

%% @private
%% @doc Start distribution, unless it runs already.
-spec init({pid(), node() | undefined}) -> {ok, node()} | ignore | {stop, term()}.
init({Owner, CNode}) ->
    case net_kernel:get_state() of
        #{started := no} -> start_distribution(Owner, CNode);
        _ -> ignore
    end.

start_distribution(Owner, CNode) ->
    {Name, Domain} = name(CNode),
    case net_kernel:start(Name, #{name_domain => Domain, dist_listen => false, hidden => true}) of
        {ok, _} ->
            _ = [erlang:set_cookie(cookie()) || CNode =:= undefined],
            _ = monitor(process, Owner),
            ?LOG_NOTICE("macula_nat_coordinator has started distribution to reach its C node: this node is now ~ts, "
                        "which nobody can connect to", [Name]),
            {ok, Name};
        {error, Reason} ->
            {stop, {distribution_not_started, cause(Reason)}}
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
%% @doc End with the process that asked for distribution.
-spec handle_info(term(), node()) -> {noreply, node()} | {stop, normal, node()}.
handle_info({'DOWN', _, process, _, _}, Name) ->
    {stop, normal, Name};
handle_info(_Info, Name) ->
    {noreply, Name}.

%% @private
%% @doc Stop distribution, unless somebody else has done so.
-spec terminate(term(), node()) -> ok.
terminate(_Reason, Name) when node() =:= Name ->
    case net_kernel:stop() of
        ok -> await_no_name(Name, erlang:monotonic_time(millisecond) + ?STOP_MS);
        {error, Reason} -> ?LOG_WARNING("distribution of ~ts can't be stopped: ~0tp", [Name, Reason])
    end;
terminate(_Reason, _Name) ->
    ok.

%% The VM gives up its name a moment after net_kernel has ended, of which nothing tells.
await_no_name(Name, Deadline) when node() =:= Name ->
    case erlang:monotonic_time(millisecond) < Deadline of
        true -> timer:sleep(1), await_no_name(Name, Deadline);
        false -> ?LOG_WARNING("distribution was stopped, but this node is still ~ts", [Name])
    end;
await_no_name(_Name, _Deadline) ->
    ok.

%% A name of our own, which is the same at every start. A shared C node may know VMs of several machines, and VMs in
%% containers that have the same OS pid. Nobody looks up what follows the `@', but its form must be that of the C
%% node's.
name(CNode) ->
    {ok, Machine} = inet:gethostname(),
    {Host, Domain} =
        case CNode =:= undefined orelse is_long(CNode) of
            true -> {"127.0.0.1", longnames};
            false -> {"localhost", shortnames}
        end,
    Alive = re:replace(["macula_nat_vm_", os:getpid(), $_, Machine], "[^A-Za-z0-9_-]", "_", [global, {return, list}]),
    {list_to_atom(Alive ++ "@" ++ Host), Domain}.

is_long(Node) ->
    [_ | Host] = string:split(atom_to_list(Node), "@"),
    lists:any(fun(C) -> C =:= $. orelse C =:= $: end, lists:append(Host)).

%% The same at every start, as each cookie is an atom that stays.
cookie() ->
    case persistent_term:get(?MODULE, undefined) of
        undefined ->
            Cookie = << <<(hexadecimal(N))>> || <<N:4>> <= crypto:strong_rand_bytes(?COOKIE_BYTES) >>,
            ok = persistent_term:put(?MODULE, binary_to_atom(Cookie)),
            cookie();
        Cookie ->
            Cookie
    end.

hexadecimal(N) when N < 10 -> $0 + N;
hexadecimal(N) -> $a + N - 10.

%% Why a child of net_kernel's supervisor did not start, without the stack.
cause({{shutdown, {failed_to_start_child, Child, {Reason, [{_, _, _, _} | _]}}}, _}) -> {Child, Reason};
cause({{shutdown, {failed_to_start_child, Child, Reason}}, _}) -> {Child, Reason};
cause(Reason) -> Reason.
