%% SPDX-License-Identifier: Apache-2.0
%% @doc A process on an Erlang node that stands for a peer: it runs the funs that it is given, one after the other, and
%% keeps its mailbox from one to the next. Everything that the program sends to it waits there in the order of arrival
%% until a test looks at it.
-module(agent).

-export([start/1, start/2, pid/1, at/2, kill/1]).
-export([attach/2, detach/2, request/4, request/5, cast/2, report/3, report/4]).
-export([session/2, sessions/2, coordinate/1, detached/2, silent/1]).

-export_type([agent/0]).

-type agent() :: #{peer := cnode:peer(), node := node(), pid := pid()}.
-type id() :: binary().

-define(LIMIT, 30000).

%% @doc Start an agent on an Erlang node; the program that it talks to is given by its node's name.
-spec start(cnode:peer(), node()) -> agent().
start(Peer, Node) ->
    Pid = cnode:on(Peer, fun() -> spawn(fun loop/0) end),
    #{peer => Peer, node => Node, pid => Pid}.

%% @doc Start another agent on the same node, for the same program.
-spec start(agent()) -> agent().
start(#{peer := Peer, node := Node}) ->
    start(Peer, Node).

loop() ->
    receive
        {run, From, Ref, Fun} ->
            From ! {Ref, try {ok, Fun()} catch Class:Reason:Stack -> {Class, Reason, Stack} end},
            loop()
    end.

%% @doc The agent's pid.
-spec pid(agent()) -> pid().
pid(#{pid := Pid}) ->
    Pid.

%% @doc Run a fun in the agent's process; its result or exception is the caller's.
-spec at(agent(), fun(() -> Result)) -> Result.
at(#{peer := Peer, pid := Pid}, Fun) ->
    Answer = cnode:on(Peer, fun() ->
        Ref = monitor(process, Pid),
        Pid ! {run, self(), Ref, Fun},
        receive
            {Ref, Result} -> demonitor(Ref, [flush]), Result;
            {'DOWN', Ref, process, Pid, Reason} -> {error, {agent_died, Reason}, []}
        end
    end, 2 * ?LIMIT),
    case Answer of
        {ok, Value} -> Value;
        {Class, Reason, Stack} -> erlang:raise(Class, Reason, Stack)
    end.

%% @doc End the agent's process and wait until it is gone.
-spec kill(agent()) -> ok.
kill(#{peer := Peer, pid := Pid}) ->
    cnode:on(Peer, fun() ->
        Ref = monitor(process, Pid),
        exit(Pid, kill),
        receive {'DOWN', Ref, process, Pid, _} -> ok end
    end).

%% @doc Attach the agent as a peer.
-spec attach(agent(), id()) -> ok.
attach(#{node := Node} = Agent, Id) ->
    at(Agent, fun() -> gen_server:call({macula_nat_coordinator, Node}, {attach_peer, Id}) end).

%% @doc Detach the agent.
-spec detach(agent(), id()) -> ok.
detach(#{node := Node} = Agent, Id) ->
    at(Agent, fun() -> gen_server:call({macula_nat_coordinator, Node}, {detach_peer, Id}) end).

%% @doc Ask for a connection with the agent as the session's watcher.
-spec request(agent(), id(), id(), map()) -> term().
request(Agent, Initiator, Target, Opts) ->
    request(Agent, Agent, Initiator, Target, Opts).

%% @doc Ask for a connection with another agent as the session's watcher.
-spec request(agent(), agent(), id(), id(), map()) -> term().
request(#{node := Node} = Agent, #{pid := Watcher}, Initiator, Target, Opts) ->
    Request = {request_connection, Initiator, Target, Opts#{notify => Watcher}},
    at(Agent, fun() -> gen_server:call({macula_nat_coordinator, Node}, Request) end).

%% @doc Send a cast, and wait until the program has handled it.
-spec cast(agent(), term()) -> ok.
cast(#{node := Node} = Agent, Request) ->
    at(Agent, fun() ->
        ok = gen_server:cast({macula_nat_coordinator, Node}, Request),
        {error, unknown_request} = gen_server:call({macula_nat_coordinator, Node}, sync),
        ok
    end).

%% @doc Report a result.
-spec report(agent(), id(), id(), term()) -> ok.
report(Agent, Session, Reporter, Result) ->
    cast(Agent, {report_result, Session, Reporter, Result}).

%% @doc Report failure.
-spec report(agent(), id(), id()) -> ok.
report(Agent, Session, Reporter) ->
    report(Agent, Session, Reporter, failure).

%% @doc Wait for the next notification about a session.
-spec session(agent(), id()) -> map().
session(Agent, Id) ->
    at(Agent, fun() ->
        receive {punch_session, Id, Session} -> Session after ?LIMIT -> error({no_notification, Id, messages()}) end
    end).

%% @doc Wait for a number of notifications about a session.
-spec sessions(agent(), id() | {id(), pos_integer()}) -> [map()].
sessions(Agent, {Id, Count}) ->
    [session(Agent, Id) || _ <- lists:seq(1, Count)];
sessions(Agent, Id) ->
    case session(Agent, Id) of
        #{result := _} = Ended -> [Ended];
        Session -> [Session | sessions(Agent, Id)]
    end.

%% @doc Wait for the next PUNCH_COORDINATE.
-spec coordinate(agent()) -> map().
coordinate(Agent) ->
    at(Agent, fun() ->
        receive {punch_coordinate, Info} -> Info after ?LIMIT -> error({no_coordinate, messages()}) end
    end).

%% @doc Wait until the agent is told that another one took its place as a peer.
-spec detached(agent(), id()) -> ok.
detached(Agent, Id) ->
    at(Agent, fun() -> receive {detached, Id} -> ok after ?LIMIT -> error({not_detached, messages()}) end end).

%% @doc Check that nothing is in the agent's mailbox, now that the program has answered it.
-spec silent(agent()) -> ok.
silent(#{node := Node} = Agent) ->
    [] = at(Agent, fun() ->
        {error, unknown_request} = gen_server:call({macula_nat_coordinator, Node}, sync),
        messages()
    end),
    ok.

messages() ->
    {messages, Messages} = process_info(self(), messages),
    Messages.
