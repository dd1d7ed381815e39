%% SPDX-License-Identifier: Apache-2.0
%% The session that the README shows, typed into real shells: what they print must be what it says, term for term.
%% Session ids and times are the run's own. Where the README shows an id twice it must be the same twice; times need not,
%% as each peer is told a time of its own clock.
-module(readme_tests).
-include_lib("eunit/include/eunit.hrl").

-define(README, "README.md").
-define(LIMIT, 30000).

typed_at_once_test_() ->
    {spawn, {timeout, 120, fun() -> type_session([]) end}}.

%% To a node whose attempts are over before anybody has typed the next line, all typing is slow.
typed_slowly_test_() ->
    {spawn, {timeout, 120, fun() -> type_session(["--punch-timeout-ms", "1", "--max-punch-attempts", "1000"]) end}}.

type_session(Args) ->
    Program = cnode:start(#{node_args => ["--sname", "macula_nat@localhost" | Args]}),
    Steps = steps(),
    Shells = maps:from_list([{Name, open_shell(Name)} || Name <- lists:usort([Name || {Name, _, _} <- Steps])]),
    ?assert(length(Steps) >= 10),
    ?assertEqual(2, map_size(Shells)),
    _ = lists:foldl(fun({Name, Line, Shown}, Seen) ->
        Printed = type(maps:get(Name, Shells), Line),
        same(Line, normal(term(Shown)), normal(term(Printed)), Seen)
    end, #{}, Steps),
    _ = [port_close(Shell) || Shell <- maps:values(Shells)],
    ?assertEqual(0, cnode:stop(Program)).

%%%-------------------------------------------------------------------
%%% The page
%%%-------------------------------------------------------------------

%% Every `(name@vm)N> line' with what is indented below it, in the order of the page.
steps() ->
    {ok, Page} = file:read_file(?README),
    steps(string:split(Page, "\n", all), []).

steps([Line | Lines], Steps) ->
    case re:run(Line, "^    \\(([a-z]+)@vm\\)[0-9]+> (.*)$", [{capture, all_but_first, list}]) of
        {match, [Name, Typed]} ->
            {Shown, Rest} = lists:splitwith(
                fun(L) -> re:run(L, "^    (?!\\()", [{capture, none}]) =:= match end, Lines),
            steps(Rest, [{Name, Typed, lists:flatten([[binary_to_list(L), $\n] || L <- Shown])} | Steps]);
        nomatch ->
            steps(Lines, Steps)
    end;
steps([], Steps) ->
    lists:reverse(Steps).

%%%-------------------------------------------------------------------
%%% Shells
%%%-------------------------------------------------------------------

%% A shell whose input is no terminal: it echoes nothing, and its prompt is what ends an answer.
open_shell(Name) ->
    Shell = open_port({spawn_executable, os:find_executable("erl")}, [
        {args, ["-sname", Name ++ "@localhost", "-kernel", "shell_history", "disabled"]},
        {env, [{"TERM", "dumb"}, {"ERL_AFLAGS", false}, {"ERL_FLAGS", false}, {"ERL_ZFLAGS", false}]},
        binary, stderr_to_stdout, exit_status
    ]),
    _ = until_prompt(Shell, <<>>),
    Shell.

type(Shell, Line) ->
    true = port_command(Shell, [Line, $\n]),
    until_prompt(Shell, <<>>).

until_prompt(Shell, Printed) ->
    case re:run(Printed, "^(.*?)\\([a-z]+@localhost\\)[0-9]+> $", [dotall, {capture, all_but_first, list}]) of
        {match, [Answer]} ->
            Answer;
        nomatch ->
            receive
                {Shell, {data, Data}} -> until_prompt(Shell, <<Printed/binary, Data/binary>>);
                {Shell, {exit_status, Status}} -> error({shell_ended, Status, Printed})
            after ?LIMIT ->
                error({no_prompt, Printed})
            end
    end.

%%%-------------------------------------------------------------------
%%% Comparing
%%%-------------------------------------------------------------------

term(Text) ->
    try
        {ok, Tokens, _} = erl_scan:string(Text ++ "."),
        {ok, Term} = erl_parse:parse_term(Tokens),
        Term
    catch
        error:{badmatch, Why} -> error({no_term, Text, Why})
    end.

%% Terms without what is each run's own: the host's name, and an id or a time stands for.
normal('macula_nat@vm') -> 'macula_nat@localhost';
normal(<<_:22/binary, "==">> = Id) -> {id, Id};
normal(Time) when is_integer(Time), Time > 1_000_000_000_000 -> time;
normal(Tuple) when is_tuple(Tuple) -> list_to_tuple(normal(tuple_to_list(Tuple)));
normal(List) when is_list(List) -> [normal(Element) || Element <- List];
normal(Map) when is_map(Map) -> maps:map(fun(_, Value) -> normal(Value) end, Map);
normal(Term) -> Term.

%% `Seen' maps each id of the page to this run's. Returns it with those of this line.
same(Line, {id, Shown}, {id, Printed}, Seen) ->
    ?assertEqual({Line, Printed}, {Line, maps:get(Shown, Seen, Printed)}),
    Seen#{Shown => Printed};
same(Line, Shown, Printed, Seen) when is_tuple(Shown), is_tuple(Printed), tuple_size(Shown) =:= tuple_size(Printed) ->
    same(Line, tuple_to_list(Shown), tuple_to_list(Printed), Seen);
same(Line, [S | Shown], [P | Printed], Seen) ->
    same(Line, Shown, Printed, same(Line, S, P, Seen));
same(Line, Shown, Printed, Seen) when is_map(Shown), is_map(Printed) ->
    ?assertEqual({Line, lists:sort(maps:keys(Shown))}, {Line, lists:sort(maps:keys(Printed))}),
    maps:fold(fun(Key, Value, S) -> same(Line, Value, maps:get(Key, Printed), S) end, Seen, Shown);
same(Line, Shown, Printed, Seen) ->
    ?assertEqual({Line, Shown}, {Line, Printed}),
    Seen.
