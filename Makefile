# devicevm's chores. On a fresh Debian 12 with git, make and python3, `make test` does everything by itself.
.POSIX:
.SUFFIXES:

VENV = .venv
BIN = $(VENV)/bin
# Debian's own Python: libvirt's binding belongs to it.
SYSTEM_PYTHON = /usr/bin/python3
# What tests leave to the machine's first process is reaped at once: in a container that may take seconds for each guest.
PYTEST = $(BIN)/python tests/reaper.py $(BIN)/pytest
# More arguments for pytest: make unit ARGS='-x -k planner'
ARGS =

.PHONY: help deps venv lint types unit test test-long e2e demo bench collection sanity clean

help: ## list the targets
	@awk -F ' *:.*## ' '/^[a-z0-9]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

deps: ## install the Debian packages that are missing
	@packaging/install-deps.sh

venv: $(VENV)/.stamp ## make .venv, with devicevm installed from the checkout

# Brought up to date in place, since others may be using it; `make clean` is the way to a fresh one.
$(VENV)/.stamp: pyproject.toml setup.py packaging/debian-packages.txt
	@packaging/install-deps.sh
	@$(SYSTEM_PYTHON) -m venv --system-site-packages $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

lint: venv ## check style, spelling, sizes and imports
	@$(BIN)/pytest tests/test_house.py -k 'not types' $(ARGS)

types: venv ## check types
	@$(BIN)/pytest tests/test_house.py -k types $(ARGS)

unit: venv ## run the tests that take seconds and boot nothing
	@$(BIN)/pytest -m 'not e2e and not slow and not long' $(ARGS)

e2e: deps venv ## run the tests that boot virtual machines
	@$(PYTEST) -m 'e2e and not long' $(ARGS)

# Guests on one worker, all else on the other: tests/conftest.py. ARGS='-n 0' is one after the other.
test: deps venv ## run everything: linters, types, unit tests, virtual machines, the collection
	@$(PYTEST) -n 2 $(ARGS)

test-long: deps venv ## run the sweeps that take long: tens of kills, tens of clients, new examples
	@$(PYTEST) -m long --timeout 1800 $(ARGS)
	@$(BIN)/pytest tests/property --hypothesis-profile new $(ARGS)

demo: deps venv ## run the quickstart: a client VM that reads its disk from a device VM
	@$(BIN)/devicevm demo

$(VENV)/.bench: $(VENV)/.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@

bench: deps venv $(VENV)/.bench ## measure starting, applying, disks and planning, and write docs/benchmarks.md
	@$(BIN)/python -m bench $(ARGS)

collection: venv ## build the Ansible collection into build/
	@mkdir -p build
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
	staged=$$($(BIN)/python packaging/stage_collection.py "$$work") && \
	$(BIN)/ansible-galaxy collection build --force --output-path build "$$staged"

sanity: deps venv ## run ansible-test sanity on the collection
	@packaging/sanity.sh

clean: ## remove everything that was made here, .venv included
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .tox .ansible
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -maxdepth 3 -name '*.egg-info' -prune -exec rm -rf {} +
