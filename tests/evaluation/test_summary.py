"""The evaluation in sentences: each says what the metrics say, and nothing that these texts cannot tell."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textbert.evaluation import metrics, summary

WORDS = "the words baseline, which is right on 70 of 100"


@pytest.mark.parametrize(
    ("correct", "p_value", "verdict"),
    [
        (90, 0.001, f"It is better than {WORDS}; this is unlikely to be chance."),
        (50, 0.001, f"It is WORSE than {WORDS}; this is unlikely to be chance."),
        (72, 0.2, f"These texts are not enough to tell whether it is better than {WORDS}."),
    ],
)
def test_the_summary_needs_no_statistics(correct, p_value, verdict):
    labels = np.arange(100) % 2
    predictions = {"words": np.where(np.arange(100) < 70, labels, 1 - labels)}
    predictions["BERT"] = np.where(np.arange(100) < correct, labels, 1 - labels)
    intervals = metrics.bootstrap_metrics(labels, predictions)
    groups = pd.Series(np.where(np.arange(100) < 40, "early", "late"))
    groups = metrics.accuracy_by_group(labels, predictions["BERT"], groups)
    first, second, third = summary.summarize(intervals, "BERT", "words", p_value, groups)
    at_least = {90: "8", 72: "6", 50: "4"}[correct]
    assert first.startswith(f"BERT is right on {correct} of 100 texts, and very likely on at least {at_least}")
    assert "others like them (judging from 100). It found 40 of 40 'early' and" in first
    assert ("predicting 'late' is right MORE OFTEN, on 60 of 100 texts instead of 50." in first) == (correct == 50)
    assert ("always predicting the same class is right on at most 60 of 100." in first) == (correct != 50)
    assert second == verdict
    # all mistakes are in the late ones: even 10 of them are hardly chance
    late = f"'late': {correct - 40} of 60 are right ({correct} of 100 overall)."
    assert third == f"The model's accuracy is lowest, judging from these texts, for {late}"


def summarize_rare(rare_found, false_positives, words_found, p_value=1e-5):
    """Summarize a model that finds some of 50 rare texts among 1,000, and a baseline without false positives."""
    labels = (np.arange(1000) < 50).astype(int)
    predictions = {"words": np.arange(1000) < words_found}
    predictions["BERT"] = (np.arange(1000) < rare_found) | (np.arange(1000) >= 1000 - false_positives)
    groups = metrics.accuracy_by_group(labels, predictions["BERT"], pd.Series(labels).map({0: "rare", 1: "usual"}))
    return summary.summarize(metrics.bootstrap_metrics(labels, predictions), "BERT", "words", p_value, groups)


def test_the_verdict_says_where_accuracy_and_mcc_disagree():
    verdict = summarize_rare(rare_found=40, false_positives=80, words_found=5)[1]
    assert verdict == (
        "The words baseline is right more often (96 of 100), but with both classes weighted equally (MCC), BERT does "
        "better; neither is likely to be chance."
    )
    assert summarize_rare(rare_found=40, false_positives=1, words_found=5)[1].startswith(
        "It is better than the words baseline"
    )


def test_no_mistake_is_no_certainty():
    assert summarize_rare(50, 0, 5)[0] == (
        "BERT is right on 100 of 100 texts, and very likely on at least 99 of 100 others like them (judging from "
        "1,000). It found 950 of 950 'rare' and 50 of 50 'usual'; always predicting the same class is right on at most "
        "95 of 100."
    )


def test_the_lower_limit_is_that_of_the_table_of_intervals():
    labels = np.arange(400) % 2
    predictions = {"words": labels, "BERT": np.where(np.arange(400) < 351, labels, 1 - labels)}
    intervals = metrics.bootstrap_metrics(labels, predictions)
    groups = metrics.accuracy_by_group(labels, predictions["BERT"], pd.Series(labels))
    first = summary.summarize(intervals, "BERT", "words", 0.5, groups)[0]
    assert metrics.format_intervals(intervals).loc["accuracy", "BERT"] == "0.88 (0.85 to 0.91)"
    assert first.startswith("BERT is right on 88 of 100 texts, and very likely on at least 85 of 100 others like them")
    assert "always predicting the same class is right on at most 50 of 100." in first
    labels[1] = 0
    groups = metrics.accuracy_by_group(labels, predictions["BERT"], pd.Series(labels))
    first = summary.summarize(intervals, "BERT", "words", 0.5, groups)[0]
    assert "always predicting the same class is right on at most 50 of 100." in first  # 201 of 400
    labels[3] = 0
    groups = metrics.accuracy_by_group(labels, predictions["BERT"], pd.Series(labels))
    first = summary.summarize(intervals, "BERT", "words", 0.5, groups)[0]
    assert "always predicting the same class is right on at most 51 of 100." in first  # 202: 50.5 are not 50


def test_a_group_too_small_for_the_test_hides_no_other():
    names = pd.Series(["few"] * 8 + ["many"] * 250 + ["most"] * 1000)
    labels, correct = np.zeros(1258, int), np.repeat([1, 0, 1, 0, 1, 0], [5, 3, 165, 85, 900, 100])
    groups = metrics.accuracy_by_group(labels, 1 - correct, names)
    assert summary.describe_worst_group(groups) == (
        "The model's accuracy is lowest, judging from these texts, for 'many': 165 of 250 are right (85 of 100 "
        "overall)."
    )


@settings(max_examples=60, deadline=None)
@given(
    tables=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(1, 400)), min_size=1)
)
def test_each_sentence_says_what_the_metrics_say(tables):
    """Random confusion matrices of two models: each claim is computed again from the predictions."""
    labels, words, bert = (np.repeat([row[i] for row in tables], [row[3] for row in tables]) for i in range(3))
    n, bert_hits, words_hits = len(labels), int((bert == labels).sum()), int((words == labels).sum())
    intervals = metrics.bootstrap_metrics(labels, {"words": words, "BERT": bert}, 199)
    *_, p_value = metrics.mcnemar(labels, bert, words)
    groups = metrics.accuracy_by_group(labels, bert, np.where(labels, "yes", "no"))
    first, verdict, weakest = summary.summarize(intervals, "BERT", "words", p_value, groups)
    assert ("right on 100 of 100" in first) == (bert_hits == n >= 100)
    assert ("right on 0 of 100" in first) == (bert_hits == 0 and n >= 100)
    for name, label in (("no", 0), ("yes", 1)):
        rows = labels == label
        assert (f"{(bert[rows] == label).sum():,} of {rows.sum():,} {name!r}" in first) == bool(rows.any())
    majority = max((labels == 0).sum(), (labels == 1).sum())
    assert ("MORE OFTEN, on" in first) == (majority > bert_hits)
    assert ("just as often" in first) == (majority == bert_hits)
    mcc_difference = intervals.loc[("BERT minus words", "mcc")]
    if "It is better" in verdict or "right more often than" in verdict.split("These texts")[0]:
        assert bert_hits > words_hits and p_value <= 0.05
    if "It is WORSE" in verdict or "LESS OFTEN" in verdict:
        assert bert_hits < words_hits and p_value <= 0.05
    is_significant = mcc_difference["low"] > 0 or mcc_difference["high"] < 0
    assert ("does better" in verdict or "It is better" in verdict) <= is_significant
    assert ("not enough to tell whether it is better than the words" in verdict) <= (p_value > 0.05)
    assert ("100 of 100" in verdict) <= (max(bert_hits, words_hits) == n)
    assert ("no mistake" in weakest) == (bert_hits == n) and ("only mistakes" in weakest) == (bert_hits == 0)
    if "accuracy is lowest" in weakest:
        label = weakest.split(" for ")[1].split(":")[0] == "'yes'"
        assert f"of {(labels == label).sum():,} are right" in weakest
        assert (bert == labels)[labels == label].mean() < bert_hits / n


@pytest.mark.parametrize(
    ("labels", "predicted", "sentence"),
    [
        ([0] * 6 + [1] * 6, [0] * 12, "It predicts the same class for every text, which is no better than guessing."),
        ([0] * 40 + [1] * 9, [1] * 49, "It predicts the same class for every text, which is no better than guessing."),
        ([0] * 20 + [1] * 30, [1] * 20 + [0] * 30, "It is WORSE than guessing: check whether the two classes were"),
        ([0] * 12, [0] * 12, "These texts are not enough to tell whether it is better than guessing."),
        ([0, 1] * 15, [0, 1, 1, 0, 1] * 6, "These texts are not enough to tell whether it is better than guessing."),
        ([0] * 20 + [1] * 30, [0] * 20 + [1] * 30, None),
    ],
)
def test_models_that_are_no_better_than_guessing(labels, predicted, sentence):
    labels, predicted = np.array(labels), np.array(predicted)
    intervals = metrics.bootstrap_metrics(labels, {"words": labels, "BERT": predicted}, 999)
    groups = metrics.accuracy_by_group(labels, predicted, np.where(labels, "yes", "no"))
    first = summary.summarize(intervals, "BERT", "words", 1.0, groups)[0]
    assert "guessing" not in first if sentence is None else sentence in first
    assert first.count("guessing") == (sentence is not None)


def test_equal_proportions_are_given_as_counts_and_one_mistake_in_the_singular():
    labels = np.repeat([0, 1], [503, 497])
    predicted = np.where(np.arange(1000) < 504, labels, 1 - labels)
    groups = metrics.accuracy_by_group(labels, predicted, np.where(labels, "yes", "no"))
    intervals = metrics.bootstrap_metrics(labels, {"words": labels, "BERT": predicted}, 99)
    first = summary.summarize(intervals, "BERT", "words", 1.0, groups)[0]
    assert "always predicting the same class is right on at most 503 of 1,000, BERT on 504." in first
    groups = metrics.accuracy_by_group([0, 0, 1, 1], [0, 0, 1, 0], ["no", "no", "yes", "yes"])
    assert summary.describe_worst_group(groups).startswith("The model's one mistake is not enough to tell whether")


def test_all_mistakes_in_one_class_of_twelve_texts():
    groups = metrics.accuracy_by_group([0] * 6 + [1] * 6, [0] * 12, ["no"] * 6 + ["yes"] * 6)
    assert "judging from these texts, for 'yes': 0 of 6 are right" in summary.describe_worst_group(groups)


def test_a_trend_over_the_lengths_is_mentioned():
    rows = [("bad", 202, 179), ("good", 198, 172), *zip("abcd", (100, 108, 92, 100), (92, 97, 79, 83))]
    groups = pd.DataFrame(rows, columns=["name", "texts", "correct"]).set_index("name")
    groups["accuracy"] = groups["correct"] / groups["texts"]
    counts = "from the shortest to the longest, 92 of 100, 97 of 108, 79 of 92 and 83 of 100 are right (p = 0.035)."
    assert summary.describe_length_trend(groups) == f"It makes more mistakes on longer texts: {counts}"
    assert summary.describe_worst_group(groups).startswith("The model's 49 mistakes are not enough to tell whether")
    intervals = metrics.bootstrap_metrics([0, 1], {"words": [0, 1], "BERT": [0, 1]}, 9)
    assert (
        summary.summarize(intervals, "BERT", "words", 1.0, groups)[2]
        == f"It makes more mistakes on longer texts: {counts}"
    )
    groups["correct"] = [175, 176, 88, 95, 81, 87]
    trend = summary.describe_length_trend(groups)
    assert trend.startswith(
        "These texts are not enough to tell whether it makes more mistakes on longer or shorter ones"
    )
    third = summary.summarize(intervals, "BERT", "words", 1.0, groups)[2]
    assert third.startswith("The model's 49 mistakes are not enough to tell whether") and "p =" not in third
    assert "too few different lengths" in summary.describe_length_trend(groups[:4])


def test_a_small_group_and_a_class_named_like_a_length():
    rows = [("it's <b>", 378, 360), ("5 to 9 words", 22, 8), ("5 to 9 words", 200, 184), ("10 to 99 words", 200, 184)]
    groups = pd.DataFrame(rows, columns=["name", "texts", "correct"]).set_index("name")
    groups["accuracy"] = groups["correct"] / groups["texts"]
    sentence = summary.describe_worst_group(groups)
    assert "'5 to 9 words': 8 of 22 are right (92 of 100 overall). These are few." in sentence


def test_the_report_begins_with_what_the_models_were_trained_on_and_whether_the_test_is_fair():
    sizes = ["dev.tsv: fine", "validation set: TOO SMALL to say much"]
    paragraphs = summary.write_summary(("a", "b.", "c"), {"training_rows": 1512}, 1680, sizes, "none was in it")
    assert paragraphs == [
        "a",
        "b. The baseline is a simpler model, which counts words and word pairs. BERT was trained on 1,512 texts, "
        "the baseline on 1,680.",
        "c",
        "validation set: TOO SMALL to say much",
        "Is that a fair test? None was in it.",
    ]
    assert "trained on" not in summary.write_summary(("a", "b.", "c"), {}, 1680, sizes, "x")[1]


def test_two_models_are_compared():
    labels = np.arange(100) % 2
    models = {"words": np.where(np.arange(100) < 70, labels, 1 - labels), "BERT": labels}
    mcnemar = metrics.mcnemar(labels, models["BERT"], models["words"])
    difference, split = summary.describe_difference(metrics.bootstrap_metrics(labels, models), "BERT", "words", mcnemar)
    assert difference.startswith("MCC of BERT minus that of words: +0.60 (95 % interval +0.4")
    assert split.startswith("Only BERT is right on 30 texts, only words on 0: ") and split.endswith("of 1.9e-09.")
