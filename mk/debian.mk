# SPDX-License-Identifier: Apache-2.0
# The tests in a bare root of another Debian, with its Erlang/OTP. Where that cannot be, one line says why.
RELEASE ?= trixie

test-debian:
	$(SETUP) debian
	@test/debian $(RELEASE) $(SUITES); status=$$?; [ $$status -eq 77 ] || exit $$status

.PHONY: test-debian
