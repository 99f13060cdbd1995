"""Binary text classification with BERT: the package under `tools.py` and the three notebooks.

The subpackages follow the flow of the data; each imports only from those above it:

- utils: atomic writes, locks, downloads, progress bars, and validation of values
- data: from any labelled table to labels and texts, to BERT's TSV, and to splits that share no text
- features: tokenization exactly as BERT's, features and their file, conversion in several processes, batches by length
- model: archives, configuration, formats and sources of weights, the fast BERT, its loading and its logits
- evaluation: metrics and intervals, calibration, baselines, explanations, plots and the report
- training: optimizer and schedule, the run behind the notebook's loop, checkpoints, devices and processes
- inference: `Classifier`, prediction of files of any size, exports
- notebook: the notebooks' parameters, the guard against stale cells, and `make tutorial`
"""

import sys
from typing import TYPE_CHECKING, Any

# pip enforces this, but not where the folder is copied into another project
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(f"Python 3.11 or newer is required, this is {sys.version_info[0]}.{sys.version_info[1]}")

if TYPE_CHECKING:
    from textbert.inference.classifier import Classifier

__all__ = ["Classifier"]


def __getattr__(name: str) -> Any:
    """Return `Classifier`, imported lazily, because importing torch takes seconds."""
    if name == "Classifier":
        from textbert.inference.classifier import Classifier

        return Classifier
    raise AttributeError(f"module 'textbert' has no attribute {name!r}")
