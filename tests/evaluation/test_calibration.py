"""Calibration: parameters of simulated data are found again; probabilities and targets by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from textbert.evaluation import calibration
from textbert.evaluation.metrics import brier_and_ece


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_simulated_labels_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 2)).astype(np.float32)
    y_prob = 1 / (1 + np.exp(-(logits[:, 1] - logits[:, 0]) / temperature))
    labels = (rng.random(20_000) < y_prob).astype(int)
    fitted = calibration.fit_temperature(logits, labels)
    assert type(fitted) is float
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert calibration.fit_temperature(logits, labels) == fitted


def test_the_temperature_is_bounded():
    logits = np.tile(np.array([[2.0, -2.0], [-2.0, 2.0], [1.0, -1.0]], np.float32), (500, 1))
    always_right, always_wrong = np.tile([0, 1, 0], 500), np.tile([1, 0, 1], 500)
    assert calibration.fit_temperature(logits / 100, always_right) == pytest.approx(0.05, rel=0.1)
    assert calibration.fit_temperature(logits, always_wrong) == pytest.approx(20, rel=0.1)


def test_no_mistake_on_few_examples_is_no_certainty():
    """With Platt's targets, 10 correct predictions of each class, all with the same logits, count as 11 of 12."""
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
    ("value", "text"),
    [
        (0.5, "0.500"),
        (0.041234, "0.041"),
        (0.49961, "0.4996"),
        (0.0000321, "0.00003"),
        (0.99987, "0.9999"),
        (1, "1.000"),
    ],
)
def test_a_formatted_threshold_does_not_look_like_another(value, text):
    assert calibration.format_threshold(value) == text


def test_a_temperature_at_its_limit_is_mentioned():
    parameters, warning = calibration.describe_calibration({"temperature": 19.9999, "intercept": -2.5})
    assert "19.99" in parameters or "20.000" in parameters
    assert "at its limit" in warning and len(calibration.describe_calibration({"temperature": 1.4})) == 1
    assert "at its limit" in calibration.describe_calibration({"temperature": 0.0500003})[1]


def test_the_shift_by_class_weights_is_undone():
    rng = np.random.default_rng(3)
    log_odds = rng.normal(-3, 2, 5000)
    labels = (rng.random(5000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    logits = np.stack([np.zeros(5000), 2 * log_odds + 5], axis=1)  # the true temperature is 2, the intercept -2.5
    for weights in ("balanced", None):  # without weights, the likelihood-ratio test finds it
        temperature, intercept = calibration.fit_calibration(logits, labels, weights)
        assert (temperature, intercept) == pytest.approx((2, -2.5), abs=0.2)
    y_prob = calibration.probabilities(logits, temperature, intercept)[:, 1]
    assert brier_and_ece(labels, y_prob)[1] < 0.02
    without_intercept = calibration.probabilities(logits, calibration.fit_temperature(logits, labels))[:, 1]
    assert brier_and_ece(labels, without_intercept)[1] > 0.05
    default = calibration.default_threshold(intercept, "balanced")
    assert np.array_equal(y_prob >= default, logits[:, 1] >= 0) and calibration.default_threshold(intercept) == 0.5
    unshifted = np.stack([np.zeros(5000), 2 * log_odds], axis=1)
    assert calibration.fit_calibration(unshifted, labels) == (calibration.fit_temperature(unshifted, labels), 0.0)


def test_calibration_is_described():
    weighted = {"temperature": 2.0, "threshold": 0.5, "parameters": {"CLASS_WEIGHTS": "balanced"}}
    (sentence,) = calibration.describe_calibration(weighted)
    assert "shifted" in sentence and "2.000" in sentence
    (sentence,) = calibration.describe_calibration(weighted | {"intercept": -1.25}, pd.DataFrame({"label": [0] * 77}))
    assert "temperature (2.000) and an intercept (-1.250), fitted on 77 validation examples" in sentence
    few = {"temperature": 2.0, "validation_folds": 5}
    (sentence,) = calibration.describe_calibration(few, pd.DataFrame({"label": [0] * 77}))
    assert sentence.endswith("fitted on 77 training examples, each predicted by a model that was not trained on it.")
    exported = {"temperature": 1.0, "intercept": 0.0, "calibrated_in_weights": calibration.get_calibration(weighted)}
    assert "shifted" in calibration.describe_calibration(weighted | exported)[0]
    assert "not calibrated" in calibration.describe_calibration({"temperature": 1.0})[0]
