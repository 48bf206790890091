# make demo    real images -> learned embedding -> collection -> report (DATA=folder: on your images)
# make test    everything that must be true: lint, types, tests
# Both set .venv up first, and skip that when it is up to date.

PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin
GROUND := pyproject.toml setup.py constraints.txt $(wildcard src/semblance/*/native/*)

.PHONY: help setup demo test lint format docs clean

help:
	@echo "make demo [DATA=folder]   real images -> learned embedding -> collection -> report"
	@echo "make test                 lint, types and every test"
	@echo "make setup                .venv with everything that development needs"
	@echo "make lint | format        ruff and mypy | ruff, writing"
	@echo "make docs                 run the examples of README.md and docs/"

setup: .venv/.ready-dev

# What a run needs, without the tools of development.
.venv/.ready: $(GROUND)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e .
	touch $@

.venv/.ready-dev: $(GROUND)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	touch .venv/.ready $@

demo: .venv/.ready
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py $(if $(DATA),"$(DATA)")

test: .venv/.ready-dev lint
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

lint: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

format: .venv/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.ready-dev
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache
