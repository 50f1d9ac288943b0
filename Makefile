# Fresh Debian machine: python3 with venv and pip, make. Everything else is installed into .venv, .venv-dynamo and .kernels.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := .kernels/.installed

.PHONY: demo test quick faults bench reference api dynamo kernels gpu slurm clean

demo: $(STAMP)          ## the main job on the simulated rack, ending with a ranked report
	$(BIN)/python -m tune +sweep=pd_split load.mode=capacity study.n_trials=12

test: $(STAMP) dynamo kernels slurm   ## lint, types, layers and every test; coverage by the quick ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term:skip-covered
	$(BIN)/python -m pytest -n 5 --dist worksteal -m "slow and not faults" || { [ $$? -eq 1 ] && \
	  echo "Once more, alone: a test that fails only beside others is to be mended" && \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none -m "slow and not faults"; }

quick: $(STAMP)         ## the tests without the slow ones, about a minute
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

faults: $(STAMP) slurm  ## every fault at every stage of a trial, every file damaged, an hour; docs/notes/fault-matrix.md
	-$(BIN)/python -m pytest -n 2 --dist load tests/slurm/test_faults.py tests/slurm/test_fault_patches.py tests/cli/test_simulated_faults.py --junitxml=build/faults.xml
	$(BIN)/python tests/support/fault_table.py build/faults.xml
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/cli/test_damaged_files.py
	$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-profile=explore tests/records/test_fuzzed_records.py

bench: $(STAMP)         ## the search against an exhaustive grid, on the simulated rack
	$(BIN)/python benchmarks/search_regret.py

reference: $(STAMP)     ## settings, metrics, failures, ranking and run-checks of docs/reference, from the code
	$(BIN)/python scripts/write_reference.py

api: $(STAMP)           ## the API reference in build/api, from the docstrings
	$(BIN)/python scripts/write_api.py build/api

dynamo: $(STAMP)        ## what stack=dynamo_v1_mocker starts, into .venv-dynamo
	scripts/install_dynamo.sh $(BIN)/python .venv-dynamo

kernels: $(KERNELS)     ## AIConfigurator, of which the tests take step times, into .kernels

$(KERNELS): $(STAMP) scripts/kernels_requirements.txt
	rm -rf .kernels
	$(BIN)/python -m pip install --quiet --no-deps --target .kernels --requirement scripts/kernels_requirements.txt
	touch $@

gpu: $(STAMP)           ## one run on the two GPUs of this machine, into build/gpu; ENGINE_PYTHON has Dynamo and vLLM
	PYTHON=$(BIN)/python scripts/gpu_run.sh build/gpu

slurm:                  ## Debian's Slurm, of which the tests start 18 nodes; only root may, others get a message
	scripts/install_slurm.sh

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .venv-dynamo .kernels .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
