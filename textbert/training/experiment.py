"""An experiment: the training runs of a task, with checkpoints, a search, a cross-validation, and the packed result."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textbert.data.folds import Folds
from textbert.data.splits import split_folds
from textbert.evaluation.calibration import default_threshold, fit_calibration, probabilities
from textbert.evaluation.metrics import choose_threshold, get_eval_report
from textbert.features.examples import Example
from textbert.training.distributed import predict_distributed
from textbert.training.learning_curve import evaluate_parts, nested_parts, tabulate_curve
from textbert.training.out_of_fold import FinalRun, get_folds
from textbert.training.packing import PackingList, write_run
from textbert.training.runs import FineTune, TrainingRuns
from textbert.training.trainer import Run


class Experiment(TrainingRuns):
    """What is done with the training runs of a task: a search, a cross-validation, a learning curve, and the archive.

    A loop, such as `fine_tune` of train.ipynb, is a function of a `Run`. Several processes call the same methods.
    """

    def search(
        self, fine_tune: FineTune, first_run: Run, learning_rates: Sequence[float], epoch_counts: Sequence[int]
    ) -> tuple[list[dict[str, Any]], Run]:
        """Try each combination of learning rate and number of epochs that `first_run` did not have, on its rows.

        An empty list stands for the value of the experiment. Returns (a dict for each run, the first that of
        `first_run`; the Run with the highest validation MCC, which is trained again, with a checkpoint, unless it is
        `first_run`).
        """
        first = self.config.learning_rate, self.config.num_train_epochs
        rows, folds = (first_run.train_rows, first_run.held_out_rows), get_folds(first_run)
        search = [{"learning rate": first[0], "epochs": first[1], **first_run.summary}]
        for rate, count in product(learning_rates or first[:1], epoch_counts or first[1:]):
            if (rate, count) != first:
                config = replace(self.config, learning_rate=rate, num_train_epochs=count)
                if folds:
                    result = self.predict_folds(fine_tune, config, folds).summary
                else:
                    result = self.run_trial(f"learning rate {rate}, {count} epochs", fine_tune, config, *rows)
                search.append({"learning rate": rate, "epochs": count, **result})
        best = max(search, key=lambda trial: trial["validation MCC"])
        rate, count = best["learning rate"], best["epochs"]
        self.accelerator.print(f"Kept: {count} epochs with a learning rate of {rate:g}")
        if best is search[0]:
            return search, first_run
        config = replace(self.config, learning_rate=rate, num_train_epochs=count)
        return search, self.run(fine_tune, *rows, config, f"winner, {count} at {rate:g}", folds)

    def cross_validate(
        self,
        fine_tune: FineTune,
        texts: Sequence[str],
        rows: np.ndarray,
        num_folds: int | None,
        run: Run,
        groups: np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """Hold out each fold once, and train on the others with learning rate and epochs of `run`.

        texts : those of `rows`, in their order; equal ones are in the same fold
        num_folds : None or 0 for no cross-validation
        groups : those of `rows`, each of which is in one fold, see `split_folds`; None for no groups

        Returns a dict for each fold; if `run` was run with folds, for each of these, and trains nothing. The
        predictions for the held-out rows go into the archive, see `pack`.
        """
        self.out_of_fold, folds = None, []
        if isinstance(run, FinalRun):
            folds = run.out_of_fold.tabulate(run.best_epoch)
        elif num_folds:
            splits = split_folds(texts, self.setup.labels[rows], num_folds, self.config.random_seed, groups)
            folds = self._hold_out(fine_tune, [(rows[train], rows[held_out]) for train, held_out in splits], run)
        else:
            self.accelerator.print(f"FOLDS is {num_folds}: no cross-validation")
        if folds:
            scores = [fold["validation MCC"] for fold in folds]
            self.accelerator.print(f"MCC over {len(folds)} folds: {np.mean(scores):.3f} ± {np.std(scores):.3f}")
        return folds

    def _hold_out(self, fine_tune: FineTune, splits: Folds, run: Run) -> list[dict[str, Any]]:
        rate, epochs = run.config.learning_rate, run.config.num_train_epochs
        folds: list[dict[str, Any]] = []
        parts = []
        for number, split in enumerate(splits, start=1):
            name = f"fold {number} of {len(splits)}, {epochs} epochs at {rate}"
            result = self.run_trial(name, fine_tune, run.config, *split, predict=self.predict_held_out)
            if logits := result.pop("logits", None):  # of a fold that an earlier version finished there are none
                parts.append(pd.DataFrame(logits, split[1], ["logit_0", "logit_1"]))
            folds.append({"rows held out": len(split[1]), **result})
        self.out_of_fold = pd.concat(parts) if parts else None
        return folds

    def learning_curve(
        self, fine_tune: FineTune, examples: Sequence[Example], run: Run, fractions: Sequence[float]
    ) -> pd.DataFrame | None:
        """Train on nested, stratified parts of a run's training rows, with its settings; print what that has given.

        examples : all examples, as their rows are numbered
        fractions : of the training rows, such as [0.25, 0.5]

        Returns a DataFrame with a row for each number of texts, the last that of the run: its MCC on the held-out
        rows, with its standard error, and that of the TF-IDF baseline. None without fractions. If `run` was run with
        folds, the parts are those of each fold's training rows.
        """
        if not fractions:
            self.accelerator.print("LEARNING_CURVE is empty: no learning curve")
            return None
        labels, texts, seed = self.setup.labels, [example.text_a for example in examples], run.config.random_seed
        logits_of_run = pd.DataFrame(self.predict_held_out(run), run.held_out_rows)
        curves = []
        for train_rows, held_out in get_folds(run) or [(run.train_rows, run.held_out_rows)]:
            parts, logits = nested_parts(train_rows, labels[train_rows], sorted(fractions), seed), []
            for part in parts:
                trial = f"{len(part):,} texts", fine_tune, run.config, part, held_out
                logits.append(self.run_trial(*trial, predict=self.predict_held_out)["logits"])
            logits.append(logits_of_run.loc[held_out].to_numpy())
            curves.append(
                evaluate_parts(texts, labels, [*parts, train_rows], held_out, logits, run.config.class_weights)
            )
        table, gain = tabulate_curve(pd.concat(curves))
        self.accelerator.print(table.round(3).to_string(index=False), gain, sep="\n")
        return table

    def validate(self, rows: np.ndarray, batch_size: int = 64) -> dict[str, Any]:
        """Return the metrics of `get_eval_report` on some rows, for the model's current weights and a threshold of 0.5.

        batch_size : texts predicted at once; affects speed, not results
        """
        logits = predict_distributed(self.setup.model, self.setup.features, batch_size, rows)
        y_prob = probabilities(logits)[:, 1]
        return get_eval_report(self.output_dir.name, self.setup.labels[rows], y_prob >= 0.5, y_prob)

    def calibrate(self, run: Run, false_positive_cost: float = 1.0, batch_size: int = 64) -> dict[str, Any]:
        """Fit calibration and decision threshold on the held-out rows of a run, as train.ipynb does.

        Returns what `pack` takes of it, as a dict: logits, decision and validation. The model has the weights of the
        run's best epoch afterwards. See `fit_calibration` and `choose_threshold` for methods and parameters.
        """
        logits, weights = self.predict_held_out(run, batch_size), run.config.class_weights
        y_true = self.setup.labels[run.held_out_rows]
        temperature, intercept = fit_calibration(logits, y_true, weights)
        y_prob = probabilities(logits, temperature, intercept)[:, 1]
        default = default_threshold(intercept, weights)
        threshold, _ = choose_threshold(y_prob, y_true, false_positive_cost, run.config.random_seed, default)
        decision = {"temperature": temperature, "intercept": intercept, "threshold": threshold}
        validation = get_eval_report(self.output_dir.name, y_true, y_prob >= threshold, y_prob)
        return {"logits": logits, "decision": decision, "validation": validation}

    def pack(self, run: Run, archive: str | Path, **results: Any) -> list[Path]:
        """Write the results of a run and the archive, in the main process, and remove the checkpoint.

        archive : the path of the `.tar.gz`
        results : see `PackingList`

        Returns the paths of all files in the task's folder, and of the archive. The model has the weights of the run's
        best epoch afterwards.
        """
        self.setup.model.load_state_dict(run.best_weights)  # whatever was done to it since
        if self.accelerator.is_main_process:
            out_of_fold = self.out_of_fold
            if isinstance(run, FinalRun):
                out_of_fold = run.out_of_fold.predict(run.best_epoch)
            packing = PackingList(**results, out_of_fold=out_of_fold)
            write_run(run, packing, self.setup.features.max_seq_length, self.output_dir, Path(archive))
            self.accelerator.print(f"{archive} is packed, and the checkpoint is removed")
        self.accelerator.wait_for_everyone()
        paths = sorted(path for path in self.output_dir.glob("[!.]*.*") if path.suffix != ".ipynb")
        return [*paths, Path(archive)]
