"""An experiment: the training runs of a task, with checkpoints, a search, a cross-validation, and the packed result."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.data.splits import split_folds
from textbert.evaluation.calibration import default_threshold, fit_calibration, probabilities
from textbert.evaluation.metrics import choose_threshold, get_eval_report
from textbert.features.batching import BatchSampler
from textbert.features.examples import Example
from textbert.features.features import Features
from textbert.model.state_dict import StateDict
from textbert.training.batches import TrainingSetup
from textbert.training.checkpoints import Checkpoint, TrialCache, get_checkpoint_path, get_run_config, training_lock
from textbert.training.config import DATA_PARAMETERS, TrainingConfig
from textbert.training.distributed import experiment_tracker, predict_distributed
from textbert.training.learning_curve import evaluate_parts, nested_parts
from textbert.training.packing import PackingList, write_run
from textbert.training.trainer import Run
from textbert.utils.display import format_duration
from textbert.utils.files import check_disk_space

if TYPE_CHECKING:
    from accelerate import Accelerator  # its import takes seconds, and predicting does not need it

FineTune = Callable[[Run], Any]  # the loop of train.ipynb


class Experiment:
    """The training runs of a task: they start from the same weights, and differ in rows, learning rate and epochs.

    A loop, such as `fine_tune` of train.ipynb, is a function of a `Run`. Several processes call the same methods.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        model: BertForSequenceClassification,
        initial_state: StateDict,
        features: Features,
        labels: np.ndarray,
        config: TrainingConfig,
        output_dir: str | Path,
        data_parameters: dict[str, Any] | None = None,
        baseline_mcc: float = 0.0,
        resume: bool = True,
        checkpoint_minutes: float = 5,
        track_with: str | None = None,
        plan: BatchSampler | None = None,
    ) -> None:
        """Prepare the model for the devices of the accelerator; nothing is trained or written.

        Parameters
        ----------
        model : what `load_model` returned, with fused kernels; of one experiment only if there are several devices
        initial_state : what `clone_state_dict` returned for the weights that each run starts from
        features : of training and validation set; their fingerprint identifies the data
        labels : of all features, an array of 0 and 1, of shape (n,)
        output_dir : the folder of the task, for checkpoints, tracking and results
        data_parameters : dict of the parameters in `DATA_PARAMETERS`, to store in checkpoints; None for none
        baseline_mcc : MCC before training, for the plot
        resume : False starts over, even if there is a checkpoint
        checkpoint_minutes : time between checkpoints within an epoch
        track_with : one of `TRACKERS`; None for none
        plan : which examples are in which step; None for batches of similar lengths
        """
        prepared = accelerator.prepare(model)
        self.setup = TrainingSetup(accelerator, model, prepared, initial_state, features, labels, baseline_mcc)
        self.accelerator = accelerator
        self.config = config
        self.output_dir = Path(output_dir)
        self.data_parameters = data_parameters or {}
        if self.data_parameters and self.data_parameters.keys() != set(DATA_PARAMETERS):
            raise ValueError(f"data_parameters: expected {DATA_PARAMETERS}, got {tuple(self.data_parameters)}")
        self.resume = resume
        self.checkpoint_minutes = checkpoint_minutes
        self.track_with = track_with
        self.plan = plan
        self.last_run: Run | None = None  # the one that was started last, even if it was stopped
        self.out_of_fold: pd.DataFrame | None = None  # logits of held-out rows, by row

    def get_identity(self, config: TrainingConfig, rows: tuple[np.ndarray, np.ndarray] | None = None) -> dict[str, Any]:
        """Return everything that determines the result of a run, as the dict that checkpoints store."""
        parameters = self.data_parameters | config.to_parameters()
        return get_run_config(self.setup.features, self.setup.model, parameters, rows)

    def train(
        self,
        fine_tune: FineTune,
        config: TrainingConfig,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        checkpoint: Checkpoint | None = None,
        tracker: AbstractContextManager[Callable[[dict[str, float], int], None]] | None = None,
    ) -> Run:
        """Return a Run after the loop has trained it; without a checkpoint and a tracker nothing is written."""
        run = Run(self.setup, config, train_rows, validation_rows, checkpoint, tracker, self.plan)
        self.last_run = run
        fine_tune(run)
        return run

    def run(
        self,
        fine_tune: FineTune,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        config: TrainingConfig | None = None,
        name: str = "checkpoint",
    ) -> Run:
        """Train, or resume the checkpoint of an interrupted run with the same data and settings; return the Run.

        config : None for that of the experiment
        name : of the checkpoint

        Raises TimeoutError if another process is training the same task, and OSError if the disk is too full.
        """
        size = sum(weights.nbytes for weights in self.setup.initial_state.values())
        check_disk_space(".", 10 * size)  # two checkpoints of 4 each, and the model twice
        config = config or self.config
        identity = self.get_identity(config, (train_rows, validation_rows))
        path = get_checkpoint_path(self.output_dir).with_stem(name)
        checkpoint = Checkpoint(path, identity, self.checkpoint_minutes, self.resume)
        run_name = f"{config.num_train_epochs} epochs at {config.learning_rate:g}"
        tracker = experiment_tracker(self.accelerator, self.track_with, self.output_dir, run_name, identity)
        start = time.perf_counter()
        with training_lock(self.accelerator, self.output_dir):
            run = self.train(fine_tune, config, train_rows, validation_rows, checkpoint, tracker)
        elapsed = format_duration(time.perf_counter() - start)
        self.accelerator.print(f"Trained in {elapsed}; epoch {run.best_epoch} is kept (see below)")
        return run

    @cached_property
    def _trials(self) -> TrialCache:
        path = get_checkpoint_path(self.output_dir).with_name("trials.json")
        return TrialCache(path, self.get_identity(self.config), self.resume)

    def _try(self, name: str, train: Callable[[], Run], *rows: np.ndarray, predict: bool = False) -> dict[str, Any]:
        """Return the `summary` of a run without a checkpoint; from a file if it was done before an interruption.

        rows : what determines the run besides the name
        predict : whether to add its logits for the validation rows
        """

        def compute(*_: np.ndarray) -> dict[str, Any]:
            run = train()
            return run.summary | ({"logits": self._predict(run).tolist()} if predict else {})

        return dict(self._trials.run(self.accelerator, name, compute, *rows))

    def _predict(self, run: Run) -> np.ndarray:
        """Return the logits of a run's best epoch for its validation rows, of shape (n, 2)."""
        self.setup.model.load_state_dict(run.best_weights)
        return predict_distributed(self.setup.model, self.setup.features, 64, run.validation_rows)

    def search(
        self, fine_tune: FineTune, first_run: Run, learning_rates: Sequence[float], epoch_counts: Sequence[int]
    ) -> tuple[list[dict[str, Any]], Run]:
        """Try each combination of learning rate and number of epochs that `first_run` did not have, on its rows.

        An empty list stands for the value of the experiment. Returns (a dict for each run, the first that of
        `first_run`; the Run with the highest validation MCC, which is trained again, with a checkpoint, unless it is
        `first_run`).
        """
        first = self.config.learning_rate, self.config.num_train_epochs
        rows = first_run.train_rows, first_run.validation_rows
        search = [{"learning rate": first[0], "epochs": first[1], **first_run.summary}]
        for rate, count in product(learning_rates or first[:1], epoch_counts or first[1:]):
            if (rate, count) != first:
                config = replace(self.config, learning_rate=rate, num_train_epochs=count)
                train = partial(self.train, fine_tune, config, *rows)
                result = self._try(f"learning rate {rate}, {count} epochs", train, *rows)
                search.append({"learning rate": rate, "epochs": count, **result})
        best = max(search, key=lambda trial: trial["validation MCC"])
        rate, count = best["learning rate"], best["epochs"]
        self.accelerator.print(f"Kept: {count} epochs with a learning rate of {rate:g}")
        if best is search[0]:
            return search, first_run
        config = replace(self.config, learning_rate=rate, num_train_epochs=count)
        return search, self.run(fine_tune, *rows, config, f"winner, {count} at {rate:g}")

    def cross_validate(
        self,
        fine_tune: FineTune,
        texts: Sequence[str],
        rows: np.ndarray,
        num_folds: int,
        run: Run,
        groups: np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """Hold out each fold once, and train on the others with learning rate and epochs of `run`.

        texts : those of `rows`, in their order; equal ones are in the same fold
        num_folds : 0 for no cross-validation
        groups : those of `rows`, each of which is in one fold, see `split_folds`; None for no groups

        Returns a dict for each fold. The predictions for the held-out rows go into the archive, see `pack`.
        """
        labels = self.setup.labels[rows]
        splits = split_folds(texts, labels, num_folds, self.config.random_seed, groups) if num_folds else ()
        rate, epochs = run.config.learning_rate, run.config.num_train_epochs
        folds: list[dict[str, Any]] = []
        self.out_of_fold, parts = None, []
        for number, (train_indices, held_out) in enumerate(splits, start=1):
            name = f"fold {number} of {num_folds}, {epochs} epochs at {rate}"
            split = rows[train_indices], rows[held_out]
            result = self._try(name, partial(self.train, fine_tune, run.config, *split), *split, predict=True)
            if logits := result.pop("logits", None):  # of a fold that an earlier version finished there are none
                parts.append(pd.DataFrame(logits, rows[held_out], ["logit_0", "logit_1"]))
            folds.append({"rows held out": len(held_out), **result})
        scores = [fold["validation MCC"] for fold in folds]
        if folds:
            self.out_of_fold = pd.concat(parts) if parts else None
            self.accelerator.print(f"MCC over {num_folds} folds: {np.mean(scores):.3f} ± {np.std(scores):.3f}")
        else:
            self.accelerator.print("FOLDS is 0: no cross-validation")
        return folds

    def learning_curve(
        self, fine_tune: FineTune, examples: Sequence[Example], run: Run, fractions: Sequence[float]
    ) -> pd.DataFrame | None:
        """Train on nested, stratified parts of a run's training rows, with its settings; print what that has given.

        examples : all examples, as their rows are numbered
        fractions : of the training rows, such as [0.25, 0.5]

        Returns a DataFrame with a row for each number of texts, the last that of the run: its MCC on the validation
        rows, with its standard error, and that of the TF-IDF baseline. None without fractions.
        """
        if not fractions:
            self.accelerator.print("LEARNING_CURVE is empty: no learning curve")
            return None
        labels, held_out = self.setup.labels, run.validation_rows
        parts = nested_parts(run.train_rows, labels[run.train_rows], sorted(fractions), run.config.random_seed)
        logits = []
        for part in parts:
            train = partial(self.train, fine_tune, run.config, part, held_out)
            logits.append(self._try(f"{len(part):,} texts", train, part, held_out, predict=True)["logits"])
        logits.append(self._predict(run).tolist())
        texts, parts = [example.text_a for example in examples], [*parts, run.train_rows]
        table, gain = evaluate_parts(texts, labels, parts, held_out, logits, run.config.class_weights)
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
        """Fit calibration and decision threshold on the validation rows of a run, as train.ipynb does.

        Returns what `pack` takes of it, as a dict: logits, decision and validation. The model has the weights of the
        run's best epoch afterwards. See `fit_calibration` and `choose_threshold` for methods and parameters.
        """
        self.setup.model.load_state_dict(run.best_weights)
        rows, weights = run.validation_rows, run.config.class_weights
        logits = predict_distributed(self.setup.model, self.setup.features, batch_size, rows)
        y_true = self.setup.labels[rows]
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
            packing = PackingList(**results, out_of_fold=self.out_of_fold)
            write_run(run, packing, self.setup.features.max_seq_length, self.output_dir, Path(archive))
            self.accelerator.print(f"{archive} is packed, and the checkpoint is removed")
        self.accelerator.wait_for_everyone()
        paths = sorted(path for path in self.output_dir.glob("[!.]*.*") if path.suffix != ".ipynb")
        return [*paths, Path(archive)]
