"""Plots: curves name the classes, any name can be drawn."""

import matplotlib.pyplot as plt
import numpy as np

from textbert.evaluation import metrics, plots
from textbert.utils import display


def test_curves_name_the_classes():
    labels, y_prob = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.9, 0.2, 0.8, 0.7])
    y_probs = {"words": y_prob, "BERT": labels * 0.5}
    plot = plots.plot_curves(labels, (y_prob >= 0.75).astype(int), y_probs, ["ham", "spam"])
    matrix, roc, precision = plot.figure.axes
    plt.close(plot.figure)
    assert [text.get_text() for text in matrix.texts] == ["2", "1", "1", "1"]
    assert [label.get_text() for label in matrix.get_xticklabels()] == ["ham", "spam"]
    assert roc.get_xlabel() == "false positive rate: ham predicted as spam"
    assert roc.get_ylabel() == precision.get_xlabel() == "recall: spam found"
    assert precision.get_ylabel() == "precision: spam among predicted spam"
    # four of the six pairs of a spam and a ham are in the right order
    entries = [text.get_text() for text in roc.get_legend().get_texts()]
    assert entries == ["chance", "words (AUC = 0.67)", "BERT (AUC = 1.00)"]
    assert "of the 'ham' texts 2 were predicted as 'ham' and 1 as 'spam'" in plot.alt
    assert "The area under it is 0.67 for words, 1.00 for BERT." in plot.alt and len(plot.alts) == 3
    assert [line.get_color() for line in roc.get_lines()] == ["black", plots.BASELINE_COLOUR, plots.BERT_COLOUR]


def test_calibration_is_drawn_for_many_or_few_different_probabilities():
    rng = np.random.default_rng(0)
    for y_prob in (rng.random(500), np.repeat([0.08, 0.92], 200), np.full(30, 0.5), np.array([0.2, 0.9])):
        labels = (rng.random(len(y_prob)) < y_prob).astype(int)
        plot = plots.plot_calibration(labels, y_prob, ["$bad$", "好"], 0.5)
        histogram, curve = plot.figure.axes
        plot.figure.canvas.draw()
        bars = [text.get_text() for text in histogram.texts if text.get_text()]
        assert sum(map(int, bars)) == len(y_prob) == sum(int(text.get_text()) for text in curve.texts)
        assert (
            f"Histogram of {len(y_prob)} probabilities of '好', by label: {(y_prob < 0.1).sum()} lie below" in plot.alt
        )
        plt.close(plot.figure)


def test_a_calibration_curve_by_hand():
    y_prob, labels = np.repeat([0.25, 0.75], 20), np.repeat([0, 1, 0, 1], [18, 2, 8, 12])
    plot = plots.plot_calibration(labels, y_prob, ["bad", "good"], 0.5)
    plt.close(plot.figure)
    (dots,) = plot.figure.axes[1].collections[:1]
    np.testing.assert_allclose(dots.get_offsets(), [(0.25, 0.1), (0.75, 0.6)])  # 2 and 12 of 20 are good
    assert plot.alt.endswith("It is 0.10 at 0.25, 0.60 at 0.75.")
    width, height = plot.figure.get_size_inches()
    assert width >= 2 * height  # two plots side by side, neither of them narrow


def test_no_precision_is_drawn_where_it_is_undefined():
    curve = metrics.threshold_curve(np.array([0, 1] * 20), np.array([0.1, 0.8] * 20))
    plot = plots.plot_thresholds(curve, 0.5)
    (ax,) = plot.figure.axes
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["precision"].get_xdata().max() == 0.8 and lines["MCC"].get_ydata().max() == 1
    assert "The highest MCC is 1.00; it is at most 0.02 lower at some thresholds from 0.11 to 0.80" in plot.alt
    assert "in use: 0.500" in lines
    plt.close(plot.figure)


def test_colours_have_one_meaning_each():
    colours = [value for name, value in vars(display).items() if name.endswith("_COLOUR")]
    assert len(colours) == 7 == len(set(colours))


def test_names_are_drawn_without_warnings(recwarn):
    names = plots.drawable_names(["好评", "costs $5 or $_"])
    assert names == ["label 0", r"costs \$5 or \$_"]
    assert plots.drawable_names([" ", "naïve"]) == ["label 0", "naïve"]
    assert plots.drawable_names(["سيئ", "a\nb"]) == ["label 0", "label 1"]
    assert plots.drawable_names(["x" * 99 + "a", "x" * 99 + "b"]) == ["label 0", "label 1"]
    assert plots.drawable_names(["_no", "y" * 99]) == ["label 0", "y" * 29 + "…"]
    figure, ax = plt.subplots()
    ax.set(title=names[0], xlabel=names[1])
    figure.canvas.draw()
    plt.close(figure)
    assert not list(recwarn)


def test_coverage_by_hand():
    labels, y_prob = np.array([0, 1] * 20), np.tile([0.2, 0.9, 0.4, 0.45], 10)
    plot = plots.plot_coverage(labels, {"BERT": y_prob}, {"BERT": 0.5})
    (line,) = plot.figure.axes[0].lines
    plt.close(plot.figure)
    # 0.9 first, then 0.2, 0.4 and 0.45, of which the last is wrong; the first ten texts are too few to be drawn
    np.testing.assert_allclose(line.get_xydata(), [(0.5, 1), (0.75, 1), (1, 0.75)])
    assert plot.alt.endswith("BERT: 0.75 for all texts, 1.00 for half of them.")
