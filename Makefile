# Two commands for a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo test check format clean

demo: $(VENV)/.demo
	rm -rf $(DEMO)
	$(BIN)/inception train digits --width 0.25 --epochs 12 --output $(DEMO)
	$(BIN)/inception evaluate $(DEMO)/bundle digits --report $(DEMO)/report.html
	$(BIN)/python examples/digits_as_files.py $(DEMO)/images
	$(BIN)/inception predict $(DEMO)/bundle $(DEMO)/images
	@echo "Open $(DEMO)/report.html and $(DEMO)/curves.png"

test: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --ignore=tests/train
	# These send signals to their own process: workers of their own.
	$(BIN)/pytest -n auto tests/train

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[train,report]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .ruff_cache .pytest_cache
