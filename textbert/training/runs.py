"""The training runs of a task, with or without a checkpoint, and with folds held out if the labels are few."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.data.folds import Folds
from textbert.features.batching import BatchSampler
from textbert.features.features import Features
from textbert.model.state_dict import StateDict
from textbert.training.batches import TrainingSetup
from textbert.training.checkpoints import (
    TRIALS,
    Checkpoint,
    TrialCache,
    get_checkpoint_path,
    get_run_config,
    training_lock,
)
from textbert.training.config import DATA_PARAMETERS, TrainingConfig
from textbert.training.distributed import experiment_tracker, predict_distributed
from textbert.training.out_of_fold import FinalRun, FoldRun, OutOfFold
from textbert.training.trainer import Run
from textbert.utils.display import format_duration
from textbert.utils.files import check_disk_space

if TYPE_CHECKING:
    from accelerate import Accelerator  # its import takes seconds, and predicting does not need it

FineTune = Callable[[Run], Any]  # the loop of train.ipynb


class TrainingRuns:
    """The training runs of a task: they start from the same weights, and differ in rows, learning rate and epochs."""

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

    def get_identity(self, config: TrainingConfig, rows: tuple[np.ndarray, ...] | None = None) -> dict[str, Any]:
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
        make_run: Callable[..., Run] | None = None,
    ) -> Run:
        """Return a Run after the loop has trained it; without a checkpoint and a tracker nothing is written."""
        run = (make_run or Run)(self.setup, config, train_rows, validation_rows, checkpoint, tracker, self.plan)
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
        folds: Folds = (),
    ) -> Run:
        """Train, or resume the checkpoint of an interrupted run with the same data and settings; return the Run.

        config : None for that of the experiment
        name : of the checkpoint
        folds : what `split_or_fold` returned; if there are some, each is held out once before, and the predictions for
            these rows choose the epoch (cross-fitting)

        Raises TimeoutError if another process is training the same task, and OSError if the disk is too full.
        """
        size = sum(weights.nbytes for weights in self.setup.initial_state.values())
        check_disk_space(".", 10 * size)  # two checkpoints of 4 each, and the model twice
        config = config or self.config
        identity = self.get_identity(config, (train_rows, validation_rows, *(held_out for _, held_out in folds)))
        path = get_checkpoint_path(self.output_dir).with_stem(name)
        checkpoint = Checkpoint(path, identity, self.checkpoint_minutes, self.resume)
        run_name = f"{config.num_train_epochs} epochs at {config.learning_rate:g}"
        tracker = experiment_tracker(self.accelerator, self.track_with, self.output_dir, run_name, identity)
        start = time.perf_counter()
        hint = config.describe_few_steps(len(train_rows))
        if hint:
            self.accelerator.print(hint)
        with training_lock(self.accelerator, self.output_dir):
            make_run: Callable[..., Run] | None = None
            if folds:
                checkpoint.check(self.accelerator)  # before the time that folds take
                make_run = partial(FinalRun, self.predict_folds(fine_tune, config, folds))
                self.accelerator.print(f"all {len(train_rows):,} rows:")
            run = self.train(fine_tune, config, train_rows, validation_rows, checkpoint, tracker, make_run)
        elapsed = format_duration(time.perf_counter() - start)
        self.accelerator.print(f"Trained in {elapsed}; epoch {run.best_epoch} is kept (see below)")
        return run

    @cached_property
    def _trials(self) -> TrialCache:
        path = get_checkpoint_path(self.output_dir).with_name(TRIALS)
        return TrialCache(path, self.get_identity(self.config), self.resume)

    def run_trial(
        self,
        name: str,
        fine_tune: FineTune,
        config: TrainingConfig,
        *rows: np.ndarray,
        make_run: Callable[..., Run] | None = None,
        predict: Callable[[Any], Any] | None = None,
    ) -> dict[str, Any]:
        """Return the `summary` of a run without a checkpoint; from a file if it was done before an interruption.

        rows : to train, and to validate
        predict : function from the run to logits, which are added; None for none
        """

        def compute(*rows: np.ndarray) -> dict[str, Any]:
            train_rows, held_out = rows
            run = self.train(fine_tune, config, train_rows, held_out, make_run=make_run)
            return run.summary | ({"logits": np.asarray(predict(run)).tolist()} if predict else {})

        return dict(self._trials.run(self.accelerator, name, compute, *rows))

    def predict_folds(self, fine_tune: FineTune, config: TrainingConfig, folds: Folds) -> OutOfFold:
        """Hold out each fold once, and return what the models that are trained on the others say of it."""
        config, patience = replace(config, patience=None), config.patience  # of all folds together, see OutOfFold
        logits = []
        for number, fold in enumerate(folds, start=1):
            name = f"held-out fold {number} of {len(folds)}, {config.num_train_epochs} epochs at {config.learning_rate}"
            result = self.run_trial(
                name, fine_tune, config, *fold, make_run=FoldRun, predict=attrgetter("logits_by_epoch")
            )
            logits.append(np.array(result["logits"], np.float32))
        return OutOfFold(folds, logits, self.setup.labels, patience)

    def predict_held_out(self, run: Run, batch_size: int = 64) -> np.ndarray:
        """Return the logits for a run's held-out rows, of shape (n, 2): those of its best epoch.

        If it was run with folds, they are those of the folds' models after that epoch.

        batch_size : texts predicted at once; affects speed, not results

        The model has the weights of the run's best epoch afterwards.
        """
        self.setup.model.load_state_dict(run.best_weights)
        if isinstance(run, FinalRun):
            return run.out_of_fold.predict(run.best_epoch).to_numpy()
        return predict_distributed(self.setup.model, self.setup.features, batch_size, run.held_out_rows)
