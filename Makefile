# Two commands on a fresh machine: `make demo` and `make test`. Both make their own virtual environment first (about 6 GB with torch).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-slow test-slurm lint bench clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# Debian: apt-get install slurmctld slurmd slurm-client munge; as root
test-slurm: $(VENV)/installed
	$(BIN)/python -m pytest -m slurm

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) build *.egg-info
