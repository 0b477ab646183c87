# Every target sets up what it needs; the second time that is quick.
# PYTHON: an interpreter of 3.11 or newer. DATA: a file of real pictures for `make bench`.
PYTHON ?= python3
BENCH_ARGS ?= $(if $(DATA),--data $(DATA))
BIN := .venv/bin
BENCH := .bench-venv/bin
# A process for each core. It is given tests that follow each other in a file, which share what they
# train, until one has none left and takes over half of another's.
SHARED := -n auto --dist worksteal
USED := cyclopts, matplotlib.pyplot, polars, rich.progress, safetensors.torch, scipy.stats, \
  sklearn.datasets, torch._dynamo

.PHONY: help setup demo test check lint bench wheel clean

help:
	@echo "make setup | demo | test | check | lint | bench [DATA=mnist.npz] | wheel | clean"

setup: .venv/.dev

# What people install, and no more: enough for the demo. Compiling every module of torch takes
# longer than fetching it, so only those that are used are compiled.
.venv/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "latlas needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e .
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import $(USED)'
	@touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.runtime
	$(BIN)/latlas demo

# Compiled once, where the environment would have every process compile the tests anew.
test check: export PYTHONDONTWRITEBYTECODE =

test: .venv/.dev
	$(BIN)/python -m pytest $(SHARED)

# the tests that `make test` leaves out
check: .venv/.dev
	$(BIN)/python -m pytest $(SHARED) -m slow

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# pythae lives in an environment of its own, with the same torch through the same constraints.
.bench-venv/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	test -x $(BENCH)/python || $(PYTHON) -m venv .bench-venv
	$(BENCH)/python -m pip install --quiet -c constraints.txt -r benchmarks/requirements.txt -e .
	@touch $@

bench: .bench-venv/.installed
	$(BENCH)/python benchmarks/train_speed.py $(BENCH_ARGS) --json runs/bench/train_speed.json
	$(BENCH)/python benchmarks/likelihood_speed.py $(BENCH_ARGS) --json runs/bench/likelihood_speed.json

wheel: .venv/.runtime
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf .venv .bench-venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
