"""Predictions for review: outside the range, the model is right as often as the target says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from textbert.evaluation import review


def draw(n, seed, sharpness=2.5):
    """Draw n calibrated probabilities with their labels."""
    rng = np.random.default_rng(seed)
    y_prob = 1 / (1 + np.exp(-sharpness * rng.normal(size=n)))
    return y_prob, (rng.random(n) < y_prob).astype(int)


def test_the_range_is_the_narrowest_that_reaches_the_target():
    y_prob, labels = draw(500, 1)
    low, high = found = review.find_review_range(y_prob, labels, 0.5, 0.9)
    assert low + high == pytest.approx(1) and 0 < low < 0.5
    is_right = (y_prob >= 0.5) == labels

    def lower_limit(decided):
        return binomtest(int(is_right[decided].sum()), int(decided.sum())).proportion_ci(method="wilson").low

    decided = ~review.needs_review(y_prob, found)
    assert lower_limit(decided) >= 0.9
    confidence = np.abs(y_prob - 0.5)
    narrower = np.unique(confidence[confidence < confidence[decided].min()])
    assert len(narrower) > 10 and all(lower_limit(confidence >= value) < 0.9 for value in narrower)


def test_either_class_may_have_its_own_target():
    y_prob, labels = draw(2000, 2)
    labels = np.where((y_prob > 0.8) & (np.random.default_rng(0).random(2000) < 0.2), 0, labels)  # class 1 is harder
    low, high = found = review.find_review_range(y_prob, labels, 0.5, [0.9, 0.7])
    assert low + high != pytest.approx(1)
    decided = ~review.needs_review(y_prob, found)
    for predicted, target in ((0, 0.9), (1, 0.7)):
        is_in = decided & ((y_prob >= 0.5) == predicted)
        assert is_in.any() and (labels[is_in] == predicted).mean() > target
    assert review.find_review_range(y_prob, labels, 0.5, [0.9, 0.99])[1] == 1  # all of class 1 are left to a person


def test_targets_that_all_or_no_predictions_reach():
    y_prob, labels = draw(40, 3)
    assert review.find_review_range(y_prob, labels, 0.5, None) is None
    assert review.find_review_range(y_prob, labels, 0.5, 0.99) == [0, 1]
    assert "so all are left to a person" in review.describe_range([0, 1], 0.99)
    low, high = review.find_review_range(np.array([0.1, 0.9] * 50), np.array([0, 1] * 50), 0.3, 0.9)
    assert low == high == pytest.approx(0.3) and not review.needs_review(y_prob, [low, high]).any()
    assert "none are left" in review.describe_range([low, high], 0.9)
    assert "is None" in review.describe_range(None, None)
    assert review.describe_range([0.25, 0.75], 0.9).endswith(
        "probabilities between 0.250 and 0.750 are left to a person"
    )


def test_review_on_other_examples_is_described():
    y_prob, labels = np.array([0.1, 0.2, 0.45, 0.55, 0.8, 0.9] * 10), np.array([0, 0, 1, 0, 1, 0] * 10)
    sentence = review.describe_review(labels, y_prob, 0.5, [0.3, 0.7])
    start = "The model decides 40 of 60 texts, and is right on 30: an accuracy of 0.75 (95 % interval 0.60 to"
    assert sentence.startswith(start)
    assert "leaves none to a person" in review.describe_review(labels, y_prob, 0.5, None)
    assert review.describe_review(labels, y_prob, 0.5, [0, 1]) == "All 60 texts are left to a person."


def test_targets_are_compared_on_other_examples():
    validation, held_out = draw(500, 1), draw(400, 5)
    table = review.tabulate_targets(validation, held_out, 0.5, (0.51, 0.9, 0.999))
    assert table["left to a person"].tolist()[::2] == ["none", "all"]
    assert table["decided by the model"].tolist()[::2] == ["400 of 400", "0 of 400"]
    assert table["accuracy on these"].iloc[2] == "–"
    low, high = review.find_review_range(*validation, 0.5, 0.9)
    assert table.loc[0.9, "left to a person"] == f"{low:.3f} to {high:.3f}"
    y_prob, labels = held_out
    is_right = ((y_prob >= 0.5) == labels)[(y_prob <= low) | (y_prob >= high)]
    assert table.loc[0.9, "decided by the model"] == f"{len(is_right)} of 400"
    interval = binomtest(int(is_right.sum()), len(is_right)).proportion_ci(method="wilson")
    limits = f"(95 % interval {interval.low:.2f} to {interval.high:.2f})"
    assert table.loc[0.9, "accuracy on these"] == f"{is_right.mean():.2f} {limits}"


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 300), st.integers(0, 10**6), st.floats(0.05, 0.95), st.sampled_from([0.7, 0.9, [0.8, 0.6]]))
def test_the_threshold_lies_in_the_range_and_rounding_moves_no_text(n, seed, threshold, target):
    y_prob, labels = draw(n, seed)
    low, high = review.find_review_range(y_prob.round(2), labels, threshold, target)
    assert 0 <= low <= threshold + 1e-9 and threshold - 1e-9 <= high <= 1
    confidence = review.get_confidence(y_prob.round(2), threshold)
    is_left = review.needs_review(y_prob.round(2), [low, high])
    for side in (y_prob.round(2) >= threshold, y_prob.round(2) < threshold):
        if is_left[side].any() and not is_left[side].all():
            assert confidence[side & is_left].max() < confidence[side & ~is_left].min()
