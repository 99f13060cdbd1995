"""Plots: ROC and precision-recall curves, calibration, thresholds and coverage."""

from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import bidirectional

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.stats import binomtest
from sklearn import metrics

from textbert.evaluation.calibration import format_threshold
from textbert.evaluation.predictions import merge_bands
from textbert.evaluation.review import count_by_coverage, get_confidence
from textbert.utils.display import BASELINE_COLOUR, BERT_COLOUR, LIMIT, NEGATIVE_COLOUR, POSITIVE_COLOUR

WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # behind numbers that lines may cross


def drawable_names(names: Sequence[str]) -> list[str]:
    """Return the names of the two classes as plots can show them: truncated to 30 characters, with $ escaped.

    A name is replaced by "label 0" or "label 1" if the font lacks a character of it, if it is written from right to
    left, which matplotlib does not support, or if a legend would ignore it; both are if they would look the same.
    """
    charmap = get_font(findfont(FontProperties())).get_charmap()

    def is_drawable(name: str) -> bool:
        supported = all(ord(c) in charmap and bidirectional(c) not in ("R", "AL") for c in name)
        return bool(name.strip()) and supported and not name.startswith("_")

    drawable = [
        (name if len(name) <= 30 else f"{name[:29]}…").replace("$", r"\$") if is_drawable(name) else f"label {label}"
        for label, name in enumerate(names)
    ]
    return drawable if len(set(drawable)) == len(drawable) else [f"label {label}" for label in range(len(names))]


class Plot(NamedTuple):
    """A figure with an alternative text for each of its axes, which the report shows one by one."""

    figure: plt.Figure
    alts: tuple[str, ...]

    @property
    def alt(self) -> str:
        """Return the alternative text of the whole figure."""
        return " ".join(self.alts)


def _make_axes(count: int, size: tuple[float, float]) -> tuple[plt.Figure, np.ndarray]:
    """Return a figure and its axes, side by side, far enough apart to be cut out one by one."""
    figure = plt.figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.15))
    return figure, figure.subplots(1, count)


def _format_count(count: float) -> str:
    """Format a count for a narrow bar, 0 as nothing."""
    return f"{count / 1000:.0f}k" if count >= 10_000 else f"{count:.0f}" if count else ""


def _get_colour(name: str) -> str:
    return BERT_COLOUR if name == "BERT" else BASELINE_COLOUR


def plot_curves(
    labels: np.ndarray, predicted: np.ndarray, y_probs: dict[str, np.ndarray], names: Sequence[str]
) -> Plot:
    """Plot the confusion matrix of a model, and the ROC and precision-recall curves of several.

    labels, predicted : arrays of 0 and 1, of shape (n,)
    y_probs : dict from a model's name to its probabilities of class 1, of shape (n,)
    names : names of the two classes
    """
    no, yes = drawable_names(names)
    figure, (left, middle, right) = _make_axes(3, (11.5, 4))
    matrix = metrics.confusion_matrix(labels, predicted, labels=[0, 1])
    pale = {"vmin": 0, "vmax": 2 * matrix.max()}  # so that black numbers are legible on each cell
    display = metrics.ConfusionMatrixDisplay(matrix, display_labels=[no, yes])
    display.plot(cmap="Greens", colorbar=False, ax=left, im_kw=pale, text_kw={"color": "black", "fontsize": 12})
    areas: dict[str, list[str]] = {"ROC AUC": [], "average precision": []}
    middle.plot([0, 1], [0, 1], **LIMIT, label="chance")
    right.axhline(np.mean(labels), **LIMIT, label="chance")
    for name, y_prob in y_probs.items():
        colour = _get_colour(name)
        false_positive_rate, recall, _ = metrics.roc_curve(labels, y_prob)
        area = metrics.roc_auc_score(labels, y_prob)
        middle.plot(false_positive_rate, recall, color=colour, label=f"{name} (AUC = {area:.2f})")
        areas["ROC AUC"].append(f"{area:.2f} for {name}")
        precision, recall, _ = metrics.precision_recall_curve(labels, y_prob)
        area = metrics.average_precision_score(labels, y_prob)
        # from right to left, so that the steps are those of the area
        right.step(recall, precision, color=colour, where="post", label=f"{name} (AP = {area:.2f})")
        areas["average precision"].append(f"{area:.2f} for {name}")
    recall_label = f"recall: {yes} found"
    left.set(title="Confusion matrix", xlabel="predicted", ylabel="label")
    middle.set(title="ROC curve", xlabel=f"false positive rate: {no} predicted as {yes}", ylabel=recall_label)
    right.set(title="Precision-recall curve", xlabel=recall_label, ylabel=f"precision: {yes} among predicted {yes}")
    for ax in (middle, right):
        ax.set(ylim=(0, 1.02))
        ax.legend(loc="lower center" if ax is right else "lower right")
    tn, fp, fn, tp = matrix.ravel().tolist()
    return Plot(
        figure,
        (
            f"Confusion matrix: of the {names[0]!r} texts {tn:,} were predicted as {names[0]!r} and {fp:,} as "
            f"{names[1]!r}; of the {names[1]!r} texts {fn:,} as {names[0]!r} and {tp:,} as {names[1]!r}.",
            f"ROC curve: recall against false positive rate. The area under it is {', '.join(areas['ROC AUC'])}.",
            "Precision-recall curve: precision against recall. The average precision is "
            f"{', '.join(areas['average precision'])}.",
        ),
    )


