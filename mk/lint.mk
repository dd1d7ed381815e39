# SPDX-License-Identifier: Apache-2.0
# Checks of the sources. Each is a target of its own, so that they run side by side.
LINT := build/lint
C_FILES := $(shell find c_src include test -name '*.[ch]' 2>/dev/null)
HEADERS := $(filter %.h,$(C_FILES))
SCRIPTS := .ci/run test/epmd.sh $(shell grep -lrE '^\#!.*\bsh\b|^\#!.*\bbash\b' scripts test 2>/dev/null)
ERL_SOURCES := $(wildcard src/*.erl)
LINTS := lint-format lint-layers lint-tidy lint-cppcheck lint-shell lint-gcc lint-clang $(if $(ERL_SOURCES),lint-erlang) \
    $(if $(shell command -v groff),lint-manual)

lint:
	$(SETUP) lint
	@+$(SUBMAKE) --keep-going $(LINTS)
	@echo "lint: nothing found"

lint-format:
	$(call say,CLANG-FORMAT)
	$(Q)clang-format --dry-run -Werror $(C_FILES)

lint-layers:
	$(call say,LAYERS)
	$(Q)scripts/lint_layers

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

lint-manual: $(BUILD)/macula_nat_cnode.8
	$(call say,GROFF)
	$(Q)said=$$(groff -man -ww -z $< 2>&1); [ -z "$$said" ] || { echo "$$said"; exit 1; }

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

.PHONY: lint $(LINTS)
