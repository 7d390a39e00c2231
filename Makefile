# One target per verb. Each sets up what it needs, once; nothing is asked of the machine
# but make and Python 3.11 or newer, and nothing of the network once that is done.
# Written for the make that macOS ships (3.81).

# Another Python: make PYTHON=/path/to/python3.13 demo
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# A part of the suite, without coverage: make test T=tests/run  ·  make test T='-k cancel'
T ?=

VENV := .venv
BIN := $(VENV)/bin
NODE_MODULES := tests/javascript/node_modules
# The pip inside a fresh environment may be too old for dependency groups (25.1).
PIP_VERSION := 26.3
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	--constraint constraints.txt --build-constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test fmt lint types check cov bench bench-logs bench-load soak deps lock fresh clean programs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.core ## a multi-agent run, streamed: no key, no network
	@$(BIN)/millstream demo

test: $(VENV)/.dev $(VENV)-peer/.peer $(NODE_MODULES)/.installed ## the whole suite in parallel, with coverage and the docs' snippets
ifeq ($(strip $(T)),)
	@$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term
else
	@$(BIN)/python -m pytest $(T)
endif

fmt: $(VENV)/.dev ## format, and fix what can be fixed
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

lint: $(VENV)/.dev ## style, format, who may import whom, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	git ls-files -z | xargs -0 $(BIN)/codespell

types: $(VENV)/.dev ## the type checker, strict
	$(BIN)/basedpyright

check: lint types ## lint and types

cov: $(VENV)/.dev $(VENV)-peer/.peer $(NODE_MODULES)/.installed ## the suite, then htmlcov/index.html
	@$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=html --cov-report=term

bench: $(VENV)-peer/.peer ## CPU per streamed delta, beside openai-agents
	@$(VENV)-peer/bin/python benchmarks/run.py $(ARGS)

bench-logs: $(VENV)/.dev ## what logs in memory, SQLite and Redis cost
	@$(BIN)/python benchmarks/logs.py $(ARGS)

bench-load: $(VENV)/.dev ## what a server bears: 1,000 readers of a run, 1,000 runs
	@$(BIN)/python benchmarks/load.py $(ARGS)

soak: $(VENV)/.dev ## servers, lines and clients that break at random (ARGS='--minutes 10 --store both')
	@$(BIN)/python -m tests.soak $(ARGS)

deps: ## system packages that tests need
	@sh scripts/deps

lock: $(VENV)/.core ## resolve constraints.txt anew (make lock ARGS=--upgrade)
	@$(INSTALL) --group lock
	$(BIN)/uv pip compile --quiet --system-certs --universal --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links $(ARGS) --output-file constraints.txt \
		--group dev --group lock --group peer pyproject.toml

fresh: ## demo and test in a fresh clone of HEAD, with an empty home folder
	@sh scripts/fresh

clean: ## everything that make made
	rm -rf $(VENV) $(VENV)-peer $(NODE_MODULES) build dist htmlcov .coverage .coverage.* \
		.hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment --------------------------------------------------------------------

$(BIN)/python $(VENV)-peer/bin/python:
	@PYTHON="$(PYTHON)" sh scripts/venv $(@:/bin/python=) $(PIP_VERSION)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing millstream into $(VENV) (once)" >&2
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "Installing the tools for tests and checks into $(VENV) (once)" >&2
	@$(INSTALL) --group dev
	@touch $@

# Beside openai-agents: for the benchmark, and for the tests that hold us against it.
$(VENV)-peer/.peer: pyproject.toml constraints.txt | $(VENV)-peer/bin/python
	@echo "Installing openai-agents beside millstream into $(VENV)-peer (once)" >&2
	@$(subst $(BIN)/,$(VENV)-peer/bin/,$(INSTALL)) --editable . --group peer
	@touch $@

# System programs that some tests start. Those of a program that may not be installed are left out.
programs:
	@sh scripts/deps --if-allowed

# Clients from npm, which some tests start: likewise.
$(NODE_MODULES)/.installed: tests/javascript/package.json tests/javascript/package-lock.json | programs
	@sh scripts/npm $(@D)
