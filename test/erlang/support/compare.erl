%% SPDX-License-Identifier: Apache-2.0
%% @doc Runs a scenario against the program and against the oracle, from the same Erlang node, and compares the results.
%%
%% A scenario is a fun of one node name. It runs in a fresh process on an Erlang node. What it returns or raises is
%% normalised, so that node names, pids and references do not matter, and must be the same for both. A row also says
%% what is expected, so that two wrong answers that agree are found; `same' leaves that out.
-module(compare).
-include_lib("eunit/include/eunit.hrl").

-export([world/0, world/1, stop/1, rows/1, row/2, same/3, fresh/3, only/3]).
-export([target/2, pid/1, dead_pid/1, normalise/2, mailbox/0, outcome/2]).

-export_type([world/0, row/0]).

-type world() :: #{caller := cnode:peer(), program := cnode:handle(), oracle := cnode:handle(), args := [string()]}.
-type scenario() :: fun((node()) -> term()).
-type expected() :: same | {raises, exit | error | throw, Reason :: term()} | (Value :: term()).
-type row() ::
    {Title :: string(), scenario(), expected()}             % both, on the nodes that are shared by all rows
    | {fresh, Title :: string(), scenario(), expected()}    % both, on nodes of its own: the scenario ends them
    | {only, Title :: string(), scenario(), expected()}     % the program alone: OTP's own answer is another one
    | {skip, Title :: string(), Why :: string()}.           % what cannot be run on this machine

-define(ORACLE, "test/erlang/support/oracle/node").
-define(LIMIT, 60).

%% @equiv world([])
-spec world() -> world().
world() ->
    world([]).

%% @doc Start the program and the oracle with the same arguments, and an Erlang node that calls them.
-spec world([string()]) -> world().
world(Args) ->
    #{program => cnode:start(#{args => Args}),
      oracle => cnode:start(#{program => ?ORACLE, args => Args}),
      caller => cnode:peer(),
      args => Args}.

%% @doc End it all; the program must end in order.
-spec stop(world()) -> ok.
stop(#{program := Program, oracle := Oracle, caller := Caller}) ->
    cnode:peer_stop(Caller),
    ?assertEqual(0, cnode:stop(Program)),
    _ = cnode:stop(Oracle),
    ok.

%% @doc A test generator that runs rows in a world of theirs.
-spec rows([row()]) -> term().
rows(Rows) ->
    {setup, fun world/0, fun stop/1, fun(World) -> [row(World, Row) || Row <- Rows] end}.

%% @doc The test of one row.
-spec row(world(), row()) -> term().
row(World, {fresh, Title, Scenario, Expected}) ->
    {Title, {timeout, ?LIMIT, fun() -> fresh(World, Scenario, Expected) end}};
row(_World, {skip, Title, Why}) ->
    {Title, fun() -> cnode:skip(Why) end};
row(World, {only, Title, Scenario, Expected}) ->
    {Title, {timeout, ?LIMIT, fun() -> only(World, Scenario, Expected) end}};
row(World, {Title, Scenario, Expected}) ->
    {Title, {timeout, ?LIMIT, fun() -> same(World, Scenario, Expected) end}}.

%% @doc Both must answer as expected.
-spec same(world(), scenario(), expected()) -> ok.
same(#{caller := Caller, program := Program, oracle := Oracle}, Scenario, Expected) ->
    FromOracle = outcome(Caller, target(Oracle, Scenario)),
    check(Expected, FromOracle),
    must_live(Program),
    ?assertEqual(FromOracle, outcome(Caller, target(Program, Scenario))).

%% @doc As `same/3', but with a program and an oracle of its own.
-spec fresh(world(), scenario(), expected()) -> ok.
fresh(#{args := Args} = World, Scenario, Expected) ->
    Program = cnode:start(#{args => Args}),
    Oracle = cnode:start(#{program => ?ORACLE, args => Args}),
    same(World#{program := Program, oracle := Oracle}, Scenario, Expected),
    cnode:kill(Program),
    cnode:kill(Oracle).

%% @doc The program must answer as expected.
-spec only(world(), scenario(), expected()) -> ok.
only(#{caller := Caller, program := Program}, Scenario, Expected) ->
    must_live(Program),
    check(Expected, outcome(Caller, target(Program, Scenario))).

%% A program that an earlier row has ended is not waited for by all the others.
must_live(Program) ->
    cnode:is_alive(Program) orelse error({program_ended, cnode:await_exit(Program), cnode:log(Program)}).

check(same, Outcome) ->
    %% Two silences that agree are no agreement.
    [?assertEqual({nomatch, Outcome}, {re:run(io_lib:format("~0p", [Outcome]), Word, [{capture, none}]), Outcome})
     || Word <- ["nodedown", "noconnection", "timeout"]],
    ok;
check({raises, Class, Reason}, Outcome) ->
    ?assertEqual({Class, Reason}, Outcome);
check(Expected, Outcome) ->
    ?assertEqual({value, Expected}, Outcome).

%% @doc A scenario bound to the node of a handle.
-spec target(cnode:handle(), scenario()) -> fun(() -> term()).
target(#{node := Node}, Scenario) ->
    fun() ->
        try Scenario(Node) of
            Value -> {value, normalise(Value, Node)}
        catch
            Class:Reason -> {Class, normalise(Reason, Node)}
        end
    end.

%% @doc The normalised result of a scenario that runs on a node.
-spec outcome(cnode:peer(), fun(() -> term())) -> {value | exit | error | throw, term()}.
outcome(Caller, Target) ->
    cnode:on(Caller, Target).

%% @doc A term without what differs from one run to the next: pids, references, and the name of the node asked.
-spec normalise(term(), node()) -> term().
normalise(Node, Node) -> '$node';
normalise(Pid, Node) when is_pid(Pid), node(Pid) =:= Node -> '$pid';
normalise(Pid, _) when is_pid(Pid) -> '$caller';
normalise(Ref, _) when is_reference(Ref) -> '$ref';
normalise(Fun, _) when is_function(Fun) -> '$fun';
normalise([Head | Tail], Node) -> [normalise(Head, Node) | normalise(Tail, Node)];
normalise(Tuple, Node) when is_tuple(Tuple) -> list_to_tuple(normalise(tuple_to_list(Tuple), Node));
normalise(Map, Node) when is_map(Map) -> maps:from_list(normalise(maps:to_list(Map), Node));
normalise(Atom, _) when Atom =:= node() -> '$caller_node';
normalise(Term, _) -> Term.

%% @doc The coordinator's pid.
-spec pid(node()) -> pid().
pid(Node) ->
    {status, Pid, _, _} = sys:get_status({macula_nat_coordinator, Node}),
    Pid.

%% @doc A pid of a process on the node that has ended.
-spec dead_pid(node()) -> pid().
dead_pid(Node) ->
    Arguments = [make_ref(), macula_nat_coordinator, get_pending, []],
    Id = spawn_request(Node, erpc, execute_call, Arguments, [monitor]),
    Pid = receive {spawn_reply, Id, ok, Spawned} -> Spawned end,
    receive {'DOWN', Id, process, Pid, _} -> Pid end.

%% @doc All messages that are there, oldest first.
-spec mailbox() -> [term()].
mailbox() ->
    receive Message -> [Message | mailbox()] after 0 -> [] end.
