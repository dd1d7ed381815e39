%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc The C program as a port of the calling process: its start, its lines, its end.
%%
%% The program ends at the end of its standard input, so it ends with the process that started it and with the VM,
%% however these end.
-module(macula_nat_cnode_port).

-export([options/0, start/1, take/2, stop/1]).

-export_type([program/0]).

-opaque program() :: {port(), OsPid :: non_neg_integer()}.

%% EPMD may have to be started first, which the program gives 4 s.
-define(START_MS, 10000).
%% With the time that distribution takes to stop, below the 5 s that supervisors give; the program takes up to 2 s to
%% send what is queued.
-define(TERM_MS, 2500).
-define(KILL_MS, 500).
%% Longer than any line of the program.
-define(LINE_SIZE, 4096).
-define(EX_USAGE, 64).

%% @doc The options that {@link start/1} knows.
-spec options() -> [atom()].
options() ->
    [listen, compatibility, punch_timeout_ms, max_punch_attempts, args].

%% @doc Start the program and wait until it can be called. It gets the cookie of this VM, and a name made from this
%% VM's. The calling process becomes the owner of the port. `in' says that it connects to this VM, `out' that it has to
%% be connected to.
-spec start(#{atom() => term()}) -> {ok, node(), in | out, program()} | {error, term()}.
start(Options) ->
    try
        Checked = checked(Options),
        {Name, Direction, Ways} = ways(Options),
        case open(Name ++ Ways ++ Checked) of
            {ok, Node, Program} -> {ok, Node, Direction, Program};
            Error -> Error
        end
    catch
        throw:Reason -> {error, Reason}
    end.

open(Arguments) ->
    Program = filename:join(priv_dir(), "macula_nat_cnode"),
    Settings = [
        {args, Arguments},
        {env, [{"MACULA_NAT_COOKIE", cookie()}, {"PATH", path()}]},
        {line, ?LINE_SIZE}, binary, exit_status, stderr_to_stdout
    ],
    try open_port({spawn_executable, Program}, Settings) of
        Port ->
            case erlang:port_info(Port, os_pid) of
                {os_pid, OsPid} -> await_ready({Port, OsPid}, deadline(?START_MS));
                undefined -> await_ready({Port, 0}, deadline(?START_MS))
            end
    catch
        error:Reason -> {error, {cannot_run, Program, Reason}}
    end.

await_ready({Port, _} = Program, Deadline) ->
    receive
        {Port, {data, {eol, <<"ready ", Ready/binary>>}}} ->
            [Node, _ListenPort] = binary:split(Ready, <<" ">>),
            {ok, binary_to_atom(Node), Program};
        {Port, Event} ->
            case take({Port, Event}, Program) of
                {exit_status, _} = Status -> {error, Status};
                _ -> await_ready(Program, Deadline)
            end;
        {'EXIT', Port, Reason} ->
            {error, {port_closed, Reason}}
    after left(Deadline) ->
        ok = stop(Program),
        {error, not_ready}
    end.

%% @doc Take a message if it is one of the program's: `ok' after a line, which is logged; `false' if it is not;
%% anything else says how it has ended. Without its port the program ends by itself, and its process id is nobody's to
%% signal any more.
-spec take(term(), program()) -> ok | false | {exit_status, non_neg_integer()} | {port_closed, term()}.
take({Port, {data, {_, Line}}}, {Port, _}) ->
    macula_nat_cnode_log:program_line(Line);
take({Port, {exit_status, _} = Status}, {Port, _}) ->
    Status;
take({'EXIT', Port, Reason}, {Port, _}) ->
    {port_closed, Reason};
take(_, _) ->
    false.

%% Wait until the program has ended, and log what it says meanwhile.
await_exit(Program, Timeout) ->
    await_exit_until(Program, deadline(Timeout)).

await_exit_until({Port, _} = Program, Deadline) ->
    receive
        {Port, Event} ->
            case take({Port, Event}, Program) of
                {exit_status, _} -> ended;
                _ -> await_exit_until(Program, Deadline)
            end;
        {'EXIT', Port, _} ->
            ended
    after left(Deadline) ->
        timeout
    end.

deadline(Timeout) ->
    erlang:monotonic_time(millisecond) + Timeout.

left(Deadline) ->
    max(0, Deadline - erlang:monotonic_time(millisecond)).

%% @doc End the program in order, or by force if it does not react.
-spec stop(program()) -> ok.
stop(Program) ->
    ok = signal("TERM", Program),
    case await_exit(Program, ?TERM_MS) of
        ended ->
            ok;
        timeout ->
            ok = signal("KILL", Program),
            _ = await_exit(Program, ?KILL_MS),
            ok
    end.