def plot_calibration(labels: np.ndarray, y_prob: np.ndarray, names: Sequence[str], threshold: float) -> Plot:
    """Plot how the probabilities of class 1 are distributed, and how often each band comes true.

    labels : array of 0 and 1, of shape (n,)
    y_prob : the calibrated probabilities, of shape (n,)
    names : names of the two classes
    threshold : the decision threshold
    """
    no, yes = drawable_names(names)
    figure, (left, right) = _make_axes(2, (10, 4))
    groups, colours = [y_prob[labels == 0], y_prob[labels == 1]], [NEGATIVE_COLOUR, POSITIVE_COLOUR]
    counts, edges, bars = left.hist(groups, np.arange(21) / 20, stacked=True, color=colours, label=[no, yes])
    left.bar_label(bars[-1], [_format_count(count) for count in counts[-1]], fontsize=8, bbox=WHITE)
    left.axvline(threshold, **LIMIT, label=f"threshold {format_threshold(threshold)}")
    left.set(title="Probabilities", xlabel=f"probability of {yes}", ylabel="texts", xlim=(0, 1))
    right.plot([0, 1], [0, 1], **LIMIT, label="perfect")
    band = np.digitize(y_prob, merge_bands(y_prob)[1:-1])
    texts = np.bincount(band)
    x, y = (np.bincount(band, values) / texts for values in (y_prob, labels))
    right.scatter(x, y, 30 + 200 * texts / texts.sum(), color=BERT_COLOUR, label="a band of probabilities")
    for mean, fraction, count in zip(x, y, texts.tolist()):
        interval = binomtest(round(fraction * count), count).proportion_ci(method="wilson")
        right.vlines(mean, interval.low, interval.high, color=BERT_COLOUR, linewidth=1.2)
        right.annotate(f"{count:,}", (mean, fraction), (9, -12), textcoords="offset points", fontsize=9, bbox=WHITE)
    right.set(title="Calibration", xlabel=f"mean probability of {yes}", ylabel=f"fraction of {yes}")
    for ax in (left, right):
        ax.legend(markerscale=0.6, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    low, high = ((y_prob < 0.1).sum(), (y_prob >= 0.9).sum())
    dots = ", ".join(f"{fraction:.2f} at {mean:.2f}" for mean, fraction in zip(x, y))
    return Plot(
        figure,
        (
            f"Histogram of {len(y_prob):,} probabilities of {names[1]!r}, by label: {low:,} lie below 0.1, {high:,} at "
            f"0.9 or above, and {len(y_prob) - low - high:,} between.",
            f"Calibration curve: the fraction of {names[1]!r} against the mean probability in each band. It is {dots}.",
        ),
    )


def plot_thresholds(curve: pd.DataFrame, threshold: float) -> Plot:
    """Plot a table of `threshold_curve`, and mark the threshold in use.

    Where no text is predicted as positive, there is no precision, and nothing is drawn.
    """
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    defined = curve[curve["precision"].notna()]
    ax.plot(defined["threshold"], defined["mcc"], color=BERT_COLOUR, linewidth=2.4, label="MCC")
    for name, colour in (("precision", "tab:purple"), ("recall", "tab:orange")):
        ax.plot(defined["threshold"], defined[name], color=colour, linewidth=1.4, label=name)
    ax.axvline(threshold, **LIMIT, label=f"in use: {format_threshold(threshold)}")
    ax.set(
        title="Decision threshold (held-out texts of train.tsv)",
        xlabel="threshold",
        xlim=(0, 1),
        ylim=(min(0, ax.get_ylim()[0]), 1.03),
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    best = curve["mcc"].max()
    flat = curve.loc[curve["mcc"] >= best - 0.02, "threshold"]
    at = curve.iloc[(curve["threshold"] - threshold).abs().argmin()]
    return Plot(
        figure,
        (
            f"MCC, precision and recall on held-out texts of train.tsv, by threshold. The highest MCC is {best:.2f}; "
            f"it is at most 0.02 lower at some thresholds from {flat.min():.2f} to {flat.max():.2f}. At "
            f"{format_threshold(threshold)}, which is in use, it is {at['mcc']:.2f}.",
        ),
    )


def plot_coverage(labels: np.ndarray, y_probs: dict[str, np.ndarray], thresholds: dict[str, float]) -> Plot:
    """Plot how often models are right if they decide only the most confident fraction of the texts (their coverage).

    labels : array of 0 and 1, of shape (n,)
    y_probs, thresholds : dicts from a model's name to its probabilities of class 1, of shape (n,), and its threshold
    """
    figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
    alts = ["The accuracy of the most confident predictions, by their fraction."]
    for name, y_prob in y_probs.items():
        confidence, is_right = get_confidence(y_prob, thresholds[name]), (y_prob >= thresholds[name]) == labels
        texts, correct, _ = count_by_coverage(confidence, is_right)
        is_drawn = texts >= min(20, len(labels))  # of fewer, the accuracy says little
        fraction, accuracy = (texts / len(labels))[is_drawn], (correct / texts)[is_drawn]
        ax.plot(fraction, accuracy, color=_get_colour(name), label=name)
        half = accuracy[np.abs(fraction - 0.5).argmin()]
        alts.append(f"{name}: {accuracy[-1]:.2f} for all texts, {half:.2f} for half of them.")
    ax.set(xlabel="fraction of the texts that the model decides", ylabel="accuracy of these", xlim=(0, 1.02))
    ax.legend()
    return Plot(figure, (" ".join(alts),))
