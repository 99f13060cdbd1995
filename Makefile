# make tutorial   set up, then run the three notebooks on the sample
# make test       set up, then test
# make lab        set up, then open JupyterLab on the notebooks
# make notebooks  run and clean the notebooks that are kept in git
# make lint       check style and spelling
# make versions   try the lowest and the highest versions that pyproject.toml allows, each in a new environment
# make fuzz       hostile input and faults at length: 20,000 cases of each kind, for half an hour

PYTHON ?= python3
TASK_NAME ?= sample
BIN := .venv/bin
NOTEBOOKS := data_prep train evaluate

.PHONY: tutorial test lab notebooks lint versions fuzz setup
.DELETE_ON_ERROR:

# any Python can read this, and ends with the message where it is too old
NEW_ENOUGH := import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is \
%d.%d (%s): install one, or name it, as in make PYTHON=python3.12" % (v[0], v[1], sys.executable))
# an environment knows its folder and its Python: where it was moved, or that Python is gone, its pip does not start
REMAKE := { echo "the environment in .venv does not work here, perhaps because it was moved: delete .venv, and call make again" >&2; exit 1; }

setup: .venv/ready
	@$(BIN)/pip --version >/dev/null 2>&1 || $(REMAKE)

# compiled by all cores, which pip does by one, and without the packages' own tests. The file appears last, so an
# installation that was broken off is taken up again
.venv/ready: requirements.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	@[ ! -e .venv/bin ] || $(BIN)/python -c '$(NEW_ENOUGH)' || $(REMAKE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: -r requirements.txt
	@$(BIN)/python -m compileall -qq -j 0 -x "/tests?/" .venv || true  # what is for other Pythons does not compile
	@echo "$$($(BIN)/python -m pip list --disable-pip-version-check | tail -n +3 | wc -l) packages are installed in .venv, $$(du -sh .venv | cut -f 1)"
	@touch $@

tutorial: setup
	@$(BIN)/python -m textbert.notebook.tutorial $(TASK_NAME)

test: setup
	$(BIN)/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

lab: setup
	$(BIN)/jupyter lab

# no progress bars: a saved notebook would show them frozen
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

versions: setup
	$(BIN)/python -m pytest tests/check_versions.py -v

fuzz: setup
	$(BIN)/python -m pytest tests -m hypothesis --hypothesis-profile=fuzz
	$(BIN)/python -m pytest tests/test_fuzz.py tests/test_faults.py -m "not hypothesis" --hypothesis-profile=fuzz
