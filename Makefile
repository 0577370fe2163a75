# make            the program: ./peer
# make demo       three peers on this host find each other, talk and send a file, over loopback
# make classroom  HOSTS=4 machines on a network inside this one, with a peer in a terminal for each: docs/lab.md
# make trace      the first contact of two peers, as both of them traced it: docs/first-contact.md
# make pictures   docs/pictures anew, from their sources there, with graphviz, and docs/zh/pictures with Chinese labels; the
#                 first contact and a session from new runs
# make capture    the same, as tcpdump sees it on the cable, into CAPTURE=.build/first-contact.pcap, for Wireshark
# make test       all tests, JOBS=4 at a time; README.md names what they need. Some of them: make test FILTER='Files.*'
#                 under sanitizers: make test SANITIZE=address,undefined, and SANITIZE=thread; or in one queue
#                 make test KINDS='plain address,undefined thread'; KINDS=second is ours together with tests/second
# make grade      judges any program by docs/protocol.md and docs/interface.md: make grade PEER=path/to/their/peer, as far
#                 as MILESTONE=1; a table of a folder of submissions: tests/grade/class.sh FOLDER.
#                 LONG=1, FILTER=R7, JUNIT=file and more: tests/grade/main.cpp
# make bench      how fast files go, beside nc, rsync, scp...: tests/bench/bench.cpp. Some rows: make bench FILTER=scp
#                 BEFORE=COMMIT: beside our own program as it was then
# make segment    how discovery grows with the number of hosts: tests/bench/segment.cpp. make segment SEGMENTS='2 10'
#                 BEFORE=COMMIT: beside our own program as it was then
# make simulate   SEEDS=1000 classes in virtual time, on a network with every fault: tests/simulation/simulate.cpp
# make crowd      what up to 1,000 peers cost, in virtual time: tests/simulation/crowd.cpp. make crowd CROWDS='30 100'
# make model      Spin goes through every order of events in two models of the protocol: tests/model. make model SWITCHES=1
# make soak       20 peers do everything at random for SECONDS=300, and the account must balance: tests/soak/soak.cpp
# make fuzz       SECONDS=60 of made-up input for every parse(): tests/fuzz/fuzz.cpp; needs clang and libclang-rt-dev
# make wrong      some 150 wrong programs before the grader: each must fail the case that it is for
# make second     another implementation, written from the specification alone, before the same judge: tests/second
# make handout    TO=folder: what a class is given, without the reference: tests/handout.sh, docs/instructor.md
# make smallest   the smallest peer that works with ours, for a first lesson: docs/smallest/peer.cpp
# make mutants    makes each mistake of docs/pitfalls.md in a copy, and sees that a test fails: tests/mutants.sh
# make doccheck   what the documents show, name and link to
# make systems    builds for macOS, musl, i686, armhf and s390x, and runs what can be run: tests/systems.sh
# make elsewhere  Discovery, Messages, Files with what macOS and the BSDs do differently: tests/support/elsewhere.c
# make install    the program as chatbyp2p, its manual page, bash completion and a unit for systemd, below
#                 PREFIX=/usr/local in DESTDIR= (nothing). make uninstall removes them
# make dist       a tarball in .build, which builds without git. make distcheck tries it: tests/distcheck.sh
# make coverage   which lines of the program the tests run: docs/testing.md
# make help       this list
# make clean      removes all that was built
#
# CXX and CXXFLAGS are yours to set:  make CXX=clang++ CXXFLAGS='-O3 -g'

CXXFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
COMPILE   = $(CXX) -std=c++17 -pthread -D_FILE_OFFSET_BITS=64 $(WARNINGS) $(CXXFLAGS) $(CHECKED)

# What is built for a sanitizer is kept apart, the program too. Without the check of virtual tables: it looks at memory
# through a pipe, and takes every object for a wrong one where a test has left no descriptor for that.
# GCC takes what a sanitizer adds to <regex> for variables that may be uninitialized; clang does not know that warning.
SANITIZE :=
CHECKED  := $(if $(SANITIZE),-O1 -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize=vptr \
              -fno-sanitize-recover=all $(if $(findstring clang,$(CXX)),,-Wno-maybe-uninitialized))
