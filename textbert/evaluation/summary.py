"""The evaluation in sentences, for readers who know no statistics."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, fisher_exact, norm

from textbert.evaluation.calibration import format_threshold
from textbert.evaluation.metrics import format_metric, get_eval_report


def _format_proportion(correct: int, texts: int) -> str:
    """Return "88 of 100"; or exact counts, if that would round to none or all, or if there are fewer than 100 texts.

    Halves are rounded up, as a reader does.
    """
    percent = (200 * correct + texts) // (2 * texts)
    if texts < 100 or (percent in (0, 100) and correct not in (0, texts)):
        return f"{correct:,} of {texts:,}"
    return f"{percent} of 100"


def _lowest_percent(correct: int, texts: int, low: float) -> int:
    """Return the lower limit of an accuracy in percent, rounded as in the table of intervals.

    Where all or none are right, the bootstrap has nothing to resample, and the limit is that of Wilson's interval.
    """
    if correct in (0, texts):
        return math.floor(100 * binomtest(correct, texts).proportion_ci(method="wilson").low)
    return math.floor(100 * float(format_metric(low)) + 1e-6)


def _split_groups(groups: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table of groups into the rows of the classes and those of the lengths, of which there may be none.

    Both groupings contain every text, so the classes end where their counts add up to those of the rest.
    """
    texts = groups["texts"].to_numpy()
    sizes = [size for size in (2, 1) if len(texts) > 2 and texts[:size].sum() == texts[size:].sum()]
    size = sizes[0] if sizes else len(texts)
    return groups.iloc[:size], groups.iloc[size:]


def _compare_with_majority_class(model: str, classes: pd.DataFrame) -> str:
    """Return how many texts of each class were found, and how often always predicting one class would be right."""
    correct, texts = classes["correct"].sum(), classes["texts"].sum()
    recalls = " and ".join(f"{row.correct:,} of {row.texts:,} {str(row.Index)!r}" for row in classes.itertuples())
    majority = classes["texts"].max()
    sentence = f"It found {recalls}; always predicting the same class is right"
    if correct > majority and _format_proportion(correct, texts) == _format_proportion(majority, texts):
        return f"{sentence} on at most {majority:,} of {texts:,}, {model} on {correct:,}."
    if correct > majority:
        return f"{sentence} on at most {_format_proportion(majority, texts)}."
    sentence = f"It found {recalls}; always predicting {str(classes.index[classes['texts'].argmax()])!r} is right"
    if correct == majority:
        return f"{sentence} just as often."
    return f"{sentence} MORE OFTEN, on {majority:,} of {texts:,} texts instead of {correct:,}."


def _predicts_one_class(classes: pd.DataFrame) -> bool:
    """Return True if a model got one of two classes entirely right and the other entirely wrong."""
    return sorted(classes["correct"] / classes["texts"]) == [0, 1]


def summarize(
    intervals: pd.DataFrame, model: str, baseline: str, p_value: float, groups: pd.DataFrame
) -> tuple[str, str, str]:
    """Summarize the evaluation of a model in three paragraphs, for readers who know no statistics.

    Parameters
    ----------
    intervals : DataFrame of `bootstrap_metrics`
    model, baseline : their names in it; the model is the last
    p_value : that of `mcnemar`
    groups : DataFrame of `accuracy_by_group` for the classes, and below it, optionally, for the lengths in ascending
        order
    """
    classes, _ = _split_groups(groups)
    correct, texts = classes[["correct", "texts"]].sum().tolist()
    proportion = _format_proportion(correct, texts)
    lowest = _lowest_percent(correct, texts, intervals.loc[(model, "accuracy"), "low"])
    first = f"{model} is right on {proportion} texts, and very likely on at least {lowest} of 100 others like them"
    first += f" (judging from {texts:,})."
    first += f" {_compare_with_majority_class(model, classes)}"
    low, high = intervals.loc[(model, "mcc"), ["low", "high"]]
    if _predicts_one_class(classes):
        first += " It predicts the same class for every text, which is no better than guessing."
    elif high < 0:
        first += " It is WORSE than guessing: check whether the two classes were swapped."
    elif not low > 0:
        first += " These texts are not enough to tell whether it is better than guessing."
    return first, _compare_with_baseline(intervals, model, baseline, p_value, texts), _describe_weakness(groups)


