%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc What an authenticated peer may do wrong or out of malice: frames, terms, floods.
-module(hostile_tests).

-include_lib("eunit/include/eunit.hrl").

-import(hostile, [answers/1, connect/2, counted/3, logged/4, no_growth/3, raw_name/1, raw_name/2, state/2]).

-define(SERVER, macula_nat_coordinator).
-define(LIMIT, 16#1000000).

hostile_test_() ->
    [hostile:suite(frame_tests() ++ peer_tests()), hostile:memory_suite(memory_tests())].

frame_tests() ->
    [{"frames that are too large", fun large_frames/1},
     {"a frame as large as can be", fun largest_frame/1},
     {"a flood of ticks", fun tick_flood/1},
     {"frames that are none", fun bad_frames/1},
     {"control messages that are none", fun bad_controls/1},
     {"terms that are none", fun broken_terms/1},
     {"200,000-deep terms", fun deep_terms/1},
     {"rare terms", fun rare_terms/1},
     {"large and odd arguments", fun odd_arguments/1}].

%% The mutations come last: the sessions that they make go on for a while, and count.
peer_tests() ->
    [{"names and processes that do not exist", fun nobody/1},
     {"processes of other nodes", fun spoofed/1},
     {"a peer that stops reading", fun stopped_reader/1},
     {"a flood", fun(Handle) -> flood(Handle, 1) end},
     {"a full cache", fun full_cache/1},
     {"100,000 mutations of real frames", fun mutations/1}].

memory_tests() ->
    [{"a frame as large as can be", fun largest_frame/1},
     {"rare terms", fun rare_terms/1},
     {"large and odd arguments", fun odd_arguments/1},
     {"a peer that stops reading", fun stopped_reader/1},
     {"floods", fun repeated_floods/1},
     {"a full cache", fun refilled_cache/1},
     {"after all of it", fun memory_returns/1}].

%%% Frames

large_frames(Handle) ->
    Neighbour = connect(Handle, raw_name("neighbour")),
    Sizes = [16#FFFFFFFF, 16#80000000, 16#7FFFFFFF, ?LIMIT + 1],
    Counted = counted(Handle, [frames_too_large, frames_malformed], fun() -> too_large(Handle, Neighbour, Sizes) end),
    ?assertEqual(#{frames_too_large => length(Sizes), frames_malformed => 0}, Counted),
    raw_dist:close(Neighbour).

too_large(Handle, Neighbour, Sizes) ->
    [begin
         Name = raw_name("large_frame", Size),
         Peer = connect(Handle, Name),
         Mark = cnode:mark(Handle),
         _ = raw_dist:send(Peer, [<<Size:32>>, binary:copy(<<112>>, 100000)]),
         ?assertEqual(closed, raw_dist:await_close(Peer)),
         logged(Handle, Name, "it sent a frame larger than 16 MiB", Mark),
         ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Neighbour, ?SERVER, Size))
     end || Size <- Sizes].

largest_frame(Handle) ->
    Peer = connect(Handle, raw_name("largest_frame")),
    Size = fun(Bytes) -> iolist_size(request(Peer, <<0:Bytes/unit:8>>, 1)) - 4 end,
    Fill = 1000000 + ?LIMIT - Size(1000000),
    ?assertEqual(?LIMIT, Size(Fill)),
    [begin
         ok = raw_dist:send(Peer, request(Peer, <<0:Fill/unit:8>>, Id)),
         ?assertEqual({ok, {error, unknown_request}}, raw_dist:await_reply(Peer, Id))
     end || Id <- lists:seq(1, 3)],
    raw_dist:close(Peer).

tick_flood(Handle) ->
    Peer = connect(Handle, raw_name("ticks")),
    ok = raw_dist:send(Peer, binary:copy(raw_dist:tick(), 1000000)),
    ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, after_the_ticks)),
    raw_dist:close(Peer).

