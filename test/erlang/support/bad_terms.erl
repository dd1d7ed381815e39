%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc Terms in the external format (without the version byte) that no Erlang node would send, and legal
%% ones that are large, deep or rare.
-module(bad_terms).

-export([broken/0, deep/0, rare/0, ext/1]).

%% @doc A term without its version byte.
-spec ext(term()) -> binary().
ext(Term) ->
    <<131, Bytes/binary>> = term_to_binary(Term),
    Bytes.

%% @doc Bytes that are not a term: lies about sizes, unknown tags, parts that are missing or of another type.
%% A few are in forms that nobody sends any more.
-spec broken() -> [binary()].
broken() ->
    sizes() ++ atoms() ++ identifiers() ++ old() ++ others().

sizes() ->
    Most = 16#FFFFFFFF,
    [<<105, Most:32>>, <<105, Most:32, 97, 1, 97, 2>>, <<105, 16#7FFFFFFF:32, 106>>, <<104, 255>>,
     <<104, 2, 97, 1>>,
     <<108, Most:32>>, <<108, Most:32, 97, 1, 106>>, <<108, 16#80000000:32, 106, 106>>, <<108, 1:32, 97, 1>>,
     <<116, Most:32>>, <<116, Most:32, 97, 1, 97, 2>>, <<116, 16#80000000:32>>, <<116, 2:32, 97, 1, 97, 2>>,
     <<109, Most:32>>, <<109, Most:32, "abc">>, <<109, 16#80000000:32, "abc">>, <<109, 4:32, "abc">>, <<109, 0, 0>>,
     <<77, Most:32, 8, "abc">>, <<107, 65535:16, "abc">>, <<107, 0>>,
     <<110, 255, 0, 1>>, <<110, 3, 1, 1, 2>>, <<111, Most:32, 0, 1, 2>>, <<111, 16#7FFFFFFF:32, 1>>, <<111, 0, 0>>,
     <<97>>, <<98, 1, 2, 3>>, <<70, 0:56>>, <<99, "1.0">>, <<>>].

