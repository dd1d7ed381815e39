%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc What the suites of hostile peers share: one program that serves all tests of a suite, and must answer
%% after each of them, hold no more descriptors than before, and report nothing when it ends. It is a sanitized one
%% where there is one; only what is about memory runs against the plain one.
-module(hostile).

-include_lib("stdlib/include/assert.hrl").

-export([suite/1, memory_suite/1, program/0, answers/1, connect/2, logged/4, raw_name/1, raw_name/2, no_growth/3]).
-export([counted/3, state/2, reports/1]).

-define(SERVER, macula_nat_coordinator).

%% @doc Tests, each a fun that takes the handle of the one program.
-spec suite([{string(), fun((cnode:handle()) -> term())}]) -> tuple().
suite(Tests) ->
    {setup, fun() -> start(program()) end, fun stop/1,
     fun(Handle) -> [survived(Handle, Title, Test) || {Title, Test} <- Tests] end}.

%% @doc The same against the plain program: tests that compare its memory, of which `memory' in the handle is what it
%% had at first. They are skipped where that program itself is instrumented.
-spec memory_suite([{string(), fun((cnode:handle()) -> term())}]) -> tuple().
memory_suite(Tests) ->
    Start = fun() ->
        Handle = start(maps:remove(program, program())),
        Handle#{memory => cnode:memory(Handle)}
    end,
    Compared = fun(Test) ->
        fun(Handle) ->
            cnode:is_instrumented(Handle) andalso cnode:skip("an instrumented program keeps freed memory back"),
            Test(Handle)
        end
    end,
    {setup, Start, fun stop/1,
     fun(Handle) -> [survived(Handle, "memory: " ++ Title, Compared(Test)) || {Title, Test} <- Tests] end}.

start(Options) ->
    Handle = cnode:start(Options),
    answers(Handle),
    Handle.

%% A sanitizer's report changes the exit status, too.
stop(Handle) ->
    Status = cnode:stop(Handle),
    ?assertEqual([], reports(Handle)),
    ?assertEqual(0, Status).

survived(Handle, Title, Test) ->
    {Title, {timeout, 120, fun() ->
                                   Before = cnode:descriptors(Handle),
                                   Test(Handle),
                                   answers(Handle),
                                   cnode:await(fun() -> cnode:descriptors(Handle) =< Before end)
                           end}}.

%% @doc How the program is started: a sanitized build if CNODE_ASAN names one. It keeps few sessions, so that
%% the many requests for all of them have short answers.
-spec program() -> map().
program() ->
    Options = #{args => ["--max-sessions", "20"]},
    case os:getenv("CNODE_ASAN") of
        false -> Options;
        Program -> Options#{program => Program}
    end.

%% @doc The program answers a real node.
-spec answers(cnode:handle()) -> ok.
answers(#{node := Node}) ->
    ?assertEqual({error, unknown_request}, gen_server:call({?SERVER, Node}, {are_you, there}, 30000)).

%% @doc Connect a raw peer.
-spec connect(cnode:handle(), node()) -> raw_dist:peer().
connect(#{node := Node}, Name) ->
    {ok, Peer} = raw_dist:connect(Node, #{name => Name}),
    Peer.

%% @doc Wait for a warning about a peer that has this text and was written after the mark.
-spec logged(cnode:handle(), node() | string(), string(), non_neg_integer()) -> ok.
logged(Handle, Name, Text, Mark) ->
    _ = cnode:await_log(Handle, io_lib:format("warning .*~s.*~s", [Name, Text]), Mark),
    ok.

%% @doc The name of a raw peer.
-spec raw_name(string()) -> node().
raw_name(Title) ->
    list_to_atom("raw_" ++ Title ++ "@127.0.0.1").

%% @doc The name of one of many raw peers.
-spec raw_name(string(), integer()) -> node().
raw_name(Title, Number) ->
    raw_name(Title ++ integer_to_list(Number)).

%% @doc The program has at most so many MiB more than it had.
-spec no_growth(cnode:handle(), non_neg_integer(), pos_integer()) -> ok.
no_growth(Handle, Before, More) ->
    After = cnode:memory(Handle),
    ?assertMatch({_, _, true}, {Before, After, After =< Before + More * 1024}).

%% @doc How much these counters of the network grow while the fun runs.
-spec counted(cnode:handle(), [atom()], fun(() -> term())) -> #{atom() => non_neg_integer()}.
counted(Handle, Keys, Fun) ->
    Before = state(Handle, network),
    _ = Fun(),
    After = state(Handle, network),
    maps:from_list([{Key, maps:get(Key, After) - maps:get(Key, Before)} || Key <- Keys]).

%% @doc A part of the program's state.
-spec state(cnode:handle(), atom()) -> #{atom() => non_neg_integer()}.
state(#{node := Node}, Part) ->
    maps:get(Part, sys:get_state({?SERVER, Node}, 30000)).

%% @doc The lines of the log that a sanitizer has written.
-spec reports(cnode:handle()) -> [string()].
reports(Handle) ->
    [Line || Line <- cnode:log(Handle), re:run(Line, "Sanitizer|runtime error:", [{capture, none}]) =:= match].