bad_frames(Handle) ->
    Self = raw_dist:pid(raw_name("bad_frames"), 1, 7),
    Control = bad_terms:ext({6, Self, '', ?SERVER}),
    Message = bad_terms:ext({'$gen_call', {Self, tag}, x}),
    Bodies = [<<112>>, <<0>>, <<131>>, <<112, 131>>, <<112, 112>>,
              <<113, 131, Control/binary, 131, Message/binary>>, <<112, 130, Control/binary, 131, Message/binary>>,
              <<112, 131, Control/binary, 132, Message/binary>>, <<112, 131, Control/binary, Message/binary>>,
              <<112, 131, Control/binary>>, <<112, 131, Control/binary, 131>>,
              <<112, 131, Control/binary, 131, Message/binary, 0>>,
              <<112, 131, Control/binary, 131, Message/binary, 131, Message/binary>>,
              <<112, 131, (bad_terms:ext({19, Self, ?SERVER, make_ref()}))/binary, 131, Message/binary>>,
              <<131, Control/binary, 131, Message/binary>>,
              %% A header of the atom cache, a first fragment and a later one.
              <<131, 68, 0, Control/binary, Message/binary>>, <<131, 68, 255, 0:1000>>,
              <<131, 69, 1:64, 2:64, 0, Control/binary, Message/binary>>, <<131, 70, 1:64, 1:64, Message/binary>>],
    Cut = [binary:part(Whole, 0, Size) || Whole <- [<<112, 131, Control/binary, 131, Message/binary>>],
                                          Size <- lists:seq(1, byte_size(Whole) - 1)],
    Mark = cnode:mark(Handle),
    Frames = [framed(Body) || Body <- Bodies ++ Cut],
    ?assertEqual(#{frames_malformed => length(Frames), control_unknown => 0, control_foreign => 0},
                 dropped(Handle, raw_name("bad_frames"), Frames)),
    _ = cnode:await_log(Handle, "warning malformed frame of 1 bytes from raw_bad_frames@127.0.0.1 dropped", Mark),
    ok.

