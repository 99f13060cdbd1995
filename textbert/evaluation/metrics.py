"""How good: metrics, their intervals, how far probabilities hold, the decision threshold."""

import numpy as np
import pandas as pd

from textbert.evaluation.calibration import format_threshold
from textbert.utils.validation import as_1d_arrays

METRICS = ("mcc", "accuracy", "precision", "recall", "f1")


def _ratio(above, below, undefined=0.0):
    """Divide two arrays of one shape; `undefined` where there is nothing below the line."""
    return np.divide(above, below, out=np.full(np.shape(above), undefined), where=below > 0)


def metrics_from_counts(tp, tn, fp, fn, undefined=0.0):
    """Return `METRICS` for arrays of counts of one shape (...), as one array of shape (5, ...).

    A ratio with nothing below the line is `undefined`, such as the precision of a model that never says yes; the MCC is
    then 0 by convention.
    """
    tp, tn, fp, fn = (np.asarray(count, float) for count in (tp, tn, fp, fn))
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    shares = ((tp + tn, tp + tn + fp + fn), (tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn))
    return np.stack([_ratio(tp * tn - fp * fn, root), *(_ratio(*share, undefined) for share in shares)])


def get_eval_report(task_name, labels, preds, positive=None):
    """Measure predictions against labels, both arrays of 0 and 1 of shape (n,).

    Returns a dict with task, mcc (Matthews correlation), tp, tn, fp, fn, accuracy, precision, recall and f1; given the
    probabilities of class 1 as `positive`, of shape (n,), also roc_auc and loss (mean cross-entropy in nats). A ratio
    with nothing below the line is 0. Raises ValueError for probabilities that are NaN.
    """
    from sklearn import metrics

    labels, preds, *given = as_1d_arrays(labels, preds, *([] if positive is None else [positive]))
    positive = given[0] if given else None
    if positive is not None and not np.isfinite(positive).all():
        raise ValueError(
            "the model answers with NaN, which is no probability: its training went astray. Try a smaller LEARNING_RATE"
        )
    tn, fp, fn, tp = metrics.confusion_matrix(labels, preds, labels=[0, 1]).ravel().tolist()
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, preds, average="binary", zero_division=0)
    report = {"task": task_name, "mcc": float(metrics.matthews_corrcoef(labels, preds))}
    report |= {"tp": tp, "tn": tn, "fp": fp, "fn": fn, "accuracy": (tp + tn) / len(labels)}
    report |= {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    if positive is not None:
        report["roc_auc"] = float(metrics.roc_auc_score(labels, positive))
        report["loss"] = float(metrics.log_loss(labels, positive, labels=[0, 1]))
    return report


def standard_error(report, n_resamples=9999, seed=0):
    """Return by how much the MCC of a report of `get_eval_report` differs from one choice of texts to another.

    It is the standard deviation over texts drawn anew, with replacement (bootstrap, Efron 1979).
    """
    counts = np.array([report[name] for name in ("tp", "tn", "fp", "fn")])
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), n_resamples)
    return float(metrics_from_counts(*drawn.T)[0].std())


def tabulate(reports, label_names):
    """Return reports of `get_eval_report`, a dict from a model's name, as a table with the names of the classes."""
    negative, positive = label_names
    columns = {"mcc": "MCC", "accuracy": "accuracy", "tn": f"{negative} found", "tp": f"{positive} found"}
    columns |= {"fp": f"{negative} taken for {positive}", "fn": f"{positive} taken for {negative}"}
    columns |= {"roc_auc": "ROC AUC", "loss": "loss"}
    table = pd.DataFrame(list(reports.values()), list(reports), list(columns)).rename(columns=columns)
    return table.round(3).astype(object).where(table.notna(), "–")


