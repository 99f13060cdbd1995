"""How far a training run has got, and how long the rest of it will take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from textbert.evaluation.metrics import standard_error
from textbert.utils.display import format_duration


@dataclass
class Progress:
    """How far a training run has got: what a checkpoint holds besides model, optimizer and schedule."""

    epoch: int = 0  # completed epochs
    step: int = 0  # completed steps of the current epoch
    losses: list[float] = field(default_factory=list)  # one for each step
    history: list[dict[str, Any]] = field(default_factory=list)  # one for each epoch
    best_epoch: int = 0  # from 1; see `find_best_epoch`
    best_mcc: float = -2.0
    best_weights: dict[str, torch.Tensor] | None = None


def find_best_epoch(history: Sequence[dict[str, Any]]) -> int:
    """Return the epoch to keep, from 1: the last whose validation MCC is within one standard error of the highest.

    history : the metrics of each epoch, dicts of `get_eval_report`

    (The rule of Breiman et al. 1984, Classification and Regression Trees: there it chooses the simpler tree, here the
    epoch with the lower learning rate. The choice of validation examples may be all that separates it from the
    highest.)
    """
    highest = max(history, key=lambda epoch: epoch["mcc"])
    limit = highest["mcc"] - standard_error(highest)
    return max(number for number, epoch in enumerate(history, start=1) if epoch["mcc"] >= limit)


def is_out_of_patience(history: Sequence[dict[str, Any]], patience: int | None) -> bool:
    """Return whether `patience` epochs have passed since the first one with the highest MCC; None for never."""
    if patience is None or not history:
        return False
    scores = [epoch["mcc"] for epoch in history]
    return len(scores) - 1 - scores.index(max(scores)) >= patience


class ProgressEstimator:
    """Estimates how long a training run takes, from the tokens in its batches rather than from its number of steps.

    total_tokens : number of tokens in all epochs, padding included
    done : fraction of the run that was completed earlier
    """

    def __init__(self, total_tokens: int, done: float = 0.0) -> None:
        self.total_tokens = total_tokens
        self.tokens_left = total_tokens * (1 - done)
        self.steps = 0
        self.start = self.previous = 0.0  # when the first step ended, when the latest one did
        self.timed_tokens = 0
        self.seconds_per_token: list[float] = []  # of each timed step

    def update(self, tokens: int) -> None:
        """Record a step with this many tokens; the first one, which includes set-up, is not timed."""
        now = time.perf_counter()
        self.tokens_left -= tokens
        self.steps += 1
        if self.steps == 1:
            self.start = now
        else:
            self.timed_tokens += tokens
            self.seconds_per_token.append((now - self.previous) / tokens)
        self.previous = now

    def describe_total(self, rows: int) -> str:
        """Format how long a complete run on `rows` rows takes.

        It is estimated from the median rate of the steps: the first step of each size allocates memory and is slow.
        """
        total = float(np.median(self.seconds_per_token)) * self.total_tokens
        small = f"; with TRAIN_ROWS=400 and FOLDS=0 {format_duration(total * 400 / rows)}" if rows > 400 else ""
        return f"This will take {format_duration(total)} here{small}"

    def describe_remaining(self) -> str:
        """Format the remaining time; "" at the end, or if no step was timed."""
        if not self.timed_tokens or self.tokens_left <= 0:
            return ""
        seconds = (time.perf_counter() - self.start) * self.tokens_left / self.timed_tokens
        return f", {format_duration(seconds)} to go"
