"""Metrics, intervals and thresholds: by hand, by brute force, or as in scikit-learn and SciPy."""

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
from textbert.evaluation import metrics
from textbert.evaluation.calibration import fit_temperature

# 13 texts: 4 true positives, 5 true negatives, 1 false positive, 3 false negatives
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0])
OTHER = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0])


# ---------- Metrics ---------------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    mcc, accuracy, precision, recall, f1 = metrics.metrics_from_counts(4, 5, 1, 3)
    assert mcc == pytest.approx((4 * 5 - 1 * 3) / math.sqrt(5 * 7 * 6 * 8))
    assert (accuracy, precision, recall, f1) == pytest.approx((9 / 13, 4 / 5, 4 / 7, 8 / 12))
    assert metrics.metrics_from_counts([0, 0], [6, 0], [0, 0], [7, 3]).T.tolist() == [[0, 6 / 13, 0, 0, 0], [0] * 5]


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(pairs=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_mcc_from_counts_equals_scikit_learn(pairs):
    labels, preds = np.array(pairs).T
    tn, fp, fn, tp = confusion_matrix(labels, preds, labels=[0, 1]).ravel()
    expected = matthews_corrcoef(labels, preds)
    assert metrics.metrics_from_counts(tp, tn, fp, fn)[0] == pytest.approx(expected, abs=1e-12)
    many = metrics.metrics_from_counts(*(np.array([count, 3, 0]) for count in (tp, tn, fp, fn)))[0]
    assert many.tolist() == pytest.approx([expected, 0, 0], abs=1e-12)


def test_mcc_of_large_counts():
    assert metrics.metrics_from_counts(10**9, 10**9, 0, 0)[0] == 1  # the product of integers would overflow
    assert metrics.metrics_from_counts(0, 0, 10**9, 10**9)[0] == -1


@pytest.mark.parametrize("dtype", [int, bool])
def test_eval_report_by_hand(dtype):
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    preds = np.array([1, 1, 0, 0, 0, 0, 1]).astype(dtype)
    y_prob = np.array([0.9, 0.8, 0.4, 0.1, 0.2, 0.3, 0.6])
    report = metrics.get_eval_report("sample", labels, preds, y_prob)
    expected = {"task": "sample", "tp": 2, "tn": 3, "fp": 1, "fn": 1}
    assert {name: report[name] for name in expected} == expected
    assert report["mcc"] == pytest.approx((2 * 3 - 1 * 1) / math.sqrt(3 * 3 * 4 * 4))
    assert report["accuracy"] == pytest.approx(5 / 7)
    assert report["precision"] == report["recall"] == report["f1"] == pytest.approx(2 / 3)
    assert report["roc_auc"] == pytest.approx(11 / 12)  # one of 12 pairs is in the wrong order: 0.4 and 0.6
    of_the_label = [0.9, 0.8, 0.4, 0.9, 0.8, 0.7, 0.4]
    assert report["loss"] == pytest.approx(-sum(map(math.log, of_the_label)) / 7)
    json.dumps(report)  # Python's own numbers
    assert "loss" not in metrics.get_eval_report("sample", labels, preds)


def test_eval_report_of_constant_and_of_perfect_predictions():
    constant = metrics.get_eval_report("sample", np.array([1, 0, 0]), np.array([0, 0, 0]))
    names = ("mcc", "tp", "tn", "fp", "fn", "precision", "recall", "f1")
    assert [constant[name] for name in names] == [0, 0, 2, 0, 1, 0, 0, 0]
    perfect = metrics.get_eval_report("sample", np.array([1, 0, 0]), np.array([1, 0, 0]))
    assert (perfect["mcc"], perfect["f1"]) == (1, 1)
    assert metrics.get_eval_report("sample", np.array([1, 0, 0]), np.array([0, 1, 1]))["mcc"] == -1


# ---------- Intervals and tests ---------------------------------------------------------------------------------------


def test_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 2, (2, 31))
    table = metrics.bootstrap_metrics(labels, {"m": predicted}, n_resamples=99).loc["m", "value"]
    assert table["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted))
    assert table["f1"] == pytest.approx(f1_score(labels, predicted))
    assert table["precision"] == pytest.approx(precision_score(labels, predicted))
    assert table["recall"] == pytest.approx(recall_score(labels, predicted))


def correlate(first, second):
    """Return Pearson's correlation, which is the MCC; 0 for a constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nan_to_num(np.corrcoef(first, second)[0, 1]))


def test_standard_error_is_the_standard_deviation_over_resampled_examples():
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(200) < 40)
    predicted = labels ^ (rng.random(200) < 0.15)
    report = metrics.get_eval_report("sample", labels, predicted)
    resamples = [rng.integers(0, 200, 200) for _ in range(4000)]
    expected = np.std([correlate(labels[rows], predicted[rows]) for rows in resamples])
    assert metrics.standard_error(report) == pytest.approx(expected, rel=0.06)
    # where classes and mistakes are balanced, the MCC is twice the accuracy minus one
    balanced = metrics.get_eval_report("sample", np.arange(400) % 2, np.arange(400) % 2 ^ (np.arange(400) < 50))
    assert metrics.standard_error(balanced) == pytest.approx(math.sqrt((1 - 0.75**2) / 400), rel=0.05)
    assert metrics.standard_error(balanced) == metrics.standard_error(balanced)


def test_standard_error_of_constant_and_of_perfect_predictions_is_0():
    for predicted in (np.zeros(99, int), np.arange(99) % 2):
        assert metrics.standard_error(metrics.get_eval_report("sample", np.arange(99) % 2, predicted)) == 0


def test_intervals_equal_scipys_bootstrap_of_rows():
    """Label and predictions are resampled together; with 9,999 resamples the two agree to a few hundredths."""
    table = metrics.bootstrap_metrics(LABELS, {"other": OTHER, "model": PREDICTED}, seed=3)

    def difference(labels, other, predicted):
        return correlate(labels, predicted) - correlate(labels, other)

    options = {"paired": True, "vectorized": False, "method": "percentile", "n_resamples": 9999, "rng": 3}
    expected = stats.bootstrap((LABELS, OTHER, PREDICTED), difference, **options).confidence_interval
    low, high = table.loc[("model minus other", "mcc"), ["low", "high"]]
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)
    pd.testing.assert_frame_equal(
        table, metrics.bootstrap_metrics(LABELS, {"other": OTHER, "model": PREDICTED}, seed=3)
    )
    assert not table.equals(metrics.bootstrap_metrics(LABELS, {"other": OTHER, "model": PREDICTED}, seed=4))


def test_intervals_equal_those_of_the_resampled_rows():
    """Resampled patterns, expanded into rows, have exactly these metrics."""
    table = metrics.bootstrap_metrics(LABELS, {"other": OTHER, "model": PREDICTED}, n_resamples=499, seed=3)
    patterns = Counter(sorted(zip(LABELS.tolist(), OTHER.tolist(), PREDICTED.tolist())))
    resamples = np.random.default_rng(3).multinomial(13, np.array(list(patterns.values())) / 13, 499)
    samples = {"other": [], "model": [], "model minus other": []}
    for counts in resamples:
        labels, other, predicted = np.repeat(list(patterns), counts, axis=0).T
        samples["other"].append(correlate(labels, other))
        samples["model"].append(correlate(labels, predicted))
        samples["model minus other"].append(samples["model"][-1] - samples["other"][-1])
    assert {sum(counts) for counts in resamples} == {13}
    for name, values in samples.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert table.loc[(name, "mcc"), ["low", "high"]].tolist() == pytest.approx([low, high], abs=1e-9)


def test_intervals_of_several_models():
    predictions = {"a": PREDICTED, "b": OTHER, "c": PREDICTED}
    table = metrics.bootstrap_metrics(LABELS, predictions, n_resamples=99)
    differences = [(f"c minus {name}", "mcc") for name in "ab"]
    assert list(table.index) == [(name, metric) for name in "abc" for metric in metrics.METRICS] + differences
    assert table.loc[differences[0]].tolist() == [0, 0, 0]  # all models are evaluated on the same rows
    assert table.loc["a"].equals(table.loc["c"])
    alone = metrics.bootstrap_metrics(LABELS, {"c": PREDICTED}, n_resamples=99)
    assert list(alone.index) == [("c", metric) for metric in metrics.METRICS]


def test_formatted_intervals():
    table = metrics.bootstrap_metrics(LABELS, {"other": OTHER, "model": PREDICTED}, n_resamples=499)
    cells = metrics.format_intervals(table)
    assert list(cells.columns) == ["other", "model"]
    assert list(cells.index) == ["MCC", "accuracy", "precision", "recall", "F1"]
    assert re.fullmatch(r"0\.41 \(-?\d\.\d\d to \d\.\d\d\)", cells.loc["MCC", "model"])


@pytest.mark.parametrize("names", [["b", "c", "a"], ["only"], ["z", "a minus b", "MCC", "y"]])
def test_each_interval_is_below_its_model_in_the_order_of_the_dict(monkeypatch, names):
    unstack = pd.Series.unstack

    def unstack_of_pandas_2(series, *arguments, sort=True, **options):
        assert sort, "before pandas 3 this puts values below other names"
        return unstack(series, *arguments, **options)

    monkeypatch.setattr(pd.Series, "unstack", unstack_of_pandas_2)
    rng = np.random.default_rng(3)
    predictions = {name: rng.integers(0, 2, len(LABELS)) for name in names}
    table = metrics.bootstrap_metrics(LABELS, predictions, n_resamples=99)
    cells = metrics.format_intervals(table)
    assert list(cells.columns) == names
    for (model, metric), row in table.loc[names].iterrows():
        cell = cells.loc[{"mcc": "MCC", "f1": "F1"}.get(metric, metric), model]
        value, low, high = map(metrics.format_metric, row[["value", "low", "high"]])
        assert cell == f"{value} ({low} to {high})"


def test_constant_predictions_have_an_interval():
    table = metrics.bootstrap_metrics(LABELS, {"constant": np.ones(13, int), "model": PREDICTED}, n_resamples=99)
    assert table.loc[("constant", "mcc")].tolist() == [0, 0, 0]


def test_sample_size_warning():
    labels = np.arange(400) % 2
    good = np.where(np.arange(400) % 10 == 0, 1 - labels, labels)
    note = metrics.sample_size_warning("dev.tsv", labels, good)
    assert note == "dev.tsv: MCC 0.82 (95 % interval 0.77 to 0.86); 400 examples, 200 of the minority class."
    assert "MCC 0.60 (95 % interval 0.55 to 0.65)" in metrics.sample_size_warning("x", labels, good, (0.6, 0.55, 0.65))
    assert "TOO SMALL to say much" in metrics.sample_size_warning("dev.tsv", labels[:50], good[:50])
    for count in range(60, 130, 2):  # the bounds as they are printed decide
        note = metrics.sample_size_warning("dev.tsv", labels[:count], good[:count])
        low, high = map(float, re.findall(r"interval (\S+) to (\S+)\)", note)[0])
        assert ("TOO SMALL" in note) == (round(high - low, 2) > 0.2)
    flawless = metrics.sample_size_warning("dev.tsv", labels[:60], labels[:60])  # by Wilson: z² / (n + z²)
    assert flawless.endswith(
        "minority class. No prediction is wrong; of other examples like these, up to 6 in 100 may be."
    )
    rare = (np.arange(400) < 29).astype(int)
    note = metrics.sample_size_warning("dev.tsv", rare, rare)
    assert "29 of the minority class" in note and "SMALL" in note


def test_mcnemar_by_hand():
    """Of 4 discordant examples 3 are the first model's: p = 2 (1 + 4) / 16."""
    only_model, only_other, p_value = metrics.mcnemar(LABELS, PREDICTED, OTHER)
    assert (only_model, only_other) == (3, 1)
    assert p_value == pytest.approx(2 * (1 + 4) / 16)
    assert metrics.mcnemar(LABELS, PREDICTED, PREDICTED) == (0, 0, 1.0)


def test_accuracy_by_group_by_hand():
    table = metrics.accuracy_by_group(LABELS, PREDICTED, pd.Series(["a"] * 4 + ["b"] * 9))
    assert table["texts"].tolist() == [4, 9] and table["correct"].tolist() == [4, 5]
    z, n, p = 1.959964, 9, 5 / 9
    center, half_width = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert table.loc["b", "low"] == pytest.approx((center - half_width) / (1 + z * z / n), abs=1e-6)
    assert table.loc["b", "high"] == pytest.approx((center + half_width) / (1 + z * z / n), abs=1e-6)


def test_groups_keep_their_order_and_missing_ones_are_counted():
    groups = pd.Series(
        pd.Categorical(["z", "a", None, "z"], ["z", "q", "a"], ordered=True), [9, 9, 1, 1], name="branch"
    )
    table = metrics.accuracy_by_group([1, 0, 1, 0], [1, 0, 0, 1], groups)
    assert table.index.tolist()[:2] == ["z", "a"] and pd.isna(table.index[2]) and table.index.name == "branch"
    assert table["texts"].tolist() == [2, 1, 1] and table["correct"].tolist() == [1, 1, 0]
    assert metrics.accuracy_by_group([1, 0], [1, 1], ["a", np.nan])["texts"].tolist() == [1, 1]


INDEXES = st.one_of(
    st.permutations(range(40)),
    st.lists(st.integers(0, 3), min_size=40, max_size=40),
    st.permutations([(i // 3, i % 2) for i in range(40)]).map(pd.MultiIndex.from_tuples),
)


@given(INDEXES, INDEXES, INDEXES, st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_values_are_matched_by_position_whatever_their_index(first_index, second_index, third_index, seed):
    rng = np.random.default_rng(seed)
    labels, other, y_prob = rng.permutation([0, 1] * 20), rng.integers(0, 2, 40), rng.random(40)
    groups = rng.choice(["north", "south", "west"], 40)
    logits = rng.normal(size=(40, 2))
    by_group = metrics.accuracy_by_group(labels, other, groups)
    a, b = pd.Series(labels, first_index), pd.Series(other, second_index).astype(bool)
    p, g = pd.Series(y_prob, third_index), pd.Series(groups, third_index)
    for expected, result in (
        (by_group, metrics.accuracy_by_group(a, b, g)),
        (by_group, metrics.accuracy_by_group(list(a), b, pd.Categorical(list(groups)))),
        (metrics.calibration_curve(labels, y_prob), metrics.calibration_curve(a, p)),
        (metrics.threshold_curve(labels, y_prob), metrics.threshold_curve(a, p)),
        (metrics.bootstrap_metrics(labels, {"m": other}, 9), metrics.bootstrap_metrics(a, {"m": b}, 9)),
    ):
        np.testing.assert_array_equal(expected.to_numpy(), result.to_numpy())  # NaN included
        assert list(expected.index) == list(result.index)
    assert metrics.get_eval_report("t", labels, other, y_prob) == metrics.get_eval_report("t", a, b, p)
    assert metrics.mcnemar(labels, other, 1 - other) == metrics.mcnemar(a, b, pd.Series(1 - other, third_index))
    assert metrics.brier_and_ece(labels, y_prob) == metrics.brier_and_ece(a, p)
    assert metrics.choose_threshold(y_prob, labels) == metrics.choose_threshold(p, a)
    assert metrics.sample_size_warning("x", labels, other) == metrics.sample_size_warning("x", a, b)
    assert fit_temperature(logits, labels) == fit_temperature(pd.DataFrame(logits, first_index), a)


@pytest.mark.parametrize(
    "metric",
    [
        lambda labels, other: metrics.accuracy_by_group(labels, labels, other),
        lambda labels, other: metrics.accuracy_by_group(labels, other, labels),
        lambda labels, other: metrics.mcnemar(labels, labels, other),
        lambda labels, other: metrics.bootstrap_metrics(labels, {"m": other}),
        lambda labels, other: metrics.get_eval_report("t", labels, other),
        lambda labels, other: metrics.get_eval_report("t", labels, labels, other),
        lambda labels, other: metrics.sample_size_warning("t", labels, other),
        metrics.calibration_curve,
        metrics.brier_and_ece,
        metrics.threshold_curve,
        metrics.choose_threshold,
    ],
)
@pytest.mark.parametrize("other", [[1], [0, 1], [[0], [1], [0]]])
def test_different_lengths_are_rejected(metric, other):
    """numpy would broadcast a single value, and a column against a row, to any length."""
    with pytest.raises(ValueError, match=r"got (shapes|ndarray of shape) .*\(3,"):
        metric(np.array([0, 1, 1]), np.array(other))


def test_constant_predictions_are_mentioned():
    labels = np.arange(200) % 2
    assert "same prediction, for which the MCC is 0" in metrics.sample_size_warning(
        "dev.tsv", labels, np.ones(200, int)
    )
    assert "same prediction" not in metrics.sample_size_warning("dev.tsv", labels, labels)


def test_calibration_curve_brier_score_and_ece_by_hand():
    labels, y_prob = np.array([0, 1, 1, 1, 0]), np.array([0.05, 0.05, 0.95, 1.0, 0.1])
    table = metrics.calibration_curve(labels, y_prob)
    assert table.index.tolist() == [0, 1, 9] and table["texts"].tolist() == [2, 1, 2]
    assert table["probability"].tolist() == pytest.approx([0.05, 0.1, 0.975])
    assert table["fraction_of_positives"].tolist() == [0.5, 0, 1]
    brier, ece = metrics.brier_and_ece(labels, y_prob)
    assert brier == pytest.approx(brier_score_loss(labels, y_prob))
    assert ece == pytest.approx((2 * 0.45 + 1 * 0.1 + 2 * 0.025) / 5)


def test_undefined_metrics_are_dashes_and_nothing_is_rounded_to_perfection():
    labels = np.repeat([0, 1], [900, 100])
    predicted = labels.copy()
    predicted[0] = 1
    table = metrics.bootstrap_metrics(labels, {"never": np.zeros(1000, int), "model": predicted}, 99)
    cells = metrics.format_intervals(table)
    assert cells.loc["precision", "never"] == "–" and cells.loc["recall", "never"] == "0.00 (0.00 to 0.00)"
    assert cells.loc["accuracy", "model"].startswith("0.999 (")
    assert metrics.format_metric(-1e-12) == "0.00" and metrics.format_metric(1.0) == "1.00"
    assert metrics.format_metric(0.495) == "0.50" and metrics.format_metric(-0.495) == "-0.50"


# ---------- Threshold -------------------------------------------------------------------------------------------------


def test_threshold_curve_equals_scikit_learn_at_each_threshold():
    rng = np.random.default_rng(1)
    labels, y_prob = rng.integers(0, 2, 41), rng.random(41).round(2)
    curve = metrics.threshold_curve(labels, y_prob)
    assert len(curve) == 99
    for row in curve.itertuples():
        predicted = y_prob >= row.threshold
        assert row.mcc == pytest.approx(matthews_corrcoef(labels, predicted))
        assert row.precision == pytest.approx(precision_score(labels, predicted, zero_division=np.nan), nan_ok=True)
        assert row.recall == pytest.approx(recall_score(labels, predicted))


@pytest.mark.parametrize(("cost", "threshold"), [(3, 0.75), (1 / 3, 0.25), (9.0, 0.9), (0.5, 1 / 3)])
def test_with_unequal_costs_the_threshold_depends_on_them_alone(cost, threshold):
    """At the threshold both predictions have the same expected cost: (1 - p) * cost = p."""
    rng = np.random.default_rng(0)
    result, reason = metrics.choose_threshold(rng.random(50), rng.integers(0, 2, 50), cost)
    assert result == pytest.approx(threshold) and (1 - result) * cost == pytest.approx(result)
    assert reason == f"a false positive costs {cost:g} times as much as a false negative"


def test_the_threshold_for_unequal_costs_has_the_lowest_cost():
    y_prob = np.random.default_rng(0).random(20_000)
    labels = (np.random.default_rng(1).random(20_000) < y_prob).astype(int)
    threshold, _ = metrics.choose_threshold(y_prob, labels, 3.0)

    def cost(at):
        return 3 * ((y_prob >= at) & (labels == 0)).sum() + ((y_prob < at) & (labels == 1)).sum()

    assert all(cost(threshold) < cost(at) for at in (0.3, 0.5, 0.65, 0.85, 0.95))


def read_interval(reason):
    number = r"([+-]\d\.\d{3})"
    return [
        float(number) for number in re.search(rf"{number} to {number} \(95 % bootstrap interval\)", reason).groups()
    ]


def test_a_significant_gain_changes_the_threshold():
    # 100 positives are between 0.2 and 0.45, where 0.5 misses them all; below are only negatives
    y_prob = np.concatenate([np.linspace(0.01, 0.19, 100), np.linspace(0.21, 0.45, 100), np.linspace(0.6, 0.9, 20)])
    labels = np.repeat([0, 1, 1], [100, 100, 20])
    threshold, reason = metrics.choose_threshold(y_prob, labels)
    assert type(threshold) is float and threshold == pytest.approx(0.2)
    assert metrics.choose_threshold(y_prob, labels) == (threshold, reason)
    low, high = read_interval(reason)
    gain = 1 - matthews_corrcoef(labels, y_prob >= 0.5)
    assert 0 < low < gain < high and reason.startswith("its MCC is the highest, by +")
    order = np.random.default_rng(0).permutation(220)
    assert metrics.choose_threshold(y_prob[order], labels[order]) == (threshold, reason)


def test_a_gain_that_may_be_chance_does_not_change_it():
    # a single text of 40 is right at 0.45 and wrong at 0.5
    y_prob = np.concatenate([np.linspace(0.05, 0.44, 20), [0.46], np.linspace(0.55, 0.9, 19)])
    labels = np.repeat([0, 1], 20)
    threshold, reason = metrics.choose_threshold(y_prob, labels)
    low, high = read_interval(reason)
    assert (threshold, low) == (0.5, 0) and high > 0
    assert reason.startswith("the MCC is highest at 0.450, but") and reason.endswith("may be chance")
    assert metrics.choose_threshold(y_prob, labels, seed=1)[0] == 0.5


def test_random_probabilities_do_not_change_the_threshold():
    """No threshold has an MCC above that of 0.5 by anything but luck, also if 0.5 is above all of them."""
    rng = np.random.default_rng(3)
    for low, high in ((0.33, 0.49), (0.3, 0.7)):
        draws = [(rng.uniform(low, high, 120), (rng.random(120) < 0.4).astype(int)) for _ in range(40)]
        results = [metrics.choose_threshold(*draw) for draw in draws]
        assert sum(threshold != 0.5 for threshold, _ in results) <= 4  # of 40; about 10 without the test of ranks
        assert "the probabilities do not tell the classes apart better than chance does" in dict(results).values()


def test_rare_class_that_is_never_predicted_gets_a_lower_threshold():
    rng = np.random.default_rng(4)
    labels = (rng.random(200) < 0.1).astype(int)
    y_prob = np.clip(0.1 + 0.2 * labels + rng.normal(0, 0.05, 200), 0.01, 0.45)
    threshold, reason = metrics.choose_threshold(y_prob, labels)
    assert 0.1 < threshold < 0.3 and reason.startswith("its MCC is the highest")


def test_the_bootstrap_interval_equals_that_of_resampled_rows():
    """To resample how often each pattern occurs is to resample rows; the result depends on the seed."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 300)
    y_prob = np.clip(0.25 + 0.2 * labels + rng.normal(0, 0.1, 300), 0, 1)
    threshold, reason = metrics.choose_threshold(y_prob, labels)
    low, high = read_interval(reason)
    best, half, gains = y_prob >= threshold, y_prob >= 0.5, []
    for _ in range(1000):
        rows = rng.integers(0, 300, 300)
        gains.append(correlate(labels[rows], best[rows]) - correlate(labels[rows], half[rows]))
    assert threshold != 0.5 and (low, high) == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=0.03)
    highest = max(matthews_corrcoef(labels, y_prob >= value) for value in np.unique(y_prob))
    assert matthews_corrcoef(labels, best) == pytest.approx(highest)
    other = metrics.choose_threshold(y_prob, labels, seed=1)
    assert other[0] == threshold and other[1] != reason


@pytest.mark.parametrize(
    ("y_prob", "labels"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]),  # every threshold from 0.2 to 0.8 is as good: the default stays
        ([0.7] * 6, [0, 1] * 3),
        ([0.5] * 6, [0, 1] * 3),
        ([0.2] * 6, [0, 1] * 3),
        ([0.3, 0.6], [1, 1]),
    ],
)
def test_no_better_threshold(y_prob, labels):
    result = metrics.choose_threshold(np.array(y_prob), np.array(labels))
    assert result == (0.5, "no other threshold has a higher MCC")


def test_equal_probabilities_are_on_one_side_of_the_threshold():
    y_prob = np.repeat([0.1, 0.3, 0.3, 0.9], [50, 5, 60, 60])
    labels = np.repeat([0, 0, 1, 1], [50, 5, 60, 60])
    threshold, reason = metrics.choose_threshold(y_prob, labels)
    assert threshold == pytest.approx(0.2) and read_interval(reason)[1] > 0


def test_a_table_names_the_classes():
    labels, y_prob = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.2, 0.7, 0.1])
    reports = {
        "constant": metrics.get_eval_report("t", labels, np.ones(5, int)),
        "model": metrics.get_eval_report("t", labels, y_prob >= 0.5, y_prob),
    }
    table = metrics.tabulate(reports, ["ham", "spam"])
    counts = ["ham found", "spam found", "ham predicted as spam", "spam predicted as ham"]
    assert table.loc["constant", counts].tolist() == [0, 3, 2, 0]
    assert table.loc["model", counts].tolist() == [1, 2, 1, 1]
    assert table.loc["constant", ["ROC AUC", "loss"]].tolist() == ["–", "–"]
    assert table.loc["model", "accuracy"] == "0.60" and table.loc["model", "ROC AUC"] == "0.83"


def test_nan_probabilities_are_rejected():
    with pytest.raises(ValueError, match="outputs NaN: training diverged.*smaller LEARNING_RATE"):
        tools.get_eval_report("t", np.array([0, 1]), np.array([0, 1]), np.array([0.5, np.nan]))
