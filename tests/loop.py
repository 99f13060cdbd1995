"""The training loop of train.ipynb, read from the notebook: tests and benchmarks run that one and hold no copy."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import tools

NOTEBOOK = Path(tools.__file__).with_name("train.ipynb")
FUNCTIONS = ("predict", "judge", "validate", "get_loss", "add_gradients", "fine_tune")


def _read_statements():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [statement for source in sources for statement in ast.parse(source).body]


def read_parameters():
    """Return the parameters of train.ipynb and their values there, as a dict."""
    assigned = [statement for statement in _read_statements() if isinstance(statement, ast.AnnAssign)]
    return {statement.target.id: ast.literal_eval(statement.value) for statement in assigned}


def _compile_loop():
    """Return, as code, the statements of train.ipynb that import, set a parameter or define one of `FUNCTIONS`."""
    statements = _read_statements()
    kinds = (ast.Import, ast.ImportFrom, ast.AnnAssign)
    kept = [s for s in statements if isinstance(s, kinds) or getattr(s, "name", None) in FUNCTIONS]
    return compile(ast.Module(kept, []), NOTEBOOK.name, "exec")


def load_loop(accelerator, bert, features, plan, **names):
    """Return `FUNCTIONS` of train.ipynb as attributes of an object.

    bert : a fast model with the weights to start from
    names : what stands in for others of the notebook's names, such as ADVERSARIAL_EPSILON=0.1
    """
    known = {}
    exec(_compile_loop(), known)
    known |= {"accelerator": accelerator, "bert": bert, "model": accelerator.prepare(bert), "plan": plan}
    known |= {"features": features, "labels": features.labels, "untrained": tools.clone_state_dict(bert)}
    known |= {"before": {"mcc": 0.0}, **names}
    return SimpleNamespace(**{name: known[name] for name in FUNCTIONS})
