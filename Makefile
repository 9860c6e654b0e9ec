PYTHON ?= python3
VENV := .venv
REQUIREMENTS := -r requirements.txt -r requirements-dev.txt -c constraints.txt

.PHONY: setup test test-all demo reference docs clean

setup: $(VENV)/installed

# uv if it can be had, else pip. uv compiles bytecode only when told to, and without it every start is slow.
$(VENV)/installed: requirements.txt requirements-dev.txt constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) found; install Python 3.11 or newer, or call make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: this Python has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet uv 2>/dev/null || echo "make: uv cannot be had, installing with pip"
	@if $(VENV)/bin/python -m uv --version >/dev/null 2>&1; then \
		$(VENV)/bin/python -m uv pip install --quiet --python $(VENV)/bin/python --compile-bytecode $(REQUIREMENTS); \
	else \
		$(VENV)/bin/python -m pip install --quiet $(REQUIREMENTS); \
	fi
	@touch $@

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/python -m pytest

test-all: setup
	$(VENV)/bin/python -m pytest -m ""

# The story of the laboratory; DEMO has flags of demo.py, such as DEMO="--task classroom".
demo: setup
	$(VENV)/bin/python demo.py $(DEMO)

# docs/reference.md, from the parsers and the registry; a test fails where it is stale.
reference: setup
	$(VENV)/bin/python -m docs.make_reference

# The site of docs/ and README.md, in site/. Its tools get an environment of their own.
docs: $(VENV)/docs/installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict --quiet

$(VENV)/docs/installed: requirements-docs.txt
	$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/python -m pip install --quiet -r requirements-docs.txt
	@touch $@

clean:
	rm -rf $(VENV)
