# The environment is made by make: `make run` and `make test` work in a fresh clone with nothing but Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test test-slow check layout bench clean

run: $(READY)
	$(BIN)/python -m marl_tune +experiment=ant_colony

# Two processes; a file stays whole, for what its tests have in common, and each process starts Ray once at the most.
# xdist would put files of few tests last, which are the long ones: tests/conftest.py says which come first.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --timeout 3600

check: $(READY) layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# mypy reads no __path__: links show it the packages as they are installed, envs/ as marl_tune.envs and so on.
layout:
	rm -rf build/layout
	mkdir -p build/layout/marl_tune
	ln -s $(CURDIR)/marl_tune/* $(addprefix $(CURDIR)/,envs modules conf sweeps) build/layout/marl_tune/

bench: $(READY)
	$(BIN)/python -m benchmarks.compare

$(READY): pyproject.toml hatch_build.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
