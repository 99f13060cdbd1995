"""A learning curve: what fewer training examples would have given, beside word counts, and what more may bring."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from textbert.evaluation.baseline import make_baseline
from textbert.evaluation.metrics import bootstrap_metrics, get_eval_report, standard_error


def nested_parts(rows: np.ndarray, labels: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Return a stratified part of some rows for each fraction; a smaller part is contained in a larger one.

    rows : array of row numbers, of shape (n,)
    labels : of these rows, an array of 0 and 1, of shape (n,)
    """
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(rows[labels == label]) for label in (0, 1)]
    parts = [[members[: max(1, round(fraction * len(members)))] for members in classes] for fraction in fractions]
    return [np.sort(np.concatenate(part)) for part in parts]


def describe_gain(y_true: np.ndarray, predictions: dict[int, np.ndarray]) -> str:
    """Return a sentence: whether twice as many texts are likely to bring something, or that this cannot be told.

    The largest number of texts is compared with the one nearest to half of it, by the 95 % bootstrap interval of the
    difference in MCC.

    y_true : array of 0 and 1, of shape (n,)
    predictions : dict from the number of training texts, at least two, to predictions of shape (n,)
    """
    *parts, largest = sorted(predictions)
    half = min(parts, key=lambda count: abs(count - largest / 2))
    compared = {"half": predictions[half], "all": predictions[largest]}
    gain = bootstrap_metrics(y_true, compared).loc[("all minus half", "mcc")]
    change = f"From {half:,} to {largest:,} texts the MCC changes by {gain['value']:+.2f} (95 % interval "
    change += f"{gain['low']:+.2f} to {gain['high']:+.2f})"
    if gain["low"] > 0:
        return f"{change}: more texts still pay, though twice as many usually bring less than the last doubling"
    return f"{change}, which may be chance: {len(y_true):,} held-out examples cannot tell what more texts would bring"


def evaluate_parts(
    texts: Sequence[str],
    labels: np.ndarray,
    parts: Sequence[np.ndarray],
    held_out: np.ndarray,
    logits: Sequence[Any],
    class_weights: str | None = None,
) -> pd.DataFrame:
    """Return what models predict that were trained on parts of a training set, and TF-IDF, trained on the same.

    texts, labels : of all rows
    parts : arrays of training rows
    held_out : array of n rows that the models were not trained on
    logits : for each part the logits of these, of shape (n, 2)
    class_weights : as in training, for the TF-IDF baseline, whose threshold is 0.5 as well

    Returns a DataFrame with n rows for each part: part, its number; texts, how many are in it; label, BERT, TF-IDF.
    """
    held_out_texts, tables = [texts[row] for row in held_out], []
    for number, (part, part_logits) in enumerate(zip(parts, logits)):
        baseline = make_baseline(class_weights).fit([texts[row] for row in part], labels[part])
        columns = {"label": labels[held_out], "BERT": np.argmax(part_logits, axis=1)}
        columns["TF-IDF"] = baseline.predict(held_out_texts)
        tables.append(pd.DataFrame({"part": number, "texts": len(part), **columns}))
    return pd.concat(tables)


def tabulate_curve(predictions: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the learning curve as a table, with a row for each part of the training set, and what it says.

    predictions : what `evaluate_parts` returns; of several folds, one after the other
    """
    points, by_size = [], {}
    for _, part in predictions.groupby("part"):
        y_true, size = part["label"].to_numpy(), round(part["texts"].mean())
        by_size[size] = part["BERT"].to_numpy()
        report, words = (get_eval_report("", y_true, part[name].to_numpy()) for name in ("BERT", "TF-IDF"))
        point = {"texts": size, "MCC": report["mcc"], "standard error": standard_error(report)}
        points.append(point | {"MCC of word counts": words["mcc"]})
    return pd.DataFrame(points), describe_gain(y_true, by_size)
