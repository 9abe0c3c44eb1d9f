# From a fresh clone: `make demo` runs the main job, `make test` runs every check. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint types unit clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,meteor,tensorboard]"
	touch $@

# The embedded miniature (random weights) with the methods and budgets that were recorded from the published code.
DEMO := --config fast3d_core/demo/data/fast3d.yaml
demo: setup
	$(BIN)/fast3d eval $(DEMO) --method vanilla --method sap --alpha 0.21 --alpha 0.5
	$(BIN)/fast3d eval $(DEMO) --method random --method fastv --method gap --layer 2 --keep 15
	$(BIN)/fast3d eval $(DEMO) --method fastv --method gap --layer 2 --keep 60
	$(BIN)/fast3d report $(DEMO)

test: lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/python -m pytest --numprocesses 2

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
