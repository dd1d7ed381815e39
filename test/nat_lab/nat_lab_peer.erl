%% SPDX-License-Identifier: Apache-2.0
%% @doc A peer of the NAT lab: an ordinary process on an ordinary Erlang node behind a NAT.
%%
%% It learns its reflexive address from a public host, publishes its profile, attaches to the coordinator over the
%% distribution, and waits for PUNCH_COORDINATE. At `punch_time' it fires UDP at the ports it was told, until it hears
%% the other peer and has been answered, or its patience with the attempt is over; then it reports.
-module(nat_lab_peer).

-export([start/1, request/3, direct/3, outcome/2, stop/1, probe/2]).

-export_type([options/0]).

-type options() :: #{
    id := binary(),
    nodes := [node()],                  % of the coordinators; all get the profile, the first has the mailbox
    port := inet:port_number(),         % local port of the socket
    public := [inet:ip4_address()],     % hosts that tell the reflexive address
    box := inet:ip4_address(),          % public address of its NAT
    type := {atom(), atom(), atom()}    % mapping, filtering and allocation policy
}.

-define(PUBLIC_PORT, 3478).
-define(ROUND_MS, 500).
-define(EVERY_MS, 25).
-define(LIMIT, 10000).

-record(peer, {
    options, first, sockets = #{}, session, round = 0, in_round = false, attempt = 0, from, to = [], heard = false,
    confirmed, waiting = []
}).

%% @doc Start a peer; it is attached when this returns.
-spec start(options()) -> pid().
start(Options) ->
    Parent = self(),
    {Pid, Ref} = spawn_monitor(fun() -> init(Parent, Options) end),
    receive
        {Pid, ready} ->
            demonitor(Ref, [flush]),
            Pid;
        {'DOWN', Ref, process, Pid, Reason} ->
            error(Reason)
    end.

%% @doc Ask for a connection to another peer. Answers with the strategy, the session and the time of the request.
-spec request(pid(), binary(), map()) -> {atom(), binary(), integer()}.
request(Pid, Target, Options) ->
    call(Pid, {request, Target, Options}).

%% @doc Try the other peer's known address without coordination.
-spec direct(pid(), binary(), map()) -> ok.
direct(Pid, Session, Info) ->
    Pid ! {punch_coordinate, Info#{session_id => Session, punch_time => now_ms()}},
    ok.

%% @doc When (microseconds) and in which attempt the peer had heard the other and been answered; waits that long for it.
-spec outcome(pid(), timeout()) -> {confirmed, integer(), non_neg_integer()} | none.
outcome(Pid, Limit) ->
    Ref = make_ref(),
    Pid ! {outcome, {self(), Ref}},
    receive {Ref, Outcome} -> Outcome after Limit -> none end.

%% @doc Detach and end a peer.
-spec stop(pid()) -> ok.
stop(Pid) ->
    call(Pid, stop).

%% @doc Find out what kind of NAT this host is behind. Packets that nobody asked for are sent by the public hosts.
-spec probe([inet:ip4_address()], inet:port_number()) -> {atom(), atom(), atom()}.
probe([One, Two], Port) ->
    {ok, Socket} = gen_udp:open(Port, [binary, {active, false}]),
    First = reflexive(Socket, One, ?PUBLIC_PORT),
    OtherPort = hears_from(Socket, One, other_port),
    OtherHost = hears_from(Socket, One, other_host),
    Second = reflexive(Socket, One, ?PUBLIC_PORT + 1),
    Third = reflexive(Socket, Two, ?PUBLIC_PORT),
    ok = gen_udp:close(Socket),
    {mapping(First, Second, Third), filtering(OtherPort, OtherHost), allocation(Port, First, Port + 1, One)}.

mapping(Port, Port, Port) -> ei;
mapping(Port, Port, _) -> hd;
mapping(_, _, _) -> pd.

filtering(_, true) -> ei;
filtering(true, false) -> hd;
filtering(false, false) -> pd.

%% Contiguous ports are seen with sockets of their own, one after the other.
allocation(Port, Port, _, _) ->
    pp;
allocation(_, _, Next, Host) ->
    Ports = [begin
        {ok, Socket} = gen_udp:open(Local, [binary, {active, false}]),
        Port = reflexive(Socket, Host, ?PUBLIC_PORT),
        ok = gen_udp:close(Socket),
        Port
    end || Local <- lists:seq(Next, Next + 2)],
    case Ports of
        [P, Q, R] when Q =:= P + 1, R =:= P + 2 -> pc;
        _ -> rd
    end.

%%%-------------------------------------------------------------------
%%% The public host
%%%-------------------------------------------------------------------

%% Networks lose packets: an answer that does not come is asked for again.
reflexive(Socket, Host, Port) ->
    reflexive(Socket, Host, Port, 20).

reflexive(Socket, Host, Port, Tries) when Tries > 0 ->
    ok = gen_udp:send(Socket, Host, Port, term_to_binary(where)),
    case gen_udp:recv(Socket, 0, 500) of
        {ok, {Host, Port, Data}} ->
            {reflexive, {_, External}} = binary_to_term(Data),
            External;
        {ok, _} ->
            reflexive(Socket, Host, Port, Tries);
        {error, timeout} ->
            reflexive(Socket, Host, Port, Tries - 1)
    end.

%% Whether a packet comes in that the public host sends from elsewhere, where nothing else ever goes to. The host then answers from where it was asked,
%% later than that packet: when the answer is there, the packet is or has been dropped.
hears_from(Socket, Host, From) ->
    ok = gen_udp:send(Socket, Host, ?PUBLIC_PORT, term_to_binary({from, From})),
    await_from(Socket, From, false).

await_from(Socket, From, Seen) ->
    {ok, {_, _, Data}} = gen_udp:recv(Socket, 0, ?LIMIT),
    case binary_to_term(Data) of
        {sent_from, From} -> await_from(Socket, From, true);
        {sent, From} -> Seen;
        _ -> await_from(Socket, From, Seen)
    end.

%%%-------------------------------------------------------------------
%%% The peer
%%%-------------------------------------------------------------------

init(Parent, #{id := Id, nodes := [Node | _] = Nodes, port := Port, public := [Host | _]} = Options) ->
    {ok, Socket} = gen_udp:open(Port, [binary, {active, false}]),
    External = reflexive(Socket, Host, ?PUBLIC_PORT),
    ok = inet:setopts(Socket, [{active, true}]),
    Profile = profile(Options, External),
    lists:foreach(
        fun(To) ->
            ok = gen_server:cast({macula_nat_cache, To}, {put, Id, Profile, 300}),
            %% Whoever has the answer has the profile.
            {ok, _, _} = gen_server:call({macula_nat_cache, To}, {get, Id})
        end, Nodes),
    ok = gen_server:call({macula_nat_coordinator, Node}, {attach_peer, Id}),
    Parent ! {self(), ready},
    loop(#peer{options = Options, first = Port, from = Port, sockets = #{Port => Socket}}).

profile(#{id := Id, box := Box, type := {Mapping, Filtering, Allocation}}, Port) ->
    Delta = case Allocation of pc -> #{port_delta => 1}; _ -> #{} end,
    Delta#{
        node_id => Id,
        mapping_policy => Mapping,
        filtering_policy => Filtering,
        allocation_policy => Allocation,
        can_receive_unsolicited => {Mapping, Filtering} =:= {ei, ei},
        requires_relay => {Mapping, Allocation} =:= {pd, rd},
        relay_capable => false,
        detected_at => erlang:system_time(second),
        ttl_seconds => 300,
        reflexive_address => {Box, Port}
    }.

loop(#peer{options = #{id := Id, nodes := [Node | _]}} = P) ->
    receive
        {udp, Socket, Ip, Port, Data} ->
            loop(packet(binary_to_term(Data, [safe]), Socket, {Ip, Port}, P));
        {punch_coordinate, Info} ->
            loop(round_start(Info, P));
        {fire, Round} ->
            loop(fire(Round, P));
        {over, Round} when Round =:= P#peer.round ->
            loop(round_end(P));
        {over, _} ->
            loop(P);
        {outcome, From} ->
            loop(answer(P#peer{waiting = [From | P#peer.waiting]}));
        {{_, _} = From, {request, Target, Options}} ->
            Now = now_us(),
            {ok, Strategy, Session} =
                gen_server:call({macula_nat_coordinator, Node}, {request_connection, Id, Target, Options}),
            reply(From, {Strategy, Session, Now}),
            loop(P);
        {{_, _} = From, stop} ->
            ok = gen_server:call({macula_nat_coordinator, Node}, {detach_peer, Id}),
            lists:foreach(fun gen_udp:close/1, maps:values(P#peer.sockets)),
            reply(From, ok)
    end.

round_start(#{peer_host := Host, peer_ports := Ports, punch_time := At, session_id := Session} = Info, P0) ->
    P = open(maps:get(local_port, Info, P0#peer.first), round_end(P0)),
    {ok, Ip} = inet:parse_address(binary_to_list(Host)),
    Round = P#peer.round + 1,
    Wait = max(0, At - now_ms()),
    _ = erlang:send_after(Wait, self(), {fire, Round}),
    _ = erlang:send_after(Wait + ?ROUND_MS, self(), {over, Round}),
    P#peer{
        session = Session, round = Round, in_round = true, attempt = maps:get(attempt, Info, 0),
        to = [{Ip, Port} || Port <- Ports], heard = false, confirmed = undefined
    }.

%% The port to fire from; a peer that cannot have the one it was told stays with its own.
open(Port, #peer{sockets = Sockets} = P) ->
    case maps:is_key(Port, Sockets) orelse gen_udp:open(Port, [binary, {active, true}]) of
        true -> P#peer{from = Port};
        {ok, Socket} -> P#peer{from = Port, sockets = Sockets#{Port => Socket}};
        {error, _} -> P#peer{from = P#peer.first}
    end.

fire(Round, #peer{round = Round, in_round = true, confirmed = undefined} = P) ->
    Socket = maps:get(P#peer.from, P#peer.sockets),
    lists:foreach(fun(To) -> send(Socket, To, P#peer.heard, P) end, P#peer.to),
    _ = erlang:send_after(?EVERY_MS, self(), {fire, Round}),
    P;
fire(_, P) ->
    P.

send(Socket, {Ip, Port}, Answer, #peer{session = Session}) ->
    %% A box that has no port left for this flow refuses it.
    _ = gen_udp:send(Socket, Ip, Port, term_to_binary({hello, Session, Answer})),
    ok.

%% From the first packet on a peer talks to where it came from, through the socket it came to.
packet({hello, Session, Answer}, Socket, From, #peer{session = Session} = P0) ->
    {ok, Local} = inet:port(Socket),
    P1 = P0#peer{heard = true, from = Local, to = [From]},
    P2 = case Answer of true -> confirm(P1); false -> P1 end,
    _ = (not Answer orelse P0#peer.confirmed =:= undefined) andalso send(Socket, From, true, P2),
    P2;
packet(_, _, _, P) ->
    P.

confirm(#peer{confirmed = undefined} = P) ->
    report(success, P),
    answer(P#peer{confirmed = {confirmed, now_us(), P#peer.attempt}});
confirm(P) ->
    P.

answer(#peer{confirmed = undefined} = P) ->
    P;
answer(#peer{confirmed = Outcome, waiting = Waiting} = P) ->
    lists:foreach(fun(From) -> reply(From, Outcome) end, Waiting),
    P#peer{waiting = []}.

round_end(#peer{in_round = true, confirmed = undefined} = P) ->
    report(failure, P),
    P#peer{in_round = false};
round_end(P) ->
    P#peer{in_round = false}.

report(Result, #peer{options = #{id := Id, nodes := [Node | _]}, session = Session}) ->
    gen_server:cast({macula_nat_coordinator, Node}, {report_result, Session, Id, Result}).

%% The machine's clock that all nodes share, however their clocks of the day differ.
now_us() ->
    os:perf_counter(microsecond).

%% The peer's clock.
now_ms() ->
    erlang:system_time(millisecond).

call(Pid, Request) ->
    Ref = monitor(process, Pid),
    Pid ! {{self(), Ref}, Request},
    receive
        {Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, Pid, Reason} ->
            error(Reason)
    after ?LIMIT ->
        error(timeout)
    end.

reply({Pid, Ref}, Answer) ->
    Pid ! {Ref, Answer},
    ok.
