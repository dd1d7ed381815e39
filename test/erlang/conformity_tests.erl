%% SPDX-License-Identifier: Apache-2.0
%% What an Erlang node must answer: each row is run against the program and against an ordinary Erlang node with
%% gen_servers of the same names, and the answers are compared.
-module(conformity_tests).
-include_lib("eunit/include/eunit.hrl").

-define(NAME, macula_nat_coordinator).
-define(AT(Node), {macula_nat_coordinator, Node}).

conformity_test_() ->
    compare:rows(connection() ++ calls() ++ tags() ++ casts() ++ monitors() ++ links() ++ exits() ++ spawns()
                 ++ rpc() ++ rex() ++ erpc() ++ sys() ++ ends() ++ traced()).

%%%-------------------------------------------------------------------
%%% The connection
%%%-------------------------------------------------------------------

connection() ->
    [
        {"ping", fun(N) -> net_adm:ping(N) end, pong},
        {"is_auth", fun(N) -> gen_server:call({net_kernel, N}, {is_auth, node()}) end, yes},
        {"hidden, not visible",
         fun(N) ->
             pong = net_adm:ping(N),
             [lists:member(N, nodes(Kind)) || Kind <- [visible, hidden, connected]]
         end, [false, true, true]},
        {"node_info", fun(N) -> pong = net_adm:ping(N), net_kernel:node_info(N, type) end, {ok, hidden}},
        {"connect_node", fun(N) -> {net_kernel:connect_node(N), net_kernel:hidden_connect_node(N)} end, {true, true}},
        {"disconnect and come back",
         fun(N) ->
             pong = net_adm:ping(N),
             ok = cnode:nodedown(N, fun() -> erlang:disconnect_node(N) end),
             {lists:member(N, nodes(hidden)), net_adm:ping(N), lists:member(N, nodes(hidden))}
         end, {false, pong, true}},
        {"nodedown reason of a disconnect",
         fun(N) ->
             ok = net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason]),
             pong = net_adm:ping(N),
             true = erlang:disconnect_node(N),
             Info = receive {nodedown, N, I} -> I end,
             ok = net_kernel:monitor_nodes(false, [{node_type, all}, nodedown_reason]),
             lists:sort(Info)
         end, [{node_type, hidden}, {nodedown_reason, disconnect}]}
    ].

%%%-------------------------------------------------------------------
%%% gen_server
%%%-------------------------------------------------------------------

