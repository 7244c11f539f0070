# Thin on purpose: each target is one command, which the README also lists for Windows.
#   make PYTHON=python3.11 ...   chooses the Python that makes .venv (3.11 or newer)
#   make LESSON=start_here ...   chooses the lesson
PYTHON ?= python3
LESSON ?= word_vectors
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TEACHING := $(VENV)/.teaching

ifneq ($(filter lesson,$(MAKECMDGOALS)),)
ifeq ($(strip $(LESSON)),)
$(error LESSON is empty. Name a lesson, as in: make lesson LESSON=word_vectors (notebooks/lessons.yaml lists them))
endif
endif

.DEFAULT_GOAL := help
.PHONY: help install teaching python lesson course test verify lab notebooks slides site bench lint

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

lesson: $(INSTALLED)  ## run one lesson: LESSON=word_vectors, or its number
	$(BIN)/pfmcourse run $(LESSON)

course: $(INSTALLED)  ## run every lesson
	$(BIN)/pfmcourse run --all

test: $(TEACHING)  ## unit tests, then every lesson at the smoke preset
	$(BIN)/python -m pytest -n 2 tests --ignore=tests/benchmarks
	$(BIN)/pfmcourse verify --preset smoke --jobs 2

verify: $(INSTALLED)  ## every lesson at the laptop preset; claims and checked outputs compared
	$(BIN)/pfmcourse verify --preset laptop

lab: $(INSTALLED)  ## open the lessons in JupyterLab
	$(BIN)/jupyter lab notebooks

notebooks: $(INSTALLED)  ## make the committed notebooks, the ledger and the README's tables again
	$(BIN)/pfmcourse notebooks

slides: $(TEACHING)  ## make the slide decks
	$(BIN)/pfmcourse slides

site: $(TEACHING)  ## make the site: lessons, timeline, results, reference, glossary, teacher's guide
	$(BIN)/pfmcourse site

bench: $(INSTALLED)  ## compare speed with the peers
	$(BIN)/python -m pytest tests/benchmarks -s

lint: $(INSTALLED)  ## ruff: rules and format
	$(BIN)/ruff check pfmcourse tests docs notebooks/text
	$(BIN)/ruff format --check pfmcourse tests docs notebooks/text

install: $(INSTALLED)  ## make .venv and install what learners need (the other targets do it when needed)

teaching: $(TEACHING)  ## install what lecturers and maintainers need as well

python:
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { \
	  echo "$(PYTHON) does not run. Install Python 3.11 or newer, then name it: make PYTHON=python3.11 ..." >&2; exit 2; }; \
	case "$$version" in 3.1[1-9]|3.[2-9][0-9]|[4-9].*) ;; *) \
	  echo "$(PYTHON) is Python $$version, but the course needs 3.11 or newer. Name one that is: make PYTHON=python3.12 ..." >&2; exit 2;; esac

$(INSTALLED): requirements.txt pyproject.toml
	@$(MAKE) --no-print-directory python PYTHON="$(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) could not make $(VENV). On Debian and Ubuntu: sudo apt install python3-venv. Then delete $(VENV) and run make again." >&2; exit 2; }
	@echo "Installing into $(VENV): some 6 GB with PyTorch, a few minutes, once."
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt || { echo "The installation failed; the lines above say why. It needs the network once, and 6 GB of disk. To start afresh, delete $(VENV) and run make again." >&2; exit 2; }
	@touch $@

$(TEACHING): $(INSTALLED) requirements-teaching.txt
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements-teaching.txt || { echo "The installation of requirements-teaching.txt failed; the lines above say why. It needs the network once. Then run make again." >&2; exit 2; }
	@touch $@
