%% SPDX-License-Identifier: Apache-2.0
%% @doc The NAT lab: pairs of peers behind real NATs, connected with the help of the real node.
%%
%% Runs in the public part of the network that the script `world' makes. There are three nodes, one for each rule set,
%% which are asked for their strategy; the one with the rules `feasible' then coordinates the punch. Where it says
%% relay, a punch is tried anyway, to see whether relay was right.
-module(nat_lab).

-export([main/1]).

-define(PUBLIC, [{203, 0, 113, 10}, {203, 0, 113, 11}]).
-define(PUBLIC_PORT, 3478).
-define(SKEW_RUNS, 100).
-define(RULES, [documented, v0_14_3, feasible]).

%% @doc `main([What, Picture, ModelTable])': run `all' pairs or a `short' part of them, print the table and write the
%% picture; or `skew', one pair whose clocks differ. The exit status says whether all was as it should be.
-spec main([string()]) -> no_return().
main([What, Picture, ModelTable]) ->
    Status =
        try
            run(list_to_atom(What), Picture, ModelTable)
        catch
            Class:Reason:Stack ->
                io:format("~p~n", [{Class, Reason, Stack}]),
                1
        end,
    cnode:kill_all(),
    halt(Status).

run(skew, _, _) ->
    public_host(),
    Nodes = start_nodes([feasible]),
    A = erlang_node("a", "la", 0),
    Results = lists:append([skewed(A, Nodes, Index, Ms) || {Index, Ms} <- enumerate([0, 100, 5000])]),
    nat_lab_report:skew(Results);
run(What, Picture, ModelTable) ->
    public_host(),
    Nodes = start_nodes(?RULES),
    Peers = #{na => erlang_node("a", "la", 0), nb => erlang_node("b", "lb", 0)},
    Kinds = [{Type, Bare} || Type <- types(What), Bare <- [false, true]],
    lists:foreach(fun({Index, {Type, Bare}}) -> classify(Peers, Type, Bare, Index) end, enumerate(Kinds)),
    Pairs = [{A, B, Bare} || Bare <- [false, true], A <- types(What), B <- types(What)],
    Results = [begin
        Result = pair(Peers, Nodes, Pair, length(Kinds) + Index),
        nat_lab_report:print(Result),
        Result
    end || {Index, Pair} <- enumerate(Pairs)],
    Model = [model(ModelTable, Bare, types(What)) || Bare <- [false, true]],
    nat_lab_report:write(Picture, Results, maps:merge(hd(Model), lists:last(Model))).

start_nodes(Rules) ->
    [begin
        #{node := Node} = cnode:start(#{
            node_args => ["--name", atom_to_list(One) ++ "@203.0.113.10"],
            args => ["--strategy-rules", atom_to_list(One), "--log-level", "warning"]
        }),
        pong = net_adm:ping(Node),
        {One, Node}
    end || One <- Rules].

%% The usual NAT on both sides; the clock of one peer is ahead.
skewed(A, Nodes, Index, Ms) ->
    B = erlang_node("b" ++ integer_to_list(Index), "lb", Ms),
    Real = peer:call(B, erlang, system_time, [millisecond]) - erlang:system_time(millisecond),
    abs(Real - Ms) =< 50 orelse error({clock_is_not_ahead, Ms, Real}),
    Type = {ei, pd, pp},
    Results = [begin
        #{outcome := Outcome} =
            pair(#{na => A, nb => B}, Nodes, {Type, Type, Bare}, (2 * Index + Kind) * ?SKEW_RUNS + Run),
        {Ms, Bare, Outcome}
    end || {Kind, Bare} <- [{0, false}, {1, true}], Run <- lists:seq(1, ?SKEW_RUNS)],
    peer:stop(B),
    Results.

types(all) ->
    nat_lab_box:types();
types(short) ->
    [{ei, pd, pp}, {hd, ei, rd}, {pd, pd, pc}].

enumerate(List) ->
    lists:zip(lists:seq(1, length(List)), List).

%%%-------------------------------------------------------------------
%%% The players
%%%-------------------------------------------------------------------

%% Tells who asks what address they come from, and sends from elsewhere when asked to.
public_host() ->
    Parent = self(),
    Ref = make_ref(),
    _ = spawn_link(fun() ->
        Sockets = maps:from_list([begin
            {ok, Socket} = gen_udp:open(Port, [binary, {ip, Ip}, {active, true}]),
            {{Ip, Port}, Socket}
        end || Ip <- ?PUBLIC, Port <- lists:seq(?PUBLIC_PORT, ?PUBLIC_PORT + 2)]),
        Parent ! Ref,
        public_host(Sockets)
    end),
    receive Ref -> ok end.

public_host(Sockets) ->
    receive
        {udp, Socket, Ip, Port, Data} ->
            [One, Two] = ?PUBLIC,
            case binary_to_term(Data) of
                where ->
                    ok = gen_udp:send(Socket, Ip, Port, term_to_binary({reflexive, {Ip, Port}}));
                {from, From} ->
                    Other = {case From of other_port -> One; other_host -> Two end, ?PUBLIC_PORT + 2},
                    ok = gen_udp:send(maps:get(Other, Sockets), Ip, Port, term_to_binary({sent_from, From})),
                    ok = gen_udp:send(Socket, Ip, Port, term_to_binary({sent, From}))
            end
    end,
    public_host(Sockets).

%% A node whose clock is that many milliseconds ahead.
erlang_node(Name, Namespace, Ahead) ->
    Clock = case Ahead of
        0 -> [];
        _ -> [os:find_executable("env"), "LD_PRELOAD=" ++ os:getenv("FAKETIME_LIBRARY"),
              "FAKETIME_DONT_FAKE_MONOTONIC=1", lists:flatten(io_lib:format("FAKETIME=+~.3f", [Ahead / 1000]))]
    end,
    {ok, Peer, _} = peer:start_link(#{
        name => Name,
        host => "10.0.0.2",
        longnames => true,
        connection => standard_io,
        exec => {os:find_executable("ip"), ["netns", "exec", Namespace] ++ Clock ++ [os:find_executable("erl")]},
        args => ["-dist_listen", "false", "-start_epmd", "false", "-boot", "no_dot_erlang", "-pa", filename:dirname(code:which(?MODULE)),
                 "-kernel", "connect_all", "false", "-kernel", "logger_level", "none", "+S", "1:1",
                 "+sbwt", "none"]
    }),
    Peer.

on(Peer, Function, Arguments) ->
    peer:call(Peer, nat_lab_peer, Function, Arguments, 30000).

%% Every box must be seen from outside as what it is meant to be.
classify(Peers, Type, Bare, Run) ->
    maps:foreach(
        fun(Box, Peer) ->
            nat_lab_box:become(Box, Type, Bare, Run),
            case on(Peer, probe, [?PUBLIC, local_port(Run)]) of
                Type -> ok;
                Other -> error({box_is_not, Type, Bare, Other})
            end
        end, Peers).

%% Ports that no run before has used.
local_port(Run) ->
    5000 + Run rem 3000 * 16.

%%%-------------------------------------------------------------------
%%% One pair
%%%-------------------------------------------------------------------

pair(Peers, Nodes, {A, B, Bare}, Run) ->
    Ids = #{na => id("a", Run), nb => id("b", Run)},
    {_, Node} = lists:last(Nodes),
    Players = maps:map(
        fun(Box, Peer) ->
            Type = case Box of na -> A; nb -> B end,
            nat_lab_box:become(Box, Type, Bare, Run),
            on(Peer, start, [#{
                id => maps:get(Box, Ids), nodes => [N || {_, N} <- lists:reverse(Nodes)], port => local_port(Run),
                public => ?PUBLIC, box => nat_lab_box:address(Box), type => Type
            }])
        end, Peers),
    Others = [{Rules, ask(N, Ids)} || {Rules, N} <- lists:droplast(Nodes)],
    {Strategy, Session, Asked} =
        on(maps:get(na, Peers), request, [maps:get(na, Players), maps:get(nb, Ids), #{notify => self()}]),
    start_off(Strategy, Node, Session, Ids, Peers, Players),
    State = await_end(Session),
    Limit = case State of completed -> 2000; failed -> 0 end,
    Outcomes = [on(maps:get(Box, Peers), outcome, [maps:get(Box, Players), Limit]) || Box <- [na, nb]],
    maps:foreach(fun(Box, Player) -> on(maps:get(Box, Peers), stop, [Player]) end, Players),
    #{
        types => {A, B}, bare => Bare, strategies => maps:from_list([{feasible, Strategy} | Others]),
        outcome => outcome(Outcomes, Asked)
    }.

id(Letter, Run) ->
    iolist_to_binary(io_lib:format("~s~b", [Letter, Run])).

ask(Node, #{na := A, nb := B}) ->
    {ok, Strategy, _} = gen_server:call({macula_nat_coordinator, Node}, {request_connection, A, B, #{}}),
    Strategy.

start_off(hole_punch, _, _, _, _, _) ->
    ok;
start_off(direct, Node, Session, Ids, Peers, Players) ->
    maps:foreach(
        fun(Box, Player) ->
            Other = case Box of na -> nb; nb -> na end,
            {ok, #{reflexive_address := {Ip, Port}}, _} =
                gen_server:call({macula_nat_cache, Node}, {get, maps:get(Other, Ids)}),
            on(maps:get(Box, Peers), direct,
               [Player, Session, #{peer_host => list_to_binary(inet:ntoa(Ip)), peer_ports => [Port]}])
        end, Players);
start_off(relay, Node, Session, #{na := A, nb := B}, _, _) ->
    gen_server:cast({macula_nat_coordinator, Node}, {coordinate_punch, A, B, #{session_id => Session}}).

await_end(Session) ->
    receive
        {punch_session, Session, #{result := _, state := State}} -> State;
        {punch_session, _, _} -> await_end(Session)
    after 20000 ->
        error({session_does_not_end, Session})
    end.

%% Connected are those who both have been answered.
outcome([{confirmed, AtA, Attempt}, {confirmed, AtB, Attempt}], Asked) ->
    {connected, Attempt, (max(AtA, AtB) - Asked) / 1000};
outcome(_, _) ->
    none.

%%%-------------------------------------------------------------------
%%% The model
%%%-------------------------------------------------------------------

%% What the model says of the same pairs: strategies, and whether a punch connects.
model(Program, Bare, Types) ->
    Names = [[" ", nat_lab_box:name(Type)] || Type <- Types],
    Text = os:cmd(lists:flatten(["'", Program, "' pairs ", atom_to_list(Bare), Names])),
    Lines = [string:lexemes(Line, " ") || Line <- string:lexemes(Text, "\n")],
    ByName = maps:from_list([{nat_lab_box:name(Type), Type} || Type <- Types]),
    maps:from_list([
        {{maps:get(A, ByName), maps:get(B, ByName), Bare},
         #{strategies => maps:from_list(lists:zip(?RULES, [list_to_atom(S) || S <- [D, V, F]])),
           connects => Attempt =/= "-"}}
     || [A, B, D, V, F, Attempt] <- Lines]).