def bootstrap_metrics(labels, predictions, n_resamples=9999, seed=0):
    """Return the figures of some models with their 95 % bootstrap intervals.

    Parameters
    ----------
    labels : array of 0 and 1, of shape (n,)
    predictions : dict from a model's name to an array of 0 and 1, of shape (n,)

    The rows are drawn anew, with replacement and for all models alike, and the interval holds the middle 95 % of what
    comes out (percentile method, Efron 1979). Rows with the same label and answers count alike, so it is enough to draw
    how often each kind of row comes, which follows a multinomial distribution. Returns a DataFrame with the columns
    value, low and high, indexed by (model, figure); for each model but the last also ("<last> minus <model>", "mcc").
    A figure that the rows as they are leave undefined, such as the precision of a model that never says yes, is NaN.
    """
    *others, last = predictions
    rows = np.stack(as_1d_arrays(labels, *predictions.values()), axis=1).astype(bool)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)  # (kinds, 1 + models), (kinds,)
    drawn = np.random.default_rng(seed).multinomial(len(rows), counts / len(rows), n_resamples)
    drawn = np.vstack([counts, drawn])  # (1 + resamples, kinds), the rows as they are first
    truth, *said = kinds.T
    found = {}
    for model, positive in zip(predictions, said):
        cells = (positive & truth, ~positive & ~truth, positive & ~truth, ~positive & truth)
        counted = [drawn[:, cell].sum(1) for cell in cells]
        figures = metrics_from_counts(*counted)
        figures[np.isnan(metrics_from_counts(*(count[0] for count in counted), undefined=np.nan))] = np.nan
        found |= {(model, name): values for name, values in zip(METRICS, figures)}
    for model in others:
        found[f"{last} minus {model}", "mcc"] = found[last, "mcc"] - found[model, "mcc"]
    low, high = np.percentile([values[1:] for values in found.values()], [2.5, 97.5], axis=1)
    index = pd.MultiIndex.from_tuples(found, names=["model", "figure"])
    return pd.DataFrame({"value": [values[0] for values in found.values()], "low": low, "high": high}, index)


def format_metric(value):
    """Return a figure with two decimals, or as many more as it takes not to look like 0, 1 or -1 where it is not."""
    digits = next((n for n in range(2, 7) if abs(round(value, n)) not in (0, 1)), 2)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 makes -0.0 a 0.0


def format_intervals(table):
    """Return a table of `bootstrap_metrics` with a column for each model, each cell as "0.71 (0.63 to 0.78)".

    What is undefined is a dash.
    """

    def show(row):
        value, low, high = map(format_metric, row[["value", "low", "high"]])
        return f"{value} ({low} to {high})" if row["value"] == row["value"] else "–"

    cells = table.apply(show, axis=1)
    models, figures = (table.index.unique(level) for level in table.index.names)
    cells = cells.unstack(0).loc[figures, models]  # not unstack(sort=False), which mixes up the cells before pandas 3
    cells = cells.dropna(axis=1).rename_axis(index=None, columns=None)
    return cells.rename(index={"mcc": "MCC", "f1": "F1"})


def sample_size_warning(name, labels, predicted):
    """Say what the MCC of a part is and between which bounds it lies, and warn if it is too small to tell much.

    The rule: at least 30 texts of each class, and a 95 % interval no wider than 0.2. Where no answer is wrong, which
    leaves the bootstrap nothing to draw, it says how many may be by Wilson's interval. Arrays of shape (n,).
    """
    from scipy.stats import binomtest

    labels, predicted = as_1d_arrays(labels, predicted)
    value, low, high = map(format_metric, bootstrap_metrics(labels, {name: predicted}).loc[(name, "mcc")])
    rarer = int(min(np.sum(labels), len(labels) - np.sum(labels)))
    note = f"{name}: MCC {value}, between {low} and {high}; {len(labels):,} texts, {rarer:,} of the rarer class."
    if len(np.unique(predicted)) == 1:
        note += " Every text got the same answer, for which the MCC is 0 by convention."
    if rarer < 30 or round(float(high) - float(low), 2) > 0.2:
        return f"{note} TOO SMALL TO TELL MUCH: at least 30 of each class and an interval of at most 0.2 are needed."
    if np.array_equal(labels, predicted):
        wrong = 1 - binomtest(len(labels), len(labels)).proportion_ci(method="wilson").low
        return f"{note} No answer is wrong; of others like them up to {100 * wrong:.2g} in 100 may be."
    return note


def mcnemar(labels, first, second):
    """Compare two models on the same texts by McNemar's exact test; all arrays are of shape (n,).

    Only texts count that one model gets right and the other wrong. Returns (how many only the first gets right, how
    many only the second, the probability of so uneven a split if both were equally good).
    """
    from scipy.stats import binomtest

    labels, first, second = as_1d_arrays(labels, first, second)
    first, second = first == labels, second == labels
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    differ = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, differ).pvalue) if differ else 1.0


def accuracy_by(labels, predicted, groups):
    """Return the accuracy in each of some groups, all of shape (n,), with Wilson's 95 % interval, as a DataFrame.

    All are taken in order, whatever index they have. A text whose group is missing (None or NaN) is in a group NaN.
    """
    from scipy.stats import binomtest

    groups = pd.Series(groups).reset_index(drop=True)
    labels, predicted, _ = as_1d_arrays(labels, predicted, groups)
    right = pd.Series(labels == predicted).groupby(groups, observed=True, dropna=False)
    table = right.agg(texts="size", right="sum")
    tests = [binomtest(int(row.right), int(row.texts)) for row in table.itertuples()]
    low, high = np.array([test.proportion_ci(method="wilson") for test in tests]).reshape(-1, 2).T
    return table.assign(accuracy=table["right"] / table["texts"], low=low, high=high)


