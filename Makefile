# Two commands: `make demo` and `make test`. Each makes the environment it needs in .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: install demo ui test test-slow faults chaos check claim gestures clean help

PORT ?= 5000
STORAGE ?= runs
INSTALLED := .venv/.installed
RUN := .venv/bin/python

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## the environment in .venv, which the others make too

demo: $(INSTALLED) ## the main job on the data it renders itself: 7 minutes or so on 2 cores
	$(RUN) sweeps/mixing.py

ui: $(INSTALLED) ## MLflow on the demo's database, http://localhost:5000
	@echo "MLflow on http://localhost:$(PORT) (stop with Ctrl-C)"
	MLFLOW_DISABLE_TELEMETRY=true .venv/bin/mlflow server --host 127.0.0.1 --port $(PORT) \
	  --backend-store-uri sqlite:///$(abspath $(STORAGE))/mlflow.db

test: $(INSTALLED) check ## lint, types and every test that does not take minutes
	.venv/bin/pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED) ## the rest: the published recipes made small, faults, clusters of several nodes, PostgreSQL
	.venv/bin/pytest -m slow

faults: $(INSTALLED) ## every fault of docs/cluster.md done to a sweep, and what is lost by it
	.venv/bin/pytest -s tests/faults tests/sweeps/test_continue.py \
	  tests/cluster/test_tracking_faults.py tests/sweeps/test_storage_faults.py

chaos: $(INSTALLED) ## thirty random kills under one sweep, and what is lost by them
	$(RUN) benchmarks/chaos.py

check: $(INSTALLED) ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

claim: $(INSTALLED) ## the demo world's claim on fresh seeds: at most an hour on 2 cores
	$(RUN) benchmarks/claim.py

gestures: $(INSTALLED) ## the sweep on real files (needs the data sets beside the project)
	$(RUN) sweeps/mixing.py sweeps/gestures.yaml

clean: ## removes the environment and every result
	rm -rf .venv runs

# The first of the Pythons that are supported and really run.
$(INSTALLED): pyproject.toml constraints.txt
	@python=; for candidate in python3.11 python3.12 python3; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	    2>/dev/null; then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then echo "No Python 3.11 or 3.12 found: install one and run make again." >&2; exit 1; fi; \
	echo "Making the environment in .venv with $$($$python --version) (a few minutes the first time)"; \
	$$python -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
