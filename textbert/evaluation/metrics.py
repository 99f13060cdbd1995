"""Metrics of binary classification with their confidence intervals, calibration error, and the decision threshold."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from textbert.evaluation.calibration import format_threshold
from textbert.utils.validation import as_1d_arrays

METRICS = ("mcc", "accuracy", "precision", "recall", "f1")


def safe_divide(numerator: np.ndarray, denominator: np.ndarray, zero_division: float = 0.0) -> np.ndarray:
    """Divide two arrays of one shape element by element; the result is `zero_division` where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), zero_division), where=denominator > 0)


def metrics_from_counts(
    tp: ArrayLike, tn: ArrayLike, fp: ArrayLike, fn: ArrayLike, zero_division: float = 0.0
) -> np.ndarray:
    """Compute `METRICS` from the counts of confusion matrices, arrays of one shape (...).

    Returns an array of shape (5, ...). A metric whose denominator is 0, such as the precision of a model that never
    predicts the positive class, is `zero_division`; the MCC is then 0 by convention.
    """
    tp, tn, fp, fn = (np.asarray(count, float) for count in (tp, tn, fp, fn))
    mcc = safe_divide(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    ratios = [(tp + tn, tp + tn + fp + fn), (tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn)]
    return np.stack([mcc, *(safe_divide(numerator, denominator, zero_division) for numerator, denominator in ratios)])


def get_eval_report(
    task_name: str, labels: np.ndarray, preds: np.ndarray, y_prob: np.ndarray | None = None
) -> dict[str, Any]:
    """Compare predictions with labels, both arrays of 0 and 1 of shape (n,).

    Returns a dict with task, mcc (Matthews correlation), tp, tn, fp, fn, accuracy, precision, recall and f1. Given the
    probabilities of class 1 as `y_prob`, of shape (n,), it also has roc_auc and loss (mean cross-entropy in nats). A
    metric whose denominator is 0 is 0; without examples all are NaN. Raises ValueError for probabilities that are NaN
    or infinite.
    """
    from sklearn import metrics

    labels, preds = as_1d_arrays(labels, preds)
    if y_prob is not None:
        labels, y_prob = as_1d_arrays(labels, y_prob)
        if not np.isfinite(y_prob).all():
            raise ValueError("the model outputs NaN: training diverged. Try a smaller LEARNING_RATE")
    if not len(labels):
        names = (*METRICS, *(("roc_auc", "loss") if y_prob is not None else ()))
        return {"task": task_name, "tp": 0, "tn": 0, "fp": 0, "fn": 0, **dict.fromkeys(names, math.nan)}
    tn, fp, fn, tp = metrics.confusion_matrix(labels, preds, labels=[0, 1]).ravel().tolist()
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, preds, average="binary", zero_division=0)
    report = {"task": task_name, "mcc": float(metrics.matthews_corrcoef(labels, preds))}
    report |= {"tp": tp, "tn": tn, "fp": fp, "fn": fn, "accuracy": (tp + tn) / len(labels)}
    report |= {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    if y_prob is not None:
        report["roc_auc"] = float(metrics.roc_auc_score(labels, y_prob))
        report["loss"] = float(metrics.log_loss(labels, y_prob, labels=[0, 1]))
    return report


def standard_error(report: dict[str, Any], n_resamples: int = 9999, seed: int = 0) -> float:
    """Estimate the standard error of the MCC in a report of `get_eval_report`.

    It is the standard deviation of the MCC over bootstrap resamples of the examples (Efron 1979).
    """
    counts = np.array([report[name] for name in ("tp", "tn", "fp", "fn")])
    resamples = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), n_resamples)
    return float(metrics_from_counts(*resamples.T)[0].std())


def format_metric(value: float) -> str:
    """Format a metric with two decimals, or more if it would otherwise look like exactly 0, 1 or -1.

    Halves are rounded away from 0, as a reader does: 0.495 is 0.50.
    """
    value += math.copysign(1e-9, value)
    digits = next((n for n in range(2, 7) if abs(round(value, n)) not in (0, 1)), 2)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 makes -0.0 a 0.0


