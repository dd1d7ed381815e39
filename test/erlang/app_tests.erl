%% SPDX-License-Identifier: Apache-2.0
%% The OTP application: the old module's API on top of the program, in VMs of every kind.
-module(app_tests).
-include_lib("eunit/include/eunit.hrl").

-export([log/2, init/1]).

-define(NAME, macula_nat_coordinator).
-define(ROUNDS, 100).

%% The projects compile while other tests wait.
app_test_() ->
    {inparallel, [{inorder, in_vms()}, projects()]}.

in_vms() ->
    Plain = [],
    Tests = [
        {"all functions in a plain VM", fun() -> functions(Plain) end},
        {"all functions in a VM with a long name", fun() -> functions(long()) end},
        {"all functions in a VM with a short name", fun() -> functions(["-sname", cnode:unique("short")]) end},
        {"all functions in a VM that waits for its name", fun() -> functions(["-sname", "undefined"]) end},
        {"all functions in a VM with cookies from the command line", fun cookies/0},
        {"the names of the C node", fun names/0},
        {"the old options, and those of others", fun options/0},
        {"options from the application's environment", fun environment/0},
        {"two VMs and one C node", fun() -> shared(long(), long()) end},
        {"two plain VMs and one C node", fun() -> shared(Plain, Plain) end},
        {"the C node is killed in the middle of a call", fun killed_in_call/0},
        {"the reason of an end in the middle of a call", fun ended_in_call/0},
        {"a reply that comes too late", fun late_reply/0},
        {"calls leave nothing behind", fun many_calls/0},
        {"calls while the C node restarts", fun restarts/0},
        {"requests to the local name", fun forwarded/0},
        {"requests from a third node", fun third_node/0},
        {"the connection to the program is lost", fun disconnected/0},
        {"the port of the program killed", fun port_killed/0},
        {"a C node of others that is not there at the start", fun late_cnode/0},
        {"distribution stopped and another started", fun other_distribution/0},
        {"supervision in a plain VM", fun() -> supervision(Plain) end},
        {"supervision in a distributed VM", fun() -> supervision(long()) end},
        {"the end of a C node that others started", fun shared_end/0},
        {"shutdown while the C program hangs", fun hanging/0},
        {"shutdown while distribution can't be stopped", fun kernel_hanging/0},
        {"distribution that was not started here is not stopped", fun not_allowed/0},
        {"the process of distribution killed", fun distribution_killed/0},
        {"a message that is none of the program's", fun strange_message/0},
        {"the local process killed in a plain VM", fun() -> killed(Plain) end},
        {"the local process killed in a distributed VM", fun() -> killed(long()) end},
        {"the VM killed", fun vm_killed/0},
        {"nothing is left behind in a plain VM", fun() -> rounds(Plain) end},
        {"nothing is left behind in a distributed VM", fun() -> rounds(long()) end},
        {"errors of a start", fun errors/0},
        {"a program that is not there", fun no_program/0},
        {"a program that is never ready", fun not_ready/0},
        {"all functions without a home directory", fun no_home/0},
        {"a home directory that cannot be read", fun unreadable_home/0},
        {"all functions where distribution is not TCP", fun not_tcp/0},
        {"all functions without EPMD", fun no_epmd/0},
        {"distribution that can't be started", fun no_distribution/0},
        {"a C node of others where distribution is not TCP", fun not_tcp_shared/0},
        {"a stranger at the door", fun stranger/0},
        {"the name is taken", fun name_taken/0},
        {"EPMD is found where PATH has none", fun no_path/0},
        {"log lines with their level", fun log_lines/0},
        {"the level of the module", fun module_level/0},
        {"compatibility", fun compatibility/0},
        {"the program and the application have one version", fun versions/0}
    ],
    [{spawn, {timeout, 300, {Title, Test}}} || {Title, Test} <- Tests].

projects() ->
    %% In order: both releases have the page's name.
    {setup, fun repositories/0, fun remove/1, fun(Dir) ->
        {inorder, [{spawn, {timeout, 300, {Title, fun() -> Test(Dir) end}}} || {Title, Test} <- [
            {"the rebar3 project of doc/release.md", fun rebar3_project/1},
            {"the hook of doc/release.md leaves a checkout alone", fun checkout/1},
            {"the Mix project of doc/release.md", fun mix_project/1}
        ]]}
    end}.

%%%-------------------------------------------------------------------
%%% The API
%%%-------------------------------------------------------------------

