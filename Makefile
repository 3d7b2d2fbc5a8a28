# Two commands for a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
# The first that is new enough and can make an environment; another: make PYTHON=/path/to/python3
PYTHON ?= $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c \
	'import sys, venv, ensurepip; print("$(name)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
LOG := $(VENV)/test.log

.PHONY: demo test check format clean

demo: $(VENV)/.demo
	rm -rf $(DEMO)
	$(BIN)/inception train digits --width 0.25 --epochs 12 --output $(DEMO)
	$(BIN)/inception evaluate $(DEMO)/bundle digits --report $(DEMO)/report.html
	$(BIN)/python examples/digits_as_files.py $(DEMO)/images
	$(BIN)/inception predict $(DEMO)/bundle $(DEMO)/images
	@echo "Open $(DEMO)/report.html and $(DEMO)/curves.png"

# Every part runs, also after one that failed; what failed is listed at the end. The tests of tests/train send
# signals to their own process: workers of their own.
test: $(VENV)/.dev
	@: > $(LOG); \
	part() { echo "$$*"; { "$$@" 2>&1 || echo "FAILED $$*"; } | tee -a $(LOG); }; \
	part $(BIN)/ruff format --check .; \
	part $(BIN)/ruff check .; \
	part $(BIN)/mypy; \
	part $(BIN)/pytest -n auto --ignore=tests/train; \
	part $(BIN)/pytest -n auto tests/train; \
	if grep -qE '^(FAILED|ERROR) ' $(LOG); then \
		echo; echo "What failed, of all parts:"; grep -E '^(FAILED|ERROR) ' $(LOG); exit 1; \
	fi

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its module venv is needed: install it" \
		"(Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python)," \
		"or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
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
