# One verb each. `make up` and `make test` install what they need first; a second run installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: up test hosts setup check bench drill lock clean

up: setup  ## start five sequencers on this machine and watch them
	$(BIN)/flashblocks up

test: check  ## format, lint, types, import contracts, and every test that takes no root and no hour
	$(BIN)/pytest

hosts: setup  ## the short form of the tests on many hosts: root, namespaces and sshd; skipped elsewhere
	$(BIN)/pytest -m "hosts and not slow" tests/hosts

setup: $(STAMP)  ## fill .venv from the lock file

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "Python 3.11 or 3.12 is needed (later ones lack wheels of the locked packages): make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "the venv module is missing: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## print the benchmarks as ratios (minutes); benchmarks/hosts.py, as root, is one of its own
	for file in $(filter-out benchmarks/hosts.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

drill: setup  ## kill the leader ten times and judge what subscribers saw
	$(BIN)/flashblocks drill kill-leader --count 10

lock: setup  ## resolve pyproject.toml's ranges anew into requirements.lock
	$(BIN)/pip install --quiet 'pip-tools>=7.5,<8'
	$(BIN)/pip-compile --quiet --generate-hashes --extra test --all-build-deps --strip-extras --allow-unsafe --no-emit-find-links --no-emit-index-url -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
