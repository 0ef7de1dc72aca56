# `make test` and `make quickstart` set themselves up: a virtual environment in .venv, reused the next time.
#
#   PYTHON=python3.12 make test     another Python (3.10, 3.11 or 3.12)
#   make VENV=DIR test              another place for the virtual environment
#   PIP_ARGS='...' make test        further options of pip, for example --index-url for a CPU build of torch

PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT= $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?= -n auto --dist loadscope --no-loadscope-reorder
BENCHMARK_ARGS ?=
# Python versions of `make test-matrix`; constraints.txt gives 3.10 the last transformers 4
MATRIX ?= 3.10 3.12
MATRIX_TARGET ?= unit

# tests start hundreds of processes, and each would compile the package
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup test test-fast test-gpu test-matrix test-long quickstart benchmarks docs lint unit coverage \
	clean-quickstart clean
help:
	@echo 'make quickstart        plain against distilled on a generated corpus, about 6 minutes'
	@echo 'make test              lint, types and tests'
	@echo 'make coverage          the tests with line and branch coverage of the package'
	@echo 'make test-fast         tests without the slow ones'
	@echo 'make test-gpu          tests that need a GPU'
	@echo 'make test-matrix       tests with Python $(MATRIX), each in a .venv-VERSION; MATRIX_TARGET=test-fast for the fast ones'
	@echo 'make test-long         crash and mutation tests of the store at their full counts'
	@echo 'make benchmarks        the tables of docs/benchmarks.md, on this machine'
	@echo 'make docs              the documentation as a site, into build/docs'
	@echo 'make clean-quickstart  remove what the quickstart wrote'
	@echo 'make clean             remove virtual environments and caches too'

setup: $(VENV)/ready

# fairseq comes last and without its declared requirements: one of them, torchaudio, breaks transformers
# beside a CPU build of torch. No isolation, so that it is built against the installed torch and numpy.
$(VENV)/ready: constraints.txt setup.py
	@test -n '$(PYTHON)' || { echo 'needs Python 3.10, 3.11 or 3.12: none found; set PYTHON=/path/to/python'; exit 1; }
	@echo 'setting up $(VENV) with $(PYTHON); the first time takes some minutes (fairseq is compiled)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(PIP_ARGS) --constraint constraints.txt torch cython wheel setuptools numpy
	$(PIP) install --quiet $(PIP_ARGS) --constraint constraints.txt --no-build-isolation --editable '.[test]'
	$(PIP) install --quiet $(PIP_ARGS) --constraint constraints.txt --no-build-isolation --no-deps fairseq-fixed
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup
	$(BIN)/python -m pytest --no-cov $(PYTEST_ARGS)

coverage: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test: lint unit

test-fast: setup
	$(BIN)/python -m pytest --no-cov $(PYTEST_ARGS) -m 'not slow'

test-gpu: setup
	$(BIN)/python -m pytest --no-cov -v tests/gpu

test-matrix:
	@for version in $(MATRIX); do \
		$(MAKE) --no-print-directory $(MATRIX_TARGET) VENV=.venv-$$version PYTHON=python$$version || exit 1; \
	done

test-long: setup
	KD_LONG_TESTS=1 $(BIN)/python -m pytest --no-cov -v $(PYTEST_ARGS) tests/storage/test_crashes.py \
		tests/storage/test_mutations.py tests/storage/test_topk_writer.py tests/cli/test_dump_kills.py \
		tests/preloaded/test_preloaded.py

benchmarks: setup
	$(BIN)/python -m benchmarks $(BENCHMARK_ARGS)

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/docs
	@echo 'build/docs/index.html'

quickstart: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" python examples/run.py quickstart

clean-quickstart:
	rm -rf examples/quickstart/out

clean: clean-quickstart
	rm -rf $(VENV) $(addprefix .venv-,$(MATRIX)) .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
