# Everything here works from a fresh clone with only Python 3.11+, make and a C library.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TENANT ?= examples/loki/tenant.yaml
NODES ?= 1
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
CLIENTS := $(VENV)/.clients

.PHONY: run test lint stop clean soak bench e2e images install help

help:
	@sed -n 's/^## //p' Makefile

install: $(STAMP)

# Where the installation of pip itself was interrupted, venv takes it for whole and never makes its script.
MAKE_VENV = $(PYTHON) -m venv $$(if test ! -x $(1)/bin/pip && ls -d $(1)/lib/python*/site-packages/pip >/dev/null 2>&1; then echo --clear; fi) $(1)
# pip, one short line per package: an install that says nothing for a minute looks like one that hangs.
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off -c constraints.txt
SHOW := sed -un 's/^ *Installing build dep.*started.*/  tools to build …/p; s/^Collecting \([A-Za-z0-9_.-]*\).*/  \1/p; s/^Building wheel.*/  building …/p; s/^Installing coll.*/  installing all of these, for up to a minute …/p'

# What `make run` needs is installed by itself: the tools for tests and lint are several times larger.
$(RUNTIME): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (once) …"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Holdfast needs Python 3.11 or newer; set PYTHON=…")'
	@$(call MAKE_VENV,$(VENV))
	@$(PIP) -e '.[server,operator,local]' | $(SHOW)
	@touch $@

$(STAMP): $(RUNTIME)
	@echo "Installing what tests and lint need (once) …"
	@$(PIP) -e '.[dev]' | $(SHOW)
	@touch $@

# S3 clients whose libraries do not go together with ours. Without a network their tests are skipped, nothing else.
$(CLIENTS): tests/clients/requirements.txt $(RUNTIME)
	@echo "Installing S3 clients that want an environment of their own (once) …"
	@$(call MAKE_VENV,$(VENV)/clients)
	@$(VENV)/clients/bin/pip install --disable-pip-version-check --progress-bar off --retries 1 -r $< | $(SHOW) && touch $@ \
	  || echo "  not installed: their tests will be skipped"

## make run     a local stand-in cluster, the operator and a Tenant; Ctrl-C or `make stop` ends it
run: $(RUNTIME)
	@exec $(BIN)/holdfast-local run --tenant $(TENANT) --nodes $(NODES)

## make stop    end a running `make run`
stop:
	@if test -x $(BIN)/holdfast-local; then $(BIN)/holdfast-local stop; else echo "Nothing is installed, so nothing runs."; fi

## make clean   remove the data of `make run`
clean: stop
	@rm -rf .holdfast .bench

# More than there are processors: half of the time tests wait, for pods and for what comes by itself.  The end-to-end
# tests are one worker's: tests/conftest.py.
TEST_WORKERS ?= 4
# Some environments forbid Python to keep what it compiled.  Every worker compiles all tests then, each time: half of
# what it takes to find them.
test: export PYTHONDONTWRITEBYTECODE :=
## make test    all tests that need no cluster; TEST_WORKERS=4 of them at once
test: $(STAMP) $(CLIENTS)
	@$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile

## make lint    style, types, import contracts
lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

## make soak    the long tests: SOAK_MINUTES=30 of mixed faults, CRASH_ROUNDS=200 of kill -9, FUZZ_MINUTES=60, SIM_SEEDS=40, HOLDFAST_LOKI=binary
CRASH_ROUNDS ?= 200
FUZZ_MINUTES ?= 60
SIM_SEEDS ?= 40
soak: $(STAMP)
	@$(BIN)/pytest tests/soak/soak_pods.py -v -s --log-cli-level INFO
	@SOAK_MINUTES=10 SOAK_FAULTS="read-only,full disk,hanging disk,failing disk,cut off,kill one,empty drive" \
	  $(BIN)/pytest tests/soak/soak_pods.py -v -s --log-cli-level INFO
	@HOLDFAST_SIM_SEEDS=$(SIM_SEEDS) $(BIN)/pytest tests/sim/test_simulation.py tests/sim/test_adding_pools.py -v
	@HOLDFAST_CRASH_ROUNDS=$(CRASH_ROUNDS) $(BIN)/pytest tests/crash -v -s --log-cli-level INFO
	@HOLDFAST_CRASH_ROUNDS=$(CRASH_ROUNDS) $(BIN)/pytest tests/unit/holdfast_server/drives/test_files_used_again.py -v
	@HOLDFAST_KILL_EVERY=1 $(BIN)/pytest tests/unit/holdfast_operator/test_killed_anywhere.py --timeout 3600 -v
	@HOLDFAST_LOAD_TENANTS=200 HOLDFAST_LOAD_OUTAGE_SECONDS=60 HOLDFAST_LOAD_KILLS=100 HOLDFAST_LOAD_FREEZE=1 \
	  $(BIN)/pytest tests/blackbox/test_operator_under_load.py -v --durations=0
	@HOLDFAST_LISTING_KEYS=1000000 HOLDFAST_LISTING_WAIT_SECONDS=1200 \
	  $(BIN)/pytest tests/blackbox/test_listing_at_size.py -v -s
	@HOLDFAST_ALL_OPERATIONS=1 $(BIN)/pytest tests/blackbox/test_operations_document.py tests/e2e/test_declared_settings.py -v
	@HOLDFAST_TREE_SYSTEM_FILES=5000 HOLDFAST_TREE_SYSTEM_BYTES=2000000000 \
	  $(BIN)/pytest tests/blackbox/test_tree_round_trip.py --timeout 7200 -v --durations=0
	@HOLDFAST_FUZZ_MINUTES=$(FUZZ_MINUTES) $(BIN)/pytest tests/fuzz -v -s
	@HOLDFAST_HAMMER_MINUTES=10 $(BIN)/pytest tests/blackbox/test_hammer.py -v -s
	@$(BIN)/pytest tests/loki -v -s -rs

## make bench   figures of docs/benchmarks.md
bench: $(RUNTIME)
	@$(BIN)/python -m bench

## make e2e     the end-to-end suite on the cluster in KUBECONFIG
e2e: $(STAMP)
	@test -n "$$KUBECONFIG" || { echo "make e2e needs KUBECONFIG"; exit 2; }
	@$(BIN)/pytest -m cluster tests/e2e

## make images  holdfast/server:dev and holdfast/operator:dev, with Docker, Podman or Buildah
images:
	@images/build
