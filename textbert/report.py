"""What is found out about a model, for people: plots, labels to check, the HTML report."""

import base64
import io
import math
import re
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.font_manager import FontProperties, findfont, get_font
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from textbert.display import BLUE, ORANGE
from textbert.explanation import Html
from textbert.files import write_text
from textbert.measures import reliability
from textbert.words import WORD


def drawable_names(names):
    """Return the names of the two classes as plots can show them: where the font lacks a letter, "label 0" it is."""
    letters = get_font(findfont(FontProperties())).get_charmap()
    return [
        name.replace("$", r"\$")
        if name.strip() and all(ord(letter) in letters for letter in name)
        else f"label {number}"
        for number, name in enumerate(names)
    ]


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
        place, share = table["probability"], table["came_true"]
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
    ax.axvline(threshold, color="grey", linestyle=":", label=f"in use: {threshold:.3g}")
    ax.set(title="Threshold (validation)", xlabel="threshold", ylim=(0, 1.03))
    ax.legend()


_find_words = TfidfVectorizer(ngram_range=(1, 2)).build_analyzer()
_find_words_of_any_script = TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD).build_analyzer()


def _find_terms(text):
    """Return the words and word pairs of a text; where it has no word of two letters, what stands between spaces.

    Where words are not parted by spaces each character counts as one, as it does to BERT.
    """
    find = _find_words if text.isascii() else _find_words_of_any_script  # the same for English, and faster
    return find(text) or text.lower().split() or [""]


def make_baseline():
    """Return the cheap model that BERT is compared with: TF-IDF of words and word pairs, and logistic regression."""
    return make_pipeline(
        TfidfVectorizer(analyzer=_find_terms, sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )


def suspicious_labels(texts, labels, positive, baseline, folds=5, seed=0):
    """Rank training rows by how little two models believe their labels, the most suspicious first.

    Parameters
    ----------
    texts, labels : lists or arrays of shape (n,)
    positive : BERT's probabilities of class 1, of shape (n,)
    baseline : a scikit-learn classifier of texts; it judges each row after learning from the other folds, so that it
        cannot know the label by heart, as BERT may
    folds : at most; no more than the rarer class has rows

    Returns a DataFrame with row, baseline and bert (the probability that each gives to the label). It is empty, and
    that is said, where a class has fewer than two rows.
    """
    labels = np.asarray(labels)
    folds = min(folds, *np.bincount(labels, minlength=2))
    if folds < 2:
        print(f"Among {len(labels)} rows a class has fewer than two: too few to tell which labels may be wrong")
        return pd.DataFrame({"row": [], "baseline": [], "bert": []}).astype({"row": int})
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    out_of_fold = cross_val_predict(baseline, np.asarray(texts, object), labels, cv=split, method="predict_proba")[:, 1]
    believed = {
        name: np.where(labels == 1, p, 1 - p) for name, p in (("baseline", out_of_fold), ("bert", np.asarray(positive)))
    }
    table = pd.DataFrame({"row": np.arange(len(labels)), **believed})
    log_odds = sum(np.log(p / (1 - p)) for p in np.clip(list(believed.values()), 1e-9, 1 - 1e-9))  # as if independent
    return table.iloc[np.argsort(log_odds, kind="stable")]


def _read_plots(figure):
    """Return each axes of a matplotlib figure as a picture of its own, so that they find room on a phone, too."""
    plots = []
    for axes in figure.axes:
        file = io.BytesIO()
        box = axes.get_tightbbox().padded(8).transformed(figure.dpi_scale_trans.inverted())
        figure.savefig(file, format="png", dpi=130, bbox_inches=box)
        plots.append({"title": axes.get_title(), "png": base64.b64encode(file.getvalue()).decode()})
    return plots


def _to_html(frame, longest=600):
    """Return a DataFrame as an HTML table, with everything in it escaped and texts cut to so many characters."""
    numbered = frame.index.dtype.kind == "i" and frame.index.name is None
    has_text = "text" in frame
    if has_text:
        frame = frame.assign(text=[t if len(t) <= longest else f"{t[:longest]} …" for t in frame["text"]])
    options = {"border": 0, "index": not numbered, "classes": "texts" if has_text else None, "na_rep": "–"}
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(**options)


def summarize(intervals, model, opponent, chance, groups):
    """Say in three sentences, to somebody who knows no statistics, what was found out about a model.

    Parameters
    ----------
    intervals : DataFrame of `bootstrap_figures`
    model, opponent : their names in it; the model is the last
    chance : probability of `mcnemar`
    groups : DataFrame of `accuracy_by`
    """
    ours, theirs = (intervals.loc[(name, "accuracy"), "value"] for name in (model, opponent))
    lead = intervals.loc[(f"{model} minus {opponent}", "mcc")]
    other = f"{opponent}, which is right in {100 * theirs:.0f} of 100"
    verdict = f"Nobody can tell from these texts whether it is better than {other}."
    if chance <= 0.05 and (lead["low"] > 0 or lead["high"] < 0):
        verdict = f"It is {'better' if lead['low'] > 0 else 'WORSE'} than {other}, and that is hardly chance."
        if (lead["low"] > 0) != (ours > theirs):  # where one class is rare
            better, worse = (model, opponent) if lead["low"] > 0 else (opponent, model)
            verdict = f"{worse[0].upper()}{worse[1:]} is right more often ({100 * max(ours, theirs):.0f} of 100), but "
            verdict += f"{better} does better where both classes count alike (MCC); neither is hardly chance."
    right, texts = groups[["right", "texts"]].iloc[:2].sum().tolist()
    least = binomtest(right, texts).proportion_ci(method="wilson").low
    first = f"{model} is right in {100 * ours:.0f} of 100 texts; in at least {math.floor(100 * least)}"
    return [f"{first}, as far as can be told from {texts:,} texts.", verdict, name_weakest(groups)]


def name_weakest(groups):
    """Say in which group of `accuracy_by` most answers are wrong, among those clearly below the mean of all groups."""
    weak = groups[groups["high"] < np.average(groups["accuracy"], weights=groups["texts"])]
    if weak.empty:
        return "It errs about as often in each class and at each length, as far as can be told."
    weakest = weak.loc[weak["accuracy"].idxmin()]
    return f"It errs most here: {weakest.name}, with {100 * weakest['accuracy']:.0f} of 100 right."


def show_texts(frame):
    """Return a DataFrame with texts as HTML for a notebook, which would align them to the right, and set $ as math."""
    table = re.sub("<(t[dh])>", r'<\1 style="text-align:left">', _to_html(frame))
    return Html(f'<div class="mathjax_ignore" style="overflow-x:auto">{table}</div>')


def write_report(path, title, sections, texts=True):
    """Write one self-contained HTML file.

    `sections` is a list of (heading, list of sentences, items); an item is a DataFrame, a matplotlib Figure or an
    `Html`. Without `texts` nothing of the data's texts gets in: columns named "text" and all `Html` are left out.
    """
    shown = []
    for heading, sentences, items in sections:
        frames = [item for item in items if isinstance(item, pd.DataFrame)]
        frames = frames if texts else [frame.drop(columns="text", errors="ignore") for frame in frames]
        section = {"heading": heading, "sentences": sentences}
        section["plots"] = [plot for item in items if isinstance(item, plt.Figure) for plot in _read_plots(item)]
        section["tables"] = [Markup(_to_html(frame)) for frame in frames]
        section["words"] = [Markup(item) for item in items if texts and isinstance(item, Html)]
        shown.append(section)
    folder = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True).get_template("report.html")
    write_text(path, page.render(title=title, sections=shown))
