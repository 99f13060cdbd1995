"""What to read in a table of predictions: bands of probability, confident errors, and what the model is unsure of.

Such a table has a row for each text, with the columns label, predicted, probability (of the positive class) and text,
and one for the ids.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from textbert.data.words import count_words, is_unspaced
from textbert.evaluation.metrics import accuracy_by_group, brier_and_ece


class Errors(NamedTuple):
    """The errors of one kind: how many there are, and a table of the most confident."""

    sentence: str
    table: pd.DataFrame


def merge_bands(y_prob: np.ndarray, bands: int = 10, min_texts: int = 10) -> np.ndarray:
    """Return the edges of bands of probability, from 0 to 1, each a multiple of 1 / `bands` wide.

    Neighbours are merged until each band holds `min_texts` texts, so that its fraction of positives says something.
    """
    limits = np.arange(1, bands) / bands
    edges, texts = [0.0], 0
    for limit, count in zip([*limits, 1.0], np.bincount(np.digitize(y_prob, limits), minlength=bands)):
        texts += int(count)
        if texts >= min_texts:
            edges.append(float(limit))
            texts = 0
    return np.array([0.0, *edges[1:-1], 1.0])  # what is left belongs to the last band


def calibration_bands(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Count the texts in the bands of `merge_bands`, and how many of them are right.

    names : names of the two classes

    Returns a DataFrame with a row for each band: from, to, texts, right, the mean probability, and the fraction of the
    positive class with Wilson's 95 % interval.
    """
    y_prob, is_positive = predictions["probability"].to_numpy(), (predictions["label"] == names[1]).to_numpy()
    is_right = (predictions["label"] == predictions["predicted"]).to_numpy()
    edges = merge_bands(y_prob)
    band = np.digitize(y_prob, edges[1:-1])
    rows = []
    for number, limits in enumerate(zip(edges[:-1], edges[1:])):
        inside = band == number
        texts, positives = int(inside.sum()), int(is_positive[inside].sum())
        interval = binomtest(positives, texts).proportion_ci(method="wilson")
        share = f"{positives / texts:.2f} ({interval.low:.2f} to {interval.high:.2f})"
        counts = texts, int(is_right[inside].sum()), f"{y_prob[inside].mean():.2f}"
        rows.append((*(f"{limit:g}" for limit in limits), *counts, share))
    columns = ["from", "to", "texts", "right", "mean probability", f"fraction of {names[1]!r}"]
    return pd.DataFrame(rows, columns=columns)


def tabulate_calibration_errors(labels: np.ndarray, uncalibrated: np.ndarray, y_prob: np.ndarray) -> pd.DataFrame:
    """Return Brier score and expected calibration error before and after calibration; all arrays are of shape (n,)."""
    probs = {"before calibration": uncalibrated, "after calibration": y_prob}
    scores = {name: brier_and_ece(labels, values) for name, values in probs.items()}
    return pd.DataFrame(scores, ["Brier score", "expected calibration error"]).T.round(3)


def find_confident_errors(predictions: pd.DataFrame, names: Sequence[str], predicted: int, count: int) -> Errors:
    """Return the errors in which one class, 0 or 1, was predicted, the most confident first; at most `count`.

    Probabilities have two decimals, and where these are equal, rows keep their order: a third would say nothing. Their
    column is named after the positive class.
    """
    name, other = names[predicted], names[1 - predicted]
    wrong = predictions[(predictions["predicted"] == name) & (predictions["label"] == other)]
    confidence = wrong["probability"] if predicted else 1 - wrong["probability"]
    wrong = wrong.assign(probability=wrong["probability"].round(2))
    wrong = wrong.sort_values("probability", ascending=not predicted, kind="stable")
    sentence = f"{len(wrong):,} of {(predictions['label'] == other).sum():,} {other!r} were predicted as {name!r}"
    if len(wrong):
        confident = (confidence >= 0.9).sum() or "none"
        sentence += f", {confident} of them with a probability of {name!r} of at least 0.9"
    columns = {"probability": f"probability of {names[1]!r}"}
    return Errors(f"{sentence}.", wrong.drop(columns=["label", "predicted"]).rename(columns=columns).head(count))


def find_confident(predictions: pd.DataFrame, threshold: float, count: int) -> tuple[list[str], list[str]]:
    """Return the texts with the most confident predictions, at most `count` that are right and as many that are wrong.

    Confidence, the distance from the threshold, has two decimals; where it is equal, the shorter text comes first.
    """
    confidence, length = (predictions["probability"] - threshold).abs().round(2), predictions["text"].str.len()
    ordered = predictions.loc[pd.DataFrame({0: -confidence, 1: length}).sort_values([0, 1], kind="stable").index]
    is_right = ordered["label"] == ordered["predicted"]
    right, wrong = (ordered.loc[mask, "text"].head(count).tolist() for mask in (is_right, ~is_right))
    return right, wrong


def find_uncertain(predictions: pd.DataFrame, threshold: float, count: int) -> pd.DataFrame:
    """Return the predictions whose probability is nearest to the threshold, at most `count`."""
    distances = (predictions["probability"] - threshold).abs().sort_values(kind="stable")
    return predictions.loc[distances.index[:count]].round(2)


def length_groups(texts: Sequence[str], groups: int = 4) -> pd.Series:
    """Group texts by the quantiles of their lengths, by default quartiles; return a Series of group names.

    A name is, for example, "12 to 31 words"; where most texts are in scripts without spaces between words, lengths are
    in characters. The Series is an ordered categorical.
    """
    lengths = pd.Series([count_words(text) for text in texts])
    unit = "characters" if 2 * sum(map(is_unspaced, texts)) > len(texts) else "words"
    edges = np.unique(lengths.quantile(np.linspace(0, 1, groups + 1)[1:]).astype(int))
    names = [f"{low} to {high} {unit}" for low, high in zip([lengths.min(), *edges[:-1] + 1], edges)]
    return pd.Series(pd.Categorical.from_codes(np.searchsorted(edges, lengths), names, ordered=True))


def accuracy_by_class_and_length(
    labels: np.ndarray, predicted: np.ndarray, texts: Sequence[str], names: Sequence[str]
) -> pd.DataFrame:
    """Return `accuracy_by_group` for the classes, with their names, and below for the lengths of the texts."""
    groupings = [pd.Series(names)[labels], length_groups(texts)]
    return pd.concat([accuracy_by_group(labels, predicted, grouping) for grouping in groupings])
