%% SPDX-License-Identifier: Apache-2.0
%%
%% @doc The command line: every option, every way to get it wrong, and what the program says and does then.
-module(command_line_tests).

-include_lib("eunit/include/eunit.hrl").

-define(SERVER, macula_nat_coordinator).
-define(USAGE, 64).
-define(UNAVAILABLE, 69).
-define(OS_ERROR, 71).
-define(NO_PERMISSION, 77).

command_line_test_() ->
    [{Title, {timeout, 300, Test}}
     || {Title, Test} <-
            [{"wrong command lines", fun wrong_command_lines/0},
             {"--help and --version", fun help_and_version/0},
             {"doc/operating.md lists the options as --help does", fun documented/0},
             {"doc/operating.md lists the counters as sys:get_state does", fun documented_counters/0},
             {"options in the environment", fun environment/0},
             {"only the ready line on stdout", fun ready_line/0},
             {"long names", fun long_names/0},
             {"short names", fun short_names/0},
             {"--port and --listen", fun port_and_listen/0},
             {"--log-level", fun log_level/0},
             {"cookie files that are refused", fun refused_cookies/0},
             {"--cookie-file and MACULA_NAT_COOKIE", fun given_cookies/0},
             {"a cookie is made", fun made_cookie/0},
             {"the cookie is not shown", fun hidden_cookie/0},
             {"a name that is taken", fun name_taken/0},
             {"a port that is taken", fun port_taken/0},
             {"no EPMD to be had", fun no_epmd/0},
             {"an EPMD is started", fun epmd_is_started/0},
             {"ERL_EPMD_PORT", fun epmd_port/0},
             {"the end of stdin", fun stdin_end/0},
             {"signals", fun signals/0},
             {"signals that mean nothing here", fun other_signals/0},
             {"a log that may not grow", fun log_at_its_limit/0},
             {"standard descriptors that are closed", fun closed_descriptors/0},
             {"too few descriptors", fun few_descriptors/0},
             {"the cookie is in no environment", fun wiped_cookie/0},
             {"refusals are counted by address", fun refusals/0},
             {"a session can be traced", fun traced/0}]].

%%% Usage

