# SPDX-License-Identifier: Apache-2.0
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

$(BUILD)/hub: $(call objects,test/nat_lab/hub.c)
	$(link)

$(BUILD)/model_table: $(call objects,$(wildcard c_src/nat/*.c) $(NAT_MODEL) test/nat_lab/model_table.c)
	$(link)

.PHONY: nat-lab