%% An application written by the documentation of the module alone.
functions(Args) ->
    with_vm(Args, fun() ->
        {Before, Cookie} = {node(), erlang:get_cookie()},
        {ok, Pid} = ?NAME:start_link(#{}),
        ?assertEqual(Pid, whereis(?NAME)),
        ?assertEqual({error, {already_started, Pid}}, ?NAME:start_link(#{})),
        [C] = nodes(hidden),
        api(),
        ?assertEqual(Before =:= nonode@nohost, Before =/= node()),
        ok = gen_server:stop(?NAME),
        not_running(C),
        ?assertEqual({Before, Cookie}, {node(), erlang:get_cookie()}),
        %% And once more.
        {ok, _} = ?NAME:start_link(#{}),
        api(),
        ok = gen_server:stop(?NAME),
        not_running(C)
    end).

api() ->
    ?assertEqual([], ?NAME:get_pending()),
    {ok, hole_punch, First} = ?NAME:request_connection(<<"a">>, <<"b">>),
    ?assertMatch([#{session_id := First, initiator_id := <<"a">>, target_id := <<"b">>, initiator_profile := undefined,
                    target_profile := undefined, strategy := hole_punch, attempts := 0}], ?NAME:get_pending()),
    [Session] = ?NAME:get_pending(),
    ?assertEqual([attempts, created_at, initiator_id, initiator_profile, session_id, state, strategy, target_id,
                  target_profile], lists:sort(maps:keys(Session))),
    ?assertEqual(ok, ?NAME:report_result(First, <<"a">>, success)),
    ?assertEqual([], ?NAME:get_pending()),
    {ok, hole_punch, Second} = ?NAME:request_connection(<<"a">>, <<"c">>, #{notify => self()}),
    ?assertEqual(ok, ?NAME:report_result(Second, <<"c">>, success)),
    ?assertEqual(success, completed(Second)),
    ?assertEqual(ok, ?NAME:coordinate_punch(<<"d">>, <<"e">>, #{session_id => <<"chosen">>})),
    ?assertMatch([#{session_id := <<"chosen">>, initiator_id := <<"d">>, target_id := <<"e">>}], ?NAME:get_pending()),
    ?assertEqual(ok, ?NAME:report_result(<<"chosen">>, <<"d">>, success)),
    ?assertEqual({error, {bad_argument, initiator_id}}, ?NAME:request_connection(not_a_binary, <<"b">>)),
    ?assertEqual({error, {bad_argument, opts}}, ?NAME:request_connection(<<"a">>, <<"b">>, not_a_map)),
    ?assertEqual(ok, ?NAME:report_result(<<"unknown">>, <<"a">>, failure)),
    ?assertEqual([], ?NAME:get_pending()).

%% What calls to a gen_server that is not there do, and no trace of the C node.
not_running(C) ->
    ?assertEqual(undefined, whereis(?NAME)),
    ?assertExit({noproc, {gen_server, call, [?NAME, get_pending]}}, ?NAME:get_pending()),
    ?assertExit({noproc, {gen_server, call, [?NAME, {request_connection, <<"a">>, <<"b">>, #{}}]}},
                ?NAME:request_connection(<<"a">>, <<"b">>)),
    ?assertEqual(ok, ?NAME:coordinate_punch(<<"a">>, <<"b">>, #{})),
    ?assertEqual(ok, ?NAME:report_result(<<"id">>, <<"a">>, success)),
    gone(C).

gone(C) ->
    [Alive, _] = string:split(atom_to_list(C), "@"),
    ?assertEqual([], programs(Alive)),
    cnode:await(fun() -> not lists:keymember(Alive, 1, cnode:epmd_names()) end).

completed(Id) ->
    receive {punch_session, Id, #{state := completed, result := Result}} -> Result end.

failed(Id) ->
    receive {punch_session, Id, #{state := failed, result := Result, attempts := Attempts}} -> {Result, Attempts} end.

%% The VM's own cookie counts, not the one for another node that comes first.
cookies() ->
    functions(["-sname", "undefined", "-setcookie", "some@where", "other", "-setcookie", cnode:unique("own")]).

names() ->
    CNode = fun() -> {ok, _} = ?NAME:start_link(#{}), [C] = nodes(hidden), ok = gen_server:stop(?NAME), C end,
    Name = cnode:unique("vm"),
    ?assertEqual(list_to_atom("macula_nat_" ++ Name ++ "@127.0.0.1"), with_vm(["-name", Name ++ "@127.0.0.1"], CNode)),
    ?assertEqual(list_to_atom("macula_nat_" ++ Name ++ "@localhost"), with_vm(["-sname", Name], CNode)),
    %% Without a name of the VM it is like no other, but the same at the next start.
    [{A, A}, {B, B}] = [with_vm([], fun() -> {CNode(), CNode()} end) || _ <- [1, 2]],
    [?assertMatch({match, _}, re:run(atom_to_list(C), "^macula_nat_[0-9a-f]{16}@127\\.0\\.0\\.1$")) || C <- [A, B]],
    ?assertNotEqual(A, B),
    %% With an address of its own to listen on it has the host of the VM.
    ?assertEqual(list_to_atom("macula_nat_" ++ Name ++ "@localhost"), with_vm(["-sname", Name ++ "@localhost"], fun() ->
        {ok, _} = ?NAME:start_link(#{listen => "0.0.0.0"}),
        [Node] = nodes(hidden),
        ok = gen_server:stop(?NAME),
        Node
    end)).

options() ->
    with_vm(long(), fun() ->
        {ok, _} = ?NAME:start_link(#{max_punch_attempts => 0, punch_timeout_ms => 3600000, relay_port => 4433,
                                     {any, key} => "value", cache => []}),
        {ok, hole_punch, First} = ?NAME:request_connection(<<"a">>, <<"b">>, #{notify => self()}),
        ok = ?NAME:report_result(First, <<"a">>, failure),
        ?assertEqual({unreachable, 0}, failed(First)),
        ok = gen_server:stop(?NAME),
        {ok, _} = ?NAME:start_link(#{max_punch_attempts => 1, punch_timeout_ms => 1}),
        {ok, hole_punch, Second} = ?NAME:request_connection(<<"a">>, <<"b">>, #{notify => self()}),
        ?assertEqual({timeout, 1}, failed(Second)),
        ok = gen_server:stop(?NAME)
    end).

environment() ->
    %% From the command line, which nothing has loaded yet; the options come first.
    with_vm(long() ++ ["-macula_nat_cnode", "max_punch_attempts", "0", "-macula_nat_cnode", "cnode", "'no@where.at.all'"],
            fun() ->
        {ok, _} = ?NAME:start_link(#{cnode => undefined}),
        {ok, hole_punch, First} = ?NAME:request_connection(<<"a">>, <<"b">>, #{notify => self()}),
        ok = ?NAME:report_result(First, <<"a">>, failure),
        ?assertEqual({unreachable, 0}, failed(First)),
        ok = gen_server:stop(?NAME),
        application:set_env(macula_nat_cnode, args, ["--strategy-rules", "none"]),
        process_flag(trap_exit, true),
        ?assertEqual({error, {exit_status, 64}}, ?NAME:start_link(#{cnode => undefined}))
    end).

%%%-------------------------------------------------------------------
%%% One C node for several VMs
%%%-------------------------------------------------------------------

shared(ArgsA, ArgsB) ->
    cnode:with(#{}, fun(#{node := C}) ->
        [A, B] = [vm(Args) || Args <- [ArgsA, ArgsB]],
        Self = self(),
        %% By the options and by the application's environment, as macula starts it.
        Asker = spawn_link(fun() ->
            Self ! {self(), cnode:on(A, fun() ->
                {ok, _} = ?NAME:start_link(#{cnode => C}),
                {ok, hole_punch, Id} = ?NAME:request_connection(<<"a">>, <<"b">>, #{notify => self()}),
                Result = completed(Id),
                Named = node(),
                ok = gen_server:stop(?NAME),
                {Id, Result, Named, node()}
            end)}
        end),
        {Reported, NamedB, NodeB} = cnode:on(B, fun() ->
            application:set_env(macula_nat_cnode, cnode, C),
            {ok, _} = ?NAME:start_link(#{}),
            cnode:await(fun() -> ?NAME:get_pending() =/= [] end),
            [#{session_id := Id, initiator_id := <<"a">>}] = ?NAME:get_pending(),
            ok = ?NAME:report_result(Id, <<"b">>, success),
            [] = ?NAME:get_pending(),
            Named = node(),
            ok = gen_server:stop(?NAME),
            {Id, Named, node()}
        end),
        {Id, Result, NamedA, NodeA} = receive {Asker, Answer} -> Answer end,
        ?assertEqual({Id, success}, {Reported, Result}),
        ?assertEqual(3, length(lists:usort([nonode@nohost, NamedA, NamedB]))),
        %% The ends of the local processes left the C node alone.
        ?assertMatch([_], programs(C)),
        [?assertEqual({nonode@nohost, nonode@nohost}, {NodeA, NodeB}) || ArgsA =:= [], ArgsB =:= []],
        [cnode:peer_stop(Vm) || Vm <- [A, B]]
    end).

%% The local process outlives the C node, however long that is away, and finds it when it is back.
shared_end() ->
    Handle = #{node := C, name := Name} = cnode:start(),
    Vm = vm(long()),
    {Sup, First} = cnode:on(Vm, fun() -> supervise(#{cnode => C}) end),
    cnode:on(Vm, fun() ->
        handle_log(),
        kill_program(C, "KILL"),
        logged(warning, "macula_nat_coordinator: the C node " ++ Name ++ "@127.0.0.1 is gone: noconnection"),
        absent(),
        ?assertEqual(First, whereis(?NAME))
    end),
    ?assertEqual(137, cnode:await_exit(Handle)),
    Again = cnode:start(#{name => Name}),
    cnode:on(Vm, fun() ->
        present(),
        ?assertEqual([], ?NAME:get_pending()),
        ?assertEqual([], gen_server:call(?NAME, get_pending)),
        ?assertEqual(First, whereis(?NAME)),
        shutdown(Sup)
    end),
    ?assertEqual(0, cnode:stop(Again)),
    cnode:peer_stop(Vm).

%% What calls and casts do while there is no C node.
absent() ->
    ?assertExit({noproc, {gen_server, call, [?NAME, get_pending]}}, ?NAME:get_pending()),
    ?assertExit({noproc, {gen_server, call, [?NAME, {request_connection, <<"a">>, <<"b">>, #{}}]}},
                ?NAME:request_connection(<<"a">>, <<"b">>)),
    ?assertEqual(ok, ?NAME:coordinate_punch(<<"a">>, <<"b">>, #{})),
    ?assertEqual(ok, ?NAME:report_result(<<"id">>, <<"a">>, success)),
    ?assertEqual({error, noproc}, gen_server:call(?NAME, get_pending)),
    ?assertEqual({error, noproc}, gen_server:call(?NAME, {attach_peer, <<"a">>})),
    ?assertEqual(ok, gen_server:cast(?NAME, anything)),
    ?NAME ! anything,
    ok.

present() ->
    cnode:await(fun() -> try ?NAME:get_pending() of _ -> true catch exit:{noproc, _} -> false end end).

late_cnode() ->
    Name = cnode:unique("late"),
    C = list_to_atom(Name ++ "@127.0.0.1"),
    Vm = vm(long()),
    Sup = cnode:on(Vm, fun() ->
        {Sup, Pid} = supervise(#{cnode => C}),
        ?assertEqual(Pid, whereis(?NAME)),
        absent(),
        Sup
    end),
    cnode:with(#{name => Name}, fun(_) ->
        cnode:on(Vm, fun() -> present(), api() end)
    end),
    cnode:on(Vm, fun() ->
        cnode:await(fun() -> try ?NAME:get_pending() of _ -> false catch exit:{noproc, _} -> true end end),
        absent(),
        shutdown(Sup)
    end),
    cnode:peer_stop(Vm).

%%%-------------------------------------------------------------------
%%% Calls
%%%-------------------------------------------------------------------

killed_in_call() ->
    with_vm(long(), fun() ->
        {Sup, First} = supervise(#{}),
        [C] = nodes(hidden),
        [] = ?NAME:get_pending(),
        kill_program(C, "STOP"),
        Asker = spawn_asker(fun() -> ?NAME:get_pending() end),
        cnode:await(fun() -> process_info(Asker, status) =:= {status, waiting} end),
        kill_program(C, "KILL"),
        ?assertEqual({noproc, {gen_server, call, [?NAME, get_pending]}}, answer(Asker)),
        restarted(First),
        shutdown(Sup)
    end).

%% Nobody but the local processes of the module monitors the C node, and callers get the reason all the same.
ended_in_call() ->
    with_double(fun(Double) ->
        [begin
            Asker = spawn_asker(fun() -> ?NAME:request_connection(<<"a">>, <<"b">>) end),
            cnode:await(fun() -> asked(Double) =:= Asker end),
            ?assertNot(lists:member(Asker, ask(Double, monitored_by))),
            Double ! {exit, Reason},
            ?assertEqual({Reason, {gen_server, call, [?NAME, {request_connection, <<"a">>, <<"b">>, #{}}]}},
                         answer(Asker)),
            present()
        end || Reason <- [normal, shutdown, {any, reason}]]
    end).

late_reply() ->
    with_double(fun(Double) ->
        Request = {request_connection, <<"a">>, <<"b">>, #{}},
        ?assertExit({timeout, {gen_server, call, [?NAME, Request]}}, ?NAME:request_connection(<<"a">>, <<"b">>)),
        ?assertEqual(self(), asked(Double)),
        Double ! reply,
        receive replied -> ok end,
        ?assertEqual([{messages, []}, {monitors, []}], process_info(self(), [messages, monitors]))
    end).

many_calls() ->
    with_vm([], fun() ->
        {ok, _} = ?NAME:start_link(#{}),
        [[] = ?NAME:get_pending() || _ <- lists:seq(1, 10000)],
        ?assertEqual([{messages, []}, {monitors, []}], process_info(self(), [messages, monitors])),
        ?assertEqual([], [Pid || Pid <- processes(), {monitored_by, By} <- [process_info(Pid, monitored_by)],
                                 lists:member(self(), By)]),
        ok = gen_server:stop(?NAME)
    end).

%% Each call is answered, or fails as one to a server that is not there.
restarts() ->
    with_vm(long(), fun() ->
        {Sup, _} = supervise(#{}),
        Self = self(),
        Askers = [spawn_asker(fun() -> ask_on(Self) end) || _ <- lists:seq(1, 4)],
        [begin
            Before = whereis(?NAME),
            [receive {Asker, answered} -> ok end || Asker <- Askers],
            [C] = nodes(hidden),
            kill_program(C, "KILL"),
            [receive {Asker, not_there} -> ok end || Asker <- Askers],
            restarted(Before)
        end || _ <- lists:seq(1, 5)],
        [Asker ! stop || Asker <- Askers],
        [?assertEqual([{messages, []}, {monitors, []}], answer(Asker)) || Asker <- Askers],
        shutdown(Sup)
    end).

%% It tells when the C node is there, and when it is not, until it is told to stop.
ask_on(To) ->
    ask_on(To, not_there).

ask_on(To, Last) ->
    Now =
        try ?NAME:get_pending() of
            [] -> answered
        catch
            exit:{noproc, {gen_server, call, [?NAME, get_pending]}} -> not_there
        end,
    _ = [To ! {self(), Now} || Now =/= Last],
    receive
        stop -> process_info(self(), [messages, monitors])
    after 0 ->
        ask_on(To, Now)
    end.

%% A process that calls; its result, or the reason that it exits with.
spawn_asker(Call) ->
    Self = self(),
    spawn(fun() -> Self ! {self(), answer, try Call() catch exit:Reason -> Reason end} end).

answer(Asker) ->
    receive {Asker, answer, Answer} -> Answer after 30000 -> error(no_answer) end.

%% A VM whose C node is an Erlang process, which keeps request_connection to itself until it is told to reply.
with_double(Fun) ->
    #{node := Node} = Peer = cnode:peer(),
    _ = cnode:on(Peer, fun() -> spawn(fun doubles/0) end),
    with_vm(long(), fun() ->
        {ok, _} = ?NAME:start_link(#{cnode => Node}),
        Fun({?NAME, Node}),
        ok = gen_server:stop(?NAME)
    end),
    cnode:peer_stop(Peer).

%% One after the other.
doubles() ->
    {Pid, Ref} = spawn_monitor(fun() -> true = register(?NAME, self()), double(none) end),
    receive {'DOWN', Ref, process, Pid, _} -> doubles() end.

double(Kept) ->
    receive
        {'$gen_call', From, {request_connection, _, _, _}} ->
            double(From);
        {'$gen_call', From, Request} ->
            gen_server:reply(From, case Request of
                asked -> Kept;
                monitored_by -> element(2, process_info(self(), monitored_by));
                get_pending -> [];
                {detach_peer, _} -> ok
            end),
            double(Kept);
        reply ->
            gen_server:reply(Kept, late),
            element(1, Kept) ! replied,
            double(Kept);
        {exit, Reason} ->
            exit(Reason)
    end.

ask(Double, Question) ->
    gen_server:call(Double, Question).

%% Whose request the double keeps.
asked(Double) ->
    case ask(Double, asked) of
        {Pid, _} -> Pid;
        none -> none
    end.

%%%-------------------------------------------------------------------
%%% The local name
%%%-------------------------------------------------------------------

forwarded() ->
    with_vm([], fun() ->
        {ok, Pid} = ?NAME:start_link(#{}),
        {ok, hole_punch, Id} = gen_server:call(?NAME, {request_connection, <<"a">>, <<"b">>, #{notify => self()}}),
        ?assertMatch([#{session_id := Id}], gen_server:call(Pid, get_pending)),
        ?assertEqual({error, unknown_request}, gen_server:call(?NAME, no_such_request)),
        ok = gen_server:cast(?NAME, {report_result, Id, <<"a">>, success}),
        ?assertEqual(success, completed(Id)),
        %% The caller itself becomes the mailbox.
        ?assertEqual(ok, gen_server:call(?NAME, {attach_peer, <<"c">>})),
        {ok, hole_punch, Punch} = ?NAME:request_connection(<<"c">>, <<"d">>),
        receive {punch_coordinate, #{session_id := Punch, role := initiator}} -> ok end,
        ?assertEqual(ok, gen_server:call(?NAME, {detach_peer, <<"c">>})),
        %% What nobody understands changes nothing.
        ?NAME ! anything,
        ok = gen_server:cast(?NAME, anything),
        ?assertMatch([#{session_id := Punch}], gen_server:call(?NAME, get_pending)),
        ?assertEqual(Pid, whereis(?NAME)),
        ok = gen_server:stop(?NAME)
    end).

third_node() ->
    A = vm(long()),
    B = vm(long()),
    [NodeA, NodeB] = [cnode:on(Vm, fun() -> node() end) || Vm <- [A, B]],
    {Sup, _} = cnode:on(A, fun() -> supervise(#{}) end),
    cnode:on(B, fun() ->
        {ok, hole_punch, Id} = gen_server:call({?NAME, NodeA}, {request_connection, <<"a">>, <<"b">>, #{}}),
        ?assertMatch([#{session_id := Id}], gen_server:call({?NAME, NodeA}, get_pending)),
        ok = gen_server:cast({?NAME, NodeA}, {report_result, Id, <<"a">>, success}),
        ?assertEqual([], gen_server:call({?NAME, NodeA}, get_pending)),
        ?assertMatch({[{NodeA, []}], []}, gen_server:multi_call([NodeA], ?NAME, get_pending)),
        %% Many at once, each answered to the one that asked.
        Ids = [gen_server:send_request({?NAME, NodeA}, {request_connection, <<N:32>>, <<"b">>, #{}}) || N <- lists:seq(1, 100)],
        Answers = [begin {reply, {ok, hole_punch, New}} = gen_server:receive_response(Request, infinity), New end || Request <- Ids],
        Asked = maps:from_list([{Each, From} || #{session_id := Each, initiator_id := From} <- gen_server:call({?NAME, NodeA}, get_pending)]),
        ?assertEqual([<<N:32>> || N <- lists:seq(1, 100)], [maps:get(Each, Asked) || Each <- Answers]),
        ?assertEqual({error, not_local}, gen_server:call({?NAME, NodeA}, {attach_peer, <<"c">>})),
        ?assertEqual([], nodes(hidden))
    end),
    ?assertNotEqual(NodeA, NodeB),
    cnode:on(A, fun() -> shutdown(Sup) end),
    [cnode:peer_stop(Vm) || Vm <- [A, B]].

%%%-------------------------------------------------------------------
%%% Supervision
%%%-------------------------------------------------------------------

%% @private
%% @doc The supervisor of the old module's users.
-spec init(map()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Opts) ->
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60},
          [#{id => ?NAME, start => {?NAME, start_link, [Opts]}}]}}.

%% Start the supervisor under a process of its own, so that it outlives the caller.
supervise(Opts) ->
    Self = self(),
    Holder = spawn(fun() ->
        {ok, _} = supervisor:start_link(?MODULE, Opts),
        Self ! {self(), whereis(?NAME)},
        receive stop -> exit(shutdown) end
    end),
    receive {Holder, Pid} -> {Holder, Pid} end.

restarted(Before) ->
    cnode:await(fun() -> is_pid(whereis(?NAME)) andalso whereis(?NAME) =/= Before end),
    %% The name is registered before the start is over.
    _ = sys:get_state(?NAME),
    ok.

%% An end by the supervisor's own time limit would have the reason `killed'.
shutdown(Holder) ->
    Ref = monitor(process, ?NAME),
    Holder ! stop,
    receive {'DOWN', Ref, process, _, Reason} -> ?assertEqual(shutdown, Reason) end.

supervision(Args) ->
    with_vm(Args, fun() ->
        Before = node(),
        {Sup, First} = supervise(#{}),
        [C] = nodes(hidden),
        {ok, hole_punch, _} = ?NAME:request_connection(<<"a">>, <<"b">>),
        Ref = monitor(process, First),
        kill_program(C, "KILL"),
        receive {'DOWN', Ref, process, First, Reason} -> ?assertEqual({exit_status, 137}, Reason) end,
        restarted(First),
        ?assertEqual([], ?NAME:get_pending()),
        %% A clean shutdown is an end too.
        Second = whereis(?NAME),
        Other = monitor(process, Second),
        ok = gen_server:stop({?NAME, C}),
        receive {'DOWN', Other, process, Second, Why} -> ?assertEqual({exit_status, 0}, Why) end,
        restarted(Second),
        ?assertEqual([], ?NAME:get_pending()),
        [_] = programs(C),
        shutdown(Sup),
        not_running(C),
        ?assertEqual(Before, node())
    end).

%% It is the connection that is lost, and nothing else.
disconnected() ->
    [with_vm(Args, fun() ->
        {ok, Pid} = ?NAME:start_link(#{}),
        [C] = nodes(hidden),
        [OsPid] = programs(C),
        {ok, hole_punch, Id} = ?NAME:request_connection(<<"a">>, <<"b">>),
        true = erlang:disconnect_node(C),
        present(),
        ?assertMatch([#{session_id := Id}], ?NAME:get_pending()),
        ?assertEqual({Pid, [OsPid]}, {whereis(?NAME), programs(C)}),
        ok = gen_server:stop(?NAME),
        not_running(C)
    end) || Args <- [[], long(), ["-sname", "undefined"]]].

port_killed() ->
    with_vm(long(), fun() ->
        {Sup, First} = supervise(#{}),
        [C] = nodes(hidden),
        [Old] = programs(C),
        Ref = monitor(process, First),
        exit(program_port(First), kill),
        receive {'DOWN', Ref, process, First, Reason} -> ?assertEqual({port_closed, killed}, Reason) end,
        restarted(First),
        ?assertEqual([], ?NAME:get_pending()),
        cnode:await(fun() -> not lists:member(Old, programs(C)) end),
        shutdown(Sup),
        not_running(C)
    end).

program_port(Pid) ->
    [Port] = [Each || Each <- erlang:ports(), erlang:port_info(Each, connected) =:= {connected, Pid},
                      erlang:port_info(Each, os_pid) =/= {os_pid, undefined}],
    Port.

%% A VM that gets a distribution of its own later: ours has to go first.
other_distribution() ->
    with_vm([], fun() ->
        {Sup, First} = supervise(#{}),
        Ref = monitor(process, First),
        Name = list_to_atom(cnode:unique("later") ++ "@127.0.0.1"),
        ?assertMatch({error, {already_started, _}}, net_kernel:start(Name, #{name_domain => longnames})),
        ok = net_kernel:stop(),
        {ok, _} = net_kernel:start(Name, #{name_domain => longnames}),
        receive {'DOWN', Ref, process, First, Reason} -> ?assertEqual(distribution_stopped, Reason) end,
        restarted(First),
        api(),
        ?assertEqual(Name, node()),
        [C] = nodes(hidden),
        shutdown(Sup),
        not_running(C),
        ?assertEqual(Name, node()),
        ok = net_kernel:stop()
    end).

hanging() ->
    with_vm([], fun() ->
        {Sup, _} = supervise(#{}),
        [C] = nodes(hidden),
        kill_program(C, "STOP"),
        shutdown(Sup),
        not_running(C),
        ?assertEqual(nonode@nohost, node())
    end).

%% Nothing can be asked of the kernel's supervisor; what is late is done when it goes on.
kernel_hanging() ->
    with_vm([], fun() ->
        handle_log(),
        {Sup, _} = supervise(#{}),
        [C] = nodes(hidden),
        ok = sys:suspend(kernel_sup),
        shutdown(Sup),
        logged(warning, "macula_nat_coordinator has not stopped distribution: timeout"),
        ok = sys:resume(kernel_sup),
        cnode:await(fun() -> node() =:= nonode@nohost end),
        not_running(C)
    end).

not_allowed() ->
    with_vm(long(), fun() ->
        handle_log(),
        Name = node(),
        ?assertEqual(ok, macula_nat_cnode_dist:terminate(shutdown, Name)),
        logged(warning, "distribution of " ++ atom_to_list(Name) ++ " can't be stopped: not_allowed"),
        ?assertEqual(Name, node())
    end).

distribution_killed() ->
    with_vm([], fun() ->
        handle_log(),
        {ok, _} = ?NAME:start_link(#{}),
        [C] = nodes(hidden),
        Ref = monitor(process, macula_nat_cnode_dist),
        exit(whereis(macula_nat_cnode_dist), kill),
        receive {'DOWN', Ref, process, _, killed} -> ok end,
        api(),
        ok = gen_server:stop(?NAME),
        logged(warning, "macula_nat_coordinator has not stopped distribution: noproc"),
        not_running(C),
        %% What is left of it serves the next.
        {ok, _} = ?NAME:start_link(#{}),
        api(),
        ok = gen_server:stop(?NAME)
    end).

strange_message() ->
    with_vm([], fun() ->
        {ok, Pid} = ?NAME:start_link(#{}),
        [C] = nodes(hidden),
        Port = program_port(Pid),
        %% It is waiting when the process begins to wait for the end of the program.
        ok = sys:suspend(Pid),
        Pid ! {Port, anything},
        ok = gen_server:stop(Pid),
        not_running(C)
    end).

killed(Args) ->
    with_vm(Args, fun() ->
        Before = node(),
        {Sup, First} = supervise(#{}),
        [C] = nodes(hidden),
        exit(First, kill),
        restarted(First),
        api(),
        shutdown(Sup),
        not_running(C),
        ?assertEqual(Before, node()),
        %% And without a supervisor.
        {Pid, Ref} = spawn_monitor(fun() -> {ok, _} = ?NAME:start_link(#{}), exit(whereis(?NAME), kill), receive after infinity -> ok end end),
        receive {'DOWN', Ref, process, Pid, killed} -> ok end,
        cnode:await(fun() -> programs(C) =:= [] andalso node() =:= Before end),
        not_running(C)
    end).

vm_killed() ->
    Vm = vm([]),
    C = cnode:on(Vm, fun() -> _ = supervise(#{}), [C] = nodes(hidden), C end),
    [_] = programs(C),
    cnode:peer_kill(Vm),
    cnode:await(fun() -> programs(C) =:= [] end),
    gone(C).

rounds(Args) ->
    with_vm(Args, fun() ->
        Round = fun() ->
            {ok, _} = ?NAME:start_link(#{}),
            {ok, hole_punch, _} = ?NAME:request_connection(<<"a">>, <<"b">>),
            ok = gen_server:stop(?NAME)
        end,
        %% The first round loads modules and starts what stays, as the service that resolves names.
        Round(),
        cnode:await(fun() -> children() =:= [] end),
        {Before, Atoms} = {things(), erlang:system_info(atom_count)},
        [Round() || _ <- lists:seq(1, ?ROUNDS)],
        %% An OS process that has ended may still be seen, and a socket that is closed be counted.
        try cnode:await(fun() -> things() =:= Before end, 5000) catch error:_ -> ?assertEqual(Before, things()) end,
        %% What is done for the first time makes some; but none for each round.
        ?assert(erlang:system_info(atom_count) - Atoms < ?ROUNDS),
        ?assertEqual(nothing_else, receive Message -> Message after 0 -> nothing_else end)
    end).

things() ->
    {ok, Descriptors} = file:list_dir("/proc/self/fd"),
    #{processes => length(processes()), ports => length(erlang:ports()), tables => length(ets:all()),
      descriptors => length(Descriptors), children => children(),
      node => node()}.

%%%-------------------------------------------------------------------
%%% What can't be started
%%%-------------------------------------------------------------------

errors() ->
    with_vm(long(), fun() ->
        process_flag(trap_exit, true),
        Start = fun(Opts) -> {error, Reason} = ?NAME:start_link(Opts), Reason end,
        ?assertEqual({bad_option, cnode, "name@host"}, Start(#{cnode => "name@host"})),
        ?assertEqual({bad_option, punch_timeout_ms, soon}, Start(#{punch_timeout_ms => soon})),
        ?assertEqual({bad_option, compatibility, v0_14_4}, Start(#{compatibility => v0_14_4})),
        ?assertEqual({bad_option, args, 1}, Start(#{args => [1]})),
        ?assertEqual({bad_option, listen, {127, 0, 0, 1}}, Start(#{listen => {127, 0, 0, 1}})),
        ?assertEqual({exit_status, 64}, Start(#{max_punch_attempts => -1})),
        ?assertEqual({exit_status, 64}, Start(#{listen => "localhost"})),
        ?assertEqual([], children())
    end).

no_program() ->
    with_program(none, fun(Program) ->
        ?assertEqual({error, {cannot_run, Program, enoent}}, ?NAME:start_link(#{}))
    end).

%% That it says something all the time gives it no more time.
not_ready() ->
    with_program("#!/bin/sh\nwhile echo still not ready; do sleep 0.1; done\n", fun(_) ->
        ?assertEqual({error, not_ready}, ?NAME:start_link(#{})),
        cnode:await(fun() -> children() =:= [] end)
    end).

%% The modules in a folder that has another program beside it, or none.
with_program(Script, Fun) ->
    with_vm(long(), fun() ->
        process_flag(trap_exit, true),
        Dir = string:trim(os:cmd("mktemp -d")),
        Program = Dir ++ "/priv/macula_nat_cnode",
        Modules = filename:dirname(code:which(?NAME)),
        "" = os:cmd("cp -r '" ++ Modules ++ "' " ++ Dir ++ "/ebin"),
        [begin write(Dir, "priv/macula_nat_cnode", Script), ok = file:change_mode(Program, 8#700) end || Script =/= none],
        true = code:del_path(Modules),
        true = code:add_patha(Dir ++ "/ebin"),
        try Fun(Program) after remove(Dir) end
    end).

%% With and without a name for it; nothing is left in its place, nor in the environment.
no_home() ->
    Dir = string:trim(os:cmd("mktemp -d")),
    [begin
        Vm = vm([], [{"HOME", Home}, {"XDG_CONFIG_HOME", false}, {"TMPDIR", Dir}]),
        cnode:on(Vm, fun() ->
            {ok, _} = ?NAME:start_link(#{}),
            api(),
            ?assertEqual({Home, false}, {os:getenv("HOME"), os:getenv("XDG_CONFIG_HOME")}),
            ?assertEqual({ok, []}, file:list_dir(Dir)),
            ok = gen_server:stop(?NAME)
        end),
        cnode:peer_stop(Vm)
    end || Home <- ["/proc", "/nonexistent", false]],
    ok = file:del_dir(Dir).

%% A file in its place is none that root could read either. Erlang looks nowhere else for a cookie then.
unreadable_home() ->
    Home = string:trim(os:cmd("mktemp")),
    Vm = vm([], [{"HOME", Home}]),
    cnode:on(Vm, fun() -> without_cnode(#{}, "{distribution_not_started,") end),
    cnode:peer_stop(Vm),
    ok = file:delete(Home).

not_tcp() ->
    functions(["-proto_dist", "inet_tls"]).

%% Nothing listens at this port, whoever starts.
no_epmd() ->
    Port = cnode:free_port(),
    [begin
        Vm = vm(Args, [{"ERL_EPMD_PORT", integer_to_list(Port)}]),
        cnode:on(Vm, fun() ->
            {ok, _} = ?NAME:start_link(#{}),
            api(),
            ?assertMatch({error, econnrefused}, gen_tcp:connect({127, 0, 0, 1}, Port, [])),
            ok = gen_server:stop(?NAME)
        end),
        cnode:peer_stop(Vm)
    end || Args <- [[], long() ++ ["-start_epmd", "false", "-erl_epmd_port", integer_to_list(cnode:free_port())]]].

%% The boot goes on, with one error in the log.
no_distribution() ->
    with_vm(["-proto_dist", "no_such_protocol"], fun() ->
        without_cnode(#{}, "{distribution_not_started,"),
        ?assertEqual([], nodes(hidden))
    end).

not_tcp_shared() ->
    with_vm(["-proto_dist", "inet_tls"], fun() ->
        without_cnode(#{cnode => 'nobody@127.0.0.1'}, "{distribution_not_tcp,\\[\"inet_tls\"\\]}")
    end).

without_cnode(Opts, Reason) ->
    handle_log(),
    {Sup, Pid} = supervise(Opts),
    ?assertEqual(Pid, whereis(?NAME)),
    logged(error, "macula_nat_coordinator has no C node, as this VM can't connect to one: " ++ Reason),
    absent(),
    ?assertEqual({nonode@nohost, []}, {node(), children()}),
    shutdown(Sup).

%% Whoever knocks without the C node's name is turned away.
stranger() ->
    with_vm(long(), fun() ->
        {ok, Pid} = ?NAME:start_link(#{}),
        [C] = nodes(hidden),
        [Door] = [Port || Each <- erlang:ports(), erlang:port_info(Each, connected) =:= {connected, Pid},
                          {ok, Port} <- [inet:port(Each)]],
        [begin
            {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Door, [binary, {active, false}, {packet, 2}]),
            ok = gen_tcp:send(Socket, Hello),
            ?assertEqual(refused, refusal(Socket)),
            ok = gen_tcp:close(Socket)
        end || Hello <- ["rubbish", hello("stranger@127.0.0.1")]],
        ?assertEqual([C], nodes(hidden)),
        %% It is still open to the program.
        true = erlang:disconnect_node(C),
        present(),
        ok = gen_server:stop(?NAME),
        %% Its port is closed a moment after the process has ended.
        cnode:await(fun() -> gen_tcp:connect({127, 0, 0, 1}, Door, []) =:= {error, econnrefused} end)
    end).

refusal(Socket) ->
    case gen_tcp:recv(Socket, 0, 30000) of
        {ok, <<"snot_allowed">>} -> refused;
        {error, closed} -> refused;
        Other -> Other
    end.

%% The first message of a handshake, with the flags of OTP 25.
hello(Name) ->
    <<$N, 16#d07df7fbd:64, 1:32, (length(Name)):16, (list_to_binary(Name))/binary>>.

name_taken() ->
    Name = cnode:unique("taken"),
    cnode:with(#{name => "macula_nat_" ++ Name}, fun(_) ->
        with_vm(["-name", Name ++ "@127.0.0.1"], fun() ->
            process_flag(trap_exit, true),
            ?assertEqual({error, {exit_status, 69}}, ?NAME:start_link(#{listen => "127.0.0.1"}))
        end)
    end).

no_path() ->
    Port = integer_to_list(cnode:free_port()),
    Vm = vm([], [{"ERL_EPMD_PORT", Port}]),
    try
        cnode:on(Vm, fun() ->
            true = os:putenv("PATH", "/nonexistent"),
            {ok, _} = ?NAME:start_link(#{listen => "127.0.0.1"}),
            api(),
            ?assertMatch([_], cnode:epmd_names(list_to_integer(Port))),
            ok = gen_server:stop(?NAME)
        end)
    after
        cnode:peer_stop(Vm),
        os:cmd("epmd -port " ++ Port ++ " -kill")
    end.

%%%-------------------------------------------------------------------
%%% The log
%%%-------------------------------------------------------------------

%% @private
%% @doc A handler of logger.
-spec log(logger:log_event(), logger:handler_config()) -> term().
log(#{level := Level, msg := {Format, Arguments}}, #{config := #{to := Pid}}) when is_list(Format) ->
    Pid ! {log, Level, lists:flatten(io_lib:format(Format, Arguments))};
log(_, _) ->
    ok.

handle_log() ->
    ok = logger:set_primary_config(level, debug),
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{to => self()}}).

log_lines() ->
    with_vm([], fun() ->
        handle_log(),
        {ok, _} = ?NAME:start_link(#{}),
        logged(notice, "macula_nat_coordinator has started distribution"),
        logged(notice, "macula_nat_cnode: [^ ]+ serves calls at port [0-9]+"),
        logged(info, "macula_nat_cnode: connected to "),
        ok = ?NAME:report_result(<<"unknown">>, <<"a">>, success),
        [] = ?NAME:get_pending(),
        logged(warning, "macula_nat_cnode: report_result for session "),
        ok = gen_server:stop(?NAME),
        logged(notice, "macula_nat_cnode: ended by signal 15"),
        process_flag(trap_exit, true),
        {error, {exit_status, 64}} = ?NAME:start_link(#{args => ["--wrong"]}),
        logged(error, "macula_nat_cnode: unknown option '--wrong'")
    end).

%% It counts for the program's lines too, whatever the level of all others is.
module_level() ->
    with_vm([], fun() ->
        handle_log(),
        ok = logger:set_primary_config(level, error),
        ok = logger:set_module_level(?NAME, debug),
        {ok, _} = ?NAME:start_link(#{}),
        logged(notice, "macula_nat_cnode: [^ ]+ serves calls at port [0-9]+"),
        logged(info, "macula_nat_cnode: connected to "),
        [C] = nodes(hidden),
        [OsPid] = programs(C),
        {ok, CommandLine} = file:read_file("/proc/" ++ OsPid ++ "/cmdline"),
        ?assertMatch({match, _}, re:run(CommandLine, "--log-level.debug")),
        ok = logger:set_module_level(?NAME, error),
        ok = gen_server:stop(?NAME),
        ?assertEqual(nothing_else, receive {log, notice, "macula_nat_cnode: ended" ++ _} = Line -> Line after 0 -> nothing_else end)
    end).

%% The old module asked both peers for a predictable allocation.
compatibility() ->
    with_vm(long(), fun() ->
        Profile = #{mapping_policy => ei, filtering_policy => pd, can_receive_unsolicited => false, requires_relay => false,
                    relay_capable => false},
        Strategy = fun(Opts) ->
            {ok, _} = ?NAME:start_link(Opts),
            [C] = nodes(hidden),
            [ok = rpc:call(C, macula_nat_cache, put, [Id, Profile#{node_id => Id, allocation_policy => Allocation}])
                || {Id, Allocation} <- [{<<"a">>, pp}, {<<"b">>, rd}]],
            {ok, Strategy, _} = ?NAME:request_connection(<<"a">>, <<"b">>),
            ok = gen_server:stop(?NAME),
            Strategy
        end,
        ?assertEqual(hole_punch, Strategy(#{})),
        ?assertEqual(relay, Strategy(#{compatibility => v0_14_3})),
        application:set_env(macula_nat_cnode, compatibility, v0_14_3),
        ?assertEqual(relay, Strategy(#{})),
        ?assertEqual(hole_punch, Strategy(#{compatibility => undefined}))
    end).

logged(Level, Regexp) ->
    receive
        {log, Any, Text} ->
            case re:run(Text, "^" ++ Regexp) of
                {match, _} -> ?assertEqual({Level, Text}, {Any, Text});
                nomatch -> logged(Level, Regexp)
            end
    after 30000 ->
        error({not_logged, Regexp})
    end.

%%%-------------------------------------------------------------------
%%% Projects that depend on it
%%%-------------------------------------------------------------------

%% The page's projects need two repositories: this one, and one that stands for macula, with the old module in it.
repositories() ->
    Dir = string:trim(os:cmd("mktemp -d")),
    case os:find_executable("git") of
        false -> ok;
        _ ->
            repository(Dir ++ "/macula_nat_cnode",
                       ["Makefile", "mk", "rebar.config", "scripts", "c_src", "include", "src", "priv/.gitignore"]),
            repository(Dir ++ "/macula", ["-C", "test/erlang/support/doubles/macula", "."])
    end,
    Dir.

repository(Dir, Files) ->
    ok = filelib:ensure_path(Dir),
    run(".", "tar -c " ++ lists:join(" ", Files) ++ " | tar -x -C " ++ Dir),
    run(Dir, "git init -q -b main && git add . && git -c user.name=test -c user.email=test@localhost commit -q -m test").

remove(Dir) ->
    "" = os:cmd("rm -rf " ++ Dir).

%% What the page shows, with these repositories in place of the real ones; without the part that leaves out the old
%% module there is no release.
rebar3_project(Dir) ->
    [has(Command) || Command <- ["rebar3", "git"]],
    {Text, [Config, AppSrc, VmArgs, SysConfig, Commands]} = recipe("With rebar3"),
    Project = filename:join(Dir, "rebar3_project"),
    write(Project, "src/my_node.app.src", AppSrc),
    write(Project, "vm.args", VmArgs),
    write(Project, "sys.config", SysConfig),
    Whole = replace("\\{macula, \"0.14.3\"\\}", "{macula, {git, \"file://" ++ Dir ++ "/macula\", {branch, \"main\"}}}",
                    repository_url(Dir, Config)),
    write(Project, "rebar.config", replace("\\{overrides, .*?\\]\\}\\.\n", "", Whole)),
    [Build, Start] = string:lexemes(Commands, "\n"),
    no_release(Project, Build),
    write(Project, "rebar.config", Whole),
    run(Project, mentioned("rm -rf _build/default/lib/macula", Text)),
    run(Project, Build),
    release(Project, Start, first("^-name (\\S+)$", VmArgs), first("^-setcookie (\\S+)$", VmArgs)).

%% In _checkouts, where the sources are the user's own, and a link to what may be anywhere.
checkout(Dir) ->
    [has(Command) || Command <- ["rebar3", "git"]],
    {_, [Config | _]} = recipe("With rebar3"),
    Hook = first("\"(sh -c '.*')\"\\}", Config),
    [begin
        Place = filename:join([Dir, "hook", Folder]),
        Source = filename:join([Place, "macula", "src", "deep", "macula_nat_coordinator.erl"]),
        write(filename:dirname(Source), filename:basename(Source), "kept"),
        ok = filelib:ensure_path(Place),
        {0, _} = status(filename:join(Place, "macula"), Hook),
        ?assertEqual({Folder, Kept}, {Folder, filelib:is_regular(Source)})
    end || {Folder, Kept} <- [{"_build/default/lib", false}, {"_checkouts", true}, {"elsewhere", true}]],
    ok = filelib:ensure_path(filename:join([Dir, "hook", "_build", "default", "checkouts"])),
    Link = filename:join([Dir, "hook", "_build", "default", "checkouts", "macula"]),
    ok = file:make_symlink(filename:join([Dir, "hook", "elsewhere", "macula"]), Link),
    {0, _} = status(Link, Hook),
    ?assert(filelib:is_regular(filename:join([Dir, "hook", "elsewhere", "macula", "src", "deep", "macula_nat_coordinator.erl"]))).

mix_project(Dir) ->
    [has(Command) || Command <- ["elixir", "mix", "rebar3", "git"]],
    {Text, [MixExs, ConfigExs, Commands]} = recipe("With Mix"),
    Project = filename:join(Dir, "mix_project"),
    Whole = replace("\\{:macula, \"0.14.3\"\\}", "{:macula, git: \"file://" ++ Dir ++ "/macula\", branch: \"main\"}",
                    repository_url(Dir, MixExs)),
    write(Project, "config/config.exs", ConfigExs),
    write(Project, "mix.exs", replace(",\n *aliases: .*?\n", "\n", Whole)),
    [Get, Build, Start] = string:lexemes(Commands, "\n"),
    run(Project, Get),
    no_release(Project, Build),
    write(Project, "mix.exs", Whole),
    run(Project, Get),
    run(Project, mentioned("MIX_ENV=prod mix deps.compile macula --force", Text)),
    run(Project, Build),
    {ok, Cookie} = file:read_file(filename:join(Project, "_build/prod/rel/my_node/releases/COOKIE")),
    release(Project, Start, first("RELEASE_NODE=(\\S+)", Start), binary_to_list(Cookie)).

%% A section of doc/release.md and its code blocks.
recipe(Heading) ->
    {ok, Page} = file:read_file("doc/release.md"),
    [_, After] = string:split(Page, "\n## " ++ Heading ++ "\n"),
    [Text | _] = re:split(After, "^##+ ", [multiline]),
    {match, Blocks} = re:run(Text, "^```[a-z]*\n(.*?)^```$", [global, multiline, dotall, {capture, all_but_first, list}]),
    {Text, lists:append(Blocks)}.

mentioned(Command, Text) ->
    {Command, true} = {Command, string:find(Text, "`" ++ Command ++ "`") =/= nomatch},
    Command.

repository_url(Dir, Text) ->
    replace("URL of this repository", "file://" ++ Dir ++ "/macula_nat_cnode", Text).

%% Of exactly one place.
replace(Regexp, New, Text) ->
    [Before, After] = re:split(Text, Regexp, [dotall, {return, list}]),
    Before ++ New ++ After.

first(Regexp, Text) ->
    {match, [Found]} = re:run(Text, Regexp, [multiline, {capture, all_but_first, list}]),
    Found.

no_release(Project, Command) ->
    {Status, Output} = status(Project, Command),
    ?assertNotEqual({0, Output}, {Status, Output}),
    ?assertMatch({match, _}, re:run(Output, "Duplicated modules:\\s+macula_nat_coordinator"), Output).

%% Start a release, ask the coordinator in it, and end it.
release(Project, Command, Name, Cookie) ->
    Port = open(Project, Command),
    Output = await_output(Port, ["macula_nat_cnode: macula_nat_", Name, " serves calls at port [0-9]+"], []),
    Node = list_to_atom(Name),
    with_vm(long() ++ ["-setcookie", Cookie], fun() ->
        ?assertMatch({ok, hole_punch, _}, rpc:call(Node, ?NAME, request_connection, [<<"a">>, <<"b">>])),
        ?assertEqual({ok, v0_14_3}, rpc:call(Node, application, get_env, [macula_nat_cnode, compatibility])),
        ?assertEqual(ok, rpc:call(Node, init, stop, []))
    end),
    ?assertMatch({0, _}, await_status(Port, Output)).

%% An application's version and the program's.
versions() ->
    ok = case application:load(macula_nat_cnode) of {error, {already_loaded, _}} -> ok; Loaded -> Loaded end,
    {ok, Version} = application:get_key(macula_nat_cnode, vsn),
    ?assertEqual({0, ["macula_nat_cnode " ++ Version]}, cnode:run(#{args => ["--version"]})).

write(Dir, Name, Text) ->
    File = filename:join(Dir, Name),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, Text).

has(Command) ->
    os:find_executable(Command) =/= false orelse cnode:skip(Command ++ " is not installed").

%% A command that must end with status 0.
run(Dir, Command) ->
    {Command, {0, _}} = {Command, status(Dir, Command)},
    ok.

status(Dir, Command) ->
    await_status(open(Dir, Command), []).

open(Dir, Command) ->
    Rebar3 = [{"MIX_REBAR3", File} || File <- [os:find_executable("rebar3")], File =/= false],
    open_port({spawn_executable, "/bin/sh"},
              [{args, ["-c", Command]}, {cd, Dir}, {env, [{"CFLAGS", "-O0"} | Rebar3]}, exit_status, stderr_to_stdout, binary]).

await_status(Port, Output) ->
    receive
        {Port, {data, Data}} -> await_status(Port, [Output | Data]);
        {Port, {exit_status, Status}} -> {Status, unicode:characters_to_list(Output)}
    end.

await_output(Port, Regexp, Output) ->
    receive
        {Port, {data, Data}} ->
            More = [Output | Data],
            case re:run(More, Regexp, [{capture, none}]) of
                match -> More;
                nomatch -> await_output(Port, Regexp, More)
            end;
        {Port, {exit_status, Status}} ->
            error({ended_without, Regexp, Status, unicode:characters_to_list(Output)})
    end.

%%%-------------------------------------------------------------------
%%% VMs and their programs
%%%-------------------------------------------------------------------

long() ->
    ["-name", cnode:unique("vm") ++ "@127.0.0.1"].

vm(Args) ->
    vm(Args, []).

%% A VM with the application in its code path and these arguments, controlled through its standard input.
vm(Args, Env) ->
    Paths = lists:usort([filename:absname(filename:dirname(code:which(Module))) || Module <- [?MODULE, cnode, macula_nat_cnode_port]]),
    Started = peer:start_link(#{
        connection => standard_io, wait_boot => 30000, env => Env,
        args => ["-boot", "no_dot_erlang", "-pa" | Paths] ++
            ["-kernel", "logger_level", "critical", "+S", "2:2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"] ++ Args
    }),
    ok = element(1, Started),
    #{peer => element(2, Started), node => undefined}.

with_vm(Args, Fun) ->
    Vm = vm(Args),
    %% A fun that was ended by a linked process has no result, whatever the answer is then.
    {result, Result} = cnode:on(Vm, fun() -> {result, Fun()} end, 250000),
    cnode:peer_stop(Vm),
    Result.

%% The OS processes that run the program under a node name or the part of it before the `@'.
programs(Name) when is_atom(Name) ->
    programs(hd(string:split(atom_to_list(Name), "@")));
programs(Alive) ->
    [OsPid || OsPid <- os_processes(), is_program(OsPid, Alive)].

is_program(OsPid, Alive) ->
    case file:read_file("/proc/" ++ OsPid ++ "/cmdline") of
        {ok, CommandLine} ->
            lists:any(fun(Argument) -> lists:prefix(Alive ++ "@", binary_to_list(Argument)) end,
                      binary:split(CommandLine, <<0>>, [global]));
        {error, _} ->
            false
    end.

%% The OS processes that this VM has started, but for those that every VM has.
children() ->
    Parents = [{OsPid, Parent, Name} || OsPid <- os_processes(), {Parent, Name} <- stat(OsPid)],
    Self = os:getpid(),
    Direct = [{OsPid, Name} || {OsPid, Parent, Name} <- Parents, Parent =:= Self],
    [Name || {_, Name} <- Direct, Name =/= "erl_child_setup"] ++
        [Name || {Helper, "erl_child_setup"} <- Direct, {_, Parent, Name} <- Parents, Parent =:= Helper,
                 Name =/= "inet_gethost"].

stat(OsPid) ->
    case file:read_file("/proc/" ++ OsPid ++ "/stat") of
        {ok, Stat} ->
            {match, [Name, Parent]} = re:run(Stat, "\\((.*)\\) . ([0-9]+) ", [{capture, all_but_first, list}]),
            [{Parent, Name}];
        {error, _} ->
            []
    end.

os_processes() ->
    {ok, Names} = file:list_dir("/proc"),
    [Name || Name <- Names, string:to_integer(Name) =/= {error, no_integer}].

kill_program(C, Signal) ->
    [OsPid] = programs(C),
    "" = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    ok.