atoms() ->
    [<<100, 65535:16, "abc">>, <<118, 65535:16, "abc">>, <<119, 255, "abc">>, <<115, 3, "ab">>, <<100, 0>>,
     %% 256 characters are one too many, and so are 256 of two bytes each.
     <<100, 256:16, (binary:copy(<<"a">>, 256))/binary>>, <<118, 256:16, (binary:copy(<<"a">>, 256))/binary>>,
     <<118, 512:16, (binary:copy(<<"é"/utf8>>, 256))/binary>>,
     <<118, 65535:16, (binary:copy(<<"a">>, 65535))/binary>>,
     %% Not UTF-8: a lone byte, an overlong form, a surrogate, beyond the last code point, cut off.
     <<119, 1, 255>>, <<119, 2, 16#C0, 16#80>>, <<119, 3, 16#ED, 16#A0, 16#80>>,
     <<119, 4, 16#F5, 16#80, 16#80, 16#80>>, <<119, 2, "a", 16#C3>>, <<118, 3:16, 16#E2, 16#82, "a">>].

identifiers() ->
    Node = ext('nobody@127.0.0.1'),
    [<<90, 65535:16, Node/binary, 1:32, 1:32>>, <<90, 6:16, Node/binary, 0:32, 0:192>>,
     <<90, 0:16, Node/binary, 1:32>>, <<90, 3:16, 97, 1, 1:32, 0:96>>, <<90, 3:16, Node/binary, 1:32, 0:64>>,
     <<114, 65535:16, Node/binary, 1, 0:32>>, <<114, 3:16, Node/binary, 1, 0:64>>, <<114, 3:16, 106, 1, 0:96>>,
     <<101, 97, 1, 0:32, 1>>, <<101, Node/binary, 0:32>>,
     <<88, 97, 1, 0:96>>, <<88, Node/binary, 0:64>>, <<88, 109, 3:32, "a@b", 0:96>>, <<88, 104, 0, 0:96>>, <<88>>,
     <<103, 108, 0:72>>, <<103, Node/binary, 0:64>>,
     <<89, 97, 1, 0:64>>, <<89, Node/binary, 0:32>>, <<102, 106, 0:40>>, <<120, 97, 1, 0:96>>,
     <<120, Node/binary, 0:64>>].

%% The forms with one byte of creation, legal and with numbers that were too large for them; floats as text.
old() ->
    Node = ext('nobody@127.0.0.1'),
    [<<103, Node/binary, 1:32, 2:32, 3>>, <<103, Node/binary, 1:32, 2:32, 255>>, <<103, Node/binary, -1:32, -1:32, 1>>,
     <<114, 3:16, Node/binary, 1, 1:32, 2:32, 3:32>>, <<114, 3:16, Node/binary, 1, -1:32, 2:32, 3:32>>,
     <<114, 1:16, Node/binary, 255, 1:32>>, <<101, Node/binary, 1:32, 1>>, <<101, Node/binary, -1:32, 255>>,
     <<102, Node/binary, 1:32, 1>>, <<102, Node/binary, -1:32, 255>>]
        ++ [<<99, Text/binary, 0:(31 - byte_size(Text))/unit:8>>
            || Text <- [<<"1.50000000000000000000e+00">>, <<"1..5">>, <<"+1e5">>, <<" 1.0e5">>, <<"1.0e999">>, <<"-">>]].

others() ->
    Pid = ext(self()),
    %% A fun that says another size than it has, one with a hole in its free variables, and the old form.
    [<<112, 16#FFFFFFFF:32, 1, 0:128, 0:64>>, <<112, 4:32>>, <<112, 60:32, 1, 0:128, 0:32, 65535:32>>,
     <<112, 29:32, 0, 0:128, 0:32, 16#FFFFFFFF:32>>,
     <<117, 16#FFFFFFFF:32, Pid/binary, 100, 1:16, "m", 97, 1, 97, 1>>, <<117, 0:32, 97, 1>>,
     <<113, 97, 1, 97, 2, 97, 3>>, <<113, 100, 1:16, "m", 100, 1:16, "f", 98, -1:32>>, <<113, 100, 1:16, "m">>,
     %% Bits: more than a byte has, some of no byte, none of a byte.
     <<77, 1:32, 9, 255>>, <<77, 0:32, 3>>, <<77, 1:32, 0, 255>>, <<77, 1:32, 255, 1>>,
     %% Not a number, the two infinities, a text that is none.
     <<70, 16#7FF8000000000000:64>>, <<70, 16#7FF0000000000000:64>>, <<70, 16#FFF0000000000000:64>>,
     <<70, 16#7FF0000000000001:64>>, <<99, "not a number", 0:152>>, <<99, (binary:copy(<<"9">>, 31))/binary>>,
     %% A map with a key that is there twice.
     <<116, 2:32, 97, 1, 97, 1, 97, 1, 97, 2>>,
     %% Compressed, with a true size, with a false one, and as a bomb; never inside a term.
     compressed(ext(lists:seq(1, 1000))), <<80, 16#FFFFFFFF:32, (zlib:compress(<<106>>))/binary>>,
     compressed(<<109, 50000000:32, 0:400000000>>), <<80, 10:32, "not zlib">>, <<80>>,
     %% The atom cache, local terms, a header of fragments, the version byte, tags that mean nothing.
     <<82, 0>>, <<82, 255>>, <<121, 0:64, 97, 1>>, <<121>>, <<68, 0>>, <<69, 0:128>>, <<131, 106>>]
        ++ [<<Tag, 0:256>> || Tag <- [0, 1, 64, 69, 71, 78, 87, 91, 95, 122, 127, 128, 200, 255]].

compressed(Term) ->
    <<80, (byte_size(Term)):32, (zlib:compress(Term))/binary>>.

%% @doc Nested 200,000 deep: no node needs it, a recursive reader dies of it.
-spec deep() -> [binary()].
deep() ->
    N = 200000,
    [<<(binary:copy(<<108, 1:32>>, N))/binary, 106, (binary:copy(<<106>>, N))/binary>>,
     <<(binary:copy(<<108, 1:32>>, N))/binary, 97>>,
     <<(binary:copy(<<108, 1:32, 97, 1>>, N))/binary, 106>>,
     <<(binary:copy(<<104, 1>>, N))/binary, 106>>,
     <<(binary:copy(<<105, 1:32>>, N))/binary, 106>>,
     <<(binary:copy(<<104, 255>>, N))/binary>>,
     <<(binary:copy(<<116, 1:32, 97, 1>>, N))/binary, 106>>,
     <<(binary:copy(<<116, 1:32>>, N))/binary, 106, (binary:copy(<<106>>, N))/binary>>,
     <<(binary:copy(<<108, 16#FFFFFFFF:32>>, N))/binary>>,
     <<(binary:copy(<<105, 16#FFFFFFFF:32>>, N))/binary>>,
     <<(binary:copy(<<112, 100:32, 0, 0:128, 0:32, 1:32, 100, 1:16, "m", 97, 1, 97, 1, 97, 1>>, N div 10))/binary>>].

%% @doc Legal terms that are rare or large.
-spec rare() -> [term()].
rare() ->
    Decode = fun(Bytes) -> binary_to_term(<<131, Bytes/binary>>) end,
    Node = ext('nobody@127.0.0.1'),
    [binary:copy(<<7>>, 3000000), <<5:3>>, <<1, 2, 255:7>>, <<>>, "", [1 | 2], [[] | {}], {}, #{},
     1 bsl 4000000, -(1 bsl 4000000), 1 bsl 64, -(1 bsl 63), -(1 bsl 63) - 1, 1 bsl 27, -1, 1 bsl 2040 - 1, 1 bsl 2040,
     0.0, -0.0, 1.7976931348623157e308, 5.0e-324,
     list_to_tuple(lists:duplicate(300, a)), list_to_tuple(lists:seq(1, 100000)), lists:seq(1, 70000),
     lists:duplicate(65536, $a), lists:duplicate(65535, $a),
     maps:from_list([{K, K} || K <- lists:seq(1, 10000)]), #{#{} => #{#{a => 1} => [#{}]}},
     list_to_atom(lists:duplicate(255, $a)), list_to_atom(lists:duplicate(255, 16#1F600)), '',
     fun lists:map/2, fun() -> ok end, fun(X) -> {X, make_ref()} end, self(), make_ref(), hd(erlang:ports()),
     Decode(<<90, 5:16, Node/binary, 1:32, 1:32, 2:32, 3:32, 4:32, 5:32>>), Decode(<<90, 1:16, Node/binary, 1:32, 1:32>>),
     Decode(<<120, Node/binary, 1:64, 1:32>>),
     lists:foldl(fun(_, Term) -> [Term] end, [], lists:seq(1, 240)),
     lists:foldl(fun(_, Term) -> {Term} end, [], lists:seq(1, 240)),
     lists:foldl(fun(_, Term) -> #{Term => a} end, [], lists:seq(1, 240))].
