# From a fresh clone: `make demo` runs the main job, `make test` runs every check. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint types unit kill bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,meteor,tensorboard]"
	touch $@

# The whole pipeline on the embedded demo; results in ./fast3d-demo.
demo: setup
	$(BIN)/fast3d demo

test: lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# Three processes, as tests wait for commands that they start.
unit: setup
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

# Each command, killed at every file operation; `make test` tries some. Takes an hour or so.
kill: setup
	FAST3D_KILLS=all $(BIN)/python -m pytest --numprocesses 2 tests/kill

# Ratios, not times, on the demo and a CPU, in a minute: it fails where SAP is no longer faster than vanilla.
bench: setup
	$(BIN)/fast3d bench --llm demo --device cpu --batch 10 --repeats 3 --warmup 1 --at-least 1.2

clean:
	rm -rf .venv fast3d-demo runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
