# SPDX-License-Identifier: Apache-2.0
# Builds, runs and checks macula_nat_cnode. `make help` lists the targets and the variables.

comma := ,
quote := '
ifeq ($(origin CC),default)
CC := gcc
endif
# The one place where the version stands is the OTP application's.
VERSION := $(shell sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' src/macula_nat_cnode.app.src)
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
PREFIX ?= /usr/local

# Each variant has its own objects: SANITIZE=address,undefined, CC=clang, or both.
COMPILER := $(notdir $(lastword $(filter-out -%,$(CC))))
build_of = build/$(patsubst gcc-%,%,$(COMPILER)-$(or $(subst $(comma),-,$(1)),plain))
BUILD ?= $(call build_of,$(SANITIZE))
ifneq ($(words $(BUILD)),1)
$(error BUILD='$(BUILD)' cannot be: GNU make takes names apart at spaces. The folder of these sources may have some)
endif
# The sanitized program, and one that was given a folder of its own, stay out of priv/.
PROGRAM := $(if $(SANITIZE)$(filter-out file,$(origin BUILD)),$(BUILD),priv)/macula_nat_cnode
# The hostile tests run against a sanitized program, whatever variant the others run against.
ASAN_SANITIZE := address,undefined
ASAN_BUILD := $(call build_of,$(ASAN_SANITIZE))

# What other programs are asked for is asked when it is needed, and once.
pkg_config = $(shell pkg-config $(1) 2>/dev/null)
PACKAGES := libuv libcrypto
PACKAGE_CFLAGS = $(eval PACKAGE_CFLAGS := $(call pkg_config,--cflags $(PACKAGES)))$(PACKAGE_CFLAGS)
PACKAGE_LIBS = $(eval PACKAGE_LIBS := $(call pkg_config,--libs $(PACKAGES)))$(PACKAGE_LIBS)
CHECK_LIBS = $(call pkg_config,--libs check)
# ei is in Debian's erlang-dev; elsewhere it is part of the Erlang/OTP that `erl` belongs to.
ifndef ERL_INTERFACE
ERL_INTERFACE = $(eval ERL_INTERFACE := $(if $(wildcard /usr/include/ei.h),,$(shell erl -noshell -eval \
    'io:put_chars(code:lib_dir(erl_interface)), halt().' 2>/dev/null)))$(ERL_INTERFACE)
endif

CFLAGS ?= -O2 -g
OPTIMIZED := $(filter-out -O0,$(filter -O%,$(CFLAGS)))
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla $(if $(filter true,$(CI)),-Werror)
# glibc's checked functions need optimization, and hide errors from the sanitizers.
HARDENING := $(if $(SANITIZE),,-fPIE -fstack-protector-strong \
    $(if $(OPTIMIZED),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2))
HARDENING_LDFLAGS := $(if $(SANITIZE),,-pie -Wl,-z,relro -Wl,-z,now)
# CPPFLAGS, CFLAGS and LDFLAGS are the user's and stay as they are: a make inside this one gets them too.
ALL_CPPFLAGS = $(CPPFLAGS) -D_GNU_SOURCE -D_REENTRANT -DMACULA_NAT_VERSION='"$(VERSION)"' -Ic_src -Iinclude \
    $(ERL_INTERFACE:%=-isystem %/include) $(PACKAGE_CFLAGS)
ALL_CFLAGS = $(CFLAGS) -std=c11 -fno-common $(WARNINGS) $(HARDENING) \
    $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_LDFLAGS = $(LDFLAGS) $(HARDENING_LDFLAGS) $(ERL_INTERFACE:%=-L%/lib)
LIBS = -lei $(PACKAGE_LIBS) -lpthread
# gcc optimizes the program in priv/ as a whole, from objects of its own, which only gcc can link.
LTO := $(if $(OPTIMIZED),$(if $(filter gcc gcc-%,$(COMPILER)),$(if $(filter priv/%,$(PROGRAM)),-flto=auto)))

SOURCES := $(wildcard c_src/*.c c_src/*/*.c)
LIB_SOURCES := $(filter-out c_src/main.c,$(SOURCES))
NAT_MODEL := $(addprefix test/nat_lab/,nat_matrix.c nat_model.c nat_sim.c)
TESTS := $(wildcard test/unit/*.c) $(NAT_MODEL)
objects = $(patsubst %.c,$(BUILD)/%.o,$(1))

# V=1 shows whole commands instead of short lines.
Q := $(if $(V),,@)
say = @$(if $(V),:,echo "$(1)")
define compile
	$(call say,CC $<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(1) -MMD -MP -c -o $@ $<
endef
define link
	$(call say,LD $@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(1)
endef
# Set-up comes before a make of its own, as only then compiler and libraries are there to be asked. What only builds
# installs nothing: it says what is missing.
SETUP := @CC="$(CC)" scripts/setup
CHECK := $(SETUP) --check
SUBMAKE = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

all:
	$(CHECK) build
	@+$(SUBMAKE) program
	@echo "$(PROGRAM) is up to date."

program: $(PROGRAM)
	@:

run:
	$(SETUP) build
	@+$(SUBMAKE) program
	@echo "Starting a hidden node with its embedded profile cache. It prints 'ready NODE PORT'; Ctrl-C ends it."
	@exec $(PROGRAM) $(ARGS)

# With VALGRIND=1 both programs are started through a script, as test/run takes names and no command lines.
TEST_PREFIX := $(if $(VALGRIND),$(BUILD)/valgrind/)
TEST_PROGRAMS := $(PROGRAM) $(BUILD)/unit
LAB_PROGRAMS := $(BUILD)/hub $(BUILD)/model_table

setup:
	$(SETUP) build

test:
	$(SETUP) test $(if $(VALGRIND),valgrind)
	@+$(SUBMAKE) test-programs || { echo "test: not run, as the programs could not be built" >&2; exit 1; }
	@CNODE=$(TEST_PREFIX)$(PROGRAM) CNODE_ASAN=$(ASAN_BUILD)/macula_nat_cnode CNODE_SHORTAGE=$(ASAN_BUILD)/shortage \
	    UNIT=$(TEST_PREFIX)$(BUILD)/unit EMBED=$(BUILD)/embed FUZZ=$(FUZZ_BUILD) BUILD=$(BUILD) test/run $(SUITES)

# The tests in a bare root of another Debian, with its Erlang/OTP. Where that cannot be, one line says why.
RELEASE ?= trixie

test-debian:
	$(SETUP) debian
	@test/debian $(RELEASE) $(SUITES); status=$$?; [ $$status -eq 77 ] || exit $$status

test-programs: $(TEST_PROGRAMS) $(BUILD)/embed $(LAB_PROGRAMS) \
    $(if $(VALGRIND),$(addprefix $(BUILD)/valgrind/,$(TEST_PROGRAMS)))
	@+$(SUBMAKE) program shortage-program SANITIZE=$(ASAN_SANITIZE) BUILD=$(ASAN_BUILD)
	@+$(if $(HAS_LIBFUZZER),$(FUZZ_MAKE) fuzz-programs)

$(BUILD)/valgrind/%: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' '#!/bin/sh' 'export CK_TIMEOUT_MULTIPLIER=50 TEST_SLOWDOWN=50' \
	    "exec '$$(command -v valgrind)' -q --error-exitcode=99 --leak-check=full '$(abspath $*)' \"\$$@\"" >$@
	@chmod +x $@

# All pairs of the NAT lab; root and nftables are needed. The picture is part of doc/nat-lab.md.
nat-lab:
	$(SETUP) test lab
	@+$(SUBMAKE) program $(LAB_PROGRAMS)
	@$(BUILD)/model_table
	@echo
	@CNODE=$(PROGRAM) BUILD=$(BUILD) PICTURE=doc/nat_lab.svg test/nat_lab/run all; \
	    status=$$?; [ $$status -eq 77 ] || exit $$status
	@CNODE=$(PROGRAM) BUILD=$(BUILD) test/nat_lab/run skew; \
	    status=$$?; [ $$status -eq 77 ] || exit $$status

unit: $(BUILD)/unit
	$(BUILD)/unit

unit-program: $(BUILD)/unit
	@:

# All kinds of requests with random faults; `make test` has a short form of it.
soak:
	$(SETUP) test
	@+$(SUBMAKE) program
	@SOAK_SECONDS=$(or $(SOAK_SECONDS),600) CNODE=$(PROGRAM) BUILD=$(BUILD) test/run soak

lib: $(BUILD)/libmacula_nat.a
	@:

# The NAT library alone, and a program that proves that it needs nothing else: neither libuv nor ei.
$(BUILD)/libmacula_nat.a: $(call objects,$(wildcard c_src/nat/*.c))
	$(call say,AR $@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/embed: $(call objects,test/unit/embed/embed.c) $(BUILD)/libmacula_nat.a
	$(link)

$(BUILD)/macula_nat_cnode: $(SOURCES:%.c=$(BUILD)/$(if $(LTO),lto/)%.o)
	$(call link,$(LTO) $(LIBS))

# The variants that go there follow each other, so what counts is whether it is the same, not which is newer.
priv/macula_nat_cnode: $(BUILD)/macula_nat_cnode FORCE
	$(Q)cmp -s $< $@ || install -m 755 $< $@

# Allocations of ours can be made to fail, there and in a program that is like the one but for that.
SHORTAGE := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc)
$(BUILD)/unit: $(call objects,$(LIB_SOURCES) $(TESTS))
	$(call link,$(SHORTAGE) $(LIBS) $(CHECK_LIBS))

$(BUILD)/shortage: $(call objects,$(SOURCES) test/unit/shortage.c)
	$(call link,$(SHORTAGE) $(LIBS))

shortage-program: $(BUILD)/shortage
	@:

$(BUILD)/hub: $(call objects,test/nat_lab/hub.c)
	$(link)

$(BUILD)/model_table: $(call objects,$(wildcard c_src/nat/*.c) $(NAT_MODEL) test/nat_lab/model_table.c)
	$(link)

# What the objects are made with. It is written only when that has changed, and then they are made anew.
FLAGS = $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@flags='$(subst $(quote),'\'',$(FLAGS))'; [ "$$flags" = "$$(cat $@ 2>/dev/null)" ] || printf '%s\n' "$$flags" >$@

$(BUILD)/%.o: %.c $(BUILD)/flags
	$(compile)

$(BUILD)/lto/%.o: %.c $(BUILD)/flags
	$(call compile,$(LTO))

# One libFuzzer program for each parser, in a build of its own with clang; see test/fuzz/fuzz.h.
FUZZ_BUILD := build/fuzz
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst test/fuzz/%.c,%,$(wildcard test/fuzz/fuzz_*.c))
HAS_LIBFUZZER = $(shell echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
    clang -fsanitize=fuzzer -x c -o /dev/null - >/dev/null 2>&1 && echo yes)
FUZZ_MAKE = $(SUBMAKE) CC=clang SANITIZE=fuzzer-no-link,address,undefined BUILD=$(FUZZ_BUILD)

fuzz:
	$(SETUP) fuzz
	@+$(FUZZ_MAKE) fuzz-programs
	@+$(MAKE) --no-print-directory $(addprefix run-,$(FUZZERS))

# What is found lies in build/fuzz: give the file to the program as its argument to see it again.
run-fuzz_%:
	@mkdir -p $(FUZZ_BUILD)/corpus/$*
	$(FUZZ_BUILD)/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -dict=test/fuzz/tags.dict -max_len=65536 -timeout=10 \
	    -print_final_stats=1 -artifact_prefix=$(FUZZ_BUILD)/$*- $(FUZZ_BUILD)/corpus/$* test/fuzz/corpus/$*

.SECONDARY: $(patsubst %.c,$(BUILD)/%.o,$(wildcard test/fuzz/*.c))
fuzz-programs: $(addprefix $(BUILD)/,$(FUZZERS))
	@:

$(BUILD)/libcnode.a: $(call objects,$(LIB_SOURCES))
	$(call say,AR $@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(BUILD)/test/fuzz/fuzz.o $(BUILD)/libcnode.a
	$(call link,-fsanitize=fuzzer $(LIBS))

# Makes the corpora anew: real traffic, of which only the files are kept that reach something new.
fuzz-corpus: program
	@+$(FUZZ_MAKE) fuzz-programs
	@rm -rf $(FUZZ_BUILD)/traffic test/fuzz/corpus
	@mkdir -p $(FUZZ_BUILD)/erlang
	$(Q)erlc -o $(FUZZ_BUILD)/erlang test/erlang/support/*.erl test/fuzz/corpus.erl
	$(Q)erl -noinput -boot no_dot_erlang -hidden -name corpus@127.0.0.1 -kernel logger_level none \
	    -pa $(FUZZ_BUILD)/erlang -run corpus main $(FUZZ_BUILD)/traffic
	$(Q)for name in $(patsubst fuzz_%,%,$(FUZZERS)); do \
	    mkdir -p test/fuzz/corpus/$$name && $(FUZZ_BUILD)/fuzz_$$name -merge=1 -max_len=65536 \
	        test/fuzz/corpus/$$name $(FUZZ_BUILD)/traffic/$$name || exit 1; done

# Calls through the Erlang module beside calls to Erlang servers: JSON lines. BENCH_ARGS are milliseconds of a round
# and rounds.
BENCH_ARGS ?= 200 5
BENCH_APP := build/bench/macula_nat_cnode

bench-app:
	$(SETUP) build
	@+$(SUBMAKE) program
	@mkdir -p $(BENCH_APP)/ebin $(BENCH_APP)/priv
	@cp $(PROGRAM) $(BENCH_APP)/priv
	@erlc -Werror -o $(BENCH_APP)/ebin src/*.erl test/bench/app_bench.erl
	@erl -noinput -boot no_dot_erlang -name app_bench_$$$$@127.0.0.1 -kernel logger_level error \
	    -pa $(BENCH_APP)/ebin -run app_bench main $(BENCH_ARGS)

# Checks of the sources. Each is a target of its own, so that they run side by side.
LINT := build/lint
C_FILES := $(shell find c_src include test -name '*.[ch]' 2>/dev/null)
HEADERS := $(filter %.h,$(C_FILES))
SCRIPTS := .ci/run test/epmd.sh $(shell grep -lrE '^\#!.*\bsh\b|^\#!.*\bbash\b' scripts test 2>/dev/null)
ERL_SOURCES := $(wildcard src/*.erl)
LINTS := lint-format lint-tidy lint-cppcheck lint-shell lint-gcc lint-clang $(if $(ERL_SOURCES),lint-erlang)

lint:
	$(SETUP) lint
	@+$(SUBMAKE) --keep-going $(LINTS)
	@echo "lint: nothing found"

lint-format:
	$(call say,CLANG-FORMAT)
	$(Q)clang-format --dry-run -Werror $(C_FILES)

lint-tidy: $(patsubst %.c,$(LINT)/%.tidy,$(SOURCES))

$(LINT)/%.tidy: %.c $(HEADERS) .clang-tidy
	$(call say,CLANG-TIDY $<)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- $(ALL_CPPFLAGS) -std=c11 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

# cppcheck reads no system headers, but the macros of uthash are control flow that it must see.
lint-cppcheck:
	$(call say,CPPCHECK)
	@mkdir -p $(LINT)/uthash
	$(Q)cp $(wildcard /usr/include/ut[hl]*.h /usr/local/include/ut[hl]*.h) $(LINT)/uthash
	$(Q)cppcheck --quiet --std=c11 --library=posix --enable=warning,performance,portability \
	    --inline-suppr --suppress='*:$(LINT)/uthash/*' \
	    --suppress=normalCheckLevelMaxBranches --error-exitcode=1 \
	    -Ic_src -Iinclude -I$(LINT)/uthash $(SOURCES)

lint-shell:
	$(call say,SHELLCHECK)
	$(Q)shellcheck -x $(SCRIPTS)

lint-gcc lint-clang: lint-%:
	@+$(MAKE) --no-print-directory CC=$* CI=true BUILD=$(LINT)/$* program unit-program

# Dialyzer's table of OTP is made once.
PLT := $(LINT)/otp.plt
$(PLT):
	$(call say,DIALYZER of OTP)
	@mkdir -p $(@D)
	$(Q)dialyzer --quiet --build_plt --output_plt $@ --apps erts kernel stdlib crypto

# Calls to functions that are not there or are deprecated.
XREF := case [F || {Kind, F} <- xref:d("$(LINT)/ebin"), Kind =/= unused, F =/= []] of \
    [] -> halt(0); Found -> io:format("xref: ~p~n", [Found]), halt(1) end.

lint-erlang: $(PLT)
	$(call say,ERLC)
	@mkdir -p $(LINT)/ebin
	$(Q)erlc -Werror +debug_info -o $(LINT)/ebin $(ERL_SOURCES)
	$(call say,DIALYZER)
	$(Q)dialyzer --quiet --plt $(PLT) -Wunmatched_returns -Werror_handling $(LINT)/ebin
	$(call say,XREF)
	$(Q)erl -noshell -eval '$(XREF)'

# Benchmarks. nat.c is one of the library alone, the others are the load and what the node is compared with.
BENCH := $(BUILD)/bench
LOAD_SOURCES := $(addprefix test/bench/,callers.c client.c histogram.c load.c messages.c punches.c usage.c) \
    $(wildcard c_src/base/*.c c_src/term/*.c) $(addprefix c_src/distribution/,control.c epmd_wire.c handshake.c node_name.c)
BENCH_PROGRAMS := $(BENCH)/load $(BENCH)/ei_tutorial $(BENCH)/bench_server.beam $(BENCH)/bench_cache.beam

bench:
	$(SETUP) build
	@+$(SUBMAKE) program $(BENCH_PROGRAMS)
	@CNODE=$(PROGRAM) BENCH_BIN=$(BENCH) test/bench/run

$(BENCH)/load: $(call objects,$(LOAD_SOURCES))
	$(call link,$(LIBS))

$(BENCH)/ei_tutorial: $(call objects,test/bench/ei_tutorial.c)
	$(call link,$(LIBS))

$(BENCH)/%.beam: test/bench/%.erl
	$(call say,ERLC $<)
	@mkdir -p $(@D)
	$(Q)erlc -Werror +debug_info -o $(@D) $<

INSTALLED = $(DESTDIR)$(PREFIX)

install:
	$(CHECK) build
	@+$(SUBMAKE) program lib
	install -d "$(INSTALLED)/bin" "$(INSTALLED)/include" "$(INSTALLED)/lib/pkgconfig"
	install -m 755 $(PROGRAM) "$(INSTALLED)/bin/macula_nat_cnode"
	install -m 644 include/macula_nat.h "$(INSTALLED)/include"
	install -m 644 $(BUILD)/libmacula_nat.a "$(INSTALLED)/lib"
	@printf '%s\n' 'prefix=$(PREFIX)' '' 'Name: macula_nat' 'Version: $(VERSION)' \
	    'Description: Decides how two peers behind NATs connect, and coordinates the hole punch' \
	    'Libs: -L$${prefix}/lib -lmacula_nat' 'Cflags: -I$${prefix}/include' >"$(INSTALLED)/lib/pkgconfig/macula_nat.pc"

uninstall:
	rm -f "$(INSTALLED)/bin/macula_nat_cnode" "$(INSTALLED)/include/macula_nat.h" \
	    "$(INSTALLED)/lib/libmacula_nat.a" "$(INSTALLED)/lib/pkgconfig/macula_nat.pc"

clean:
	rm -rf build priv/macula_nat_cnode

help:
	@echo "make            build priv/macula_nat_cnode; what is missing is named, with how to get it"
	@echo "make setup      install what is missing to build (Debian; as root or with sudo)"
	@echo "make run        set up, build and run the node; ARGS='--sname other' are its arguments"
	@echo "make test       set up and run all tests; SUITES='unit life' runs only these, VALGRIND=1 under valgrind;"
	@echo "                test/README.md says which suite is for what, and how to run a single test"
	@echo "make test-debian  make test in a bare root of Debian RELEASE (trixie), made with debootstrap (needs root)"
	@echo "make nat-lab    peers behind real NATs in network namespaces, all pairs, with a picture in doc/ (needs root)"
	@echo "make unit       the unit tests alone, without set-up"
	@echo "make soak       all kinds of requests with random faults for SOAK_SECONDS (600) seconds"
	@echo "make fuzz       every parser for FUZZ_SECONDS (60) seconds with libFuzzer"
	@echo "make bench-app  calls through the Erlang module beside calls to Erlang servers"
	@echo "make lint       formatting, static analysis, warnings of gcc and clang"
	@echo "make bench      measures speed and memory beside other servers; BENCH_ROUNDS=1 BENCH_SECONDS=1 is quick"
	@echo "make lib        the NAT library alone, build/plain/libmacula_nat.a; include/macula_nat.h is its header"
	@echo "make install    program and library to DESTDIR and PREFIX (default /usr/local); make uninstall removes them"
	@echo "make clean      remove all that was built"
	@echo "Variables: CC=clang, SANITIZE=address,undefined, CFLAGS, BUILD, JOBS, V=1 (whole commands),"
	@echo "CI=true (warnings are errors), ERL_INTERFACE (folder of ei, where it is not found)."

.PHONY: FORCE all ready program lib run test test-programs nat-lab unit unit-program shortage-program \
    soak fuzz fuzz-programs fuzz-corpus bench bench-app lint $(LINTS) install clean help
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
