# `make demo` and `make test` set everything up in .venv; nothing else is needed.
PYTHON ?= python3
DATA ?= ../shared
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --data=$(DATA)

.PHONY: demo test test-all lint types suite long reference wheel clean

demo: $(VENV)/ready
	$(BIN)/metier demo

test: lint types suite

test-all: lint types
	$(PYTEST)

suite: $(VENV)/ready
	$(PYTEST) -n 2 -m "not slow and not long"

long: $(VENV)/ready
	$(PYTEST) -n 2 -m "long and not slow"

lint: $(VENV)/ready
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts

types: $(VENV)/ready
	$(BIN)/mypy

reference: $(VENV)/ready
	$(BIN)/python scripts/reference.py

wheel: $(VENV)/ready
	$(BIN)/python -m build --wheel

# torch first and from the constraints: other builds of it bring gigabytes that a CPU has no use for.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable ".[sentencepiece,harness,serve,gguf]"
	touch $@

clean:
	rm -rf $(VENV) dist metier-demo
