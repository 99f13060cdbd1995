"""Out-of-fold predictions: what models say of examples that were held out of their training, fold by fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from textbert.data.folds import Folds
from textbert.evaluation.calibration import probabilities
from textbert.evaluation.metrics import get_eval_report
from textbert.training.distributed import predict_distributed
from textbert.training.progress import find_best_epoch, is_out_of_patience
from textbert.training.trainer import Run


@dataclass(frozen=True)
class OutOfFold:
    """The logits of the rows that some folds held out, each by a model that was not trained on the row.

    folds : (rows to train, n rows held out) of each
    logits : of each fold's held-out rows, after each epoch, arrays of shape (epochs, n, 2)
    labels : of all examples, an array of 0 and 1
    patience : how many epochs may pass without a higher MCC of all held-out rows; None for all
    """

    folds: Folds
    logits: Sequence[np.ndarray]
    labels: np.ndarray
    patience: int | None = None

    def evaluate(self, epoch: int) -> dict[str, Any]:
        """Return the metrics of all held-out rows after an epoch, from 1, as a dict of `get_eval_report`."""
        logits = self.predict(epoch)
        return self._report(logits.index.to_numpy(), logits.to_numpy())

    def predict(self, epoch: int) -> pd.DataFrame:
        """Return the logits after an epoch, from 1, as columns logit_0 and logit_1; the index is the sorted rows."""
        logits = np.concatenate([fold[epoch - 1] for fold in self.logits])
        rows = np.concatenate([held_out for _, held_out in self.folds])
        return pd.DataFrame(logits, rows, ["logit_0", "logit_1"]).sort_index()

    @property
    def summary(self) -> dict[str, Any]:
        """The epoch to keep, see `find_best_epoch`, and the MCC of all held-out rows after it, as a dict."""
        history: list[dict[str, Any]] = []
        while len(history) < len(self.logits[0]) and not is_out_of_patience(history, self.patience):
            history.append(self.evaluate(len(history) + 1))
        best_epoch = find_best_epoch(history)
        return {"kept epoch": best_epoch, "validation MCC": history[best_epoch - 1]["mcc"]}

    def tabulate(self, epoch: int) -> list[dict[str, Any]]:
        """Return for each fold a dict with how many rows it holds out, and their MCC after an epoch."""
        table = []
        for (_, held_out), logits in zip(self.folds, self.logits):
            report = self._report(held_out, logits[epoch - 1])
            table.append({"rows held out": len(held_out), "kept epoch": epoch, "validation MCC": report["mcc"]})
        return table

    def _report(self, rows: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
        y_prob = probabilities(logits)[:, 1]
        return get_eval_report("", self.labels[rows], y_prob >= 0.5, y_prob)


class FoldRun(Run):
    """A run on all folds but one: it keeps the logits of the rows held out, of shape (n, 2), after each epoch."""

    scope = " in this fold"

    def __init__(self, *arguments: Any) -> None:
        """Plan the run, with the arguments of a `Run`."""
        super().__init__(*arguments)
        self.logits_by_epoch: list[np.ndarray] = []

    def on_epoch_end(self, metrics: dict[str, Any]) -> None:
        """Record metrics, and predict the rows that are held out."""
        logits = predict_distributed(self.model, self.setup.features, 64, self.held_out_rows)
        self.logits_by_epoch.append(logits)
        super().on_epoch_end(metrics)


class FinalRun(Run):
    """A run on all rows, which leaves none to validate it: out-of-fold predictions choose its epoch."""

    def __init__(self, out_of_fold: OutOfFold, *arguments: Any) -> None:
        """Plan the run, with the arguments of a `Run`; its held-out rows are those of the folds."""
        super().__init__(*arguments)
        self.out_of_fold = out_of_fold
        self.validation_rows = self.held_out_rows[:0]

    def on_epoch_end(self, metrics: dict[str, Any]) -> None:
        """Record the metrics of the out-of-fold predictions after this epoch; `metrics` are of no rows."""
        super().on_epoch_end(self.out_of_fold.evaluate(self.progress.epoch + 1))


def get_folds(run: Run) -> Folds:
    """Return the folds that a run was run with, () if there are none."""
    return run.out_of_fold.folds if isinstance(run, FinalRun) else ()
