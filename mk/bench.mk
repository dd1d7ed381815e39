# SPDX-License-Identifier: Apache-2.0
# Benchmarks. nat.c is one of the library alone, the others are the load and what the node is compared with.
BENCH := $(BUILD)/bench
LOAD_SOURCES := $(addprefix test/bench/,callers.c client.c histogram.c load.c messages.c punches.c usage.c) \
    $(wildcard c_src/base/*.c c_src/term/*.c) $(addprefix c_src/distribution/,control.c epmd_wire.c handshake.c node_name.c)
BENCH_PROGRAMS := $(BENCH)/load $(BENCH)/ei_tutorial $(BENCH)/limit $(BENCH)/bench_server.beam $(BENCH)/bench_cache.beam

bench:
	$(SETUP) build
	@+$(SUBMAKE) program $(BENCH_PROGRAMS)
	@CNODE=$(PROGRAM) BENCH_BIN=$(BENCH) test/bench/run

$(BENCH)/load: $(call objects,$(LOAD_SOURCES))
	$(call link,$(LIBS))

$(BENCH)/ei_tutorial $(BENCH)/limit: $(BENCH)/%: $(call objects,test/bench/ei_node.c test/bench/%.c)
	$(call link,$(LIBS))

$(BENCH)/%.beam: test/bench/%.erl
	$(call say,ERLC $<)
	@mkdir -p $(@D)
	$(Q)erlc -Werror +debug_info -o $(@D) $<

# Calls through the Erlang module beside calls to other servers: JSON lines and a table. BENCH_ARGS are milliseconds of a
# round and rounds.
BENCH_ARGS ?= 500 9
BENCH_APP := build/bench/macula_nat_cnode

bench-app:
	$(SETUP) build
	@+$(SUBMAKE) program
	@mkdir -p $(BENCH_APP)/ebin $(BENCH_APP)/priv
	@cp $(PROGRAM) $(BENCH_APP)/priv
	@erlc -Werror -o $(BENCH_APP)/ebin src/*.erl test/bench/app_bench.erl test/bench/bench_server.erl
	@erl -noinput -boot no_dot_erlang -name app_bench_$$$$@127.0.0.1 -kernel logger_level error \
	    -pa $(BENCH_APP)/ebin -run app_bench main $(BENCH_ARGS)

.PHONY: bench bench-app