def _compare_with_baseline(intervals: pd.DataFrame, model: str, baseline: str, p_value: float, texts: int) -> str:
    """Return which of two models is better, by accuracy and by MCC, which may disagree."""
    counts = [round(texts * intervals.loc[(name, "accuracy"), "value"]) for name in (model, baseline)]
    mcc_difference = intervals.loc[(f"{model} minus {baseline}", "mcc")]
    by_accuracy = int(np.sign(counts[0] - counts[1])) if p_value <= 0.05 else 0
    by_mcc = int(mcc_difference["low"] > 0) - int(mcc_difference["high"] < 0)
    proportions = [_format_proportion(count, texts) for count in counts]
    if proportions[0] == proportions[1] and counts[0] != counts[1]:
        proportions = [f"{count:,} of {texts:,}" for count in counts]
    other = f"the {baseline} baseline, which is right on {proportions[1]}"
    balanced = "with both classes weighted equally (MCC)"
    if by_accuracy == by_mcc == 0:
        return f"These texts are not enough to tell whether it is better than {other}."
    if by_accuracy == by_mcc:
        return f"It is {'better' if by_mcc > 0 else 'WORSE'} than {other}; this is unlikely to be chance."
    if by_mcc == 0:
        how_often = "more often" if by_accuracy > 0 else "LESS OFTEN"
        verdict = f"It is right {how_often} than {other}; this is unlikely to be chance."
        return f"{verdict} But {balanced}, these texts are not enough to tell which is better."
    if by_accuracy == 0:
        verdict = f"These texts are not enough to tell whether it is right more often than {other}. But {balanced}, "
        return f"{verdict}it does {'better' if by_mcc > 0 else 'WORSE'}; this is unlikely to be chance."
    better, worse = (model, f"the {baseline} baseline") if by_mcc > 0 else (f"the {baseline} baseline", model)
    verdict = f"{worse[0].upper()}{worse[1:]} is right more often ({proportions[by_mcc > 0]}), but {balanced}, "
    return f"{verdict}{better} does better; neither is likely to be chance."


def _length_trend(lengths: pd.DataFrame) -> tuple[float, float]:
    """Return (z, p-value) of the Cochran-Armitage test for a trend of the accuracy over ordered groups."""
    correct, texts = lengths["correct"].to_numpy(float), lengths["texts"].to_numpy(float)
    accuracy, order = correct.sum() / texts.sum(), np.arange(len(texts))
    variance = accuracy * (1 - accuracy) * (texts @ order**2 - (texts @ order) ** 2 / texts.sum())
    z = order @ (correct - texts * accuracy) / math.sqrt(variance) if variance > 0 else 0.0
    return z, float(2 * norm.sf(abs(z)))


def describe_length_trend(groups: pd.DataFrame) -> str:
    """Return whether the accuracy rises or falls with the length, as far as the table of groups can tell.

    The test for a trend is that of Cochran and Armitage, at the 5 % level; see `summarize` for the table.
    """
    _, lengths = _split_groups(groups)
    if len(lengths) < 3:
        return "There are too few different lengths to look for a trend."
    z, p_value = _length_trend(lengths)
    *firsts, last = [f"{row.correct:,} of {row.texts:,}" for row in lengths.itertuples()]
    counts = f"from the shortest to the longest, {', '.join(firsts)} and {last} are right (p = {p_value:.2g})"
    if p_value <= 0.05:
        return f"It makes more mistakes on {'longer' if z < 0 else 'shorter'} texts: {counts}."
    return f"These texts are not enough to tell whether it makes more mistakes on longer or shorter ones: {counts}."


