%% SPDX-License-Identifier: Apache-2.0
%% @doc A test double of a macula service: a gen_server under the service's registered name, on the node where it is
%% started. It does with each request what the test has told it, and keeps all that arrives, in order.
%%
%% What it does with a request is decided by a fun of the request. It can answer, keep the caller waiting until
%% {@link release/2}, answer after a while, or die during the call. What has arrived can be awaited as an event.
%%
%% `macula_peer_connector' is no process but a module. Its double in `doubles/' is loaded by {@link load_connector/0}
%% and hands what it gets to the process `macula_peer_connector_double'.
-module(double).
-behaviour(gen_server).

-export([start/2, stop/1, stop_all/0, act/2, release/2, calls/1, await_calls/2, casts/1, refused/0]).
-export([load_connector/0, unload_connector/0, send_message/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([act/0, action/0]).

-type action() ::
    {reply, term()}
    | hold                                % until release/2
    | {later, non_neg_integer(), term()}  % answered after so many milliseconds
    | crash.                              % ends during the call
-type act() :: fun((Request :: term()) -> action()).

-define(CONNECTOR, macula_peer_connector).
-define(BEHIND, macula_peer_connector_double).
-define(NAMES, [macula_nat_cache, macula_routing_server, ?BEHIND]).

-record(double, {act, calls = [], casts = [], refused = [], held = [], waiting = []}).

%% @doc Start a double, or tell a running one what to do from now on; it forgets what it has seen.
-spec start(atom(), act()) -> ok.
start(Name, Act) ->
    case gen_server:start({local, process(Name)}, ?MODULE, Act, []) of
        {ok, _} -> ok;
        {error, {already_started, _}} ->
            %% It may be about to die of an earlier request.
            try gen_server:call(process(Name), {?MODULE, start, Act})
            catch exit:_ -> start(Name, Act)
            end
    end.

%% @doc End a double, if it runs.
-spec stop(atom()) -> ok.
stop(Name) ->
    case whereis(process(Name)) of
        undefined ->
            ok;
        Pid ->
            Ref = monitor(process, Pid),
            exit(Pid, kill),
            receive {'DOWN', Ref, process, Pid, _} -> ok end
    end.

%% @doc End all doubles of this node, and let it be without the module.
-spec stop_all() -> ok.
stop_all() ->
    lists:foreach(fun stop/1, ?NAMES),
    unload_connector().

%% @doc Tell a double what to do from now on.
-spec act(atom(), act()) -> ok.
act(Name, Act) ->
    gen_server:call(process(Name), {?MODULE, act, Act}).

%% @doc Answer all requests that are held, each with what the fun says.
-spec release(atom(), fun((Request :: term()) -> term())) -> ok.
release(Name, Answer) ->
    gen_server:call(process(Name), {?MODULE, release, Answer}).

%% @doc The requests so far, oldest first.
-spec calls(atom()) -> [term()].
calls(Name) ->
    gen_server:call(process(Name), {?MODULE, calls}).

%% @doc Wait until there have been so many requests; all of them, oldest first.
-spec await_calls(atom(), non_neg_integer()) -> [term()].
await_calls(Name, Count) ->
    gen_server:call(process(Name), {?MODULE, await_calls, Count}, 30000).

%% @doc The casts and messages so far, oldest first.
-spec casts(atom()) -> [term()].
casts(Name) ->
    gen_server:call(process(Name), {?MODULE, casts}).

%% @doc The arguments of send_message/3 that the encoder of v0.14.3 would have crashed on.
-spec refused() -> [term()].
refused() ->
    gen_server:call(?BEHIND, {?MODULE, refused}).

%% @doc Let this node have the module macula_peer_connector.
-spec load_connector() -> ok.
load_connector() ->
    Beam = filename:join([filename:dirname(code:which(?MODULE)), "doubles", ?CONNECTOR]),
    case code:is_loaded(?CONNECTOR) of
        false -> {module, ?CONNECTOR} = code:load_abs(Beam), ok;
        {file, _} -> ok
    end.

%% @doc Let this node be without it.
-spec unload_connector() -> ok.
unload_connector() ->
    _ = code:purge(?CONNECTOR),
    _ = code:delete(?CONNECTOR),
    _ = code:purge(?CONNECTOR),
    ok.

%% @doc What the double of the module does with a message to a peer.
-spec send_message(term(), term(), term()) -> term().
send_message(Endpoint, Type, Message) ->
    case is_complete(Endpoint, Type, Message) of
        true ->
            gen_server:call(?BEHIND, {send_message, Endpoint, Type, Message}, infinity);
        false ->
            ok = gen_server:call(?BEHIND, {?MODULE, refuse, {Endpoint, Type, Message}}),
            error(function_clause, [Endpoint, Type, Message])
    end.

is_complete(Endpoint, punch_coordinate,
            #{session_id := _, peer_id := _, peer_host := _, peer_ports := _, punch_time := _, role := _}) ->
    is_binary(Endpoint);
is_complete(_, _, _) ->
    false.

process(?CONNECTOR) -> ?BEHIND;
process(Name) -> Name.

%% @private
init(Act) ->
    {ok, #double{act = Act}}.

%% @private
handle_call({?MODULE, start, Act}, _From, D) ->
    {reply, ok, #double{act = Act, held = D#double.held}};
handle_call({?MODULE, act, Act}, _From, D) ->
    {reply, ok, D#double{act = Act}};
handle_call({?MODULE, calls}, _From, D) ->
    {reply, lists:reverse(D#double.calls), D};
handle_call({?MODULE, casts}, _From, D) ->
    {reply, lists:reverse(D#double.casts), D};
handle_call({?MODULE, refused}, _From, D) ->
    {reply, lists:reverse(D#double.refused), D};
handle_call({?MODULE, refuse, Arguments}, _From, D) ->
    {reply, ok, D#double{refused = [Arguments | D#double.refused]}};
handle_call({?MODULE, await_calls, Count}, From, D) ->
    {noreply, tell(D#double{waiting = [{Count, From} | D#double.waiting]})};
handle_call({?MODULE, release, Answer}, _From, D) ->
    _ = [gen_server:reply(From, Answer(Request)) || {Request, From} <- lists:reverse(D#double.held)],
    {reply, ok, D#double{held = []}};
handle_call(Request, From, D0) ->
    D = tell(D0#double{calls = [Request | D0#double.calls]}),
    case (D#double.act)(Request) of
        {reply, Answer} ->
            {reply, Answer, D};
        hold ->
            {noreply, D#double{held = [{Request, From} | D#double.held]}};
        {later, Milliseconds, Answer} ->
            _ = erlang:send_after(Milliseconds, self(), {?MODULE, answer, From, Answer}),
            {noreply, D};
        crash ->
            exit(crash)
    end.

%% @private
handle_cast(Message, D) ->
    {noreply, D#double{casts = [Message | D#double.casts]}}.

%% @private
handle_info({?MODULE, answer, From, Answer}, D) ->
    gen_server:reply(From, Answer),
    {noreply, D};
handle_info(Message, D) ->
    {noreply, D#double{casts = [Message | D#double.casts]}}.

%% Answers those who wait for as many requests as there are now.
tell(#double{calls = Calls} = D) ->
    {Now, Later} = lists:partition(fun({Count, _}) -> length(Calls) >= Count end, D#double.waiting),
    _ = [gen_server:reply(From, lists:reverse(Calls)) || {_, From} <- Now],
    D#double{waiting = Later}.
