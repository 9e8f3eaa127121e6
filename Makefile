# Every task of this repository; `make` alone prints the menu.
# Another Python:       make setup PYTHON=python3.12
# More for the command: make demo ARGS="--port 8000"     make test ARGS="tests/model -x"

SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TRAINING_WORLD := --out worlds/demo --identities 640 --images-per-camera 3 --seed 0 --lookalikes 0.3 --occlusion 0.22 --jitter 1 --splits train

# One process a core (four at most: each holds its own torch), one thread a process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadscope

.DEFAULT_GOAL := menu
.PHONY: menu setup demo test check lint format gpu notebooks course bench samples screenshots audit train lock clean

menu:
	@echo "CCAN, person re-identification with cross-correlated attention. Tasks:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## make .venv with the locked dependencies and this package (the first time: minutes)

demo: setup ## open the dashboard on http://127.0.0.1:7860 (Ctrl-C ends it)
	@$(BIN)/python app/demo.py $(ARGS)

test: setup ## run the whole test suite, slow and browser tests included
	@$(PYTEST) $(ARGS)

check: lint ## lint, then the fast tests: what to run before a commit (under 3 minutes)
	@$(PYTEST) -m "not slow and not browser and not gpu" $(ARGS)

lint: setup ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/basedpyright --level error --pythonpath $(BIN)/python

format: setup ## rewrite the code in the house format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu: setup ## run the tests marked gpu, then time training, inference and evaluation on a CUDA device
	@$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else \
	  f"torch {torch.__version__} sees no CUDA device here: nothing to run")'
	$(BIN)/python -m pytest -m gpu $(ARGS)
	@set -e; for what in training inference scaling evaluation; do $(BIN)/python benchmarks/bench_$$what.py --device cuda; done

bench: setup ## run every benchmark (nearly two hours); results as JSON in benchmarks/results
	@set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python "$$bench" $(ARGS); done

notebooks: setup ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab notebooks $(ARGS)

course: setup ## run every notebook as a reader would and keep its outputs (20 minutes)
	$(BIN)/python benchmarks/bench_notebooks.py --profiles reader --refresh $(ARGS)

samples: setup ## make the trust tables (15 minutes) and the sample report of the bundled model anew
	$(BIN)/ccan trust --out docs/trust
	rm -rf reports/sample
	$(BIN)/ccan diagnose --out reports/sample --cases 2
	cp reports/sample/report.html docs/sample_report.html

screenshots: setup ## make the pictures of the dashboard in README anew
	$(BIN)/python app/screenshots.py

audit: setup ## look the locked packages up among known vulnerabilities, where that service can be reached
	@$(BIN)/python .ci/audit.py

train: setup ## render the training world and train the bundled model's recipe on it; goes on after a break
	$(BIN)/ccan synth $(TRAINING_WORLD)
	$(BIN)/ccan train --recipe demo --dataset synthetic --data worlds/demo --out runs/demo --resume $(ARGS)

lock: setup ## write requirements.lock anew from pyproject.toml (ARGS=--upgrade takes newer releases)
	$(BIN)/uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 \
	  --no-emit-index-url --no-emit-find-links --no-annotate \
	  --custom-compile-command "make lock" --output-file requirements.lock $(ARGS)

clean: ## remove what tools leave behind; .venv, runs/ and worlds/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Once, and again whenever the lock or the package's description changes. Of pip's many lines the large downloads and
# the last step are shown; errors and warnings come through on their own.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "CCAN needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one, for example: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) (the first time: some minutes; 7 GB on Linux)"
	@set -o pipefail; $(BIN)/python -m pip install --requirement requirements.lock | while IFS= read -r line; do \
	  case "$$line" in *Downloading*\([0-9][0-9]*.[0-9]\ MB\)) echo "  $${line#*Downloading }" ;; \
	    Installing*) echo "  all is there; unpacking" ;; esac; done
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready: $$($(BIN)/python --version) in $(VENV)"
