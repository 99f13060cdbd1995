"""The TF-IDF baseline: tuned as BERT is, and able to learn from any text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.data.labelled_texts import LabelledTexts
from textbert.evaluation.baseline import assign_folds, make_baseline, predict_baseline, tune_baseline
from textbert.evaluation.summary import compare_thresholds


def label_texts(texts, labels, groups=None):
    return LabelledTexts(Path("train.tsv"), [str(row) for row in range(len(texts))], texts, labels, groups=groups)


def test_the_baseline_is_tuned_as_bert_is():
    rng = np.random.default_rng(0)
    labels = (rng.random(1500) < 0.08).astype(int)
    texts = [" ".join(f"w{w}" for w in rng.geometric(0.05 if label else 0.03, 12)) for label in labels]
    baseline, train = make_baseline(), label_texts(texts, labels)
    parameters, description = tune_baseline(baseline, train)
    assert parameters["threshold"] < 0.5 and parameters["intercept"] == 0
    assert f"its threshold is {parameters['threshold']:.3f}: " in description
    assert tune_baseline(baseline, train, None, 4.0)[0]["threshold"] == 0.8
    weighted, _ = tune_baseline(make_baseline("balanced"), train, "balanced")
    assert weighted["intercept"] < -1
    assert "on out-of-fold predictions of 150 texts" in tune_baseline(baseline, train, max_cv_texts=1000)[1]
    defaults, description = tune_baseline(baseline, label_texts(["a b", "a b", "c d"], np.array([1, 1, 0])))
    assert defaults == {"temperature": 1.0, "intercept": 0.0, "threshold": 0.5} and "too few" in description
    y_probs = {"words": predict_baseline(baseline.fit(texts, labels), texts, parameters)}
    (sentence,) = compare_thresholds(labels, y_probs, {"words": parameters["threshold"]}, "yes")
    assert sentence.startswith(f"words predicts 'yes' at a probability of {parameters['threshold']:.3f} or more")
    assert "at 0.5 or more, it would be" in sentence


def test_an_untuned_baseline_predicts_as_scikit_learn_does():
    texts, labels = ["good soup", "bad soup", "good tea", "bad tea"], np.array([1, 0, 1, 0])
    baseline = make_baseline().fit(texts, labels)
    parameters = {"temperature": 1.0, "intercept": 0.0}
    predicted = predict_baseline(baseline, texts, parameters)
    np.testing.assert_allclose(predicted, baseline.predict_proba(texts)[:, 1])


def test_the_seed_decides_the_folds():
    texts, labels = [f"text {row}" for row in range(40)], np.arange(40) % 2
    first, again, other = ([held_out.tolist() for _, held_out in assign_folds(texts, labels, 4, s)] for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("菜很好吃", "菜很难吃"),
        ("อาหารอร่อย", "อาหารไม่ดี"),
        ("おいしい", "まずい"),
        ("ຕົວຢ່າງດີ", "ຕົວຢ່າງຊົ່ວ"),
        ("खाना अच्छा", "खाना बुरा"),
    ],
)
def test_the_baseline_reads_scripts_without_spaces(good, bad):
    space = " " if " " in good else ""
    rng = np.random.default_rng(0)
    letters = [chr(ord("ก") + i) for i in range(40)] if "อ" in good else [chr(0x4E00 + i) for i in range(200)]
    texts = [
        f"{''.join(rng.choice(letters, 5))}{space}{(bad, good)[i % 2]}{space}{''.join(rng.choice(letters, 5))}"
        for i in range(120)
    ]
    labels = np.arange(120) % 2
    model = make_baseline().fit(texts[:80], labels[:80])
    assert (model.predict(texts[80:]) == labels[80:]).mean() > 0.9


@pytest.mark.parametrize("texts", [["a", "b"], ["!", "?"], ["", ""], ["好", "坏"], ["😀", "😡"]])
def test_the_baseline_learns_from_any_texts(texts):
    baseline = make_baseline().fit(texts * 3, [0, 1] * 3)
    assert np.isfinite(baseline.predict_proba(texts)).all()


@given(
    rows=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30), st.booleans()), min_size=1, max_size=60),
    folds=st.integers(2, 5),
)
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_each_group_is_in_one_fold(rows, folds):
    groups, words, labels = map(np.array, zip(*rows))
    splits = assign_folds([f"w{word}" for word in words], labels.astype(int), folds, 0, groups)
    held_out = np.concatenate([rows for _, rows in splits]) if splits else []
    assert sorted(held_out) == list(range(len(groups))) * bool(splits)
    for train, validation in splits:
        assert not set(groups[train]) & set(groups[validation]) and set(labels[train]) == {0, 1}
    if len(splits) < folds:  # some class is in few groups, or in groups that are one
        fewest = min(len(set(groups[labels == label])) for label in (0, 1))
        assert fewest < folds or len(set(words)) < len(words)


def test_a_baseline_is_tuned_on_other_groups():
    """Each author has a word, which decides only in the own texts: with groups, no held-out prediction profits."""
    groups = np.repeat(np.arange(30), 10)
    labels = groups % 2
    # words that all authors share, so that the predictions for an unknown author differ, though they say nothing
    common = np.random.default_rng(0).integers(0, 20, (300, 5))
    texts = [f"author{group}x {' '.join(f'w{word}' for word in words)}" for group, words in zip(groups, common)]
    easy, _ = tune_baseline(make_baseline(), label_texts(texts, labels))
    hard, _ = tune_baseline(make_baseline(), label_texts(texts, labels, groups))
    assert hard["temperature"] > 3 * easy["temperature"]
