"""Which predictions to leave to a person: a range of probabilities, outside of which the model is right often enough.

This is classification with a reject option (Chow 1970, https://doi.org/10.1109/TIT.1970.1054406).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from textbert.evaluation.calibration import format_threshold
from textbert.evaluation.metrics import format_metric
from textbert.utils.validation import as_1d_arrays

Range = Sequence[float]  # two probabilities
Target = float | Sequence[float] | None


def _log_odds(y_prob: np.ndarray) -> np.ndarray:
    from scipy.special import logit  # predicting does not need scipy

    return logit(np.clip(y_prob, 1e-12, 1 - 1e-12))


def _move(threshold: float, distance: float) -> float:
    """Return the probability at a distance from a threshold in log-odds."""
    from scipy.special import expit

    return float(expit(_log_odds(np.array(threshold)) + distance)) if distance else threshold


def get_confidence(y_prob: np.ndarray, threshold: float) -> np.ndarray:
    """Return how far probabilities, of shape (n,), are from the threshold in log-odds; an array of shape (n,)."""
    return np.abs(_log_odds(y_prob) - _log_odds(np.array(threshold)))


class Coverage(NamedTuple):
    """For each number of the most confident predictions, without parting equally confident ones: how many are right.

    All are arrays of the same shape; `confidence` is that of the last of them.
    """

    texts: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray


def count_by_coverage(confidence: np.ndarray, is_right: np.ndarray) -> Coverage:
    """Count the predictions, and those that are right, from the most confident to all; arrays of shape (n,)."""
    order = np.argsort(-confidence)
    ends = np.flatnonzero(np.diff(confidence[order], append=-np.inf))
    return Coverage(ends + 1, np.cumsum(is_right[order])[ends], confidence[order][ends])


def _find_cutoff(confidence: np.ndarray, is_right: np.ndarray, target_accuracy: float) -> float:
    """Return the lowest confidence from which on predictions are right often enough; infinity if there is none.

    It lies halfway between two of the values, so that rounding moves no text to the other side.
    """
    coverage = count_by_coverage(confidence, is_right)
    low, _ = _accuracy_interval(coverage.correct, coverage.texts)
    reached = np.flatnonzero(low >= target_accuracy)
    if not len(reached):
        return np.inf
    between = coverage.confidence[reached[-1] : reached[-1] + 2]
    return float(between.mean()) if len(between) == 2 else 0.0  # 0: none is left to a person


def _accuracy_interval(correct: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95 % intervals of accuracies (scipy has them for one at a time)."""
    from scipy.stats import norm

    z = norm.ppf(0.975)
    center = (correct + z**2 / 2) / (texts + z**2)
    margin = z * np.sqrt(correct * (texts - correct) / texts + z**2 / 4) / (texts + z**2)
    return center - margin, center + margin


def find_review_range(
    y_prob: np.ndarray, labels: np.ndarray, threshold: float, target_accuracy: Target
) -> Range | None:
    """Find the narrowest range of probabilities outside of which predictions are right often enough.

    Often enough: the lower limit of Wilson's 95 % interval of their accuracy is at least the target. The narrowest of
    many ranges owes something to luck; yet in simulations of 168 to 2,000 examples (tests/benchmarks/bench_review.py),
    the true accuracy was below the target in at most 3.2 % of the draws. Where few of them had a range, though, because
    the examples are too few for the target, that was a third of those that had one.

    Parameters
    ----------
    y_prob : array of shape (n,), calibrated probabilities of class 1
    labels : array of 0 and 1, of shape (n,), of examples that the model was not trained on
    threshold : the decision threshold, which lies in the range
    target_accuracy : how often predictions outside the range are to be right, above 0.5 and below 1; two numbers, if
        predictions of class 0 and of class 1 are to reach a target of their own; None for no range

    Returns [lowest, highest]: a probability strictly between them is left to a person; equal ones leave none. [0, 1],
    which leaves all, means that these examples do not show that the target is reached anywhere. None is for no target.
    """
    if target_accuracy is None:
        return None
    y_prob, labels = as_1d_arrays(y_prob, labels)
    confidence, predicted = get_confidence(y_prob, threshold), y_prob >= threshold
    if isinstance(target_accuracy, float):
        low = high = _find_cutoff(confidence, predicted == labels, target_accuracy)
    else:
        sides = zip([~predicted, predicted], target_accuracy, strict=True)
        low, high = (_find_cutoff(confidence[side], (predicted == labels)[side], target) for side, target in sides)
    return [_move(threshold, -low), _move(threshold, high)]


