# Needs only make and Python 3.11+. Everything is installed into .venv; nothing outside this folder changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RESULTS ?= runs/results
PORT ?= 8080

.DEFAULT_GOAL := help
.PHONY: help simulate shop results bench bench-quick test test-slow coverage check format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("fedrec needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.installed

simulate: $(VENV)/.installed ## fifty merchants train one private ranker on real purchases; one to three minutes
	$(BIN)/fedrec simulate --clients 50
	@echo 'See it in a browser, as a shop: make shop'

shop: $(VENV)/.installed ## the newest run as a shop in the browser, until Ctrl-C; another port: make shop PORT=8081
	$(BIN)/fedrec serve --port $(PORT) --open

results: $(VENV)/.installed-dev ## every table of docs/results.md: hours; stop it and go on at any time
	$(BIN)/python -m benchmarks.results $(RESULTS) --jobs 2 --study tables scale

bench: $(VENV)/.installed-dev ## fedrec beside Flower, pfl and a bare loop: every table of docs/benchmarks.md; about 15 minutes
	$(BIN)/python -m benchmarks.peers.run
	$(BIN)/python -m benchmarks.peers.run --quick --record

bench-quick: $(VENV)/.installed-dev ## a small part of it; fails when fedrec has become slower beside the others
	$(BIN)/python -m benchmarks.peers.run --quick

test: $(VENV)/.installed-dev ## every test that is not slow, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev ## all tests
	$(BIN)/python -m pytest

coverage: $(VENV)/.installed-dev ## the bar for what others trust: their own tests must cover 95 % of it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -n 2 --dist loadfile -m "not slow" tests/fedrec/privacy tests/fedrec/test_wire.py \
	    tests/fedrec/test_wire_arrays.py --cov=fedrec.privacy --cov=fedrec.wire --cov=fedrec.wire_arrays --cov-fail-under=95

check: $(VENV)/.installed-dev ## lint, format, types and the import rules: what CI runs beside the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_boundaries.py

format: $(VENV)/.installed-dev ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) .venv-ci dist .pytest_cache .mypy_cache .ruff_cache .coverage
