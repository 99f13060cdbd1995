"""The three notebooks in order, in a terminal: each heading as it comes, and what the cells print under it.

python -m textbert.tutorial [TASK_NAME]
"""

import json
import os
import sys
import time
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from textbert.evaluation.results import to_display_names
from textbert.utils.display import format_duration
from textbert.utils.files import atomic_write

NOTEBOOKS = ("data_prep", "train", "evaluate")


class Narrator(NotebookClient):
    """Runs a notebook and tells what it says while it says it."""

    told = 0  # cells whose headings have been told

    def tell_headings(self, cell, cell_index):
        """Print the headings of the cells since the last one that ran."""
        for passed in self.nb.cells[self.told : cell_index]:
            if passed.cell_type == "markdown":
                lines = [line.lstrip("# ") for line in passed.source.splitlines() if line.startswith("#")]
                print(*(f"\n{line}" for line in lines), sep="\n", end="\n" if lines else "", flush=True)
        self.told = cell_index

    def process_message(self, msg, cell, cell_index):
        """Print what a cell prints as soon as it does; nbclient's own method keeps it as the cell's output."""
        if msg["msg_type"] == "stream":
            print("".join(f"  {line}" for line in msg["content"]["text"].splitlines(keepends=True)), end="", flush=True)
        return super().process_message(msg, cell, cell_index)


def run_notebook(name, task):
    """Run a notebook on a task and keep it, executed, in `outputs/<task>/`; CellExecutionError if a cell fails."""
    source = Path(f"{name}.ipynb")
    notebook = papermill.execute_notebook(source, None, {"TASK_NAME": task}, prepare_only=True, progress_bar=False)
    narrator = Narrator(notebook, timeout=None, kernel_name="python3")
    narrator.on_cell_start = narrator.tell_headings
    try:
        narrator.execute()
    finally:
        with atomic_write(Path("outputs", task, source.name)) as temporary:
            nbformat.write(notebook, temporary)


def main(task="sample"):
    """Run all three notebooks; return the exit status."""
    start = time.perf_counter()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # in a file or a pipe Windows writes in an encoding of its own
    os.environ["TQDM_DISABLE"] = "1"  # bars are widgets, which a terminal cannot show
    for name in NOTEBOOKS:
        try:
            run_notebook(name, task)
        except CellExecutionError as error:
            print(f"\n{name}.ipynb stopped: {error.ename}: {error.evalue}", file=sys.stderr)
            return 1
    folder = Path("outputs", task)
    results = json.loads((folder / "report" / "eval_results.json").read_text(encoding="utf-8"))["results"]
    print(f"\nDone in {format_duration(time.perf_counter() - start)}. Matthews correlation on dev.tsv (1 is perfect):")
    for name, result in to_display_names(results).items():
        print(f"  {result['mcc']:.2f}  {name}")
    print(f"The report is {folder / 'report' / 'report.html'}, the model cache/{task}.tar.gz.")
    print("Next: make lab opens the notebooks; your own table goes into data/mytask/ (see docs/own-data.md).")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
