"""Plots of a data set: how many texts each class has, and how long they are."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.container import BarContainer

from textbert.evaluation.plots import drawable_names
from textbert.utils.display import DEV_COLOUR, LIMIT, TRAIN_COLOUR


def plot_class_counts(counts: pd.DataFrame, names: Sequence[str]) -> plt.Figure:
    """Plot how many texts of each class there are, as a bar for each class and split.

    counts : number of texts, with a row for each class and a column for each split: train and, optionally, dev
    names : names of the two classes
    """
    figure, ax = plt.subplots(figsize=(7, 2), layout="constrained")
    bars = counts.set_axis([f"{label} ({name})" for label, name in enumerate(drawable_names(names))])
    bars.plot.barh(ax=ax, width=0.7, color={"train": TRAIN_COLOUR, "dev": DEV_COLOUR})
    for container in ax.containers:
        if isinstance(container, BarContainer):
            ax.bar_label(container, fmt="{:,.0f}", padding=3)
    ax.invert_yaxis()  # class 0 and train above, as in a table
    ax.margins(x=0.15)  # for the numbers
    ax.set(xlabel="texts", ylabel="")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_lengths(lengths: pd.Series, max_seq_length: int) -> plt.Figure:
    """Plot a histogram of the lengths of texts in tokens, and the length at which BERT stops reading.

    The axis ends at the longest text, or before the longest 1 % if they are much longer; how many is written below it.
    """
    most = math.ceil(lengths.quantile(0.99))
    end = lengths.max() if lengths.max() <= 1.25 * most else most
    longer = lengths[lengths > end]
    width = math.ceil(end / 50)
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    ax.hist(lengths[lengths <= end], bins=range(0, end + width + 1, width), color=TRAIN_COLOUR)
    label = f"MAX_SEQ_LENGTH = {max_seq_length}"
    if max_seq_length <= end:
        ax.axvline(max_seq_length, label=label, **LIMIT)
    else:
        ax.plot([], label=f"{label} (further to the right)", **LIMIT)
    note = f"\n(not shown: {len(longer):,} longer texts, up to {longer.max():,} tokens)" if len(longer) else ""
    ax.set(xlabel=f"tokens in a text, with [CLS] and [SEP]{note}", ylabel="training texts", xlim=(0, end + width))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def describe_lengths(lengths: pd.Series, max_seq_length: int) -> str:
    """Return sentences about the lengths of texts in tokens, see `plot_lengths`."""
    half, most, nearly_all = lengths.quantile([0.5, 0.9, 0.99]).round().astype(int)
    return (
        f"Half of the texts have at most {half:,} tokens, 90% at most {most:,}, 99% at most {nearly_all:,}; the "
        f"longest has {lengths.max():,}.\n"
        f"{(lengths > max_seq_length).mean():.1%} are longer than MAX_SEQ_LENGTH = {max_seq_length}."
    )
