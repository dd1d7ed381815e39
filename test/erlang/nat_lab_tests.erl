%% SPDX-License-Identifier: Apache-2.0
%% A short part of the NAT lab: real NATs in network namespaces, see test/nat_lab.
-module(nat_lab_tests).
-include_lib("eunit/include/eunit.hrl").

-define(LIMIT, 300000).

lab_test_() ->
    {spawn, {timeout, ?LIMIT div 1000 + 10, {"peers behind real NATs connect as promised", fun short/0}}}.

short() ->
    %% This file's beam lies in BUILD/test/erlang.
    Build = filename:dirname(filename:dirname(filename:dirname(code:which(?MODULE)))),
    Port = open_port({spawn_executable, "test/nat_lab/run"},
                     [{args, ["short"]}, {env, [{"BUILD", Build}]}, stderr_to_stdout, exit_status, binary, hide]),
    case collect(Port, []) of
        {0, _} -> ok;
        {77, Output} -> cnode:skip(string:trim(lists:last(string:split(Output, "skipped: "))));
        {Status, Output} -> error({status, Status, Output})
    end.

collect(Port, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, [Data | Output]);
        {Port, {exit_status, Status}} -> {Status, unicode:characters_to_list(lists:reverse(Output))}
    after ?LIMIT ->
        error({not_within_limit, lists:reverse(Output)})
    end.
