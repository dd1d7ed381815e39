%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc The C program as a port of the calling process: its start, its lines, its end.
%%
%% The program ends at the end of its standard input, so it ends with the process that started it and with the VM,
%% however these end.
-module(macula_nat_cnode_port).

-export([options/0, start/1, take/2, await_exit/2, stop/1]).

-export_type([program/0]).

-include_lib("kernel/include/logger.hrl").

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
    [listen, punch_timeout_ms, max_punch_attempts, args].

%% @doc Start the program and wait until it can be called. It gets the cookie of this VM, and a name made from this
%% VM's. The calling process becomes the owner of the port.
-spec start(#{atom() => term()}) -> {ok, node(), program()} | {error, term()}.
start(Options) ->
    try arguments(Options) of
        Arguments -> open(Arguments)
    catch
        throw:{bad_option, _, _} = Reason -> {error, Reason}
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
            end
    after left(Deadline) ->
        ok = stop(Program),
        {error, not_ready}
    end.

%% @doc Take a message if it is one of the program's: `ok' after a line, which is logged; `false' if it is not.
-spec take(term(), program()) -> ok | false | {exit_status, non_neg_integer()}.
take({Port, {data, {_, Line}}}, {Port, _}) ->
    log(Line);
take({Port, {exit_status, _} = Status}, {Port, _}) ->
    Status;
take(_, _) ->
    false.

%% @doc Wait until the program has ended, and log what it says meanwhile.
-spec await_exit(program(), non_neg_integer()) -> timeout | {exit_status, non_neg_integer()}.
await_exit(Program, Timeout) ->
    await_exit_until(Program, deadline(Timeout)).

await_exit_until({Port, _} = Program, Deadline) ->
    receive
        {Port, Event} ->
            case take({Port, Event}, Program) of
                {exit_status, _} = Status -> Status;
                _ -> await_exit_until(Program, Deadline)
            end
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
        {exit_status, _} ->
            ok;
        timeout ->
            ok = signal("KILL", Program),
            _ = await_exit(Program, ?KILL_MS),
            ok
    end.

%% To close the port would end the program as well, but nobody would say when it has ended.
signal(Name, {_, OsPid}) when OsPid > 0 ->
    _ = os:cmd("kill -" ++ Name ++ " " ++ integer_to_list(OsPid)),
    ok;
signal(_, _) ->
    ok.

%%%-------------------------------------------------------------------
%%% The command line and the environment
%%%-------------------------------------------------------------------

arguments(#{listen := Listen, args := Args} = Options) ->
    name(Listen) ++
        ["--exit-on-stdin-eof", "--listen", text(listen, Listen, macula_nat_cnode_dist:loopback())] ++
        number("--punch-timeout-ms", punch_timeout_ms, Options) ++
        number("--max-punch-attempts", max_punch_attempts, Options) ++
        texts(args, Args).

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

%% The name is one that reaches the address listened on: with the loopback address only this machine's processes can
%% call, whatever the address of its host name is.
name(Listen) ->
    {Flag, Local} =
        case net_kernel:longnames() of
            true -> {"--name", macula_nat_cnode_dist:loopback()};
            _ -> {"--sname", "localhost"}
        end,
    {Alive, Host} =
        case node() =/= nonode@nohost andalso not macula_nat_cnode_dist:is_own() of
            true -> list_to_tuple(string:split(atom_to_list(node()), "@"));
            false -> {os:getpid(), Local}
        end,
    [Flag, "macula_nat_" ++ lists:flatmap(fun name_character/1, Alive) ++ "@" ++
        case Listen of
            undefined -> Local;
            _ -> Host
        end].

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

%% The program starts EPMD if there is none.
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

%%%-------------------------------------------------------------------
%%% Log lines
%%%-------------------------------------------------------------------

%% `2026-11-22T17:50:22.913Z notice text'; what is none of these is a last word, as of a wrong command line.
log(Line) ->
    case binary:split(Line, <<" ">>, [global]) of
        [<<_:10/binary, "T", _:12/binary, "Z">> = Time, Name | _] ->
            case level(Name) of
                undefined -> ?LOG_ERROR("macula_nat_cnode: ~ts", [Line]);
                Level -> ?LOG(Level, "macula_nat_cnode: ~ts", [rest(Line, Time, Name)])
            end;
        _ ->
            ?LOG_ERROR("~ts", [Line])
    end.

rest(Line, Time, Name) ->
    Skip = byte_size(Time) + byte_size(Name) + 2,
    <<_:Skip/binary, Text/binary>> = Line,
    Text.

level(<<"error">>) -> error;
level(<<"warning">>) -> warning;
level(<<"notice">>) -> notice;
level(<<"info">>) -> info;
level(<<"debug">>) -> debug;
level(_) -> undefined.
