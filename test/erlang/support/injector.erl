%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc Sends bad frames to a node as an authenticated peer, and makes them.
%%
%% After each frame a good request is sent. Its reply shows that the frame before it has been handled; a
%% connection that ends without it was ended by that frame, and the rest goes on in a new one. So every
%% frame is known to have been handled, and the node to have answered right after it.
-module(injector).

-export([inject/3, seed/0, mutations/2]).

-define(BATCH, 200).

%% @doc Have a node handle each frame (with its length). How many it answered after, and how many made it end the
%% connection.
-spec inject(node(), node(), [iodata()]) -> {Answered :: non_neg_integer(), Ended :: non_neg_integer()}.
inject(Node, Name, Frames) ->
    Peer = connect(Node, Name),
    inject(Node, Name, Frames, Peer, 0, 0).

inject(_Node, _Name, [], Peer, Answered, Ended) ->
    ok = raw_dist:close(Peer),
    {Answered, Ended};
inject(Node, Name, Frames, Peer, Answered, Ended) ->
    Count = min(?BATCH, length(Frames)),
    {Batch, Rest} = lists:split(Count, Frames),
    _ = raw_dist:send(Peer, [[Frame, request(Peer, Id)] || {Id, Frame} <- lists:enumerate(Batch)]),
    case replies(Peer, 1, Count) of
        Count ->
            inject(Node, Name, Rest, Peer, Answered + Count, Ended);
        Handled ->
            ok = raw_dist:close(Peer),
            Left = lists:nthtail(Handled + 1, Batch) ++ Rest,
            inject(Node, Name, Left, connect(Node, Name), Answered + Handled, Ended + 1)
    end.

%% The connection before this one may not be gone yet: then this one takes its place.
connect(Node, Name) ->
    {ok, Peer} = raw_dist:connect(Node, #{name => Name, alive => true}),
    Peer.

request(Peer, Id) ->
    raw_dist:frame({6, raw_dist:pid(Peer, 1), '', net_kernel},
                   {'$gen_call', {raw_dist:pid(Peer, 1), {good, Id}}, {is_auth, raw_dist:name(Peer)}}).

%% The number of good requests that were answered, in order.
replies(Peer, Next, Count) when Next =< Count ->
    case raw_dist:recv_frame(Peer) of
        {_, {{good, Next}, yes}} -> replies(Peer, Next + 1, Count);
        {error, timeout} -> error({no_answer_to, Next});
        {error, _} -> Next - 1;
        _ -> replies(Peer, Next, Count)
    end;
replies(_Peer, _Next, Count) ->
    Count.

%% @doc Seed the random numbers of this process, from HOSTILE_SEED if that is set, and say with what.
-spec seed() -> integer().
seed() ->
    Seed = case os:getenv("HOSTILE_SEED") of
               false -> rand:uniform(1 bsl 48);
               Text -> list_to_integer(Text)
           end,
    io:format(user, "hostile: HOSTILE_SEED=~b~n", [Seed]),
    _ = rand:seed(exsss, Seed),
    Seed.

%% @doc Random mutations of the frames given. The length that a frame says is always right: what follows
%% would else be lost with it.
-spec mutations(pos_integer(), [binary()]) -> [iodata()].
mutations(Count, Frames) ->
    Corpus = list_to_tuple([Body || <<_:32, Body/binary>> <- Frames]),
    [mutated(element(rand:uniform(tuple_size(Corpus)), Corpus)) || _ <- lists:seq(1, Count)].

mutated(Body) ->
    New = lists:foldl(fun(_, Before) -> mutate(rand:uniform(9), Before) end, Body,
                      lists:seq(1, rand:uniform(3))),
    [<<(byte_size(New)):32>>, New].

mutate(1, Body) ->
    change(Body, 1, fun(Part) -> << <<(Byte bxor (1 bsl (rand:uniform(8) - 1)))>> || <<Byte>> <= Part>> end);
mutate(2, Body) ->
    change(Body, 1, fun(_) -> rand:bytes(1) end);
mutate(3, Body) ->
    change(Body, 0, fun(_) -> rand:bytes(rand:uniform(8)) end);
mutate(4, Body) ->
    change(Body, rand:uniform(8), fun(_) -> <<>> end);
mutate(5, Body) ->
    binary:part(Body, 0, rand:uniform(byte_size(Body) + 1) - 1);
mutate(6, Body) ->
    change(Body, 2 * rand:uniform(8), fun(Part) ->
                                              Half = byte_size(Part) div 2,
                                              <<First:Half/binary, Second/binary>> = Part,
                                              <<Second/binary, First/binary>>
                                      end);
mutate(7, Body) ->
    change(Body, rand:uniform(16), fun(Part) -> <<Part/binary, Part/binary>> end);
mutate(8, Body) ->
    change(Body, 4, fun(_) -> pick([<<-1:32>>, <<0:32>>, <<(1 bsl 31):32>>, <<(1 bsl 31 - 1):32>>,
                                    <<(1 bsl 24):32>>, <<255, 255, 0, 0>>]) end);
mutate(9, Body) ->
    change(Body, 1, fun(_) -> <<(pick([70, 77, 80, 82, 88, 89, 90, 97, 98, 99, 100, 101, 102, 103, 104, 105,
                                       106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119,
                                       120, 121, 131]))>> end).

%% Change so many bytes (or as many as there are) at a random place.
change(Body, Size0, Change) ->
    Size = min(Size0, byte_size(Body)),
    At = rand:uniform(byte_size(Body) - Size + 1) - 1,
    <<Before:At/binary, Part:Size/binary, After/binary>> = Body,
    <<Before/binary, (Change(Part))/binary, After/binary>>.

pick(List) ->
    lists:nth(rand:uniform(length(List)), List).
