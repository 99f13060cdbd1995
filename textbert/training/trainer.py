"""The run behind the loop of train.ipynb: optimizer, schedule, plan, and where the training stands."""

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from textbert.evaluation.metrics import standard_error
from textbert.features.batching import padded_length, split_into_micro_batches
from textbert.model.loading import clone_state_dict
from textbert.training.checkpoints import catch_stop_signals
from textbert.training.cuda_graphs import capture_layers, release_layers
from textbert.training.distributed import all_reduce_sum, experiment_tracker
from textbert.training.malloc import disable_malloc_trim
from textbert.training.optim import make_optimizer, make_schedule
from textbert.training.sparse_embeddings import prune_embeddings, resize_adam_state, restore_embeddings, used_token_ids
from textbert.utils.display import LiveFigure, format_duration, plot_training, progress_bar

# ---------- The run ---------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """Where a training stands: what a checkpoint keeps beside model, optimizer and schedule."""

    epoch: int = 0  # how many are done
    step: int = 0  # how many are done of the next
    losses: list = field(default_factory=list)  # one for each step
    history: list = field(default_factory=list)  # a dict for each epoch
    best_epoch: int = 0  # the one that is kept, see `Run.end_epoch`
    best_mcc: float = -2.0
    best_weights: dict | None = None