def needs_review(y_prob: np.ndarray, review_range: Range) -> np.ndarray:
    """Return which probabilities are left to a person, a boolean array of their shape; see `find_review_range`."""
    return (y_prob > review_range[0]) & (y_prob < review_range[1])


def describe_range(review_range: Range | None, target_accuracy: Target) -> str:
    """Return a sentence about the result of `find_review_range`."""
    if review_range is None:
        return "TARGET_ACCURACY is None: no predictions are left to a person"
    if list(review_range) == [0, 1]:
        return (
            f"TARGET_ACCURACY = {target_accuracy}: the held-out texts do not show that any predictions are right so "
            "often, so all are left to a person. Lower it, or label more texts"
        )
    if review_range[0] == review_range[1]:
        return f"TARGET_ACCURACY = {target_accuracy}: all predictions are right so often; none are left to a person"
    low, high = map(format_threshold, review_range)
    return f"TARGET_ACCURACY = {target_accuracy}: probabilities between {low} and {high} are left to a person"


def tabulate_targets(
    validation: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    threshold: float,
    targets: Sequence[float] = (0.9, 0.95),
) -> pd.DataFrame:
    """Return what some target accuracies would leave to a person, and how often the model is right on the rest.

    validation, held_out : (probabilities of class 1, labels), each of shape (n,): the examples that the ranges are
        found on, and those that they are tried on
    threshold, targets : see `find_review_range`
    """
    y_prob, labels = as_1d_arrays(*held_out)
    table = pd.DataFrame(index=pd.Index(targets, name="TARGET_ACCURACY"))
    ranges = [find_review_range(*validation, threshold, target) or (0, 1) for target in targets]
    is_right = [((y_prob >= threshold) == labels)[~needs_review(y_prob, review_range)] for review_range in ranges]
    table["left to a person"] = [_format_range(review_range) for review_range in ranges]
    table["decided by the model"] = [f"{len(decided):,} of {len(labels):,}" for decided in is_right]
    table["accuracy on these"] = [_format_accuracy(decided) for decided in is_right]
    return table


def _format_range(review_range: Range) -> str:
    """Return "0.250 to 0.750", or "all" or "none"."""
    if list(review_range) == [0, 1]:
        return "all"
    return "none" if review_range[0] == review_range[1] else " to ".join(map(format_threshold, review_range))


def _format_accuracy(is_right: np.ndarray) -> str:
    """Return an accuracy with its interval; "–" if there are no predictions."""
    if not len(is_right):
        return "–"
    low, high = (format_metric(float(end)) for end in _accuracy_interval(is_right.sum(), np.array(len(is_right))))
    return f"{format_metric(is_right.mean())} (95 % interval {low} to {high})"


def describe_review(labels: np.ndarray, y_prob: np.ndarray, threshold: float, review_range: Range | None) -> str:
    """Return how many texts the model decides by itself and how often it is right on these, as a sentence.

    labels, y_prob, threshold : as in `find_review_range`, but for examples that the range was not found on
    """
    if review_range is None:
        return "All predictions are the model's: TARGET_ACCURACY in train.ipynb leaves none to a person."
    labels, y_prob = as_1d_arrays(labels, y_prob)
    is_right = ((y_prob >= threshold) == labels)[~needs_review(y_prob, review_range)]
    if not len(is_right):
        return f"All {len(labels):,} texts are left to a person."
    decided = f"The model decides {len(is_right):,} of {len(labels):,} texts, and is right on {is_right.sum():,}"
    return f"{decided}: an accuracy of {_format_accuracy(is_right)}."
