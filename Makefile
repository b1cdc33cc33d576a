# `make demo` and `make test` each start from nothing: they make .venv if it is not there yet.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test docs docs-test slow gpu chaos bench package lowest trackers browser lint format install clean soak fuzz

# The Python that .venv is made with; empty: the first suitable one of CANDIDATES.
PYTHON ?=
CANDIDATES := python3 python3.11 python3.12 python3.13 python3.10 python
# More words for `wassily demo`, pytest or tools/chaos.py: make test ARGS="-k resume"
ARGS ?=
# The folder of the training guide's two scripts, for `make bench` to run beside ours.
REFERENCE ?=

BIN := .venv/bin
STAMP := .venv/.installed
DOCS := .venv/.docs

help:
	@echo "make demo      set up, then train and draw on a small model, before and after"
	@echo "make test      set up, then ruff, mypy and pytest"
	@echo "make slow      set up, then the tests that make test leaves out for their time"
	@echo "make gpu       set up, then the tests that want an NVIDIA GPU"
	@echo "make docs      set up, then build the documentation in both languages into build/site"
	@echo "make docs-test set up, then run every command and snippet of the documentation"
	@echo "make chaos     set up, then kill a training 50 times at random moments, and compare"
	@echo "make soak      set up, then train 20,000 steps and see that memory, files and step time stay flat"
	@echo "make fuzz      read files that are damaged at random, for 10 minutes"
	@echo "make bench     set up, then measure at the smallest size, into runs/bench"
	@echo "make package   build the wheel, install it into an empty environment, run the demo there"
	@echo "make lowest    run a part of the tests on the lowest versions that pyproject.toml allows"
	@echo "make trackers  install wandb, trackio and mlflow, and run a training with each"
	@echo "make browser   install gradio and playwright, and try the studio in a real Chromium"
	@echo "make lint      ruff and mypy alone"
	@echo "make format    put the sources into ruff's format"
	@echo "make install   set up .venv alone (once; again when pyproject.toml or constraints.txt change)"
	@echo "make clean     remove .venv, caches and builds; what runs wrote stays"
	@echo
	@echo "PYTHON=python3.12 names the Python to use, ARGS='...' goes on to wassily demo, pytest, chaos, soak or fuzz."

demo: $(STAMP)
	@$(BIN)/wassily demo $(ARGS)

test: lint
	@$(BIN)/pytest -q -n auto --dist loadfile $(ARGS)

docs: $(DOCS)
	@$(BIN)/python tools/website.py

docs-test: $(DOCS)
	@$(BIN)/pytest -q -n auto -m docs $(ARGS)

# What the website takes besides, when it is first asked for.
$(DOCS): $(STAMP)
	@echo "wassily: installing what builds the documentation"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --no-build-isolation --editable ".[docs]"
	@touch $@

gpu: $(STAMP)
	@$(BIN)/pytest -q -m gpu $(ARGS)

slow: $(STAMP)
	@$(BIN)/pytest -q -n auto --dist loadfile -m slow --timeout 1800 $(ARGS)

chaos: $(STAMP)
	@$(BIN)/python -m tools.chaos $(ARGS)

soak: $(STAMP)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

fuzz: $(STAMP)
	@$(BIN)/python -m tools.fuzz $(ARGS)

BESIDE := $(if $(REFERENCE),--reference "$(REFERENCE)")
bench: $(STAMP)
	@$(BIN)/python -m benchmarks.train_speed --size tiny --resolution 64 --steps 22 --results runs/bench $(BESIDE)
	@$(BIN)/python -m benchmarks.startup --results runs/bench $(BESIDE)
	@$(BIN)/python -m benchmarks.generate_speed --size tiny --resolution 64 --results runs/bench
	@$(BIN)/python -m benchmarks.memory --size tiny --resolution 64 --results runs/bench
	@$(BIN)/python -m benchmarks.cache_scale --entries 1000 10000 --results runs/bench

package lowest trackers browser: $(STAMP)
	@$(BIN)/python -m tools.environments $@ $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

install: $(STAMP)

# The stamp is written last, so an install that was cut off is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@python='$(PYTHON)'; \
	if [ -n "$$python" ]; then \
	    command -v "$$python" >/dev/null || { echo "wassily: PYTHON=$$python: there is no such program; leave PYTHON out, or name a Python 3.10 to 3.13." >&2; exit 1; }; \
	    exec "$$python" tools/setup_env.py --chosen $(STAMP); \
	fi; \
	for python in $(CANDIDATES); do \
	    if "$$python" tools/setup_env.py --suits 2>/dev/null; then exec "$$python" tools/setup_env.py $(STAMP); fi; \
	done; \
	for python in $(CANDIDATES); do \
	    if "$$python" -c '' 2>/dev/null; then exec "$$python" tools/setup_env.py $(STAMP); fi; \
	done; \
	echo "wassily: no Python was found; install Python 3.10 to 3.13, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
