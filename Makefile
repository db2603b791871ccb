# `make bench` and `make test` install what they need on the first call.
VENV := .venv
PY := $(VENV)/bin/python
INPUTS := pyproject.toml constraints.txt scripts/bootstrap
PYTEST_ARGS ?= -n 3 --dist worksteal
# Without cached bytecode, every command recompiles torch and diffusers, which takes 15 seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help bench results leaderboard test test-slow test-long agreement install install-dev lint style types imports format wheel-test constraints clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile | awk -F': *' '{ printf "  make %-12s %s\n", $$1, $$2 }'

bench: $(VENV)/.installed  ## generate 3D assets with sds, vsd and trace, score them, make tables, a contact sheet and a report
	$(PY) -m trace_bench -m method=sds,vsd,trace prompt_set=toy hydra/launcher=local
	$(PY) -m evaluation.cli score then gpteval3d judge=clip then contact-sheet then tables then report

results: $(VENV)/.installed  ## remake the numbers and pictures of README and docs; STAGES="readme costs" for a part
	$(PY) scripts/make_results.py $(STAGES)

leaderboard: $(VENV)/.installed  ## make the leaderboard of the toy world (takes hours); METHODS=mine for one method
	$(PY) scripts/make_leaderboard.py $(if $(METHODS),--methods $(METHODS)) $(if $(SECTIONS),--sections $(SECTIONS))

test: $(VENV)/.installed-dev  ## run the tests (CPU, offline)
	$(PY) -m pytest $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev  ## run the slow tests (a real Slurm, a browser)
	$(PY) -m pytest -m 'slow and not long' -n 3 --dist loadfile --no-loadscope-reorder --durations=15

test-long: $(VENV)/.installed-dev  ## run the long tests (whole runs, networks of full size)
	$(PY) -m pytest -m long --durations=15

agreement: $(VENV)/.installed-dev  ## compare with the published codes, write the tables of docs/agreement.md
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(PY) tests/methods/agreement_page.py

install: $(VENV)/.installed  ## create .venv and install trace_bench into it
	@echo "trace_bench is installed in $(VENV)"

install-dev: $(VENV)/.installed-dev  ## the same, with developer tools
	@echo "trace_bench and the developer tools are installed in $(VENV)"

lint: style types imports  ## style, types and import rules

style: $(VENV)/.installed-dev  ## ruff and codespell
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell

types: $(VENV)/.installed-dev  ## mypy
	$(VENV)/bin/mypy

imports: $(VENV)/.installed-dev  ## which package may import which
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev  ## fix and format with ruff
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

wheel-test: $(VENV)/.installed-dev  ## build the wheel, install it elsewhere, run it from another folder
	sh scripts/wheel_test $(PY)

constraints: $(VENV)/.installed-dev  ## write the newest compatible versions to constraints.txt
	printf 'uv\n' | $(PY) -m uv pip compile pyproject.toml - --extra dev --python-version 3.11 --upgrade --quiet \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file $(VENV)/resolved.txt
	sed -n '/^#/p' constraints.txt > $(VENV)/constraints.txt
	grep -Ev '^(nvidia-|cuda-|triton=)' $(VENV)/resolved.txt >> $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

clean:  ## remove the environment and caches; keep outputs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist

$(VENV)/.installed: $(INPUTS)
	@sh scripts/bootstrap $(VENV)
	@touch $@

$(VENV)/.installed-dev: $(INPUTS)
	@sh scripts/bootstrap $(VENV) dev
	@touch $(VENV)/.installed $@
