# Needs Linux, make and Python 3.11 or newer; everything else comes from requirements.lock into .venv.
# The newest Python is taken for which every locked wheel exists (3.14 at this time).
# `make PYTHON=/usr/bin/python3.12 test` chooses the interpreter, `make demo ARGS="--stay"` passes options on, and
# `make WORKERS=1 test` runs the tests in fewer processes: three keep two cores busy, because many tests wait.

PYTHON ?= $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	command -v $$name >/dev/null 2>&1 && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$name; break; }; done)
ARGS ?=
WORKERS ?= 3

BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SUBMAKE := $(MAKE) --no-print-directory

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test check check-lint check-format check-types check-imports test-nodes nightly bench clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## settle a day of traffic on an embedded database and a simulated chain; ARGS="--stay" keeps it up
	@$(BIN)/settlement demo $(ARGS)

serve: $(READY) ## start the service: API and console
	@$(BIN)/settlement serve $(ARGS)

test: check ## check, then every test but the nightly ones
	@$(BIN)/python -m pytest -m "not nightly" -n $(WORKERS) --dist load --maxschedchunk 4 $(ARGS)

check: $(READY) ## lint, format, types and import contracts, side by side
	@$(SUBMAKE) --jobs=4 --keep-going --output-sync=target check-types check-imports check-lint check-format

check-lint:
	@$(BIN)/ruff check .

check-format:
	@$(BIN)/ruff format --check .

check-types:
	@$(BIN)/mypy

check-imports:
	@$(BIN)/lint-imports --no-logo --no-cache > .venv/imports.txt 2>&1 || { cat .venv/imports.txt; exit 1; }; \
	tail -n 1 .venv/imports.txt

test-nodes: $(READY) ## the adapters on real nodes, where these can be had (needs Go for xrpld)
	@$(BIN)/python -m tests.nodes.xrpld
	@$(BIN)/python -m pytest -m nodes tests/nodes $(ARGS)

nightly: $(READY) ## the long gauntlets
	@$(BIN)/python -m pytest -m nightly $(ARGS)

bench: $(READY) ## measure: prints ratios and figures, see bench/README.md
	@set -e; for name in ingest close proof; do echo "== bench.$$name"; $(BIN)/python -m bench.$$name; done

clean: ## remove the virtual environment and every cache
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none was found:" \
		"install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is not Python 3.11 or newer: name another one, as in make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu install the package python3-venv" \
		"(apt-get install python3-venv), then run make again" >&2; exit 1; }
	@echo "Installing into .venv what requirements.lock names, with $(PYTHON)"
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
