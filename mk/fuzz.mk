# SPDX-License-Identifier: Apache-2.0
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

$(BUILD)/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(call objects,test/fuzz/fuzz.c test/unit/fake_transport.c) $(BUILD)/libcnode.a
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

.PHONY: fuzz fuzz-programs fuzz-corpus
