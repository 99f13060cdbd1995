"""What the set-up cell of a notebook starts: the project's folder, the guard, and the check of the parameters."""

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from textbert.notebook.guard import Guard, guard_shell
from textbert.notebook.parameters import check_parameters, get_parameters
from textbert.training.distributed import get_environment, silence_other_processes


class Notebook:
    """A notebook that runs: `name` is "data_prep", "train" or "evaluate", `namespace` the dict of its names."""

    def __init__(self, name: str, namespace: dict[str, Any], guard: Guard | None = None) -> None:
        self.name = name
        self.namespace = namespace
        self.guard = guard

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters with their current values, as a dict; raises what `check_parameters` raises."""
        return check_parameters(self.name, self.namespace)

    def show_parameters(self) -> pd.DataFrame | None:
        """Check the parameters, and return a table of those that differ from their defaults; None if none does.

        From then on each cell checks them. Raises what `check_parameters` raises.
        """
        values, parameters = self.parameters, get_parameters(self.name)
        if self.guard:
            self.guard.validate = lambda: check_parameters(self.name, self.namespace)
        rows = [(repr(value), repr(parameters[name].default)) for name, value in values.items()]
        table = pd.DataFrame(rows, pd.Index(values, name="parameter"), ["value", "default"])
        changed = table[table["value"] != table["default"]]
        note = "; these differ from the defaults:" if len(changed) else " and have their default values"
        print(f"All {len(table)} parameters are valid{note}")
        return changed if len(changed) else None


def start_notebook(name: str, folder: str | Path | None = None) -> Notebook:
    """Start a notebook from its first cell: change to the project's folder, print the versions, switch on the guard.

    The guard needs IPython: in a script, as under torchrun, it does nothing. Of several processes that train, all but
    the main one are silenced.

    name : "data_prep", "train" or "evaluate"
    folder : the project's folder; None for the current one
    """
    namespace = sys._getframe(1).f_globals
    os.chdir(folder or ".")
    if name == "train":
        silence_other_processes()
    for package, version in get_environment().items():
        print(f"{package:26} {version}")
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or shell.user_ns is not namespace:
        return Notebook(name, namespace)
    previous = namespace.get("notebook")
    if isinstance(previous, Notebook) and previous.name == name and previous.guard:
        return previous  # this cell has run before
    guard = Guard(namespace, get_parameters(name))
    guard_shell(guard, shell)
    return Notebook(name, namespace, guard)
