# `make` lists the targets. Needs python3 (3.11 or newer) with its venv module, and make.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Checked strictly: everything but migrations and the admin's pages, whose base classes carry no types.
UNTYPED := (^|/)(admin|migrations)(/|\.py$$)|kalimtak/(admin_site|dashboard)\.py$$

.DEFAULT_GOAL := help
.PHONY: help run test lint bench soak openapi

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/runtime.stamp ## install, prepare the demo, start web and workers; Ctrl-C stops everything
	@$(BIN)/python manage.py quickstart
	@exec $(BIN)/python manage.py up

test: .venv/dev.stamp ## install and run the whole suite (ARGS="-k feedback" chooses)
	@$(BIN)/python -m tests.suite $(ARGS)

lint: .venv/dev.stamp ## style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@DEBUG=1 $(BIN)/mypy --exclude '$(UNTYPED)' kalimtak registry interactions training inference

bench: .venv/runtime.stamp ## measure; every figure in the documentation comes from here
	@set -e; for file in bench/*.py; do test "$$file" != bench/soak.py || continue; echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

soak: .venv/runtime.stamp ## ten minutes of load, with servers killed and restarted meanwhile
	@$(BIN)/python bench/soak.py $(ARGS)

openapi: .venv/runtime.stamp ## write openapi.yaml from the code
	@DEBUG=1 $(BIN)/python manage.py spectacular --file openapi.yaml --validate --fail-on-warn

# The stamps are older than the requirements when something has to be installed.
.venv/runtime.stamp: requirements.txt | .venv/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements.txt requirements-dev.txt | .venv/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/runtime.stamp

.venv/bin/python:
	@command -v $(PYTHON) > /dev/null \
		|| { echo "No $(PYTHON) here. Debian, Ubuntu: apt install python3 python3-venv. macOS: brew install python@3.11."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11. Name a newer one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into .venv; the first time takes some minutes."
	@$(PYTHON) -m venv .venv
