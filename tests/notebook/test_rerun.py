"""Rerun cells after a parameter has changed: results match the parameters, or a message says from where to rerun."""

import builtins
import json
import os
import re
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT
from session import BASE, Session

from textbert.model import archive
from textbert.model.archive import read_archive
from textbert.model.state_dict import read_weights
from textbert.notebook.guard import StaleCellError, find_names
from textbert.notebook.parameters import get_parameters

pytestmark = pytest.mark.slow

CHANGED = {
    "data_prep": {
        **{"TRAIN_FILE": "other.csv", "TEST_FILE": "third.csv", "LABEL_COLUMN": "verdict"},
        **{"TEXT_COLUMN": ["summary", "text"]},
        **{"CLASSES": [["good"], ["bad"]], "LABEL_NAMES": ["no", "yes"], "ENCODING": "cp1252", "DEV_SHARE": 0.4},
        **{"RANDOM_SEED": 7, "CLEAN_TRAIN": True, "ESCAPED_NEWLINES": True, "GROUP_COLUMN": "customer"},
        **{"TIME_COLUMN": "date", "NEAR_DUPLICATES": None},
    },
    "train": {
        **{"MAX_SEQ_LENGTH": 7, "TRUNCATION": "tail", "TRAIN_BATCH_SIZE": 8, "LEARNING_RATE": 1e-3, "RANDOM_SEED": 7},
        **{"VALIDATION_SHARE": 0.4, "TRAIN_ROWS": 30, "CLASS_WEIGHTS": "balanced", "FALSE_POSITIVE_COST": 3.0},
        "FOLDS": 2,
    },
    "evaluate": {"SHOW_MISTAKES": 1, "CHECK_LABELS": 9, "EVAL_BATCH_SIZE": 3, "REPORT_TEXTS": False},
}


RESULTS = {
    "data_prep": ("data/raw/train.tsv", "data/raw/dev.tsv", "data/raw/labels.json", "outputs/raw/data_report.csv"),
    "train": ("cache/tiny.tar.gz",),
    "evaluate": ("outputs/tiny/report/report.html",),
}


def read_results(notebook):
    """Return the results that a notebook has written, without the time of training."""
    if notebook == "data_prep":
        groups = Path("data/raw/train_groups.json")
        return [Path(name).read_bytes() for name in RESULTS[notebook]] + [groups.exists() and groups.read_bytes()]
    if notebook == "evaluate":
        report = Path("outputs/tiny/report/report.html").read_text(encoding="utf-8")
        return re.sub(r'src="data:[^"]*"', "", report)
    files = read_archive("cache/tiny.tar.gz")
    config = json.loads(files["config.json"])
    del config["classifier"]["trained"]
    weights = {
        name: tensor.numpy().tobytes() for name, tensor in read_weights(files["pytorch_model.bin"], "tiny").items()
    }
    return config, weights, files["validation.csv"], files["seen.bin"]


@pytest.fixture(scope="module")
def project(tmp_path_factory, bert_files):
    """A folder with a tiny data set and a tiny BERT, the current one."""
    folder, old_folder, old_path = tmp_path_factory.mktemp("project"), os.getcwd(), sys.path.copy()
    shutil.copy(ROOT / "tools.py", folder)
    (folder / "textbert").symlink_to(ROOT / "textbert")
    (folder / "data/tiny").mkdir(parents=True)
    rng = np.random.default_rng(2)
    for name, rows in (("train", 60), ("dev", 16)):
        lines = (f"{i}\t{i % 2}\ta\t{('bad', 'good')[i % 2]} soup {rng.integers(10**6)} tea\n" for i in range(rows))
        (folder / f"data/tiny/{name}.tsv").write_text("".join(lines))
    (folder / "data/raw").mkdir()
    for name, dish in (("train", "soup"), ("other", "cake"), ("third", "tea")):
        lines = ["label,text,summary,verdict,customer,date\n"]
        for i in range(48):
            label, verdict = ("bad", "good")[i % 2], ("yes", "no")[i % 3 == 0]
            texts = f"{label} caf\u00e9 with {dish}\\n{i - i % 9},{dish} of day {i}"
            lines.append(f"{label},{texts},{verdict},C{i // 9},2025-{i % 5 + 1:02}-{i % 9 + 10}\n")
        (folder / f"data/raw/{name}.csv").write_text("".join(lines), encoding="utf-8")
    archive.write_archive(bert_files(), folder / "cache/tiny-bert.tar.gz")
    os.environ["TQDM_DISABLE"] = "1"
    os.chdir(folder)
    plt.switch_backend("agg")
    yield folder
    os.chdir(old_folder)
    sys.path[:] = old_path
    del os.environ["TQDM_DISABLE"]


