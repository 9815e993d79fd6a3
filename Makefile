# make book    the site, every chapter executed        make test     all tests, every chapter at preset quick
# make format  ruff's layout and simple corrections    make sync     set-up cell, address and version everywhere
# make lint    what ruff finds                         make clean    remove what was made, but for .venv
# make experiments    the paper's comparison, or go on with it; METHODS, SEEDS, SIZE and WORKERS change it
# Another Python: make book PYTHON=python3.12          Another size: make book PIXELRL_PRESET=quick

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
PAGE := _build/html/index.html
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TQDM_DISABLE := 1
export OMP_NUM_THREADS := 1

.PHONY: help install book test lint format sync site-check experiments constraints clean

help:
	@sed -n '/^# /s/^# //p;/^$$/q' Makefile

install: $(INSTALLED)

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'error: Python 3.10 or newer is needed. Name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'error: this Python has no venv module.' \
		'On Debian and Ubuntu: sudo apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv

# pip of old is slow; and what is compiled here is only what gets imported.
$(INSTALLED): pyproject.toml requirements.txt constraints.txt pixelrl/__init__.py | $(BIN)/python
	@echo 'installing into .venv; the first time this takes some minutes'
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[book,test]'
	$(BIN)/python -m pixelrl prepare
	touch $(INSTALLED)

# A warning of Sphinx comes only when a page is read; after a failure, all pages are read again.
book: export PIXELRL_PRESET ?= default
book: $(INSTALLED)
	$(BIN)/python tools/execute.py
	$(BIN)/jupyter-book build . -W -n --keep-going --quiet || { rm -rf _build/.doctrees; exit 1; }
	@echo 'The book is ready. Open $(CURDIR)/$(PAGE)'

test: export PIXELRL_PRESET = quick
test: override export PIXELRL_TRAININGS = $(CURDIR)/_build/trainings-of-tests
test: lint
	rm -rf _build/trainings-of-tests
	$(BIN)/python -m pytest -n 2 --nbmake --cov --cov-report term tests notebooks

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

sync:
	$(or $(PYTHON),python3) tools/sync.py

site-check: $(INSTALLED)
	test -f $(PAGE) || { echo 'error: there is no site yet: make book' >&2; exit 1; }
	$(BIN)/python -m pytest tests/test_site.py

METHODS ?= sac predictive-sac sgqn predictive-sgqn
SEEDS ?= 0 1 2
SIZE ?= cpu
WORKERS ?= 1

experiments: $(INSTALLED)
	$(BIN)/python -m pixelrl experiment --methods $(METHODS) --seeds $(SEEDS) --preset $(SIZE) --workers $(WORKERS)

constraints: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python tools/pin.py

clean:
	rm -rf _build .pytest_cache .ruff_cache .coverage
