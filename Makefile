# One command each; everything they need they set up themselves. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.ready
COMPILED := build/compiled/made-of.json
WORKERS ?= 3
SECONDS ?= 600
PYTHON := $(shell find src/pyetcd -name '*.py')
NATIVE := $(wildcard native/src/*.rs native/src/*/*.rs native/Cargo.toml native/Cargo.lock)

.PHONY: help run setup interpreted test fuzz lint wheel bench proto kubernetes raft-vectors docs clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: setup  ## set up and serve etcd on port 2379 (data in ./default.etcd)
	exec .venv/bin/etcd $(ARGS)

setup: $(COMPILED)  ## leave a working .venv/bin/etcd, etcdctl, etcdutl

$(STAMP): requirements.lock pyproject.toml $(NATIVE)
	@scripts/setup

$(COMPILED): $(STAMP) $(PYTHON) scripts/compile.py
	@mkdir -p $(@D) && touch $(@D)/began
	@$(PY) scripts/compile.py
	@touch -r $(@D)/began $@  # what has changed meanwhile is newer

interpreted: $(STAMP)  ## the same without compiled modules: nothing to wait for after an edit
	@$(PY) scripts/compile.py --remove

test: setup  ## set up and pass the tests, WORKERS files at a time
	$(PY) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

fuzz: setup  ## feed changed bytes to all that faces the network, SECONDS long
	$(PY) tests/fuzz $(SECONDS) $(ARGS)

lint: setup  ## ruff, mypy --strict, rustfmt and clippy
	.venv/bin/ruff check src tests bench scripts
	.venv/bin/mypy
	@scripts/lint-native

wheel: setup  ## make the wheels in dist/, install each in a clean environment and serve with it
	@$(PY) scripts/wheel.py $(ARGS)

man: setup  ## write the man pages into dist/man
	@$(PY) scripts/man_pages.py dist/man

bench: setup  ## measure beside real etcd (needs Go); results in bench/results
	$(PY) -m bench $(ARGS)

proto: setup  ## regenerate what the .proto files say
	$(PY) scripts/generate_proto.py

docs: $(STAMP)  ## build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'built build/site; to read it: $(PY) -m http.server -d build/site'

kubernetes:  ## regenerate which fields Kubernetes' objects have (needs Go)
	cd scripts/kubernetes && go run . >../../src/pyetcd/cli/etcdctl/kubernetes_tables.py

raft-vectors: setup  ## run etcd-raft's transcripts from $$RAFT_VECTORS
	$(PY) -m pytest tests/raft -k vectors $(ARGS)

clean:  ## remove what was built (never data directories)
	rm -rf .venv native/target .pytest_cache .mypy_cache .ruff_cache .hypothesis build
	find src -name '*.so' -delete
	find src tests bench -name __pycache__ -prune -exec rm -rf {} +
