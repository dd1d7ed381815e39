%% SPDX-License-Identifier: Apache-2.0
%% @doc The oracle's main: cookie, the two servers, the nodes to stay connected to, and the ready line.
-module(oracle_node).
-behaviour(supervisor).

-export([main/1, init/1]).

%% @doc Entry from the command line with the name of the strategy rules, and the nodes to connect to.
-spec main([string()]) -> ok.
main([Rules | Nodes]) ->
    case os:getenv("MACULA_NAT_COOKIE") of
        false -> ok;
        Cookie -> erlang:set_cookie(list_to_atom(Cookie))
    end,
    {ok, Supervisor} = supervisor:start_link(?MODULE, list_to_atom(Rules)),
    unlink(Supervisor),
    [Name, _] = string:split(atom_to_list(node()), "@"),
    {ok, Names} = erl_epmd:names({127, 0, 0, 1}),
    {Name, Port} = lists:keyfind(Name, 1, Names),
    [spawn(fun() -> keep_up(list_to_atom(Node)) end) || Node <- Nodes],
    io:format("ready ~ts ~b~n", [node(), Port]).

keep_up(Node) ->
    true = monitor_node(Node, true),
    receive {nodedown, Node} -> ok end,
    receive after 100 -> keep_up(Node) end.

%% @private
init(Rules) ->
    Server = fun(Module, Args) ->
        #{id => Module, start => {gen_server, start_link, [{local, Module}, Module, Args, []]}}
    end,
    {ok, {#{}, [Server(macula_nat_cache, []), Server(macula_nat_coordinator, Rules)]}}.
