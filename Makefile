# make demo | up | test | slow | faults | bench | bench-peers | soak | lint        The README says what each is for.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo up test slow faults bench bench-peers soak lint format schema clean

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
# now, before anything is installed: the demo reports how long the whole took
export DEMO_STARTED_AT := $(shell date +%s.%N)
VENV := .venv
BIN := $(VENV)/bin
LOCUST := var/locust
# For commands that read the settings and need no server; the home is theirs alone.
NOWHERE = PLATFORM_HOME=var/lint DATABASE_URL=postgresql://nobody@%2Fnowhere/none REDIS_URL=unix:///nowhere
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: export DEMO_STARTED_AT := $(shell date +%s)
demo: setup ## the main job, from nothing to a fine-tuned adapter that answers (FILE=path for data of your own)
	@$(BIN)/python manage.py demo $(if $(FILE),--file "$(FILE)")

up: setup ## everything, at http://127.0.0.1:8000 (HOST, PORT); Ctrl-C stops it
	@exec $(BIN)/python manage.py up

test: setup-dev ## all tests that end within ten minutes on two cores
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

slow: setup-dev ## the tests that take longer than that, but for those of faults: a quarter of an hour
	@$(BIN)/python -m pytest -m "slow and not faults" --numprocesses 2 --dist loadfile $(TESTS)

faults: setup-dev ## all tests of faults, some of them long, then random faults from 20 seeds (SEEDS=7,30-99 for others)
	@$(BIN)/python -m pytest -m faults --numprocesses 4 --dist loadfile $(TESTS)
	@$(BIN)/python -m tests.faults.checker --seeds $(or $(SEEDS),1-20) --parallel 2

bench: setup ## the benchmarks, side by side with their peers (NAME=subscriptions for one of them)
	@$(BIN)/python -m benchmarks $(NAME)

bench-peers: setup ## the peers of the benchmarks that are programs of their own, each in an environment of its own below var/
	@$(BIN)/python -m benchmarks.peers $(NAME)

soak: setup $(LOCUST)/.installed ## half an hour of 200 tenants' load on a whole platform (SECONDS=120 for less, SEED for the same again)
	@$(BIN)/python -m benchmarks.soak --locust $(LOCUST)/bin/python \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

lint: setup-dev ## style, types, import directions, migrations, the schema
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(NOWHERE) $(BIN)/mypy .
	@$(BIN)/lint-imports --no-cache
	@$(NOWHERE) $(BIN)/python manage.py makemigrations --check --dry-run
	@$(NOWHERE) $(BIN)/python manage.py export_schema | diff --brief - schema.graphql \
		|| { echo "schema.graphql is not what the code says: run \`make schema\`."; exit 1; }

format: setup-dev ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schema: setup ## write schema.graphql from the code
	@$(NOWHERE) $(BIN)/python manage.py export_schema > schema.graphql

clean: ## remove what was installed and all state
	rm -rf $(VENV) var

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none is on the PATH; PYTHON=/path/to/python names one."; exit 1; }
	@test -x $(BIN)/python || { $(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }; }
	@echo "Installing into $(VENV): two to three minutes, once"
	@$(INSTALL) --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo "Installing what tests and lints"
	@$(INSTALL) --requirement requirements-dev.txt
	@touch $@

$(LOCUST)/.installed: $(VENV)/.installed requirements-soak.txt
	@echo "Installing locust into $(LOCUST), apart from the platform"
	@$(BIN)/python -m venv $(LOCUST)
	@$(LOCUST)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-soak.txt
	@touch $@
