%% SPDX-License-Identifier: Apache-2.0
%% The harness itself: what the other suites lean on.
-module(harness_tests).
-include_lib("eunit/include/eunit.hrl").

start_and_stop_test_() ->
    {spawn, {timeout, 60, fun() ->
        Handle = #{node := Node, name := Name, port := Port} = cnode:start(),
        ?assertEqual(pong, net_adm:ping(Node)),
        ?assertEqual({Name, Port}, lists:keyfind(Name, 1, cnode:epmd_names())),
        ?assert(cnode:memory(Handle) > 0),
        ?assert(cnode:descriptors(Handle) > 2),
        ?assertEqual(0, cnode:stop(Handle)),
        ?assertEqual(pang, net_adm:ping(Node))
    end}}.

killed_with_its_owner_test_() ->
    {spawn, {timeout, 60, fun() ->
        Self = self(),
        {Pid, Ref} = spawn_monitor(fun() -> Self ! cnode:start(), exit(done) end),
        #{os_pid := OsPid} = receive #{} = Handle -> Handle end,
        receive {'DOWN', Ref, process, Pid, _} -> ok end,
        cnode:await(fun() -> not filelib:is_dir("/proc/" ++ integer_to_list(OsPid)) end)
    end}}.

peer_test_() ->
    {spawn, {timeout, 60, fun() ->
        Peer = #{node := Node} = cnode:peer(),
        ?assertEqual(Node, cnode:on(Peer, fun() -> node() end)),
        ?assertError(badarith, cnode:on(Peer, fun() -> 1 / (node() =:= x andalso 1) end)),
        cnode:peer_kill(Peer)
    end}}.
