"""Names of classes that fit their labels, and those that say the opposite."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.data import labels as data_labels

SPELL = st.sampled_from([str, str.upper, str.title, lambda word: f" {word} "])
PAIRS = [("no", "yes"), ("negative", "positive"), ("bad", "good"), ("ham", "spam"), ("False", "True"), ("neg", "pos")]


@given(pair=st.sampled_from(PAIRS), spell=SPELL)
def test_names_that_are_the_labels_in_the_other_order_are_refused(pair, spell):
    labels, names = [[word] for word in pair], [spell(word) for word in pair]
    assert data_labels.name_classes(labels, names) == (names, False)
    with pytest.raises(ValueError, match="to keep the classes as they are, or CLASSES = .* to swap them"):
        data_labels.name_classes(labels, names[::-1])
    turned = [labels[1], labels[0]]
    assert data_labels.name_classes(turned, names[::-1], given=True)[0] == names[::-1]


@pytest.mark.parametrize(
    ("labels", "names", "options"),
    [
        (["neg", "pos"], ["good", "bad"], {}),
        (["ham", "spam"], ["junk", "wanted"], {}),
        (["ham", "spam"], ["wanted", "not spam"], {}),
        (["not toxic", "toxic"], ["Toxic", "Not-toxic"], {}),
        (["cat", "dog"], ["dog", "other"], {}),
        (["0", "1"], ["yes", "no"], {"given": True}),
        (["0.0", "1.0"], ["true", "false"], {}),
        (["no", "yes"], ["1", "0"], {}),
        (["-1", "1"], ["positive", "negative"], {"given": True}),
        (["3", "7"], ["pos", "neg"], {}),
        (["1", "2"], ["good", "bad"], {}),
        (["1", "5"], ["good", "bad"], {}),
        (["0", "1"], ["spam", "ham"], {}),
        (["0", "1"], ["human", "not human"], {}),
        (["no", "yes"], ["Escalated", "not escalated"], {}),
        (["not urgent", "urgent"], ["yes", "no"], {}),
        (["nein", "ja"], ["yes", "no"], {}),
        (["1", "2"], ["Good", "bad "], {"given": True, "known": True}),
        (["2", "1"], ["bad", "good"], {"given": True, "known": True}),
    ],
)
def test_names_that_say_the_opposite_are_refused(labels, names, options):
    with pytest.raises(ValueError, match="LABEL_NAMES = .* calls .* expected the negative class first"):
        data_labels.name_classes([[label] for label in labels], names, **options)


@pytest.mark.parametrize(
    ("labels", "names", "options"),
    [
        (["ham", "spam"], ["not spam", "spam"], {}),
        (["no", "yes"], ["good", "bad"], {}),  # is there a complaint?
        (["0", "1"], ["good", "bad"], {}),  # is the loan bad?
        (["0", "1"], ["happy", "unhappy"], {}),
        (["no", "yes"], ["no escalation", "escalation"], {}),
        (["1", "2"], ["yes", "no"], {}),  # many surveys
        (["0", "1"], ["positive", "negative"], {"given": True}),
        (["1", "2"], ["good", "bad"], {"given": True}),
        (["2", "1"], ["good", "bad"], {"given": True, "known": True}),
        (["cat", "dog"], ["Katze", "Hund"], {}),
        (["0", "1"], ["0", "1"], {}),
        (["no", "yes"], ["0", "1"], {}),
        (["unknown", "known"], ["unknown", "known"], {}),
        (["none", "hate"], ["not hateful", "hateful"], {}),
    ],
)
def test_sound_names_are_taken(labels, names, options):
    assert data_labels.name_classes([[label] for label in labels], names, **options)[0] == names


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["no", "yes"], ["escalated", "not escalated"]),
        (["0", "1"], ["spam", "ham"]),
        (["1", "5"], ["good", "bad"]),
        (["0", "1"], ["yes", "no"]),
        (["ham", "spam"], ["spam", "ham"]),
    ],
)
def test_a_remedy_that_is_named_helps(labels, names):
    labels = [[label] for label in labels]
    with pytest.raises(ValueError, match="to keep the classes") as refused:
        data_labels.name_classes(labels, names)
    data_labels.name_classes(labels, names[::-1])
    data_labels.name_classes(labels[::-1], names, given=True)
    if "if it does mean that" in str(refused.value):
        assert data_labels.name_classes(labels, names, given=True)[0] == names
    else:
        with pytest.raises(ValueError, match="to swap them$"):
            data_labels.name_classes(labels, names, given=True)


@pytest.mark.parametrize(
    "pair", [("nein", "ja"), ("non", "oui"), ("Нет", "Да"), ("否", "是"), ("not urgent", "urgent"), ("no-spam", "Spam")]
)
def test_which_class_is_positive_is_said_by_its_label(pair):
    for labels in (pair, pair[::-1]):
        assert data_labels.infer_classes(pd.Series(labels), "x.csv") == [[pair[0]], [pair[1]]]


def test_several_labels_to_a_class():
    stars = [["1", "2"], ["4", "5"]]
    assert data_labels.name_classes(stars, ["no", "yes"], given=True) == (["no", "yes"], False)
    assert data_labels.name_classes(stars, given=True) == (["1 or 2", "4 or 5"], False)
    with pytest.raises(ValueError, match="calls 'ham' or 'legit' 'spam'"):
        data_labels.name_classes([["ham", "legit"], ["spam"]], ["spam", "ham"], given=True)


def test_yelps_format_is_known_by_the_task_or_by_its_names():
    labels = [["1"], ["2"]]
    assert data_labels.name_classes(labels) == (["1", "2"], False)
    assert data_labels.name_classes(labels, known=True) == (["bad", "good"], True)
    assert data_labels.name_classes(labels, ["bad", "good"]) == (["bad", "good"], True)
    assert data_labels.name_classes(labels, ["poor", "fine"]) == (["poor", "fine"], False)
    assert data_labels.name_classes(labels[::-1], given=True, known=True) == (["good", "bad"], True)


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([""] * 4, "test.csv has no labels: move it out of the folder"),
        (["NaN", ""], "test.csv has no labels: move it out of the folder"),
        (["-1", "-1"], "test.csv has labels of 0 of the two classes.*'-1' 2 times .first in row 2.*move test.csv out"),
        (["?", "unlabeled"], "test.csv has labels of 0 of the two classes.*move test.csv out of the folder"),
        (["5", "5"], "test.csv has labels of 1 of the two classes.*move test.csv out of the folder"),
    ],
)
def test_a_file_to_evaluate_on_without_both_classes_is_refused(labels, message, others):
    series = pd.Series(labels, index=range(1, len(labels) + 1))
    with pytest.raises(ValueError, match=message):
        data_labels.check_classes(series, [["1", "2"], ["4", "5"]], "test.csv", "train.csv", others)


def test_other_labels_in_the_file_to_evaluate_on():
    labels = pd.Series(["1", "5", "3"], index=[1, 2, 5])
    with pytest.raises(ValueError, match="1 of the 3 rows.*'3' 1 times .first in row 6"):
        data_labels.check_classes(labels, [["1"], ["5"]], "test.csv", "train.csv")
    data_labels.check_classes(labels, [["1"], ["5"]], "test.csv", "train.csv", True)


def test_both_classes_must_be_left():
    data_labels.check_both_classes(pd.Series([0, 1]), "x.csv")
    with pytest.raises(ValueError, match="x.csv has only rows of class 1 left"):
        data_labels.check_both_classes(pd.Series([1, 1]), "x.csv")
    with pytest.raises(ValueError, match="x.csv has no row left"):
        data_labels.check_both_classes(pd.Series([], dtype=int), "x.csv")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["yes", "yes", "yes\u00a0", "\u200byes", "no", "no", "no\ufeff", "\uff4e\uff4f"], ["no", "yes"]),
        (["-1", "-1", "\u22121", "1", "1", "1\u2060"], ["-1", "1"]),
        (["\u22121", "1"], ["\u22121", "1"]),
        (["caf\u00e9", "caf\u00e9", "cafe\u0301", "tea", "tea"], ["caf\u00e9", "tea"]),
        (["not  spam", "not spam", "not spam", "spam"], ["not spam", "spam"]),
    ],
)
def test_labels_that_look_the_same_are_the_same(labels, expected):
    labels = pd.Series(labels)
    found = data_labels.infer_classes(labels, "train.csv")
    assert found == [[label] for label in expected]
    assert len(data_labels.encode_labels(labels, found)) == len(labels)


def test_a_label_that_nobody_sees_is_none():
    with pytest.raises(ValueError, match="2 rows of train.csv have no label"):
        data_labels.infer_classes(pd.Series(["yes", "\u200b", "\u00a0", "no"]), "train.csv")
