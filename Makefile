# Everything here works from a fresh clone: what is missing goes into .venv, node/node_modules and target, and
# nowhere else. Of `.ci/setup`, 3 says that Python is missing, 4 that Node.js is.
SHELL := bash
PY := .venv/bin/python
# Says nothing unless it fails.
PACKAGE = @out=$$(.venv/bin/maturin develop --quiet --release --manifest-path python/Cargo.toml 2>&1) \
	|| { echo "$$out"; exit 1; }
# `dist` is small and takes long to build, `release` the other way round.
C_PROFILE := dist
PREFIX := /usr/local
export PYO3_PYTHON := $(CURDIR)/$(PY)

.PHONY: help demo test bench chaos sim planted python packages node c install c-check check fuzz mutants fmt clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 14

demo: ## a log from a disk to a cluster and back under load, a server killed meanwhile, and proof that nothing is lost
	@echo "make demo: about 30 seconds, and 10 minutes more the first time, to build"
	@.ci/setup || [ $$? = 4 ]
	@echo "building"
	@cargo build --quiet --release -p virtuallog-server
	@cargo rustc --quiet --release -p virtuallog-c --lib --crate-type staticlib
	@! command -v npm >/dev/null || (cd node && node scripts/build.mjs --profile release >/dev/null)
	$(PACKAGE)
	@$(PY) examples/demo/demo.py

test: ## everything that has to hold before a commit
	@.ci/test

bench: ## the measured numbers, each against the bare thing on the same disk; fails when a bar is missed
	@echo "make bench: about 9 minutes, and 5 minutes more the first time, to build"
	@.ci/setup
	@cargo build --quiet --release -p virtuallog-server
	@cargo build --quiet --release -p virtuallog-bindings --example rates
	$(PACKAGE)
	cd node && npm run --silent build
	@.ci/bench

# What `make chaos` keeps to: `make chaos MINUTES=10 SEED=3 NODES=5 KINDS=kill,cut`; no kinds: all of them.
MINUTES ?= 1
SEED ?= 1
NODES ?= 3
KINDS ?=

chaos: ## kills, pauses, cuts off and powers off real nodes under load, and judges what is left
	@.ci/setup || [ $$? = 4 ]
	@cargo build --quiet --release -p virtuallog-server --bins
	@! command -v npm >/dev/null || (cd node && node scripts/build.mjs --profile release >/dev/null)
	$(PACKAGE)
	@.ci/chaos release --seconds $$(($(MINUTES) * 60)) --seed $(SEED) --nodes $(NODES) \
		$(if $(KINDS),--kinds $(KINDS))

# Only with this does tokio let its own chance be seeded.
SIM = RUSTFLAGS="--cfg tokio_unstable" cargo run --quiet --profile sim -p virtuallog-sim --features planted --

sim: ## one seed of the simulator with all that happens (SEED=n; MISTAKE=name plants one), or many (SEEDS=n, from START=n on)
	@$(SIM) $(if $(SEEDS),--seeds $(SEEDS) --start $(or $(START),1),--seed $(SEED) --trace) \
		$(if $(MISTAKE),--mistake $(MISTAKE)) --faults $(or $(FAULTS),60)

planted: ## looks for a seed that finds each planted mistake, and writes the table of them
	@# What is not found stays on the screen, has no line in the table, and fails.
	@set -o pipefail; $(SIM) --planted --most $(or $(MOST),2000) | tee target/planted.log; found=$$?; \
		! grep -q '^[0-9]* found, ' target/planted.log || grep -E '^[A-Za-z]+ [0-9]+ [0-9]+ ' \
		target/planted.log | sort > core/src/testing/sim/planted.txt; \
		exit $$found

python: ## the Python package, optimized, importable by .venv/bin/python
	@.ci/setup || [ $$? = 4 ]
	$(PACKAGE)

packages: ## the packages of a release, each installed where there is no Rust, and the scenarios run there
	@echo "make packages: about 30 minutes from a fresh clone"
	@.ci/setup
	$(PY) python/tests/package.py
	$(PY) python/tests/package.py --sdist
	cd node && node scripts/build.mjs --profile dist && node --test test/package.test.mjs
	cargo rustc --quiet --profile dist -p virtuallog-c --lib --crate-type cdylib,staticlib
	FROM=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/dist cargo test --quiet -p virtuallog-c --test install

node: ## the Node.js package, optimized, for `npm install PATH/TO/node` and `npm pack`
	@.ci/setup || [ $$? = 3 ]
	@cd node && npm run --silent build

c: ## the libraries for C and C++, and the two programs, optimized
	@.ci/setup || [ $$? != 1 ]
	cargo rustc --quiet --profile $(C_PROFILE) -p virtuallog-c --lib --crate-type cdylib,staticlib
	cargo build --quiet --profile $(C_PROFILE) -p virtuallog-server --bins

install: c ## all that C and C++ need, under PREFIX (default /usr/local), behind DESTDIR
	@FROM=$${CARGO_TARGET_DIR:-target}/$(C_PROFILE) PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" c/install/install

c-check: ## the scenarios and random calls in C and C++ under valgrind and AddressSanitizer; about 20 minutes
	@.ci/setup || [ $$? != 1 ]
	@c/check

check: ## the compiler's and the linter's opinion, no test run
	@.ci/setup || [ $$? = 4 ]
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

fuzz: ## looks for bytes that break a decoder, each TARGET (or one) for SECONDS (or 60)
	@.ci/fuzz "$(or $(TARGET),all)" "$(or $(SECONDS),60)"

mutants: ## makes mistakes in the pure crate, one by one, and says which no test sees; SHARD=0/4: a part of them
	@.ci/mutants "$(or $(SHARD),0/1)"

fmt: ## formats the Rust code
	cargo fmt

clean: ## removes all that was built
	rm -rf target .venv python/python/virtuallog/_native*.so
	rm -rf node/node_modules node/dist node/npm/*/virtuallog*
