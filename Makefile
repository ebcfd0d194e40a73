PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow check format tensorboard data bench clean

help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(INSTALLED)  ## make .venv and install the pinned packages

# torch first, so that nothing that depends on it can bring another build.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt '.[dev]'
	touch $@

train: setup  ## train the quick start on the embedded data set (minutes on two CPU cores)
	$(BIN)/python -m src.train experiment=quickstart

test: setup  ## run the tests (CAMVID_ROOT=FOLDER adds those on the real CamVid)
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: setup  ## run the long proofs
	$(BIN)/python -m pytest -m "slow and not alone" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m alone

check: setup  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup  ## format the code and mend what ruff can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

tensorboard: setup  ## look at the runs, on this machine only
	$(BIN)/tensorboard --logdir outputs --host localhost --samples_per_plugin images=200

data: setup  ## fetch CamVid into data/camvid and check every file (URL=... for another copy, ROOT=... for another folder)
	$(BIN)/python -m src.download $(if $(filter command,$(origin URL)),--url '$(URL)') $(if $(filter command,$(origin ROOT)),--root '$(ROOT)')

bench: setup  ## the benchmarks that need no GPU, as ratios of one run
	$(BIN)/python -m benchmarks.input_pipeline

clean:  ## remove the environment and caches (runs and data stay)
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
