"""Label issues: planted label errors are ranked first, and no label is judged by a baseline that has memorized it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from textbert.data import columns, tables
from textbert.data.labelled_texts import LabelledTexts
from textbert.data.labels import encode_labels
from textbert.evaluation.baseline import make_baseline
from textbert.evaluation.label_issues import find_label_issues, tabulate_label_issues


def test_planted_label_errors_are_ranked_first():
    """3 % of the sample's labels are flipped; BERT is replaced by a model that knows nothing."""
    frame, _ = columns.infer_columns(tables.read_table(ROOT / "data/sample/train.csv"), "sample")
    labels = encode_labels(frame["label"], [["1"], ["2"]]).to_numpy()
    planted = np.random.default_rng(0).choice(len(labels), round(0.03 * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[planted] = 1 - noisy[planted]
    table = find_label_issues(frame["text"], noisy, np.full(len(labels), 0.5), make_baseline())
    assert sorted(table["row"]) == list(range(len(labels)))
    hits = np.isin(table["row"][: round(0.05 * len(labels))], planted).sum()
    assert hits >= 0.3 * len(planted)


def test_label_confidence_by_hand():
    """The baseline meets no word twice, so it predicts one half for all, and BERT's confidence gives the order."""
    labels, y_prob = np.array([1, 1, 0, 0] * 5), np.array([0.9, 0.2, 0.1, 0.7] * 5)
    table = find_label_issues([f"w{i}x" for i in range(20)], labels, y_prob, make_baseline())
    assert set(table["row"][:5]) == set(range(1, 20, 4)) and set(table["row"][5:10]) == set(range(3, 20, 4))
    assert table["bert"].tolist()[:10] == pytest.approx([0.2] * 5 + [0.3] * 5)
    assert table["baseline"].tolist() == pytest.approx([0.5] * 20, abs=0.1)


def test_bert_says_nothing_of_texts_that_it_was_trained_on(tmp_path):
    texts = [f"w{i}x w{i}y {'good' if i % 2 else 'bad'}" for i in range(40)]
    labels, y_prob = np.arange(40) % 2, np.full(40, np.nan)
    labels[[6, 9]] = 1 - labels[[6, 9]]
    assert set(find_label_issues(texts, labels, y_prob, make_baseline())["row"][:2]) == {6, 9}
    y_prob[[6, 20]] = 0.45  # its label is 1, and that of row 20 is 0
    table = find_label_issues(texts, labels, y_prob, make_baseline())
    assert table["row"].tolist()[:2] == [9, 6]  # BERT doubts row 6 less than the other model does
    assert table.set_index("row")["bert"].dropna().to_dict() == pytest.approx({6: 0.45, 20: 0.55})
    labelled = LabelledTexts(tmp_path, [f"t{i}" for i in range(40)], texts, labels, "ticket")
    shown = tabulate_label_issues(labelled, y_prob, ["no", "yes"], 2)
    assert shown[["ticket", "label", "BERT"]].to_numpy().tolist() == [["t9", "no", "–"], ["t6", "yes", 0.45]]


def test_equal_texts_are_in_one_fold():
    texts = [f"w{i}x w{i}y {'good' if i % 2 else 'bad'}" for i in range(40)]
    labels = np.arange(40) % 2
    texts, labels = texts + ["w3x w3y good"] * 3 + ["W3X  w3y good"], np.r_[labels, [0] * 4]
    labels[3] = 0  # wrong, five times
    table = find_label_issues(texts, labels, np.full(44, 0.5), make_baseline())
    assert set(table["row"][:5]) == {3, 40, 41, 42, 43} and table["baseline"][:5].max() < 0.5


@pytest.mark.parametrize(("labels", "rows"), [([1], 0), ([0, 1, 1], 0), ([0, 0, 1, 1, 1], 5), ([0] * 7 + [1] * 9, 16)])
def test_label_issues_of_few_rows(labels, rows, capsys):
    texts = [f"{'bad' if label == 0 else 'good'} {row}" for row, label in enumerate(labels)]
    table = find_label_issues(texts, labels, np.full(len(labels), 0.5), make_baseline())
    assert len(table) == rows and list(table) == ["row", "baseline", "bert"]
    assert ("too few to find label issues" in capsys.readouterr().out) == (rows == 0)


def test_labels_are_judged_by_other_groups():
    """Each author has a word that gives the label away; without groups the baseline has learned it."""
    groups = np.repeat(np.arange(20), 5)
    texts, labels = [f"author{group}x" for group in groups], groups % 2
    known = LabelledTexts(Path("x"), list(map(str, range(100))), [f"{t} w{i}x" for i, t in enumerate(texts)], labels)
    unknown = replace(known, groups=groups)
    tables = [tabulate_label_issues(rows, np.full(100, 0.5), ["no", "yes"], 100) for rows in (known, unknown)]
    assert tables[0]["TF-IDF"].min() > 0.6 and tables[1]["TF-IDF"].max() < 0.6
