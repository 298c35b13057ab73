# Two commands: `make study` runs a real study on digits, `make test` runs all tests. Both set up what they need.
.ONESHELL:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BOTH := -n 2 --dist worksteal

.PHONY: study test test-quick test-gpu lint bench bench-gpu clean

study: $(READY)
	"$(BIN)/python" -m raykd launch studies/quickstart.yaml

test: $(READY) lint
	"$(BIN)/python" -m pytest $(BOTH)

test-quick: $(READY)
	"$(BIN)/python" -m pytest $(BOTH) -m "not slow"

lint: $(READY)
	"$(BIN)/ruff" check raykd tests
	"$(BIN)/ruff" format --check raykd tests
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

bench: $(READY)
	for file in tests/benchmarks/*.py; do "$(BIN)/python" "$$file"; done

# On a machine with a CUDA GPU: whether it computes rightly; and how fast, into studies/RECORDS.md.
test-gpu: $(READY)
	"$(BIN)/python" tests/benchmarks/on_gpu/run.py --parts checks

bench-gpu: $(READY)
	"$(BIN)/python" tests/benchmarks/on_gpu/run.py

# The scripts in .venv/bin name their interpreter by its path, so an environment that was moved is made anew.
$(READY): requirements.lock pyproject.toml
	"$(PYTHON)" -c 'import sys; assert sys.version_info >= (3, 11), f"raykd needs Python 3.11 or newer, this is {sys.version.split()[0]}"'
	"$(PYTHON)" -m venv --clear .venv
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

clean:
	rm -rf .venv runs build
