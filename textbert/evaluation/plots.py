"""Plots: the architecture of a model, curves, reliability and thresholds."""

from unicodedata import bidirectional

import matplotlib.pyplot as plt
from matplotlib.font_manager import FontProperties, findfont, get_font
from scipy.stats import binomtest
from sklearn import metrics

from textbert.evaluation.calibration import format_threshold
from textbert.evaluation.metrics import reliability
from textbert.utils.display import BLUE, ORANGE

GREY = "#e6e6e6"


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _box(ax, y, height, colour, title, note):
    """Draw a box with its title, and a note to its right."""
    ax.add_patch(plt.Rectangle((0, y), 6.6, height, facecolor=colour, edgecolor="#555555", linewidth=0.8))
    ax.text(3.3, y + height / 2, title, ha="center", va="center", fontsize=11)
    ax.text(6.9, y + height / 2, note, ha="left", va="center", fontsize=10, color="#444444")


def _describe_parts(model, rates):
    """Return (height, colour, title, note) of each part, from the words up; `rates` are those of the parts."""
    bert, size, layers = model.bert, model.config.hidden_size, model.config.num_hidden_layers
    parts = [(1.3, "#dbe5f1", f"each piece a vector of {size} numbers:\nword + position + segment", bert.embeddings)]
    parts += [(0.9, GREY, f"layer {n}: attention, then mixing", layer) for n, layer in enumerate(bert.encoder.layer, 1)]
    parts += [(0.9, "#fbe3d3", "pooler: reads the vector of [CLS] alone", bert.pooler)]
    parts += [(0.9, "#f6c7a5", f"classifier: {model.num_labels} logits", model.classifier)]
    described = []
    for (height, colour, title, part), rate in zip(parts, rates):
        count = _count(part)
        weights = f"{count / 1e6:.1f} M" if count > 99_999 else f"{count:,}"
        described.append((height, colour, title, f"{weights} weights\nrate {rate:.1e}"))
    if layers > 4:  # those between look alike
        described[3:layers] = [(0.8, "white", f"layers 3 to {layers - 1} likewise", "")]
    return described


def draw_bert(model, pieces, optimizer):
    """Return a figure of a BERT that reads some word pieces, from the pieces at its foot to the answer at its head.

    model : a BertForSequenceClassification
    pieces : list of strings, [CLS] and [SEP] included; a handful is legible
    optimizer : a new one of `make_optimizer`, whose learning rates are written beside the parts
    """
    rate_of = {id(weights): group["lr"] for group in optimizer.param_groups for weights in group["params"]}
    parts = [model.bert.embeddings, *model.bert.encoder.layer, model.bert.pooler, model.classifier]
    described = _describe_parts(model, [rate_of[id(next(part.parameters()))] for part in parts])
    figure, ax = plt.subplots(figsize=(5.2, 0.8 * len(described) + 2), layout="constrained")
    width = 6.6 / len(pieces)
    for place, piece in enumerate(pieces):
        colour = ORANGE if piece == "[CLS]" else BLUE
        ax.text((place + 0.5) * width, 0, piece, ha="center", va="center", fontsize=11, color=colour, weight="bold")
    y = 0.5
    for height, colour, title, note in described:
        ax.annotate("", (3.3, y + 0.45), (3.3, y), arrowprops={"arrowstyle": "->", "color": "#555555"})
        _box(ax, y + 0.45, height, colour, title, note)
        y += 0.45 + height
    ax.set(xlim=(-0.1, 9.3), ylim=(-0.5, y + 0.3))
    ax.axis("off")
    return figure


def drawable_names(names):
    """Return the names of the two classes as plots can show them: cut to 30 characters, with $ escaped.

    Where the font lacks a letter, where letters run from right to left, which matplotlib does not do, or where a legend
    would leave the name out, it is "label 0" or "label 1"; and so are both if they would look alike.
    """
    letters = get_font(findfont(FontProperties())).get_charmap()

    def is_drawable(name):
        known = all(ord(letter) in letters and bidirectional(letter) not in ("R", "AL") for letter in name)
        return name.strip() and known and not name.startswith("_")

    shown = [
        (name if len(name) <= 30 else f"{name[:29]}…").replace("$", r"\$") if is_drawable(name) else f"label {number}"
        for number, name in enumerate(names)
    ]
    return shown if len(set(shown)) == len(shown) else [f"label {number}" for number in range(len(names))]


def plot_curves(labels, predicted, positives, names):
    """Return a figure with the confusion matrix of a model's answers, and ROC and precision-recall curves.

    labels, predicted : arrays of 0 and 1, of shape (n,)
    positives : dict from a model's name to its probabilities of class 1, of shape (n,); a curve for each
    names : those of the two classes
    """
    no, yes = drawable_names(names)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8))
    matrix = metrics.confusion_matrix(labels, predicted, labels=[0, 1])
    metrics.ConfusionMatrixDisplay(matrix, display_labels=[no, yes]).plot(cmap="Blues", colorbar=False, ax=left)
    for name, values in positives.items():
        metrics.RocCurveDisplay.from_predictions(labels, values, name=name, ax=middle)
        metrics.PrecisionRecallDisplay.from_predictions(labels, values, name=name, ax=right)
    found = f"share of {yes} found"
    left.set(title="Confusion matrix")
    middle.set(title="ROC curve", xlabel=f"share of {no} taken for {yes}", ylabel=found)
    right.set(title="Precision and recall", xlabel=found, ylabel=f"share of {yes} in what is called so")
    figure.tight_layout()
    return figure


def plot_reliability(ax, labels, positives):
    """Draw the reliability of probabilities, a dict from a name to an array of shape (n,).

    The larger a dot, the more texts; the bars are Wilson's 95 % intervals.
    """
    ax.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for (name, positive), colour in zip(positives.items(), (ORANGE, BLUE)):
        table = reliability(labels, positive)
        place, share = table["probability"], table["fraction_of_positives"]
        tests = [binomtest(round(s * n), int(n)) for s, n in zip(share, table["texts"])]
        bounds = [test.proportion_ci(method="wilson") for test in tests]
        ax.vlines(place, [b.low for b in bounds], [b.high for b in bounds], color=colour, linewidth=1.2)
        ax.scatter(place, share, 30 + 200 * table["texts"] / table["texts"].sum(), color=colour, label=name)
    ax.set(title="Calibration", xlabel="probability the model gives", ylabel="share that came true")
    ax.legend(markerscale=0.6, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def plot_thresholds(ax, curve, threshold):
    """Draw a `threshold_curve` and mark the threshold in use."""
    for name, colour in (("mcc", BLUE), ("precision", ORANGE), ("recall", "#55a868")):
        ax.plot(curve["threshold"], curve[name], color=colour, label="MCC" if name == "mcc" else name)
    ax.axvline(threshold, color="grey", linestyle=":", label=f"in use: {format_threshold(threshold)}")
    ax.set(title="Threshold (validation)", xlabel="threshold", ylim=(0, 1.03))
    ax.legend()
