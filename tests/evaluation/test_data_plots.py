"""Plots of a data set: bars with their counts, lengths on an axis that fits them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from textbert.evaluation import data_plots
from textbert.utils.display import DEV_COLOUR, TRAIN_COLOUR


@pytest.mark.parametrize("splits", [["train"], ["train", "dev"]])
def test_bars_have_counts_names_and_the_colours_of_their_splits(splits):
    counts = pd.DataFrame({split: [1200, 30] for split in splits})
    figure = data_plots.plot_class_counts(counts, ["no", "good $5"])
    (ax,) = figure.axes
    figure.canvas.draw()
    plt.close(figure)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0 (no)", r"1 (good \$5)"]
    assert [text.get_text() for text in ax.texts] == ["1,200", "30"] * len(splits)
    colours = [plt.matplotlib.colors.to_hex(bars[0].get_facecolor()) for bars in ax.containers]
    assert colours == [TRAIN_COLOUR, DEV_COLOUR][: len(splits)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == splits


LENGTHS = {  # lengths, end of the axis, texts that are not shown
    "short": (np.arange(3, 41), 40, 0),
    "an outlier": (np.array([10] * 999 + [50_000]), 10, 1),
    "a long tail": (np.arange(3, 1003) ** 2 // 1000, 987, 0),
    "empty texts": (np.array([2, 2, 2]), 2, 0),
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("limit", [3, 256])
def test_axis_fits_the_lengths(name, limit):
    lengths, end, longer = LENGTHS[name]
    figure = data_plots.plot_lengths(pd.Series(lengths), limit)
    (ax,) = figure.axes
    figure.canvas.draw()
    plt.close(figure)
    shown = sum(patch.get_height() for patch in ax.patches)
    assert shown == len(lengths) - longer
    left, right = ax.get_xlim()
    assert left == 0 and end * 0.9 < right < end * 1.3 + 2
    assert ("not shown" in ax.get_xlabel()) == (longer > 0) and "with [CLS] and [SEP]" in ax.get_xlabel()
    (label,) = ax.get_legend().get_texts()
    is_visible = bool(ax.lines[0].get_xdata().__len__())
    assert is_visible == (limit <= right - 1) == ("further to the right" not in label.get_text())


def test_lengths_in_words():
    lengths = pd.Series(range(1, 1001))
    first, second = data_plots.describe_lengths(lengths, 256).splitlines()
    assert (
        first == "Half of the texts have at most 500 tokens, 90% at most 900, 99% at most 990; the longest has 1,000."
    )
    assert second == "74.4% are longer than MAX_SEQ_LENGTH = 256."
