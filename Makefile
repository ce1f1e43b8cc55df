# make demo    set up and run the demonstration: synthetic hospitals, no data, no GPU
# make test    set up and run every check: style, types, import rules, tests
# make test-fast   while writing: only the tests that are quick, start no process and need no data
#
# Set-up happens once, into .venv. torch comes first and pinned (constraints.txt), so that no other
# package pulls in another build of it. Variables:
#   PYTHON        the interpreter that .venv is made from (3.11 to 3.13; default python3)
#   TORCH_INDEX   a package index for torch alone. On Linux, PyPI's torch carries several gigabytes
#                 of CUDA; without an NVIDIA GPU take the CPU build:
#                 make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   WORKERS       test files run side by side (default 3: some wait; 0: one after the other, for a debugger)
#   PYTEST_ARGS   more arguments for pytest, for example PYTEST_ARGS="-k gate"

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 3
PYTEST_ARGS ?=
# Each file by one worker, in the order of tests/conftest.py (longest first).
IN_ORDER := --dist loadfile --no-loadscope-reorder
FAST := not slow and not process and not data and not campaign
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
USER_STAMP := .venv/.gliofed-user
DEV_STAMP := .venv/.gliofed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast setup lint lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo: $(USER_STAMP)
	$(BIN)/gliofed demo

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) $(IN_ORDER) $(PYTEST_ARGS)

test-fast: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) $(IN_ORDER) -m "$(FAST)" $(PYTEST_ARGS)

setup: $(DEV_STAMP)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Run after a deliberate upgrade in .venv: writes down what is there now. Install .[radiomics] before:
# it is not in dev, as it needs a C compiler, and its versions are to stay pinned too.
lock: $(DEV_STAMP)
	@{ sed -n '/^#/p' constraints.txt; \
	   $(PIP) list --format=freeze --exclude-editable --exclude pip \
	   | sed 's/+[^+]*$$//' | LC_ALL=C sort -f; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@git --no-pager diff --stat -- constraints.txt

# Leaves runs/, stores/ and demo/ alone: they hold results.
clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/.made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) not found; install Python 3.11, 3.12 or 3.13, or name one with PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "make: $$($(PYTHON) --version) is not usable, gliofed needs Python 3.11 to 3.13; name one with PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { \
	  echo "make: no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

# --no-deps with another index: it need not have the pinned versions of what torch depends on;
# those come from the usual sources in the next step.
.venv/.torch: constraints.txt | .venv/.made
	$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	@touch $@

$(USER_STAMP): pyproject.toml constraints.txt .venv/.torch
	$(PIP) install --quiet -c constraints.txt -e .
	@$(BIN)/python -c 'import shutil, torch; torch.version.cuda and not shutil.which("nvidia-smi") and print("note: this torch is a CUDA build and no NVIDIA GPU was found; it works. For the smaller CPU build: make clean, then give TORCH_INDEX (see the top of the Makefile)")'
	@touch $@

$(DEV_STAMP): $(USER_STAMP)
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
