%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc A raw speaker of the distribution protocol over gen_tcp.
%%
%% It is a node only as far as a test wants it to be: the handshake can be stopped at any step, every
%% field of it can be chosen, and any bytes can be sent afterwards. Nothing runs in the background, no
%% tick is answered unless the test says so. A peer is a map that owns its socket; whoever made it
%% closes it. Handshake version 6 only ("Distribution Protocol", chapter of the ERTS user's guide).
-module(raw_dist).

-export([flags/0, flags/1, flag/1]).
-export([epmd_port/0, epmd_lookup/1, epmd_names/0, epmd_register/2]).
-export([connect/2, open/2, handshake/2, finish/1, close/1, name/1, status/1, challenge/1]).
-export([listen/1, listener_name/1, accept/1, accept_now/1, accept_handshake/2, stop_listening/1]).
-export([send/2, send_control/2, send_control/3, frame/1, frame/2, tick/0, recv/1, recv/2,
         recv_frame/1, await_close/1]).
-export([pid/2, pid/3, their_pid/2, reference/2, call/3, call_frames/4, await_reply/2, await_tag/2]).

-export_type([peer/0, listener/0, options/0, step/0]).

-type step() :: tcp | half_length | half_name | name | status | challenge | half_reply | reply | done.
%% How far to go: `name' means that the name has been sent, `status' that the status has been read,
%% and so on; `done' is a connection that is up.

-type options() :: #{name := node(),
                     cookie => atom(),
                     flags => non_neg_integer(),
                     creation => non_neg_integer(),
                     from => inet:ip_address(),         % of this end, default the kernel's choice
                     raw_name => iodata(),
                     port => inet:port_number(),
                     alive => true | false,
                     byte_by_byte => boolean(),
                     stop => step()}.

-opaque peer() :: #{socket := gen_tcp:socket(), name := node(), creation := non_neg_integer(),
                    options := options(), node => {node(), non_neg_integer()}, challenge => non_neg_integer(),
                    status => binary()}.

-opaque listener() :: #{socket := gen_tcp:socket(), epmd := gen_tcp:socket(), name := node(),
                        port := inet:port_number(), creation := non_neg_integer()}.

-define(TIMEOUT, 30000).

%%% Flags

%% @doc The flags of an OTP 25 hidden node, without the atom cache and fragments.
-spec flags() -> non_neg_integer().
flags() ->
    16#D07074FBC.

% @doc The flags that real nodes have sent: a hidden node of the oldest and the newest OTP that may call, and jinterface,
% which knows no monitors, no spawn requests and no aliases.
-spec flags(otp_25 | otp_29 | jinterface) -> non_neg_integer().
flags(otp_25) -> 16#D07DF7FBC;
flags(otp_29) -> 16#6D07DF7FBC;
flags(jinterface) -> 16#407070F94.

% @doc One flag by its name, for tests that leave it out.
-spec flag(atom()) -> pos_integer().
flag(extended_references) -> 16#4;
flag(extended_pids_ports) -> 16#100;
flag(new_floats) -> 16#800;
flag(utf8_atoms) -> 16#10000;
flag(map_tag) -> 16#20000;
flag(big_creation) -> 16#40000;
flag(handshake_23) -> 16#1000000;
flag(unlink_id) -> 16#2000000;
flag(mandatory_25_digest) -> 16#4000000;
flag(name_me) -> 16#2 bsl 32;
flag(v4_nc) -> 16#4 bsl 32.

%%% EPMD

%% @doc The port that EPMD listens on, as `erl' finds it.
-spec epmd_port() -> inet:port_number().
epmd_port() ->
    list_to_integer(os:getenv("ERL_EPMD_PORT", "4369")).

%% @doc Ask EPMD for the port of a node (the part before the `@').
-spec epmd_lookup(string()) -> {ok, inet:port_number()} | {error, not_found}.
epmd_lookup(Alive) ->
    case epmd_request([122, Alive]) of
        <<119, 0, Port:16, _/binary>> -> {ok, Port};
        <<119, _/binary>> -> {error, not_found}
    end.

%% @doc The text that EPMD answers to a request for all names.
-spec epmd_names() -> binary().
epmd_names() ->
    <<_Port:32, Text/binary>> = epmd_request([110]),
    Text.

%% @doc Register a hidden node; the name is free again when the socket is closed.
-spec epmd_register(string(), inet:port_number()) ->
          {ok, gen_tcp:socket(), Creation :: non_neg_integer()} | {error, taken}.
epmd_register(Alive, Port) ->
    Socket = epmd_connect(),
    Name = list_to_binary(Alive),
    ok = gen_tcp:send(Socket, sized([<<120, Port:16, 72, 0, 6:16, 6:16, (byte_size(Name)):16>>, Name,
                                     <<0:16>>])),
    case gen_tcp:recv(Socket, 2, ?TIMEOUT) of
        {ok, <<118, 0>>} ->
            {ok, <<Creation:32>>} = gen_tcp:recv(Socket, 4, ?TIMEOUT),
            {ok, Socket, Creation};
        {ok, <<_, _>>} ->
            ok = gen_tcp:close(Socket),
            {error, taken}
    end.

-spec epmd_request(iodata()) -> binary().
epmd_request(Request) ->
    Socket = epmd_connect(),
    ok = gen_tcp:send(Socket, sized(Request)),
    Answer = recv_all(Socket, <<>>),
    ok = gen_tcp:close(Socket),
    Answer.

-spec epmd_connect() -> gen_tcp:socket().
epmd_connect() ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, epmd_port(), [binary, {active, false}], ?TIMEOUT),
    Socket.

-spec recv_all(gen_tcp:socket(), binary()) -> binary().
recv_all(Socket, Before) ->
    case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
        {ok, Data} -> recv_all(Socket, <<Before/binary, Data/binary>>);
        {error, closed} -> Before
    end.

%%% The side that connects

%% @doc Connect to a node and go through the handshake until the step `stop' (default: `done').
%% An error names the step that the other side ended.
-spec connect(node(), options()) -> {ok, peer()} | {error, {step(), term()}}.
connect(Node, Options) ->
    handshake(open(Node, Options), maps:get(stop, Options, done)).

%% @doc Only the TCP connection.
-spec open(node(), options()) -> peer().
open(Node, Options) ->
    [Alive, Host] = string:split(atom_to_list(Node), "@"),
    Port = case Options of
               #{port := Known} -> Known;
               #{} -> {ok, Found} = epmd_lookup(Alive), Found
           end,
    From = [{ip, Address} || #{from := Address} <- [Options]],
    {ok, Socket} = gen_tcp:connect(Host, Port, From ++ socket_options(), ?TIMEOUT),
    new_peer(Socket, Options).

%% @doc Go on with the handshake until the step.
-spec handshake(peer(), step()) -> {ok, peer()} | {error, {step(), term()}}.
handshake(Peer, Stop) ->
    try
        {ok, steps([half_length, half_name, name, status, challenge, half_reply, reply, done], Stop,
                   Peer)}
    catch
        throw:{handshake, Step, Reason} ->
            close(Peer),
            {error, {Step, Reason}}
    end.

%% @doc Read what the other side says last, after a handshake that has been stopped at `reply'.
-spec finish(peer()) -> peer().
finish(Peer) ->
    step(done, Peer).

-spec steps([step()], step(), peer()) -> peer().
steps(_Steps, tcp, Peer) -> Peer;
steps([Stop | _], Stop, Peer) -> step(Stop, Peer);
steps([half_length | Steps], Stop, Peer) -> steps(Steps, Stop, Peer);
steps([half_name | Steps], Stop, Peer) -> steps(Steps, Stop, Peer);
steps([half_reply | Steps], Stop, Peer) -> steps(Steps, Stop, Peer);
steps([Step | Steps], Stop, Peer) -> steps(Steps, Stop, step(Step, Peer)).

-spec step(step(), peer()) -> peer().
step(half_length, Peer) ->
    hand(half_length, Peer, binary:part(name_packet(Peer), 0, 1));
step(half_name, Peer) ->
    Packet = name_packet(Peer),
    hand(half_name, Peer, binary:part(Packet, 0, byte_size(Packet) div 2));
step(name, Peer) ->
    hand(name, Peer, name_packet(Peer));
step(status, Peer = #{options := Options}) ->
    case hand_recv(status, Peer) of
        <<"sok">> -> Peer#{status => <<"ok">>};
        <<"sok_simultaneous">> -> Peer#{status => <<"ok_simultaneous">>};
        <<"snamed:", Size:16, Name:Size/binary, Creation:32>> ->
            Peer#{status => <<"named">>, name => binary_to_atom(Name), creation => Creation};
        <<"salive">> ->
            case Options of
                #{alive := Reply} ->
                    hand(status, Peer#{status => <<"alive">>}, sized(["s", atom_to_list(Reply)]));
                #{} ->
                    throw({handshake, status, <<"alive">>})
            end;
        <<"s", Refused/binary>> -> throw({handshake, status, Refused})
    end;
step(challenge, Peer) ->
    case hand_recv(challenge, Peer) of
        <<"N", _Flags:64, Challenge:32, Creation:32, Size:16, Node:Size/binary>> ->
            Peer#{challenge => Challenge, node => {binary_to_atom(Node), Creation}};
        Other ->
            throw({handshake, challenge, Other})
    end;
step(half_reply, Peer) ->
    hand(half_reply, Peer, binary:part(reply_packet(Peer), 0, 11));
step(reply, Peer) ->
    hand(reply, Peer, reply_packet(Peer));
step(done, Peer) ->
    Digest = digest(Peer, 4711),
    case hand_recv(done, Peer) of
        <<"a", Digest:16/binary>> -> Peer;
        Other -> throw({handshake, done, Other})
    end.

-spec name_packet(peer()) -> binary().
name_packet(#{name := Name, creation := Creation, options := Options}) ->
    Text = iolist_to_binary(maps:get(raw_name, Options, atom_to_binary(Name))),
    sized([<<"N", (maps:get(flags, Options, flags())):64, Creation:32, (byte_size(Text)):16>>, Text]).

-spec reply_packet(peer()) -> binary().
reply_packet(Peer = #{challenge := Challenge}) ->
    sized([<<"r", 4711:32>>, digest(Peer, Challenge)]).

-spec digest(peer(), non_neg_integer()) -> binary().
digest(#{options := Options}, Challenge) ->
    Cookie = maps:get(cookie, Options, erlang:get_cookie()),
    erlang:md5([atom_to_binary(Cookie), integer_to_list(Challenge)]).

-spec hand(step(), peer(), binary()) -> peer().
hand(Step, Peer = #{socket := Socket, options := Options}, Packet) ->
    Parts = case Options of
                #{byte_by_byte := true} -> [<<Byte>> || <<Byte>> <= Packet];
                #{} -> [Packet]
            end,
    lists:foreach(fun(Part) ->
                          case gen_tcp:send(Socket, Part) of
                              ok -> ok;
                              {error, Reason} -> throw({handshake, Step, Reason})
                          end
                  end, Parts),
    Peer.

-spec hand_recv(step(), peer()) -> binary().
hand_recv(Step, #{socket := Socket}) ->
    maybe_throw(Step, case gen_tcp:recv(Socket, 2, ?TIMEOUT) of
                          {ok, <<Size:16>>} -> gen_tcp:recv(Socket, Size, ?TIMEOUT);
                          Error -> Error
                      end).

-spec maybe_throw(step(), {ok, binary()} | {error, term()}) -> binary().
maybe_throw(_Step, {ok, Data}) -> Data;
maybe_throw(Step, {error, Reason}) -> throw({handshake, Step, Reason}).

-spec new_peer(gen_tcp:socket(), options()) -> peer().
new_peer(Socket, Options = #{name := Name}) ->
    #{socket => Socket, name => Name, creation => maps:get(creation, Options, 7), options => Options}.

-spec socket_options() -> [gen_tcp:option()].
socket_options() ->
    [binary, {active, false}, {packet, raw}, {nodelay, true}].

%% @doc Close the connection.
-spec close(peer()) -> ok.
close(#{socket := Socket}) ->
    gen_tcp:close(Socket).

%% @doc The name of the peer itself (a given one for a peer with the flag `name_me').
-spec name(peer()) -> node().
name(#{name := Name}) ->
    Name.

%% @doc The status that the other side answered the name with.
-spec status(peer()) -> binary().
status(#{status := Status}) ->
    Status.

%% @doc The challenge that the other side sent.
-spec challenge(peer()) -> non_neg_integer().
challenge(#{challenge := Challenge}) ->
    Challenge.

%%% The side that is connected to

%% @doc Listen, and register the name at EPMD: others can now connect to this node.
-spec listen(node()) -> listener().
listen(Name) ->
    [Alive, _Host] = string:split(atom_to_list(Name), "@"),
    {ok, Socket} = gen_tcp:listen(0, [{reuseaddr, true}, {backlog, 128} | socket_options()]),
    {ok, Port} = inet:port(Socket),
    {ok, Epmd, Creation} = epmd_register(Alive, Port),
    #{socket => Socket, epmd => Epmd, name => Name, port => Port, creation => Creation}.

%% @doc The name that was registered.
-spec listener_name(listener()) -> node().
listener_name(#{name := Name}) ->
    Name.

%% @doc Wait for somebody to connect. Nothing is read or sent.
-spec accept(listener()) -> peer().
accept(#{socket := Socket, name := Name, creation := Creation}) ->
    {ok, Accepted} = gen_tcp:accept(Socket, ?TIMEOUT),
    new_peer(Accepted, #{name => Name, creation => Creation}).

%% @doc Whether somebody has connected.
-spec accept_now(listener()) -> nobody | peer().
accept_now(#{socket := Socket, name := Name, creation := Creation}) ->
    case gen_tcp:accept(Socket, 0) of
        {ok, Accepted} -> new_peer(Accepted, #{name => Name, creation => Creation});
        {error, timeout} -> nobody
    end.

%% @doc The whole handshake of the accepting side. Of the options `cookie', `flags', `status', `challenge', `byte_by_byte'
%% and `unchecked' (go on whatever the other side's digest) count. The name of the node that connected is in
%% the answer.
-spec accept_handshake(peer(), map()) -> {ok, peer(), node()} | {error, {step(), term()}}.
accept_handshake(Peer0 = #{name := Name, creation := Creation, options := Given}, Options) ->
    Peer = Peer0#{options := maps:merge(Given, Options)},
    try
        <<"N", _Flags:64, _TheirCreation:32, Size:16, Node:Size/binary>> = hand_recv(name, Peer),
        hand(status, Peer, sized(["s", maps:get(status, Options, "ok")])),
        Text = atom_to_binary(Name),
        Ours = maps:get(challenge, Options, 815),
        hand(challenge, Peer, sized([<<"N", (maps:get(flags, Options, flags())):64, Ours:32,
                                       Creation:32, (byte_size(Text)):16>>, Text])),
        Digest = digest(Peer, Ours),
        case hand_recv(reply, Peer) of
            <<"r", Challenge:32, Theirs:16/binary>> when Theirs =:= Digest; is_map_key(unchecked, Options) ->
                hand(done, Peer, sized(["a", digest(Peer, Challenge)])),
                {ok, Peer, binary_to_atom(Node)};
            Other ->
                throw({handshake, reply, Other})
        end
    catch
        throw:{handshake, Step, Reason} ->
            close(Peer),
            {error, {Step, Reason}}
    end.

%% @doc Close the listener and give its name back to EPMD.
-spec stop_listening(listener()) -> ok.
stop_listening(#{socket := Socket, epmd := Epmd}) ->
    ok = gen_tcp:close(Socket),
    gen_tcp:close(Epmd).

%%% Frames

%% @doc Send any bytes. A connection that the other side has closed is not an error here.
-spec send(peer(), iodata()) -> ok | {error, term()}.
send(#{socket := Socket}, Bytes) ->
    gen_tcp:send(Socket, Bytes).

%% @doc Send a control message.
-spec send_control(peer(), tuple()) -> ok | {error, term()}.
send_control(Peer, Control) ->
    send(Peer, frame(Control)).

%% @doc Send a control message that carries a message.
-spec send_control(peer(), tuple(), term()) -> ok | {error, term()}.
send_control(Peer, Control, Message) ->
    send(Peer, frame(Control, Message)).

%% @doc The frame of a control message, with its length.
-spec frame(term()) -> binary().
frame(Control) ->
    framed([112, term_to_binary(Control)]).

%% @doc The frame of a control message that carries a message, with its length.
-spec frame(term(), term()) -> binary().
frame(Control, Message) ->
    framed([112, term_to_binary(Control), term_to_binary(Message)]).

%% @doc The bytes of a tick.
-spec tick() -> binary().
tick() ->
    <<0:32>>.

%% @doc The next frame or tick, within 30 s.
-spec recv(peer()) -> tick | {Control :: tuple()} | {Control :: tuple(), Message :: term()}
                          | {error, term()}.
recv(Peer) ->
    recv(Peer, ?TIMEOUT).

%% @doc The next frame or tick.
-spec recv(peer(), timeout()) -> tick | {tuple()} | {tuple(), term()} | {error, term()}.
recv(#{socket := Socket}, Timeout) ->
    case gen_tcp:recv(Socket, 4, Timeout) of
        {ok, <<0:32>>} ->
            tick;
        {ok, <<Size:32>>} ->
            case gen_tcp:recv(Socket, Size, Timeout) of
                {ok, <<112, Terms/binary>>} -> decode(Terms);
                Error -> Error
            end;
        Error ->
            Error
    end.

-spec decode(binary()) -> {tuple()} | {tuple(), term()}.
decode(Terms) ->
    try
        {Control, Used} = binary_to_term(Terms, [used]),
        case Terms of
            <<_:Used/binary>> -> {Control};
            <<_:Used/binary, Message/binary>> -> {Control, binary_to_term(Message)}
        end
    catch
        error:badarg -> error({no_terms, Terms})
    end.

%% @doc The next frame; ticks, and monitors that the node sets up on its own, are passed over. A node that has
%% nothing to say but ticks gives a timeout.
-spec recv_frame(peer()) -> {tuple()} | {tuple(), term()} | {error, term()}.
recv_frame(Peer) ->
    recv_frame(Peer, 2).

recv_frame(_Peer, 0) ->
    {error, timeout};
recv_frame(Peer, Ticks) ->
    case recv(Peer) of
        tick -> recv_frame(Peer, Ticks - 1);
        {{Op, _, _, _}} when Op =:= 19; Op =:= 20 -> recv_frame(Peer, Ticks);
        Other -> Other
    end.

%% @doc Wait until the other side has closed the connection; what it sends before that is thrown away.
-spec await_close(peer()) -> closed | {error, timeout}.
await_close(Peer = #{socket := Socket}) ->
    case gen_tcp:recv(Socket, 0, ?TIMEOUT) of
        {ok, _} -> await_close(Peer);
        {error, timeout} -> {error, timeout};
        {error, _} -> close(Peer), closed
    end.

%%% Terms of the peer

%% @doc A process identifier of the peer.
-spec pid(peer(), non_neg_integer()) -> pid().
pid(#{name := Name, creation := Creation}, Id) ->
    pid(Name, Id, Creation).

%% @doc A process identifier of the node that the peer has connected to.
-spec their_pid(peer(), non_neg_integer()) -> pid().
their_pid(#{node := {Name, Creation}}, Id) ->
    pid(Name, Id, Creation).

%% @doc A process identifier of any node.
-spec pid(node(), non_neg_integer(), non_neg_integer()) -> pid().
pid(Name, Id, Creation) ->
    binary_to_term(<<131, 88, (atom_ext(Name))/binary, Id:32, 0:32, Creation:32>>).

%% @doc A reference of the peer.
-spec reference(peer(), non_neg_integer()) -> reference().
reference(#{name := Name, creation := Creation}, Id) ->
    binary_to_term(<<131, 90, 3:16, (atom_ext(Name))/binary, Creation:32, (Id rem 16#40000):32, 1:32,
                     (Id div 16#40000):32>>).

-spec atom_ext(atom()) -> binary().
atom_ext(Atom) ->
    Text = atom_to_binary(Atom),
    <<119, (byte_size(Text)), Text/binary>>.

%% @doc A gen_server call to a registered name, as gen.erl does it: monitor, request, and after the
%% reply demonitor.
-spec call(peer(), atom(), term()) -> {ok, term()} | {down, term()} | {error, term()}.
call(Peer, Name, Request) ->
    Id = erlang:unique_integer([positive]),
    {Before, After} = call_frames(Peer, Name, Request, Id),
    case send(Peer, Before) of
        ok ->
            Answer = await_reply(Peer, Id),
            _ = send(Peer, After),
            Answer;
        Error ->
            Error
    end.

%% @doc The frames of a call before and after its reply, for tests that send many at once.
-spec call_frames(peer(), atom(), term(), non_neg_integer()) -> {iodata(), iodata()}.
call_frames(Peer, Name, Request, Id) ->
    Self = pid(Peer, 1),
    Ref = reference(Peer, Id),
    {[frame({19, Self, Name, Ref}), frame({6, Self, '', Name}, {'$gen_call', {Self, Ref}, Request})],
     frame({20, Self, Name, Ref})}.

%% @doc Wait for the reply to a call; what else arrives is passed over.
-spec await_reply(peer(), non_neg_integer()) -> {ok, term()} | {down, term()} | {error, term()}.
await_reply(Peer, Id) ->
    await_tag(Peer, reference(Peer, Id)).

%% @doc Wait for the reply with a tag, or for the end of a monitor whose reference is the tag.
-spec await_tag(peer(), term()) -> {ok, term()} | {down, term()} | {error, term()}.
await_tag(Peer, Tag) ->
    case recv_frame(Peer) of
        {_, {Tag, Reply}} -> {ok, Reply};
        {{21, _, _, Tag, Reason}} -> {down, Reason};
        {error, Reason} -> {error, Reason};
        _ -> await_tag(Peer, Tag)
    end.

%%% Packets

-spec sized(iodata()) -> binary().
sized(Bytes) ->
    iolist_to_binary([<<(iolist_size(Bytes)):16>>, Bytes]).

-spec framed(iodata()) -> binary().
framed(Bytes) ->
    iolist_to_binary([<<(iolist_size(Bytes)):32>>, Bytes]).
