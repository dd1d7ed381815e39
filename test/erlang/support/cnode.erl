%% SPDX-License-Identifier: Apache-2.0
%% @doc The test harness: starts and watches the program under test, Erlang peer nodes and EPMDs of a test's own.
%%
%% The program is started by {@link start/1}, which returns when its line `ready NODE PORT' has been read. Each program
%% has an owner process that is linked to the caller: when the caller ends, however it does, the program is killed.
%% Everything that the program prints is kept line by line and can be awaited as an event ({@link await_log/2}).
%%
%% Erlang nodes are started by {@link peer/1}. They are controlled through their standard input and output, so the
%% distribution stays the test's own, and code is run on them with {@link on/2}.
%%
%% Nothing here sleeps for a fixed time. Where there is no event to wait for, {@link await/1} looks again until the
%% condition holds or a generous limit has passed.
-module(cnode).

-export([start/0, start/1, run/1, stop/1, signal/2, kill/1, kill_all/0, await_exit/1, is_alive/1]).
-export([log/1, await_log/2, await_log/3, await_log/4, mark/1, keep_lines/0, kept_lines/1]).
-export([memory/1, is_instrumented/1, descriptors/1, command/0]).
-export([peer/0, peer/1, peer_stop/1, peer_kill/1, on/2, on/3, dynamic_peer/1]).
-export([epmd_start/0, epmd_start/1, epmd_start/2, epmd_stop/1, epmd_port/1, epmd_names/0, epmd_names/1]).
-export([await/1, await/2, unique/1, skip/1, cookie/0, free_port/0]).
-export([with/2, nodedown/2]).

-export_type([handle/0, peer/0, epmd/0]).

-type handle() :: #{owner := pid(), node := node(), name := string(), port := inet:port_number(), os_pid := pos_integer()}.
-type peer() :: #{peer := pid(), node := node()}.
-type epmd() :: {epmd, pid(), inet:port_number()}.
-type options() :: #{
    program => string(),               % the program, default `command()'
    args => [string()],                % further arguments
    name => string(),                  % the part before `@', default a fresh one
    node_args => [string()],           % instead of `--name NAME@127.0.0.1'
    cookie => string() | none,         % goes into MACULA_NAT_COOKIE; none: the file in HOME decides
    env => [{string(), string() | false}],
    stderr => merged | file:filename() % where the log goes
}.

-define(LIMIT, 30000).
-define(OWNER, 'owner of a program').
-define(KEPT, cnode_kept_lines).

%%%-------------------------------------------------------------------
%%% The program under test
%%%-------------------------------------------------------------------

