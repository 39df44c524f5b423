# `make demo` and `make test` do all the set-up on a machine that has Python 3.11 (or newer) and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV   ?= .venv
BIN     = $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# faiss-cpu and faiss-gpu must never meet: one of the two, by what the machine has
FAISS  ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# the base and faiss are enough to try it; tests need everything
ALL     = $(FAISS),dicom,mcp,pacs,remote,eval,geometry,dev
# torch and torchvision stand in the same pip call as everything else and are held by the constraints:
# left to itself pip would take the newest CUDA torch
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

DEMO    = out/demo.retr

# where it is set (containers, CI), each of the hundreds of Pythons that the tests start would compile all modules anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick check mutants docs format lock clean

demo: $(VENV)/.demo
	@mkdir -p out
	$(BIN)/retr index build examples/hrf45 --metadata examples/hrf45/labels.csv --index $(DEMO)
	$(BIN)/retr query --image examples/hrf45/glaucoma/05_g.jpg -k 5 --index $(DEMO)
	@echo "look at it: $(BIN)/retr serve --index $(DEMO), then open http://127.0.0.1:7860/"

test: $(VENV)/.dev
	@.ci/programs strace chromium Orthanc
	$(BIN)/python -m pytest

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/public_types.py examples/*.py examples/my_encoder/*.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q src/retr
	$(BIN)/python -m retr.cli._docs --check docs/cli.md
	rm -rf out/dist
	$(BIN)/hatchling build -d out/dist
	$(BIN)/twine check --strict out/dist/*

# What the tests catch, by changes to the code. Hours in all, so name modules: make mutants ONLY='index.plan index.scan.exact'
mutants: $(VENV)/.dev
	$(PIP) "mutmut==3.8.1"
	$(BIN)/python tests/mutants.py $(ONLY)

# The site, in out/site; nothing is fetched to build it or by who reads it. The variable silences an advertisement.
docs: $(VENV)/.docs
	$(BIN)/python -m retr.cli._docs docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "look at it: out/site/index.html"

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

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a minute the first time)"
	$(PIP) faiss-$(FAISS) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing everything that tests need into $(VENV) (a few minutes the first time)"
	$(PIP) torch torchvision -e ".[$(ALL)]"
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo "installing what builds the documentation site into $(VENV)"
	$(PIP) -e ".[docs]"
	@touch $@
