# `make` says what there is. Everything is installed into .venv, from nothing, at the first need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# With it, what is run ends also when make is killed; without it, at the next Ctrl-C.
WITH_MAKE := $(shell command -v setpriv > /dev/null && echo setpriv --pdeathsig TERM)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-captioner sweep fuzz imports debian deployment clients lint format bench soak worker assets pictures servers clean

help:  ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/installed  ## Run everything on http://127.0.0.1:5000, until Ctrl-C
	@$(BIN)/clustr install-servers
	@exec $(WITH_MAKE) $(BIN)/clustr up

worker: $(VENV)/installed  ## Run one more worker, for the servers of MONGODB_URL and REDIS_URL
	@exec $(WITH_MAKE) $(BIN)/clustr worker

# Without compiled files, each process would compile all tests anew: a tenth of the time.
test: export PYTHONDONTWRITEBYTECODE :=
test: servers  ## Run the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile

sweep: servers  ## Kill a web process at every system call of an upload; takes minutes
	$(BIN)/python tests/sweep.py

fuzz: FUZZ ?= 5
fuzz: servers  ## Try what a machine thinks up, for some minutes (FUZZ=50: 10 times as much)
	FUZZ=$(FUZZ) $(BIN)/python -m pytest -n 2 -rP tests/test_fuzz.py \
		tests/test_error_texts.py tests/test_foreign_records.py

imports: PHOTOGRAPHS ?= 3000
imports: servers  ## Import PHOTOGRAPHS=3000, killed twice on the way; takes minutes
	PHOTOGRAPHS=$(PHOTOGRAPHS) $(BIN)/python -m pytest -rP tests/test_import.py -k when_it_is_killed

debian:  ## Make a bare Debian 13, and run Clustr there as a new user does (TEST=1: the tests, too)
	$(PYTHON) tests/debian.py $(if $(DEBIAN_MIRROR),--mirror $(DEBIAN_MIRROR)) $(if $(TEST),--test)

deployment:  ## Make a bare Debian 13 with systemd, and install Clustr there as docs/deployment.md says
	$(PYTHON) tests/deployment.py $(if $(DEBIAN_MIRROR),--mirror $(DEBIAN_MIRROR))

clients: servers  ## Generate clients of the API with the usual tools, and use them; takes minutes
	$(BIN)/python -m pytest -rs tests/clients/check_clients.py

test-captioner: servers $(VENV)/installed-captioner  ## Test `clustr captioner`, which needs torch
	CAPTIONER_PYTHON=$(CURDIR)/$(VENV)/captioner/bin/python \
		$(BIN)/python -m pytest -rs tests/captioner/check_captioner.py

lint: $(VENV)/installed-dev  ## Check style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: servers  ## Measure speed and memory
	$(BIN)/python -m bench

soak: MINUTES ?= 20
soak: servers  ## Run the service for MINUTES=20, and see what grows and what a month of it is
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

assets: $(VENV)/installed-dev  ## Renew the pages of the API's documentation that others wrote
	$(BIN)/python docs/assets.py

pictures: SERVICE ?= http://127.0.0.1:5000
pictures: $(VENV)/installed-dev  ## Take the pictures of the README, of an empty SERVICE that runs
	$(BIN)/python docs/pictures.py $(SERVICE)

clean:  ## Remove what was installed and built; data and uploads stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: Python 3.11 or newer is needed, $(PYTHON) is none; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "make: $(PYTHON) has no venv; on Debian and Ubuntu, install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The stamps depend on what decides what is installed.
$(VENV)/installed: $(VENV)/made setup.cfg constraints.txt
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/made setup.cfg constraints.txt
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/installed

# Torch is large, so it has a place of its own. From PyPI it brings CUDA; the build without it is
# TORCH='torch --index-url https://download.pytorch.org/whl/cpu'.
TORCH ?= torch
$(VENV)/installed-captioner: $(VENV)/made setup.cfg constraints.txt
	$(PYTHON) -m venv --clear $(VENV)/captioner
	$(VENV)/captioner/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(VENV)/captioner/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[captioner]'
	@touch $@

# What tests and measurements start, wherever MONGODB_URL and REDIS_URL may lead.
servers: $(VENV)/installed-dev
	@$(BIN)/clustr install-servers mongod redis-server
