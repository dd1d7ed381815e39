%% SPDX-License-Identifier: Apache-2.0
%% @doc Stands for the old module, which must never be started: the new one has to take its place.
-module(macula_nat_coordinator).

-export([start_link/1]).

%% @doc End whoever starts the old module.
-spec start_link(map()) -> no_return().
start_link(_Opts) ->
    exit(the_old_module).
