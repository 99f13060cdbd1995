"""Metrics, probabilities, intervals, threshold, calibration: by hand, by brute force, or as scikit-learn has them."""

import json
import math
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
)

import tools
from textbert.evaluation import calibration, metrics

# 13 texts: 4 true positives, 5 true negatives, 1 false positive, 3 false negatives
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
SAID = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0])
OTHER = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0])


# ---------- Figures ---------------------------------------------------------------------------------------------------


def test_figures_by_hand():
    mcc, accuracy, precision, recall, f1 = metrics.metrics_from_counts(4, 5, 1, 3)
    assert mcc == pytest.approx((4 * 5 - 1 * 3) / math.sqrt(5 * 7 * 6 * 8))
    assert (accuracy, precision, recall, f1) == pytest.approx((9 / 13, 4 / 5, 4 / 7, 8 / 12))
    assert metrics.metrics_from_counts([0, 0], [6, 0], [0, 0], [7, 3]).T.tolist() == [[0, 6 / 13, 0, 0, 0], [0] * 5]


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(pairs=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_mcc_of_counts_is_scikit_learns(pairs):
    labels, preds = np.array(pairs).T
    tn, fp, fn, tp = confusion_matrix(labels, preds, labels=[0, 1]).ravel()
    expected = matthews_corrcoef(labels, preds)
    assert metrics.metrics_from_counts(tp, tn, fp, fn)[0] == pytest.approx(expected, abs=1e-12)
    many = metrics.metrics_from_counts(*(np.array([count, 3, 0]) for count in (tp, tn, fp, fn)))[0]
    assert many.tolist() == pytest.approx([expected, 0, 0], abs=1e-12)


def test_mcc_of_large_counts():
    assert metrics.metrics_from_counts(10**9, 10**9, 0, 0)[0] == 1  # the product of whole numbers would overflow
    assert metrics.metrics_from_counts(0, 0, 10**9, 10**9)[0] == -1


@pytest.mark.parametrize("kind", [int, bool])
def test_the_report_by_hand(kind):
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    preds = np.array([1, 1, 0, 0, 0, 0, 1]).astype(kind)
    positive = np.array([0.9, 0.8, 0.4, 0.1, 0.2, 0.3, 0.6])
    found = metrics.get_eval_report("sample", labels, preds, positive)
    assert {name: found[name] for name in ("task", "tp", "tn", "fp", "fn")} == {
        "task": "sample",
        "tp": 2,
        "tn": 3,
        "fp": 1,
        "fn": 1,
    }
    assert found["mcc"] == pytest.approx((2 * 3 - 1 * 1) / math.sqrt(3 * 3 * 4 * 4))
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["precision"] == found["recall"] == found["f1"] == pytest.approx(2 / 3)
    assert found["roc_auc"] == pytest.approx(11 / 12)  # of 12 pairs one is in the wrong order: 0.4 and 0.6
    right = [0.9, 0.8, 0.4, 0.9, 0.8, 0.7, 0.4]
    assert found["loss"] == pytest.approx(-sum(map(math.log, right)) / 7)
    json.dumps(found)  # plain numbers
    assert "loss" not in metrics.get_eval_report("sample", labels, preds)


def test_the_report_of_one_answer_for_all():
    found = metrics.get_eval_report("sample", np.array([1, 0, 0]), np.array([0, 0, 0]))
    assert [found[name] for name in ("mcc", "tp", "tn", "fp", "fn", "precision", "recall", "f1")] == [
        *(0, 0, 2, 0, 1),
        *(0, 0, 0),
    ]
    perfect = metrics.get_eval_report("sample", np.array([1, 0, 0]), np.array([1, 0, 0]))
    assert (perfect["mcc"], perfect["f1"]) == (1, 1)
    assert metrics.get_eval_report("sample", np.array([1, 0, 0]), np.array([0, 1, 1]))["mcc"] == -1


# ---------- Intervals and tests ---------------------------------------------------------------------------------------


def test_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, said = rng.integers(0, 2, (2, 31))
    table = metrics.bootstrap_metrics(labels, {"m": said}, n_resamples=99).loc["m", "value"]
    assert table["mcc"] == pytest.approx(matthews_corrcoef(labels, said))
    assert table["f1"] == pytest.approx(f1_score(labels, said))
    assert table["precision"] == pytest.approx(precision_score(labels, said))
    assert table["recall"] == pytest.approx(recall_score(labels, said))


def correlate(first, second):
    """Return Pearson's correlation, which is the MCC; 0 for a constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nan_to_num(np.corrcoef(first, second)[0, 1]))


def test_the_standard_error_is_the_spread_over_texts_drawn_anew():
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(200) < 40)
    said = labels ^ (rng.random(200) < 0.15)
    report = metrics.get_eval_report("sample", labels, said)
    drawn = [rng.integers(0, 200, 200) for _ in range(4000)]
    expected = np.std([correlate(labels[rows], said[rows]) for rows in drawn])
    assert metrics.standard_error(report) == pytest.approx(expected, rel=0.06)
    # where classes and mistakes are balanced, the MCC is twice the accuracy less one
    balanced = metrics.get_eval_report("sample", np.arange(400) % 2, np.arange(400) % 2 ^ (np.arange(400) < 50))
    assert metrics.standard_error(balanced) == pytest.approx(math.sqrt((1 - 0.75**2) / 400), rel=0.05)
    assert metrics.standard_error(balanced) == metrics.standard_error(balanced)


def test_the_standard_error_of_one_answer_for_all_and_of_no_mistake_is_0():
    for said in (np.zeros(99, int), np.arange(99) % 2):
        assert metrics.standard_error(metrics.get_eval_report("sample", np.arange(99) % 2, said)) == 0


def test_intervals_are_those_of_scipy_on_the_rows():
    """Rows are drawn whole: label and all answers together; 9,999 times, two ways differ by some hundredths."""
    table = metrics.bootstrap_metrics(LABELS, {"other": OTHER, "said": SAID}, seed=3)

    def difference(labels, other, said):
        return correlate(labels, said) - correlate(labels, other)

    options = {"paired": True, "vectorized": False, "method": "percentile", "n_resamples": 9999, "rng": 3}
    expected = stats.bootstrap((LABELS, OTHER, SAID), difference, **options).confidence_interval
    low, high = table.loc[("said minus other", "mcc"), ["low", "high"]]
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)
    pd.testing.assert_frame_equal(table, metrics.bootstrap_metrics(LABELS, {"other": OTHER, "said": SAID}, seed=3))
    assert not table.equals(metrics.bootstrap_metrics(LABELS, {"other": OTHER, "said": SAID}, seed=4))


def test_intervals_are_those_of_the_drawn_rows():
    """The kinds of rows that are drawn, written out as rows, have just these figures."""
    table = metrics.bootstrap_metrics(LABELS, {"other": OTHER, "said": SAID}, n_resamples=499, seed=3)
    kinds = Counter(sorted(zip(LABELS.tolist(), OTHER.tolist(), SAID.tolist())))
    drawn = np.random.default_rng(3).multinomial(13, np.array(list(kinds.values())) / 13, 499)
    found = {"other": [], "said": [], "said minus other": []}
    for counts in drawn:
        labels, other, said = np.repeat(list(kinds), counts, axis=0).T
        found["other"].append(correlate(labels, other))
        found["said"].append(correlate(labels, said))
        found["said minus other"].append(found["said"][-1] - found["other"][-1])
    assert {sum(counts) for counts in drawn} == {13}
    for name, values in found.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert table.loc[(name, "mcc"), ["low", "high"]].tolist() == pytest.approx([low, high], abs=1e-9)


def test_intervals_of_many_models():
    answers = {"a": SAID, "b": OTHER, "c": SAID}
    table = metrics.bootstrap_metrics(LABELS, answers, n_resamples=99)
    differences = [(f"c minus {name}", "mcc") for name in "ab"]
    assert list(table.index) == [(name, figure) for name in "abc" for figure in metrics.METRICS] + differences
    assert table.loc[differences[0]].tolist() == [0, 0, 0]  # all models are judged on the same rows
    assert table.loc["a"].equals(table.loc["c"])
    alone = metrics.bootstrap_metrics(LABELS, {"c": SAID}, n_resamples=99)
    assert list(alone.index) == [("c", figure) for figure in metrics.METRICS]


def test_intervals_for_people():
    table = metrics.bootstrap_metrics(LABELS, {"other": OTHER, "said": SAID}, n_resamples=499)
    cells = metrics.format_intervals(table)
    assert list(cells.columns) == ["other", "said"]
    assert list(cells.index) == ["MCC", "accuracy", "precision", "recall", "F1"]
    assert re.fullmatch(r"0\.41 \(-?\d\.\d\d to \d\.\d\d\)", cells.loc["MCC", "said"])


@pytest.mark.parametrize("names", [["b", "c", "a"], ["only"], ["z", "a minus b", "MCC", "y"]])
def test_each_interval_stands_under_its_model_in_the_order_given(monkeypatch, names):
    unstack = pd.Series.unstack

    def unstack_of_pandas_2(series, *arguments, sort=True, **options):
        assert sort, "before pandas 3 this puts values under other names"
        return unstack(series, *arguments, **options)

    monkeypatch.setattr(pd.Series, "unstack", unstack_of_pandas_2)
    rng = np.random.default_rng(3)
    answers = {name: rng.integers(0, 2, len(LABELS)) for name in names}
    table = metrics.bootstrap_metrics(LABELS, answers, n_resamples=99)
    cells = metrics.format_intervals(table)
    assert list(cells.columns) == names
    for (model, figure), row in table.loc[names].iterrows():
        shown = cells.loc[{"mcc": "MCC", "f1": "F1"}.get(figure, figure), model]
        assert shown == f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def test_a_constant_answer_has_an_interval():
    table = metrics.bootstrap_metrics(LABELS, {"always": np.ones(13, int), "said": SAID}, n_resamples=99)
    assert table.loc[("always", "mcc")].tolist() == [0, 0, 0]


def test_parts_that_are_too_small():
    labels = np.arange(400) % 2
    good = np.where(np.arange(400) % 10 == 0, 1 - labels, labels)
    note = metrics.sample_size_warning("dev.tsv", labels, good)
    assert note == "dev.tsv: MCC 0.82, between 0.77 and 0.86; 400 texts, 200 of the rarer class."
    assert "TOO SMALL TO TELL MUCH" in metrics.sample_size_warning("dev.tsv", labels[:50], good[:50])
    for count in range(60, 130, 2):  # the bounds as they are printed decide, not others behind them
        note = metrics.sample_size_warning("dev.tsv", labels[:count], good[:count])
        low, high = map(float, re.findall(r"between (\S+) and (\S+);", note)[0])
        assert ("TOO SMALL" in note) == (round(high - low, 2) > 0.2)
    flawless = metrics.sample_size_warning("dev.tsv", labels[:60], labels[:60])  # by Wilson: z² / (n + z²)
    assert flawless.endswith("rarer class. No answer is wrong; of others like them up to 6 in 100 may be.")
    rare = (np.arange(400) < 29).astype(int)
    assert "29 of the rarer class" in metrics.sample_size_warning(
        "dev.tsv", rare, rare
    ) and "SMALL" in metrics.sample_size_warning("dev.tsv", rare, rare)


def test_mcnemar_by_hand():
    """Of 6 texts that one alone gets right, 4 are the first's: p = 2 (1 + 6 + 15) / 64."""
    only_said, only_other, chance = metrics.mcnemar(LABELS, SAID, OTHER)
    assert (only_said, only_other) == (3, 1)
    assert chance == pytest.approx(2 * (1 + 4) / 16)
    assert metrics.mcnemar(LABELS, SAID, SAID) == (0, 0, 1.0)


def test_accuracy_in_groups_by_hand():
    table = metrics.accuracy_by(LABELS, SAID, pd.Series(["a"] * 4 + ["b"] * 9))
    assert table["texts"].tolist() == [4, 9] and table["right"].tolist() == [4, 5]
    z, n, p = 1.959964, 9, 5 / 9
    middle, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert table.loc["b", "low"] == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-6)
    assert table.loc["b", "high"] == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-6)


