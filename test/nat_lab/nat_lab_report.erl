%% SPDX-License-Identifier: Apache-2.0
%% @doc What the NAT lab found: a table, figures for each rule set, a picture of the matrix, and whether kernel and
%% model agree.
-module(nat_lab_report).

-export([write/3, print/1, skew/1]).

-define(RULES, [documented, v0_14_3, feasible]).

%% @doc Print the line of one pair.
-spec print(map()) -> ok.
print(#{types := {A, B}, bare := Bare, strategies := S, outcome := Outcome}) ->
    io:format("~s ~s ~-5s  ~-10s ~-10s ~-10s  ~s~n",
              [nat_lab_box:name(A), nat_lab_box:name(B), box(Bare)] ++ [maps:get(R, S) || R <- ?RULES] ++
                  [outcome(Outcome)]).

box(true) -> "bare";
box(false) -> "drops".

outcome({connected, Attempt, Ms}) -> io_lib:format("connected in attempt ~b after ~4b ms", [Attempt, round(Ms)]);
outcome(none) -> "not connected".

%% @doc Write table and picture. The status is 0 if no promise of `feasible' was broken, no pair was relayed by it that
%% could have connected, all connected within three attempts, and the model agrees.
-spec write(string(), [map()], map()) -> 0 | 1.
write(Picture, Results, Model) ->
    Figures = [{Rules, figures(Rules, Results)} || Rules <- ?RULES],
    Late = [R || #{outcome := {connected, Attempt, _}} = R <- Results, Attempt > 2],
    Differ = [R || R <- Results, not agrees(R, Model)],
    Times = lists:sort([Ms || #{outcome := {connected, _, Ms}} <- Results]),
    io:format("~nrules        promised connected  broken relayed wrongly~n"),
    lists:foreach(fun({Rules, #{promised := P, connected := C, broken := B, wronged := W}}) ->
        io:format("~-12s ~8b ~9b ~7b ~15b~n", [Rules, P, C, B, W])
    end, Figures),
    Times =/= [] andalso
        io:format("request to both confirmed: p50 ~b ms, p99 ~b ms, longest ~b ms~n",
                  [round(percentile(Q, Times)) || Q <- [50, 99, 100]]),
    io:format("~b of ~b pairs connected later than in the third attempt~n", [length(Late), length(Results)]),
    io:format("~b of ~b pairs are not as the model says~n", [length(Differ), length(Results)]),
    lists:foreach(fun print/1, Differ),
    ok = file:write_file(Picture, svg(Results)),
    #{broken := Broken, wronged := Wronged} = proplists:get_value(feasible, Figures),
    case {Broken, Wronged, Late, Differ} of
        {0, 0, [], []} -> 0;
        _ -> 1
    end.

%% @doc Print how long it took with clocks that differ. The status is 0 if all connected.
-spec skew([{non_neg_integer(), boolean(), tuple() | none}]) -> 0 | 1.
skew(Results) ->
    io:format("~nclocks apart  boxes  runs connected  p50 ms  p99 ms~n"),
    lists:foreach(
        fun({Ms, Bare} = Case) ->
            Outcomes = [Outcome || {M, B, Outcome} <- Results, {M, B} =:= Case],
            Times = lists:sort([Time || {connected, _, Time} <- Outcomes]),
            io:format("~9b ms  ~-5s ~5b ~9b ~7b ~7b~n",
                      [Ms, box(Bare), length(Outcomes), length(Times)] ++
                          case Times of [] -> [0, 0]; _ -> [round(percentile(Q, Times)) || Q <- [50, 99]] end)
        end, lists:usort([{Ms, Bare} || {Ms, Bare, _} <- Results])),
    case lists:keymember(none, 3, Results) of
        true -> 1;
        false -> 0
    end.

figures(Rules, Results) ->
    Kinds = [kind(Rules, Result) || Result <- Results],
    Count = fun(Kind) -> length([K || K <- Kinds, K =:= Kind]) end,
    #{promised => Count(kept) + Count(broken), connected => Count(kept), broken => Count(broken),
      wronged => Count(wronged)}.

%% What became of the answer of a rule set.
kind(Rules, #{strategies := Strategies, outcome := Outcome}) ->
    case {maps:get(Rules, Strategies), Outcome} of
        {relay, none} -> relayed;
        {relay, _} -> wronged;
        {_, none} -> broken;
        {_, _} -> kept
    end.

agrees(#{types := {A, B}, bare := Bare, strategies := Strategies, outcome := Outcome}, Model) ->
    case Model of
        #{{A, B, Bare} := #{strategies := Strategies, connects := Connects}} -> Connects =:= (Outcome =/= none);
        #{} -> false
    end.

percentile(Q, Sorted) ->
    lists:nth(max(1, ceil(length(Sorted) * Q / 100)), Sorted).

%%%-------------------------------------------------------------------
%%% The picture
%%%-------------------------------------------------------------------

-define(CELL, 30).
-define(LEFT, 86).
-define(TOP, 96).

svg(Results) ->
    Types = lists:usort([A || #{types := {A, _}} <- Results]),
    Order = [T || T <- nat_lab_box:types(), lists:member(T, Types)],
    Side = length(Order) * ?CELL,
    Width = 3 * (Side + ?LEFT) + 20,
    Height = 2 * (Side + ?TOP) + 60,
    [io_lib:format(
         "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ~b ~b\" font-family=\"sans-serif\" "
         "font-size=\"11\">~n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>~n", [Width, Height]),
     [panel(Order, [R || #{bare := B} = R <- Results, B =:= Bare], Rules, Bare,
            Column * (Side + ?LEFT) + ?LEFT, Row * (Side + ?TOP) + ?TOP)
      || {Column, Rules} <- lists:zip([0, 1, 2], ?RULES), {Row, Bare} <- [{0, false}, {1, true}]],
     legend(20, Height - 28),
     "</svg>\n"].

panel(Types, Results, Rules, Bare, X, Y) ->
    Indexed = lists:zip(Types, lists:seq(0, length(Types) - 1)),
    [io_lib:format("<text x=\"~b\" y=\"~b\" font-size=\"13\" font-weight=\"bold\">~s, boxes that ~s</text>~n",
                   [X, Y - 70, Rules, case Bare of true -> "are bare"; false -> "drop" end]),
     [[io_lib:format("<text x=\"~b\" y=\"~b\" text-anchor=\"end\">~s</text>~n",
                     [X - 5, Y + I * ?CELL + 19, nat_lab_box:name(T)]),
       io_lib:format("<text transform=\"translate(~b ~b) rotate(-60)\">~s</text>~n",
                     [X + I * ?CELL + 16, Y - 5, nat_lab_box:name(T)])] || {T, I} <- Indexed],
     [cell(kind(Rules, R), maps:get(outcome, R), X + proplists:get_value(B, Indexed) * ?CELL,
           Y + proplists:get_value(A, Indexed) * ?CELL) || #{types := {A, B}} = R <- Results]].

cell(Kind, Outcome, X, Y) ->
    Attempt = case {Kind, Outcome} of
        {kept, {connected, N, _}} -> integer_to_list(N + 1);
        _ -> mark(Kind)
    end,
    io_lib:format(
        "<rect x=\"~b\" y=\"~b\" width=\"~b\" height=\"~b\" fill=\"~s\" stroke=\"#ffffff\"/>"
        "<text x=\"~b\" y=\"~b\" text-anchor=\"middle\" fill=\"#1b1b1b\">~s</text>~n",
        [X, Y, ?CELL, ?CELL, colour(Kind), X + ?CELL div 2, Y + 19, Attempt]).

colour(kept) -> "#7bc47f";
colour(relayed) -> "#d5d8dc";
colour(broken) -> "#e4572e";
colour(wronged) -> "#f2b134".

mark(broken) -> "&#215;";
mark(wronged) -> "?";
mark(_) -> "".

legend(X, Y) ->
    Texts = [{kept, "connected, in which attempt"}, {relayed, "relay, and nothing else works"},
             {broken, "promised, never connects"}, {wronged, "relay, but a punch connects"}],
    [io_lib:format("<rect x=\"~b\" y=\"~b\" width=\"16\" height=\"16\" fill=\"~s\"/><text x=\"~b\" y=\"~b\" "
                   "font-size=\"13\">~s</text>~n", [X + N * 230, Y, colour(Kind), X + N * 230 + 22, Y + 13, Text])
     || {N, {Kind, Text}} <- lists:zip([0, 1, 2, 3], Texts)].
