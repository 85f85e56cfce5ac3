# One command each, the same here and in CI. Everything that is installed goes into .venv.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The newest Python from 3.11 on that can make a virtual environment.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$python; break; fi; done)
BIN := .venv/bin
TESTS_AT_ONCE ?= 2
INSTALLED := .venv/.installed
PACKAGE := --editable ".[postgres,zstd]" --group dev

.PHONY: help setup demo compose test faults soak coverage mutants bench check format constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with the package and all that development needs

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module was found: install one" \
		"(on Debian: apt-get install python3 python3-venv), or say make PYTHON=/path/to/python3." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making .venv with $$($(PYTHON) --version) …"; $(PYTHON) -m venv .venv; }
	@echo "Installing the package and its tools into .venv: one to three minutes the first time …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv \
	&& $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(PACKAGE) \
	|| { echo "uv could not do it; pip does it now, which takes longer …"; \
		$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" \
		&& $(BIN)/python -m pip install --quiet --constraint constraints.txt $(PACKAGE); }
	@touch $@

demo: setup ## Export 200,000 orders in real Airflow, kill the worker half-way, watch it resume
	@$(BIN)/batchkit demo

compose: ## Start Airflow, Elasticsearch and an S3 store with sample orders in Docker (docs/docker.md)
	@$(PYTHON) docker/make_env.py
	docker compose up --build --detach
	@echo "Airflow: http://localhost:8080, user admin, password AIRFLOW_ADMIN_PASSWORD in .env"

test: setup ## Run all tests, on the real servers that they need
	@$(BIN)/pytest --numprocesses $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder

faults: setup ## Show every fault survived, in wide sweeps; writes the counts in docs/reliability.md
	@BATCHKIT_FAULTS=full $(BIN)/python -m tests.support.fault_report

soak: setup ## Kill and break hundreds of random runs; writes the counts in docs/reliability.md
	@$(BIN)/python -m tests.support.soak

mutants: setup ## Look whether a test fails where the code is wrong; writes the account in docs/reliability.md
	@nice $(BIN)/python -m tests.support.mutation

coverage: setup ## Fail where a branch of the engine is run by no unit test of it
	@$(BIN)/pytest tests/unit/engine --cov=airflow_batchkit.engine --cov-branch --cov-fail-under=100 \
		--cov-report=term-missing:skip-covered

bench: setup ## Measure the export beside its peers; writes the numbers in docs/performance.md
	@$(BIN)/python -m benchmarks

check: setup ## Lint, formatting, types, and which layer may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: setup ## Renew constraints.txt with the newest versions that fit
	@$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --upgrade \
		--quiet --no-header --no-annotate --output-file .venv/constraints.txt
	@{ head -1 constraints.txt; cat .venv/constraints.txt; } > .venv/constraints.new
	@mv .venv/constraints.new constraints.txt

clean: ## Remove .venv and everything that was built, fetched or cached
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist htmlcov .coverage*
