# make serve, make test: the two commands. Everything lives in .venv; nothing else is touched but the user's cache folder.

# The first Python that can run this: 3.10 to 3.12.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
    $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(shell cd protos && find llamarpc -name '*.proto' | sort)
SERVICE_PROTOS := $(shell cd protos && grep -rl '^service ' llamarpc | sort)
GENERATED := clients/python
CODE := server engine_build clients/python tests
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve test test-unit soak check format proto lock clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/installed-embedded  ## fetch a small model and serve it on this machine's CPU
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m server --embedded $(ARGS)

test: $(VENV)/installed-dev  ## run every test, the end-to-end ones on a real Triton with a real model
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-unit: $(VENV)/installed-dev  ## run the tests that need nothing but our own code: seconds
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 -m "not end_to_end and not real_parts" $(ARGS)

soak: $(VENV)/installed-dev  ## keep every kind of caller busy for MINUTES=10 and see that nothing is left behind; then the full fuzz
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10)
	@PATH="$(CURDIR)/$(BIN):$$PATH" FUZZ_FACTOR=10 $(BIN)/python -m pytest -q -s tests/server/test_fuzz.py tests/server/test_fuzz_process.py

check: $(VENV)/installed-dev  ## format, lint, types, proto lint, generated code, import arrows
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	@$(MAKE) --no-print-directory check-generated
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_import_arrows.py

.PHONY: check-generated
check-generated: $(VENV)/installed-dev
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call generate,$$fresh) \
	&& touch $$fresh/llamarpc/v1/__init__.py \
	&& { diff -rq -x __pycache__ $$fresh/llamarpc/v1 $(GENERATED)/llamarpc/v1 \
	    || { echo "the generated code is not what the protos give; run 'make proto'"; exit 1; }; } \
	&& echo "generated code is up to date"

format: $(VENV)/installed-dev  ## put the code in shape
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/buf format --write protos

define generate
$(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(1) --pyi_out=$(1) $(PROTOS) \
    && $(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=$(1) $(SERVICE_PROTOS)
endef

proto: $(VENV)/installed-dev  ## make the Python code from the protos again
	$(call generate,$(GENERATED))

lock: $(VENV)/python  ## choose the newest allowed versions of all dependencies
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    --upgrade --extra embedded pyproject.toml locks/build.in --output-file locks/embedded.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    --constraint locks/embedded.txt --extra dev pyproject.toml locks/build.in --output-file locks/dev.txt

clean:  ## remove everything that make made here (not the cache folder of the user)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/python:
	@test "$$(uname -sm)" = "Linux x86_64" || { echo "this runs on Linux x86-64 only; here is $$(uname -sm)"; exit 1; }
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed; name one with 'make PYTHON=/path/to/python3.11'"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed-%: locks/%.txt pyproject.toml | $(VENV)/python
	@echo "installing what llamarpc needs ($*); the first time takes a minute or two"
	@$(PIP) install --require-hashes -r $<
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