calls() ->
    [
        {"call by name", fun(N) -> gen_server:call(?AT(N), get_pending) end, []},
        {"call by pid", fun(N) -> gen_server:call(compare:pid(N), get_pending) end, []},
        {"call to an unknown name", fun(N) -> gen_server:call({no_such_name, N}, get_pending) end,
         {raises, exit, {noproc, {gen_server, call, [{no_such_name, '$node'}, get_pending]}}}},
        {"call to a dead pid", fun(N) -> gen_server:call(compare:dead_pid(N), get_pending) end,
         {raises, exit, {noproc, {gen_server, call, ['$pid', get_pending]}}}},
        {"call with infinity", fun(N) -> gen_server:call(?AT(N), get_pending, infinity) end, []},
        {"call that times out, its late reply dropped",
         fun(N) ->
             ok = sys:suspend(?AT(N)),
             Reason = try gen_server:call(?AT(N), get_pending, 50) catch exit:{Why, _} -> Why end,
             ok = sys:resume(?AT(N)),
             Next = gen_server:call(?AT(N), {unknown, request}),
             {Reason, Next, compare:mailbox()}
         end, {timeout, {error, unknown_request}, []}},
        {"send_request", fun(N) -> gen_server:wait_response(gen_server:send_request(?AT(N), get_pending), 20000) end,
         {reply, []}},
        {"receive_response",
         fun(N) -> gen_server:receive_response(gen_server:send_request(compare:pid(N), get_pending), 20000) end,
         {reply, []}},
        {"check_response",
         fun(N) ->
             Id = gen_server:send_request(?AT(N), {unknown, request}),
             First = gen_server:check_response(something_else, Id),
             {First, receive Message -> gen_server:check_response(Message, Id) end}
         end, {no_reply, {reply, {error, unknown_request}}}},
        {"send_request to an unknown name",
         fun(N) -> gen_server:wait_response(gen_server:send_request({no_such_name, N}, get_pending), 20000) end,
         {error, {noproc, {no_such_name, '$node'}}}},
        {"send_request collection",
         fun(N) ->
             Add = fun(Label, Ids) -> gen_server:send_request(?AT(N), get_pending, Label, Ids) end,
             Ids = lists:foldl(Add, gen_server:reqids_new(), lists:seq(1, 20)),
             lists:sort(collect(Ids))
         end, [{{reply, []}, Label} || Label <- lists:seq(1, 20)]},
        {"send_request abandoned, its late reply dropped",
         fun(N) ->
             ok = sys:suspend(?AT(N)),
             timeout = gen_server:receive_response(gen_server:send_request(?AT(N), get_pending), 20),
             ok = sys:resume(?AT(N)),
             [] = gen_server:call(?AT(N), get_pending),
             compare:mailbox()
         end, []},
        {"multi_call", fun(N) -> gen_server:multi_call([N], ?NAME, get_pending) end, {[{'$node', []}], []}},
        {"multi_call with a node that has no such name",
         fun(N) -> gen_server:multi_call([N, node()], ?NAME, get_pending, 20000) end,
         {[{'$node', []}], ['$caller_node']}},
        {"multi_call to an unknown name", fun(N) -> gen_server:multi_call([N], no_such_name, x, 20000) end,
         {[], ['$node']}},
        {"many calls in flight keep their order",
         fun(N) ->
             Ids = [gen_server:send_request(?AT(N), {request_connection, I, <<"b">>, #{}}) || I <- lists:seq(1, 500)],
             lists:usort([gen_server:wait_response(Id, 20000) || Id <- Ids])
         end, [{reply, {error, {bad_argument, initiator_id}}}]},
        {"call with a request of 3 MB", fun(N) -> gen_server:call(?AT(N), binary:copy(<<"x">>, 3000000)) end,
         {error, unknown_request}}
        | [{lists:flatten(io_lib:format("call with the request ~0P", [Request, 8])),
            fun(N) -> gen_server:call(?AT(N), Request) end, {error, unknown_request}} || Request <- terms()]
    ].

collect(Ids) ->
    case gen_server:receive_response(Ids, 20000, true) of
        {Response, Label, Rest} -> [{Response, Label} | collect(Rest)];
        no_request -> []
    end.

%% One of every kind of term, none of them a request.
terms() ->
    [foo, '', 'naïve ☃', [], [a | b], "text", [1, 2, 300], {}, {request_connection}, {request_connection, a, b}, {get, x, y},
     get_pendin, 0, -1, 255, 256, -2147483648, 1 bsl 40, -(1 bsl 70), 1 bsl 3000, 0.0, -1.5e300, <<>>, <<"get_pending">>,
     <<5:3>>, #{}, #{a => #{b => [c]}}, make_ref(), self(), fun lists:map/2, fun() -> ok end, list_to_tuple(lists:seq(1, 300)),
     lists:foldl(fun(_, Inner) -> [Inner] end, x, lists:seq(1, 200))].

tags() ->
    Raw = fun(Tag) ->
        fun(N) ->
            ?AT(N) ! {'$gen_call', {self(), Tag}, get_pending},
            receive {Tag, Reply} -> Reply after 20000 -> compare:mailbox() end
        end
    end,
    [{lists:flatten(io_lib:format("reply to the tag ~0P", [Tag, 8])), Raw(Tag), []}
     || Tag <- [tag, 7, "tag", <<"tag">>, {make_ref(), node()}, [alias], [alias | tag], [[alias | tag] | more], #{a => b}, 1.5]]
    ++ [
        {"reply through an alias",
         fun(N) ->
             Alias = alias(),
             ?AT(N) ! {'$gen_call', {self(), [alias | Alias]}, get_pending},
             receive {[alias | Alias], Reply} -> Reply after 20000 -> none end
         end, []},
        {"reply through an alias with more in the tag",
         fun(N) ->
             Alias = alias(),
             ?AT(N) ! {'$gen_call', {self(), [[alias | Alias] | more]}, get_pending},
             receive {[[alias | Alias] | more], Reply} -> Reply after 20000 -> none end
         end, []},
        {"a reply through an alias that is gone is dropped",
         fun(N) ->
             Alias = alias(),
             true = unalias(Alias),
             ?AT(N) ! {'$gen_call', {self(), [alias | Alias]}, get_pending},
             [] = gen_server:call(?AT(N), get_pending),
             compare:mailbox()
         end, []}
    ].

casts() ->
    Then = fun(Act) ->
        fun(N) ->
            Result = Act(N),
            {Result, gen_server:call(?AT(N), get_pending), compare:mailbox()}
        end
    end,
    [
        {"cast by name", Then(fun(N) -> gen_server:cast(?AT(N), {unknown, cast}) end), {ok, [], []}},
        {"cast by pid", Then(fun(N) -> gen_server:cast(compare:pid(N), {unknown, cast}) end), {ok, [], []}},
        {"cast to an unknown name", Then(fun(N) -> gen_server:cast({no_such_name, N}, x) end), {ok, [], []}},
        {"cast to a dead pid", Then(fun(N) -> gen_server:cast(compare:dead_pid(N), x) end), {ok, [], []}},
        {"abcast", Then(fun(N) -> gen_server:abcast([N], ?NAME, x) end), {abcast, [], []}},
        {"messages of every kind",
         Then(fun(N) -> [?AT(N) ! Term || Term <- terms()], [compare:pid(N) ! Term || Term <- terms()], ok end),
         {ok, [], []}},
        {"messages to unknown names",
         Then(fun(N) -> [{Name, N} ! x || Name <- [no_such_name, '', 'naïve ☃', undefined]], ok end), {ok, [], []}},
        {"messages and exits to pids that never were",
         Then(fun(N) -> [begin Pid ! x, exit(Pid, kill) end || Pid <- made_up(N)], ok end), {ok, [], []}},
        {"messages to dead pids", Then(fun(N) -> compare:dead_pid(N) ! x, ok end), {ok, [], []}},
        {"a message of 3 MB", Then(fun(N) -> ?AT(N) ! binary:copy(<<"x">>, 3000000), ok end), {ok, [], []}},
        {"send_nosuspend", Then(fun(N) -> erlang:send_nosuspend(?AT(N), x) end), {true, [], []}},
        {"half a gen_call, half a system message",
         Then(fun(N) -> [?AT(N) ! Term || Term <- [{'$gen_call'}, {'$gen_cast'}, {'$gen_call', x}, {system}, {system, x}]],
                        ok end), {ok, [], []}}
    ].

%%%-------------------------------------------------------------------
%%% Monitors, links, exits
%%%-------------------------------------------------------------------

monitors() ->
    Quiet = fun(What) ->
        fun(N) ->
            Ref = monitor(process, What(N)),
            [] = gen_server:call(?AT(N), get_pending),
            {demonitor(Ref, [info]), compare:mailbox()}
        end
    end,
    Down = fun(What) ->
        fun(N) ->
            Ref = monitor(process, What(N)),
            receive {'DOWN', Ref, Type, Object, Reason} -> {Type, Object, Reason} end
        end
    end,
    [
        {"monitor by name", Quiet(fun(N) -> ?AT(N) end), {true, []}},
        {"monitor by pid", Quiet(fun(N) -> compare:pid(N) end), {true, []}},
        {"monitor rex", Quiet(fun(N) -> {rex, N} end), {true, []}},
        {"monitor net_kernel", Quiet(fun(N) -> {net_kernel, N} end), {true, []}},
        {"monitor macula_nat_cache", Quiet(fun(N) -> {macula_nat_cache, N} end), {true, []}},
        {"monitor of an unknown name", Down(fun(N) -> {no_such_name, N} end),
         {process, {no_such_name, '$node'}, noproc}},
        {"monitor of a dead pid", Down(fun(N) -> compare:dead_pid(N) end), {process, '$pid', noproc}},
        {"monitor by alias",
         fun(N) ->
             Ref = monitor(process, ?AT(N), [{alias, reply_demonitor}]),
             ?AT(N) ! {'$gen_call', {self(), [alias | Ref]}, get_pending},
             Reply = receive {[alias | Ref], R} -> R end,
             {Reply, demonitor(Ref, [info])}
         end, {[], false}},
        {"monitor of pids that never were", fun(N) ->
             [receive {'DOWN', Ref, process, Pid, Reason} -> Reason end
              || Pid <- made_up(N), Ref <- [monitor(process, Pid)]]
         end, [noproc, noproc]},
        {"many monitors, given up",
         fun(N) ->
             Refs = [monitor(process, ?AT(N)) || _ <- lists:seq(1, 1000)],
             Results = [demonitor(Ref, [flush, info]) || Ref <- Refs],
             {lists:usort(Results), gen_server:call(?AT(N), get_pending), compare:mailbox()}
         end, {[true], [], []}}
    ].

%% Pids of the node that no process ever had: another number, and the coordinator's of another creation.
made_up(N) ->
    <<131, 88, Rest/binary>> = term_to_binary(compare:pid(N)),
    Size = byte_size(Rest) - 12,
    <<Name:Size/binary, Id:32, Serial:32, Creation:32>> = Rest,
    [binary_to_term(<<131, 88, Name/binary, I:32, Serial:32, C:32>>)
     || {I, C} <- [{Id + 4711, Creation}, {Id, Creation bxor 1}]].

links() ->
    [
        {"link and unlink",
         fun(N) ->
             process_flag(trap_exit, true),
             Pid = compare:pid(N),
             true = link(Pid),
             [] = gen_server:call(?AT(N), get_pending),
             true = unlink(Pid),
             [] = gen_server:call(?AT(N), get_pending),
             compare:mailbox()
         end, []},
        {"link, unlink and link again, many times",
         fun(N) ->
             process_flag(trap_exit, true),
             Pid = compare:pid(N),
             [begin true = link(Pid), true = unlink(Pid) end || _ <- lists:seq(1, 1000)],
             true = link(Pid),
             [] = gen_server:call(?AT(N), get_pending),
             true = unlink(Pid),
             compare:mailbox()
         end, []},
        {"link to a dead pid",
         fun(N) ->
             process_flag(trap_exit, true),
             Pid = compare:dead_pid(N),
             true = link(Pid),
             receive {'EXIT', Pid, Reason} -> Reason end
         end, noproc},
        {"links to pids that never were",
         fun(N) ->
             process_flag(trap_exit, true),
             [begin link(Pid), receive {'EXIT', Pid, Reason} -> Reason end end || Pid <- made_up(N)]
         end, [noproc, noproc]},
        {"unlink what was never linked",
         fun(N) -> {unlink(compare:pid(N)), unlink(compare:dead_pid(N)), gen_server:call(?AT(N), get_pending)} end,
         {true, true, []}},
        {"a linked process that ends normally changes nothing",
         fun(N) ->
             Pid = compare:pid(N),
             {_, Ref} = spawn_monitor(fun() -> link(Pid), [] = gen_server:call(Pid, get_pending) end),
             Reason = receive {'DOWN', Ref, process, _, R} -> R end,
             {Reason, compare:pid(N) =:= Pid}
         end, {normal, true}},
        {fresh, "a linked process that fails takes the other with it",
         fun(N) ->
             Pid = compare:pid(N),
             Ref = monitor(process, Pid),
             spawn(fun() -> link(Pid), [] = gen_server:call(Pid, get_pending), exit(boom) end),
             receive {'DOWN', Ref, process, Pid, Reason} -> Reason end
         end, boom},
        {fresh, "a link tells the end",
         fun(N) ->
             process_flag(trap_exit, true),
             Pid = compare:pid(N),
             true = link(Pid),
             exit(Pid, boom),
             receive {'EXIT', Pid, Reason} -> Reason end
         end, boom}
    ].

exits() ->
    Exit = fun(Reason) ->
        fun(N) ->
            Pid = compare:pid(N),
            ByPid = monitor(process, Pid),
            ByName = monitor(process, ?AT(N)),
            true = exit(Pid, Reason),
            [receive {'DOWN', Ref, Type, Object, Why} -> {Type, Object, Why} end || Ref <- [ByPid, ByName]]
        end
    end,
    Down = fun(Why) -> [{process, '$pid', Why}, {process, {?NAME, '$node'}, Why}] end,
    [
        {"exit with normal changes nothing",
         fun(N) ->
             Pid = compare:pid(N),
             {exit(Pid, normal), gen_server:call(Pid, get_pending)}
         end, {true, []}},
        {"exit of a dead pid", fun(N) -> {exit(compare:dead_pid(N), kill), gen_server:call(?AT(N), get_pending)} end,
         {true, []}},
        {"group_leader", fun(N) -> {group_leader(self(), compare:pid(N)), gen_server:call(?AT(N), get_pending)} end,
         {true, []}},
        {fresh, "exit with kill", Exit(kill), Down(killed)},
        {fresh, "exit with shutdown", Exit(shutdown), Down(shutdown)},
        {fresh, "exit with any term", Exit({some, [<<"term">>, 1.5]}), Down({some, [<<"term">>, 1.5]})}
    ].

%%%-------------------------------------------------------------------
%%% Spawn requests, rpc, rex, erpc
%%%-------------------------------------------------------------------

spawns() ->
    Request = fun(Options) ->
        fun(N) ->
            Id = spawn_request(N, lists, reverse, [[1, 2]], Options),
            receive {spawn_reply, Id, Result, Reason} -> {Result, Reason} end
        end
    end,
    [
        {"spawn request of erpc",
         fun(N) ->
             Res = make_ref(),
             Id = spawn_request(N, erpc, execute_call, [Res, ?NAME, get_pending, []], [monitor]),
             {Result, Pid} = receive {spawn_reply, Id, R, P} -> {R, P} end,
             receive {'DOWN', Id, process, Pid, Reason} -> {Result, Reason} end
         end, {ok, {'$ref', return, []}}},
        {"spawn request of erpc with another reply tag",
         fun(N) ->
             Id = spawn_request(N, erpc, execute_call, [make_ref(), ?NAME, get_pending, []],
                                [monitor, {reply_tag, my_reply}]),
             {Result, Pid} = receive {my_reply, Id, R, P} -> {R, P} end,
             receive {'DOWN', Id, process, Pid, Reason} -> {Result, Reason} end
         end, {ok, {'$ref', return, []}}},
        {"spawn request of erpc, abandoned",
         fun(N) ->
             Id = spawn_request(N, erpc, execute_call, [make_ref(), ?NAME, get_pending, []], [monitor]),
             _ = spawn_request_abandon(Id),
             [] = gen_server:call(?AT(N), get_pending),
             [] = gen_server:call(?AT(N), get_pending),
             [Message || Message <- compare:mailbox(), element(1, Message) =:= spawn_reply]
         end, []},
        {"spawn request of erpc's cast",
         fun(N) ->
             Cast = fun(Module, Function, Args) ->
                 Id = spawn_request(N, erpc, execute_cast, [Module, Function, Args], [monitor]),
                 receive {spawn_reply, Id, ok, _} -> ok end,
                 receive {'DOWN', Id, process, _, Reason} -> Reason end
             end,
             {{exception, Undef}, _Stack} = Cast(no_such_module, x, [1, a]),
             {Cast(?NAME, get_pending, []), Undef}
         end, {normal, {undef, [{no_such_module, x, [1, a], []}]}}},
        {only, "any other spawn request", Request([]), {error, notsup}},
        {only, "any other spawn request, monitored", Request([monitor]), {error, notsup}},
        {only, "any other spawn request, linked", Request([link]), {error, notsup}},
        {only, "any other spawn request of a fun",
         fun(N) ->
             Id = spawn_request(N, fun() -> ok end),
             receive {spawn_reply, Id, Result, Reason} -> {Result, Reason} end
         end, {error, notsup}},
        {only, "spawn_monitor", fun(N) -> spawn_monitor(N, lists, reverse, [[]]) end,
         {raises, error, notsup}}
    ].

%% Calls that are the same through all the ways to run a function elsewhere: title, module, function, arguments, result.
functions() ->
    [{"get_pending", ?NAME, get_pending, [], {ok, []}},
     {"report_result", ?NAME, report_result, [<<"id">>, <<"a">>, success], {ok, ok}},
     {"coordinate_punch with bad arguments", ?NAME, coordinate_punch, [a, b, c], {ok, ok}},
     {"request_connection/2 with a bad argument", ?NAME, request_connection, [a, <<"b">>],
      {ok, {error, {bad_argument, initiator_id}}}},
     {"request_connection/3 with a bad argument", ?NAME, request_connection, [<<"a">>, <<"b">>, []],
      {ok, {error, {bad_argument, opts}}}},
     {"macula_nat_cache:get of nothing", macula_nat_cache, get, [<<"nothing">>], {ok, not_found}},
     {"macula_nat_cache:invalidate", macula_nat_cache, invalidate, [<<"nothing">>], {ok, ok}},
     {"unknown function", ?NAME, no_such_function, [1, <<"two">>, {three}], undef},
     {"unknown module", no_such_module, no_such_function, [], undef},
     {"arguments that are small integers", ?NAME, request_connection, [1, 2],
      {ok, {error, {bad_argument, initiator_id}}}},
     {"unknown function of small integers", ?NAME, no_such_function, [1, 2], undef},
     {"wrong arity", ?NAME, get_pending, [1], undef},
     {"wrong arity of request_connection", ?NAME, request_connection, [<<"a">>], undef}].

rpc() ->
    Expected = fun
        ({ok, Value}, _) -> Value;
        (undef, MFA) -> {badrpc, {'EXIT', {undef, [MFA]}}}
    end,
    Through = [
        {"rpc:call", fun(N, M, F, A) -> rpc:call(N, M, F, A) end},
        {"rpc:call with a time limit", fun(N, M, F, A) -> rpc:call(N, M, F, A, 20000) end},
        {"rpc:block_call", fun(N, M, F, A) -> rpc:block_call(N, M, F, A) end},
        {"rpc:block_call with a time limit", fun(N, M, F, A) -> rpc:block_call(N, M, F, A, 20000) end},
        {"rpc:async_call", fun(N, M, F, A) -> rpc:yield(rpc:async_call(N, M, F, A)) end},
        {"rpc:nb_yield", fun(N, M, F, A) -> {value, V} = rpc:nb_yield(rpc:async_call(N, M, F, A), 20000), V end},
        {"rpc:multicall", fun(N, M, F, A) -> {[V], []} = rpc:multicall([N], M, F, A), V end},
        {"the call of erl_call and ei_rpc",
         fun(N, M, F, A) ->
             {rex, N} ! {self(), {call, M, F, A, group_leader()}},
             receive {rex, V} -> V after 20000 -> compare:mailbox() end
         end},
        {"the call of erl_call and ei_rpc with user as group leader",
         fun(N, M, F, A) ->
             {rex, N} ! {self(), {call, M, F, A, user}},
             receive {rex, V} -> V after 20000 -> compare:mailbox() end
         end}
    ],
    [{Way ++ ": " ++ Title, fun(N) -> Call(N, M, F, A) end, Expected(Result, {M, F, A, []})}
     || {Way, Call} <- Through, {Title, M, F, A, Result} <- functions()]
    ++ [
        {"rpc:multicall with a node that does not exist",
         fun(N) -> rpc:multicall([N, 'nobody@127.0.0.1'], ?NAME, get_pending, [], 20000) end,
         {[[]], ['nobody@127.0.0.1']}},
        {"rpc:call with a guard that fails",
         fun(N) -> {badrpc, {'EXIT', {Reason, _}}} = rpc:call(N, macula_nat_cache, get, [not_a_binary]), Reason end,
         function_clause},
        {"rpc:call with a guard that fails for a small integer",
         fun(N) -> {badrpc, {'EXIT', {Reason, _}}} = rpc:call(N, macula_nat_cache, get, [1]), Reason end,
         function_clause},
        {"rpc:cast",
         fun(N) ->
             true = rpc:cast(N, macula_nat_cache, put, [<<"rpc:cast">>, #{node_id => <<"rpc:cast">>}]),
             cnode:await(fun() -> rpc:call(N, macula_nat_cache, get, [<<"rpc:cast">>]) =/= not_found end)
         end, ok},
        {"rpc:sbcast", fun(N) -> rpc:sbcast([N], ?NAME, {some, message}) end, {['$node'], []}},
        {"rpc:sbcast to an unknown name",
         fun(N) -> {rpc:sbcast([N], no_such_name, x), rpc:call(N, ?NAME, get_pending, [])} end, {{[], ['$node']}, []}},
        {"erlang:node/0", fun(N) -> rpc:call(N, erlang, node, []) end, '$node'},
        {"erlang:nodes/0 of a hidden node", fun(N) -> rpc:call(N, erlang, nodes, []) end, []},
        {"erlang:whereis/1", fun(N) -> rpc:call(N, erlang, whereis, [?NAME]) end, '$pid'},
        {"erlang:whereis/1 of an unknown name", fun(N) -> erpc:call(N, erlang, whereis, [no_such_name]) end, undefined},
        {"erlang:whereis/1 of what is no name",
         fun(N) -> {badrpc, {'EXIT', {Reason, _}}} = rpc:call(N, erlang, whereis, ["x"]), Reason end, badarg},
        {"rpc:cast of an unknown function",
         fun(N) -> {rpc:cast(N, no_such_module, x, []), rpc:call(N, ?NAME, get_pending, [])} end, {true, []}}
    ].

rex() ->
    [
        {"features_request",
         fun(N) ->
             {rex, N} ! {self(), features_request},
             receive {features_reply, _, _} = Reply -> Reply after 20000 -> compare:mailbox() end
         end, {features_reply, '$node', [erpc]}},
        {"anything else at rex",
         fun(N) ->
             [{rex, N} ! Term || Term <- [x, {}, {self(), {call}}, {self(), {call, m, f, not_a_list}}]],
             gen_server:cast({rex, N}, x),
             {rpc:call(N, ?NAME, get_pending, []), compare:mailbox()}
         end, {[], []}}
    ] ++ case os:find_executable("erl_call") of
             false -> [{skip, "erl_call", "it is not installed"}];
             _ -> erl_call()
         end.

erl_call() ->
    [
        {"erl_call", fun(N) -> erl_call(["-r", "-name", atom_to_list(N)]) end, "[]"},
        {"erl_call with a dynamic name",
         fun(N) ->
             {port, Port, _} = erl_epmd:port_please(hd(string:split(atom_to_list(N), "@")), {127, 0, 0, 1}),
             erl_call(["-R", "-address", lists:concat(["127.0.0.1:", Port])])
         end, "[]"}
    ].

erl_call(Args) ->
    Port = open_port({spawn_executable, os:find_executable("erl_call")},
                     [{args, Args ++ ["-c", atom_to_list(erlang:get_cookie()), "-timeout", "20",
                                      "-a", "macula_nat_coordinator get_pending []"]},
                      exit_status, stderr_to_stdout, hide]),
    string:trim(port_output(Port)).

port_output(Port) ->
    receive
        {Port, {data, Data}} -> Data ++ port_output(Port);
        {Port, {exit_status, 0}} -> "";
        {Port, {exit_status, Status}} -> lists:concat([" exit status ", Status])
    end.

erpc() ->
    Expected = fun
        ({ok, Value}, _) -> Value;
        (undef, MFA) -> {raises, error, {exception, undef, [MFA]}}
    end,
    Through = [
        {"erpc:call", fun(N, M, F, A) -> erpc:call(N, M, F, A) end},
        {"erpc:call with a time limit", fun(N, M, F, A) -> erpc:call(N, M, F, A, 20000) end},
        {"erpc:receive_response", fun(N, M, F, A) -> erpc:receive_response(erpc:send_request(N, M, F, A)) end},
        {"erpc:wait_response",
         fun(N, M, F, A) -> {response, V} = erpc:wait_response(erpc:send_request(N, M, F, A), 20000), V end},
        {"erpc:check_response",
         fun(N, M, F, A) ->
             Id = erpc:send_request(N, M, F, A),
             erpc_check(Id)
         end}
    ],
    Many = fun
        ({ok, Value}, _) -> [{ok, Value}];
        (undef, MFA) -> [{error, {exception, undef, [MFA]}}]
    end,
    [{Way ++ ": " ++ Title, fun(N) -> Call(N, M, F, A) end, Expected(Result, {M, F, A, []})}
     || {Way, Call} <- Through, {Title, M, F, A, Result} <- functions()]
    ++ [{"erpc:multicall: " ++ Title, fun(N) -> erpc:multicall([N], M, F, A) end, Many(Result, {M, F, A, []})}
        || {Title, M, F, A, Result} <- functions()]
    ++ [
        {"erpc:multicall with a node that does not exist",
         fun(N) -> erpc:multicall([N, 'nobody@127.0.0.1'], ?NAME, get_pending, []) end,
         [{ok, []}, {error, {erpc, noconnection}}]},
        {"erpc:send_request collection",
         fun(N) ->
             Add = fun(Label, Ids) -> erpc:send_request(N, ?NAME, get_pending, [], Label, Ids) end,
             lists:sort(erpc_collect(lists:foldl(Add, erpc:reqids_new(), lists:seq(1, 20))))
         end, [{[], Label} || Label <- lists:seq(1, 20)]},
        {"erpc:cast",
         fun(N) ->
             ok = erpc:cast(N, macula_nat_cache, put, [<<"erpc:cast">>, #{node_id => <<"erpc:cast">>}]),
             cnode:await(fun() -> erpc:call(N, macula_nat_cache, get, [<<"erpc:cast">>]) =/= not_found end)
         end, ok},
        {"erpc:multicast",
         fun(N) ->
             ok = erpc:multicast([N], macula_nat_cache, put, [<<"multicast">>, #{node_id => <<"multicast">>}]),
             cnode:await(fun() -> erpc:call(N, macula_nat_cache, get, [<<"multicast">>]) =/= not_found end)
         end, ok},
        {"erpc:cast of an unknown function",
         fun(N) -> {erpc:cast(N, no_such_module, x, []), erpc:call(N, ?NAME, get_pending, [])} end, {ok, []}},
        {"erpc:call that times out, its late answer dropped",
         fun(N) ->
             ok = sys:suspend(?AT(N)),
             Caught = try erpc:call(N, ?NAME, get_pending, [], 50) catch error:Reason -> Reason end,
             ok = sys:resume(?AT(N)),
             [] = erpc:call(N, ?NAME, get_pending, []),
             {Caught, compare:mailbox()}
         end, {{erpc, timeout}, []}},
        {"many erpc:call at once",
         fun(N) ->
             Ids = [erpc:send_request(N, ?NAME, get_pending, []) || _ <- lists:seq(1, 500)],
             lists:usort([erpc:receive_response(Id, 20000) || Id <- Ids])
         end, [[]]}
    ].

erpc_check(Id) ->
    receive
        Message ->
            case erpc:check_response(Message, Id) of
                {response, Value} -> Value;
                no_response -> erpc_check(Id)
            end
    end.

erpc_collect(Ids) ->
    case erpc:receive_response(Ids, 20000, true) of
        {Response, Label, Rest} -> [{Response, Label} | erpc_collect(Rest)];
        no_request -> []
    end.

%%%-------------------------------------------------------------------
%%% sys
%%%-------------------------------------------------------------------

sys() ->
    [
        {"sys:get_status", fun(N) -> status(sys:get_status(?AT(N))) end, status('$pid', running)},
        {"sys:get_status of a suspended process",
         fun(N) ->
             ok = sys:suspend(?AT(N)),
             Status = status(sys:get_status(compare:pid(N))),
             ok = sys:resume(?AT(N)),
             Status
         end, status('$pid', suspended)},
        {"sys:get_state", fun(N) -> State = sys:get_state(?AT(N)), State =/= undefined andalso is_same(State, N) end, true},
        {"sys:get_state with a time limit", fun(N) -> is_same(sys:get_state(?AT(N), 20000), N) end, true},
        {"sys at an unknown name", fun(N) -> sys:get_state({no_such_name, N}) end,
         {raises, exit, {noproc, {sys, get_state, [{no_such_name, '$node'}]}}}},
        {"suspend twice, resume twice",
         fun(N) -> {[F(?AT(N)) || F <- [fun sys:suspend/1, fun sys:suspend/1, fun sys:resume/1, fun sys:resume/1]],
                    gen_server:call(?AT(N), get_pending)} end, {[ok, ok, ok, ok], []}},
        {"what came while suspended is answered in order",
         fun(N) ->
             ok = sys:suspend(?AT(N)),
             [?AT(N) ! {'$gen_call', {self(), I}, get_pending} || I <- lists:seq(1, 100)],
             {status, _, _, [_, suspended | _]} = sys:get_status(?AT(N)),
             Before = compare:mailbox(),
             ok = sys:resume(?AT(N)),
             {Before, [receive {_, []} = Reply -> Reply end || _ <- lists:seq(1, 100)]}
         end, {[], [{I, []} || I <- lists:seq(1, 100)]}},
        {"statistics",
         fun(N) ->
             None = sys:statistics(?AT(N), get),
             On = sys:statistics(?AT(N), true),
             [] = gen_server:call(?AT(N), get_pending),
             {ok, Statistics} = sys:statistics(?AT(N), get),
             Off = sys:statistics(?AT(N), false),
             [{start_time, {{_, _, _}, {_, _, _}}}, {current_time, {{_, _, _}, {_, _, _}}}, {reductions, R},
              {messages_in, In}, {messages_out, Out}] = Statistics,
             {None, On, is_integer(R), In, Out, Off, sys:statistics(?AT(N), get)}
         end, {{ok, no_statistics}, ok, true, 1, 1, ok, {ok, no_statistics}}},
        {"what is not turned on is turned off, and its log is empty",
         fun(N) ->
             {sys:log(?AT(N), get), sys:log(?AT(N), print), sys:log(?AT(N), false), sys:log_to_file(?AT(N), false),
              sys:trace(?AT(N), false), sys:remove(?AT(N), my_id), sys:remove(?AT(N), fun lists:foldl/3)}
         end, {{ok, []}, ok, ok, ok, ok, ok, ok}},
        {only, "what sys cannot turn on here is not said to be on",
         fun(N) ->
             Fun = fun lists:foldl/3,
             {sys:log(?AT(N), true), sys:log(?AT(N), {true, 5}), sys:trace(?AT(N), true),
              sys:log_to_file(?AT(N), "/tmp/log"), sys:install(?AT(N), {my_id, Fun, state}),
              sys:install(?AT(N), {Fun, state}), sys:log(?AT(N), get)}
         end,
         {unknown_debug, unknown_debug, unknown_debug, {error, open_file}, unknown_debug, unknown_debug, {ok, []}}},
        {"no_debug", fun(N) -> sys:no_debug(?AT(N)) end, ok},
        {"unknown debug request", fun(N) -> system(?AT(N), {debug, no_such_request}) end, unknown_debug},
        {"unknown debug request of a known kind", fun(N) -> system(?AT(N), {debug, {log, what}}) end, unknown_debug},
        {"unknown system request", fun(N) -> system(?AT(N), {no, such, request}) end,
         {error, {unknown_system_msg, {no, such, request}}}},
        {"change_code while running", fun(N) -> sys:change_code(?AT(N), m, 1, x) end,
         {error, {unknown_system_msg, {change_code, m, 1, x}}}},
        {"system request by pid, with an alias",
         fun(N) ->
             Ref = monitor(process, compare:pid(N), [{alias, reply_demonitor}]),
             compare:pid(N) ! {system, {self(), [alias | Ref]}, suspend},
             Suspended = receive {[alias | Ref], Reply} -> Reply end,
             {Suspended, sys:resume(?AT(N))}
         end, {ok, ok}},
        {only, "replace_state",
         fun(N) ->
             Before = sys:get_state(?AT(N)),
             {system(?AT(N), {replace_state, fun(_) -> replaced end}), is_same(Before, N)}
         end, {{error, {callback_failed, {gen_server, system_replace_state}, {error, notsup}}}, true}},
        {only, "sys:replace_state", fun(N) -> sys:replace_state(?AT(N), fun(_) -> replaced end) end,
         {raises, error, {callback_failed, {gen_server, system_replace_state}, {error, notsup}}}}
    ].

%% The state's own content differs; asked twice it is the same.
is_same(State, Node) ->
    stable(State) =:= stable(sys:get_state(?AT(Node))).

%% Without what counts messages, as asking is one.
stable(#{options := _, sessions := _, counters := _} = State) -> maps:remove(network, State);
stable(State) -> State.

system(To, Request) ->
    Tag = make_ref(),
    To ! {system, {self(), Tag}, Request},
    receive {Tag, Reply} -> Reply after 20000 -> compare:mailbox() end.

%% What tools read from a status: its frame, with the parts that are the process's own left out.
status({status, Pid, Module, [PDict, SysState, Parent, Debug, Misc]}) ->
    {Pid, Module, is_list(PDict) andalso lists:all(fun(Pair) -> tuple_size(Pair) =:= 2 end, PDict), SysState,
     is_pid(Parent), Debug, [misc(Item) || Item <- Misc]}.

misc({header, Text}) -> {header, lists:flatten(Text)};
misc({data, Pairs}) ->
    {data, [case Pair of
                {"Status", Status} -> {"Status", Status};
                {"Logged events", Events} -> {"Logged events", Events};
                {Key, _} -> {Key, any}
            end || Pair <- Pairs]}.

status(Pid, SysState) ->
    {Pid, {module, gen_server}, true, SysState, true, [],
     [{header, "Status for generic server macula_nat_coordinator"},
      {data, [{"Status", SysState}, {"Parent", any}, {"Logged events", []}]},
      {data, [{"State", any}]}]}.

%%%-------------------------------------------------------------------
%%% The end
%%%-------------------------------------------------------------------

ends() ->
    Watched = fun(End) ->
        fun(N) ->
            Pid = compare:pid(N),
            Refs = [monitor(process, What) || What <- [Pid, Pid, ?AT(N)]],
            Result = End(N, Pid),
            {Result, [receive {'DOWN', Ref, process, _, Reason} -> Reason end || Ref <- Refs]}
        end
    end,
    [
        {"gen_server:stop of an unknown name", fun(N) -> gen_server:stop({no_such_name, N}) end, {raises, exit, noproc}},
        {fresh, "gen_server:stop", Watched(fun(N, _) -> gen_server:stop(?AT(N)) end), {ok, [normal, normal, normal]}},
        {fresh, "gen_server:stop by pid with a reason", Watched(fun(_, P) -> gen_server:stop(P, {shutdown, x}, 20000) end),
         {ok, [{shutdown, x}, {shutdown, x}, {shutdown, x}]}},
        {fresh, "gen_server:stop of a suspended process",
         Watched(fun(N, _) -> ok = sys:suspend(?AT(N)), gen_server:stop(?AT(N)) end), {ok, [normal, normal, normal]}},
        {fresh, "sys:terminate", Watched(fun(N, _) -> sys:terminate(?AT(N), shutdown) end),
         {ok, [shutdown, shutdown, shutdown]}},
        {fresh, "proc_lib:stop", Watched(fun(N, _) -> proc_lib:stop(?AT(N), shutdown, infinity) end),
         {ok, [shutdown, shutdown, shutdown]}},
        {fresh, "a call that is waiting when the end comes",
         fun(N) ->
             ok = sys:suspend(?AT(N)),
             Id = gen_server:send_request(?AT(N), get_pending),
             ok = gen_server:stop(?AT(N), shutdown, 20000),
             gen_server:wait_response(Id, 20000)
         end, {error, {shutdown, {?NAME, '$node'}}}}
    ].

%%%-------------------------------------------------------------------
%%% The same with a trace token, which makes other control messages of them
%%%-------------------------------------------------------------------

traced() ->
    Traced = fun(Act) ->
        fun(N) ->
            _ = seq_trace:set_token(label, 17),
            _ = seq_trace:set_token(send, true),
            Result = try Act(N) after seq_trace:set_token([]) end,
            {Result, gen_server:call(?AT(N), get_pending)}
        end
    end,
    [
        {"traced call", Traced(fun(N) -> gen_server:call(?AT(N), get_pending) end), {[], []}},
        {"traced call by pid", Traced(fun(N) -> gen_server:call(compare:pid(N), get_pending) end), {[], []}},
        {"traced cast", Traced(fun(N) -> gen_server:cast(?AT(N), x) end), {ok, []}},
        {"traced rpc:call", Traced(fun(N) -> rpc:call(N, ?NAME, get_pending, []) end), {[], []}},
        {"traced exit", Traced(fun(N) -> exit(compare:pid(N), normal) end), {true, []}},
        {"traced sys", Traced(fun(N) -> {sys:suspend(?AT(N)), sys:resume(?AT(N))} end), {{ok, ok}, []}},
        {"traced end of a linked process",
         Traced(fun(N) ->
             Pid = compare:pid(N),
             {_, Ref} = spawn_monitor(fun() ->
                 _ = seq_trace:set_token(label, 18),
                 link(Pid),
                 [] = gen_server:call(Pid, get_pending)
             end),
             receive {'DOWN', Ref, process, _, Reason} -> Reason end
         end), {normal, []}}
    ].
