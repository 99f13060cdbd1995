"""The learning curve: its parts are nested, its figures those of the models, and a gain is named only if it is sure."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef

from textbert.evaluation.baseline import make_baseline
from textbert.training import learning_curve


@given(
    st.lists(st.integers(0, 1), min_size=2, max_size=60).filter(lambda labels: len(set(labels)) == 2),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_parts_are_nested_and_stratified(labels, fractions, seed):
    labels, rows = np.array(labels), np.arange(len(labels)) * 3 + 1
    parts = learning_curve.nested_parts(rows, labels, fractions, seed)
    for fraction, part in zip(fractions, parts, strict=True):
        assert len(set(part.tolist())) == len(part) and np.isin(part, rows).all() and (np.diff(part) > 0).all()
        for label in (0, 1):
            count = (labels == label).sum()
            assert np.isin(part, rows[labels == label]).sum() == max(1, round(fraction * count))
        assert all(set(part.tolist()) <= set(other.tolist()) for f, other in zip(fractions, parts) if f >= fraction)


def test_figures_are_those_of_the_models():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    texts = [f"{'good' if label else 'bad'} w{rng.integers(40)}" for label in labels]
    held_out, parts = np.arange(200, 300), [np.arange(20), np.arange(200)]
    logits = [rng.normal(size=(100, 2)) + np.eye(2)[labels[held_out]] * strength for strength in (0, 9)]
    table, gain = learning_curve.tabulate_curve(learning_curve.evaluate_parts(texts, labels, parts, held_out, logits))
    assert table["texts"].tolist() == [20, 200]
    for row, part, part_logits in zip(table.to_dict("records"), parts, logits):
        assert row["MCC"] == pytest.approx(matthews_corrcoef(labels[held_out], part_logits.argmax(axis=1)))
        baseline = make_baseline().fit([texts[i] for i in part], labels[part])
        predicted = baseline.predict([texts[i] for i in held_out])
        assert row["MCC of word counts"] == pytest.approx(matthews_corrcoef(labels[held_out], predicted))
    assert gain.startswith("From 20 to 200 texts the MCC changes by +") and "more texts still pay" in gain


def test_curve_of_folds_is_that_of_all_rows_they_hold_out():
    labels = np.arange(60) % 2
    texts = [f"{'good' if label else 'bad'} w{row}" for row, label in enumerate(labels)]
    curves, predicted = [], np.zeros((2, 60), int)
    for held_out in (np.arange(20), np.arange(20, 60)):
        rows = np.setdiff1d(np.arange(60), held_out)
        logits = np.random.default_rng(1).normal(size=(2, len(held_out), 2))
        predicted[:, held_out] = logits.argmax(axis=2)
        curves.append(learning_curve.evaluate_parts(texts, labels, [rows[:10], rows], held_out, logits))
    table, _ = learning_curve.tabulate_curve(pd.concat(curves))
    assert table["texts"].tolist() == [10, 27]  # for 20 rows 40, for 40 rows 20
    assert table["MCC"].tolist() == pytest.approx([matthews_corrcoef(labels, part) for part in predicted])


def test_gain_that_may_be_chance_is_said_to_be():
    labels = np.arange(40) % 2
    few, more, many = np.ones(40, int), labels.copy(), labels.copy()
    more[:4] = 1 - more[:4]
    many[4:7] = 1 - many[4:7]
    sentence = learning_curve.describe_gain(labels, {100: few, 190: more, 400: many})
    assert sentence.startswith("From 190 to 400 texts") and "40 held-out examples cannot tell" in sentence
