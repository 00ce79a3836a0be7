# Two commands matter: `make up` and `make test`. Both install what they need first.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
MODEL ?=
PORT ?=
BASE_PORT ?=

.PHONY: install up test check prove protos lock fix clean

install: .venv/installed

# Again whenever the lock or the project file changes.
.venv/installed: requirements.lock pyproject.toml deploy/install.sh
	@PYTHON=$(PYTHON) bash deploy/install.sh

up: install
	@exec $(BIN)/thunderline up $(if $(PORT),--port $(PORT)) $(if $(BASE_PORT),--base-port $(BASE_PORT)) \
	  $(if $(MODEL),--model '$(MODEL)',--demo)

test: install
	@$(BIN)/python tests/run.py test

prove: install
	@$(BIN)/python tests/run.py prove $(filter-out $@,$(MAKECMDGOALS))

# `make prove NAME`: the name is an argument, not a target.
ifeq (prove,$(firstword $(MAKECMDGOALS)))
$(eval $(filter-out prove,$(MAKECMDGOALS)):;@:)
endif

# Writes protos/gen; `make test` fails when that would leave a difference.
protos: install
	@$(BIN)/buf lint protos
	@$(BIN)/python protos/generate.py

lock:
	@uv pip compile --universal --generate-hashes --python-version 3.11 --quiet --no-header \
	  pyproject.toml --extra all --group dev --group protos -o requirements.lock

fix: install
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf .venv
