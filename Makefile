# make tutorial   set up, then run the three notebooks on the sample
# make test       set up, then test
# make lab        set up, then open JupyterLab on the notebooks
# make notebooks  run and clean the notebooks that are kept in git
# make lint       check style and spelling
# make fuzz       hostile input and faults at length: 20,000 cases of each kind, for half an hour

PYTHON ?= python3
TASK_NAME ?= sample
BIN := .venv/bin
NOTEBOOKS := data_prep train evaluate

.PHONY: tutorial test lab notebooks lint fuzz setup
.DELETE_ON_ERROR:

setup: .venv/ready

# the file appears last, so an installation that was broken off is taken up again
.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements.txt
	@touch $@

# progress is told in lines: bars are widgets, which a terminal cannot show
tutorial: setup
	@mkdir -p outputs/$(TASK_NAME)
	@for name in $(NOTEBOOKS); do \
		echo; echo "== $$name.ipynb =="; \
		TQDM_DISABLE=1 $(BIN)/papermill $$name.ipynb outputs/$(TASK_NAME)/$$name.ipynb \
			-p TASK_NAME $(TASK_NAME) --log-output --no-progress-bar || exit 1; \
	done
	@echo; echo "Done. The executed notebooks and the report are in outputs/$(TASK_NAME)/,"
	@echo "the model is cache/$(TASK_NAME).tar.gz. To work with them yourself: make lab"

test: setup
	$(BIN)/python -m pytest tests

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
	$(BIN)/ruff format --check .
	$(BIN)/codespell --skip "data,cache,outputs,.venv,.git,*.png" --ignore-words-list caf,couldn,didn,doesn,hadn,hasn,isn,shouldn,wasn,weren,wouldn --ignore-regex "[A-Za-z0-9+/=]{80,}" .

fuzz: setup
	$(BIN)/python -m pytest tests -m hypothesis --hypothesis-profile=fuzz
	$(BIN)/python -m pytest tests/test_fuzz.py tests/test_faults.py -m "not hypothesis" --hypothesis-profile=fuzz
