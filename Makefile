# Everything a user or CI runs. `make help` lists the targets.

# rustup installs here; before the rest, so that it wins over a distribution's older cargo.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Fixed, because the examples, the interop tests and install look for the library there.
export CARGO_TARGET_DIR := $(CURDIR)/target
# What is shipped names no folder of the machine that built it.
export RUSTFLAGS += --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo
# A quarter of the default: code is a tenth smaller. What transfers run through says #[inline], which this leaves alone: a call
# with 64 requests takes as many instructions as before, one with a single request 3 % more (callgrind, over a simulated NIC).
export RUSTFLAGS += -C llvm-args=-inline-threshold=50

# rdma-sys generates its bindings with the libclang that `deps` puts there: the caller's, if rdma-sys can use that one.
CALLERS_LIBCLANG := $(LIBCLANG_PATH)
export LIBCLANG_PATH := $(CURDIR)/target/libclang/lib
export BINDGEN_EXTRA_CLANG_ARGS += -isystem $(CURDIR)/target/libclang/include
# What is shipped runs on glibc 2.28 and later: scripts/glibc.sh, by `deps`, puts there what it is linked to.
export TE_GLIBC := $(CURDIR)/target/glibc

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
DATADIR    ?= $(PREFIX)/share
DESTDIR    ?=
BENCH_ARGS ?=
VERSION    := $(shell sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)

SO   := target/release/libtransfer_engine.so
LIBA := target/release/libtransfer_engine.a
# Same optimisation as release with assertions on, and without the link-time optimisation that every test binary would pay for again.
TEST_PROFILE ?= checked

.PHONY: help deps test-deps venv peers library build examples demo demo-rdma test lint run-tests bench bench-instr bench-scale bench-rdma bench-plot asan soak fuzz mutants docs docs-deps fresh portable companions wheel deb dist abi install uninstall clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

deps: ## install what building needs, if it is missing (apt, rustup, PyPI)
	@LIBCLANG_PATH='$(CALLERS_LIBCLANG)' scripts/deps.sh

test-deps: ## install what testing needs too
	@LIBCLANG_PATH='$(CALLERS_LIBCLANG)' scripts/deps.sh test

venv: test-deps
	@scripts/venv.sh
	@scripts/pyvenv.sh test

# 0.7 GB, which only the test of rolling upgrades needs.
peers: venv
	@scripts/peers.sh

# Without the program `mte`, whose link-time optimisation takes as long as the library's.
library: deps
	cargo build --release --locked --lib
	@scripts/archive.sh

build: library ## the shared and the static library and mte, in target/release
	cargo build --release --locked
	@scripts/archive.sh
	@scripts/share.sh target/release/mte target/release/share
	@printf '%s\n' '' 'Built $(SO), $(LIBA), target/release/mte; headers are in include/.' \
	    'To link a C program:  cc -I$(CURDIR)/include program.c -L$(CURDIR)/target/release -Wl,-rpath,$(CURDIR)/target/release -ltransfer_engine' \
	    "To install them with a pkg-config file:  make install PREFIX=/usr/local"

examples: library ## the C examples, linked to target/release
	$(MAKE) -C c_examples

demo: examples ## two processes move data between them
	@scripts/demo.sh

demo-rdma: test-deps examples ## the same over RDMA, in a QEMU guest with soft-RoCE devices
	@scripts/demo-rdma.sh

test: lint docs run-tests ## everything: formatting, lints, all tests, interoperation with the released upstream

# Clippy, rustdoc and the tests share the test profile's folder, and so the build scripts and macros of all dependencies.
IN := --locked --profile $(TEST_PROFILE)

lint: test-deps ## formatting, clippy, documentation, and builds without each feature and without all
	cargo fmt --check
	cargo fmt --check --manifest-path tests/mutants/Cargo.toml
	cargo clippy $(IN) --all-targets -- -D warnings
	cargo clippy $(IN) -p transfer-engine-models --lib --tests -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc $(IN) --no-deps --document-private-items
	@scripts/features.sh $(IN)
	@scripts/advisories.sh

run-tests: lint peers examples
	@scripts/test.sh $(IN)
	@scripts/asan.sh

asan: test-deps ## the C tests over a library that is built with the address sanitizer
	@scripts/asan.sh

