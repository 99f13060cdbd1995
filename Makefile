# make tutorial   set up, then run the three notebooks on the sample, or on data/tickets/ with TASK_NAME=tickets; others of
#                 their parameters: PARAMETERS="ENCODING=cp1252 MAX_SEQ_LENGTH=128"; only the later notebooks: FROM=train
# make test       set up, then run the fast tests, in minutes
# make test-all   set up, then run all tests
# make lab        set up, then open JupyterLab on the notebooks
# make notebooks  run the committed notebooks and clean their output
# make lint       check style, spelling and types
# make versions   test the lowest and the highest versions that pyproject.toml allows, in new environments
# make fuzz       long tests with malformed input and faults: 20,000 examples of each kind, half an hour

PYTHON ?= python3
TASK_NAME ?= sample
FROM ?= data_prep
PARAMETERS ?=
BIN := .venv/bin
NOTEBOOKS := data_prep train evaluate

.PHONY: tutorial test test-all lab notebooks lint versions fuzz setup
.DELETE_ON_ERROR:

# valid in any Python, so that one that is too old shows the message
NEW_ENOUGH := import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is required, this is \
%d.%d (%s): install one, or pass its name, as in make PYTHON=python3.12" % (v[0], v[1], sys.executable))
# the paths in a virtual environment are absolute: if it was moved, or its Python removed, its pip does not start
REMAKE := { echo "the virtual environment .venv does not work (was it moved?): delete .venv and run make again" >&2; exit 1; }

setup: .venv/ready
	@$(BIN)/pip --version >/dev/null 2>&1 || $(REMAKE)

# the package itself is installed, too, so that scripts anywhere find it; bytecode is compiled on all cores (pip uses
# one), without the packages' own tests; `ready` is created last, so that an interrupted setup is resumed
.venv/ready: requirements.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	@[ ! -e .venv/bin ] || $(BIN)/python -c '$(NEW_ENOUGH)' || $(REMAKE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@$(BIN)/python -m compileall -qq -j 0 -x "/tests?/" .venv || true  # templates for other versions of Python fail
	@echo "$$($(BIN)/python -m pip list --disable-pip-version-check | tail -n +3 | wc -l) packages installed in .venv, $$(du -sh .venv | cut -f 1)"
	@touch $@

tutorial: setup
	@$(BIN)/python -m textbert.notebook.tutorial --from $(FROM) TASK_NAME=$(TASK_NAME) "$$PARAMETERS"

PYTEST := $(BIN)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

lab: setup
	$(BIN)/jupyter lab

# without progress bars, which a saved notebook shows frozen
notebooks: setup
	@for name in $(NOTEBOOKS); do \
		TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
			--ExecutePreprocessor.record_timing=False $$name.ipynb || exit 1; \
	done
	$(BIN)/nbstripout --keep-output --keep-count $(NOTEBOOKS:=.ipynb)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --exclude "*.ipynb" .
	$(BIN)/ruff check --line-length 88 $(NOTEBOOKS:=.ipynb)
	$(BIN)/ruff format --check --line-length 88 $(NOTEBOOKS:=.ipynb)
	$(BIN)/codespell --skip "data,cache,outputs,.venv,.git,*.png" --ignore-words-list caf,couldn,didn,doesn,hadn,hasn,isn,shouldn,wasn,weren,wouldn --ignore-regex "[A-Za-z0-9+/=]{80,}" .
	$(BIN)/mypy

# both ends of the ranges at once
versions: setup
	@$(MAKE) --no-print-directory -j 2 versions-lowest versions-highest

versions-%:
	$(BIN)/python -m pytest tests/check_versions.py -v -k $*

fuzz: setup
	$(BIN)/python -m pytest tests -m hypothesis --hypothesis-profile=fuzz
	$(BIN)/python -m pytest tests/test_fuzz.py tests/test_faults.py -m "not hypothesis" --hypothesis-profile=fuzz
