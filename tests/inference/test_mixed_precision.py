"""`precision="auto"`: bfloat16, and float32 for the texts whose label or review it could change."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import SETTINGS
from tiny import make_sentence

from textbert.evaluation.calibration import probabilities
from textbert.evaluation.review import needs_review
from textbert.inference import mixed_precision
from textbert.inference.classifier import Classifier
from textbert.model.prediction import plan_prediction, predict_logits

RNG = np.random.default_rng(0)
SENTENCES = [make_sentence(RNG)[0] for _ in range(300)]


@pytest.fixture
def amx(monkeypatch):
    """A machine with AMX; elsewhere torch emulates it, which is slow, but computes the same."""
    monkeypatch.setattr(mixed_precision, "has_amx", lambda: True)


@pytest.fixture
def in_bfloat16(amx, classifier):
    classifier.bfloat16_model = mixed_precision.copy_to_bfloat16(classifier.model)
    return classifier


def predict_probabilities(classifier, model):
    logits = predict_logits(model, classifier.convert(SENTENCES), 64, progress=False)
    return probabilities(logits, classifier.settings["temperature"])[:, 1]


def test_labels_and_reviews_are_those_of_float32(in_bfloat16):
    """Also where the threshold is the very probability of a text that bfloat16 moves to the other side."""
    exact = predict_probabilities(in_bfloat16, in_bfloat16.model)
    rounded = predict_probabilities(in_bfloat16, in_bfloat16.bfloat16_model)
    lowered = np.flatnonzero(rounded < exact - 1e-5)
    assert len(lowered) > 20
    for row in lowered[:10]:
        threshold = float(exact[row]) - 1e-6
        in_bfloat16.settings |= {"threshold": threshold, "review_range": [threshold - 0.1, threshold + 0.05]}
        predictions = in_bfloat16.predict(SENTENCES, progress=False)
        is_positive = exact >= threshold
        assert is_positive[row] and rounded[row] < threshold
        assert ((predictions["label"] == "good") == is_positive).all()
        expected = needs_review(exact, in_bfloat16.settings["review_range"])
        assert (predictions["review"] == expected).all() and expected.any()


def test_only_texts_near_a_decision_are_computed_twice(in_bfloat16):
    in_bfloat16.settings["threshold"] = 1e-9  # far from all of them
    exact = predict_probabilities(in_bfloat16, in_bfloat16.model)
    rounded = predict_probabilities(in_bfloat16, in_bfloat16.bfloat16_model)
    y_prob = in_bfloat16.predict(SENTENCES, progress=False)["probability"].to_numpy()
    nearest = np.argsort(exact)[:32]
    np.testing.assert_allclose(y_prob[nearest], exact[nearest], atol=1e-6)
    assert (abs(y_prob - rounded) < 1e-9).sum() >= 300 - mixed_precision.NUM_MEASURED
    assert abs(y_prob - exact).max() < 0.05


def test_errors_that_grow_are_followed(in_bfloat16):
    """Texts that are near to a decision only in view of larger errors farther away are computed again, too."""
    calls = []

    def predict(model, features, batch_size, rows=None, **_):
        margins = np.arange(300) / 100
        rows = np.arange(300) if rows is None else rows
        calls.append(len(rows))
        if model is in_bfloat16.model:  # an error of a tenth of the distance: each time 12 / 10 as far
            margins = margins * 1.1
        return np.stack([0 * margins, margins], 1)[rows]

    settings = in_bfloat16.settings | {"threshold": 0.5, "temperature": 1.0}
    arguments = in_bfloat16.model, in_bfloat16.bfloat16_model, range(300), 64, settings
    with patch.object(mixed_precision, "predict_logits", predict), patch.object(mixed_precision, "SAFETY_FACTOR", 12):
        logits = mixed_precision.predict_twice(*arguments)
    assert calls[:2] == [300, 64] and len(calls) > 3
    np.testing.assert_allclose(logits[:, 1], np.arange(300) / 100 * 1.1)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_the_end_is_never_crossed(in_bfloat16, threshold):
    in_bfloat16.settings["threshold"] = threshold
    labels = in_bfloat16.predict(SENTENCES, progress=False)["label"]
    assert set(labels) == {"good" if threshold == 0 else "bad"}


def test_few_texts_are_computed_in_float32(in_bfloat16):
    few = SENTENCES[: mixed_precision.MIN_EXAMPLES - 1]
    exact = predict_probabilities(in_bfloat16, in_bfloat16.model)[: len(few)]
    np.testing.assert_allclose(in_bfloat16.predict(few, progress=False)["probability"], exact, atol=1e-6)


def test_precision_is_chosen_when_loading(amx, bert_files, pack, monkeypatch):
    path = pack(bert_files(classifier=SETTINGS))
    assert Classifier.load(path, "cpu").bfloat16_model is None
    loaded = Classifier.load(path, "cpu", precision="auto")
    assert {p.dtype for p in loaded.bfloat16_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="precision is 'bf16', but must be one of 'float32', 'auto'"):
        Classifier.load(path, "cpu", precision="bf16")
    monkeypatch.setattr(mixed_precision, "has_amx", lambda: False)  # where bfloat16 would be slower
    assert Classifier.load(path, "cpu", precision="auto").bfloat16_model is None


def test_batches_in_bfloat16_have_as_many_bytes():
    lengths, cpu = np.full(100, 64), torch.device("cpu")
    sizes = [max(map(len, plan_prediction(lengths, 128, cpu, dtype)[0])) for dtype in (torch.float32, torch.bfloat16)]
    assert sizes[1] == 2 * sizes[0]
