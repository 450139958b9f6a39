# make demo: from nothing to a two-regime diagram; make test: what the continuous integration runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never

.PHONY: demo test test-fast lint clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m twore.recipes.cifar_scaling --out runs/demo
	@echo "Open runs/demo/report.html in a browser."

test: lint
	$(BIN)/python -m pytest -n 2

test-fast: lint
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check twore tests benchmarks data_scripts examples
	$(BIN)/ruff format --check twore tests benchmarks data_scripts examples
	$(BIN)/mypy

# torch and torchvision come from one resolution, so that they fit each other
$(VENV)/demo.stamp: setup.cfg pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e .
	touch $@

$(VENV)/test.stamp: setup.cfg pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[dev,track]'
	touch $@ $(VENV)/demo.stamp

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "twore needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