def tabulate(reports: dict[str, dict[str, Any]], label_names: Sequence[str]) -> pd.DataFrame:
    """Format reports of `get_eval_report`, a dict keyed by model, as a table that uses the names of the two classes."""
    negative, positive = label_names
    columns = {"mcc": "MCC", "accuracy": "accuracy", "tn": f"{negative} found", "tp": f"{positive} found"}
    columns |= {"fp": f"{negative} predicted as {positive}", "fn": f"{positive} predicted as {negative}"}
    columns |= {"roc_auc": "ROC AUC", "loss": "loss"}
    table = pd.DataFrame(list(reports.values()), list(reports), list(columns)).rename(columns=columns)
    metrics = ["MCC", "accuracy", "ROC AUC", "loss"]
    formatted = {name: [format_metric(value) if value == value else "–" for value in table[name]] for name in metrics}
    return table.astype(object).assign(**formatted)


def bootstrap_metrics(
    labels: np.ndarray, predictions: dict[str, np.ndarray], n_resamples: int = 9999, seed: int = 0
) -> pd.DataFrame:
    """Compute the metrics of several models with 95 % bootstrap intervals (percentile method, Efron 1979).

    Parameters
    ----------
    labels : array of 0 and 1, of shape (n,)
    predictions : dict from a model's name to its predictions, an array of 0 and 1 of shape (n,)
    n_resamples : how many times the examples are resampled with replacement, the same ones for all models

    Returns a DataFrame with the columns value, low and high, indexed by (model, metric); for each model but the last
    also ("<last> minus <model>", "mcc"). A metric that is undefined for the examples as they are, such as the precision
    of a model that never predicts the positive class, is NaN.

    Examples with the same label and the same predictions are interchangeable, so it is enough to resample how often
    each such pattern occurs, which follows a multinomial distribution.
    """
    *baselines, last = predictions
    rows = np.stack(as_1d_arrays(labels, *predictions.values()), axis=1).astype(bool)
    patterns, counts = np.unique(rows, axis=0, return_counts=True)  # (patterns, 1 + models), (patterns,)
    resamples = np.random.default_rng(seed).multinomial(len(rows), counts / len(rows), n_resamples)
    resamples = np.vstack([counts, resamples])  # (1 + n_resamples, patterns), the original examples first
    y_true, *y_preds = patterns.T
    values: dict[tuple[str, str], np.ndarray] = {}  # by model and metric, each of shape (1 + n_resamples,)
    for model, y_pred in zip(predictions, y_preds):
        cells = (y_pred & y_true, ~y_pred & ~y_true, y_pred & ~y_true, ~y_pred & y_true)  # tp, tn, fp, fn
        tp, tn, fp, fn = (resamples[:, cell].sum(1) for cell in cells)
        metrics = metrics_from_counts(tp, tn, fp, fn)
        metrics[np.isnan(metrics_from_counts(tp[0], tn[0], fp[0], fn[0], zero_division=np.nan))] = np.nan
        values |= {(model, name): samples for name, samples in zip(METRICS, metrics)}
    for model in baselines:
        values[f"{last} minus {model}", "mcc"] = values[last, "mcc"] - values[model, "mcc"]
    low, high = np.percentile([samples[1:] for samples in values.values()], [2.5, 97.5], axis=1)
    index = pd.MultiIndex.from_tuples(values, names=["model", "metric"])
    return pd.DataFrame({"value": [samples[0] for samples in values.values()], "low": low, "high": high}, index)


