"""The classifier of a task: loaded and checked against the task's files, which it is then evaluated on."""

import copy
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from tiny import make_sentence, teach

from textbert.data.labelled_texts import read_labelled_texts
from textbert.data.normalization import hash_text
from textbert.inference import task_classifier


@pytest.fixture(scope="module")
def fine_tuned(bert_files, tmp_path_factory):
    return teach(bert_files, tmp_path_factory.mktemp("fine_tuned"))


@pytest.fixture
def train(tmp_path):
    rng = np.random.default_rng(5)
    sentences = [make_sentence(rng) for _ in range(20)]
    rows = [f"{i}\t{label}\ta\t{text} {i}\n" for i, (text, label) in enumerate(sentences)]
    (tmp_path / "data/tiny").mkdir(parents=True)
    (tmp_path / "data/tiny/train.tsv").write_text("".join(rows))
    (tmp_path / "data/tiny/labels.json").write_text(json.dumps({"label_names": ["bad", "good"]}))
    return read_labelled_texts(tmp_path / "data/tiny/train.tsv")


def test_it_is_loaded_and_described(fine_tuned, train, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    with pytest.raises(FileNotFoundError, match=r"tiny\.tar\.gz"):
        task_classifier.load_task_classifier("tiny", train)
    shutil.copy(fine_tuned.path, tmp_path / "cache/tiny.tar.gz")
    classifier = task_classifier.load_task_classifier("tiny", train)
    printed = capsys.readouterr().out
    assert "texts of train.tsv serve as the validation set" in printed  # this archive has none
    assert "'good' is predicted from a probability of 0.400 upwards." in printed and "same classes" in printed
    y_prob = task_classifier.predict_validation(classifier)
    texts = dict(zip(train.ids, train.texts))
    expected = classifier.predict([texts[name] for name in classifier.validation["id"]], progress=False)
    np.testing.assert_allclose(y_prob, expected["probability"], atol=1e-6)
    (train.path.parent / "labels.json").write_text(json.dumps({"label_names": ["good", "bad"]}))
    with pytest.raises(ValueError, match="run train.ipynb again"):
        task_classifier.load_task_classifier("tiny", train)


def test_training_texts_are_excluded(fine_tuned, train):
    texts, rows, sentence = task_classifier.exclude_training_texts(fine_tuned, train)
    expected_rows, expected = fine_tuned.exclude_training_texts(train.texts, train.labels, train.path)
    assert rows.tolist() == expected_rows.tolist() and sentence == expected
    assert texts.ids == [train.ids[row] for row in rows]


def test_only_held_out_texts_are_predicted(fine_tuned, train):
    y_prob = fine_tuned.predict(train.texts, progress=False)["probability"].to_numpy()
    classifier = copy.copy(fine_tuned)
    assert np.isnan(task_classifier.predict_held_out(classifier, train)).all()  # it has no validation set
    classifier.validation = pd.DataFrame({"id": ["3", "17"], "label": 0, "logit_0": 0.0, "logit_1": 0.0})
    assert np.isnan(task_classifier.predict_held_out(classifier, train)).all()  # computed for an archive from 2019
    classifier.training_hashes = np.array([1])
    expected = np.where(np.isin(np.arange(20), [3, 17]), y_prob, np.nan)
    np.testing.assert_allclose(task_classifier.predict_held_out(classifier, train), expected, atol=1e-6)
    held_out = [5, 0, 11]
    hashes = [hash_text(train.texts[row].upper()) for row in held_out]
    logits = {"logit_0": [0.0, 1.0, 2.0], "logit_1": [0.0, 3.0, -2.0]}
    classifier.out_of_fold = pd.DataFrame({"text_hash": hashes, **logits})
    expected = np.full(20, np.nan)
    expected[held_out] = 1 / (1 + np.exp(-np.array([0.0, 2.0, -4.0]) / 1.7))  # the temperature
    np.testing.assert_allclose(task_classifier.predict_held_out(classifier, train), expected, atol=1e-6)


def test_speed_is_measured(fine_tuned, train):
    sentence = task_classifier.measure_speed(fine_tuned, train.texts)
    assert re.fullmatch(r"[\d,]+ such texts a second here: a million take about .+", sentence)
