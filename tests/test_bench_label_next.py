"""The benchmark of what to label next: which texts are chosen, its training runs with a tiny BERT, its statistics."""

import sys

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import ROOT

from textbert.evaluation.calibration import probabilities
from textbert.model.prediction import predict_logits

sys.path.append(str(ROOT / "tests/benchmarks"))  # where the next import is found
import bench_label_next as bench


def test_uncertain_texts_that_differ_are_chosen():
    y_prob = np.array([0.99, 0.50, 0.52, 0.49, 0.30, 0.65, 0.01])
    vectors = np.array([[9, 9], [0, 0], [0.1, 0], [0, 0.1], [5, 0], [5, 0.1], [0, 9]])
    # the vectors of 0.50, 0.49 and 0.52 are near each other, as are those of 0.65 and 0.30
    assert bench.rank_by_uncertainty(y_prob).tolist() == [1, 3, 2, 5, 4, 0, 6]
    assert bench.select_to_label(y_prob, vectors, 2, candidates_per_label=2).tolist() == [1, 5]
    assert bench.select_to_label(y_prob, vectors, 3, candidates_per_label=2).tolist() == [1, 5, 0]


def test_choice_of_one_or_all():
    y_prob, vectors = [0.9, 0.4, 0.5], np.eye(3)
    assert bench.select_to_label(y_prob, vectors, 1).tolist() == [2]
    assert bench.select_to_label(y_prob, vectors, 3).tolist() == [2, 1, 0]
    assert bench.select_to_label(y_prob, vectors, 9).tolist() == [2, 1, 0]
    assert bench.select_to_label([], np.zeros((0, 3)), 2).tolist() == []


def test_equal_vectors_are_chosen_only_after_all_different_ones():
    y_prob, vectors = np.linspace(0.5, 0.9, 9), np.repeat([[0.0], [1.0], [2.0]], [6, 1, 2], axis=0)
    assert bench.select_to_label(y_prob, vectors, 3).tolist() == [0, 6, 7]
    assert bench.select_to_label(y_prob, vectors, 5).tolist() == [0, 1, 6, 7, 8]


def test_choice_is_deterministic_and_without_repetition():
    rng = np.random.default_rng(0)
    y_prob, vectors = rng.random(500), rng.standard_normal((500, 8)).astype(np.float32)
    chosen = bench.select_to_label(y_prob, vectors, 40, seed=7)
    assert len(set(chosen.tolist())) == 40 and (chosen == bench.select_to_label(y_prob, vectors, 40, seed=7)).all()
    distance = np.abs(y_prob - 0.5)
    assert distance[chosen].max() <= np.sort(distance)[119] and (np.diff(distance[chosen]) >= 0).all()


@pytest.mark.parametrize(
    ("y_prob", "vectors", "count", "message"),
    [
        ([0.5], [[1.0]], 0, "count: expected a positive integer, got 0"),
        ([0.5], [[1.0], [2.0]], 1, r"vectors: expected shape \(1, D\), one for each probability, got \(2, 1\)"),
        ([0.5], [1.0], 1, r"vectors: expected shape \(1, D\)"),
        ([[0.5]], [[1.0]], 1, r"expected values of one shape \(n,\)"),
    ],
)
def test_invalid_arguments(y_prob, vectors, count, message):
    with pytest.raises(ValueError, match=message):
        bench.select_to_label(y_prob, vectors, count)


@pytest.fixture
def loop(tokenizers):
    features = tiny.make_features(tokenizers["uncased"])
    return tiny.make_loop(tiny.make_model(spread=0.1), features, 4, NUM_TRAIN_EPOCHS=2, LEARNING_RATE=1e-2)


def test_probabilities_and_vectors_are_those_of_the_classifier(loop):
    model, features = loop.experiment.setup.model, loop.experiment.setup.features
    rows = np.array([8, 1, 4, 11])
    y_prob, vectors = bench.predict_with_vectors(model, features, rows)
    np.testing.assert_allclose(y_prob, probabilities(predict_logits(model, features, 8, rows))[:, 1], atol=1e-5)
    with torch.inference_mode():
        logits = model.classifier(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(probabilities(logits)[:, 1], y_prob, atol=1e-6)


def test_draw_trains_on_the_first_texts_and_on_those_of_each_arm(loop):
    labels = loop.experiment.setup.labels
    sample, pool = bench.split_pool(labels[:10], 4, 5, seed=3)
    assert labels[sample].sum() == 2 and len(pool) == 5 and not set(sample) & set(pool) and max(pool) < 10
    split = sample, pool, np.arange(10, 13), bench.ARMS, 2, 3
    results, again = (pd.DataFrame(bench.measure_draw(loop, *split)).drop(columns="minutes") for _ in range(2))
    assert results["arm"].tolist() == ["first", *bench.ARMS] and results["texts"].tolist() == [4, 6, 6, 6]
    assert results["brier"].between(0, 1).all() and results["class 1"].between(0, 1).all()
    pd.testing.assert_frame_equal(results, again)  # each training run starts from the same weights and seed


def test_paired_differences_by_hand():
    table = {"random": [0.50, 0.60, 0.55], "uncertain": [0.53, 0.61, 0.57]}
    rows = [
        {"draw": draw, "arm": arm, "mcc": mcc, "brier": 1 - mcc}
        for arm, values in table.items()
        for draw, mcc in enumerate(values)
    ]
    mcc, brier = bench.compare(pd.DataFrame(rows)).to_dict("records")
    # differences 0.03, 0.01, 0.02: mean 0.02, standard deviation 0.01; t = 2 sqrt(3) with two degrees of freedom
    assert mcc["difference"] == pytest.approx(0.02) and mcc["standard error"] == pytest.approx(0.01 / 3**0.5)
    t = 2 * 3**0.5
    assert mcc["p (t test)"] == pytest.approx(1 - t / (2 + t**2) ** 0.5) and mcc["better"] == "3 of 3"
    assert brier["difference"] == pytest.approx(-0.02) and brier["better"] == "3 of 3"