def format_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Format a table of `bootstrap_metrics` with a column for each model and cells such as "0.71 (0.63 to 0.78)".

    An undefined metric is a dash.
    """

    def format_cell(row: pd.Series) -> str:
        value, low, high = map(format_metric, row[["value", "low", "high"]])
        return f"{value} ({low} to {high})" if row["value"] == row["value"] else "–"

    cells = table.apply(format_cell, axis=1)
    models, metrics = (table.index.unique(level) for level in table.index.names)
    cells = cells.unstack(0).loc[metrics, models]  # not unstack(sort=False), which mixes up the cells before pandas 3
    cells = cells.dropna(axis=1).rename_axis(index=None, columns=None)
    return cells.rename(index={"mcc": "MCC", "f1": "F1"})


def sample_size_warning(
    name: str, labels: np.ndarray, predicted: np.ndarray, mcc: Sequence[float] | None = None
) -> str:
    """Describe the MCC of a data set and its 95 % interval, with a warning if the set is too small to say much.

    The rule: at least 30 examples of each class, and an interval no wider than 0.2. Where no prediction is wrong, which
    leaves the bootstrap nothing to resample, the upper bound of the error rate is that of Wilson's interval. Arrays are
    of shape (n,); `mcc` is the MCC and the ends of its interval, where `bootstrap_metrics` has computed them before.
    """
    from scipy.stats import binomtest

    labels, predicted = as_1d_arrays(labels, predicted)
    if mcc is None:
        mcc = bootstrap_metrics(labels, {name: predicted}).loc[(name, "mcc")]
    value, low, high = map(format_metric, mcc)
    minority = int(min(np.sum(labels), len(labels) - np.sum(labels)))
    size = f"{len(labels):,} examples, {minority:,} of the minority class"
    note = f"{name}: MCC {value} (95 % interval {low} to {high}); {size}."
    if len(np.unique(predicted)) == 1:
        note += " Every example got the same prediction, for which the MCC is 0 by convention."
    if minority < 30 or round(float(high) - float(low), 2) > 0.2:
        return f"{note} TOO SMALL to say much: it takes 30 examples of each class and an interval no wider than 0.2."
    if np.array_equal(labels, predicted):
        errors = 100 * (1 - binomtest(len(labels), len(labels)).proportion_ci(method="wilson").low)
        return f"{note} No prediction is wrong; of other examples like these, up to {errors:.2g} in 100 may be."
    return note


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Compare the predictions of two models by McNemar's exact test; all arrays are of shape (n,).

    Only examples that exactly one of the two gets right count. Returns (how many only the first gets right, how many
    only the second, the p-value: how probable so uneven a split is if both models are equally good).
    """
    from scipy.stats import binomtest

    labels, first, second = as_1d_arrays(labels, first, second)
    first_correct, second_correct = first == labels, second == labels
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((second_correct & ~first_correct).sum())
    discordant = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def accuracy_by_group(labels: np.ndarray, predicted: np.ndarray, groups: Sequence | pd.Series) -> pd.DataFrame:
    """Compute the accuracy in each group with Wilson's 95 % interval; all arguments are of shape (n,).

    Returns a DataFrame with a row for each group: texts (their number), correct, accuracy, low and high. Values are
    matched by position, whatever index they have. A text whose group is missing (None or NaN) is in a group NaN.
    """
    from scipy.stats import binomtest

    groups = pd.Series(groups).reset_index(drop=True)
    labels, predicted, _ = as_1d_arrays(labels, predicted, groups)
    is_correct = pd.Series(labels == predicted).groupby(groups, observed=True, dropna=False)
    table = is_correct.agg(texts="size", correct="sum")
    tests = [binomtest(int(row.correct), int(row.texts)) for row in table.itertuples()]
    low, high = np.array([test.proportion_ci(method="wilson") for test in tests]).reshape(-1, 2).T
    return table.assign(accuracy=table["correct"] / table["texts"], low=low, high=high)


