%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc What this application says, in `logger': all of it as said by `macula_nat_coordinator', so that this is the one
%% module whose level is to be set.
-module(macula_nat_cnode_log).

-export([log/3, program_line/1, program_level/0]).

-define(SPEAKER, macula_nat_coordinator).

%% @doc Log a line.
-spec log(logger:level(), io:format(), [term()]) -> ok.
log(Level, Format, Arguments) ->
    logger:log(Level, Format, Arguments, #{mfa => {?SPEAKER, start_link, 1}}).

%% @doc Log a line of the program with the level that it has. `2026-11-22T17:50:22.913Z notice text' is one; what is
%% none is a last word, as of a wrong command line.
-spec program_line(binary()) -> ok.
program_line(Line) ->
    case binary:split(Line, <<" ">>, [global]) of
        [<<_:10/binary, "T", _:12/binary, "Z">> = Time, Name | _] ->
            case level(Name) of
                undefined -> log(error, "macula_nat_cnode: ~ts", [Line]);
                Level -> log(Level, "macula_nat_cnode: ~ts", [rest(Line, Time, Name)])
            end;
        _ ->
            log(error, "~ts", [Line])
    end.

%% @doc The least level that `logger' lets through now, as the program calls it: what is below need not be said.
-spec program_level() -> string().
program_level() ->
    Levels = [debug, info, notice, warning, error],
    case [Level || Level <- Levels, logger:allow(Level, ?SPEAKER)] of
        [Level | _] -> atom_to_list(Level);
        [] -> "error"
    end.

rest(Line, Time, Name) ->
    Skip = byte_size(Time) + byte_size(Name) + 2,
    <<_:Skip/binary, Text/binary>> = Line,
    Text.

level(<<"error">>) -> error;
level(<<"warning">>) -> warning;
level(<<"notice">>) -> notice;
level(<<"info">>) -> info;
level(<<"debug">>) -> debug;
level(_) -> undefined.
