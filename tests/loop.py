"""The training loop of train.ipynb, read from the notebook, so that tests and benchmarks run the same code."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import tools

NOTEBOOK = Path(tools.__file__).with_name("train.ipynb")
FUNCTIONS = ("predict", "compute_metrics", "validate", "get_loss", "add_gradients", "fine_tune")


def _read_statements():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [statement for source in sources for statement in ast.parse(source).body]


def read_parameters():
    """Return the parameters of train.ipynb with their default values, as a dict."""
    assignments = [statement for statement in _read_statements() if isinstance(statement, ast.AnnAssign)]
    return {statement.target.id: ast.literal_eval(statement.value) for statement in assignments}


def _compile_loop():
    """Return the imports, parameters and `FUNCTIONS` of train.ipynb as a code object."""
    types = (ast.Import, ast.ImportFrom, ast.AnnAssign)
    body = [s for s in _read_statements() if isinstance(s, types) or getattr(s, "name", None) in FUNCTIONS]
    return compile(ast.Module(body, []), NOTEBOOK.name, "exec")


def load_loop(accelerator, bert, features, plan, **names):
    """Return `FUNCTIONS` of train.ipynb as attributes of an object.

    bert : a model with fused kernels and the weights to start from
    names : replacements for other names of the notebook, such as ADVERSARIAL_EPSILON=0.1
    """
    namespace = {}
    exec(_compile_loop(), namespace)
    namespace |= {"accelerator": accelerator, "bert": bert, "model": accelerator.prepare(bert), "plan": plan}
    namespace |= {"features": features, "labels": features.labels, "initial_state": tools.clone_state_dict(bert)}
    namespace |= {"initial_metrics": {"mcc": 0.0}, **names}
    return SimpleNamespace(**{name: namespace[name] for name in FUNCTIONS})
