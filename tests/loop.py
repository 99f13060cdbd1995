"""The training loop of train.ipynb, read from the notebook, so that tests and benchmarks run the same code."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import tools
from textbert.training.config import RULES

NOTEBOOK = Path(tools.__file__).with_name("train.ipynb")
FUNCTIONS = ("validate", "fine_tune")


def _read_statements():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [statement for source in sources for statement in ast.parse(source).body]


def _sets_parameter(statement):
    return isinstance(statement, ast.Assign) and re.fullmatch("[A-Z][A-Z0-9_]{2,}", ast.unparse(statement.targets[0]))


def read_parameters():
    """Return the parameters of train.ipynb with their default values, as a dict."""
    assignments = filter(_sets_parameter, _read_statements())
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in assignments}


def _compile_loop():
    """Return the imports, parameters and `FUNCTIONS` of train.ipynb as a code object."""
    body = [
        statement
        for statement in _read_statements()
        if isinstance(statement, ast.Import | ast.ImportFrom)
        or _sets_parameter(statement)
        or getattr(statement, "name", None) in FUNCTIONS
    ]
    return compile(ast.Module(body, []), NOTEBOOK.name, "exec")


class Loop:
    """The loop of train.ipynb with an `Experiment`.

    experiment : an `Experiment`; its config has the parameters of train.ipynb with their replacements
    fine_tune_run, validate : the functions of train.ipynb
    """

    def __init__(self, experiment, fine_tune_run, validate):
        self.experiment = experiment
        self.fine_tune_run = fine_tune_run
        self.validate = validate

    def fine_tune(self, rows, held_out, learning_rate, epochs, checkpoint=None, tracker=None):
        """Train on some rows, validate on those held out, and return the Run."""
        config = replace(self.experiment.config, learning_rate=learning_rate, num_train_epochs=epochs)
        return self.experiment.train(self.fine_tune_run, config, rows, held_out, checkpoint, tracker)


def make_config(parameters):
    """Return the TrainingConfig of a dict of train.ipynb's parameters."""
    return tools.TrainingConfig(**{name.lower(): parameters[name] for name in RULES})


def load_loop(accelerator, model, features, plan, **names):
    """Return the `Loop` of train.ipynb.

    model : a model with fused kernels and the weights to start from
    names : replacements for other names of the notebook, such as ADVERSARIAL_EPSILON=0.1
    """
    namespace = {}
    exec(_compile_loop(), namespace)
    namespace |= {"accelerator": accelerator, "model": model.to(accelerator.device), "features": features}
    namespace |= {"labels": features.labels, **names}
    initial_state, config = tools.clone_state_dict(model), make_config(namespace)
    setup = accelerator, model, initial_state, features, features.labels, config, "outputs"
    return Loop(tools.Experiment(*setup, plan=plan), *(namespace[name] for name in reversed(FUNCTIONS)))
