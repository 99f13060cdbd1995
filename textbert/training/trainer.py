"""The training run behind the loop of train.ipynb: optimizer, schedule, batches, checkpoints and progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from textbert.evaluation.metrics import standard_error
from textbert.features.batching import BatchSampler, padded_length, split_into_micro_batches
from textbert.training.batches import LossFunction, OptimizerStep, TrainingBatch, TrainingSetup
from textbert.training.checkpoints import Checkpoint, catch_stop_signals
from textbert.training.config import TrainingConfig
from textbert.training.cuda_graphs import capture_layers, release_layers
from textbert.training.distributed import all_reduce_sum, experiment_tracker
from textbert.training.malloc import disable_malloc_trim
from textbert.training.optim import get_class_weights, make_optimizer, make_schedule
from textbert.training.progress import Progress, ProgressEstimator, find_best_epoch, is_out_of_patience
from textbert.training.sparse_embeddings import (
    full_state_dict,
    prune_embeddings,
    resize_adam_state,
    restore_embeddings,
    used_token_ids,
)
from textbert.utils.display import LiveFigure, describe_training, plot_training, progress_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """A training run, from its start or from a checkpoint; the loop itself is in train.ipynb.

        with run.session() as model:
            for epoch in run.epochs():
                for batch in run.batches(epoch):
                    batch.backward(batch.loss(model(**batch.inputs)))
                    if batch.completes_step:
                        ...  # clipping, run.optimizer, run.schedule
                run.on_epoch_end(metrics)

    The result is in `progress`. Metrics are those of its `held_out_rows`.
    """

    scope = ""  # of the remaining time

    def __init__(
        self,
        setup: TrainingSetup,
        config: TrainingConfig,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        checkpoint: Checkpoint | None = None,
        tracker: AbstractContextManager[Callable[[dict[str, float], int], None]] | None = None,
        plan: BatchSampler | None = None,
    ) -> None:
        """Plan the run; nothing changes before its session.

        Parameters
        ----------
        setup : what the runs of a task share
        train_rows, validation_rows : arrays of row numbers of the features
        checkpoint : None if the run should not be saved
        tracker : what `experiment_tracker` returns, to log losses and validation metrics; None logs nothing
        plan : which examples are in which step; None for batches of similar lengths
        """
        self.setup = setup
        self.accelerator = setup.accelerator
        self.model = setup.model
        self.config = config
        self.train_rows = train_rows
        self.validation_rows = self.held_out_rows = validation_rows
        self.checkpoint = checkpoint
        self.tracker = tracker or experiment_tracker(setup.accelerator)
        batch_sizes = config.train_batch_size, config.gradient_accumulation_steps
        self.plan = plan or BatchSampler(setup.features.lengths, *batch_sizes, config.random_seed)
        self.progress = Progress()
        self.saved_at = time.monotonic()
        self.has_started = False
        self.is_active = False  # in its session
        self.is_in_step = False
        steps = self.plan.steps(train_rows, 0)
        self.steps_per_epoch = len(steps)
        self.total_steps = config.num_train_epochs * len(steps)
        self.total_tokens = config.num_train_epochs * sum(map(self.plan.num_tokens, steps))

    @property
    def summary(self) -> dict[str, Any]:
        """The best epoch and its validation MCC, as a dict: the result of a trial or a fold."""
        return {"kept epoch": self.progress.best_epoch, "validation MCC": self.progress.best_mcc}

    @property
    def best_epoch(self) -> int:
        """The number of the epoch whose weights are kept, from 1."""
        return self.progress.best_epoch

    @property
    def best_weights(self) -> dict[str, torch.Tensor]:
        """The weights of the best epoch, for `model.load_state_dict`."""
        if self.progress.best_weights is None:
            raise RuntimeError("the run has not completed an epoch")
        return self.progress.best_weights

    @property
    def losses(self) -> list[float]:
        """The loss of each step."""
        return self.progress.losses

    @property
    def history(self) -> pd.DataFrame:
        """The metrics on the validation rows and the mean training loss, with a row for each epoch."""
        return pd.DataFrame(self.progress.history).drop(columns="task")

    @contextmanager
    def session(self) -> Iterator[torch.nn.Module]:
        """Context manager for the loop that yields the model to train, with the weights to start from.

        With several devices it is a wrapper of the model, which exchanges gradients. The session sets the seed, makes
        the optimizer, resumes, shows progress, and cleans up. Meanwhile the model has embeddings only of the tokens in
        its features, if only one process trains. Raises KeyboardInterrupt at the end if a stop was requested after the
        last step.
        """
        from accelerate.utils import set_seed

        if self.has_started:
            raise RuntimeError("a run has only one session: make another run")
        self.has_started = True
        with ExitStack() as stack:
            stack.enter_context(disable_malloc_trim())
            stack.callback(self._clean_up)
            self.model.load_state_dict(self.setup.initial_state)
            self.model.zero_grad()  # of a loop that was interrupted
            set_seed((self.plan.seed + self.accelerator.process_index) % 2**32)
            self._make_optimizer()
            self._resume()
            self.stop_signals = stack.enter_context(catch_stop_signals(self.accelerator.print))
            bar = progress_bar(self.total_steps, "Training", " steps", self.accelerator.is_main_process)
            self.bar = stack.enter_context(bar)
            self.bar.update(len(self.progress.losses))
            self.log = stack.enter_context(self.tracker)
            self.figure = LiveFigure(self._draw, self._describe)
            if self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1:
                lengths = self.plan.lengths[self.train_rows]
                capture_layers(self.model, self.plan.batch_size * padded_length(lengths))
            self.is_active = True
            yield self.setup.prepared_model
            self.figure.update(at_once=True)
            self.optimizer.state.clear()  # moments take twice the memory of the weights
            (stop,) = all_reduce_sum(self.accelerator, bool(self.stop_signals))
            if stop:
                self._stop()

    def _clean_up(self) -> None:
        self.is_active = False
        release_layers(self.model)
        self.model.zero_grad()
        restore_embeddings(self.model)

    def _make_optimizer(self) -> None:
        class_weights = get_class_weights(
            self.config.class_weights, self.setup.labels[self.train_rows], self.accelerator.device
        )
        self.loss_function = LossFunction(class_weights, self.config.r_drop)
        ids = used_token_ids(self.model, self.setup.features)
        if self.accelerator.num_processes == 1:  # DDP has registered the parameters
            prune_embeddings(self.model, ids)
        # not prepared by accelerate, which would keep the optimizer and its moments after this run
        self.optimizer = make_optimizer(self.model, self.config.learning_rate)
        self.schedule = make_schedule(self.optimizer, self.total_steps, self.config.warmup_proportion)
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

    def _describe(self) -> str:
        return describe_training(self.losses, self.progress.history, self.setup.baseline_mcc)

    def _draw(self) -> "Figure":
        return plot_training(self.losses, self.progress.history, self.steps_per_epoch, self.setup.baseline_mcc)

    def epochs(self) -> Iterator[int]:
        """Yield the number of each epoch that is left, from 0, until patience runs out."""
        progress, config = self.progress, self.config
        while progress.epoch < config.num_train_epochs and not is_out_of_patience(progress.history, config.patience):
            yield progress.epoch

    def batches(self, epoch: int) -> Iterator[TrainingBatch]:
        """Yield the TrainingBatches that are left of an epoch; each must get its `backward`.

        After each step, when the next batch is requested, the loss is recorded, see `log_step`. Raises RuntimeError
        outside the session, for a batch without `backward`, and if the loop was left within a step before.
        """
        if not self.is_active or self.is_in_step:
            reason = "an earlier loop was left within a step" if self.is_active else "it works in run.session() only"
            raise RuntimeError(f"run.batches({epoch}): {reason}")
        is_adversarial = epoch < self.config.adversarial_share * self.config.num_train_epochs
        epsilon = self.config.adversarial_epsilon if is_adversarial else 0.0
        for batches in self.plan.steps(self.train_rows, epoch)[self.progress.step :]:
            self.is_in_step = True
            step = OptimizerStep(self.setup, self.loss_function, self._split(batches), epsilon)
            for number, batch in enumerate(step.parts(), start=1):
                yield batch
                if step.backward_passes != number:
                    raise RuntimeError(f"{step.backward_passes} backward passes after {number} batches of a step")
            self.log_step(step.loss, self.plan.num_tokens(batches))
            self.is_in_step = False

    def _split(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Return the batches of a step; on a CPU as micro-batches."""
        if self.accelerator.device.type != "cpu":
            return batches
        lengths, processes = self.plan.lengths, self.accelerator.num_processes
        return [part for batch in batches for part in split_into_micro_batches(batch, lengths, processes)]

    def log_step(self, loss: torch.Tensor | float, tokens: int) -> None:
        """Record the loss of a step, summed over the processes; save a checkpoint or stop if it is time to.

        tokens : number of tokens in the step, padding included

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
        self.estimator.update(tokens)
        self.bar.update()
        self.bar.set_postfix(loss=f"{loss:.3f}")
        self.figure.update()
        if stop or save:
            self._save()
        if stop:
            self._stop()
        if self.checkpoint and self.estimator.steps == 10:
            self.accelerator.print(self.estimator.describe_total(len(self.train_rows)))

    def on_epoch_end(self, metrics: dict[str, Any]) -> None:
        """Record validation metrics, a dict of `get_eval_report`; keep the weights if this epoch is the best so far.

        For the rule see `find_best_epoch`.
        """
        progress = self.progress
        if progress.step < self.steps_per_epoch:
            steps = f"{progress.step} of {self.steps_per_epoch} steps"
            raise RuntimeError(f"epoch {progress.epoch + 1} has done {steps}: the loop over run.batches was left early")
        training_loss = float(np.mean(progress.losses[-progress.step :]))
        progress.epoch += 1
        progress.step = 0
        error = standard_error(metrics)
        epoch = {"epoch": progress.epoch, "training_loss": training_loss, **metrics, "mcc_error": error}
        progress.history.append(epoch)
        values = {f"validation/{name}": value for name, value in metrics.items() if name != "task"}
        self.log({"training/mean_loss": training_loss, **values}, len(progress.losses))
        if find_best_epoch(progress.history) == progress.epoch:
            progress.best_mcc = metrics["mcc"]
            progress.best_epoch = progress.epoch
            progress.best_weights = {name: t.detach().cpu().clone() for name, t in full_state_dict(self.model).items()}
        self._save()
        line = f"epoch {progress.epoch}: training loss {training_loss:.3f}, "
        line += f"validation MCC {metrics['mcc']:.3f} ± {error:.3f}"
        remaining = self.estimator.describe_remaining()
        self.accelerator.print(line + (remaining and remaining + self.scope))