%% What becomes of each is known beforehand.
bad_controls(Handle) ->
    Name = raw_name("bad_controls"),
    Self = raw_dist:pid(Name, 1, 7),
    Ref = raw_dist:pid(Name, 2, 7),
    Unknown = [{Op, Self, ?SERVER, Ref} || Op <- lists:seq(-1, 300)] ++ [{1 bsl 70, Self, Self}, {a, Self}, {}, a, [1],
                                                                         #{}, <<1>>, {[]}, 1.0],
    Parts = [1, -1, a, '', Self, self(), make_ref(), [], [a], [a | b], {}, {a, b, 1}, #{}, <<"b">>, 1 bsl 70, 1.5],
    Wrong = [list_to_tuple([Op | lists:duplicate(Arity, Part)])
             || Op <- controls(), Arity <- lists:seq(0, 7), Part <- Parts],
    Mixed = [list_to_tuple([Op | [pick(Parts) || _ <- lists:seq(1, Arity)]])
             || Op <- controls(), Arity <- lists:seq(2, 6), _ <- lists:seq(1, 20)],
    Fitting = [list_to_tuple([Op | [pick([Part || Part <- Parts, is_kind(Kind, Part)]) || Kind <- Kinds]])
               || Op <- controls(), {Kinds, _} <- [shape(Op)], _ <- lists:seq(1, 20)],
    Controls = Unknown ++ Wrong ++ Mixed ++ Fitting,
    Frames = [{Control, []} || Control <- Controls]
        ++ [{Control, [Message]} || Control <- Controls, Message <- [[], {system, Self, Self}]],
    Verdicts = [verdict(Control, Message, Name) || {Control, Message} <- Frames],
    Count = fun(Verdict) -> length([x || Each <- Verdicts, Each =:= Verdict]) end,
    Mark = cnode:mark(Handle),
    ?assertEqual(#{frames_malformed => Count(malformed), control_unknown => Count(unknown),
                   control_foreign => Count(foreign)},
                 dropped(Handle, Name, [apply(raw_dist, frame, [Control | Message]) || {Control, Message} <- Frames])),
    [cnode:await_log(Handle, ["warning ", What, " from raw_bad_controls@127.0.0.1", Why, " dropped"], Mark)
     || {What, Why} <- [{"unknown control message", ""}, {"malformed frame of .* bytes", ""},
                        {"control message", " in the name of another node"}]].

controls() ->
    [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37].

pick(List) ->
    lists:nth(rand:uniform(length(List)), List).

%% What the chapter on the protocol makes of a control message from a node.
verdict(Control, Message, Sender) when is_tuple(Control), tuple_size(Control) > 0 ->
    [Op | Elements] = tuple_to_list(Control),
    case shape(Op) of
        none when is_integer(Op), abs(Op) < 1 bsl 63 -> unknown;
        none -> malformed;
        {Kinds, HasMessage} when HasMessage =:= (Message =/= []), length(Kinds) =:= length(Elements) ->
            Read = lists:zip(Kinds, Elements),
            case lists:all(fun({Kind, Element}) -> is_kind(Kind, Element) end, Read) of
                true -> of_whom([Element || {Kind, Element} <- Read, lists:member(Kind, [from, atom_or_from])], Sender);
                false -> malformed
            end;
        _ ->
            malformed
    end;
verdict(_, _, _) ->
    malformed.

%% No node speaks for a process of another.
of_whom([Pid], Sender) when is_pid(Pid), node(Pid) =/= Sender -> foreign;
of_whom(_, _) -> taken.

shape(1) -> {[from, pid], false};
shape(2) -> {[any, pid], true};
shape(3) -> {[from, pid, any], false};
shape(4) -> {[from, pid], false};
shape(6) -> {[from, any, atom], true};
shape(7) -> {[from, pid], false};
shape(8) -> {[from, pid, any], false};
shape(12) -> {[any, pid, any], true};
shape(13) -> {[from, pid, any, any], false};
shape(16) -> {[from, any, atom, any], true};
shape(18) -> {[from, pid, any, any], false};
shape(19) -> {[from, atom_or_pid, reference], false};
shape(20) -> {[from, atom_or_pid, reference], false};
shape(21) -> {[atom_or_from, pid, reference, any], false};
shape(29) -> {[reference, from, pid, mfa, any], true};
shape(30) -> {[reference, from, pid, mfa, any, any], true};
shape(31) -> {[reference, pid, any, any], false};
shape(32) -> {[reference, pid, any, any, any], false};
shape(33) -> {[from, reference], true};
shape(34) -> {[from, reference, any], true};
shape(35) -> {[id, from, pid], false};
shape(36) -> {[id, from, pid], false};
shape(_) -> none.

is_kind(any, _) -> true;
is_kind(from, Term) -> is_pid(Term);
is_kind(pid, Term) -> is_pid(Term);
is_kind(atom, Term) -> is_atom(Term);
is_kind(reference, Term) -> is_reference(Term);
is_kind(atom_or_pid, Term) -> is_atom(Term) orelse is_pid(Term);
is_kind(atom_or_from, Term) -> is_atom(Term) orelse is_pid(Term);
is_kind(mfa, {M, F, A}) -> is_atom(M) andalso is_atom(F) andalso is_integer(A);
is_kind(mfa, _) -> false;
is_kind(id, Term) -> is_integer(Term).

broken_terms(Handle) ->
    in_every_place(Handle, "broken_terms", bad_terms:broken()).

deep_terms(Handle) ->
    in_every_place(Handle, "deep_terms", bad_terms:deep()).

%% As a message, in a call and as its tag, in a cast, in a system message, in the arguments of a spawn, as a
%% control message and in one, and in a profile. All of them are dropped but the one that reads the profile again.
in_every_place(Handle, Title, Terms) ->
    Name = raw_name(Title),
    Self = raw_dist:pid(Name, 1, 7),
    Send = <<112, (term_to_binary({6, Self, '', ?SERVER}))/binary, 131>>,
    Spawn = <<112, (term_to_binary({29, make_ref(), Self, Self, {erpc, execute_call, 4}, []}))/binary, 131>>,
    From = bad_terms:ext({Self, tag}),
    Call = bad_terms:ext('$gen_call'),
    Cast = bad_terms:ext('$gen_cast'),
    System = bad_terms:ext(system),
    Pid = bad_terms:ext(Self),
    ToCache = <<112, (term_to_binary({6, Self, '', macula_nat_cache}))/binary, 131>>,
    Put = bad_terms:ext(put),
    Id = bad_terms:ext(list_to_binary(Title)),
    MFA = <<(bad_terms:ext(make_ref()))/binary, (bad_terms:ext(?SERVER))/binary, (bad_terms:ext(unknown))/binary>>,
    Get = <<ToCache/binary, (bad_terms:ext({'$gen_call', {Self, tag}, {get, list_to_binary(Title)}}))/binary>>,
    Frames =
           [framed(Body)
            || Term <- Terms,
               Body <- [<<Send/binary, Term/binary>>,
                        <<Send/binary, 104, 3, Call/binary, From/binary, Term/binary>>,
                        <<Send/binary, 104, 3, Call/binary, 104, 2, Pid/binary, Term/binary, 97, 1>>,
                        <<Send/binary, 104, 3, Call/binary, Term/binary, 97, 1>>,
                        <<Send/binary, 104, 3, Term/binary, From/binary, 97, 1>>,
                        <<Send/binary, 104, 2, Cast/binary, Term/binary>>,
                        <<Send/binary, 104, 3, System/binary, From/binary, Term/binary>>,
                        <<Spawn/binary, 108, 4:32, Term/binary, Term/binary, Term/binary, Term/binary, 106>>,
                        <<Spawn/binary, 108, 4:32, MFA/binary, 108, 1:32, Term/binary, 106, 106>>,
                        <<ToCache/binary, 104, 2, Cast/binary, 104, 4, Put/binary, Id/binary,
                          116, 2:32, (bad_terms:ext(node_id))/binary, Id/binary, (bad_terms:ext(extra))/binary,
                          Term/binary, 97, 100>>,
                        Get,
                        <<112, 131, Term/binary>>,
                        <<112, 131, 104, 4, 97, 19, Pid/binary, Term/binary, Term/binary>>]],
    ?assertEqual(#{frames_malformed => length([x || [_, Body] <- Frames, Body =/= Get]), control_unknown => 0,
                   control_foreign => 0},
                 dropped(Handle, Name, Frames)).