class Run:
    """One training, from its start or from where a checkpoint stands; the loop itself stands in train.ipynb.

        with run.session():
            for epoch in run.epochs():
                for batches in run.steps(epoch):
                    ...  # gradients, clipping, run.optimizer, run.schedule
                    run.log_step(loss)
                run.on_epoch_end(report)

    What it has found is in `progress`.
    """

    def __init__(
        self,
        accelerator,
        model,
        plan,
        rows,
        learning_rate,
        epochs,
        warmup_proportion=0.1,
        patience=None,
        checkpoint=None,
        floor=0.0,
        features=None,
        tracking=None,
    ):
        """Set the seed, and make optimizer and schedule.

        Parameters
        ----------
        model : a fast BertForSequenceClassification with the weights to start from
        plan : a `BatchSampler`
        rows : array of the examples to learn from
        patience : how many epochs may go by without a higher MCC; None trains all
        checkpoint : a `Checkpoint`, or None for a training that is not kept
        floor : MCC before training, for the plot
        features : the `Features` that rows and validation come from: until `watched` ends, the model has no vectors
            but those of the words in them, if one process alone trains; None keeps all
        tracking : a context of `experiment_tracker`, where the losses and what validation says are noted; None notes nothing
        """
        from accelerate.utils import set_seed

        restore_embeddings(model)  # a run that was broken off before it began has left those in use
        set_seed((plan.seed + accelerator.process_index) % 2**32)
        self.accelerator = accelerator
        self.model = model
        self.plan = plan
        self.rows = rows
        self.patience = patience or epochs
        self.checkpoint = checkpoint
        self.floor = floor
        self.tracking = tracking or experiment_tracker(accelerator)
        self.total_epochs = epochs
        first_epoch = plan.steps(rows, 0)
        self.steps_per_epoch = len(first_epoch)
        # not prepared by accelerate, which would keep it, and its moments, beyond this run
        self.optimizer = self._make_optimizer(features, learning_rate)
        self.schedule = make_schedule(self.optimizer, epochs * self.steps_per_epoch, warmup_proportion)
        self.progress = Progress()
        if checkpoint:
            try:
                self._take_up_checkpoint()
            except BaseException:  # refused: the model shall be whole for whatever comes next
                restore_embeddings(model)
                raise
        self.saved = time.monotonic()
        total_cost = epochs * sum(map(plan.num_tokens, first_epoch))
        self.clock = ProgressEstimator(total_cost, len(self.progress.losses) / (epochs * self.steps_per_epoch))

    @property
    def summary(self):
        """What a search or a fold wants to know: the best epoch and its validation MCC, as a dict."""
        return {"best epoch": self.progress.best_epoch, "validation MCC": self.progress.best_mcc}

    @property
    def _highest(self):
        """The first epoch with the highest validation MCC, as a dict of the history."""
        return max(self.progress.history, key=lambda epoch: epoch["mcc"], default={"epoch": 0})

    def _make_optimizer(self, features, learning_rate):
        if features is None:
            return make_optimizer(self.model, learning_rate)
        used = used_token_ids(self.model, features)
        if self.accelerator.num_processes == 1:  # several have settled what they share
            prune_embeddings(self.model, used, self._decay)
        vectors = self.model.bert.embeddings.word_embeddings.weight
        optimizer = make_optimizer(self.model, learning_rate)
        optimizer.register_load_state_dict_pre_hook(partial(resize_adam_state, vectors=vectors, ids=used))
        return optimizer

    def _decay(self):
        """Return what the steps up to now have left of a vector that AdamW only decays."""
        vectors = self.model.bert.embeddings.word_embeddings.weight
        group = next(g for g in self.optimizer.param_groups if any(p is vectors for p in g["params"]))
        factors = map(self.schedule.lr_lambdas[0], range(len(self.progress.losses)))
        return math.prod(1 - group["initial_lr"] * factor * group["weight_decay"] for factor in factors)

    def _take_up_checkpoint(self):
        found = self.checkpoint.load(self.accelerator, self.model, self.optimizer, self.schedule)
        if found:
            total = self.total_epochs * self.steps_per_epoch
            self.accelerator.print(f"Going on after step {len(found['losses'])} of {total}")
            self.progress = Progress(**found)
        else:
            self._save()  # evaluate.ipynb shall know that a training was begun

    def _save(self):
        self.checkpoint.save(self.accelerator, self.model, self.optimizer, self.schedule, vars(self.progress))
        self.saved = time.monotonic()

    @contextmanager
    def session(self):
        """Show a bar and, in a notebook, a live plot; note when somebody wants to stop.

        Raises KeyboardInterrupt at the end if that was after the last step.
        """
        visible, total = self.accelerator.is_main_process, self.total_epochs * self.steps_per_epoch
        bar = progress_bar(total, "Training", " steps", visible)
        stops = catch_stop_signals(self.accelerator.print)
        with disable_malloc_trim(), stops as self.stop_asked, bar as self.bar, self.tracking as self.note:
            self.bar.update(len(self.progress.losses))
            self.figure = LiveFigure(self._draw)
            try:
                if self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1:
                    capture_layers(self.model, self.plan.batch_size * padded_length(self.plan.lengths[self.rows]))
                yield
            finally:
                release_layers(self.model)
                restore_embeddings(self.model)
            self.figure.update(at_once=True)
            self.optimizer.state.clear()  # its moments, twice the weights: nobody needs them any more
            (stop,) = all_reduce_sum(self.accelerator, bool(self.stop_asked))
            if stop:
                self._stop()

    def _stop(self):
        how = "" if self.checkpoint is None or self.checkpoint.resume else "set RESUME = True and "
        raise KeyboardInterrupt(f"stopped after step {len(self.progress.losses)}: {how}run it again to go on")

    def _draw(self):
        return plot_training(self.progress.losses, self.progress.history, self.steps_per_epoch, self.floor)

    def epochs(self):
        """Yield the number of each epoch, from 0, that is left; ends early when patience does."""
        progress = self.progress
        while progress.epoch < self.total_epochs and progress.epoch - self._highest["epoch"] < self.patience:
            yield progress.epoch

    def steps(self, epoch):
        """Yield the batches of each step that is left of an epoch; on a CPU a large one comes in parts."""
        for batches in self.plan.steps(self.rows, epoch)[self.progress.step :]:
            self.cost = self.plan.num_tokens(batches)
            if self.accelerator.device.type == "cpu":
                processes = self.accelerator.num_processes
                batches = [
                    part for batch in batches for part in split_into_micro_batches(batch, self.plan.lengths, processes)
                ]
            yield batches

    def log_step(self, loss):
        """Note the loss of a step, this process's share of it; write a checkpoint if it is time, stop if it is asked.

        Raises KeyboardInterrupt after the checkpoint if somebody wants to stop, ValueError for a loss of NaN.
        """
        due = bool(self.checkpoint) and time.monotonic() - self.saved >= 60 * self.checkpoint.minutes
        loss, stop, due = all_reduce_sum(self.accelerator, loss, bool(self.stop_asked), due)
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss of step {len(self.progress.losses) + 1} is {loss}: the training went astray. Try a smaller "
                "LEARNING_RATE, or a larger WARMUP_PROPORTION"
            )
        self.progress.losses.append(loss)
        self.progress.step += 1
        self.note({"training/loss": loss}, len(self.progress.losses))
        self.clock.count(self.cost)
        self.bar.update()
        self.bar.set_postfix(loss=f"{loss:.3f}")
        self.figure.update()
        if self.checkpoint and (stop or due):
            self._save()
        if stop:
            self._stop()
        if self.checkpoint and self.clock.steps == 10:
            self.accelerator.print(self.clock.estimate(len(self.rows)))

    def on_epoch_end(self, report):
        """Note what validation says, a dict of `get_eval_report`; keep the weights if this epoch is the best.

        The best is the last one whose MCC is within one standard error of the highest. (The rule of Breiman et al.
        1984, Classification and Regression Trees. Where it chose the simpler tree, it chooses the epoch with the lower
        learning rate here: what parts the others may be the choice of texts.)
        """
        progress = self.progress
        training_loss = float(np.mean(progress.losses[-progress.step :]))
        progress.epoch += 1
        progress.step = 0
        error = standard_error(report)
        progress.history.append({"epoch": progress.epoch, "training_loss": training_loss, **report, "mcc_error": error})
        figures = {f"validation/{name}": value for name, value in report.items() if name != "task"}
        self.note({"training/mean_loss": training_loss, **figures}, len(progress.losses))
        highest = self._highest
        if report["mcc"] >= highest["mcc"] - standard_error(highest):  # the history of an old checkpoint has no errors
            progress.best_mcc = report["mcc"]
            progress.best_epoch = progress.epoch
            progress.best_weights = clone_state_dict(self.model)
        if self.checkpoint:
            self._save()
        line = f"epoch {progress.epoch}: training loss {training_loss:.3f}, "
        line += f"validation MCC {report['mcc']:.3f} ± {error:.3f}"
        self.accelerator.print(line + self.clock.remaining())


