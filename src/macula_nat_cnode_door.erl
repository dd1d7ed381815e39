%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc The way in for the C program that this VM has started: a listener on the loopback address, for that node only.
%%
%% The program connects to the VM, so that neither has to be found by others: EPMD is not needed, and it does not matter
%% whether the VM listens itself, or by which protocol. What is accepted is handed to net_kernel as an alternative
%% carrier of the distribution hands over its connections.
-module(macula_nat_cnode_door).

-export([open/1]).

-include_lib("kernel/include/dist_util.hrl").
-include_lib("kernel/include/net_address.hrl").

%% Only the program knocks.
-define(BACKLOG, 8).
%% For the handshake, as net_kernel gives it by default.
-define(SETUP_MS, 7000).

%% @doc Open the door for a C node, and say at which port. It closes with the calling process, whose listener it is.
-spec open(node()) -> {ok, inet:port_number()} | {error, {no_listener, inet:posix()}}.
open(CNode) ->
    case gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {active, false}, {packet, 2}, {backlog, ?BACKLOG}]) of
        {ok, Listener} ->
            _ = spawn_link(fun() -> accept(Listener, CNode) end),
            inet:port(Listener);
        {error, Reason} ->
            {error, {no_listener, Reason}}
    end.

accept(Listener, CNode) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            hand_over(Socket, CNode),
            accept(Listener, CNode);
        {error, closed} ->
            ok;
        {error, _} ->
            %% No descriptor is free, or the client has gone.
            timer:sleep(100),
            accept(Listener, CNode)
    end.

%% The process of a connection belongs to net_kernel, which it has to be linked to, and lives as long as the connection.
hand_over(Socket, CNode) ->
    Pid = spawn(fun() ->
        receive go -> connection(whereis(net_kernel), Socket, CNode) end
    end),
    _ = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go.

connection(undefined, _Socket, _CNode) ->
    ok;
connection(Kernel, Socket, CNode) ->
    link(Kernel),
    process_flag(priority, max),
    dist_util:handshake_other_started(#hs_data{
        kernel_pid = Kernel,
        this_node = node(),
        socket = Socket,
        timer = dist_util:start_timer(?SETUP_MS),
        this_flags = 0,
        allowed = [CNode],
        f_send = fun gen_tcp:send/2,
        f_recv = fun gen_tcp:recv/3,
        f_setopts_pre_nodeup = fun(S) -> inet:setopts(S, [{active, false}, {packet, 4}, {nodelay, true}]) end,
        f_setopts_post_nodeup =
            fun(S) -> inet:setopts(S, [{active, true}, {deliver, port}, {packet, 4}, binary, {nodelay, true}]) end,
        f_getll = fun inet:getll/1,
        f_address = fun(S, _Node) -> address(S) end,
        mf_tick = fun tick/1,
        mf_getstat = fun socket_statistics/1,
        mf_setopts = fun inet:setopts/2,
        mf_getopts = fun inet:getopts/2
    }).

address(Socket) ->
    {ok, Address} = inet:peername(Socket),
    #net_address{address = Address, host = "127.0.0.1", protocol = tcp, family = inet}.

%% An empty packet; net_kernel must not wait for one that can't be sent.
tick(Socket) ->
    case inet_tcp:send(Socket, [], [force]) of
        {error, closed} = Error ->
            self() ! {tcp_closed, Socket},
            Error;
        Result ->
            Result
    end.

socket_statistics(Socket) ->
    case inet:getstat(Socket, [recv_cnt, send_cnt, send_pend]) of
        {ok, Counts} -> {ok, value(recv_cnt, Counts), value(send_cnt, Counts), value(send_pend, Counts)};
        Error -> Error
    end.

value(Key, Counts) ->
    {Key, Value} = lists:keyfind(Key, 1, Counts),
    Value.