%% Legal terms are answered, wherever a request has them.
rare_terms(Handle = #{node := Node}) ->
    Peer = connect(Handle, raw_name("rare_terms")),
    [begin
         ?assertEqual({error, unknown_request}, gen_server:call({?SERVER, Node}, Term)),
         ?assertEqual({error, unknown_request}, gen_server:call({?SERVER, Node}, {Term, [Term]})),
         ok = gen_server:cast({?SERVER, Node}, Term),
         {?SERVER, Node} ! Term,
         %% The tag of a call is any term, and comes back as it went.
         ok = raw_dist:send_control(Peer, {6, raw_dist:pid(Peer, 1), '', ?SERVER},
                                    {'$gen_call', {raw_dist:pid(Peer, 1), Term}, x}),
         ?assertEqual({ok, {error, unknown_request}}, raw_dist:await_tag(Peer, Term))
     end || Term <- bad_terms:rare()],
    raw_dist:close(Peer).

odd_arguments(#{node := Node}) ->
    Call = fun(Request) -> gen_server:call({?SERVER, Node}, Request) end,
    Large = binary:copy(<<"x">>, 3000000),
    ?assertEqual({error, {bad_argument, initiator_id}}, Call({request_connection, Large, <<"b">>, #{}})),
    ?assertEqual({error, {bad_argument, target_id}}, Call({request_connection, <<"a">>, Large, #{}})),
    ?assertEqual({error, {bad_argument, target_id}}, Call({request_connection, <<"a">>, <<"a">>, #{}})),
    [begin
         ?assertEqual({error, {bad_argument, initiator_id}}, Call({request_connection, Term, <<"b">>, #{}})),
         ?assertEqual({error, {bad_argument, target_id}}, Call({request_connection, <<"a">>, Term, #{}})),
         ?assertEqual({error, {bad_argument, max_punch_attempts}},
                      Call({request_connection, <<"a">>, <<"b">>, #{max_punch_attempts => Term}})),
         ok = gen_server:cast({?SERVER, Node}, {report_result, Term, Term, Term}),
         ok = gen_server:cast({?SERVER, Node}, {coordinate_punch, Term, Term, Term}),
         ok = gen_server:cast({macula_nat_cache, Node}, {put, Term, Term, Term}),
         ok = gen_server:cast({macula_nat_cache, Node}, {put, <<"a">>, Term, 10}),
         ok = gen_server:cast({macula_nat_cache, Node}, {put, <<"a">>, #{node_id => Term, Term => Term}, Term}),
         ok = gen_server:cast({macula_nat_cache, Node}, {invalidate, Term})
     end || Term <- bad_terms:rare(), not is_binary(Term), not is_integer(Term)],
    [?assertEqual({error, {bad_argument, opts}}, Call({request_connection, <<"a">>, <<"b">>, Term}))
     || Term <- bad_terms:rare(), not is_map(Term)],
    ok = gen_server:cast({macula_nat_cache, Node}, clear).

mutations(Handle = #{node := Node}) ->
    _ = injector:seed(),
    Name = raw_name("mutations"),
    Frames = injector:mutations(100000, corpus(Handle, Name)),
    Keys = [frames_malformed, control_unknown, control_foreign],
    Counted = counted(Handle, Keys, fun() ->
        {Answered, Ended} = injector:inject(Node, Name, Frames),
        ?assertEqual(length(Frames), Answered + Ended)
    end),
    %% Each kind of drop is met, and some frames are none of them.
    [?assert(Count > 0) || Count <- maps:values(Counted)],
    ?assert(lists:sum(maps:values(Counted)) < length(Frames)),
    answers(Handle).

%% Real frames. None of them ends the program when it is whole, nor does one changed byte make one: those
%% with two processes name none that exists.
corpus(#{node := Node}, Name) ->
    Self = raw_dist:pid(Name, 1, 7),
    Nobody = raw_dist:pid(Node, 16#55AA55, 1),
    Ref = binary_to_term(<<131, 90, 3:16, (bad_terms:ext(Name))/binary, 7:32, 1:32, 2:32, 3:32>>),
    ToName = {6, Self, '', ?SERVER},
    Call = fun(Request) -> raw_dist:frame(ToName, {'$gen_call', {Self, Ref}, Request}) end,
    Cast = fun(To, Request) -> raw_dist:frame({6, Self, '', To}, {'$gen_cast', Request}) end,
    Spawn = fun(MFA, Opts, Args) -> raw_dist:frame({29, Ref, Self, Self, MFA, Opts}, Args) end,
    Profile = #{node_id => <<"a">>, mapping_policy => ei, filtering_policy => pd, allocation_policy => pc,
                can_receive_unsolicited => false, requires_relay => false, relay_capable => true,
                reflexive_address => {{192, 0, 2, 1}, 4433}, port_delta => 2, detected_at => 1700000000,
                ttl_seconds => 300, latitude => 52.5, <<"other">> => [1, {x, "text"}]},
    [raw_dist:frame({19, Self, ?SERVER, Ref}), raw_dist:frame({20, Self, ?SERVER, Ref}),
     raw_dist:frame({19, Self, Nobody, Ref}), raw_dist:frame({21, Self, Nobody, Ref, noproc}),
     raw_dist:frame({1, Self, Nobody}), raw_dist:frame({35, 17, Self, Nobody}), raw_dist:frame({36, 17, Self, Nobody}),
     raw_dist:frame({3, Self, Nobody, normal}), raw_dist:frame({8, Self, Nobody, kill}),
     raw_dist:frame({7, Self, Nobody}), raw_dist:frame({31, Ref, Self, 0, Nobody}),
     raw_dist:frame({33, Self, Ref}, {Ref, reply}), raw_dist:frame({2, '', Nobody}, message),
     Call(get_pending), Call(unknown), Call(stats), Call({request_connection, <<"a">>, <<"b">>, #{notify => Self}}),
     Call({request_connection, <<"a">>, <<"b">>, #{max_punch_attempts => 2, punch_timeout_ms => 100,
                                                   allow_relay => false}}),
     Call({attach_peer, <<"b">>}), Call({detach_peer, <<"b">>}),
     raw_dist:frame(ToName, {'$gen_call', {Self, [alias | Ref]}, get_pending}),
     Cast(?SERVER, {coordinate_punch, <<"a">>, <<"b">>, #{session_id => <<"session">>}}),
     Cast(?SERVER, {report_result, <<"session">>, <<"a">>, success}),
     Cast(macula_nat_cache, {put, <<"a">>, Profile, 300}), Cast(macula_nat_cache, {invalidate, <<"b">>}),
     Cast(macula_nat_cache, clear),
     Spawn({erpc, execute_call, 4}, [monitor], [Ref, ?SERVER, get_pending, []]),
     Spawn({erpc, execute_call, 4}, [monitor], [Ref, macula_nat_cache, put, [<<"a">>, Profile]]),
     Spawn({erpc, execute_cast, 3}, [], [?SERVER, report_result, [<<"s">>, <<"a">>, failure]]),
     Spawn({lists, map, 2}, [link, monitor, {priority, high}], [x, y]),
     raw_dist:frame({6, Self, '', rex}, {'$gen_call', {Self, Ref}, {block_call, ?SERVER, get_pending, [], Self}}),
     raw_dist:frame({6, Self, '', rex}, {Self, {call, macula_nat_cache, stats, [], user}}),
     raw_dist:frame({6, Self, '', rex}, {Self, features_request}),
     raw_dist:frame({6, Self, '', net_kernel}, {'$gen_call', {Self, Ref}, {is_auth, Name}}),
     raw_dist:frame(ToName, {system, {Self, Ref}, get_state}), raw_dist:frame(ToName, {system, {Self, Ref}, get_status}),
     raw_dist:frame(ToName, {system, {Self, Ref}, {debug, {statistics, true}}}), raw_dist:frame(ToName, <<"anything">>)].

%%% Peers

nobody(Handle = #{node := Node}) ->
    Peer = connect(Handle, raw_name("nobody")),
    Self = raw_dist:pid(Peer, 1),
    %% One that was never there, and one of another life of the node.
    Nobody = raw_dist:their_pid(Peer, 16#55AA),
    Former = raw_dist:pid(Node, 1, 1),
    Ref = raw_dist:reference(Peer, 1),
    [ok = raw_dist:send_control(Peer, {6, Self, '', Name}, message) || Name <- [nobody, '', init, x, undefined]],
    [ok = raw_dist:send_control(Peer, {2, '', Pid}, message) || Pid <- [Nobody, Former, Self, self()]],
    [begin
         ok = raw_dist:send_control(Peer, {19, Self, What, Ref}),
         ?assertEqual({{21, What, Self, Ref, noproc}}, raw_dist:recv_frame(Peer))
     end || What <- [nobody, '', Nobody, Former]],
    ok = raw_dist:send_control(Peer, {1, Self, Nobody}),
    ?assertEqual({{3, Nobody, Self, noproc}}, raw_dist:recv_frame(Peer)),
    [begin
         ok = raw_dist:send_control(Peer, {35, Id, Self, Nobody}),
         ?assertEqual({{36, Id, Nobody, Self}}, raw_dist:recv_frame(Peer))
     end || Id <- [1, 1 bsl 63]],
    [ok = raw_dist:send_control(Peer, Control)
     || Control <- [{20, Self, nobody, Ref}, {20, Self, ?SERVER, Ref}, {3, Self, Nobody, x}, {8, Self, Nobody, kill},
                    {36, 1, Self, Nobody}, {21, Self, Nobody, Ref, x}, {31, Ref, Self, 0, Self}, {7, Self, Nobody}]],
    ?assertEqual({down, noproc}, raw_dist:call(Peer, nobody, request)),
    ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, request)),
    raw_dist:close(Peer).

%% In the name of a process of a node that is not connected: dropped. Requests in the peer's own name that want their
%% answers there are handled; the answers are dropped, and nobody connects.
spoofed(Handle) ->
    Other = raw_dist:listen(raw_name("other")),
    Pid = raw_dist:pid(raw_dist:listener_name(Other), 1, 7),
    Name = raw_name("spoofing"),
    Peer = connect(Handle, Name),
    Ref = make_ref(),
    Requests = [unknown, get_pending, {attach_peer, <<"spoofed">>},
                {request_connection, <<"spoofed">>, <<"b">>, #{notify => Pid}}],
    Call = fun(From, Request) -> {{6, From, '', ?SERVER}, {'$gen_call', {Pid, Ref}, Request}} end,
    Foreign = [Call(Pid, Request) || Request <- Requests]
        ++ [{{19, Pid, ?SERVER, Ref}}, {{20, Pid, ?SERVER, Ref}}, {{19, Pid, nobody, Ref}}, {{35, 1, Pid, Pid}}]
        ++ [{{29, Ref, Pid, Pid, {erpc, execute_call, 4}, [monitor]}, [Ref, ?SERVER, get_pending, []]}],
    Send = fun(Messages) ->
        [ok = apply(raw_dist, send_control, [Peer | tuple_to_list(Message)]) || Message <- Messages],
        ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, request))
    end,
    Keys = [control_foreign, messages_undeliverable],
    Mark = cnode:mark(Handle),
    #{mailboxes := Mailboxes} = state(Handle, services),
    ?assertEqual(#{control_foreign => length(Foreign), messages_undeliverable => 0},
                 counted(Handle, Keys, fun() -> Send(Foreign) end)),
    _ = cnode:await_log(Handle, "warning control message from raw_spoofing@127.0.0.1 in the name of another node dropped",
                        Mark),
    %% A request for a connection is answered when the profiles have been looked up.
    Own = [Call(raw_dist:pid(Peer, 1), Request) || Request <- Requests],
    ?assertEqual(#{control_foreign => 0, messages_undeliverable => length(Own) - 1},
                 counted(Handle, Keys, fun() -> Send(lists:droplast(Own)) end)),
    #{messages_undeliverable := Dropped} = state(Handle, network),
    Send([lists:last(Own)]),
    cnode:await(fun() -> maps:get(messages_undeliverable, state(Handle, network)) > Dropped end),
    ?assertMatch(#{mailboxes := Mailboxes}, state(Handle, services)),
    answers(Handle),
    ?assertEqual(nobody, raw_dist:accept_now(Other)),
    raw_dist:close(Peer),
    raw_dist:stop_listening(Other).

%% It is cut off; the others are answered all the time.
stopped_reader(Handle = #{node := Node}) ->
    Large = #{node_id => <<"large">>, location_label => binary:copy(<<"x">>, 1000000)},
    ok = gen_server:cast({macula_nat_cache, Node}, {put, <<"large">>, Large, 300}),
    ?assertMatch({ok, #{node_id := <<"large">>}, fresh}, gen_server:call({macula_nat_cache, Node}, {get, <<"large">>})),
    #{output_limit := Cut} = state(Handle, network),
    Name = raw_name("stopped_reader"),
    Peer = connect(Handle, Name),
    Mark = cnode:mark(Handle),
    [begin
         _ = raw_dist:send(Peer, request(Peer, macula_nat_cache, {get, <<"large">>}, Id)),
         answers(Handle)
     end || Id <- lists:seq(1, 100)],
    logged(Handle, Name, "it does not read, and its output is over the limit", Mark),
    ?assertEqual(closed, raw_dist:await_close(Peer)),
    #{output_limit := Now} = state(Handle, network),
    ?assertEqual(Cut + 1, Now),
    %% A slow one that goes on reading gets it all.
    Slow = connect(Handle, raw_name("slow_reader")),
    [ok = raw_dist:send(Slow, request(Slow, macula_nat_cache, {get, <<"large">>}, Id)) || Id <- lists:seq(1, 30)],
    [?assertMatch({ok, {ok, _, fresh}}, raw_dist:await_reply(Slow, Id)) || Id <- lists:seq(1, 30)],
    raw_dist:close(Slow),
    ok = gen_server:cast({macula_nat_cache, Node}, clear).

%% The same three times: the memory of the second and third time is that of the first.
repeated_floods(Handle) ->
    flood(Handle, 1),
    First = cnode:memory(Handle),
    flood(Handle, 2),
    flood(Handle, 3),
    no_growth(Handle, First, 8).

flood(Handle, Round) ->
    Peer = connect(Handle, raw_name("flood", Round)),
    Self = raw_dist:pid(Peer, 1),
    Nobody = raw_dist:their_pid(Peer, 16#55AA),
    Many = lists:seq(1, 100000),
    Some = lists:seq(1, 20000),
    Floods =
        [[raw_dist:frame({19, Self, ?SERVER, raw_dist:reference(Peer, I)}) || I <- Many],
         [raw_dist:frame({19, raw_dist:pid(Peer, I), nobody, raw_dist:reference(Peer, I)}) || I <- Some],
         [raw_dist:frame({1, raw_dist:pid(Peer, I), Nobody}) || I <- Some],
         [raw_dist:frame({35, I, raw_dist:pid(Peer, I), Nobody}) || I <- Some],
         [raw_dist:frame({29, raw_dist:reference(Peer, I), Self, Self, {erpc, execute_call, 4}, [monitor]},
                         [raw_dist:reference(Peer, I), ?SERVER, unknown, []]) || I <- Some],
         [raw_dist:frame({29, raw_dist:reference(Peer, I), Self, Self, {a, b, 0}, [monitor, link]}, []) || I <- Some],
         [raw_dist:frame({6, Self, '', ?SERVER},
                         {'$gen_call', {raw_dist:pid(Peer, I), t}, {attach_peer, integer_to_binary(I)}}) || I <- Some],
         [raw_dist:frame({6, Self, '', ?SERVER},
                         {'$gen_call', {raw_dist:pid(Peer, I), t}, {attach_peer, <<"one">>}}) || I <- Some],
         [raw_dist:frame({6, Self, '', ?SERVER}, I) || I <- Some]],
    [begin
         Id = 1000000,
         {Request, _} = raw_dist:call_frames(Peer, ?SERVER, flooded, Id),
         ok = raw_dist:send(Peer, [Flood, Request]),
         ?assertEqual({ok, {error, unknown_request}}, raw_dist:await_reply(Peer, Id)),
         answers(Handle)
     end || Flood <- Floods],
    raw_dist:close(Peer),
    answers(Handle).

full_cache(Handle) ->
    Stats = fill_cache(Handle),
    ?assertEqual(Stats, fill_cache(Handle)),
    large_profiles(Handle).

refilled_cache(Handle) ->
    Stats = fill_cache(Handle),
    First = cnode:memory(Handle),
    ?assertEqual([Stats, Stats], [fill_cache(Handle), fill_cache(Handle)]),
    no_growth(Handle, First, 8),
    large_profiles(Handle),
    no_growth(Handle, First, 8).

%% Large ones make room for each other, too large ones are no profiles.
large_profiles(#{node := Node}) ->
    Put = fun(Id, Size) ->
                  Profile = #{node_id => Id, detail => <<0:Size/unit:8>>},
                  ok = gen_server:cast({macula_nat_cache, Node}, {put, Id, Profile, 300})
          end,
    [Put(integer_to_binary(I), 1000000) || I <- lists:seq(1, 300)],
    Put(<<"x">>, 8000000),
    Get = fun(Id) -> gen_server:call({macula_nat_cache, Node}, {get, Id}) end,
    ?assertEqual(not_found, Get(<<"1">>)),
    ?assertMatch({ok, #{detail := _}, fresh}, Get(<<"300">>)),
    ?assertEqual(not_found, Get(<<"x">>)),
    ok = gen_server:cast({macula_nat_cache, Node}, clear),
    ?assertEqual(not_found, Get(<<"300">>)).

%% Of 10,100 entries the first 100 make room for the last.
fill_cache(#{node := Node}) ->
    Cache = {macula_nat_cache, Node},
    ok = gen_server:cast(Cache, clear),
    [ok = gen_server:cast(Cache, {put, integer_to_binary(I), #{node_id => integer_to_binary(I), mapping_policy => ei}, 300})
     || I <- lists:seq(1, 10100)],
    ?assertMatch({ok, _, fresh}, gen_server:call(Cache, {get, <<"10100">>})),
    ?assertMatch({ok, _, fresh}, gen_server:call(Cache, {get, <<"101">>})),
    ?assertEqual(not_found, gen_server:call(Cache, {get, <<"100">>})),
    maps:get(size, gen_server:call(Cache, stats), unknown).

%% The last test: after all of the others little is left of what they took. What was freed between things that stay
%% goes back only when the program trims its heap, once a minute.
memory_returns(Handle = #{memory := AtStart}) ->
    no_growth(Handle, AtStart, 64).

%%% Helpers

%% Each frame is handled, and the connection stays. What the counters of what is dropped have grown by.
dropped(Handle = #{node := Node}, Name, Frames) ->
    Counted = counted(Handle, [frames_malformed, control_unknown, control_foreign],
                      fun() -> ?assertEqual({length(Frames), 0}, injector:inject(Node, Name, Frames)) end),
    answers(Handle),
    Counted.

request(Peer, Request, Id) ->
    request(Peer, ?SERVER, Request, Id).

request(Peer, Server, Request, Id) ->
    Self = raw_dist:pid(Peer, 1),
    raw_dist:frame({6, Self, '', Server}, {'$gen_call', {Self, raw_dist:reference(Peer, Id)}, Request}).

framed(Body) ->
    [<<(byte_size(Body)):32>>, Body].
