"""Tables of predictions: bands with enough texts, errors without false precision, what the model is unsure of."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.evaluation import predictions

NAMES = ["bad", "good"]


def make_table(y_prob, labels):
    table = pd.DataFrame({"id": [f"t{i}" for i in range(len(labels))], "label": pd.Index(NAMES)[labels]})
    table["predicted"] = pd.Index(NAMES)[(np.array(y_prob) >= 0.5).astype(int)]
    return table.assign(probability=y_prob, text=[f"text {i}" for i in range(len(labels))])


@given(
    y_prob=st.lists(st.floats(0, 1) | st.sampled_from([0, 0.1, 0.3, 0.7, 1]), min_size=1, max_size=80),
    label=st.integers(0, 1),
)
def test_each_band_has_enough_texts(y_prob, label):
    table = make_table(y_prob, [label] * len(y_prob))
    bands = predictions.calibration_bands(table, NAMES)
    assert bands["texts"].sum() == len(y_prob) and bands["texts"].min() >= min(10, len(y_prob))
    assert bands["right"].sum() == (table["label"] == table["predicted"]).sum()
    assert bands["from"].iat[0] == "0" and bands["to"].iat[-1] == "1"
    assert bands["from"].tolist()[1:] == bands["to"].tolist()[:-1]
    assert all(float(low) <= float(mean) <= float(high) for low, high, mean in bands.iloc[:, [0, 1, 4]].to_numpy())


def test_bands_by_hand():
    table = make_table([0.05] * 20 + [0.35] * 3 + [0.95] * 12, [0] * 18 + [1] * 6 + [1] * 11)
    bands = predictions.calibration_bands(table, NAMES)
    assert bands.iloc[:, :5].to_numpy().tolist() == [["0", "0.1", 20, 18, "0.05"], ["0.1", "1", 15, 12, "0.83"]]
    assert bands["fraction of 'good'"].tolist()[0].startswith("0.10 (0.03 to 0.30)")


def test_errors_of_equal_probability_keep_their_order():
    table = make_table([0.9131, 0.9162, 0.9134, 0.52, 0.3, 0.08], [0, 0, 0, 0, 1, 1])
    errors = predictions.find_confident_errors(table, NAMES, 1, 3)
    confident = "of them with a probability of {name!r} of at least 0.9."
    assert errors.sentence == f"4 of 4 'bad' were predicted as 'good', 3 {confident.format(name='good')}"
    assert errors.table["id"].tolist() == ["t1", "t0", "t2"]
    assert errors.table["probability of 'good'"].tolist() == [0.92, 0.91, 0.91]
    errors = predictions.find_confident_errors(table, NAMES, 0, 0)
    assert errors.sentence == f"2 of 2 'good' were predicted as 'bad', 1 {confident.format(name='bad')}"
    assert len(errors.table) == 0
    nearly = predictions.find_confident_errors(make_table([0.896, 0.104], [0, 1]), NAMES, 1, 3)
    assert (
        nearly.sentence
        == "1 of 1 'bad' were predicted as 'good', none of them with a probability of 'good' of at least 0.9."
    )
    none = predictions.find_confident_errors(make_table([0.1, 0.9], [0, 1]), NAMES, 1, 3)
    assert none.sentence == "0 of 1 'bad' were predicted as 'good'."


def test_uncertain_and_confident_texts():
    table = make_table([0.05, 0.31, 0.45, 0.69, 0.99], [0, 0, 1, 1, 0])
    assert predictions.find_uncertain(table, 0.4, 2)["id"].tolist() == ["t2", "t1"]
    assert predictions.find_confident(table, 0.5, 2) == (["text 0", "text 1"], ["text 4", "text 2"])
    ties = make_table([0.9501, 0.9502], [1, 1]).assign(text=["longer", "short"])
    assert predictions.find_confident(ties, 0.5, 2) == (["short", "longer"], [])


def test_accuracy_by_class_and_length():
    texts = [" ".join(["word"] * (1 + i // 5)) for i in range(20)]
    labels = np.arange(20) % 2
    groups = predictions.accuracy_by_class_and_length(labels, np.zeros(20, int), texts, NAMES)
    assert groups["correct"].tolist()[:2] == [10, 0] and groups["texts"].sum() == 40
    assert list(groups.index)[:2] == NAMES


def test_calibration_errors():
    labels = np.array([0, 1, 1, 1])
    table = predictions.tabulate_calibration_errors(labels, labels * 1.0, np.full(4, 0.5))
    assert table.loc["before calibration"].tolist() == [0, 0] and table.loc["after calibration"].tolist() == [
        0.25,
        0.25,
    ]
    assert table.loc["after calibration"].to_dict() == pytest.approx(
        {"Brier score": 0.25, "expected calibration error": 0.25}
    )


def test_length_quartiles():
    texts = ["a " * n for n in (1, 2, 3, 4, 5, 6, 7, 90)]
    groups = predictions.length_groups(texts)
    expected = ["1 to 2 words", "3 to 4 words", "5 to 6 words", "7 to 90 words"]
    assert groups.tolist() == np.repeat(expected, 2).tolist()
    assert predictions.length_groups(["a b", "c d", "e f"]).tolist() == ["2 to 2 words"] * 3


def test_lengths_in_scripts_without_spaces():
    groups = predictions.length_groups(["很好", "这家店的菜很好吃", "非常好吃，下次再来。", "ไม่ดี"])
    assert groups.astype(str).str.endswith("characters").all() and groups[0].startswith("2 to ")