def calibration_curve(labels: np.ndarray, y_prob: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Compare probabilities of class 1 with the observed frequency of class 1, both arrays of shape (n,).

    The bins have equal width: [0, 0.1), ..., [0.9, 1]. Returns a DataFrame with a row for each bin that is not empty:
    texts (their number), probability (its mean) and fraction_of_positives.
    """
    labels, y_prob = as_1d_arrays(labels, y_prob)
    bin_ids = np.minimum((y_prob * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": bin_ids, "probability": y_prob, "fraction_of_positives": labels}).groupby("bin")
    return table.mean().assign(texts=table.size())


def brier_and_ece(labels: np.ndarray, y_prob: np.ndarray, bins: int = 10) -> tuple[float, float]:
    """Return (Brier score, expected calibration error) of probabilities of class 1, arrays of shape (n,).

    The Brier score is the mean squared difference between probability and label; the ECE is the mean absolute
    difference between probability and observed frequency over the bins of `calibration_curve`, weighted by their size
    (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    labels, y_prob = as_1d_arrays(labels, y_prob)
    table = calibration_curve(labels, y_prob, bins)
    gaps = (table["probability"] - table["fraction_of_positives"]).abs()
    return float(np.mean((y_prob - labels) ** 2)), float(np.average(gaps, weights=table["texts"]))


def threshold_curve(labels: np.ndarray, y_prob: np.ndarray, thresholds: np.ndarray | None = None) -> pd.DataFrame:
    """Return a DataFrame with threshold, mcc, precision and recall; by default for the thresholds 0.01 to 0.99.

    A text is predicted as positive if its probability, in an array of shape (n,), is at least the threshold. If none
    is, the precision is NaN.
    """
    thresholds = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, float)
    labels, y_prob = as_1d_arrays(labels, y_prob)
    # how many probabilities of each class are below each threshold
    fn, tn = (np.searchsorted(np.sort(y_prob[labels == label]), thresholds) for label in (1, 0))
    tp, fp = (labels == 1).sum() - fn, (labels == 0).sum() - tn
    mcc, _, precision, recall, _ = metrics_from_counts(tp, tn, fp, fn, zero_division=np.nan)
    return pd.DataFrame({"threshold": thresholds, "mcc": mcc, "precision": precision, "recall": recall})


def choose_threshold(
    y_prob: np.ndarray, labels: np.ndarray, false_positive_cost: float = 1.0, seed: int = 0, default: float = 0.5
) -> tuple[float, str]:
    """Choose the decision threshold: the probability from which a text is predicted as positive.

    If a false positive does not cost the same as a false negative, the threshold with the lowest expected cost follows
    from the probabilities alone (Elkan 2001, The Foundations of Cost-Sensitive Learning). Otherwise it is `default`,
    unless another has a better MCC and the 95 % bootstrap interval of the improvement, over 2,000 resamples, excludes
    0. This is lenient, as the threshold was chosen on the same texts: in simulations where 0.5 was best, it passed in
    one of ten cases, at a loss of 0.001; choosing and testing on different halves missed more than it saved. Where the
    probabilities were random, it passed in one of four; so class 1 must also have the higher ones, by a one-sided
    Mann-Whitney U test at the 2.5 % level.

    y_prob, labels : arrays of shape (n,): calibrated probabilities of class 1, and the labels, 0 or 1
    false_positive_cost : cost of a false positive, in units of that of a false negative
    default : see `default_threshold`

    Returns (threshold, the reason for it in words).
    """
    if false_positive_cost != 1:
        threshold = false_positive_cost / (1 + false_positive_cost)
        return threshold, f"a false positive costs {false_positive_cost:g} times as much as a false negative"
    from scipy.stats import mannwhitneyu

    y_prob, labels = as_1d_arrays(y_prob, labels)
    values = np.unique(np.append(y_prob, default))
    thresholds = np.append(default, (values[1:] + values[:-1]) / 2)  # the default first, so that it wins a tie
    best = thresholds[threshold_curve(labels, y_prob, thresholds)["mcc"].argmax()]
    if best == default:
        return default, "no other threshold has a higher MCC"
    if mannwhitneyu(y_prob[labels == 1], y_prob[labels == 0], alternative="greater").pvalue > 0.025:
        return default, "the probabilities do not tell the classes apart better than chance does"
    predictions = {"default": y_prob >= default, "best": y_prob >= best}
    gain = bootstrap_metrics(labels, predictions, 2000, seed).loc[("best minus default", "mcc")]
    interval = f"{gain['low']:+.3f} to {gain['high']:+.3f} (95 % bootstrap interval)"
    if gain["low"] > 0:
        return float(best), f"its MCC is the highest, by {interval}"
    return default, f"the MCC is highest at {format_threshold(best)}, but that gain, {interval}, may be chance"
