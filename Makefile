# Fresh Debian machine: python3 with venv and pip, make. Everything else is installed into .venv and .venv-dynamo.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test quick bench reference api dynamo gpu slurm clean

demo: $(STAMP)          ## the main job on the simulated rack, ending with a ranked report
	$(BIN)/python -m tune +sweep=pd_split load.mode=capacity study.n_trials=12

test: $(STAMP) dynamo slurm   ## lint, types, layers and every test; coverage by the quick ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term:skip-covered
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

quick: $(STAMP)         ## the tests without the slow ones, about a minute
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

bench: $(STAMP)         ## the search against an exhaustive grid, on the simulated rack
	$(BIN)/python benchmarks/search_regret.py

reference: $(STAMP)     ## docs/reference/settings.md, metrics.md and ranking.md, from the code
	$(BIN)/python scripts/write_reference.py

api: $(STAMP)           ## the API reference in build/api, from the docstrings
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m pdoc --docformat numpy --no-show-source --output-directory build/api tune

dynamo: $(STAMP)        ## what stack=dynamo_v1_mocker starts, into .venv-dynamo
	scripts/install_dynamo.sh $(BIN)/python .venv-dynamo

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
	rm -rf $(VENV) .venv-dynamo .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
