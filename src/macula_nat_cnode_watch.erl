%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc A process of this VM that ends when the C node does, and calls that rely on it.
%%
%% `gen_server:call/2' to another node sends three messages: a monitor, the request, and the end of the monitor. Here
%% the caller monitors the local process, so only the request goes to the C node.
-module(macula_nat_cnode_watch).

-export([start/3, call/3]).

-export_type([watch/0]).

%% The tag of a call by alias is one.
-dialyzer({no_improper_lists, call/3}).

-type watch() :: pid().

%% As long as gen_server:call/2 waits.
-define(CALL_MS, 5000).
-define(PROBE_MS, 3000).
%% Requests of many callers go out in one system call, and replies come in by one. With a larger buffer a reply that is
%% not read yet would hold more memory.
-define(SOCKET_OPTIONS, [{delay_send, true}, {buffer, 16384}]).

%% @doc Watch the process `Server' of a C node. The calling process gets `{Watch, answers}' when it can be called. The
%% watch ends when it cannot, or no longer, with the reason that a monitor of it gives. `in' says that the C node
%% connects to this VM, `out' that this VM connects to it.
-spec start(atom(), node(), in | out) -> {watch(), reference()}.
start(Server, Node, Direction) ->
    Owner = self(),
    spawn_monitor(fun() -> connect({Server, Node}, Direction, Owner) end).

connect({_, Node} = Process, Direction, Owner) ->
    case is_connected(Direction, Node) of
        true ->
            _ = net_kernel:setopts(Node, ?SOCKET_OPTIONS),
            watch(Process, Owner);
        false ->
            exit(noconnection)
    end.

%% Nobody but the program itself can make the connection to this VM.
is_connected(in, Node) -> lists:member(Node, nodes(hidden));
is_connected(out, Node) -> net_kernel:connect_node(Node) =:= true.

%% The monitor is there before anybody calls, so that no connection is lost unnoticed between a request and its reply.
watch(Process, Owner) ->
    Monitor = monitor(process, Process),
    OwnerMonitor = monitor(process, Owner),
    %% A request that changes nothing.
    gen_server:call(Process, {detach_peer, <<"macula_nat_cnode">>}, ?PROBE_MS) =:= ok orelse exit(noproc),
    Owner ! {self(), answers},
    receive
        {'DOWN', Monitor, process, _, Reason} ->
            exit(Reason);
        {'DOWN', OwnerMonitor, process, _, _} ->
            %% A C node of others goes on, and answers those that have called it.
            receive
                {'DOWN', Monitor, process, _, Reason} -> exit(Reason)
            after 2 * ?CALL_MS ->
                ok
            end
    end.

%% @doc Call the process that is watched, as `gen_server:call/2' does. The reply comes by the alias and ends the
%% monitor. Without its monitor the alias is gone too, and a late reply is dropped.
-spec call({atom(), node()}, watch(), term()) -> {ok, term()} | {error, term()}.
call(Server, Watch, Request) ->
    Monitor = monitor(process, Watch, [{alias, reply_demonitor}]),
    %% Without a connection the watch is about to end.
    _ = erlang:send(Server, {'$gen_call', {self(), [alias | Monitor]}, Request}, [noconnect]),
    receive
        {[alias | Monitor], Reply} ->
            {ok, Reply};
        {'DOWN', Monitor, process, _, Reason} ->
            {error, Reason}
    after ?CALL_MS ->
        true = demonitor(Monitor, [flush]),
        receive
            {[alias | Monitor], Reply} -> {ok, Reply}
        after 0 ->
            {error, timeout}
        end
    end.
