"""Plots: classes and lengths of texts, a model's architecture, its curves, calibration and thresholds."""

import math
from collections.abc import Sequence
from unicodedata import bidirectional

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.font_manager import FontProperties, findfont, get_font
from pytorch_pretrained_bert import BertForSequenceClassification
from scipy.stats import binomtest
from sklearn import metrics

from textbert.evaluation.calibration import format_threshold
from textbert.evaluation.metrics import calibration_curve
from textbert.utils.display import BLUE, LIMIT, ORANGE, TRAIN_COLOUR, VALIDATION_COLOUR

GREY = "#e6e6e6"

# a box of the architecture diagram: height, colour, title, and a note to its right
Box = tuple[float, str, str, str]


def _draw_box(ax: plt.Axes, y: float, box: Box) -> None:
    """Draw a box of the architecture diagram with its lower edge at `y`."""
    height, colour, title, note = box
    ax.add_patch(plt.Rectangle((0, y), 6.6, height, facecolor=colour, edgecolor="#555555", linewidth=0.8))
    ax.text(3.3, y + height / 2, title, ha="center", va="center", fontsize=11)
    ax.text(6.9, y + height / 2, note, ha="left", va="center", fontsize=10, color="#444444")


def _make_boxes(model: BertForSequenceClassification, rate_of: dict[int, float]) -> list[Box]:
    """Return the boxes from the embeddings up; `rate_of` has the learning rate of each parameter by its `id`."""
    bert, size, num_layers = model.bert, model.config.hidden_size, model.config.num_hidden_layers
    title = f"each token an embedding of size {size}:\nword + position + segment"
    modules = [(1.3, "#dbe5f1", title, bert.embeddings)]
    modules += [
        (0.9, GREY, f"layer {number}: attention, feed-forward", layer)
        for number, layer in enumerate(bert.encoder.layer, start=1)
    ]
    modules += [(0.9, "#fbe3d3", "pooler: reads [CLS] only", bert.pooler)]
    modules += [(0.9, "#f6c7a5", f"classifier: {model.num_labels} logits", model.classifier)]
    boxes = []
    for height, colour, title, module in modules:
        count = sum(parameter.numel() for parameter in module.parameters())
        weights = f"{count / 1e6:.1f} M" if count > 99_999 else f"{count:,}"
        rate = rate_of[id(next(module.parameters()))]
        boxes.append((height, colour, title, f"{weights} weights\nrate {rate:.1e}"))
    if num_layers > 4:  # those between look alike
        boxes[3:num_layers] = [(0.8, "white", f"layers 3 to {num_layers - 1}: the same", "")]
    return boxes


def draw_bert(
    model: BertForSequenceClassification, tokens: Sequence[str], optimizer: torch.optim.Optimizer
) -> plt.Figure:
    """Draw the architecture of a BERT, from some tokens at the bottom to the logits at the top.

    model : a BertForSequenceClassification
    tokens : with [CLS] and [SEP]; more than a handful are not legible
    optimizer : a new one of `make_optimizer`, whose learning rates are written beside the modules
    """
    rate_of = {id(weights): group["lr"] for group in optimizer.param_groups for weights in group["params"]}
    boxes = _make_boxes(model, rate_of)
    figure, ax = plt.subplots(figsize=(5.2, 0.8 * len(boxes) + 2), layout="constrained")
    width = 6.6 / len(tokens)
    for position, token in enumerate(tokens):
        colour = ORANGE if token == "[CLS]" else BLUE
        ax.text((position + 0.5) * width, 0, token, ha="center", va="center", fontsize=11, color=colour, weight="bold")
    y = 0.5
    for box in boxes:
        ax.annotate("", (3.3, y + 0.45), (3.3, y), arrowprops={"arrowstyle": "->", "color": "#555555"})
        _draw_box(ax, y + 0.45, box)
        y += 0.45 + box[0]
    ax.set(xlim=(-0.1, 9.3), ylim=(-0.5, y + 0.3))
    ax.axis("off")
    return figure


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