BUILD    := .build$(if $(SANITIZE),/$(SANITIZE))
PEER     := $(if $(SANITIZE),$(BUILD)/peer,peer)
objects   = $(patsubst %.cpp,$(BUILD)/%.o,$(1))
tests_in  = $(if $(TOGETHER),$(1:%=$(BUILD)/tests/%/together.o),$(call objects,$(wildcard $(1:%=tests/%/*.cpp))))
HARNESS  := $(call objects,tests/support/system.cpp tests/support/testing.cpp)
TESTS    := $(call tests_in,classroom process unit) $(call objects,$(wildcard tests/support/*.cpp))
FILTER   ?= *
HOSTS    ?= 4
JOBS     ?= 4
CAPTURE  ?= .build/first-contact.pcap
SEGMENTS ?= 2 10 30 100 253
PEERS    ?= 20

.PHONY: help demo systems classroom trace pictures capture test plain-tests grade second wrong smallest handout doccheck mutants model bench segment simulate crowd soak fuzz coverage clean

$(PEER): $(BUILD)/peer.o $(BUILD)/discovery.o $(BUILD)/transfer.o
	$(COMPILE) $^ -o $@

# -MMD writes beside each object which headers it was made from; the last line of this file reads them.
$(BUILD)/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	$(COMPILE) -MMD -I. -Itests -c $< -o $@

# TOGETHER=1 compiles the tests of a folder as one file. From clean that takes a third of the time, because the compiler
# reads each header once; but every change then costs all of it again. So only CI does it. The sanitized unit tests are
# not optimized, which takes a third again; the other tests would then run longer than that saves.
$(BUILD)/tests/%/together.o: Makefile
	@mkdir -p $(@D)
	printf '#include "%s"\n' tests/$*/*.cpp | $(COMPILE) $(if $(SANITIZE),-O0) -Wno-subobject-linkage -MMD -MF $(@:.o=.d) -I. -Itests -x c++ -c - -o $@

help:
	@sed -n "/^#/!q; s/^# \\{0,1\\}//p" Makefile

demo: peer
	tests/demo.sh

classroom: peer
	HOSTS='$(HOSTS)' tests/classroom.sh

trace: peer $(BUILD)/ladder
	@tests/first-contact.sh trace

$(BUILD)/ladder: $(call objects,tests/ladder/main.cpp tests/support/ladder.cpp)
	$(COMPILE) $^ -o $@

# Without the comments that name the version of dot.
DRAW = dot -Tsvg $(1) | sed '/^<!--/d; /^ -->/d' >$@
SOURCES_OF_PICTURES := $(wildcard docs/pictures/*.dot)
pictures: $(SOURCES_OF_PICTURES:.dot=.svg) docs/pictures/heartbeats.svg docs/pictures/lists.svg $(SOURCES_OF_PICTURES:docs/pictures/%.dot=docs/zh/pictures/%.svg) peer $(BUILD)/ladder
	tests/picture.sh docs/pictures/first-contact.svg tests/first-contact.sh trace --svg
	tests/picture.sh docs/pictures/session.svg tests/session.sh

docs/pictures/%.svg: docs/pictures/%.dot
	$(call DRAW,$<)

docs/pictures/heartbeats.svg: docs/pictures/crowd.txt
docs/pictures/lists.svg: docs/pictures/segment.txt
docs/pictures/%.svg: docs/pictures/%.gp
	gnuplot $< | sed '/^<desc>/d; s/fill="#ffffff"/fill="white"/' >$@

IN_CHINESE := docs/zh/pictures/translate.awk docs/zh/pictures/labels.txt
docs/zh/pictures/%.svg: docs/pictures/%.dot $(IN_CHINESE)
	@mkdir -p .build
	awk -f $(IN_CHINESE) $< >.build/$*.dot
	$(call DRAW,.build/$*.dot)

capture: peer
	tests/first-contact.sh capture '$(CAPTURE)'

# The tests drive the program from outside: it is sanitized, and they need not be, but for the unit tests, which have its
# parts within them. To compile them all for each sanitizer took a third of CI's time.
KINDS ?= $(or $(SANITIZE),plain)
test: $(KINDS:%=%-kind) plain-tests
	PEER='$(PEER)' KINDS='$(KINDS)' JOBS='$(JOBS)' $(PLAIN)/run-tests --gtest_filter='$(FILTER)'

plain-kind: $(PEER)
	@:
second-kind: $(PEER) $(BUILD)/second
	@:
%-kind:
	$(MAKE) SANITIZE=$* .build/$*/peer .build/$*/run-units

PLAIN := $(if $(SANITIZE),.build,$(BUILD))
plain-tests: $(if $(SANITIZE),,$(BUILD)/run-tests)
	$(if $(SANITIZE),$(MAKE) SANITIZE= .build/run-tests)

UNITS := $(call tests_in,unit) $(patsubst %,$(BUILD)/tests/support/%.o,ladder system testing main)
$(BUILD)/run-units: $(UNITS)
	$(COMPILE) $^ -lgtest -o $@

$(BUILD)/run-tests: $(TESTS) | $(BUILD)/ladder .build/smallest $(BUILD)/grade $(BUILD)/second
	$(COMPILE) $^ -lgtest -o $@

# Of another program only its path is known: it is not ours to build. A relative one begins where it was typed, at PWD:
# with "make -C" it would name our own peer, and that would be graded.
THEIRS := $(if $(filter command,$(firstword $(origin PEER))),$(if $(filter /%,$(PEER)),,$(PWD)/)$(PEER))
grade: $(BUILD)/grade $(if $(THEIRS),,$(PEER))
	@PEER='$(or $(THEIRS),$(PEER))' FILTER='$(FILTER)' $(BUILD)/grade

$(BUILD)/grade: $(call tests_in,grade) $(HARNESS) $(call objects,tests/support/ladder.cpp)
	$(COMPILE) $^ -lgtest -o $@

# Another implementation, from the specification alone, before the same judge: but for the extra points it left out.
second: $(BUILD)/second $(BUILD)/grade
	PEER=$(BUILD)/second $(BUILD)/grade

# The grader is graded: by some hundred programs with one mistake each.
wrong: peer $(BUILD)/second $(BUILD)/grade $(BUILD)/run-tests
	JOBS='$(or $(WRONG_JOBS),6)' WRONG='$(WRONG)' tests/grade/wrong.sh

$(BUILD)/second: tests/second/second.cpp
	@mkdir -p $(@D)
	$(COMPILE) $< -o $@

# What a class is given, without the reference: make handout TO=folder YEAR=2027 GRADER=built.
handout:
	@YEAR='$(YEAR)' GRADER='$(GRADER)' tests/handout.sh '$(TO)'

# The smallest peer: docs/smallest/peer.cpp. Its warnings are the ones that a first lesson needs.
smallest: .build/smallest

.build/smallest: docs/smallest/peer.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -pthread -Wall -Wextra -Wpedantic -Wshadow $(CXXFLAGS) $< -o $@

doccheck:
	$(MAKE) test FILTER='Documents*:References*:States*:Trace*Document*:Lines*Specification*:Terminals*Readme*:Handout*:LabDocument*'

systems: peer
	tests/systems.sh

# A program of that name that runs ours with them. Not tried: what itself listens for a broadcast on loopback, and paths
# of more than 1,024 bytes.
DIFFERING := Discovery.*:Diagnosis.Tells*:Diagnosis.That*:Messages.*:Files.*-*.ASecondUserOfTheMachine*:*.OfAFolderWhosePathsAreTooLong*:*.OfAFolderThatIsAThousandDeep*
ELSEWHERE := .build/elsewhere
.PHONY: install uninstall dist distcheck
PREFIX    ?= /usr/local
INSTALLED  = $(DESTDIR)$(PREFIX)
install: $(PEER)
	mkdir -p '$(INSTALLED)/bin' '$(INSTALLED)/share/man/man1' '$(INSTALLED)/share/doc/chatbyp2p' \
	  '$(INSTALLED)/share/bash-completion/completions'
	install -m 755 $(PEER) '$(INSTALLED)/bin/chatbyp2p'
	install -m 644 docs/install/chatbyp2p.1 '$(INSTALLED)/share/man/man1/'
	install -m 644 docs/install/chatbyp2p.bash '$(INSTALLED)/share/bash-completion/completions/chatbyp2p'
	install -m 644 docs/install/chatbyp2p.service docs/interface.md docs/protocol.md \
	  '$(INSTALLED)/share/doc/chatbyp2p/'

uninstall:
	rm -f '$(INSTALLED)/bin/chatbyp2p' '$(INSTALLED)/share/man/man1/chatbyp2p.1' \
	  '$(INSTALLED)/share/bash-completion/completions/chatbyp2p'
	rm -rf '$(INSTALLED)/share/doc/chatbyp2p'

# Of what is committed.
VERSION = $(shell sed -n 's/.*kVersion = "\(.*\)".*/\1/p' peer.cpp)
dist:
	@mkdir -p .build
	git archive --prefix='chatbyp2p-$(VERSION)/' -o '.build/chatbyp2p-$(VERSION).tar.gz' HEAD
	@echo '.build/chatbyp2p-$(VERSION).tar.gz'

distcheck:
	tests/distcheck.sh

.PHONY: elsewhere
elsewhere: peer plain-tests $(ELSEWHERE)/peer
	PEER=$(ELSEWHERE)/peer KINDS=plain STEPS= JOBS='$(JOBS)' .build/run-tests \
	  --gtest_filter='$(if $(filter-out *,$(FILTER)),$(FILTER),$(DIFFERING))'

$(ELSEWHERE)/peer: $(ELSEWHERE)/differences.so
	printf '#!/bin/sh\nLD_PRELOAD="$$LD_PRELOAD:%s" exec "%s" "$$@"\n' '$(CURDIR)/$<' '$(CURDIR)/peer' >$@
	chmod +x $@

$(ELSEWHERE)/differences.so: tests/support/elsewhere.c
	@mkdir -p $(@D)
	$(CC) -O1 -g -Wall -Wextra -Wshadow -shared -fPIC $< -o $@

mutants: peer
	NUMBERS='$(NUMBERS)' GRADE='$(GRADE)' tests/mutants.sh
	$(if $(NUMBERS),,SWITCHES=1 tests/model/model.sh)
	$(if $(NUMBERS),,$(MAKE) wrong)

model:
	@SWITCHES='$(SWITCHES)' RULE='$(RULE)' tests/model/model.sh

# Our own program as it was at BEFORE, if that is given. A plain `make`, for `make -n` runs $(MAKE), and nothing is there yet.
EARLIER := $(if $(BEFORE),$(CURDIR)/.build/before/peer)
.PHONY: earlier
earlier:
	$(if $(BEFORE),rm -rf .build/before && mkdir -p .build/before && git archive $(BEFORE) | tar x -C .build/before)
	$(if $(BEFORE),make -C .build/before peer)

bench: peer $(BUILD)/bench earlier
	CXX='$(CXX)' CXXFLAGS='$(CXXFLAGS)' BENCH_BEFORE='$(EARLIER)' $(BUILD)/bench '$(FILTER:*=)'

segment: peer $(BUILD)/segment earlier
	BENCH_BEFORE='$(EARLIER)' $(BUILD)/segment $(SEGMENTS)

$(BUILD)/bench $(BUILD)/segment: $(BUILD)/%: $(BUILD)/tests/bench/%.o $(HARNESS)
	$(COMPILE) $^ -lgtest -o $@

simulate: $(BUILD)/simulate
	@SEEDS='$(SEEDS)' SEED='$(SEED)' $(BUILD)/simulate

$(BUILD)/simulate: $(BUILD)/tests/simulation/simulate.o $(BUILD)/tests/support/ladder.o
	$(COMPILE) $^ -o $@

crowd: $(BUILD)/crowd
	@GLIBC_TUNABLES=glibc.malloc.hugetlb=1 CROWDS='$(CROWDS)' LOSSES='$(LOSSES)' $(BUILD)/crowd

$(BUILD)/crowd: $(BUILD)/tests/simulation/crowd.o
	$(COMPILE) $^ -o $@

soak: $(PEER) $(BUILD)/soak
	PEER='$(PEER)' SECONDS='$(or $(SECONDS),300)' PEERS='$(PEERS)' SEED='$(SEED)' $(BUILD)/soak

$(BUILD)/soak: $(BUILD)/tests/soak/soak.o $(HARNESS)
	$(COMPILE) $^ -lgtest -o $@

# The corpus first, then new inputs. What those find is written below .build, and is no part of the tree.
fuzz: $(BUILD)/fuzz/fuzz
	@mkdir -p $(BUILD)/fuzz/found
	$< -dict=tests/fuzz/dictionary -verbosity=0 -print_final_stats=1 -timeout=60 -max_total_time=$(or $(SECONDS),60) \
	  -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/found tests/fuzz/corpus >$(BUILD)/fuzz/log 2>&1 || \
	  { cat $(BUILD)/fuzz/log; exit 1; }
	@grep -E 'files found|executed_units|new_units' $(BUILD)/fuzz/log

$(BUILD)/fuzz/fuzz: tests/fuzz/fuzz.cpp protocol.h
	@mkdir -p $(@D)
	clang++ -std=c++17 -D_FILE_OFFSET_BITS=64 $(WARNINGS) -O1 -g -I. -fsanitize=fuzzer,address,undefined \
	  -fno-sanitize-recover=all $< -o $@

# A build of its own. All processes of a program add to the same files of counters, under a lock. -O1: with -O0 a
# checksum takes 300 times as long, for each byte goes through counters of the standard library.
COVERED := .build/coverage
coverage:
	find $(COVERED) -name '*.gcda' -delete 2>/dev/null || true
	$(MAKE) test TOGETHER= CXX=g++ CXXFLAGS='-O1 -g --coverage -fprofile-update=atomic' BUILD=$(COVERED) PEER=$(COVERED)/peer
	tests/coverage.sh $(COVERED)

clean:
	rm -rf peer $(BUILD)

-include $(wildcard $(BUILD)/*.d $(BUILD)/tests/*/*.d)
