# Two commands do everything: `make demo` runs the three workflows, `make test` runs the tests.
# Both set up .venv in this checkout first. Prerequisites: Python 3.11+ and Node 20+.

PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps
PROJECTS := -e '.[aws,gcp,azure,async,cli]' -e enclave_host
PATHS := sdk adapters enclave_host tests examples benchmarks infra
TYPED := sdk/cloister adapters/cloister_aws adapters/cloister_gcp adapters/cloister_azure adapters/cloister_spark enclave_host/cloister_host

.PHONY: help demo test test-all check format bench clean

help:
	@sed -n 's/^## //p' Makefile

## make demo      run the three workflows on this machine, from a bare checkout
demo: $(STAMPS)/demo $(STAMPS)/azurite $(STAMPS)/azure
	$(BIN)/python examples/demo.py

## make test      run every test but the slow tier
test: $(STAMPS)/test $(STAMPS)/azurite $(STAMPS)/azure $(STAMPS)/osls4 $(STAMPS)/helm $(STAMPS)/javascript
	CLOISTER_TEST_DATABASES=sqlite,postgresql $(BIN)/pytest -m 'not slow' -n 2 --dist loadfile $(ARGS)

## make test-all  run every test
test-all: $(STAMPS)/test $(STAMPS)/azurite $(STAMPS)/azure $(STAMPS)/osls4 $(STAMPS)/helm $(STAMPS)/osls3 $(STAMPS)/serverless3 $(STAMPS)/javascript $(STAMPS)/cdk $(STAMPS)/spark
	CLOISTER_TEST_DATABASES=sqlite,postgresql $(BIN)/pytest -n 2 --dist loadfile $(ARGS)

## make check     lint, format, types, import rules
check: $(STAMPS)/check
	$(BIN)/ruff check $(PATHS)
	$(BIN)/ruff format --check $(PATHS)
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

## make format    format the code
format: $(STAMPS)/check
	$(BIN)/ruff format $(PATHS)
	$(BIN)/ruff check --fix $(PATHS)

## make bench     measure, beside the peers, into benchmarks/results
bench: $(STAMPS)/bench
	$(BIN)/python benchmarks/run.py $(ARGS)

## make clean     remove what make has set up
clean:
	rm -rf .venv .venv-azure .make

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/demo: $(STAMPS)/venv pyproject.toml enclave_host/pyproject.toml
	$(BIN)/pip install --quiet $(PROJECTS) --group demo
	@touch $@

$(STAMPS)/test $(STAMPS)/check $(STAMPS)/bench $(STAMPS)/cdk $(STAMPS)/spark: $(STAMPS)/%: $(STAMPS)/demo
	$(BIN)/pip install --quiet $(PROJECTS) --group $*
	@touch $@

$(STAMPS)/azurite $(STAMPS)/azure $(STAMPS)/helm $(STAMPS)/osls4 $(STAMPS)/osls3 $(STAMPS)/serverless3 $(STAMPS)/javascript: $(STAMPS)/%: $(STAMPS)/demo
	PYTHONPATH=examples $(BIN)/python -m local_cloud.install $*
	@touch $@
