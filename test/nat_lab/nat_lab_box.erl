%% SPDX-License-Identifier: Apache-2.0
%% @doc The NAT boxes of the lab: one nftables ruleset for each type that the kernel can be made to be.
%%
%% `n1' is the outer interface of a box, 10.0.0.2 the only host behind it. A ruleset replaces the one before; ports of
%% contiguous boxes start elsewhere each time, so that no old flow is in the way.
-module(nat_lab_box).

-export([types/0, name/1, become/4, address/1]).

-export_type([type/0, box/0]).

-type type() :: {ei | hd | pd, ei | hd | pd, pp | pc | rd}.
-type box() :: na | nb.

-define(HASH(Keys), "jhash " Keys " mod 20000 seed 0x7 offset 20000").

%% @doc The types of the lab: mapping, filtering, allocation.
-spec types() -> [type(), ...].
types() ->
    [{ei, pd, pp}, {ei, hd, pp}, {ei, ei, pp}, {ei, pd, rd}, {ei, ei, rd}, {hd, pd, rd}, {hd, ei, rd}, {pd, pd, pc},
     {pd, pd, rd}].

%% @doc How a type is written: EI/PD/PP.
-spec name(type()) -> string().
name({Mapping, Filtering, Allocation}) ->
    string:uppercase(lists:join("/", [atom_to_list(Policy) || Policy <- [Mapping, Filtering, Allocation]])).

%% @doc The public address of a box.
-spec address(box()) -> inet:ip4_address().
address(na) -> {203, 0, 113, 1};
address(nb) -> {203, 0, 113, 2}.

%% @doc Make a box be of a type. A bare one takes unsolicited packets for its own, the others drop them.
-spec become(box(), type(), boolean(), non_neg_integer()) -> ok.
become(Box, Type, Bare, Run) ->
    File = filename:join("/run", atom_to_list(Box) ++ ".nft"),
    Address = inet:ntoa(address(Box)),
    ok = file:write_file(File, [
        "flush ruleset\n",
        "table ip lab {\n",
        sets(Type),
        "  chain from_outside { type filter hook input priority 0;\n",
        [["    iifname \"n1\" ct state new drop\n"] || not Bare],
        "  }\n",
        "  chain through { type filter hook forward priority 0;\n", through(Type), "  }\n",
        "  chain pre { type nat hook prerouting priority -100;\n", pre(Type), "  }\n",
        "  chain post { type nat hook postrouting priority 100;\n",
        "    oifname \"n1\" meta l4proto tcp masquerade\n",
        [["    oifname \"n1\" meta l4proto udp ", Rule, "\n"] || Rule <- post(Type, Address, Run)],
        "  }\n",
        "}\n"
    ]),
    case os:cmd(io_lib:format("ip netns exec ~s nft -f ~s", [Box, File])) of
        "" -> ok;
        Wrong -> error({nft, Type, Wrong})
    end.

sets({_, ei, rd}) ->
    "  map inside { type inet_service : ipv4_addr . inet_service; flags dynamic; size 65535; }\n";
sets({ei, hd, pp}) ->
    "  set talked { type ipv4_addr . inet_service . ipv4_addr; flags dynamic; size 65535; }\n";
sets(_) ->
    "".

through({ei, hd, pp}) ->
    ["    iifname \"n0\" meta l4proto udp add @talked { ip saddr . udp sport . ip daddr }\n",
     "    iifname \"n1\" meta l4proto udp ip daddr . udp dport . ip saddr @talked accept\n",
     "    iifname \"n1\" ct state new drop\n"];
through(_) ->
    "".

pre({ei, Filtering, pp}) when Filtering =/= pd ->
    "    iifname \"n1\" meta l4proto udp dnat to 10.0.0.2\n";
pre({_, ei, rd}) ->
    "    iifname \"n1\" meta l4proto udp dnat ip addr . port to udp dport map @inside\n";
pre(_) ->
    "".

post({ei, pd, pp}, _, _) ->
    ["masquerade"];
post({ei, _, pp}, Address, _) ->
    [["snat to ", Address]];
post({ei, pd, rd}, _, _) ->
    ["masquerade to :20000-20999"];
post({ei, ei, rd}, Address, _) ->
    hashed(Address, ?HASH("ip saddr . udp sport"));
post({hd, ei, rd}, Address, _) ->
    hashed(Address, ?HASH("ip saddr . udp sport . ip daddr"));
post({hd, pd, rd}, Address, _) ->
    [["snat to ", Address, " : " ?HASH("ip saddr . udp sport . ip daddr")]];
post({pd, pd, pc}, Address, Run) ->
    Base = 40000 + Run rem 40 * 512,
    Ports = lists:join(", ", [io_lib:format("~b : ~b", [N, Base + N]) || N <- lists:seq(0, 511)]),
    [["snat to ", Address, " : numgen inc mod 512 map { ", Ports, " }"]];
post({pd, pd, rd}, _, _) ->
    ["masquerade random"].

hashed(Address, Hash) ->
    [["add @inside { ", Hash, " : ip saddr . udp sport }"], ["snat to ", Address, " : ", Hash]].
