"""What the first cell of a notebook starts: the table of parameters, and the guard in IPython, once."""

import os
import subprocess
import sys

import nbformat
import papermill
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from test_parameters import TRAIN

from textbert.notebook.guard import Guard, StaleCellError
from textbert.notebook.parameters import get_parameters
from textbert.notebook.session import Notebook, start_notebook


def test_table_of_parameters_has_those_that_are_not_the_default(capsys):
    defaults = {name: parameter.default for name, parameter in get_parameters("train").items()}
    table = Notebook("train", defaults | {"SEARCH_EPOCHS": [3], "FOLDS": 0, "model": 1}).show_parameters()
    assert table.columns.tolist() == ["value", "default"] and len(table) == 2
    assert table.loc["SEARCH_EPOCHS"].tolist() == ["[3]", "[]"] and table.loc["FOLDS"].tolist() == ["0", "None"]
    assert capsys.readouterr().out == f"All {len(defaults)} parameters are valid; these differ from the defaults:\n"
    assert Notebook("train", defaults).show_parameters() is None
    assert capsys.readouterr().out == f"All {len(defaults)} parameters are valid and have their default values\n"


def test_parameters_are_the_current_ones_checked():
    names = dict(TRAIN)
    notebook = Notebook("train", names)
    names["TRAIN_BATCH_SIZE"] = "4"
    assert notebook.parameters == TRAIN | {"TRAIN_BATCH_SIZE": 4}
    names["FOLDS"] = 1
    for use in (notebook.show_parameters, lambda: notebook.parameters):
        with pytest.raises(ValueError, match="FOLDS: expected"):
            use()


def test_cell_that_reads_all_parameters_depends_on_each():
    names = dict(TRAIN)
    guard = Guard(names, TRAIN)
    names["notebook"] = Notebook("train", names, guard)
    guard.check("settings = notebook.parameters")
    exec("settings = notebook.parameters", names)
    guard.record(True)
    guard.check("print(settings)")
    names["FOLDS"] = 3
    with pytest.raises(StaleCellError, match="`settings` was made with FOLDS None, which is 3 now"):
        guard.check("print(settings)")


def test_script_has_no_guard(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "tests")
    notebook = start_notebook("evaluate", folder=tmp_path)
    assert notebook.guard is None and notebook.namespace is globals()
    assert "torch " in capsys.readouterr().out and os.getcwd() == str(tmp_path)


CELLS = [  # cells after the table of parameters, with what they print, or their error
    ("x = [FOLDS]", ""),
    (None, "torch "),  # the set-up cell again
    ("notebook.show_parameters()", "FOLDS"),
    ("print(len(get_ipython().ast_transformers), x)", "1 [3]"),
    ("print(len(get_ipython().events.callbacks['post_run_cell']))", "1"),
    ("FOLDS = 4", ""),
    ("x", "RefusedCell: `x` was made with FOLDS 3, which is 4 now: run again from the cell that makes `x`"),
    ("FOLDS = 1", ""),
    ("print(1)", "RefusedCell: FOLDS: expected None, or 0, or an integer from 2 to 100, got 1"),
    ("FOLDS = 3\nFOLD = 1", ""),
    ("print(1)", "FOLD is not a parameter of train.ipynb: did you mean FOLDS?"),
    ("del FOLD", ""),
    ("print(x)", "[3]"),
]


def test_cells_in_a_kernel():
    """train.ipynb up to the table of its parameters, as papermill prepares it, and then `CELLS`."""
    parameters = {"TASK_NAME": "mine", "FOLDS": "3"}
    notebook = papermill.execute_notebook(ROOT / "train.ipynb", None, parameters, prepare_only=True, progress_bar=False)
    (end,) = (i for i, cell in enumerate(notebook.cells) if cell.source == "notebook.show_parameters()")
    setup = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells = notebook.cells[: end + 1] + [nbformat.v4.new_code_cell(source or setup) for source, _ in CELLS]
    folder = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, kernel_name="python3", resources=folder, allow_errors=True).execute()
    assert "FOLDS: interpreting '3' as 3" in str(notebook.cells[end].outputs)
    for cell, (source, expected) in zip(notebook.cells[end + 1 :], CELLS, strict=True):
        outputs = "".join(f"{o.get('text', '')}{o.get('evalue', '')}{o.get('data', '')}" for o in cell.outputs)
        names = "".join(f"{o.ename}: " for o in cell.outputs if o.output_type == "error")
        assert expected in names + outputs and bool(outputs) == bool(expected), source


@pytest.mark.slow
def test_only_the_main_process_prints():
    code = (
        "from textbert.training import distributed as d\nprint(d.silence_other_processes())\nraise SystemExit('error')"
    )
    for rank, printed in (("0", "2\n"), ("1", "")):
        environment = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        process = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert (process.stdout, process.stderr) == (printed, "error\n")
