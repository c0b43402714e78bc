# One environment, .venv, for everything. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Start-up of torch without cached bytecode takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
# uv trusts its own certificates only; a proxy that inspects traffic has one the system knows.
export UV_SYSTEM_CERTS := true

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format figures bench clean lock

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Create .venv with the pinned versions

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; try: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	  $$uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock && \
	  $$uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY) ## Run FedTSDP on the embedded digits, with tables and figures
	$(BIN)/fedtsd train

test: $(READY) ## Run the tests
	$(BIN)/pytest -n auto

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

figures: $(READY) ## Draw the paper's figures, quick profile (PROFILE=full for all), running what is missing
	$(BIN)/fedtsd figures profile=$(or $(PROFILE),quick)

bench: $(READY) ## Measure how fast the engines are, over a plain centralized loop
	$(BIN)/fedtsd bench

lock: $(READY) ## Choose versions anew and pin them in requirements.lock
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	  $$uv pip compile --quiet --universal --python-version 3.11 --extra dev \
	    --custom-compile-command "make lock" --upgrade pyproject.toml -o requirements.lock

clean: ## Remove .venv and caches; runs under outputs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
