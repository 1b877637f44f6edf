# Requires make and Python 3.11 or newer; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)

# Programs of a virtual environment hold its absolute path: in a clone that was moved or renamed it is made anew.
ifneq ($(shell cat .venv/.ready 2>/dev/null),$(CURDIR))
$(shell rm -f .venv/.ready)
endif

.PHONY: help setup demo dev train test test-fast test-served check bench bench-full lint docs pictures lock sbom clean

help:  ## List what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: .venv/.ready  ## Install everything into .venv

demo: .venv/.ready  ## The whole loop, shown; DATA=<csv> does it on a real file
	$(BIN)/creditrisk demo $(if $(DATA),--data "$(DATA)")

dev: .venv/.ready  ## Dagster UI :3000, API :8000, MLflow UI :5000 on data/, sensors running
	$(BIN)/creditrisk dev

train: .venv/.ready  ## Run the job train: from the history to a champion
	$(BIN)/creditrisk train

test: .venv/.ready  ## All tests of a store on one machine
	$(BIN)/python -m pytest -m "not served" $(IN_PARALLEL)

test-fast: .venv/.ready  ## The unit tests that start no process
	$(BIN)/python -m pytest tests/unit -m "not starts_processes" $(IN_PARALLEL)

test-served: .venv/.ready  ## The tests of whole stores, on PostgreSQL and an S3 server
	CREDITRISK_TEST_SHAPE=served $(BIN)/python -m pytest tests/integration --ignore=tests/integration/tools \
		tests/end_to_end/test_replicas.py $(IN_PARALLEL)

# One worker runs the whole of a test file, for what its tests share; tests/conftest.py names the long tests that go by themselves.
IN_PARALLEL := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

bench: .venv/.ready  ## Compare with peers, in minutes; fails where a ratio is a quarter worse than accepted
	$(BIN)/python -m benchmarks.suite

bench-full: .venv/.ready  ## The same on as many rows as benchmarks/README.md has
	$(BIN)/python -m benchmarks.suite --full

lint: .venv/.ready  ## Format, lint, types, import contracts, definitions, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate
	$(BIN)/python -m tools.generate_docs --check

check: lint test  ## lint and test

docs: .venv/.ready  ## Write the parts of the documents that the code knows
	$(BIN)/python -m tools.generate_docs

pictures: .venv/.ready  ## Take the documents' pictures from a running make dev
	$(BIN)/python -m tools.screenshots

lock: .venv/.ready  ## Solve the dependencies again
	$(LOCK) --extra dagster --output-file requirements.lock
	$(LOCK) --extra serving --extra otel --constraint requirements.lock --output-file requirements-serving.lock
	$(LOCK) --extra dev --constraint requirements.lock --constraint requirements-serving.lock --output-file requirements-dev.lock
	grep --only-matching 'hatchling[^"]*' pyproject.toml | head --lines 1 > .venv/build.in
	$(BIN)/uv pip compile .venv/build.in $(LOCK_OPTIONS) --constraint requirements-dev.lock --output-file requirements-build.lock

LOCK = $(BIN)/uv pip compile pyproject.toml $(LOCK_OPTIONS)
LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock"

sbom: dist/sbom-dagster.json dist/sbom-serving.json  ## Write what the images hold as CycloneDX documents

dist/sbom-dagster.json: requirements.lock
dist/sbom-serving.json: requirements-serving.lock
dist/sbom-%.json: | .venv/.ready
	@mkdir -p dist
	$(UV) pip compile --quiet --no-deps --no-header --generate-hashes --python-version 3.11 --python-platform linux $< \
	| $(UV) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	--output-file $@ -

clean:  ## Remove .venv and caches, never data/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# The lock is complete and has hashes. pip installs uv from it, and uv the rest, which is faster; where an index works only for
# pip, pip installs all of it. Bytecode is made here, as pip does, for environments that forbid it to be written later; the
# packages' own tests (18% of their code) and plotly (15,000 files, of which a report loads a few) are left out.
.venv/.ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/[^\]$$/p' requirements-dev.lock > .venv/uv.lock
	$(PIP_INSTALL) -r .venv/uv.lock
	$(UV_INSTALL) --require-hashes -r requirements-dev.lock || $(PIP_INSTALL) -r requirements-dev.lock
	$(UV_INSTALL) --no-build-isolation --editable .
	-$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/(tests?|plotly)/' .venv/lib
	@printf '%s' "$(CURDIR)" > $@

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
UV = $(BIN)/python tools/uv_with_pip_settings.py
UV_INSTALL = $(UV) pip install --quiet --python .venv --no-deps