def describe_worst_group(groups: pd.DataFrame) -> str:
    """Return where a model makes the most mistakes, as far as the table of groups (see `summarize`) can tell.

    A group is named if its accuracy is significantly below that of all other texts, by Fisher's exact test at the 5 %
    level, Bonferroni-corrected for the number of groups.
    """
    classes, lengths = _split_groups(groups)
    correct, texts = classes[["correct", "texts"]].sum().tolist()
    if correct in (0, texts):
        return f"The model made {'no mistakes' if correct else 'only mistakes'} on these {texts:,} texts."
    groups = pd.concat([classes.rename(index=lambda name: repr(str(name))), lengths])
    counts = zip(groups["correct"].to_numpy(), (groups["texts"] - groups["correct"]).to_numpy())
    p_values = [fisher_exact([[r, correct - r], [w, texts - correct - w]], "less").pvalue for r, w in counts]
    weak = groups[np.array(p_values) * len(groups) <= 0.05]
    if len(weak):
        worst = weak.iloc[weak["accuracy"].argmin()]
        return (
            f"The model's accuracy is lowest, judging from these texts, for {worst.name}: {worst['correct']:,.0f} of "
            f"{worst['texts']:,.0f} are right ({_format_proportion(correct, texts)} overall)."
            f"{' These are few.' if worst['texts'] < 30 else ''}"
        )
    mistakes = "one mistake is" if texts - correct == 1 else f"{texts - correct:,} mistakes are"
    cause = "it is less accurate for one of the classes or at some length"
    return f"The model's {mistakes} not enough to tell whether {cause}."


def _describe_weakness(groups: pd.DataFrame) -> str:
    """Return `describe_worst_group`, and the trend over the lengths if it is significant."""
    worst, trend = describe_worst_group(groups), describe_length_trend(groups)
    if not trend.startswith("It makes more"):
        return worst
    return f"{worst} {trend}" if worst.startswith("The model's accuracy") else trend


def describe_difference(
    intervals: pd.DataFrame, model: str, baseline: str, mcnemar: tuple[int, int, float]
) -> list[str]:
    """Return sentences that compare two models: the difference in MCC with its interval, and McNemar's test."""
    difference = intervals.loc[(f"{model} minus {baseline}", "mcc")]
    only_model, only_baseline, p_value = mcnemar
    return [
        f"MCC of {model} minus that of {baseline}: {difference['value']:+.2f} (95 % interval "
        f"{difference['low']:+.2f} to {difference['high']:+.2f}).",
        f"Only {model} is right on {only_model} texts, only {baseline} on {only_baseline}: if both were equally good, "
        f"a split this uneven, or more so, would have a probability of {p_value:.2g}.",
    ]


def write_summary(
    comparison: tuple[str, str, str], settings: dict[str, Any], baseline_texts: int, sizes: Sequence[str], overlap: str
) -> list[str]:
    """Return the paragraphs that the report begins with.

    comparison : those of `summarize`
    settings, baseline_texts : of the archive, and how many texts the baseline was trained on
    sizes : sentences of `sample_size_warning`, of which the warnings are repeated
    overlap : sentence about the texts that the model was trained on
    """
    first, second, third = comparison
    second += " The baseline is a simpler model, which counts words and word pairs."
    if "training_rows" in settings:  # unknown for an archive from 2019
        second += f" BERT was trained on {settings['training_rows']:,} texts, the baseline on {baseline_texts:,}."
    warnings = [size for size in sizes if "TOO SMALL" in size]
    return [first, second, third, *warnings, f"Is that a fair test? {overlap[0].upper()}{overlap[1:]}."]


def compare_thresholds(
    labels: np.ndarray, y_probs: dict[str, np.ndarray], thresholds: dict[str, float], positive_class: str
) -> list[str]:
    """Return a sentence for each model about what its decision threshold does.

    labels : array of 0 and 1, of shape (n,)
    y_probs, thresholds : dicts from a model's name to its probabilities of class 1, of shape (n,), and its threshold
    """
    sentences = []
    for name, threshold in thresholds.items():
        mcc, mcc_at_half = (get_eval_report("", labels, y_probs[name] >= at)["mcc"] for at in (threshold, 0.5))
        sentence = f"{name} predicts {positive_class!r} at a probability of {format_threshold(threshold)} or more, "
        sentence += f"with an MCC of {format_metric(mcc)}"
        if threshold != 0.5:
            sentence += f"; at 0.5 or more, it would be {format_metric(mcc_at_half)}"
        sentences.append(f"{sentence}.")
    return sentences
