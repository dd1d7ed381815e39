%% SPDX-License-Identifier: Apache-2.0
%% @doc Runs one EUnit module for `test/run', prints what failed or was skipped, and leaves the three numbers in a file,
%% and beside it, in FILE.log, what the programs printed: each line after the process id of the program.
-module(suite).
-behaviour(eunit_listener).

-export([main/1]).
-export([start/1, init/1, handle_begin/3, handle_end/3, handle_cancel/3, terminate/2]).

-record(count, {name, report_to, passed = 0, failed = 0, skipped = 0, mark = 0}).

%% A failed test shows at most so many of the last lines that its programs printed.
-define(LINES, 200).

%% @doc Entry from the command line: the suite's name and the file for its result. With TEST in the environment only the
%% tests run that have this text in their title, or in that of a group around them.
-spec main([string()]) -> no_return().
main([Name, ResultFile]) ->
    Module = list_to_atom(Name ++ "_tests"),
    Self = self(),
    ok = cnode:keep_lines(),
    _ = eunit:test(tests(Module, os:getenv("TEST", "")), [no_tty, {report, {?MODULE, [{name, Name}, {report_to, Self}]}}]),
    receive
        {?MODULE, Passed, Failed, Skipped} ->
            {_, Lines} = cnode:kept_lines(0),
            ok = file:write_file(ResultFile ++ ".log", printed(Lines)),
            ok = file:write_file(ResultFile, io_lib:format("~b ~b ~b~n", [Passed, Failed, Skipped]))
    end,
    cnode:kill_all(),
    halt(0).

tests(Module, "") ->
    Module;
tests(Module, Title) ->
    Generators = [Name || {Name, 0} <- Module:module_info(exports), lists:suffix("_test_", atom_to_list(Name))],
    [{generator, fun() -> titled(Title, Module:Name()) end} || Name <- Generators].

titled(Title, Tests) when is_list(Tests) ->
    [titled(Title, Test) || Test <- Tests];
titled(Title, {Text, Tests}) when is_list(Text) ->
    {Text, case string:find(Text, Title) of nomatch -> titled(Title, Tests); _ -> Tests end};
titled(_, Test) when is_function(Test, 0) ->
    [];
titled(Title, Instantiator) when is_function(Instantiator, 1) ->
    fun(Fixture) -> titled(Title, Instantiator(Fixture)) end;
titled(Title, Test) ->
    Last = tuple_size(Test),
    setelement(Last, Test, titled(Title, element(Last, Test))).

%% @private
start(Options) ->
    eunit_listener:start(?MODULE, Options).

%% @private
init(Options) ->
    #count{name = proplists:get_value(name, Options), report_to = proplists:get_value(report_to, Options)}.

%% @private
handle_begin(_Kind, _Data, Count) ->
    Count.

%% @private
handle_end(test, Data, Count) ->
    case proplists:get_value(status, Data) of
        ok ->
            {Mark, _} = cnode:kept_lines(Count#count.mark),
            Count#count{passed = Count#count.passed + 1, mark = Mark};
        {skipped, Why} -> skipped(Data, Why, Count);
        {error, {throw, {skip, Why}, _Stack}} -> skipped(Data, Why, Count);
        {error, Exception} -> failed(Data, format(Exception), Count)
    end;
handle_end(group, _Data, Count) ->
    Count.

%% @private
handle_cancel(Kind, Data, Count) ->
    case proplists:get_value(reason, Data) of
        {abort, {_, {throw, {skip, Why}, _Stack}}} -> skipped(Data, Why, Count);
        undefined when Kind =:= group -> Count;
        {blame, _} -> Count;
        {abort, {What, {_, _, _} = Exception}} ->
            failed(Data, [atom_to_list(What), $\n, format(Exception)], Count);
        Reason -> failed(Data, io_lib:format("~0tp", [Reason]), Count)
    end.

%% @private
terminate(Result, #count{name = Name} = Count) ->
    Failed =
        case Result of
            {ok, _} -> Count#count.failed;
            {error, Reason} ->
                io:format("~ts: ~0tp~n", [Name, Reason]),
                Count#count.failed + 1
        end,
    Count#count.report_to ! {?MODULE, Count#count.passed, Failed, Count#count.skipped},
    ok.

failed(Data, What, Count) ->
    io:format("~ts: FAILED: ~ts~n~ts~n", [Count#count.name, title(Data), What]),
    case string:trim(proplists:get_value(output, Data, <<>>)) of
        Empty when Empty =:= <<>>; Empty =:= "" -> ok;
        Output -> io:format("  output: ~ts~n", [Output])
    end,
    {Mark, Lines} = cnode:kept_lines(Count#count.mark),
    Last = lists:nthtail(max(0, length(Lines) - ?LINES), Lines),
    Last =:= [] orelse io:put_chars(["  its programs, by their process ids:\n", printed(Last)]),
    Count#count{failed = Count#count.failed + 1, mark = Mark}.

printed(Lines) ->
    [io_lib:format("~0tp ~s~n", [OsPid, Line]) || {OsPid, Line} <- Lines].

skipped(Data, Why, Count) ->
    io:format("~ts: skipped: ~ts: ~ts~n", [Count#count.name, title(Data), Why]),
    Count#count{skipped = Count#count.skipped + 1}.

%% An exception without the frames of EUnit itself.
format({Class, Reason, Stack}) ->
    Own = [Frame || {Module, _, _, _} = Frame <- Stack, not lists:prefix("eunit_", atom_to_list(Module))],
    eunit_lib:format_exception({Class, Reason, Own}, 5000).

title(Data) ->
    Source =
        case proplists:get_value(source, Data) of
            {_, Function, _} -> atom_to_list(Function);
            _ -> ""
        end,
    case proplists:get_value(desc, Data) of
        Text when Text =:= undefined; Text =:= ""; Text =:= <<>> -> Source;
        Text -> io_lib:format("~ts", [Text])
    end.