soak: library test-deps ## engines and peers with random faults for TIME=600 seconds, then new seeds of the simulator (SEED=1, SIM_SCHEDULES)
	@TIME='$(TIME)' SEED='$(SEED)' scripts/soak.sh $(IN)

fuzz: ## looks for inputs that the library does not stand, TIME=60 seconds for each target (TARGET=one of fuzz/fuzz_targets)
	@LIBCLANG_PATH='$(CALLERS_LIBCLANG)' scripts/deps.sh fuzz
	@TIME='$(or $(TIME),60)' TARGET='$(TARGET)' scripts/fuzz.sh

mutants: deps ## tries for TIME=600 seconds whether the tests notice small changes of the sources (ONLY=src/metadata, AGAIN=survived)
	@TIME='$(TIME)' ONLY='$(ONLY)' AGAIN='$(AGAIN)' SEED='$(SEED)' scripts/mutants.sh

bench: examples venv ## every path beside upstream and the machine's limits (QUICK=1; BENCH_ARGS='--op write …': scripts/bench.py's table)
	@scripts/deps.sh bench
	@target/venv/bin/python $(if $(BENCH_ARGS),scripts/bench.py $(BENCH_ARGS),benches/run.py $(if $(QUICK),--quick))

bench-rdma: examples venv ## the same over RDMA in the guest, with perftest's ib_*_bw as the measure (ROUNDS=3)
	@bash tests/rxe/bench.sh $(ROUNDS)

bench-instr: library ## instructions per request of each part, against the recorded ones (UPDATE=1, DETAILS=1)
	@scripts/deps.sh bench
	@python3 benches/instructions.py

bench-scale: test-deps ## a million requests, 10^5 queue pairs, 10 000 segments, 1000 peers: memory and processor time of each
	@rm -f target/scale.txt
	SCALE=full cargo test $(IN) --test scale -- --test-threads=1
	@cat target/scale.txt

# Long enough for medians, on a machine that may be shared: the two libraries take turns.
PLOT_ARGS ?= --op write,read --block 4k,16k,64k,256k,1m --batch 16 --threads 1 --runs 5 --no-latency
bench-plot: examples venv ## runs both again and draws the plot of README and docs
	@target/venv/bin/python scripts/bench.py $(PLOT_ARGS) --json docs/bench/tcp-loopback.json
	@python3 scripts/plot.py docs/bench/tcp-loopback.json docs/src/images/throughput.svg

docs-deps:
	@scripts/deps.sh docs

docs: docs-deps ## the documentation as HTML, in target/docs
	@scripts/docs/build.sh

fresh: ## demo on a new minimal Debian, for maintainers; needs root (SUITE=bookworm, FRESH='make demo')
	@scripts/fresh.sh $(FRESH)

portable: build ## what is shipped, in target/portable: stripped, and checked to run on glibc 2.28
	@scripts/portable.sh

companions: deps ## empty libraries that build scripts for upstream's name, in target/companions
	@scripts/companions.sh

# What the native wheel contains; the tag says which glibc they need.
WHEEL_LIB  ?= target/portable/libtransfer_engine.so
WHEEL_TOOL ?= target/portable/mte
wheel: portable ## the Python wheels, in target/wheels
	@scripts/deps.sh wheel
	@scripts/pyvenv.sh
	@scripts/wheel.sh $(WHEEL_LIB) $(WHEEL_TOOL) target/wheels

deb: portable ## Debian packages, in target/debian
	@scripts/deb.sh

dist: abi deb wheel ## everything that a release has, in target/dist, with checksums and a list of what it is made of
	@scripts/dist.sh

abi: library ## compares the C interface with that of the last release (release/abi-*)
	@scripts/deps.sh release
	@scripts/abi.sh check

install: ## headers, libraries, mte with man pages, completions and systemd unit, pkg-config and CMake files under DESTDIR PREFIX (COMPANIONS=1: the empty libraries too)
	@$(INSTALL) install

uninstall: ## remove what install put there
	@$(INSTALL) uninstall

INSTALL = PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' INCLUDEDIR='$(INCLUDEDIR)' BINDIR='$(BINDIR)' DATADIR='$(DATADIR)' DESTDIR='$(DESTDIR)' VERSION='$(VERSION)' COMPANIONS='$(or $(COMPANIONS),0)' scripts/install.sh

clean: ## remove target/ and the built examples
	rm -rf target
	@[ ! -f c_examples/Makefile ] || $(MAKE) -C c_examples clean
