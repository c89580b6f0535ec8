# make demo | make test | make lint | make clean: each does its own set-up on the first call.
# A virtual environment other than ./.venv: make VENV=/path/to/venv test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo

.PHONY: help install demo test test-hpc lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   generate a small BIDS dataset and process it ($(DEMO)/data -> $(DEMO)/out)"
	@echo "make test   lint, type check, import contracts and all tests"
	@echo "make test-hpc  tests with a Slurm of their own; installs it (root on Debian or Ubuntu)"
	@echo "make lint   lint, type check and import contracts only"
	@echo "make clean  remove the demo and what the checks left behind (not the virtual environment)"

install: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@if [[ ! -x $(BIN)/python ]]; then \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	        || { echo "HyperPrep needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1)"; exit 1; }; \
	    $(PYTHON) -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/bidsapp-demo $(DEMO)/data
	$(BIN)/bidsapp $(DEMO)/data $(DEMO)/out participant -w $(DEMO)/work
	$(BIN)/bidsapp $(DEMO)/data $(DEMO)/out group -w $(DEMO)/work
	@echo "Reports (open them in a browser):"
	@find $(DEMO)/out -maxdepth 1 -name '*.html' | sort | sed 's/^/  /'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2

test-hpc: $(STAMP)
	@command -v sbatch >/dev/null && { command -v munged || test -x /usr/sbin/munged; } >/dev/null \
	    || { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } \
	    || { echo "install slurm-wlm and munge as root"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check boutiques
	$(BIN)/python -m pytest -m hpc tests/hpc

clean:
	rm -rf $(DEMO) build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find bidsapp interfaces workflows models tests src -name __pycache__ -type d -prune -exec rm -rf {} +
