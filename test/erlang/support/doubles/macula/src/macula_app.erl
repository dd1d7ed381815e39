%% SPDX-License-Identifier: Apache-2.0
%% @doc Starts the coordinator as macula does: under a supervisor, without options.
-module(macula_app).
-behaviour(application).
-behaviour(supervisor).

-export([start/2, stop/1, init/1]).

%% @private
-spec start(application:start_type(), term()) -> supervisor:startlink_ret().
start(_Type, _Arguments) ->
    supervisor:start_link(?MODULE, []).

%% @private
-spec stop(term()) -> ok.
stop(_State) ->
    ok.

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok, {#{}, [#{id => nat_coordinator, start => {macula_nat_coordinator, start_link, [#{}]}}]}}.