%% To close the port would end the program as well, but nobody would say when it has ended. As long as the port is open
%% and has not told of the end, the process id is the program's.
signal(Name, {Port, OsPid} = Program) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, OsPid} ->
            case has_ended(Program) of
                true -> ok;
                false -> _ = os:cmd("kill -" ++ Name ++ " " ++ integer_to_list(OsPid)), ok
            end;
        _ ->
            ok
    end.

has_ended({Port, _}) ->
    {messages, Messages} = process_info(self(), messages),
    lists:any(fun({P, {exit_status, _}}) -> P =:= Port; (_) -> false end, Messages).

%%%-------------------------------------------------------------------
%%% The command line and the environment
%%%-------------------------------------------------------------------

checked(#{listen := Listen, compatibility := Compatibility, args := Args} = Options) ->
    ["--exit-on-stdin-eof", "--log-level", macula_nat_cnode_log:program_level(),
     "--listen", text(listen, Listen, macula_nat_cnode_dist:loopback())] ++
        compatibility(Compatibility) ++
        number("--punch-timeout-ms", punch_timeout_ms, Options) ++
        number("--max-punch-attempts", max_punch_attempts, Options) ++
        texts(args, Args).

compatibility(undefined) -> [];
compatibility(v0_14_3) -> ["--compatibility", "v0_14_3"];
compatibility(Other) -> throw({bad_option, compatibility, Other}).

number(Flag, Key, Options) ->
    case Options of
        #{Key := undefined} -> [];
        #{Key := Number} when is_integer(Number) -> [Flag, integer_to_list(Number)];
        #{Key := Other} -> throw({bad_option, Key, Other})
    end.

text(_Key, undefined, Default) ->
    Default;
text(Key, Text, _Default) ->
    case io_lib:printable_unicode_list(Text) of
        true -> Text;
        false -> throw({bad_option, Key, Text})
    end.

texts(_Key, undefined) -> [];
texts(Key, Texts) when is_list(Texts) -> [text(Key, Text, "") || Text <- Texts];
texts(Key, Other) -> throw({bad_option, Key, Other}).

%% The name of the program, and how it and this VM find each other. It connects to this VM, and if nobody else is to call
%% it, it does without EPMD. Only a VM that is still to be given a name, or has one that the program does not know how to
%% write, connects to the program, by its own distribution.
ways(#{listen := Listen}) ->
    {Flag, Name} = name(Listen),
    case re:run(atom_to_list(node()), "^[A-Za-z0-9_-]+@[!-<>-~]+$", [{capture, none}]) of
        match when node() =/= nonode@nohost ->
            Port = case macula_nat_cnode_door:open(list_to_atom(Name)) of {ok, Opened} -> Opened; {error, Reason} -> throw(Reason) end,
            {[Flag, Name], in,
             ["--connect", atom_to_list(node()) ++ "=" ++ integer_to_list(Port)] ++ ["--no-epmd" || Listen =:= undefined]};
        _ ->
            case macula_nat_cnode_dist:protocol() of
                {ok, _} -> {[Flag, Name], out, []};
                {error, Reason} -> throw({unreachable, Reason})
            end
    end.

%% With the loopback address only this machine's processes can call, whatever the address of the VM's host name is. A VM
%% that had no name of its own has one that is like no other's, and so has its program.
name(Listen) ->
    {Flag, Local} =
        case net_kernel:longnames() of
            true -> {"--name", macula_nat_cnode_dist:loopback()};
            _ -> {"--sname", "localhost"}
        end,
    {Alive, Host} =
        case node() =/= nonode@nohost andalso not macula_nat_cnode_dist:is_own() of
            true -> list_to_tuple(string:split(atom_to_list(node()), "@"));
            false -> {macula_nat_cnode_dist:identity(), Local}
        end,
    {Flag, "macula_nat_" ++ lists:flatmap(fun name_character/1, Alive) ++ "@" ++
        case Listen of
            undefined -> Local;
            _ -> Host
        end}.

%% Erlang allows more characters in names than the program.
name_character(C) when C >= $a, C =< $z; C >= $A, C =< $Z; C >= $0, C =< $9; C =:= $_; C =:= $- ->
    [C];
name_character(C) ->
    [$_ | integer_to_list(C, 16)].

%% This VM's own, whatever ones it was given for other nodes. Without one (`-nocookie') the program looks for its own.
cookie() ->
    case erlang:get_cookie() of
        nocookie -> false;
        Cookie -> atom_to_list(Cookie)
    end.

%% The program starts EPMD if it needs one and there is none.
path() ->
    Erts = filename:join([code:root_dir(), "erts-" ++ erlang:system_info(version), "bin"]),
    case os:getenv("PATH") of
        false -> Erts;
        Path -> Erts ++ ":" ++ Path
    end.

%% The folder of a checkout need not have the application's name.
priv_dir() ->
    case code:priv_dir(macula_nat_cnode) of
        {error, bad_name} -> filename:join(filename:dirname(filename:dirname(code:which(?MODULE))), "priv");
        Dir -> Dir
    end.
