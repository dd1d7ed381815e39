%% SPDX-License-Identifier: Apache-2.0
%% @doc The test double of the module that sends messages to peers; see `double'.
-module(macula_peer_connector).

-export([send_message/3]).

%% @doc As in v0.14.3: `ok' or `{error, _}', and a crash on a message that its encoder does not know.
-spec send_message(binary(), atom(), map()) -> ok | {error, term()}.
send_message(Endpoint, Type, Message) ->
    double:send_message(Endpoint, Type, Message).
