# Everything from nothing: `make demo` runs it, `make test` checks it. Needs git, Python 3.11 with venv, and Java 17 for
# Elasticsearch; `make check-needs` says what is missing. No root, no Docker, nothing running.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PY := .venv/bin/python
UV := .tools/bin/uv
PYTEST := .venv/bin/pytest -q -m "not stock"
TEST_PROCESSES ?= 3
# unit tests wait for nothing, so each processor gets one process
UNDER_COVERAGE := $(PYTEST) -n logical --dist loadfile tests/unit --cov
STAMP := .venv/.made-from-lock
export UV_PYTHON_DOWNLOADS := never
# bytecode is kept, whatever the machine says: without it each process compiles 1,500 files when it starts, for 1.1 s
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help check-needs env lock lint types contracts format coverage test test-unit test-conformance test-property \
	test-integration test-model test-chaos test-acceptance test-browser test-stock demo demo-web demo-year demo-chaos \
	docs-settings bench bench-e2e bench-lanes bench-full clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check-needs: ## look for what must be installed by hand, and name the packages
	@PYTHON="$(PYTHON)" .ci/check-needs

env: $(STAMP) ## the environment in .venv, from requirements.lock with its hashes

$(STAMP): requirements.lock pyproject.toml | $(UV)
	@echo "making .venv from requirements.lock"
	@test -x $(PY) || $(UV) venv --quiet --python "$(PYTHON)" .venv
	@$(UV) pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

# uv's own version and hashes are those of the lock as well
$(UV):
	@PYTHON="$(PYTHON)" .ci/check-needs
	@echo "fetching uv into .tools"
	@"$(PYTHON)" -m venv .tools
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .tools/uv.lock
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .tools/uv.lock

# what builds the project itself (hatchling, editables) and uv are pinned too; the file holds no addresses
lock: | $(UV) ## write requirements.lock anew from pyproject.toml
	@printf 'editables\nhatchling\nuv\n' | $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header \
		--no-annotate pyproject.toml - --all-extras --output-file requirements.lock
	@! grep -nE '://|^-' requirements.lock

lint: env ## ruff: mistakes and format
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .

format: env ## let ruff format and mend what it can
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

types: env ## mypy, strict
	@.venv/bin/mypy --no-error-summary

contracts: env ## the floors: who may import whom
	@.venv/bin/lint-imports > .venv/contracts.log || { cat .venv/contracts.log; exit 1; }

# Coverage is that of the unit tests: tracing doubles a test's processor time, and under CPython 3.11 a traced process
# can hang on a time limit (tests/conftest.py). So they run apart, without services.
# One call for all other layers, so that the services start once; three processes on two cores, for much of a test is
# waiting, and a file's tests in one of them, for they may share what they made; the order is random, but what takes
# long comes first.
test: check-needs lint types contracts ## everything: lint, types, contracts, all layers, coverage of the unit tests
	@$(UNDER_COVERAGE) --cov-report=
	@echo "the unit tests cover $$(.venv/bin/coverage report --format=total --precision=1) % of the statements"
	@$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --ignore=tests/unit

coverage: env ## which lines the unit tests do not reach
	@$(UNDER_COVERAGE) --cov-report=term-missing:skip-covered

test-unit test-conformance test-property test-integration test-model test-chaos test-acceptance test-browser: test-%: env
	@$(PYTEST) tests/$*

test-stock: env ## show each stock part failing where ours does not (slow)
	@.venv/bin/pytest -m stock tests

demo: check-needs env ## a season of a real grocer's campaigns (13 weeks); leaves var/demo/ to look at
	@$(PY) examples/grocer/demo.py

demo-web: check-needs env ## the same season, kept running with its pages for a browser, until Ctrl-C
	@$(PY) examples/grocer/demo.py --web

demo-year: check-needs env ## the whole year
	@$(PY) examples/grocer/demo.py --year

demo-chaos: check-needs env ## the year, with a worker killed every 5 s
	@$(PY) examples/grocer/demo.py --chaos

docs-settings: env ## docs/settings.md anew, from the settings' models
	@$(PY) -m engine.settings.describe > docs/settings.md

bench: check-needs env ## every table of docs/benchmarks.md with 200,000 users and fewer (about 10 minutes)
	@$(PY) -m bench.run --sample 10000 --seconds 10 --only passes,search,enrolled,changes,small,pictures
	@$(PY) -m bench.run --users 100000 --only paths
	@$(PY) -m bench.send --users 10000
	@$(PY) -m bench.importing --rows 20000
	@$(PY) -m bench.logs --lines 20000 --rounds 1
	@$(PY) -m bench.e2e --users 10000 --only whole --print-only

bench-e2e: check-needs env ## the whole as users run it: 100,000 users, late sinks, small campaigns (about 20 minutes)
	@$(PY) -m bench.e2e

bench-lanes: check-needs env ## how little a bad provider, a slow campaign or a huge one costs the others
	@$(PY) -m bench.lanes

bench-full: check-needs env ## the same with a million users, and three million enrolled (more than an hour)
	@$(PY) -m bench.run --users 1000000 --enrolled 10000,30000,1000000,3000000 --seconds 60
	@$(PY) -m bench.send
	@$(PY) -m bench.importing
	@$(PY) -m bench.logs
	@$(PY) -m bench.web
	@$(PY) -m bench.e2e --rounds 3
	@$(PY) -m bench.e2e --only million

clean: ## remove what was made, but for what the demo left in var/
	@rm -rf .venv .tools .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
