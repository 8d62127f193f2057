# Everything here works from a fresh clone with only Python 3.11+, make and a C library.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TENANT ?= examples/loki/tenant.yaml
STAMP := $(VENV)/.installed

.PHONY: run test lint stop clean soak bench e2e images install help

help:
	@sed -n 's/^## //p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (once) …"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Holdfast needs Python 3.11 or newer; set PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

## make run     a local stand-in cluster, the operator and a Tenant; Ctrl-C or `make stop` ends it
run: $(STAMP)
	@exec $(BIN)/holdfast-local run --tenant $(TENANT)

## make stop    end a running `make run`
stop: $(STAMP)
	@$(BIN)/holdfast-local stop

## make clean   remove the data of `make run`
clean: stop
	@rm -rf .holdfast .bench

## make test    all tests that need no cluster
test: $(STAMP)
	@$(BIN)/pytest -n 2 --dist loadfile

## make lint    style, types, import contracts
lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

## make soak    the long tests
soak: $(STAMP)
	@HOLDFAST_TREE_SYSTEM_FILES=5000 HOLDFAST_TREE_SYSTEM_BYTES=2000000000 \
	  $(BIN)/pytest tests/blackbox/test_tree_round_trip.py --timeout 7200 -v --durations=0

## make bench   figures of docs/benchmarks.md
bench: $(STAMP)
	@$(BIN)/python -m bench

## make e2e     the end-to-end suite on the cluster in KUBECONFIG
e2e: $(STAMP)
	@test -n "$$KUBECONFIG" || { echo "make e2e needs KUBECONFIG"; exit 2; }
	@$(BIN)/pytest -m cluster tests/e2e

## make images  holdfast/server:dev and holdfast/operator:dev, with Docker, Podman or Buildah
images:
	@images/build
