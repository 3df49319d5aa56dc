# Each target is what you could type; all make the environment first, in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-others test-all lint install lock notebooks
.NOTPARALLEL:

demo: install
	$(BIN)/ditbench demo

# Two processes, each of some 1.5 GB. They take tests from each other's end, so that a file stays together, with what
# it made for all of its tests.
PARALLEL := -n 2 --dist worksteal

test: install
	$(BIN)/pytest $(PARALLEL) -m "not (slow or notebooks or chromium or slurm)"

# What `make test` leaves out: minutes of training and killing, notebooks, a browser, a cluster (skipped where there is
# none). The cluster's own jobs take both cores.
test-others: install
	$(BIN)/pytest $(PARALLEL) -m "slow or notebooks or chromium"
	$(BIN)/pytest tests/slurm

test-all: test test-others

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
