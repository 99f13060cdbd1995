"""Run the three notebooks in a terminal: each heading as it is reached, and what the cells below it print.

python -m textbert.notebook.tutorial [TASK_NAME]
"""

import json
import os
import sys
import time
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from textbert.evaluation.results import to_display_names
from textbert.utils.display import format_duration
from textbert.utils.files import atomic_write

NOTEBOOKS = ("data_prep", "train", "evaluate")


class StreamingClient(NotebookClient):
    """Runs a notebook and prints its headings and output while it runs."""

    headings_printed = 0  # number of cells whose headings have been printed

    def print_headings(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Print the headings of the text cells between the last code cell that ran and this one."""
        for previous in self.nb.cells[self.headings_printed : cell_index]:
            if previous.cell_type == "markdown":
                lines = [line.lstrip("# ") for line in previous.source.splitlines() if line.startswith("#")]
                print(*(f"\n{line}" for line in lines), sep="\n", end="\n" if lines else "", flush=True)
        self.headings_printed = cell_index

    def process_message(self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int) -> Any:
        """Print what a cell prints at once, before nbclient's own method adds it to the cell's output."""
        if msg["msg_type"] == "stream":
            print("".join(f"  {line}" for line in msg["content"]["text"].splitlines(keepends=True)), end="", flush=True)
        return super().process_message(msg, cell, cell_index)


def run_notebook(name: str, task: str) -> None:
    """Run a notebook on a task and save the executed copy in `outputs/<task>/`.

    Raises CellExecutionError if a cell fails; the copy is saved nevertheless.
    """
    source = Path(f"{name}.ipynb")
    notebook = papermill.execute_notebook(source, None, {"TASK_NAME": task}, prepare_only=True, progress_bar=False)
    client = StreamingClient(notebook, timeout=None, kernel_name="python3")
    client.on_cell_start = client.print_headings
    try:
        client.execute()
    finally:
        with atomic_write(Path("outputs", task, source.name)) as temporary:
            nbformat.write(notebook, temporary)


def main(task: str = "sample") -> int:
    """Run all three notebooks on a task and print where the results are; return the exit status, 1 if a cell fails."""
    start = time.perf_counter()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # on Windows the encoding of files and pipes is not UTF-8
            stream.reconfigure(errors="backslashreplace")
    os.environ["TQDM_DISABLE"] = "1"  # progress bars are widgets, which a terminal cannot show
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
    print("Next: make lab opens the notebooks; to use your own table, put it into data/mytask/ (see docs/own-data.md).")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
