"""Run the three notebooks from a terminal or a program: each heading as it is reached, and what its cells print.

python -m textbert.notebook.tutorial [NAME=VALUE ...] [--from NOTEBOOK]
"""

import argparse
import asyncio
import difflib
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.util import ensure_async
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from textbert.evaluation.results import to_display_names
from textbert.notebook.parameters import PARAMETERS, check_parameters, get_parameters, parse_literal
from textbert.utils.display import format_duration
from textbert.utils.files import atomic_write, check_file

NOTEBOOKS = ("data_prep", "train", "evaluate")
DEFAULT_TASK = "sample"


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM, whose number is `signal_number`, has stopped a notebook."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StreamingClient(NotebookClient):
    """Runs a notebook and prints its headings and output while it runs.

    SIGINT and SIGTERM interrupt the kernel once, as the stop button of Jupyter does, so that training can complete its
    step and save it. The notebook ends when the cell has ended, or at once if the signal is repeated.
    """

    headings_printed = 0  # number of cells whose headings have been printed
    stop_signal: int | None = None  # number of the first signal
    stop_time = 0.0  # when it came, by time.monotonic

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel, and handle signals from now on: nbclient's own handler would shut the kernel down."""
        loop = asyncio.get_running_loop()
        with suppress(RuntimeError):  # Windows has no such handlers, nor have other threads
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.handle_signal, number)
        await super().async_start_new_kernel(**kwargs)

    def handle_signal(self, number: int) -> None:
        """Interrupt the cell that is running; if a signal has come before, kill the kernel.

        The kernel, which has a process group of its own, does not get the signal from the terminal. make passes SIGTERM
        on, so that it may come twice: within a second that is no repetition.
        """
        if self.stop_signal is None:
            self.stop_signal, self.stop_time = number, time.monotonic()
            if self.task_poll_for_reply and not self.task_poll_for_reply.done():  # an idle kernel has nothing to stop
                self.signal_kernel(signal.SIGINT)
        elif time.monotonic() - self.stop_time > 1:
            self.signal_kernel(signal.SIGKILL)

    def signal_kernel(self, number: int) -> None:
        """Send a signal to the kernel and its processes, if it has been started."""
        if self.km and self.km.has_kernel:
            self.sending = asyncio.ensure_future(ensure_async(self.km.signal_kernel(number)))  # kept from the gc

    def print_headings(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Print the headings of the text cells between the last code cell that ran and this one.

        Raises DeadKernelError instead if a signal has come, which the cell before may not have noticed.
        """
        if self.stop_signal is not None:
            raise DeadKernelError("stopped by a signal")
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


def parse_parameters(arguments: str) -> dict[str, Any]:
    """Return the parameters of a command line such as "ENCODING=cp1252 TEXT_COLUMN=ticket text" as a dict by name.

    A value reaches up to the next name, so it may contain spaces; it is a Python literal, or else a string. Raises
    ValueError for anything before the first name, and for a name that is given twice.
    """
    start, *pairs = re.split(r"(?:^|\s+)([A-Za-z_]\w*)=", arguments.strip())
    if start:
        raise ValueError(f"expected NAME=VALUE, such as ENCODING=cp1252, got {start!r}")
    names, values = pairs[::2], pairs[1::2]
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{name} is given {count} times: keep one of them")
    return {name: parse_literal(value) for name, value in zip(names, values)}


def assign_parameters(parameters: Mapping[str, Any], notebooks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a dict from each notebook to those of the parameters that it has, after the notebook's own check.

    Raises ValueError for a name that no notebook has (with the nearest known one), or none of `notebooks`, and what
    `check_parameters` raises.
    """
    owners = {parameter.name: parameter.notebooks.split() for parameter in PARAMETERS}
    for name in parameters:
        if name not in owners:
            nearest = difflib.get_close_matches(name.upper(), owners, n=1, cutoff=0)[0]
            raise ValueError(f"{name} is not a parameter of any notebook: did you mean {nearest}?")
        if not {*owners[name]} & {*notebooks}:
            raise ValueError(
                f"{name} is a parameter of {owners[name][0]}.ipynb, but only {' and '.join(notebooks)} would run: "
                "leave it out, or begin with an earlier notebook"
            )
    values = dict(parameters)  # as they are after the checks
    assigned = {}
    for notebook in notebooks:
        defaults = {name: parameter.default for name, parameter in get_parameters(notebook).items()}
        own = {name: value for name, value in values.items() if name in defaults}
        checked = check_parameters(notebook, defaults | own)
        assigned[notebook] = {name: checked[name] for name in own}
        values |= assigned[notebook]
    return assigned


def run_notebook(name: str, parameters: dict[str, Any], folder: str | Path = ".") -> None:
    """Run a notebook of the project in a folder, and save the executed copy in its `outputs/<task>/`.

    The parameters may be those of both its cells: the cell that sets them follows the second. (papermill itself would
    warn of those of the first.) Raises RuntimeError if a cell fails or the kernel dies, and Interrupted if SIGINT or
    SIGTERM stops it; the copy is saved nevertheless.
    """
    source = Path(folder, f"{name}.ipynb")
    notebook = parameterize_notebook(load_notebook_node(str(source)), parameters)
    client = StreamingClient(notebook, timeout=None, kernel_name="python3")
    client.on_cell_start = client.print_headings
    without_bars = {**os.environ, "TQDM_DISABLE": "1"}  # they are widgets, which a terminal cannot show
    error: Exception | None = None
    try:
        client.execute(cwd=str(folder), env=without_bars)
    except (CellExecutionError, RuntimeError) as caught:
        error = caught
    finally:
        with atomic_write(Path(folder, "outputs", parameters["TASK_NAME"], source.name)) as temporary:
            nbformat.write(notebook, temporary)
    if client.stop_signal is not None:
        advice = getattr(error, "evalue", "") or f"run it again, from there with FROM={name}"
        raise Interrupted(f"Interrupted in {source.name}: {advice}", client.stop_signal) from error
    if isinstance(error, CellExecutionError):
        raise RuntimeError(f"{source.name} stopped: {error.ename}: {error.evalue}") from error
    if isinstance(error, DeadKernelError):
        raise RuntimeError(f"{source.name} stopped: its process was killed (out of memory?)") from error
    if error:
        raise error


def run_tutorial(
    parameters: Mapping[str, Any], start: str = "data_prep", folder: str | Path = "."
) -> dict[str, dict[str, Any]]:
    """Run the notebooks on a task, print their headings and output, and return the metrics on `dev.tsv` by model.

    Parameters
    ----------
    parameters : of the notebooks, by name, such as TASK_NAME; each goes to the notebooks that have it
    start : the notebook to begin with: "data_prep", "train" or "evaluate"
    folder : the project's folder

    All are checked before a notebook runs; see `assign_parameters` for the errors. Raises RuntimeError if a cell fails,
    KeyboardInterrupt if SIGINT or SIGTERM stops it.
    """
    if start not in NOTEBOOKS:
        raise ValueError(f"start: expected {', '.join(NOTEBOOKS)}, got {start!r}")
    notebooks = NOTEBOOKS[NOTEBOOKS.index(start) :]
    for name in notebooks:
        check_file(Path(folder, f"{name}.ipynb"), "folder must be that of the project")
    assigned = assign_parameters({"TASK_NAME": DEFAULT_TASK, **parameters}, notebooks)
    for name, values in assigned.items():
        run_notebook(name, values, folder)
    path = Path(folder, "outputs", assigned["evaluate"]["TASK_NAME"], "report", "eval_results.json")
    return to_display_names(json.loads(path.read_text(encoding="utf-8"))["results"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks from the command line and print where the results are.

    Returns the exit status: 1 if a cell fails, 2 for an invalid parameter, 130 after SIGINT, 143 after SIGTERM.
    """
    begin = time.perf_counter()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # on Windows the encoding of files and pipes is not UTF-8
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser("python -m textbert.notebook.tutorial", description="Run the three notebooks.")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="a parameter of the notebooks")
    parser.add_argument("--from", dest="start", choices=NOTEBOOKS, default=NOTEBOOKS[0], help="notebook to begin with")
    options = parser.parse_intermixed_args(arguments)
    try:
        parameters = parse_parameters(" ".join(options.parameters))
        results = run_tutorial(parameters, options.start)
    except (ValueError, ImportError, FileNotFoundError, RuntimeError) as error:
        print(f"\n{error}" if isinstance(error, RuntimeError) else error, file=sys.stderr)
        return 1 if isinstance(error, RuntimeError) else 2
    except KeyboardInterrupt as error:
        print(f"\n{error}" if str(error) else "\nInterrupted: run it again", file=sys.stderr)
        return 128 + getattr(error, "signal_number", signal.SIGINT)
    print(f"\nDone in {format_duration(time.perf_counter() - begin)}. Matthews correlation on dev.tsv (1 is perfect):")
    for name, result in results.items():
        print(f"  {result['mcc']:.2f}  {name}")
    task = parameters.get("TASK_NAME", DEFAULT_TASK)
    print(f"The report is {Path('outputs', str(task), 'report', 'report.html')}, the model cache/{task}.tar.gz.")
    print("Next: make lab opens the notebooks; to use your own table, put it into data/mytask/ (see docs/own-data.md).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
