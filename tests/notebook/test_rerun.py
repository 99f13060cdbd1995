"""Rerun cells after a parameter has changed: results match the parameters, or a message says from where to rerun."""

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
from textbert.notebook.parameters import get_parameters

CHANGED = {
    "data_prep": {
        **{"TRAIN_FILE": "other.csv", "TEST_FILE": "third.csv", "TEXT_COLUMN": "summary", "LABEL_COLUMN": "verdict"},
        **{"CLASSES": [["good"], ["bad"]], "LABEL_NAMES": ["no", "yes"], "ENCODING": "cp1252", "DEV_SHARE": 0.4},
        **{"RANDOM_SEED": 7, "CLEAN_TRAIN": True},
    },
    "train": {
        **{"MAX_SEQ_LENGTH": 7, "TRUNCATION": "tail", "TRAIN_BATCH_SIZE": 8, "LEARNING_RATE": 1e-3, "RANDOM_SEED": 7},
        **{"VALIDATION_SHARE": 0.4, "TRAIN_ROWS": 30, "CLASS_WEIGHTS": "balanced", "FALSE_POSITIVE_COST": 3.0},
    },
    "evaluate": {"SHOW_MISTAKES": 1, "CHECK_LABELS": 9, "EVAL_BATCH_SIZE": 3, "REPORT_TEXTS": False},
}


def read_results(notebook):
    """Return the results that a notebook has written, without the time of training."""
    if notebook == "data_prep":
        names = ("data/raw/train.tsv", "data/raw/dev.tsv", "data/raw/labels.json", "outputs/raw/data_report.csv")
        return [Path(name).read_bytes() for name in names]
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
        lines = ["label,text,summary,verdict\n"]
        for i in range(48):
            label, verdict = ("bad", "good")[i % 2], ("yes", "no")[i % 3 == 0]
            lines.append(f"{label},{label} caf\u00e9 with {dish} {i - i % 9},{dish} of day {i},{verdict}\n")
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
@pytest.mark.usefixtures("fresh_accelerator")
def test_rerun_cells_match_the_parameters(project, notebook):
    assert CHANGED[notebook].keys() <= get_parameters(notebook).keys()
    if notebook == "evaluate":
        Session("train").run()
    session, refused, correct = Session(notebook), 0, 0
    for parameter, value in CHANGED[notebook].items():
        Session(notebook).run(**{parameter: value})
        expected = read_results(notebook)
        first, *_, last = session.cells_with(parameter) * 2
        for start in {first, last}:
            session.run()
            session.names[parameter] = value
            try:
                session.run(start)
            except ValueError as error:
                assert "Rerun from that section" in str(error)
                refused += 1
            else:
                assert read_results(notebook) == expected, (parameter, start)
                correct += 1
    assert correct >= len(CHANGED[notebook]) and refused <= correct


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
        session.run(search - 1, SEARCH_LEARNING_RATES=list(rates))
        assert read_results("train") == expected[rates]


LABELS, TEXTS = "Labels: to 0 and 1", "Texts: what must go, and what must stay"
MORE, FOLDS, CALIBRATION = "More from the same data", "Cross-validation", "Calibration"
SKIPPED = {  # the parameter that is changed, its new value, the sections that are then run, and the skipped one
    "data_prep": ("CLASSES", [["good"], ["bad"]], [LABELS, f"{LABELS}, second cell"], TEXTS),
    "train": ("LEARNING_RATE", 1e-3, ["Training", MORE, f"{MORE}, second cell", FOLDS], CALIBRATION),
    "evaluate": ("TASK_NAME", "other", ["the check of the parameters", "The model"], "Predict"),
}


@pytest.mark.parametrize("notebook", list(SKIPPED))
@pytest.mark.usefixtures("fresh_accelerator")
def test_skipped_cell_is_named(project, notebook):
    parameter, value, rerun, skipped = SKIPPED[notebook]
    Session("train").run(RESUME=False)
    shutil.copytree("data/tiny", "data/other", dirs_exist_ok=True)
    shutil.copy("cache/tiny.tar.gz", "cache/other.tar.gz")
    session = Session(notebook)
    session.run()
    session.names[parameter] = value
    for section in rerun:
        (cell,) = (cell for cell in session.cells if f'"{section}", globals()' in cell)
        exec(cell, session.names)
    (position,) = (i for i, cell in enumerate(session.cells) if f'"{skipped}", globals()' in cell)
    with pytest.raises(ValueError, match=f"'{re.escape(skipped)}' has not been run, or is out of date"):
        session.run(position + 1)


@pytest.mark.usefixtures("fresh_accelerator")
def test_file_that_changed_in_between_is_noticed(project):
    session, path = Session("train"), Path("data/tiny/train.tsv")
    content = path.read_text()
    session.run(stop=session.parameters + 4)  # the examples are read
    try:
        path.write_text("".join(content.splitlines(keepends=True)[1:]))
        with pytest.raises(ValueError, match=r"train\.tsv changed on disk"):
            session.run(session.parameters + 4)
    finally:
        path.write_text(content)
