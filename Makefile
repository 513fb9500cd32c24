# `make demo` and `make test` install everything they need into .venv and then work offline.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests wait for a third of their time, so that three processes use two cores. Acceptance tests run after the others, in
# fewer processes: those that they start pin themselves to cores and depend on timing.
PROCESSES ?= 3
ACCEPTANCE_PROCESSES ?= 2
CPP := $(wildcard worker/kernels/src/*/*.cpp worker/kernels/src/*/*.hpp)

MINUTES ?= 3
SEED ?= 1
SECONDS ?= 60
FOLDER ?= starter
# `make demo` owns this folder.
DEMO ?= demo

# Each has an environment of its own for its tests, with the versions of tests/environments/NAME.lock.
ORCHESTRATORS := airflow dagster

.PHONY: help demo test orchestrators chaos celery-failover upgrade fuzz licences audit lint format lock kernels wheel starter clean

help:
	@echo 'make demo     cut out the sample photographs: maskmill cut demo/photographs demo/cutouts'
	@echo 'make test     run the whole test suite (ARGS="-k name": a part of it)'
	@echo 'make orchestrators  test the Airflow operator and the Dagster resource, in environments of their own'
	@echo 'make kernels  build the native kernels if there is a C++ compiler'
	@echo 'make wheel    build a wheel for Linux x86-64 that contains the native kernels, in dist/'
	@echo 'make starter  train the built-in model in FOLDER=starter: a few hours on 2 cores; resumes after an interruption'
	@echo 'make chaos    run workers under faults for MINUTES=3, SEED=1; chaos/chaos.md accounts for every image'
	@echo 'make celery-failover  count what plain Celery loses under kills and failovers, for MINUTES=3, SEED=1'
	@echo 'make upgrade  roll two nodes from the commit FROM to this code and back during jobs; accounts for every image'
	@echo 'make fuzz     feed generated messages, records, lists, events, pictures and bundles to the readers, SECONDS=60 each'
	@echo 'make licences list the licences of all dependencies; fails if one is not on the allow-list'
	@echo 'make audit    check all dependencies against a public database of vulnerabilities'
	@echo 'make lint     run ruff, clang-format, mypy, import-linter (layers) and vulture (dead code)'
	@echo 'make lock     update requirements.lock, dev.lock, infra/docker/*.lock and tests/environments/*.lock'
	@echo 'make clean    remove the virtual environment and the state of the demo'

# A picture that fails (exit code 3) is in the account that the command prints; it is no failure of make. Cut-outs of an
# earlier run are removed first, so that all pictures in the folder are new.
demo: $(VENV)/.demo
	@rm -rf $(DEMO)/cutouts
	@$(BIN)/maskmill samples $(DEMO)/photographs
	@$(BIN)/maskmill cut $(DEMO)/photographs $(DEMO)/cutouts $(ARGS) || test $$? -eq 3

test: $(VENV)/.dev kernels
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile tests/unit tests/integration tests/benchmarks
	@$(BIN)/python -m pytest --numprocesses $(ACCEPTANCE_PROCESSES) --dist loadfile tests/acceptance
	@$(MAKE) --no-print-directory orchestrators
else
	@$(BIN)/python -m pytest $(ARGS)
endif

orchestrators: $(ORCHESTRATORS:%=$(VENV)/%/.ready)
	@$(MAKE) --no-print-directory --jobs $(PROCESSES) --output-sync $(ORCHESTRATORS:%=.orchestrator-%)

.orchestrator-%: $(VENV)/%/.ready
	@$(VENV)/$*/bin/python -m pytest tests/integration/orchestrators/test_$*.py

# Does nothing if the library was built from the current sources. Without a compiler it reports that OpenVINO's own
# operation is used.
kernels: $(VENV)/.dev
	@$(BIN)/worker kernels build --if-possible $(if $(CI),--strict)

wheel: $(VENV)/.dev
	@$(BIN)/worker kernels build
	@MASKMILL_WHEEL_KERNELS=1 $(BIN)/hatchling build --target wheel

# Fetches PyTorch and the training pictures, into a separate environment.
starter:
	@test -x $(VENV)/starter/bin/maskmill-ready || { $(PYTHON) -m venv $(VENV)/starter && \
	  $(VENV)/starter/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[starter]' && \
	  ln -s python $(VENV)/starter/bin/maskmill-ready; }
	@$(VENV)/starter/bin/python -m worker.training all --folder $(FOLDER) $(ARGS)

chaos: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(MINUTES) --seed $(SEED) $(ARGS)

celery-failover: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.celery_failover --minutes $(MINUTES) --seed $(SEED) $(ARGS)

upgrade: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m chaos.upgrade --from $(FROM) $(ARGS)

fuzz: $(VENV)/.dev
	@FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -s tests/unit/fuzz tests/integration/fuzz $(ARGS)

licences: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m support.licences requirements.lock

# Not part of CI: it needs the network, and its result changes from day to day. It runs in a separate environment.
audit: $(VENV)/.dev
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
	  $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock $(ARGS) || \
	  { echo 'audit: vulnerable, or the database (JSON API of PyPI; osv.dev with ARGS="-s osv") was not reached' >&2; \
	    exit 1; }

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $(CPP)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@# Fields of records count as variables to vulture; unused local ones are found by ruff.
	@! $(BIN)/vulture | grep -v 'unused variable'

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP)

# The stamp file is written last, so the next run resumes an interrupted installation.
$(VENV)/.demo: requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory install LOCK=requirements.lock
	@touch $@

$(VENV)/.dev: dev.lock pyproject.toml
	@$(MAKE) --no-print-directory install LOCK=dev.lock
	@touch $@ $(VENV)/.demo

$(VENV)/%/.ready: tests/environments/%.lock pyproject.toml $(VENV)/.dev
	@echo 'installing $< into $(VENV)/$*'
	@$(BIN)/uv venv --quiet --clear --no-python-downloads --python $(BIN)/python $(VENV)/$*
	@$(BIN)/uv pip install --quiet --python $(VENV)/$*/bin/python --require-hashes --requirement $<
	@$(BIN)/uv pip install --quiet --python $(VENV)/$*/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo 'maskmill needs Python 3.11, 3.12 or 3.13: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo 'cannot create a virtual environment: on Debian and Ubuntu install python3-venv' >&2; rm -rf $(VENV); exit 1; }
	@echo 'installing $(LOCK) into $(VENV)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

# Lock files contain versions and hashes, but no URLs. They serve Python 3.11.0 to 3.13: the images run 3.12, but the
# systemd guide installs the same files with Debian 12's Python 3.11.2.
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
  --custom-compile-command 'make lock'
lock: $(VENV)/.dev
	@for name in $(ORCHESTRATORS); do $(COMPILE) pyproject.toml --extra $$name --extra standalone --group build \
	  --group orchestrator-tests --output-file tests/environments/$$name.lock || exit 1; done
	@$(COMPILE) pyproject.toml --extra demo --group build --output-file requirements.lock
	@$(COMPILE) pyproject.toml --extra demo --group dev --output-file dev.lock
	@$(COMPILE) --group image-build --constraint dev.lock --output-file infra/docker/build.lock
	@$(COMPILE) pyproject.toml --constraint dev.lock --output-file infra/docker/producer.lock
	@$(COMPILE) pyproject.toml --extra hub --constraint dev.lock --output-file infra/docker/worker.lock
	@$(COMPILE) pyproject.toml --extra hub --extra flower --constraint dev.lock --output-file infra/docker/flower.lock

clean:
	@rm -rf $(VENV) worker/kernels/lib dist $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis
