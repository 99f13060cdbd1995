"""The training run behind the loop of train.ipynb: optimizer, schedule, batches, checkpoints and progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.evaluation.metrics import standard_error
from textbert.features.batching import BatchSampler, padded_length, split_into_micro_batches
from textbert.features.features import Features
from textbert.training.checkpoints import Checkpoint, catch_stop_signals
from textbert.training.cuda_graphs import capture_layers, release_layers
from textbert.training.distributed import all_reduce_sum, experiment_tracker
from textbert.training.malloc import disable_malloc_trim
from textbert.training.optim import make_optimizer, make_schedule
from textbert.training.progress import Progress, ProgressEstimator
from textbert.training.sparse_embeddings import (
    full_state_dict,
    prune_embeddings,
    resize_adam_state,
    restore_embeddings,
    used_token_ids,
)
from textbert.utils.display import LiveFigure, plot_training, progress_bar

if TYPE_CHECKING:
    from accelerate import Accelerator  # seconds, which a prediction need not wait for
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RunConfig:
    """How to train.

    learning_rate : of classifier and pooler; `make_optimizer` gives those of the layers below
    epochs : how many at most
    warmup_proportion : fraction of the steps in which the learning rate rises
    patience : how many epochs may pass without a higher MCC; None for all
    baseline_mcc : MCC before training, for the plot
    """

    learning_rate: float
    epochs: int
    warmup_proportion: float = 0.1
    patience: int | None = None
    baseline_mcc: float = 0.0


class Run:
    """A training run, from its start or from a checkpoint; the loop itself is in train.ipynb.

        with run.session():
            for epoch in run.epochs():
                for batches in run.steps(epoch):
                    ...  # gradients, clipping, run.optimizer, run.schedule
                    run.log_step(loss)
                run.on_epoch_end(metrics)

    The result is in `progress`.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        model: BertForSequenceClassification,
        plan: BatchSampler,
        rows: np.ndarray,
        config: RunConfig,
        features: Features | None = None,
        checkpoint: Checkpoint | None = None,
        tracker: AbstractContextManager[Callable[[dict[str, float], int], None]] | None = None,
    ) -> None:
        """Set the seed of the random number generators to that of the plan.

        Parameters
        ----------
        model : a BertForSequenceClassification with fused kernels and the weights to start from
        rows : array of shape (n,); which features to train on
        features : the features of training and validation set; if only one process trains, the model has no embeddings
            of other tokens until the session ends. None keeps all.
        checkpoint : None if the run should not be saved
        tracker : what `experiment_tracker` returns, to log losses and validation metrics; None logs nothing
        """
        from accelerate.utils import set_seed

        set_seed((plan.seed + accelerator.process_index) % 2**32)
        self.accelerator = accelerator
        self.model = model
        self.plan = plan
        self.rows = rows
        self.config = config
        self.features = features
        self.checkpoint = checkpoint
        self.tracker = tracker or experiment_tracker(accelerator)
        self.progress = Progress()
        self.saved_at = time.monotonic()
        steps = plan.steps(rows, 0)
        self.steps_per_epoch = len(steps)
        self.total_steps = config.epochs * len(steps)
        self.total_tokens = config.epochs * sum(map(plan.num_tokens, steps))

    @property
    def summary(self) -> dict[str, Any]:
        """The best epoch and its validation MCC, as a dict: the result of a trial or a fold."""
        return {"best epoch": self.progress.best_epoch, "validation MCC": self.progress.best_mcc}

    @property
    def _highest(self) -> dict[str, Any]:
        """The first epoch with the highest validation MCC, as a dict of the history."""
        return max(self.progress.history, key=lambda epoch: epoch["mcc"], default={"epoch": 0})

    @contextmanager
    def session(self) -> Iterator[None]:
        """Context manager for the loop: prepares model and optimizer, resumes, shows progress, and cleans up.

        Raises KeyboardInterrupt at the end if a stop was requested after the last step.
        """
        with ExitStack() as stack:
            stack.enter_context(disable_malloc_trim())
            stack.callback(restore_embeddings, self.model)
            self._make_optimizer()
            self._resume()
            self.stop_signals = stack.enter_context(catch_stop_signals(self.accelerator.print))
            bar = progress_bar(self.total_steps, "Training", " steps", self.accelerator.is_main_process)
            self.bar = stack.enter_context(bar)
            self.bar.update(len(self.progress.losses))
            self.log = stack.enter_context(self.tracker)
            self.figure = LiveFigure(self._draw)
            stack.callback(release_layers, self.model)
            if self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1:
                capture_layers(self.model, self.plan.batch_size * padded_length(self.plan.lengths[self.rows]))
            yield
            self.figure.update(at_once=True)
            self.optimizer.state.clear()  # moments take twice the memory of the weights
            (stop,) = all_reduce_sum(self.accelerator, bool(self.stop_signals))
            if stop:
                self._stop()

    def _make_optimizer(self) -> None:
        ids = None if self.features is None else used_token_ids(self.model, self.features)
        if ids is not None and self.accelerator.num_processes == 1:  # DDP has registered the parameters
            prune_embeddings(self.model, ids)
        # not prepared by accelerate, which would keep the optimizer and its moments after this run
        self.optimizer = make_optimizer(self.model, self.config.learning_rate)
        self.schedule = make_schedule(self.optimizer, self.total_steps, self.config.warmup_proportion)
        if ids is not None:
            weight = self.model.bert.embeddings.word_embeddings.weight
            self.optimizer.register_load_state_dict_pre_hook(partial(resize_adam_state, weight=weight, ids=ids))

    def _resume(self) -> None:
        if self.checkpoint:
            state = self.checkpoint.load(self.accelerator, self.model, self.optimizer, self.schedule)
            if state:
                self.accelerator.print(f"Resuming from step {len(state['losses'])} of {self.total_steps}")
                self.progress = Progress(**state)
            else:
                self._save()  # so that evaluate.ipynb knows of a run that was started
        self.saved_at = time.monotonic()
        self.estimator = ProgressEstimator(self.total_tokens, len(self.progress.losses) / self.total_steps)

    def _save(self) -> None:
        if self.checkpoint:
            self.checkpoint.save(self.accelerator, self.model, self.optimizer, self.schedule, vars(self.progress))
            self.saved_at = time.monotonic()

    def _stop(self) -> None:
        setting = "" if self.checkpoint is None or self.checkpoint.resume else "set RESUME = True and "
        raise KeyboardInterrupt(f"stopped after step {len(self.progress.losses)}: {setting}run it again to resume")

    def _draw(self) -> "Figure":
        progress = self.progress
        return plot_training(progress.losses, progress.history, self.steps_per_epoch, self.config.baseline_mcc)

    def epochs(self) -> Iterator[int]:
        """Yield the number of each epoch that is left, from 0, until patience runs out."""
        progress, patience = self.progress, self.config.patience or self.config.epochs
        while progress.epoch < self.config.epochs and progress.epoch - self._highest["epoch"] < patience:
            yield progress.epoch

    def steps(self, epoch: int) -> Iterator[list[np.ndarray]]:
        """Yield the batches of each step that is left of an epoch; on a CPU as micro-batches."""
        for batches in self.plan.steps(self.rows, epoch)[self.progress.step :]:
            self.step_tokens = self.plan.num_tokens(batches)
            if self.accelerator.device.type == "cpu":
                lengths, processes = self.plan.lengths, self.accelerator.num_processes
                batches = [part for batch in batches for part in split_into_micro_batches(batch, lengths, processes)]
            yield batches

    def log_step(self, loss: torch.Tensor | float) -> None:
        """Record the loss of a step, summed over the processes; save a checkpoint or stop if it is time to.

        Raises ValueError if the loss is NaN or infinite, and KeyboardInterrupt, after a checkpoint, if a stop was
        requested.
        """
        elapsed = time.monotonic() - self.saved_at
        is_due = self.checkpoint is not None and elapsed >= 60 * self.checkpoint.minutes
        loss, stop, save = all_reduce_sum(self.accelerator, loss, bool(self.stop_signals), is_due)
        losses = self.progress.losses
        if not np.isfinite(loss):
            raise ValueError(
                f"loss is {loss} at step {len(losses) + 1}: training diverged. Try a smaller LEARNING_RATE, or a "
                "larger WARMUP_PROPORTION"
            )
        losses.append(loss)
        self.progress.step += 1
        self.log({"training/loss": loss}, len(losses))
        self.estimator.update(self.step_tokens)
        self.bar.update()
        self.bar.set_postfix(loss=f"{loss:.3f}")
        self.figure.update()
        if stop or save:
            self._save()
        if stop:
            self._stop()
        if self.checkpoint and self.estimator.steps == 10:
            self.accelerator.print(self.estimator.describe_total(len(self.rows)))

    def on_epoch_end(self, metrics: dict[str, Any]) -> None:
        """Record validation metrics, a dict of `get_eval_report`; keep the weights if this epoch is the best.

        The best is the last epoch whose MCC is within one standard error of the highest. (The rule of Breiman et al.
        1984, Classification and Regression Trees: there it chooses the simpler tree, here the epoch with the lower
        learning rate. The choice of validation examples may be all that separates it from the highest.)
        """
        progress = self.progress
        training_loss = float(np.mean(progress.losses[-progress.step :]))
        progress.epoch += 1
        progress.step = 0
        error = standard_error(metrics)
        epoch = {"epoch": progress.epoch, "training_loss": training_loss, **metrics, "mcc_error": error}
        progress.history.append(epoch)
        values = {f"validation/{name}": value for name, value in metrics.items() if name != "task"}
        self.log({"training/mean_loss": training_loss, **values}, len(progress.losses))
        highest = self._highest
        if metrics["mcc"] >= highest["mcc"] - standard_error(highest):  # the history of an old checkpoint has no errors
            progress.best_mcc = metrics["mcc"]
            progress.best_epoch = progress.epoch
            progress.best_weights = {name: t.detach().cpu().clone() for name, t in full_state_dict(self.model).items()}
        self._save()
        line = f"epoch {progress.epoch}: training loss {training_loss:.3f}, "
        line += f"validation MCC {metrics['mcc']:.3f} ± {error:.3f}"
        self.accelerator.print(line + self.estimator.describe_remaining())
