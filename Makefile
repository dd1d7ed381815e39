# SPDX-License-Identifier: Apache-2.0
# Targets: all (the program), unit (build the unit tests), clean. Variants: SANITIZE=address,undefined CC=clang.
CC ?= gcc
comma := ,
VARIANT := $(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),plain)
BUILD ?= build/$(VARIANT)

CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla
PACKAGES := libuv libcrypto
ERTS_INCLUDE ?= /usr/include
override CPPFLAGS += -D_GNU_SOURCE -D_REENTRANT -Ic_src -Iinclude $(shell pkg-config --cflags $(PACKAGES))
override CFLAGS += -std=c11 -fno-common $(WARNINGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
LDLIBS := -lei $(shell pkg-config --libs $(PACKAGES)) -lpthread
CHECK_LIBS = $(shell pkg-config --libs check)

SOURCES := $(wildcard c_src/*.c c_src/*/*.c)
LIB_SOURCES := $(filter-out c_src/main.c,$(SOURCES))
TESTS := $(wildcard test/unit/*.c)
objects = $(patsubst %.c,$(BUILD)/%.o,$(1))

PROGRAM := $(if $(SANITIZE),$(BUILD)/macula_nat_cnode,priv/macula_nat_cnode)

all: $(PROGRAM)

$(PROGRAM): $(call objects,$(SOURCES))
	@echo "LD $@"
	@mkdir -p $(@D)
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/unit: $(call objects,$(LIB_SOURCES) $(TESTS))
	@echo "LD $@"
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(CHECK_LIBS)

unit: $(BUILD)/unit
	$(BUILD)/unit

# The NAT library alone, and a program that proves that it needs nothing else: neither libuv nor ei.
$(BUILD)/libmacula_nat.a: $(call objects,$(wildcard c_src/nat/*.c))
	@echo "AR $@"
	@$(AR) rcs $@ $^

$(BUILD)/embed: $(call objects,test/unit/embed/embed.c) $(BUILD)/libmacula_nat.a
	@echo "LD $@"
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

$(BUILD)/%.o: %.c
	@echo "CC $<"
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

clean:
	rm -rf build priv/macula_nat_cnode

.PHONY: all unit clean
-include $(shell find build -name '*.d' 2>/dev/null)