@pytest.mark.parametrize("notebook", list(BASE))
def test_each_name_is_made_by_one_cell(notebook):
    """Else the guard cannot tell what a name holds; a cell may bind a temporary name that another cell binds, too."""
    cells = [find_names(source) for source in Session(notebook).cells]
    parameters, functions = get_parameters(notebook), {}
    for cell in cells:
        functions |= cell.functions
    for number, cell in enumerate(cells):
        names, waiting = set(), list(cell.reads)
        while waiting:
            name = waiting.pop()
            if name not in names and name not in parameters:
                names.add(name)
                waiting += functions.get(name, set()) - cell.binds.keys()
        for name in names - set(dir(builtins)):
            makers = [i for i, other in enumerate(cells) if name in other.binds]
            # imports may be repeated, such as Path in the set-up cell
            assert len([i for i in makers if i > 1]) <= 1, f"{name} of cell {number} is made by cells {makers}"
            assert not makers or min(makers) < number, f"cell {number} reads {name}, made by cells {makers}"


def run_from(session, start):
    """Run the cells from `start` on; return the guard's message if it refuses one, else None."""
    try:
        session.run(start)
    except StaleCellError as error:
        return str(error)
    return None


def get_times(notebook):
    """Return when the results of a notebook were written."""
    return [Path(name).stat().st_mtime_ns for name in RESULTS[notebook]]


@pytest.mark.parametrize("notebook", list(BASE))
@pytest.mark.usefixtures("fresh_accelerator")
def test_cells_match_the_parameters_or_are_refused(project, notebook):
    """Each parameter is changed after a whole run, and the notebook is run again from each later cell on."""
    assert CHANGED[notebook].keys() <= get_parameters(notebook).keys()
    if notebook == "evaluate":
        Session("train").run()
    session, refused, correct = Session(notebook), 0, 0
    session.run()
    for parameter, value in CHANGED[notebook].items():
        base = session.names[parameter]
        Session(notebook).run(**{parameter: value})
        expected = read_results(notebook)
        first = min(session.cells_with(parameter))  # the cells before it do not depend on the parameter
        session.names[parameter] = value
        messages = {start: session.is_refused(start) for start in range(first, len(session.cells))}
        for start, message in messages.items():
            if message is not None:
                refused += 1
                assert first <= session.find_maker(message) < start, message
            # of cells in a row that are not refused, a run from the first one is one from the others, too
            elif start == first or messages[start - 1] is not None:
                session.run(first, **{parameter: base})
                session.names[parameter], before = value, get_times(notebook)
                message = run_from(session, start)
                if message is not None:  # and it is enough to follow the message
                    assert start > first and run_from(session, session.find_maker(message)) is None, message
                if message is not None or get_times(notebook) != before:
                    assert read_results(notebook) == expected, (parameter, start)
                    correct += 1
        session.run(first, **{parameter: base})
    assert correct >= len(CHANGED[notebook]) and refused > correct


@pytest.mark.usefixtures("fresh_accelerator")
def test_search_forgets_the_previous_one(project):
    base = {"LEARNING_RATE": 1e-6, "NUM_TRAIN_EPOCHS": 20}
    expected = {}
    for rates in ((), (1e-2,), (3e-2,)):
        Session("train").run(**base, SEARCH_LEARNING_RATES=list(rates))
        expected[rates] = read_results("train")
        search = expected[rates][0]["classifier"]["search"]
        assert [row["learning rate"] for row in search] == ([1e-6, *rates] if rates else [])
        assert expected[rates][0]["classifier"]["parameters"]["LEARNING_RATE"] == (rates or (1e-6,))[0]
    session = Session("train")
    (search,) = session.cells_with("SEARCH_LEARNING_RATES")
    session.run(stop=search + 1, **base, SEARCH_LEARNING_RATES=[1e-2])
    for rates in ((3e-2,), (), (1e-2,), (1e-2,)):
        session.run(search, SEARCH_LEARNING_RATES=list(rates))
        assert read_results("train") == expected[rates]


@pytest.mark.usefixtures("fresh_accelerator")
def test_file_that_changed_in_between_is_noticed(project):
    session, path = Session("train"), Path("data/tiny/train.tsv")
    content, features = path.read_text(), session.find_cell("features")
    session.run(stop=features)  # the examples are read
    try:
        path.write_text("".join(content.splitlines(keepends=True)[1:]))
        with pytest.raises(ValueError, match=r"train\.tsv changed on disk"):
            session.run(features)
        reader = session.find_cell("labels")
        session.run_cell(reader)
        assert session.find_maker(session.is_refused(features)) > reader  # what was made of the older rows
    finally:
        path.write_text(content)


def test_interrupted_training_is_not_evaluated(project, monkeypatch):
    session = Session("train")
    training = session.find_cell("first_run")
    session.run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(session.names, "fine_tune", interrupt)
        session.run_cell(training)
    for number in range(training + 1, len(session.cells)):
        message = session.is_refused(number)
        assert message in (None, "the cell that makes `first_run` did not finish: run it again")
    assert session.is_refused(session.find_cell("packed")) is not None
    session.run(training)


def interrupt(run):
    raise KeyboardInterrupt
