# Each target is what you could type; all make the environment first, in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint install lock notebooks

demo: install
	$(BIN)/ditbench demo

test: install
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# The notebooks from their text, executed, after an edit or new results.
notebooks: install
	$(BIN)/python -m analysis.notebooks.execute

install: .venv/installed

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("ditbench needs Python 3.11: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirements requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# Only when dependencies change.
lock: install
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --output-file requirements.lock