%% @equiv start(#{})
-spec start() -> handle().
start() ->
    start(#{}).

%% @doc Start the program and wait until it is ready. Fails with what it printed if it ends before.
-spec start(options()) -> handle().
start(Options) ->
    Owner = own(Options),
    case call(Owner, ready) of
        {ready, Node, Port, OsPid} ->
            [Name | _] = string:split(Node, "@"),
            #{owner => Owner, node => list_to_atom(Node), name => Name, port => Port, os_pid => OsPid};
        {exit, Status, Lines} ->
            error({not_ready, Status, Lines})
    end.

%% @doc Start the program with exactly the arguments given and wait until it ends: for wrong command lines.
-spec run(options()) -> {Status :: non_neg_integer(), Lines :: [string()]}.
run(Options) ->
    Owner = own(Options#{node_args => maps:get(node_args, Options, [])}),
    case call(Owner, exit) of
        {exit, Status, Lines} -> {Status, Lines}
    end.

%% @doc End the program with SIGTERM and return its exit status.
-spec stop(handle()) -> non_neg_integer().
stop(Handle) ->
    signal(Handle, "TERM"),
    await_exit(Handle).

%% @doc End the program with SIGKILL.
-spec kill(handle() | #{owner := pid()}) -> ok.
kill(Handle) ->
    signal(Handle, "KILL"),
    _ = await_exit(Handle),
    ok.

%% @doc End everything that failed tests may have left running, before the suite's own node ends.
-spec kill_all() -> ok.
kill_all() ->
    lists:foreach(fun(Pid) ->
        case process_info(Pid, dictionary) of
            {dictionary, Dictionary} -> proplists:is_defined(?OWNER, Dictionary) andalso kill_if_there(Pid);
            undefined -> ok
        end
    end, processes()).

kill_if_there(Pid) ->
    try kill(#{owner => Pid}) catch _:_ -> ok end.

%% @doc Send a signal ("TERM", "STOP", ...) to the program.
-spec signal(handle() | #{owner := pid()}, string()) -> ok.
signal(#{owner := Owner}, Signal) ->
    call(Owner, {signal, Signal}).

%% @doc Wait until the program has ended; its exit status (128 + N after signal N).
-spec await_exit(handle() | #{owner := pid()}) -> non_neg_integer().
await_exit(#{owner := Owner}) ->
    {exit, Status, _} = call(Owner, exit),
    Status.

%% @doc Whether the program still runs.
-spec is_alive(handle()) -> boolean().
is_alive(#{owner := Owner}) ->
    call(Owner, is_alive).

%% @doc All lines printed so far, oldest first.
-spec log(handle()) -> [string()].
log(#{owner := Owner}) ->
    call(Owner, log).

%% @doc A place in the log: give it to `await_log/3' to see only lines printed after it.
-spec mark(handle()) -> non_neg_integer().
mark(Handle) ->
    length(log(Handle)).

%% @doc From now on, and while the caller lives, keep what all programs of this node print, also when they have ended.
-spec keep_lines() -> ok.
keep_lines() ->
    ?KEPT = ets:new(?KEPT, [named_table, public, ordered_set]),
    ok.

%% @doc The lines kept after a mark, 0 at first: the next mark, and the lines with the process id of who printed them.
-spec kept_lines(Mark) -> {Mark, [{OsPid :: term(), string()}]} when Mark :: non_neg_integer().
kept_lines(Mark) ->
    Next = erlang:unique_integer([monotonic, positive]),
    {Next, ets:select(?KEPT, [{{'$1', '$2', '$3'}, [{'>', '$1', Mark}, {'<', '$1', Next}], [{{'$2', '$3'}}]}])}.

%% @doc Wait for a line that matches a regular expression; one that is there already counts.
-spec await_log(handle(), iodata()) -> string().
await_log(Handle, Regexp) ->
    await_log(Handle, Regexp, 0).

%% @doc As `await_log/2' but only lines after a mark count.
-spec await_log(handle(), iodata(), non_neg_integer()) -> string().
await_log(Handle, Regexp, Mark) ->
    await_log(Handle, Regexp, Mark, ?LIMIT).

%% @doc The same with another limit (milliseconds), for what the program itself waits for so long.
-spec await_log(handle(), iodata(), non_neg_integer(), timeout()) -> string().
await_log(#{owner := Owner}, Regexp, Mark, Limit) ->
    case call(Owner, {await_log, Regexp, Mark}, Limit) of
        {exit, Status, Lines} -> error({ended_without, Regexp, Status, Lines});
        Line -> Line
    end.

%% @doc Resident memory of the program in kB.
-spec memory(handle()) -> non_neg_integer().
memory(#{os_pid := OsPid}) ->
    {ok, Status} = file:read_file(io_lib:format("/proc/~b/status", [OsPid])),
    {match, [Size]} = re:run(Status, "VmRSS:\\s+([0-9]+) kB", [{capture, all_but_first, list}]),
    list_to_integer(Size).

%% @doc Whether the program runs under valgrind or was built with a sanitizer. Such a program keeps freed memory back:
%% its size says nothing of what was left behind.
-spec is_instrumented(handle()) -> boolean().
is_instrumented(#{os_pid := OsPid}) ->
    Exe = io_lib:format("/proc/~b/exe", [OsPid]),
    {ok, Path} = file:read_link(Exe),
    {ok, Bytes} = file:read_file(Exe),
    string:find(Path, "valgrind") =/= nomatch
        orelse binary:match(Bytes, [<<"__asan_init">>, <<"__tsan_init">>, <<"__msan_init">>]) =/= nomatch.

%% @doc Number of open file descriptors of the program.
-spec descriptors(handle()) -> non_neg_integer().
descriptors(#{os_pid := OsPid}) ->
    {ok, Names} = file:list_dir(io_lib:format("/proc/~b/fd", [OsPid])),
    length(Names).

%% @doc The program under test: the environment's CNODE.
-spec command() -> string().
command() ->
    os:getenv("CNODE", "priv/macula_nat_cnode").

own(Options) ->
    Parent = self(),
    Program = filename:absname(maps:get(program, Options, command())),
    filelib:is_regular(Program) orelse error({no_program, Program}),
    NodeArgs =
        case Options of
            #{node_args := Args} -> Args;
            #{} -> ["--name", maps:get(name, Options, unique("cnode")) ++ "@127.0.0.1"]
        end,
    Cookie =
        case maps:get(cookie, Options, cookie()) of
            none -> [];
            Text -> [{"MACULA_NAT_COOKIE", Text}]
        end,
    AllArgs = NodeArgs ++ maps:get(args, Options, []),
    {Exec, ExecArgs} =
        case maps:get(stderr, Options, merged) of
            merged -> {Program, AllArgs};
            File -> {"/bin/sh", ["-c", "f=$1; shift; exec \"$@\" 2>\"$f\"", "sh", File, Program | AllArgs]}
        end,
    Settings = [
        {args, ExecArgs}, {env, Cookie ++ maps:get(env, Options, [])}, stderr_to_stdout, exit_status, binary, hide
    ],
    spawn(fun() -> owner(Parent, Exec, Settings) end).

-record(owner, {parent, port, os_pid, ready, status, partial = <<>>, lines = [], waiting = []}).

owner(Parent, Exec, Settings) ->
    process_flag(trap_exit, true),
    put(?OWNER, true),
    _ = link_if_alive(Parent),
    Port = open_port({spawn_executable, Exec}, Settings),
    OsPid =
        case erlang:port_info(Port, os_pid) of
            {os_pid, Id} -> Id;
            undefined -> undefined
        end,
    owner(#owner{parent = Parent, port = Port, os_pid = OsPid}).

link_if_alive(Parent) ->
    try link(Parent) catch error:noproc -> self() ! {'EXIT', Parent, noproc} end.

owner(#owner{port = Port, parent = Parent} = S) ->
    receive
        {Port, {data, Data}} ->
            owner(answer_waiting(take_lines(<<(S#owner.partial)/binary, Data/binary>>, S)));
        {Port, {exit_status, Status}} ->
            Last = [binary_to_list(S#owner.partial) || S#owner.partial =/= <<>>],
            owner(answer_waiting(S#owner{status = Status, lines = Last ++ S#owner.lines, partial = <<>>}));
        {'EXIT', Parent, _} ->
            S#owner.status =:= undefined andalso send_signal("KILL", S#owner.os_pid);
        {'EXIT', _, _} ->
            owner(S);
        {?MODULE, From, {signal, Signal}} ->
            S#owner.status =:= undefined andalso send_signal(Signal, S#owner.os_pid),
            reply(From, ok),
            owner(S);
        {?MODULE, From, log} ->
            reply(From, lists:reverse(S#owner.lines)),
            owner(S);
        {?MODULE, From, Request} ->
            owner(answer_waiting(S#owner{waiting = [{From, Request} | S#owner.waiting]}))
    end.

send_signal(Signal, OsPid) ->
    _ = os:cmd(io_lib:format("kill -~s ~b", [Signal, OsPid])),
    ok.

take_lines(Data, S) ->
    case binary:split(Data, <<"\n">>) of
        [Line, Rest] ->
            Text = binary_to_list(Line),
            _ = ets:whereis(?KEPT) =/= undefined andalso
                ets:insert(?KEPT, {erlang:unique_integer([monotonic, positive]), S#owner.os_pid, Text}),
            take_lines(Rest, note_ready(Text, S#owner{lines = [Text | S#owner.lines]}));
        [Partial] ->
            S#owner{partial = Partial}
    end.

note_ready("ready " ++ Rest, #owner{ready = undefined} = S) ->
    case string:lexemes(Rest, " ") of
        [Node, Port] -> S#owner{ready = {ready, Node, list_to_integer(Port), S#owner.os_pid}};
        _ -> S
    end;
note_ready(_, S) ->
    S.

answer_waiting(S) ->
    Left = lists:filter(
        fun({From, Request}) ->
            case answer(Request, S) of
                wait -> true;
                Answer -> reply(From, Answer), false
            end
        end, S#owner.waiting),
    S#owner{waiting = Left}.

answer(exit, #owner{status = undefined}) -> wait;
answer(exit, #owner{status = Status, lines = Lines}) -> {exit, Status, lists:reverse(Lines)};
answer(is_alive, #owner{status = Status}) -> Status =:= undefined;
answer(ready, #owner{ready = undefined} = S) -> answer(exit, S);
answer(ready, #owner{ready = Ready}) -> Ready;
answer({await_log, Regexp, Mark}, #owner{lines = Lines, status = Status}) ->
    New = lists:nthtail(min(Mark, length(Lines)), lists:reverse(Lines)),
    case [Line || Line <- New, re:run(Line, Regexp, [{capture, none}]) =:= match] of
        [Line | _] -> Line;
        [] when Status =:= undefined -> wait;
        [] -> {exit, Status, lists:reverse(Lines)}
    end.

call(Owner, Request) ->
    call(Owner, Request, ?LIMIT).

call(Owner, Request, Limit) ->
    Ref = monitor(process, Owner),
    Owner ! {?MODULE, {self(), Ref}, Request},
    receive
        {Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, Owner, Reason} ->
            error({owner_ended, Reason})
    after Limit ->
        demonitor(Ref, [flush]),
        error({not_within_limit, Request, log(#{owner => Owner})})
    end.

reply({Pid, Ref}, Answer) ->
    Pid ! {Ref, Answer}.

%%%-------------------------------------------------------------------
%%% Erlang nodes
%%%-------------------------------------------------------------------

%% @equiv peer(#{})
-spec peer() -> peer().
peer() ->
    peer(#{}).

%% @doc Start an Erlang node with a name at 127.0.0.1 (or a short name), linked to the caller. With `inside' it has no
%% name, and is started by that command line, to which its arguments are added: it may be in another network.
-spec peer(#{name => string(), shortnames => boolean(), args => [string()], env => [{string(), string()}],
             inside => [string()]}) -> peer().
peer(#{inside := [Command | Arguments]}) ->
    {ok, Pid, Node} = peer:start_link(#{
        connection => standard_io,
        wait_boot => ?LIMIT,
        exec => {os:find_executable(Command), Arguments},
        args => peer_args()
    }),
    #{peer => Pid, node => Node};
peer(Options) ->
    Names =
        case Options of
            #{shortnames := true} -> #{longnames => false};
            #{} -> #{longnames => true, host => "127.0.0.1"}
        end,
    {ok, Pid, Node} = peer:start_link(Names#{
        name => maps:get(name, Options, unique("peer")),
        connection => standard_io,
        wait_boot => ?LIMIT,
        env => maps:get(env, Options, []),
        args => peer_args() ++ maps:get(args, Options, [])
    }),
    #{peer => Pid, node => Node}.

%% @doc Start an Erlang node that is given its short name by the first node that it connects to.
-spec dynamic_peer([{string(), string()}]) -> peer().
dynamic_peer(Env) ->
    Started = peer:start_link(#{
        connection => standard_io,
        wait_boot => ?LIMIT,
        env => Env,
        args => ["-sname", "undefined" | peer_args()]
    }),
    Pid = element(2, Started),
    ok = element(1, Started),
    #{peer => Pid, node => undefined}.

peer_args() ->
    ["-boot", "no_dot_erlang", "-pa", filename:dirname(code:which(?MODULE)),
     "-kernel", "connect_all", "false", "-kernel", "prevent_overlapping_partitions", "false",
     "-kernel", "logger_level", "none", "+S", "2:2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"].

%% @doc End an Erlang node.
-spec peer_stop(peer()) -> ok.
peer_stop(#{peer := Pid}) ->
    unlink(Pid),
    peer:stop(Pid).

%% @doc End an Erlang node with SIGKILL: it says nothing to anyone.
-spec peer_kill(peer()) -> ok.
peer_kill(#{peer := Pid} = Peer) ->
    OsPid = on(Peer, fun() -> os:getpid() end),
    unlink(Pid),
    Ref = monitor(process, Pid),
    _ = os:cmd("kill -KILL " ++ OsPid),
    receive {'DOWN', Ref, process, Pid, _} -> ok end.

%% @equiv on(Peer, Fun, 30000)
-spec on(peer(), fun(() -> Result)) -> Result.
on(Peer, Fun) ->
    on(Peer, Fun, ?LIMIT).

%% @doc Run a fun on a node, in a process of its own; its result or its exception is the caller's.
-spec on(peer(), fun(() -> Result), timeout()) -> Result.
on(#{peer := Pid}, Fun, Limit) ->
    peer:call(Pid, erlang, apply, [Fun, []], Limit).

%% @doc Run a fun on a node and then wait until that node has lost its connection to another one.
-spec nodedown(node(), fun(() -> term())) -> ok.
nodedown(Node, Cut) ->
    true = erlang:monitor_node(Node, true),
    _ = Cut(),
    receive {nodedown, Node} -> ok after ?LIMIT -> error({no_nodedown, Node}) end.

%%%-------------------------------------------------------------------
%%% EPMD
%%%-------------------------------------------------------------------

%% @doc Start an EPMD of the test's own on a free port, linked to the caller.
-spec epmd_start() -> epmd().
epmd_start() ->
    epmd_start(free_port()).

%% @equiv epmd_start(Port, "127.0.0.1")
-spec epmd_start(inet:port_number()) -> epmd().
epmd_start(Port) ->
    epmd_start(Port, "127.0.0.1").

%% @doc Start an EPMD on a given port and address.
-spec epmd_start(inet:port_number(), string()) -> epmd().
epmd_start(Port, Address) ->
    Parent = self(),
    Owner = spawn(fun() ->
        owner(Parent, os:find_executable("epmd"),
              [{args, ["-port", integer_to_list(Port)]}, {env, [{"ERL_EPMD_ADDRESS", Address}]},
               stderr_to_stdout, exit_status, binary, hide])
    end),
    await(fun() -> epmd_names(Port) =/= {error, address} end),
    {epmd, Owner, Port}.

%% @doc Kill an EPMD of our own.
-spec epmd_stop(epmd()) -> ok.
epmd_stop({epmd, Owner, _}) ->
    kill(#{owner => Owner}).

%% @doc The port of an EPMD.
-spec epmd_port(epmd()) -> inet:port_number().
epmd_port({epmd, _, Port}) ->
    Port.

%% @doc The names that the run's own EPMD knows.
-spec epmd_names() -> [{string(), inet:port_number()}] | {error, address}.
epmd_names() ->
    epmd_names(list_to_integer(os:getenv("ERL_EPMD_PORT", "4369"))).

%% @doc The names that the EPMD on a port knows.
-spec epmd_names(inet:port_number()) -> [{string(), inet:port_number()}] | {error, address}.
epmd_names(EpmdPort) ->
    case gen_tcp:connect({127, 0, 0, 1}, EpmdPort, [binary, {active, false}], ?LIMIT) of
        {ok, Socket} ->
            ok = gen_tcp:send(Socket, <<1:16, $n>>),
            Answer = read_all(Socket, <<>>),
            gen_tcp:close(Socket),
            names(Answer);
        {error, _} ->
            {error, address}
    end.

names(<<_:32, Text/binary>>) ->
    [begin
         ["name", Name, "at", "port", Port] = string:lexemes(Line, " "),
         {Name, list_to_integer(Port)}
     end || Line <- string:lexemes(binary_to_list(Text), "\n")];
names(_) ->
    {error, address}.

read_all(Socket, Data) ->
    case gen_tcp:recv(Socket, 0, ?LIMIT) of
        {ok, More} -> read_all(Socket, <<Data/binary, More/binary>>);
        {error, _} -> Data
    end.

%%%-------------------------------------------------------------------
%%% Helpers
%%%-------------------------------------------------------------------

%% @equiv await(Condition, 30000)
-spec await(fun(() -> boolean())) -> ok.
await(Condition) ->
    await(Condition, ?LIMIT).

%% @doc Look at a condition until it holds: only for what sends no event. Fails after the limit (milliseconds).
-spec await(fun(() -> boolean()), timeout()) -> ok.
await(Condition, Limit) ->
    await_until(Condition, erlang:monotonic_time(millisecond) + Limit).

await_until(Condition, End) ->
    case Condition() of
        true -> ok;
        false ->
            case erlang:monotonic_time(millisecond) of
                Now when Now >= End -> error(condition_not_met);
                _ -> receive after 20 -> await_until(Condition, End) end
            end
    end.

%% @doc A name that no other node of this machine has.
-spec unique(string()) -> string().
unique(Prefix) ->
    lists:concat([Prefix, "_", os:getpid(), "_", erlang:unique_integer([positive])]).

%% @doc End the test as skipped, with the reason why it cannot run here.
-spec skip(string()) -> no_return().
skip(Why) ->
    throw({skip, Why}).

%% @doc The cookie of the run.
-spec cookie() -> string().
cookie() ->
    {ok, [[Home]]} = init:get_argument(home),
    {ok, Cookie} = file:read_file(filename:join(Home, ".erlang.cookie")),
    string:trim(binary_to_list(Cookie)).

%% @doc A TCP port of 127.0.0.1 that is free now. It is none of those that the kernel gives to clients: no connection
%% of a neighbour can take it before it is used, or while an EPMD that had it is being started again.
-spec free_port() -> inet:port_number().
free_port() ->
    Port = 10000 + rand:uniform(20000),
    case gen_tcp:listen(Port, [{ip, {127, 0, 0, 1}}]) of
        {ok, Socket} ->
            ok = gen_tcp:close(Socket),
            Port;
        {error, eaddrinuse} ->
            free_port()
    end.

%% @doc Start the program, run a fun with its handle, and end the program: it must end with status 0.
-spec with(options(), fun((handle()) -> Result)) -> Result.
with(Options, Fun) ->
    Handle = start(Options),
    try Fun(Handle) of
        Result ->
            case stop(Handle) of
                0 -> Result;
                Status -> error({exit_status, Status, log(Handle)})
            end
    catch
        Class:Reason:Stack ->
            _ = kill(Handle),
            erlang:raise(Class, Reason, Stack)
    end.
