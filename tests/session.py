"""A notebook session without Jupyter: code cells of a notebook run in one namespace, in any order, under the guard."""

import re

import matplotlib.pyplot as plt
import nbformat
from conftest import ROOT

from textbert.notebook.guard import Guard, StaleCellError, find_names
from textbert.notebook.parameters import get_parameters

# parameters for a tiny data set and a tiny BERT
BASE = {
    "data_prep": {"TASK_NAME": "raw", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 12},
    "train": {
        **{"TASK_NAME": "tiny", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 12, "TRAIN_BATCH_SIZE": 16},
        **{"NUM_TRAIN_EPOCHS": 1, "LEARNING_RATE": 3e-3, "VALIDATION_SHARE": 0.2, "CHECKPOINT_MINUTES": 5},
        "FOLDS": 0,
    },
    "evaluate": {"TASK_NAME": "tiny", "SHOW_MISTAKES": 2, "CHECK_LABELS": 0},
}


class Session:
    """Runs the code cells of a notebook in one namespace, in any order, as a kernel does; the guard checks each."""

    def __init__(self, notebook):
        cells = nbformat.read(ROOT / f"{notebook}.ipynb", as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        self.notebook = notebook
        self.cells = [cell.source for cell in code]
        self.parameters = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
        self.names = {"__name__": "__main__"}
        self.guard = Guard(self.names, get_parameters(notebook))

    def run_cell(self, number):
        """Run a cell; raise StaleCellError if the guard refuses it."""
        self.guard.check(self.cells[number])
        finished = False
        try:
            exec(compile(self.cells[number], f"{self.notebook}, code cell {number}", "exec"), self.names)
            finished = True
        finally:
            self.guard.record(finished)
            plt.close("all")
        if number == 0:
            self.names["notebook"].guard = self.guard  # which in a kernel start_notebook does

    def run(self, start=0, stop=None, **changed):
        """Run the cells from `start` up to but not including `stop`, with the parameters in `changed`."""
        self.names.update(changed)
        for number in range(start, len(self.cells) if stop is None else stop):
            self.run_cell(number)
            if number == self.parameters:
                self.names.update(BASE[self.notebook] | changed)

    def is_refused(self, number):
        """Return the message if the guard refuses a cell now, else None; the cell is not run."""
        try:
            self.guard.check(self.cells[number])
        except StaleCellError as error:
            return str(error)
        finally:
            self.guard.pending.clear()
        return None

    def find_maker(self, message):
        """Return the number of the cell that makes the name in the guard's message."""
        name = re.search(r"the cell that makes `(\w+)`", message)[1]
        return self.find_cell(name)

    def find_cell(self, name):
        """Return the number of the first cell after the parameters that binds a name."""
        numbers = range(self.parameters + 1, len(self.cells))
        return next(number for number in numbers if name in find_names(self.cells[number]).binds)

    def cells_with(self, parameter):
        """Return the numbers of the cells after the parameters that use a parameter."""
        matches = [i for i, cell in enumerate(self.cells) if re.search(rf"\b{parameter}\b", cell)]
        return [i for i in matches if i > self.parameters]
