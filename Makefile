# `make demo` and `make test` do all the set-up on a machine that has Python 3.11 (or newer) and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
# faiss-cpu and faiss-gpu must never meet: one of the two, by what the machine has
FAISS  ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# torch and torchvision stand in the same pip call as everything else and are held by the constraints:
# left to itself pip would take the newest CUDA torch
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

DEMO    = out/demo.retr

.PHONY: demo test quick check mutants docs format lock clean

demo: $(VENV)/.demo
	@mkdir -p out
	$(BIN)/retr index build examples/hrf45 --metadata examples/hrf45/labels.csv --index $(DEMO)
	$(BIN)/retr query --image examples/hrf45/glaucoma/05_g.jpg -k 5 --index $(DEMO)

test: $(VENV)/.dev
	$(BIN)/python -m pytest

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q src/retr
	$(BIN)/python -m retr.cli._docs --check docs/cli.md

# What the tests catch: mutmut, in a copy with real folders where src/retr has links, and a deeper stack for its
# wrappers. Hours in all, so name a part: make mutants ONLY='retr.index.filters*'
mutants: $(VENV)/.dev
	$(PIP) "mutmut>=3.8"
	rm -rf out/mutants && mkdir -p out/mutants
	cp -rL src tests pyproject.toml out/mutants
	printf '\nsys.setrecursionlimit(10_000)\n' >> out/mutants/tests/conftest.py
	cd out/mutants && PYTHONPATH=$$PWD/mutants/src OMP_NUM_THREADS=1 $(abspath $(BIN))/mutmut run $(ONLY)

docs: $(VENV)/.dev
	$(BIN)/python -m retr.cli._docs docs/cli.md

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# write constraints.txt anew from this environment, after trying newer versions in it
lock: $(VENV)/.dev
	@echo '# Exact versions that are tested together on Python 3.11; written by `make lock`.' > constraints.new
	$(BIN)/python -m pip freeze --exclude-editable | sed -n -e 's/+cpu$$//' -e '/^\(nvidia-\|triton\|cuda-\)/!p' \
	    -e 's/^faiss-cpu==/faiss-gpu==/p' >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) out build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) torch torchvision -e ".[$(FAISS)]"
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing the developer's tools into $(VENV)"
	$(PIP) torch torchvision -e ".[$(FAISS),dicom,remote,eval,dev]"
	@touch $@