class ProgressEstimator:
    """How long a training takes: its seconds go with the word pieces in its batches, not with its steps."""

    def __init__(self, total, done=0.0):
        self.total = total  # word pieces, padding included, in all epochs
        self.left = total * (1 - done)
        self.steps = 0
        self.pieces = 0
        self.rates = []  # seconds for a word piece, of each step

    def count(self, pieces):
        """Note that a step on so many word pieces is done; the first one, which sets things up, is not timed."""
        now = time.perf_counter()
        self.left -= pieces
        self.steps += 1
        if self.steps == 1:
            self.begin = now
        else:
            self.pieces += pieces
            self.rates.append((now - self.last) / pieces)
        self.last = now

    def _seconds(self, pieces):
        return (time.perf_counter() - self.begin) * pieces / self.pieces

    def estimate(self, rows):
        """Say how long all of a training on `rows` rows takes, from its first steps.

        By the median of their rates: a step that is the first of its size, and takes memory for it, is slow.
        """
        total = float(np.median(self.rates)) * self.total
        quick = f"; with TRAIN_ROWS=400 {format_duration(total * 400 / rows)}" if rows > 400 else ""
        return f"This will take {format_duration(total)} here{quick}"

    def remaining(self):
        """Say how long the rest takes; nothing if there is no rest, or nothing to judge by."""
        return f", {format_duration(self._seconds(self.left))} to go" if self.pieces and self.left > 0 else ""
