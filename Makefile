# The only task runner. Every target sets up what it needs: uv in .uv, the environment in .venv, both inside the checkout.
.DEFAULT_GOAL := help
.PHONY: help demo airflow test fuzz lint bench render env up down clean

PYTHON ?= python3
UV_VERSION := 0.13.8
UV := .uv/bin/uv
RUN := .venv/bin/python
STAMP := .venv/.synced
# Where it is set, every process compiles its libraries anew: four seconds of each command.
unexport PYTHONDONTWRITEBYTECODE

help: ## what each target does
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(UV):
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --frozen --group dev
	@$(RUN) -m flowlake.quant
	@touch $(STAMP)

demo: $(STAMP) ## the main job on a synthetic market, end to end
	$(RUN) -m flowlake.cli demo --folder .demo

airflow: $(STAMP) ## Airflow with the DAGs on a synthetic market (or on FLOWLAKE_BUCKET_NAME), until Ctrl-C
	$(RUN) -m flowlake.cli airflow --folder .airflow

test: $(STAMP) ## all tests
	$(RUN) -m pytest -n 2 --no-loadscope-reorder

fuzz: $(STAMP) ## the property tests on examples that nobody has seen, until one fails or five rounds are over
	@for round in 1 2 3 4 5; do FLOWLAKE_HYPOTHESIS=fuzz $(RUN) -m pytest -q -n 2 tests/property tests/oracle || exit 1; done

lint: $(STAMP) ## format, style, types, dependency direction, rendered files
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(RUN) -m flowlake.cli render --check
	.venv/bin/hadolint Dockerfile
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: $(STAMP) ## benchmarks against rivals, as ratios
	$(UV) sync --quiet --frozen --group dev --group bench
	@for script in benchmarks/*.py; do echo "== $$script"; $(RUN) $$script || exit 1; done

render: $(STAMP) ## write what is rendered from the declarations
	$(RUN) -m flowlake.cli render

# ---- containers: docs/deployment.md ----

# small is Airflow with a lake in a volume, in 8 GB; full adds an S3 server, a Dask cluster and notebooks.
PROFILE ?= small
COMPOSE := docker compose $(if $(filter full,$(PROFILE)),--env-file deploy/full.env) --env-file .env --profile $(PROFILE)

env: ## write .env with new secrets; the bucket is for you to fill in
	@$(PYTHON) deploy/make_env.py

up: ## build and start the containers, PROFILE=small or full
	@sh deploy/can_start.sh $(PROFILE)
	$(COMPOSE) up --build --wait --wait-timeout 600
	@echo "Airflow: http://localhost:8080 (or AIRFLOW_PORT of .env), login and password as in .env"

down: ## stop and remove the containers; volumes, and so lake and database, stay
	@sh deploy/can_start.sh $(PROFILE)
	$(COMPOSE) down

clean: ## remove everything that the other targets made
	rm -rf .venv .uv .demo .airflow .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