wrong_command_lines() ->
    [begin
         {Status, Stdout, Stderr} = run(Args, #{}),
         ?assertMatch({Args, ?USAGE, [], [_]}, {Args, Status, Stdout, Stderr}),
         ?assertMatch({Args, _, true}, {Args, Stderr, string:find(hd(Stderr), About) =/= nomatch})
     end || {About, Args} <- wrong()],
    ok.

%% What the line must name, and the arguments.
wrong() ->
    Valued = ["--sname", "--name", "--cookie-file", "--listen", "--port", "--connect", "--punch-timeout-ms",
              "--max-punch-attempts", "--coordination-delay-ms", "--lookup-timeout-ms", "--profile-cache-ttl-ms",
              "--session-ttl-s", "--max-sessions", "--strategy-rules", "--compatibility", "--log-level"],
    Numbers = [Option || Option <- Valued, lists:suffix("-ms", Option) orelse lists:suffix("-s", Option)]
        ++ ["--port", "--max-punch-attempts", "--max-sessions"],
    [{Option, [Option]} || Option <- Valued]
        ++ [{Option, [Option, ""]} || Option <- Valued]
        ++ [{Option, [Option, Number]} || Option <- Numbers, Number <- ["-1", "1x", "x", "1.5", " 1", "0x10", "1e3",
                                                                       "99999999999999999999"]]
        ++ [{Option, [Option, "0"]} || Option <- ["--punch-timeout-ms", "--lookup-timeout-ms", "--session-ttl-s",
                                                  "--max-sessions"]]
        ++ [{"--port", ["--port", "65536"]},
            {"--nonsense", ["--nonsense"]}, {"-x", ["-x"]}, {"--", ["--"]}, {"stray", ["stray"]}, {"--por", ["--por", "1"]},
            {"--SNAME", ["--SNAME", "x"]}, {"''", [""]},
            {"--cookie", ["--cookie", "never"]}, {"--setcookie", ["--setcookie", "never"]},
            {"--help", ["--help=x"]}, {"--exit-on-stdin-eof", ["--exit-on-stdin-eof=1"]},
            {"--listen", ["--listen", "localhost.invalid"]}, {"--listen", ["--listen", "300.0.0.1"]},
            {"--listen", ["--listen", "127.0.0.1:80"]},
            {"--strategy-rules", ["--strategy-rules", "other"]}, {"--compatibility", ["--compatibility", "v0_14_4"]}, {"--log-level", ["--log-level", "loud"]},
            {"--sname", ["--sname", "a@b.c"]}, {"--sname", ["--sname", "@b"]}, {"--sname", ["--sname", "a@"]},
            {"--sname", ["--sname", "a b"]}, {"--sname", ["--sname", "a@b@c"]}, {"--sname", ["--sname", "a\nb"]},
            {"--sname", ["--sname", lists:duplicate(300, $a)]},
            {"--name", ["--name", "a@b"]}, {"--name", ["--name", "a@"]}, {"--name", ["--name", "@127.0.0.1"]},
            {"--name", ["--name", "a@127.0.0.1", "--sname", "b"]},
            {"--connect", ["--connect", "nohost"]}, {"--connect", ["--connect", "a@b.c"]},
            {"--connect", ["--name", "a@127.0.0.1", "--connect", "a@127.0.0.1"]},
            {"--connect", ["--name", "a@127.0.0.1", "--connect", "b@shorthost"]}].

help_and_version() ->
    {0, Help, []} = run(["--help"], #{}),
    Text = string:join(Help, "\n"),
    [?assertMatch({_, true}, {Option, string:find(Text, Option) =/= nomatch})
     || Option <- ["--sname", "--name", "--cookie-file", "--listen", "--port", "--connect", "--punch-timeout-ms",
                   "--max-punch-attempts", "--coordination-delay-ms", "--lookup-timeout-ms", "--profile-cache-ttl-ms",
                   "--session-ttl-s", "--max-sessions", "--strategy-rules", "--compatibility", "--log-level",
                   "--exit-on-stdin-eof", "--help", "--version", " 1 ended by", " 64 ", "69 ", " 71 ", " 77 "]],
    ?assertMatch({0, ["macula_nat_cnode " ++ _], []}, run(["--version"], #{})).

%% Names, variables, bounds or choices, and defaults.
documented() ->
    {0, Help, []} = run(["--help"], #{}),
    {ok, Page} = file:read_file("doc/operating.md"),
    Rows = rows(string:split(Page, "\n", all), "^\\| `(--[a-z-]+)` \\| `([A-Z_]+)` \\| ([^|]*) \\| ([^|]*) \\|"),
    Names = [Name || [Name] <- rows(Help, "^  (--[a-z-]+)"), Name =/= "--help", Name =/= "--version"],
    ?assertEqual([[Name, variable(Name)] || Name <- Names], [[Name, Variable] || [Name, Variable, _, _] <- Rows]),
    Told = rows(Help, "^  (--[a-z-]+) .*\\((.*)[,;] default (.*)\\)$"),
    ?assert(length(Told) > 5),
    Of = maps:from_list([{Name, {replace(Values, "`", ""), replace(Default, "`", "")}} || [Name, _, Values, Default] <- Rows]),
    [?assertEqual({Name, {replace(Values, " or ", ", "), Default}}, {Name, maps:get(Name, Of)})
     || [Name, Values, Default] <- Told].

%% In the section of their group, or behind the name of their group; each row with a meaning.
documented_counters() ->
    {ok, Page} = file:read_file("doc/operating.md"),
    [_, Counters] = string:split(Page, "\n## Counters\n"),
    [Section | _] = string:split(Counters, "\n## "),
    Told = lists:append([told(Lines) || Lines <- string:split(Section, "\n### ", all)]),
    with(#{}, fun(#{node := Node}, _) ->
        State = maps:without([options, clocks], sys:get_state({?SERVER, Node})),
        Shown = [{atom_to_list(Group), atom_to_list(Key)}
                 || {Group, Counts} <- maps:to_list(State), is_map(Counts), Key <- maps:keys(Counts)],
        ?assert(length(Shown) > 50),
        ?assertEqual({[], []}, {Shown -- Told, Told -- Shown})
    end).

told(Section) ->
    [Title | Lines] = string:split(Section, "\n", all),
    [{case Group of "" -> binary_to_list(Title); _ -> Group end, Key}
     || [Group, Keys, Meaning] <- rows(Lines, "^\\| (?:`([a-z_]+)`: )?((?:`[a-z_]+`(?:, )?)+) \\| [^|]+ \\|(.*)\\|$"),
        [Key] <- rows(string:split(Keys, ",", all), "`([a-z_]+)`"),
        string:trim(Meaning) =/= ""].

rows(Lines, Regexp) ->
    [Row || Line <- Lines, {match, Row} <- [re:run(Line, Regexp, [{capture, all_but_first, list}])]].

variable("--" ++ Name) ->
    "MACULA_NAT_" ++ string:uppercase(replace(Name, "-", "_")).

replace(Text, What, By) ->
    lists:append(string:replace(Text, What, By, all)).

%% The name and the options are there; what the command line says wins.
environment() ->
    Name = cnode:unique("environment") ++ "@127.0.0.1",
    Env = [{"MACULA_NAT_NAME", Name}, {"MACULA_NAT_SESSION_TTL_S", "17"}, {"MACULA_NAT_MAX_SESSIONS", "18"}],
    with(#{env => Env, node_args => ["--max-sessions", "19"]},
         fun(#{node := Node}, _) ->
                 ?assertEqual(Name, atom_to_list(Node)),
                 ?assertMatch(#{options := #{session_ttl_s := 17, max_sessions := 19}}, sys:get_state({?SERVER, Node}))
         end),
    ?assertMatch({?USAGE, [], ["macula_nat_cnode: MACULA_NAT_PORT must be " ++ _]},
                 run([], #{env => [{"MACULA_NAT_PORT", "65536"}]})),
    ?assertMatch({?USAGE, [], ["macula_nat_cnode: MACULA_NAT_CONNECT has a comma with no name beside it"]},
                 run([], #{env => [{"MACULA_NAT_CONNECT", "a,,b"}]})).

%%% Names and ports

ready_line() ->
    with(#{}, fun(Handle = #{node := Node, port := Port}, _) ->
                      answers(Node),
                      ?assertEqual([lists:concat(["ready ", Node, " ", Port])], cnode:log(Handle)),
                      ?assertEqual(Port, proplists:get_value(maps:get(name, Handle), cnode:epmd_names()))
              end).

long_names() ->
    Name = cnode:unique("long"),
    with(#{node_args => ["--name", Name ++ "@127.0.0.1"]},
         fun(#{node := Node}, _) ->
                 ?assertEqual(Name ++ "@127.0.0.1", atom_to_list(Node)),
                 answers(Node)
         end),
    with(#{node_args => ["--name=" ++ Name ++ "@127.0.0.1"]}, fun(#{node := Node}, _) -> answers(Node) end).

short_names() ->
    {ok, Host} = inet:gethostname(),
    Name = cnode:unique("short"),
    {ok, Peer, _} = peer:start_link(#{name => cnode:unique("short_peer"), host => Host, longnames => false,
                                      connection => standard_io,
                                      args => ["-connect_all", "false", "-setcookie", cnode:cookie()]}),
    [with(#{node_args => Args},
          fun(#{node := Node}, _) ->
                  ?assertEqual(Expected, atom_to_list(Node)),
                  ?assertEqual({error, unknown_request}, peer:call(Peer, gen_server, call, [{?SERVER, Node}, x]))
          end)
     || {Args, Expected} <- [{[], "macula_nat@" ++ Host}, {["--sname", Name], Name ++ "@" ++ Host},
                             {["--sname", Name ++ "@" ++ Host], Name ++ "@" ++ Host}]],
    peer:stop(Peer).

port_and_listen() ->
    Wanted = cnode:free_port(),
    with(#{args => ["--port", integer_to_list(Wanted), "--listen", "127.0.0.1"]},
         fun(#{node := Node, port := Port}, _) ->
                 ?assertEqual(Wanted, Port),
                 answers(Node),
                 ?assertEqual({error, econnrefused}, gen_tcp:connect({127, 0, 0, 2}, Port, []))
         end),
    with(#{}, fun(#{port := Port}, _) ->
                      {ok, Socket} = gen_tcp:connect({127, 0, 0, 2}, Port, []),
                      gen_tcp:close(Socket)
              end).

port_taken() ->
    with(#{}, fun(#{port := Port}, _) ->
                      {Status, Stdout, Stderr} = run(["--sname", cnode:unique("port_taken"), "--port", integer_to_list(Port)],
                                                     #{}),
                      ?assertMatch({?UNAVAILABLE, [], [_]}, {Status, Stdout, Stderr}),
                      ?assertNotEqual(nomatch, string:find(hd(Stderr), integer_to_list(Port)))
              end).

log_level() ->
    Refused = fun(#{node := Node}, _) ->
                      ?assertMatch({error, _}, raw_dist:connect(Node, #{name => 'raw_refused@127.0.0.1', cookie => wrong})),
                      answers(Node)
              end,
    ?assertEqual([], with(#{args => ["--log-level", "error"]}, Refused)),
    %% The line of what was refused is there at each level from warning on, and more with each of them.
    Counts = [begin
                  Lines = with(#{args => ["--log-level", Level]}, Refused),
                  ?assertMatch([_], [Line || Line <- Lines, string:find(Line, "raw_refused@127.0.0.1") =/= nomatch,
                                             string:find(Line, "warning") =/= nomatch]),
                  length(Lines)
              end || Level <- ["warning", "notice", "info", "debug"]],
    ?assertEqual(lists:sort(Counts), Counts),
    ?assert(hd(Counts) < lists:last(Counts)).

%%% Cookies

refused_cookies() ->
    [begin
         File = cookie_file(Text, Mode),
         refused_cookie(["--cookie-file", File], #{cookie => none}),
         refused_cookie([], #{cookie => none, env => [{"HOME", home_with(File)}]})
     end || {Text, Mode} <- [{"", 8#400}, {"\n", 8#400}, {"secret", 8#444}, {"secret", 8#460}, {"secret", 8#604},
                             {"a\0b", 8#400}, {"zwei\nzeilen", 8#400}, {lists:duplicate(5000, $a), 8#400}]],
    %% As erl does; a file that is named may be readable by its group.
    refused_cookie([], #{cookie => none, env => [{"HOME", home_with(cookie_file("secret", 8#440))}]}),
    refused_cookie(["--cookie-file", temporary("missing")], #{cookie => none}),
    refused_cookie(["--cookie-file", directory()], #{cookie => none}),
    %% A port cannot set a variable to nothing, env can.
    refused_cookie([], #{program => "/usr/bin/env", node_args => ["MACULA_NAT_COOKIE=", cnode:command()]}).

%% The line does not show what was in the file.
refused_cookie(Args, Options) ->
    Before = maps:get(node_args, Options, []),
    {Status, Stdout, Stderr} = run(Before ++ ["--sname", cnode:unique("refused") | Args], Options),
    ?assertMatch({Args, ?NO_PERMISSION, [], [_]}, {Args, Status, Stdout, Stderr}),
    ?assertNotEqual(nomatch, string:find(hd(Stderr), "cookie")),
    [?assertEqual(nomatch, string:find(hd(Stderr), Text)) || Text <- ["secret", "zwei", "aaaaaaaa"]].

given_cookies() ->
    File = cookie_file("from_file\n", 8#400),
    Accepts = fun(Cookie) ->
                      fun(#{node := Node}, _) ->
                              {ok, Peer} = raw_dist:connect(Node, #{name => 'raw@127.0.0.1', cookie => Cookie}),
                              ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, x)),
                              raw_dist:close(Peer)
                      end
              end,
    with(#{cookie => none, args => ["--cookie-file", File]}, Accepts(from_file)),
    with(#{cookie => none, args => ["--cookie-file", cookie_file("for_the_group\n", 8#440)]}, Accepts(for_the_group)),
    with(#{cookie => none, env => [{"HOME", home_with(File)}]}, Accepts(from_file)),
    with(#{cookie => "from_environment", args => ["--cookie-file", File]}, Accepts(from_environment)).

made_cookie() ->
    Home = directory(),
    File = filename:join(Home, ".erlang.cookie"),
    Accepts = fun(#{node := Node}, _) ->
                      {ok, Cookie} = file:read_file(File),
                      ?assert(byte_size(Cookie) >= 16),
                      {ok, Peer} = raw_dist:connect(Node, #{name => 'raw@127.0.0.1', cookie => binary_to_atom(Cookie)}),
                      raw_dist:close(Peer),
                      Cookie
              end,
    with(#{cookie => none, env => [{"HOME", Home}]}, Accepts),
    {ok, Made} = file:read_file(File),
    {ok, Info} = file:read_file_info(File),
    ?assertEqual(8#400, element(8, Info) band 8#7777),
    ?assertEqual({ok, [".erlang.cookie"]}, file:list_dir(Home)),
    with(#{cookie => none, env => [{"HOME", Home}]}, Accepts),
    ?assertEqual({ok, Made}, file:read_file(File)).

hidden_cookie() ->
    Cookie = "a_cookie_that_nobody_sees",
    Lines = with(#{cookie => Cookie, args => ["--log-level", "debug"]},
                 fun(#{node := Node, os_pid := OsPid}, _) ->
                         {ok, CommandLine} = file:read_file(lists:concat(["/proc/", OsPid, "/cmdline"])),
                         ?assertEqual(nomatch, binary:match(CommandLine, list_to_binary(Cookie))),
                         {ok, Peer} = raw_dist:connect(Node, #{name => 'raw@127.0.0.1', cookie => list_to_atom(Cookie)}),
                         ?assertEqual({ok, {error, unknown_request}}, raw_dist:call(Peer, ?SERVER, x)),
                         {error, _} = raw_dist:connect(Node, #{name => 'raw2@127.0.0.1', cookie => wrong}),
                         raw_dist:close(Peer)
                 end),
    ?assertNotEqual([], Lines),
    ?assertEqual([], [Line || Line <- Lines, string:find(Line, Cookie) =/= nomatch]).

%%% EPMD

name_taken() ->
    with(#{}, fun(#{name := Name, node := Node}, _) ->
                      {Status, Stdout, Stderr} = run(["--name", Name ++ "@127.0.0.1"], #{}),
                      ?assertMatch({?UNAVAILABLE, [], [_]}, {Status, Stdout, Stderr}),
                      ?assertNotEqual(nomatch, string:find(hd(Stderr), Name)),
                      answers(Node)
              end).

no_epmd() ->
    {Status, Stdout, Stderr} =
        run(["--sname", cnode:unique("no_epmd")],
            #{env => [{"PATH", directory()}, {"ERL_EPMD_PORT", integer_to_list(cnode:free_port())}]}),
    ?assertMatch({?UNAVAILABLE, [], [_]}, {Status, Stdout, Stderr}),
    ?assertNotEqual(nomatch, string:find(hd(Stderr), "EPMD")).

epmd_is_started() ->
    Port = cnode:free_port(),
    with(#{env => [{"ERL_EPMD_PORT", integer_to_list(Port)}]},
         fun(#{name := Name, port := NodePort}, _) -> ?assertEqual([{Name, NodePort}], cnode:epmd_names(Port)) end),
    %% It stays when the program ends, without its name.
    cnode:await(fun() -> cnode:epmd_names(Port) =:= [] end),
    ?assertEqual("Killed\n", os:cmd(lists:concat(["epmd -port ", Port, " -kill"]))).

epmd_port() ->
    Epmd = cnode:epmd_start(),
    Port = cnode:epmd_port(Epmd),
    with(#{env => [{"ERL_EPMD_PORT", integer_to_list(Port)}, {"ERL_EPMD_ADDRESS", "127.0.0.1"}]},
         fun(#{name := Name, port := NodePort}, _) ->
                 ?assertEqual([{Name, NodePort}], cnode:epmd_names(Port)),
                 ?assertNot(lists:keymember(Name, 1, cnode:epmd_names()))
         end),
    cnode:epmd_stop(Epmd),
    [begin
         {Status, Stdout, Stderr} = run([], #{env => [{"ERL_EPMD_PORT", Wrong}]}),
         ?assertMatch({Wrong, ?UNAVAILABLE, [], [_]}, {Wrong, Status, Stdout, Stderr}),
         ?assertNotEqual(nomatch, string:find(hd(Stderr), "ERL_EPMD_PORT"))
     end || Wrong <- ["x", "0", "65536", "-1"]].

%%% The end

stdin_end() ->
    Fifo = temporary("stdin"),
    "" = os:cmd("mkfifo " ++ Fifo),
    %% Without exit_status a port ends at once whose program has no stdout.
    Writer = open_port({spawn_executable, "/bin/sh"}, [{args, ["-c", "exec cat >\"$0\"", Fifo]}, exit_status]),
    Handle = #{node := Node, name := Name} = cnode:start(reading(Fifo, ["--exit-on-stdin-eof"])),
    answers(Node),
    port_close(Writer),
    ?assertEqual(0, cnode:await_exit(Handle)),
    ?assertNot(lists:keymember(Name, 1, cnode:epmd_names())),
    %% A stdin that is at its end from the start, or no stream.
    Empty = temporary("empty"),
    ok = file:write_file(Empty, ""),
    [?assertMatch({File, {0, _}}, {File, cnode:run(reading(File, ["--exit-on-stdin-eof"]))})
     || File <- ["/dev/null", Empty]],
    %% Without the option the end of stdin means nothing.
    cnode:with(reading("/dev/null", []), fun(#{node := Other}) -> answers(Other), answers(Other) end).

%% The program with a file as its stdin.
reading(File, Args) ->
    #{program => "/bin/sh",
      node_args => ["-c", "f=$0; exec \"$@\" <\"$f\"", File, cnode:command(),
                    "--name", cnode:unique("stdin") ++ "@127.0.0.1" | Args]}.

signals() ->
    [begin
         Handle = #{node := Node, name := Name} = cnode:start(),
         Monitor = erlang:monitor(process, {?SERVER, Node}),
         answers(Node),
         cnode:signal(Handle, Signal),
         ?assertEqual(0, cnode:await_exit(Handle)),
         receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(shutdown, Reason) end,
         ?assertNot(lists:keymember(Name, 1, cnode:epmd_names()))
     end || Signal <- ["TERM", "INT"]].

other_signals() ->
    cnode:with(#{}, fun(#{node := Node} = Handle) ->
        [begin
             cnode:signal(Handle, Signal),
             _ = cnode:await_log(Handle, ["notice SIG", Signal, " ignored"]),
             answers(Node)
         end || Signal <- ["HUP", "USR1", "USR2"]]
    end).

%% `ulimit -f`, and a full file system: the lines are lost, and nothing else.
log_at_its_limit() ->
    File = temporary("stderr"),
    Refuse = fun(#{node := Node}) ->
        [?assertMatch({error, _}, raw_dist:connect(Node, #{name => 'raw_refused@127.0.0.1', cookie => wrong,
                                                           from => {127, 0, 2, I}})) || I <- lists:seq(1, 20)],
        answers(Node)
    end,
    cnode:with(shell("ulimit -f 1; exec \"$@\" 2>\"$0\"", File), Refuse),
    ?assert(filelib:file_size(File) =< 1024),
    cnode:with(shell("exec \"$@\" 2>/dev/full", File), Refuse).

%% Without stdout there is no line that says when it is ready.
closed_descriptors() ->
    [begin
         #{program := Sh, node_args := Args} = shell("exec \"$@\" " ++ Closed, ""),
         Name = hd(string:split(lists:last(Args), "@")),
         Port = open_port({spawn_executable, Sh}, [{args, Args}, {env, [{"MACULA_NAT_COOKIE", cnode:cookie()}]},
                                                   exit_status, hide]),
         {os_pid, OsPid} = erlang:port_info(Port, os_pid),
         cnode:await(fun() -> lists:keymember(Name, 1, cnode:epmd_names()) end),
         answers(list_to_atom(lists:last(Args))),
         [] = os:cmd(lists:concat(["kill -TERM ", OsPid])),
         receive {Port, {exit_status, Status}} -> ?assertEqual({Closed, 0}, {Closed, Status}) end
     end || Closed <- ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]].

few_descriptors() ->
    [begin
         {Status, Lines} = cnode:run(shell("ulimit -n " ++ integer_to_list(Count) ++ "; exec \"$@\"", "")),
         ?assertMatch({Count, ?OS_ERROR, [_]}, {Count, Status, Lines}),
         ?assertNotEqual(nomatch, string:find(hd(Lines), "file descriptors"))
     end || Count <- [4, 5, 6, 8, 12, 16]].

%% The program in a shell's hands: `$0' and `"$@"' are the file and the program's command line.
shell(Script, File) ->
    #{program => "/bin/sh",
      node_args => ["-c", Script, File, cnode:command(), "--name", cnode:unique("shell") ++ "@127.0.0.1"]}.

%% Neither in that of the program, nor in that of the EPMD which it has started.
wiped_cookie() ->
    Port = integer_to_list(cnode:free_port()),
    Cookie = "a_cookie_that_is_wiped",
    with(#{cookie => Cookie, env => [{"ERL_EPMD_PORT", Port}]}, fun(#{os_pid := OsPid}, _) ->
        {ok, Own} = file:read_file(lists:concat(["/proc/", OsPid, "/environ"])),
        ?assertNotEqual(nomatch, binary:match(Own, list_to_binary("ERL_EPMD_PORT=" ++ Port))),
        ?assertEqual(nomatch, binary:match(Own, list_to_binary(Cookie))),
        [?assertEqual(nomatch, binary:match(Environment, list_to_binary(Cookie))) || Environment <- epmds_of(Port)],
        ?assertNotEqual([], epmds_of(Port))
    end),
    ?assertEqual("Killed\n", os:cmd("epmd -port " ++ Port ++ " -kill")).

%% The environments of the EPMDs that were started with this port.
epmds_of(Port) ->
    [Environment || Dir <- filelib:wildcard("/proc/[0-9]*"),
                    {ok, <<"epmd\n">>} <- [file:read_file(Dir ++ "/comm")],
                    {ok, Environment} <- [file:read_file(Dir ++ "/environ")],
                    binary:match(Environment, list_to_binary("ERL_EPMD_PORT=" ++ Port ++ [0])) =/= nomatch].

%% Who has the wrong cookie may claim a name of its own each time: it is one host all the same.
refusals() ->
    with(#{}, fun(#{node := Node}, File) ->
        Merged = "more from 127.0.3.1 suppressed: raw_claimed|\\([0-9]+ like it suppressed: raw_claimed",
        cnode:await(fun() ->
            [{error, _} = raw_dist:connect(Node, #{name => list_to_atom(cnode:unique("raw_claimed") ++ "@127.0.0.1"),
                                                   cookie => wrong, from => {127, 0, 3, 1}}) || _ <- lists:seq(1, 20)],
            lists:any(fun(Line) -> re:run(Line, Merged, [{capture, none}]) =:= match end, lines(File))
        end)
    end).

traced() ->
    Peer = list_to_binary(cnode:unique("traced")),
    cnode:with(#{args => ["--log-level", "debug"]}, fun(#{node := N} = Handle) ->
        ok = gen_server:call({?SERVER, N}, {attach_peer, Peer}),
        {ok, hole_punch, Session} = gen_server:call({?SERVER, N}, {request_connection, Peer, <<"other">>, #{}}),
        receive {punch_coordinate, _} -> ok end,
        ok = gen_server:cast({?SERVER, N}, {report_result, Session, Peer, success}),
        Quoted = re:replace(Session, "[+]", "\\\\+", [global, {return, list}]),
        [cnode:await_log(Handle, ["debug ", Before, binary_to_list(Peer), After, ": session ", Quoted, ": ", Result])
         || {Before, After, Result} <- [{"request_connection ", " other", "hole_punch"},
                                        {"PUNCH_COORDINATE to ", "", "to its mailbox"},
                                        {"report_result ", " success", "taken"}]],
        cnode:await_log(Handle, ["debug PUNCH_COORDINATE to other: session ", Quoted, ": could not be delivered"])
    end).

%%% Helpers

%% Run the program to its end: status, and the lines on stdout and stderr.
run(Args, Options) ->
    File = temporary("stderr"),
    {Status, Stdout} = cnode:run(Options#{node_args => Args, stderr => File}),
    {Status, Stdout, lines(File)}.

%% Start the program, use it, and end it: the lines on stderr.
with(Options, Use) ->
    File = temporary("stderr"),
    cnode:with(Options#{stderr => File}, fun(Handle) -> Use(Handle, File) end),
    lines(File).

lines(File) ->
    {ok, Text} = file:read_file(File),
    string:lexemes(binary_to_list(Text), "\n").

answers(Node) ->
    ?assertEqual({error, unknown_request}, gen_server:call({?SERVER, Node}, {are_you, there}, 30000)).

temporary(Title) ->
    filename:join(os:getenv("TMPDIR", "/tmp"), cnode:unique(Title)).

directory() ->
    Name = temporary("directory"),
    ok = file:make_dir(Name),
    Name.

cookie_file(Text, Mode) ->
    Name = temporary("cookie_file"),
    ok = file:write_file(Name, Text),
    ok = file:change_mode(Name, Mode),
    Name.

%% A home directory whose cookie file is this one, with its mode.
home_with(File) ->
    Home = directory(),
    Cookie = filename:join(Home, ".erlang.cookie"),
    {ok, Info} = file:read_file_info(File),
    {ok, _} = file:copy(File, Cookie),
    ok = file:change_mode(Cookie, element(8, Info) band 8#777),
    Home.