def plot_class_counts(counts: pd.DataFrame, names: Sequence[str]) -> plt.Figure:
    """Plot how many texts of each class there are, as a bar for each class and split.

    counts : number of texts, with a row for each class and a column for each split: train and, optionally, dev
    names : names of the two classes
    """
    figure, ax = plt.subplots(figsize=(7, 2), layout="constrained")
    bars = counts.set_axis([f"{label} ({name})" for label, name in enumerate(drawable_names(names))])
    bars.plot.barh(ax=ax, width=0.7, color={"train": TRAIN_COLOUR, "dev": VALIDATION_COLOUR})
    for container in ax.containers:
        ax.bar_label(container, fmt="{:,.0f}", padding=3)
    ax.invert_yaxis()  # class 0 and train above, as in a table
    ax.margins(x=0.1)
    ax.set(xlabel="texts", ylabel="")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_lengths(lengths: pd.Series, max_seq_length: int) -> plt.Figure:
    """Plot a histogram of the lengths of texts in tokens, and the length at which BERT stops reading.

    The axis ends at the longest text, or before a few texts that are much longer; how many is written below it.
    """
    end = min(lengths.max(), math.ceil(1.25 * lengths.quantile(0.99)))
    longer = lengths[lengths > end]
    width = math.ceil(end / 50)
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    ax.hist(lengths[lengths <= end], bins=range(0, end + width + 1, width), color=TRAIN_COLOUR)
    label = f"MAX_SEQ_LENGTH = {max_seq_length}"
    if max_seq_length <= end:
        ax.axvline(max_seq_length, label=label, **LIMIT)
    else:
        ax.plot([], label=f"{label}, further to the right", **LIMIT)
    note = f"\n(not shown: {len(longer):,} longer texts, up to {longer.max():,} tokens)" if len(longer) else ""
    ax.set(xlabel=f"tokens in a text, with [CLS] and [SEP]{note}", ylabel="training texts", xlim=(0, end + width))
    ax.legend()
    return figure


def describe_lengths(lengths: pd.Series, max_seq_length: int) -> str:
    """Return sentences about the lengths of texts in tokens, see `plot_lengths`."""
    half, most, nearly_all = lengths.quantile([0.5, 0.9, 0.99]).round().astype(int)
    return (
        f"Half of the texts have at most {half:,} tokens, 90 % at most {most:,}, 99 % at most {nearly_all:,}; the "
        f"longest has {lengths.max():,}.\n"
        f"{(lengths > max_seq_length).mean():.1%} are longer than MAX_SEQ_LENGTH = {max_seq_length}."
    )


def plot_curves(
    labels: np.ndarray, predicted: np.ndarray, y_probs: dict[str, np.ndarray], names: Sequence[str]
) -> plt.Figure:
    """Plot the confusion matrix of a model, and the ROC and precision-recall curves of several.

    labels, predicted : arrays of 0 and 1, of shape (n,)
    y_probs : dict from a model's name to its probabilities of class 1, of shape (n,)
    names : names of the two classes
    """
    no, yes = drawable_names(names)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8))
    matrix = metrics.confusion_matrix(labels, predicted, labels=[0, 1])
    metrics.ConfusionMatrixDisplay(matrix, display_labels=[no, yes]).plot(cmap="Blues", colorbar=False, ax=left)
    for name, y_prob in y_probs.items():
        metrics.RocCurveDisplay.from_predictions(labels, y_prob, name=name, ax=middle)
        metrics.PrecisionRecallDisplay.from_predictions(labels, y_prob, name=name, ax=right)
    recall = f"recall: {yes} found"
    left.set(title="Confusion matrix")
    middle.set(title="ROC curve", xlabel=f"false positive rate: {no} predicted as {yes}", ylabel=recall)
    right.set(title="Precision-recall curve", xlabel=recall, ylabel=f"precision: {yes} among predicted {yes}")
    figure.tight_layout()
    return figure


def plot_calibration_curve(ax: plt.Axes, labels: np.ndarray, y_probs: dict[str, np.ndarray]) -> None:
    """Plot the calibration curve of each array of probabilities, of shape (n,), in a dict keyed by name.

    The area of a dot grows with the number of texts in its bin; the vertical lines are Wilson's 95 % intervals.
    """
    ax.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for (name, y_prob), colour in zip(y_probs.items(), (ORANGE, BLUE)):
        table = calibration_curve(labels, y_prob)
        x, y, texts = table["probability"], table["fraction_of_positives"], table["texts"]
        tests = [binomtest(round(fraction * count), int(count)) for fraction, count in zip(y, texts)]
        intervals = [test.proportion_ci(method="wilson") for test in tests]
        ax.vlines(x, [i.low for i in intervals], [i.high for i in intervals], color=colour, linewidth=1.2)
        ax.scatter(x, y, 30 + 200 * texts / texts.sum(), color=colour, label=name)
    ax.set(title="Calibration", xlabel="mean predicted probability", ylabel="fraction of positives")
    ax.legend(markerscale=0.6, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def plot_thresholds(ax: plt.Axes, curve: pd.DataFrame, threshold: float) -> None:
    """Plot a table of `threshold_curve`, and mark the threshold in use."""
    for name, colour in (("mcc", BLUE), ("precision", ORANGE), ("recall", "#55a868")):
        ax.plot(curve["threshold"], curve[name], color=colour, label="MCC" if name == "mcc" else name)
    ax.axvline(threshold, color="grey", linestyle=":", label=f"in use: {format_threshold(threshold)}")
    ax.set(title="Decision threshold (validation)", xlabel="threshold", ylim=(0, 1.03))
    ax.legend()