def test_missing_groups_and_their_order_are_kept():
    groups = pd.Series(
        pd.Categorical(["z", "a", None, "z"], ["z", "q", "a"], ordered=True), [9, 9, 1, 1], name="branch"
    )
    table = metrics.accuracy_by([1, 0, 1, 0], [1, 0, 0, 1], groups)
    assert table.index.tolist()[:2] == ["z", "a"] and pd.isna(table.index[2]) and table.index.name == "branch"
    assert table["texts"].tolist() == [2, 1, 1] and table["right"].tolist() == [1, 1, 0]
    assert metrics.accuracy_by([1, 0], [1, 1], ["a", np.nan])["texts"].tolist() == [1, 1]


indexes = st.one_of(
    st.permutations(range(40)),
    st.lists(st.integers(0, 3), min_size=40, max_size=40),
    st.permutations([(i // 3, i % 2) for i in range(40)]).map(pd.MultiIndex.from_tuples),
)


@given(indexes, indexes, indexes, st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_values_are_taken_in_order_whatever_their_index(one, two, three, seed):
    rng = np.random.default_rng(seed)
    labels, other, positive = rng.permutation([0, 1] * 20), rng.integers(0, 2, 40), rng.random(40)
    groups = rng.choice(["north", "south", "west"], 40)
    logits = rng.normal(size=(40, 2))
    a, b, p, g = pd.Series(labels, one), pd.Series(other, two).astype(bool), pd.Series(positive, three), list(groups)
    for plain, given_ in (
        (metrics.accuracy_by(labels, other, groups), metrics.accuracy_by(a, b, pd.Series(groups, three))),
        (metrics.accuracy_by(labels, other, groups), metrics.accuracy_by(list(a), b, pd.Categorical(g))),
        (metrics.reliability(labels, positive), metrics.reliability(a, p)),
        (metrics.threshold_curve(labels, positive), metrics.threshold_curve(a, p)),
        (metrics.bootstrap_metrics(labels, {"m": other}, 9), metrics.bootstrap_metrics(a, {"m": b}, 9)),
    ):
        np.testing.assert_array_equal(plain.to_numpy(), given_.to_numpy())  # NaN, too
        assert list(plain.index) == list(given_.index)
    assert metrics.get_eval_report("t", labels, other, positive) == metrics.get_eval_report("t", a, b, p)
    assert metrics.mcnemar(labels, other, 1 - other) == metrics.mcnemar(a, b, pd.Series(1 - other, three))
    assert metrics.calibration(labels, positive) == metrics.calibration(a, p)
    assert metrics.choose_threshold(positive, labels) == metrics.choose_threshold(p, a)
    assert metrics.sample_size_warning("x", labels, other) == metrics.sample_size_warning("x", a, b)
    assert calibration.fit_temperature(logits, labels) == calibration.fit_temperature(pd.DataFrame(logits, one), a)


@pytest.mark.parametrize(
    "measure",
    [
        lambda labels, other: metrics.accuracy_by(labels, labels, other),
        lambda labels, other: metrics.accuracy_by(labels, other, labels),
        lambda labels, other: metrics.mcnemar(labels, labels, other),
        lambda labels, other: metrics.bootstrap_metrics(labels, {"m": other}),
        lambda labels, other: metrics.get_eval_report("t", labels, other),
        lambda labels, other: metrics.get_eval_report("t", labels, labels, other),
        lambda labels, other: metrics.sample_size_warning("t", labels, other),
        metrics.reliability,
        metrics.calibration,
        metrics.threshold_curve,
        metrics.choose_threshold,
    ],
)
@pytest.mark.parametrize("other", [[1], [0, 1], [[0], [1], [0]]])
def test_other_lengths_are_refused(measure, other):
    """numpy would stretch one value, and a column beside a row, to any length."""
    with pytest.raises(ValueError, match=r"got (shapes|ndarray of shape) .*\(3,"):
        measure(np.array([0, 1, 1]), np.array(other))


def test_quarters_of_the_lengths():
    texts = ["a " * n for n in (1, 2, 3, 4, 5, 6, 7, 90)]
    groups = metrics.length_groups(texts)
    assert groups.tolist() == [
        *["1 to 2 words"] * 2,
        *["3 to 4 words"] * 2,
        *["5 to 6 words"] * 2,
        *["7 to 90 words"] * 2,
    ]
    assert metrics.length_groups(["a b", "c d", "e f"]).tolist() == ["2 to 2 words"] * 3


# ---------- Temperature and calibration -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 2)).astype(np.float32)
    positive = 1 / (1 + np.exp(-(logits[:, 1] - logits[:, 0]) / temperature))
    labels = (rng.random(20_000) < positive).astype(int)
    fitted = calibration.fit_temperature(logits, labels)
    assert type(fitted) is float
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert calibration.fit_temperature(logits, labels) == fitted


def test_the_temperature_has_bounds():
    logits = np.tile(np.array([[2.0, -2.0], [-2.0, 2.0], [1.0, -1.0]], np.float32), (500, 1))
    assert calibration.fit_temperature(logits / 100, np.tile([0, 1, 0], 500)) == pytest.approx(0.05, rel=0.1)  # right
    assert calibration.fit_temperature(logits, np.tile([1, 0, 1], 500)) == pytest.approx(20, rel=0.1)  # always wrong


def test_no_mistake_on_few_texts_makes_no_certainty():
    """By Platt's targets 10 right answers of each class, all with the same logits, are worth 11 of 12."""
    labels = np.repeat([0, 1], 10)
    logits = np.stack([1 - 2 * labels, 2 * labels - 1], axis=1).astype(np.float32)
    temperature = calibration.fit_temperature(logits, labels)
    assert calibration.probabilities(logits, temperature)[-1, 1] == pytest.approx(11 / 12, abs=1e-3)


def test_probabilities_by_hand():
    logits = np.array([[0, math.log(3)], [1000, 0], [2, 2]], np.float32)
    np.testing.assert_allclose(calibration.probabilities(logits), [[0.25, 0.75], [1, 0], [0.5, 0.5]], atol=1e-7)
    np.testing.assert_allclose(
        calibration.probabilities(logits, 0.5), [[1 / 10, 9 / 10], [1, 0], [0.5, 0.5]], atol=1e-7
    )
    assert calibration.probabilities(logits).sum(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.500"),
        (0.041234, "0.041"),
        (0.49961, "0.4996"),
        (0.0000321, "0.00003"),
        (0.99987, "0.9999"),
        (1, "1.000"),
    ],
)
def test_a_threshold_does_not_look_like_another(value, shown):
    assert calibration.format_threshold(value) == shown


def test_what_a_temperature_at_its_limit_is_worth():
    fitted, limit = calibration.describe_calibration({"temperature": 19.9999, "intercept": -2.5})
    assert "19.99" in fitted or "20.000" in fitted
    assert "at its limit" in limit and len(calibration.describe_calibration({"temperature": 1.4})) == 1
    assert "at its limit" in calibration.describe_calibration({"temperature": 0.0500003})[1]


def test_one_answer_for_all_is_said():
    labels = np.arange(200) % 2
    assert "same answer, for which the MCC is 0" in metrics.sample_size_warning("dev.tsv", labels, np.ones(200, int))
    assert "same answer" not in metrics.sample_size_warning("dev.tsv", labels, labels)


def test_calibration_by_hand():
    labels, positive = np.array([0, 1, 1, 1, 0]), np.array([0.05, 0.05, 0.95, 1.0, 0.1])
    table = metrics.reliability(labels, positive)
    assert table.index.tolist() == [0, 1, 9] and table["texts"].tolist() == [2, 1, 2]
    assert table["probability"].tolist() == pytest.approx([0.05, 0.1, 0.975])
    assert table["fraction_of_positives"].tolist() == [0.5, 0, 1]
    brier, error = metrics.calibration(labels, positive)
    assert brier == pytest.approx(brier_score_loss(labels, positive))
    assert error == pytest.approx((2 * 0.45 + 1 * 0.1 + 2 * 0.025) / 5)


def test_weighed_classes_are_moved_back():
    draw = np.random.default_rng(3)
    log_odds = draw.normal(-3, 2, 5000)
    labels = (draw.random(5000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    logits = np.stack([np.zeros(5000), 2 * log_odds + 5], axis=1)  # the true temperature is 2, the intercept -2.5
    for weights in ("balanced", None):  # the test finds it without being told
        temperature, intercept = calibration.fit_calibration(logits, labels, weights)
        assert (temperature, intercept) == pytest.approx((2, -2.5), abs=0.2)
    assert metrics.calibration(labels, calibration.probabilities(logits, temperature, intercept)[:, 1])[1] < 0.02
    assert (
        metrics.calibration(
            labels, calibration.probabilities(logits, calibration.fit_temperature(logits, labels))[:, 1]
        )[1]
        > 0.05
    )
    usual = calibration.default_threshold(intercept, "balanced")
    positive = calibration.probabilities(logits, temperature, intercept)[:, 1]
    assert np.array_equal(positive >= usual, logits[:, 1] >= 0) and calibration.default_threshold(intercept) == 0.5
    straight = np.stack([np.zeros(5000), 2 * log_odds], axis=1)
    assert calibration.fit_calibration(straight, labels) == (calibration.fit_temperature(straight, labels), 0.0)


def test_what_was_fitted_is_said():
    weighed = {"temperature": 2.0, "threshold": 0.5, "parameters": {"CLASS_WEIGHTS": "balanced"}}
    (said,) = calibration.describe_calibration(weighed)
    assert "shifted" in said and "2.000" in said
    (said,) = calibration.describe_calibration(weighed | {"intercept": -1.25}, pd.DataFrame({"label": [0] * 77}))
    assert "temperature (2.000) and an intercept (-1.250) were fitted on 77 validation texts" in said
    exported = {"temperature": 1.0, "intercept": 0.0, "calibrated_in_weights": calibration.get_fitted(weighed)}
    assert "shifted" in calibration.describe_calibration(weighed | exported)[0]
    assert "Nothing was fitted" in calibration.describe_calibration({"temperature": 1.0})[0]


def test_what_is_undefined_is_a_dash_and_nothing_is_rounded_to_perfection():
    labels = np.repeat([0, 1], [900, 100])
    flaw = labels.copy()
    flaw[0] = 1
    table = metrics.bootstrap_metrics(labels, {"never": np.zeros(1000, int), "model": flaw}, 99)
    cells = metrics.format_intervals(table)
    assert cells.loc["precision", "never"] == "–" and cells.loc["recall", "never"] == "0.00 (0.00 to 0.00)"
    assert cells.loc["accuracy", "model"].startswith("0.999 (")
    assert metrics.format_metric(-1e-12) == "0.00" and metrics.format_metric(1.0) == "1.00"


def test_lengths_where_words_are_not_parted():
    groups = metrics.length_groups(["很好", "这家店的菜很好吃", "非常好吃，下次再来。", "ไม่ดี"])
    assert groups.astype(str).str.endswith("characters").all() and groups[0].startswith("2 to ")


# ---------- Threshold -------------------------------------------------------------------------------------------------


def test_the_threshold_curve_is_what_each_threshold_gives():
    rng = np.random.default_rng(1)
    labels, positive = rng.integers(0, 2, 41), rng.random(41).round(2)
    curve = metrics.threshold_curve(labels, positive)
    assert len(curve) == 99
    for row in curve.itertuples():
        said = positive >= row.threshold
        assert row.mcc == pytest.approx(matthews_corrcoef(labels, said))
        assert row.precision == pytest.approx(precision_score(labels, said, zero_division=np.nan), nan_ok=True)
        assert row.recall == pytest.approx(recall_score(labels, said))


@pytest.mark.parametrize(("cost", "threshold"), [(3, 0.75), (1 / 3, 0.25), (9.0, 0.9), (0.5, 1 / 3)])
def test_costs_alone_decide_the_threshold(cost, threshold):
    """At the threshold both answers cost the same: (1 - p) * cost = p."""
    rng = np.random.default_rng(0)
    found, reason = metrics.choose_threshold(rng.random(50), rng.integers(0, 2, 50), cost)
    assert found == pytest.approx(threshold) and (1 - found) * cost == pytest.approx(found)
    assert reason == f"a false positive costs {cost:g} times as much as a false negative"


def test_a_threshold_of_costs_costs_least():
    positive = np.random.default_rng(0).random(20_000)
    labels = (np.random.default_rng(1).random(20_000) < positive).astype(int)
    threshold, _ = metrics.choose_threshold(positive, labels, 3.0)

    def cost(at):
        return 3 * ((positive >= at) & (labels == 0)).sum() + ((positive < at) & (labels == 1)).sum()

    assert all(cost(threshold) < cost(at) for at in (0.3, 0.5, 0.65, 0.85, 0.95))


def read_interval(reason):
    found = re.match(
        r"at (0\.\d{3}) validation MCC would gain between ([+-]\d\.\d{3}) and ([+-]\d\.\d{3}) \(95 % bootstrap", reason
    )
    return [float(number) for number in found.groups()]


def test_a_clear_gain_moves_the_threshold():
    # 100 positives lie between 0.2 and 0.45, where 0.5 misses them all; only negatives are below
    positive = np.concatenate([np.linspace(0.01, 0.19, 100), np.linspace(0.21, 0.45, 100), np.linspace(0.6, 0.9, 20)])
    labels = np.repeat([0, 1, 1], [100, 100, 20])
    threshold, reason = metrics.choose_threshold(positive, labels)
    assert type(threshold) is float and threshold == pytest.approx(0.2)
    assert metrics.choose_threshold(positive, labels) == (threshold, reason)
    at, low, high = read_interval(reason)
    gain = 1 - matthews_corrcoef(labels, positive >= 0.5)
    assert at == 0.2 and 0 < low < gain < high and "chance" not in reason
    order = np.random.default_rng(0).permutation(220)
    assert metrics.choose_threshold(positive[order], labels[order]) == (threshold, reason)


def test_a_gain_that_may_be_chance_does_not_move_it():
    # a single text of 40 is right at 0.45 and wrong at 0.5
    positive = np.concatenate([np.linspace(0.05, 0.44, 20), [0.46], np.linspace(0.55, 0.9, 19)])
    labels = np.repeat([0, 1], 20)
    threshold, reason = metrics.choose_threshold(positive, labels)
    at, low, high = read_interval(reason)
    assert (threshold, at, low) == (0.5, 0.45, 0) and high > 0
    assert reason.endswith(": that may be chance")
    assert metrics.choose_threshold(positive, labels, seed=1)[0] == 0.5


def test_the_bootstrap_interval_is_the_one_of_resampled_rows():
    """Drawing how often each kind of row comes is drawing rows; and the seed decides."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 300)
    positive = np.clip(0.25 + 0.2 * labels + rng.normal(0, 0.1, 300), 0, 1)
    threshold, reason = metrics.choose_threshold(positive, labels)
    at, low, high = read_interval(reason)
    best, half, gains = positive >= threshold, positive >= 0.5, []
    for _ in range(1000):
        rows = rng.integers(0, 300, 300)
        gains.append(correlate(labels[rows], best[rows]) - correlate(labels[rows], half[rows]))
    assert threshold != 0.5 and (low, high) == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=0.03)
    everywhere = np.unique(positive)
    assert matthews_corrcoef(labels, best) == pytest.approx(
        max(matthews_corrcoef(labels, positive >= value) for value in everywhere)
    )
    other = metrics.choose_threshold(positive, labels, seed=1)
    assert other[0] == threshold and other[1] != reason


@pytest.mark.parametrize(
    ("positive", "labels"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]),  # every threshold from 0.2 to 0.8 is as good: the middle stays
        ([0.7] * 6, [0, 1] * 3),
        ([0.5] * 6, [0, 1] * 3),
        ([0.2] * 6, [0, 1] * 3),
        ([0.3, 0.6], [1, 1]),
    ],
)
def test_no_better_threshold(positive, labels):
    found = metrics.choose_threshold(np.array(positive), np.array(labels))
    assert found == (0.5, "no other has a better validation MCC")


def test_equal_probabilities_fall_on_one_side():
    positive = np.repeat([0.1, 0.3, 0.3, 0.9], [50, 5, 60, 60])
    labels = np.repeat([0, 0, 1, 1], [50, 5, 60, 60])
    threshold, reason = metrics.choose_threshold(positive, labels)
    assert threshold == pytest.approx(0.2) and read_interval(reason)[1] > 0


def test_a_table_speaks_of_the_classes_by_name():
    labels, positive = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.2, 0.7, 0.1])
    reports = {
        "always": metrics.get_eval_report("t", labels, np.ones(5, int)),
        "model": metrics.get_eval_report("t", labels, positive >= 0.5, positive),
    }
    table = metrics.tabulate(reports, ["ham", "spam"])
    counts = ["ham found", "spam found", "ham taken for spam", "spam taken for ham"]
    assert table.loc["always", counts].tolist() == [0, 3, 2, 0]
    assert table.loc["model", counts].tolist() == [1, 2, 1, 1]
    assert table.loc["always", ["ROC AUC", "loss"]].tolist() == ["–", "–"]
    assert table.loc["model", "accuracy"] == 0.6 and table.loc["model", "ROC AUC"] == 0.833


def test_probabilities_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="answers with NaN.*smaller LEARNING_RATE"):
        tools.get_eval_report("t", np.array([0, 1]), np.array([0, 1]), np.array([0.5, np.nan]))
