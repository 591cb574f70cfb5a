# `make run` and `make test` do everything on a machine that has Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# tests/conftest.py puts the longest files first; by itself loadfile begins with those of many tests.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-all test-cpus mutants notebooks lint format docs wheel-check clean

run: $(READY)          ## train on scikit-learn's digits: no download, less than a minute
	$(BIN)/kl fit --data digits --kernel laplacian --epochs 10 --name digits

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(READY) test-cpus  ## with the tests marked slow, and as other processors compute
	$(BIN)/python -m pytest $(PARALLEL) -m ""

test-cpus: $(READY)    ## the numeric tests under several instruction sets and threads; CORE=--core for the fast part
	$(BIN)/python tests/cpus.py $(CORE)

mutants: $(READY)      ## plants known faults one by one; each must make a test fail
	PYTHONPATH=.:tests $(BIN)/python -m mutants

notebooks: $(READY)    ## runs docs/notebooks and keeps what they print and draw
	$(BIN)/python tests/notebooks.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror kl/compiled/*.cpp kl/compiled/*.h
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i kl/compiled/*.cpp kl/compiled/*.h

docs: .venv/.docs      ## the site in build/site: python -m http.server --directory build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

wheel-check: $(READY)  ## the built wheel, alone in an empty environment, trains
	rm -rf build  # setuptools would pack what an older build left there
	$(BIN)/python -m pip --quiet install uv
	$(BIN)/uv build --quiet --wheel --out-dir build/wheel-check
	$(BIN)/uv venv --quiet build/wheel-check/env
	$(BIN)/uv pip install --quiet --python build/wheel-check/env/bin/python build/wheel-check/*.whl
	build/wheel-check/env/bin/python -I tests/wheel.py
	cd build/wheel-check && env/bin/kl --version && env/bin/kl fit --data digits --fast-dev-run

clean:
	rm -rf .venv build dist *.egg-info

.venv/.docs: $(READY)
	@if test -x $(BIN)/uv; then $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[docs]'; \
	else $(BIN)/python -m pip install --quiet --editable '.[docs]'; fi
	touch $@

# uv installs the same packages in seconds; pip alone is the fallback where uv has no build.
$(READY): pyproject.toml $(wildcard kl/compiled/*.cpp kl/compiled/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kl needs Python 3.11 or later; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@if $(BIN)/python -m pip install --quiet uv; \
	then $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --editable '.[dev]'; \
	else $(BIN)/python -m pip install --editable '.[dev]'; fi
	touch $@