def length_groups(texts, groups=4):
    """Return for each text, as a Series, in which quarter of the lengths it lies, such as "12 to 31 words".

    Where most texts do not part words by spaces, it says "characters", and each counts.
    """
    from textbert.data.words import count_words, is_unspaced

    words = pd.Series([count_words(text) for text in texts])
    unit = "characters" if 2 * sum(map(is_unspaced, texts)) > len(texts) else "words"
    edges = np.unique(words.quantile(np.linspace(0, 1, groups + 1)[1:]).astype(int))
    names = [f"{low} to {high} {unit}" for low, high in zip([words.min(), *edges[:-1] + 1], edges)]
    return pd.Series(pd.Categorical.from_codes(np.searchsorted(edges, words), names, ordered=True))


def reliability(labels, positive, bins=10):
    """Compare probabilities of class 1 with how often it came true, both arrays of shape (n,).

    The bins are equally wide, [0, 0.1) to [0.9, 1]. Returns a DataFrame with a row for each bin that is not empty:
    texts, probability (their mean) and fraction_of_positives (the share with label 1).
    """
    labels, positive = as_1d_arrays(labels, positive)
    place = np.minimum((positive * bins).astype(int), bins - 1)
    table = pd.DataFrame({"place": place, "probability": positive, "fraction_of_positives": labels}).groupby("place")
    return table.mean().assign(texts=table.size())


def calibration(labels, positive, bins=10):
    """Return (Brier score, expected calibration error) of probabilities of class 1, arrays of shape (n,).

    Brier: the mean squared difference to the label. ECE: the mean gap between the probability and what came true over
    the bins of `reliability`, weighted by their texts (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    labels, positive = as_1d_arrays(labels, positive)
    table = reliability(labels, positive, bins)
    gaps = (table["probability"] - table["fraction_of_positives"]).abs()
    return float(np.mean((positive - labels) ** 2)), float(np.average(gaps, weights=table["texts"]))


def threshold_curve(labels, positive, thresholds=None):
    """Return a DataFrame with threshold, mcc, precision and recall; None takes 0.01, 0.02, ... 0.99.

    A text counts as positive where its probability, in an array of shape (n,), reaches the threshold. Where none does,
    the precision is NaN.
    """
    thresholds = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, float)
    labels, positive = as_1d_arrays(labels, positive)
    # how many of each class lie below each threshold
    fn, tn = (np.searchsorted(np.sort(positive[labels == label]), thresholds) for label in (1, 0))
    tp, fp = (labels == 1).sum() - fn, (labels == 0).sum() - tn
    mcc, _, precision, recall, _ = metrics_from_counts(tp, tn, fp, fn, undefined=np.nan)
    return pd.DataFrame({"threshold": thresholds, "mcc": mcc, "precision": precision, "recall": recall})


def choose_threshold(positive, labels, false_positive_cost=1.0, seed=0, usual=0.5):
    """Return (the probability from which on a text is called positive, why that one).

    If a false positive costs another multiple of a false negative than 1, the threshold with the least expected cost
    follows from the probabilities alone (Elkan 2001, The Foundations of Cost-Sensitive Learning). Else it is the
    `usual` one, unless another has a better MCC and the 95 % bootstrap interval of the gain, over 2,000 resamples,
    excludes 0. That is a mild test, for the same texts have chosen it: where 0.5 was best, simulated data passed it in
    one of ten cases, and lost 0.001 by it; a stricter one, which chose and tested on different halves, missed more than
    it saved.

    positive : array of shape (n,), calibrated probabilities of class 1
    labels : array of shape (n,) of 0 and 1
    usual : see `default_threshold`
    """
    if false_positive_cost != 1:
        threshold = false_positive_cost / (1 + false_positive_cost)
        return threshold, f"a false positive costs {false_positive_cost:g} times as much as a false negative"
    positive, labels = as_1d_arrays(positive, labels)
    values = np.unique(np.append(positive, usual))
    thresholds = np.append(usual, (values[1:] + values[:-1]) / 2)  # the usual one first: it wins a tie
    best = thresholds[threshold_curve(labels, positive, thresholds)["mcc"].argmax()]
    if best == usual:
        return usual, "no other has a better validation MCC"
    answers = {"usual": positive >= usual, "best": positive >= best}
    gain = bootstrap_metrics(labels, answers, 2000, seed).loc[("best minus usual", "mcc")]
    interval = f"at {format_threshold(best)} validation MCC would gain between {gain['low']:+.3f} and "
    interval += f"{gain['high']:+.3f} (95 % bootstrap interval)"
    return (float(best), interval) if gain["low"] > 0 else (usual, f"{interval}: that may be chance")
