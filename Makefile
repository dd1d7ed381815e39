# SPDX-License-Identifier: Apache-2.0
# Builds, runs and checks macula_nat_cnode. `make help` lists the targets and the variables;
# what is rarely asked for is in mk/.

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

test-programs: $(TEST_PROGRAMS) $(BUILD)/embed $(LAB_PROGRAMS) \
    $(if $(VALGRIND),$(addprefix $(BUILD)/valgrind/,$(TEST_PROGRAMS)))
	@+$(SUBMAKE) program shortage-program SANITIZE=$(ASAN_SANITIZE) BUILD=$(ASAN_BUILD)
	@+$(if $(HAS_LIBFUZZER),$(FUZZ_MAKE) fuzz-programs)

$(BUILD)/valgrind/%: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' '#!/bin/sh' 'export CK_TIMEOUT_MULTIPLIER=50 TEST_SLOWDOWN=50' \
	    "exec '$$(command -v valgrind)' -q --error-exitcode=99 --leak-check=full '$(abspath $*)' \"\$$@\"" >$@
	@chmod +x $@

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

# What the objects are made with. It is written only when that has changed, and then they are made anew.
FLAGS = $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@flags='$(subst $(quote),'\'',$(FLAGS))'; [ "$$flags" = "$$(cat $@ 2>/dev/null)" ] || printf '%s\n' "$$flags" >$@

$(BUILD)/%.o: %.c $(BUILD)/flags
	$(compile)

$(BUILD)/lto/%.o: %.c $(BUILD)/flags
	$(call compile,$(LTO))

# The manual page has its options from --help.
$(BUILD)/macula_nat_cnode.8: doc/macula_nat_cnode.8.in scripts/manual $(BUILD)/macula_nat_cnode
	$(call say,MAN $@)
	$(Q)scripts/manual $(BUILD)/macula_nat_cnode <$< >$@

manual: $(BUILD)/macula_nat_cnode.8
	@:

INSTALLED = $(DESTDIR)$(PREFIX)

install:
	$(CHECK) build
	@+$(SUBMAKE) program lib manual
	install -d "$(INSTALLED)/bin" "$(INSTALLED)/include" "$(INSTALLED)/lib/pkgconfig" "$(INSTALLED)/share/man/man8"
	install -m 755 $(PROGRAM) "$(INSTALLED)/bin/macula_nat_cnode"
	install -m 644 $(BUILD)/macula_nat_cnode.8 "$(INSTALLED)/share/man/man8"
	install -m 644 include/macula_nat.h "$(INSTALLED)/include"
	install -m 644 $(BUILD)/libmacula_nat.a "$(INSTALLED)/lib"
	@printf '%s\n' 'prefix=$(PREFIX)' '' 'Name: macula_nat' 'Version: $(VERSION)' \
	    'Description: Decides how two peers behind NATs connect, and coordinates the hole punch' \
	    'Libs: -L$${prefix}/lib -lmacula_nat' 'Cflags: -I$${prefix}/include' >"$(INSTALLED)/lib/pkgconfig/macula_nat.pc"

uninstall:
	rm -f "$(INSTALLED)/bin/macula_nat_cnode" "$(INSTALLED)/include/macula_nat.h" \
	    "$(INSTALLED)/lib/libmacula_nat.a" "$(INSTALLED)/lib/pkgconfig/macula_nat.pc" \
	    "$(INSTALLED)/share/man/man8/macula_nat_cnode.8"

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
	@echo "make install    program, manual page and library to DESTDIR and PREFIX (/usr/local); make uninstall removes them"
	@echo "make clean      remove all that was built"
	@echo "Variables: CC=clang, SANITIZE=address,undefined, CFLAGS, BUILD, JOBS, V=1 (whole commands),"
	@echo "CI=true (warnings are errors), ERL_INTERFACE (folder of ei, where it is not found)."

include $(sort $(wildcard mk/*.mk))

.PHONY: FORCE all program run setup test test-programs unit unit-program shortage-program soak lib manual install \
    uninstall clean help
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
