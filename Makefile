# Two commands: `make quickstart` does the main job end to end, `make test` shows that everything holds.
# Each makes its own virtual environment in .venv and installs the project from these files.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: quickstart test test-long check clean

quickstart: .venv/run
	$(BIN)/unmask quickstart --out quickstart

test: .venv/dev check
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: .venv/dev
	$(BIN)/python -m pytest -m long

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,constraints,convert,tensorflow]"
	touch $@

clean:
	rm -rf .venv quickstart
