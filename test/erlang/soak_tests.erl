%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc Everything at once, for a while: all kinds of requests from several nodes, services that answer as they like,
%% and random faults. Afterwards nothing may be left, and whoever met no fault must have been answered each time.
%%
%% SOAK_SECONDS says how long (default 10), SOAK_SEED repeats the choices of a run. From a minute on it waits until the
%% ended sessions are swept, too, and then compares the memory after both halves of the time.
-module(soak_tests).

-include_lib("eunit/include/eunit.hrl").

-define(AT(Node), {macula_nat_coordinator, Node}).
-define(CACHE(Node), {macula_nat_cache, Node}).
-define(SERVER, macula_nat_coordinator).

soak_test_() ->
    Seconds = list_to_integer(os:getenv("SOAK_SECONDS", "10")),
    {spawn, {timeout, 3 * Seconds + 300, {"a soak", fun() -> soak(Seconds) end}}}.

soak(Seconds) ->
    Seed = list_to_integer(os:getenv("SOAK_SEED", integer_to_list(rand:uniform(1 bsl 30)))),
    io:format(user, "soak: ~b seconds, SOAK_SEED=~b~n", [Seconds, Seed]),
    _ = rand:seed(exsss, Seed),
    Epmd = cnode:epmd_start(),
    Env = [{"ERL_EPMD_PORT", integer_to_list(cnode:epmd_port(Epmd))}],
    %% The raw peers of this node ask EPMD nothing.
    Args = ["--punch-timeout-ms", "200", "--coordination-delay-ms", "10", "--lookup-timeout-ms", "300",
            "--max-punch-attempts", "1", "--session-ttl-s", "10", "--log-level", "notice"],
    Steady = [cnode:peer(#{env => Env}) || _ <- "ab"],
    cnode:with(#{args => Args, env => Env}, fun(Handle) ->
        State = #{handle => Handle, env => Env, epmd => Epmd, steady => Steady},
        First = calm(round(calm(State, Seconds), Seconds div 2), Seconds),
        Last = calm(round(First, Seconds - Seconds div 2), Seconds),
        cnode:is_instrumented(Handle) orelse memory_is_back(Seconds, First, Last),
        ?assertEqual([], [Line || Line <- cnode:log(Handle), is_unexpected(Line)]),
        put(epmd, maps:get(epmd, Last))
    end),
    lists:foreach(fun cnode:peer_stop/1, Steady),
    cnode:epmd_stop(get(epmd)).

memory_is_back(Seconds, #{memory := First}, #{memory := Last}) when Seconds >= 60 ->
    ?assertMatch({_, _, true}, {First, Last, Last =< First * 1.05});
memory_is_back(_Seconds, _First, _Last) ->
    ok.

%% None of the faults is an error of the program; warnings are what the faults are told with.
is_unexpected(Line) ->
    re:run(Line, "^[^ ]+Z error |Sanitizer|runtime error", [{capture, none}]) =:= match.

%%%-------------------------------------------------------------------
%%% A round
%%%-------------------------------------------------------------------

round(#{handle := #{node := N}, steady := Steady, env := Env} = State, Seconds) ->
    End = erlang:monotonic_time(millisecond) + Seconds * 1000,
    Loads = [{Peer, cnode:on(Peer, fun() -> start_load(N, Seed) end)} || Peer <- Steady, Seed <- [rand:uniform(1 bsl 30)]],
    Victim = start_victim(N, Env),
    After = faults(State#{victim => Victim}, End),
    Results = [cnode:on(Peer, fun() -> stop_load(Load) end, 60000) || {Peer, Load} <- Loads],
    cnode:peer_kill(maps:get(victim, After)),
    %% Every call of the steady nodes was answered.
    [?assertEqual([], Failed) || {_, Failed} <- Results],
    [?assert(Calls > 0) || {Calls, _} <- Results],
    maps:remove(victim, After).

start_victim(N, Env) ->
    Victim = cnode:peer(#{env => Env}),
    Seed = rand:uniform(1 bsl 30),
    cnode:on(Victim, fun() -> start_load(N, Seed) end),
    Victim.

faults(State, End) ->
    case erlang:monotonic_time(millisecond) >= End of
        true -> State;
        false -> faults(fault(rand:uniform(100), State), End)
    end.

%% Most are cut connections and garbage; the slow ones come seldom.
fault(1, #{victim := Victim, env := Env, handle := #{node := N}} = State) ->
    cnode:peer_kill(Victim),
    State#{victim := start_victim(N, Env)};
fault(2, #{victim := Victim} = State) ->
    OsPid = cnode:on(Victim, fun() -> os:getpid() end),
    [] = os:cmd("kill -STOP " ++ OsPid),
    Next = lists:foldl(fun(_, S) -> fault(50 + rand:uniform(50), S) end, State, lists:seq(1, 20)),
    [] = os:cmd("kill -CONT " ++ OsPid),
    Next;
fault(3, #{epmd := Epmd, handle := #{name := Name, port := Listen}} = State) ->
    Port = cnode:epmd_port(Epmd),
    cnode:epmd_stop(Epmd),
    New = cnode:epmd_start(Port),
    cnode:await(fun() -> lists:keyfind(Name, 1, cnode:epmd_names(Port)) =:= {Name, Listen} end),
    State#{epmd := New};
fault(4, #{victim := Victim, handle := #{node := N}} = State) ->
    cnode:on(Victim, fun() -> erlang:disconnect_node(N) end),
    State;
fault(5, #{steady := [Peer | _], handle := #{node := N}} = State) ->
    cnode:on(Peer, fun() -> ok = sys:suspend(?AT(N)), ok = sys:resume(?AT(N)) end),
    State;
fault(Kind, #{handle := #{node := N, port := Port}} = State) when Kind < 40 ->
    Stop = lists:nth(rand:uniform(8), [tcp, half_length, half_name, name, status, challenge, half_reply, reply]),
    {ok, Peer} = raw_dist:connect(N, #{name => raw_name(), port => Port, stop => Stop}),
    cut(Peer),
    State;
fault(Kind, #{handle := #{node := N, port := Port}} = State) ->
    {ok, Peer} = raw_dist:connect(N, #{name => raw_name(), port => Port}),
    _ = raw_dist:send(Peer, stream(Kind, Peer)),
    cut(Peer),
    State.

%% Some whole requests, and then garbage, half a frame, or nothing.
stream(Kind, Peer) ->
    Self = raw_dist:pid(Peer, rand:uniform(10)),
    Call = fun(Request) -> element(1, raw_dist:call_frames(Peer, ?SERVER, Request, rand:uniform(1000))) end,
    Frames = iolist_to_binary(
        [Call(get_pending), Call({request_connection, id(), id(), #{notify => Self}}), Call({attach_peer, id()}),
         raw_dist:frame({29, raw_dist:reference(Peer, 1), Self, Self, {erpc, execute_call, 4}, [monitor]},
                        [raw_dist:reference(Peer, 1), ?SERVER, get_pending, []])]),
    case Kind rem 3 of
        0 -> [Frames, <<20:32, 112>>, rand:bytes(19)];
        1 -> binary:part(Frames, 0, rand:uniform(byte_size(Frames)));
        2 -> [Frames, <<(1 bsl 25):32>>, rand:bytes(100)]
    end.

raw_name() ->
    hostile:raw_name("soak", rand:uniform(20)).

cut(#{socket := Socket} = Peer) ->
    _ = inet:setopts(Socket, [{linger, {rand:uniform(2) =:= 1, 0}}]),
    raw_dist:close(Peer).

%%%-------------------------------------------------------------------
%%% Requests, on the nodes
%%%-------------------------------------------------------------------

start_load(N, Seed) ->
    Self = self(),
    Load = spawn(fun() ->
        _ = rand:seed(exsss, Seed),
        Services = [start_service(Name) || Name <- [macula_nat_cache, macula_routing_server]],
        Seeds = [rand:uniform(1 bsl 30) || _ <- lists:seq(1, 4)],
        Workers = [element(1, spawn_monitor(fun() -> _ = rand:seed(exsss, S), work(N, 0, []) end)) || S <- Seeds],
        Self ! started,
        receive
            {stop, From} ->
                [Worker ! stop || Worker <- Workers],
                Ends = [receive {'DOWN', _, process, Worker, End} -> End end || Worker <- Workers],
                lists:foreach(fun stop_service/1, Services),
                From ! {stopped, lists:sum([Calls || {ended, Calls, _} <- Ends]),
                        lists:append([Failed || {ended, _, Failed} <- Ends]) ++ [End || End <- Ends, element(1, End) =/= ended]}
        end
    end),
    receive started -> Load end.

stop_load(Load) ->
    Load ! {stop, self()},
    receive {stopped, Calls, Failed} -> {Calls, Failed} end.

work(N, Calls, Failed) ->
    drop_messages(),
    receive
        stop -> exit({ended, Calls, Failed})
    after 0 ->
        Kind = rand:uniform(14),
        try request(Kind, N) of
            _ -> work(N, Calls + 1, Failed)
        catch
            Class:Reason -> work(N, Calls + 1, lists:sublist([{Kind, Class, Reason} | Failed], 5))
        end
    end.

%% What the program sends to a worker is not to pile up in front of the word to stop.
drop_messages() ->
    receive
        Message when Message =/= stop -> drop_messages()
    after 0 ->
        ok
    end.

request(1, N) -> gen_server:cast(?CACHE(N), {put, id(), profile(), 1 + rand:uniform(5)});
request(2, N) -> call(?CACHE(N), {get, id()});
request(3, N) -> gen_server:cast(?CACHE(N), {invalidate, id()});
request(4, N) -> call(?AT(N), get_pending);
request(5, N) -> ok = call(?AT(N), {attach_peer, id()});
request(6, N) -> ok = call(?AT(N), {detach_peer, id()});
request(7, N) -> true = is_list(erpc:call(N, ?SERVER, get_pending, []));
request(8, N) -> {ok, _, _} = rpc:call(N, ?SERVER, request_connection, [<<"of ", (id())/binary>>, id(), #{}]);
request(9, N) -> gen_server:cast(?AT(N), {coordinate_punch, <<"by ", (id())/binary>>, id(), #{}});
request(10, N) -> sys:get_status(?AT(N));
request(11, N) -> Ref = monitor(process, ?AT(N)), {error, unknown_request} = call(?AT(N), odd), demonitor(Ref, [flush]);
request(12, N) -> {error, {bad_argument, _}} = call(?AT(N), {request_connection, id, id(), #{}});
request(_, N) ->
    {ok, _, Session} = call(?AT(N), {request_connection, <<"from ", (id())/binary>>, id(), #{notify => self()}}),
    [gen_server:cast(?AT(N), {report_result, Session, id(), Result})
     || Result <- lists:nthtail(rand:uniform(3) - 1, [failure, success])].

%% How long it takes is the machine's business; what is never answered keeps its worker from ever stopping.
call(Server, Request) ->
    gen_server:call(Server, Request, infinity).

id() ->
    <<(rand:uniform(30))>>.

profile() ->
    Any = fun(List) -> lists:nth(rand:uniform(length(List)), List) end,
    #{mapping_policy => Any([ei, hd, pd]), filtering_policy => Any([ei, hd, pd]), allocation_policy => Any([pp, pc, rd]),
      requires_relay => Any([true, false, false]), can_receive_unsolicited => Any([true, false, false]),
      endpoint => <<"192.0.2.1:4433">>, location_label => binary:copy(<<"x">>, rand:uniform(500))}.

%% A service that answers well, badly, late or not at all, and now and then goes and comes back.
start_service(Name) ->
    Seed = rand:uniform(1 bsl 30),
    Self = self(),
    {Pid, Ref} = spawn_monitor(fun() -> _ = rand:seed(exsss, Seed), true = register(Name, self()), Self ! {registered, Name}, serve(Name) end),
    receive
        {registered, Name} -> demonitor(Ref, [flush]), Pid;
        {'DOWN', Ref, process, Pid, Reason} -> error({no_service, Name, Reason})
    end.

%% It has no name while it is gone.
stop_service(Pid) ->
    Ref = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Ref, process, Pid, _} -> ok end.

serve(Name) ->
    receive
        {'$gen_call', From, Request} ->
            case rand:uniform(20) of
                1 -> ok;
                2 -> gen_server:reply(From, {odd, [Request]});
                3 -> erlang:send_after(rand:uniform(400), self(), {answer, From, Request});
                4 -> unregister(Name), receive _ -> ok after 10 -> ok end, true = register(Name, self());
                _ -> gen_server:reply(From, answer(Request))
            end;
        {answer, From, Request} -> gen_server:reply(From, answer(Request));
        _ -> ok
    end,
    serve(Name).

answer({get, Id}) ->
    case rand:uniform(3) of
        1 -> not_found;
        _ -> {ok, (profile())#{node_id => Id}, fresh}
    end;
answer({find_value, _, _}) -> {ok, [#{<<"host">> => <<"h">>, <<"port">> => 1}, (profile())#{node_id => id()}]};
answer(_) -> ok.

%%%-------------------------------------------------------------------
%%% Afterwards
%%%-------------------------------------------------------------------

%% Waits until nothing is pending; from a minute on until the ended sessions are swept as well.
calm(#{handle := #{node := N} = Handle, steady := [Peer | _] = Steady} = State, Seconds) ->
    _ = [cnode:on(Each, fun() -> {error, _} = gen_server:call(?AT(N), x) end) || Each <- Steady],
    cnode:await(fun() ->
        #{waiting_for := Waiting, services := #{mailboxes := Mailboxes}, network := #{connections := Connections},
          sessions := #{pending := Pending, ended := Ended}} = cnode:on(Peer, fun() -> sys:get_state(?AT(N)) end),
        lists:all(fun(Count) -> Count =:= 0 end, [Mailboxes | maps:values(Waiting)]) andalso Connections =:= length(Steady)
            andalso (Seconds < 60 orelse Pending + Ended =:= 0)
    end, 120000),
    %% Handshakes that were cut off last are not among the connections.
    Descriptors = maps:get(descriptors, State, cnode:descriptors(Handle)),
    cnode:await(fun() -> cnode:descriptors(Handle) =< Descriptors end),
    State#{descriptors => Descriptors, memory => cnode:memory(Handle)}.
