# `make demo` and `make test` each work alone on a fresh machine with Python 3.11+, make and git.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/pip --disable-pip-version-check
FUZZ_SECONDS ?= 600
# Processes that run tests side by side: many tests wait for real processes, so one more than there are cores.
JOBS ?= $(shell expr $$(nproc) + 1)
# A stamp per set of extras: installed again only when what is asked for changes.
DEMO   := $(VENV)/.installed-demo
DEV    := $(VENV)/.installed-dev
TRAIN  := $(VENV)/.installed-train
DOCS   := $(VENV)/.installed-docs

# ONNX Runtime reports to its maker unless it is told not to before it is imported; scripts may import it before us.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help demo dev docs pictures check test lint types layers tests power-cuts fuzz mutants canary schemas compress-bench peers arm64 clean

help:
	@echo "make demo    the whole product end to end on this machine, with an embedded broker"
	@echo "make dev     the developers' environment, in $(VENV)"
	@echo "make check   lint, format, types, layers and unit tests: two minutes"
	@echo "make test    the same and every other test: real processes, brokers, fleets"
	@echo "make power-cuts  cut the power at every system call of an update (15 minutes)"
	@echo "make fuzz    fuzz whatever reads bytes from outside, FUZZ_SECONDS=600 for each of its targets"
	@echo "make mutants which wrong decisions would the unit tests not notice? (half an hour)"
	@echo "make canary  what do the newest versions of a device's dependencies do that those we test with do not? (needs the index)"
	@echo "make compress-bench CORPUS=FOLDER  compress every task of a folder (three quarters of an hour), write docs/benchmarks.md;"
	@echo "                                   with PEERS=FOLDER beside other quantizers, which it installs there (6 GB)"
	@echo "make peers CORPUS=FOLDER PEERS=FOLDER  other servers and quantizers beside ours, installed there; writes their tables (an hour)"
	@echo "make arm64   install the wheel on an emulated arm64 Debian and have it answer (200 MB fetched, minutes)"
	@echo "make docs    the documentation as a site to browse offline, in build/site"
	@echo "make pictures draw docs/pictures anew: the demo's recording and the compression report (4 minutes)"
	@echo "make schemas write docs/schemas from the contracts"
	@echo "make clean   remove the virtual environment and build products"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(DEMO): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the demo's packages into $(VENV) (once)..."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(DEV): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the developers' packages into $(VENV) (once)..."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(DEMO) $(DOCS)

$(TRAIN): $(DEV)
	@echo "Installing PyTorch, for recipes that train, into $(VENV) (once)..."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[train]'
	@touch $@

$(DOCS): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the packages of the docs site into $(VENV) (once)..."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open build/site/index.html"

pictures: $(DEMO)
	$(BIN)/python docs/tools/demo_picture.py docs/pictures/demo.svg
	$(BIN)/edgewright compress edgewright/demo/data/watch_har.toml --profile pi-4 --max-drop 1 --out build/har --force
	$(BIN)/python docs/tools/report_picture.py build/har.html docs/pictures/report.svg

demo: $(DEMO)
	$(BIN)/edgewright demo --report demo-report.json

dev: $(DEV)

check: lint types layers
	$(BIN)/pytest tests/unit -n $(JOBS) --durations=10

test: lint types layers tests

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

layers: $(DEV)
	$(BIN)/lint-imports

tests: $(DEV)
	$(BIN)/pytest -n $(JOBS) --dist loadgroup --durations=10

power-cuts: $(DEV)
	$(BIN)/python tests/campaigns/power/power_cuts.py --out benchmarks/results/power-cuts.json

fuzz: $(DEV)
	$(BIN)/python tests/campaigns/fuzzing/campaign.py --seconds $(FUZZ_SECONDS) --out benchmarks/results/fuzzing.json

mutants: $(DEV)
	$(BIN)/python tests/campaigns/mutants/campaign.py --jobs $(JOBS) --out benchmarks/results/mutants.json

canary: $(DEV)
	$(BIN)/python tests/campaigns/canary/canary.py build/canary

compress-bench: $(TRAIN)
	@test -n "$(CORPUS)" || { echo "make compress-bench CORPUS=FOLDER: a folder of task files"; exit 2; }
	mkdir -p build/bundles
	$(BIN)/python benchmarks/toolchain/corpus.py --corpus "$(CORPUS)" --bundles build/bundles \
		--out benchmarks/results/compression.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/toolchain/pruning.py --corpus "$(CORPUS)"
	test -z "$(PEERS)" || $(BIN)/python benchmarks/toolchain/peers.py --corpus "$(CORPUS)" --bundles build/bundles \
		--environments "$(PEERS)/environments" --files "$(PEERS)/files" --out benchmarks/results/peers.json
	$(BIN)/python benchmarks/toolchain/corpus_table.py benchmarks/results/compression.json benchmarks/results/peers.json \
		docs/benchmarks.md

peers: $(TRAIN)
	@test -n "$(CORPUS)" && test -n "$(PEERS)" || { \
		echo "make peers CORPUS=FOLDER PEERS=FOLDER: task files, and where other tools are installed"; exit 2; }
	mkdir -p build/bundles "$(PEERS)/files"
	$(BIN)/python benchmarks/agent/serving.py --environments "$(PEERS)/environments" --out benchmarks/results/serving.json
	$(BIN)/python benchmarks/toolchain/peers.py --corpus "$(CORPUS)" --bundles build/bundles \
		--environments "$(PEERS)/environments" --files "$(PEERS)/files" --out benchmarks/results/peers.json
	$(BIN)/python benchmarks/agent/serving_report.py
	$(BIN)/python benchmarks/toolchain/corpus_table.py benchmarks/results/compression.json benchmarks/results/peers.json \
		docs/benchmarks.md

arm64: $(DEV)
	PYTHON=$(BIN)/python benchmarks/arm64/run.sh

schemas: $(DEV)
	$(BIN)/python -m edge_contracts.schemas docs/schemas

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
