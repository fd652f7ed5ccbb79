# The commands of this project. Each gets what it needs first, see deploy/setup.sh; none leaves anything running.
.DEFAULT_GOAL := help
.PHONY: help setup demo up wheel test chaos fuzz neighbours programs check images bench soak constraints clean
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ifdef LOWEST
SUFFIX := -lowest
endif
VENV := .venv$(SUFFIX)
BIN := $(VENV)/bin

# In a terminal the program gets Ctrl-C alone (set -m: a foreground job of its own), ends in order and make goes on:
# otherwise make would be interrupted too, and report a failure.
FOREGROUND := if [ -t 0 ]; then set -m; fi;

help: ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup:
	@PYTHON='$(PYTHON)' VENV='$(VENV)' CONSTRAINTS='constraints$(SUFFIX).txt' CHECKS='$(CHECKS)' NODE='$(NODE)' DEPLOY='$(DEPLOY)' deploy/setup.sh

demo: setup ## show the fleet at work on simulated exchanges
	@$(FOREGROUND) $(BIN)/python -m deploy.demo $(ARGS)

up: setup ## run the fleet against the real exchanges until Ctrl-C
	@$(FOREGROUND) $(BIN)/python -m deploy.up $(ARGS)

wheel: setup ## make the package, dist/ccxt_fleet-….whl, for pip install
	@$(BIN)/python -m pip --quiet --disable-pip-version-check wheel --no-index --no-deps --no-build-isolation --wheel-dir dist .

# So many processes, each with servers of its own, share the files among them. Then come the few tests that need the machine
# for themselves. A test waits more than it works: three processes keep two CPUs busy. Code 5 is "nothing collected".
PROCESSES ?= 3
test: NODE := yes
test: DEPLOY := yes
# Several hundred processes of ours start: compiled files are kept, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: setup ## run all tests on real servers; LOWEST=1 with the oldest packages we allow, ARGS='-k name' for some, PROCESSES=6 with more CPUs
	@status=5; for part in '-n $(PROCESSES) --dist loadfile --no-loadscope-reorder --alone not' '--alone only'; do \
		$(BIN)/python -m pytest $$part $(ARGS); code=$$?; \
		case "$$status $$code" in 0\ [!05]|5\ [!5]) status=$$code;; esac; \
	done; exit $$status

chaos: setup ## kill, stop, freeze and cut off everything under load; SEED=1, ARGS='--requests 2000' or --cluster
	@$(BIN)/python -m tests.faults.chaos --seed $(or $(SEED),1) $(ARGS)

fuzz: setup ## put 100,000 bad messages and configurations into a fleet; SEED=1, ARGS='--inputs 2000' for fewer
	@$(BIN)/python -m tests.faults.fuzz --seed $(or $(SEED),1) $(ARGS)

neighbours: setup ## one bad client beside twenty good ones, who must not notice; SEED=1, ARGS='--requests 400' for fewer
	@$(BIN)/python -m tests.faults.neighbours --seed $(or $(SEED),1) $(ARGS)

programs: setup ## run freqtrade, ccxt-pandas and vectorbt through the fleet, on the simulator; ARGS='freqtrade --minutes 60' for one
	@$(BIN)/python -m tests.programs $(ARGS)

# Each of the two type checkers uses one CPU.
check: CHECKS := yes
check: setup ## lint (Lua and systemd's units too), check the format, the types, which way imports go, and that no file or function is too long
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy & mypy=$$!; $(BIN)/pyright; pyright=$$?; wait $$mypy && exit $$pyright
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.support.sizes
	@$(BIN)/python -m tests.support.lua_lint
	@$(BIN)/python -m tests.support.units_lint

images: setup ## build the images on a Debian root and run the fleet in them; needs root, buildah and mmdebstrap
	@$(BIN)/python -m tests.support.images $(ARGS)

bench: setup ## measure this machine's throughput and latency
	@$(BIN)/python -m tests.bench $(ARGS)

soak: setup ## half an hour at half of what this machine carries; ARGS='--minutes 5' for less
	@$(BIN)/python -m tests.bench.soak $(ARGS)

# Needs uv. Run it after a change of the dependencies in pyproject.toml, or to take newer packages.
constraints: PIN := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url
constraints: LOCK := $(PIN) --all-extras --upgrade pyproject.toml
constraints: ## pin the newest packages, and the oldest ones that pyproject.toml allows, by hash
	$(LOCK) --output-file constraints.txt
	$(LOCK) --resolution lowest-direct --output-file constraints-lowest.txt
	$(PIN) --constraint constraints.txt --extra dispatcher --output-file deploy/images/dispatcher.txt pyproject.toml
	$(PIN) --constraint constraints.txt --extra worker --output-file deploy/images/worker.txt pyproject.toml
	echo setuptools | $(PIN) --constraint constraints.txt --output-file deploy/images/build.txt -
	$(PIN) --upgrade --output-file deploy/checkers.txt deploy/checkers.in

clean: ## remove the environments, caches and build results in this checkout
	@rm -rf .venv .venv-lowest .fleet build dist *.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +
