"""A notebook session without Jupyter: code cells of a notebook run in one namespace, in any order."""

import re

import matplotlib.pyplot as plt
import nbformat
from conftest import ROOT

# parameters for a tiny data set and a tiny BERT
BASE = {
    "data_prep": {"TASK_NAME": "raw", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 12},
    "train": {
        **{"TASK_NAME": "tiny", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 12, "TRAIN_BATCH_SIZE": 16},
        **{"NUM_TRAIN_EPOCHS": 1, "LEARNING_RATE": 3e-3, "VALIDATION_SHARE": 0.2, "CHECKPOINT_MINUTES": 5},
    },
    "evaluate": {"TASK_NAME": "tiny", "SHOW_MISTAKES": 2, "CHECK_LABELS": 0},
}


class Session:
    """Runs the code cells of a notebook in one namespace, in any order."""

    def __init__(self, notebook):
        cells = nbformat.read(ROOT / f"{notebook}.ipynb", as_version=4).cells
        self.notebook = notebook
        self.cells = [cell.source for cell in cells if cell.cell_type == "code"]
        self.parameters = next(i for i, cell in enumerate(self.cells) if re.match("TASK_NAME: str", cell))
        self.names = {"__name__": "__main__"}

    def run(self, start=0, stop=None, **changed):
        """Run the cells from `start` up to but not including `stop`, with the parameters in `changed`."""
        self.names.update(changed)
        for number, cell in enumerate(self.cells[start:stop], start=start):
            exec(compile(cell, f"{self.notebook}, code cell {number}", "exec"), self.names)
            if number == self.parameters:
                self.names.update(BASE[self.notebook] | changed)
            plt.close("all")

    def cells_with(self, parameter):
        """Return the numbers of the cells after the parameters that use a parameter."""
        matches = [i for i, cell in enumerate(self.cells) if re.search(rf"\b{parameter}\b", cell)]
        return [i for i in matches if i > self.parameters]
