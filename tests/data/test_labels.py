"""Which labels make up the two classes, and names that fit their labels or contradict them."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.data.labels import check_both_classes, check_classes, encode_labels, infer_classes, name_classes

SPELLINGS = st.sampled_from([str, str.upper, str.title, lambda word: f" {word} "])
PAIRS = [("no", "yes"), ("negative", "positive"), ("bad", "good"), ("ham", "spam"), ("False", "True"), ("neg", "pos")]


@given(pair=st.sampled_from(PAIRS), spell=SPELLINGS)
def test_names_that_are_the_swapped_labels_are_refused(pair, spell):
    labels, names = [[word] for word in pair], [spell(word) for word in pair]
    assert name_classes(labels, names) == names
    with pytest.raises(ValueError, match="to keep the classes as they are, or CLASSES = .* to swap them"):
        name_classes(labels, names[::-1])
    swapped = [labels[1], labels[0]]
    assert name_classes(swapped, names[::-1], is_explicit=True) == names[::-1]


@pytest.mark.parametrize(
    ("labels", "names", "options"),
    [
        (["neg", "pos"], ["good", "bad"], {}),
        (["ham", "spam"], ["junk", "wanted"], {}),
        (["ham", "spam"], ["wanted", "not spam"], {}),
        (["not toxic", "toxic"], ["Toxic", "Not-toxic"], {}),
        (["cat", "dog"], ["dog", "other"], {}),
        (["0", "1"], ["yes", "no"], {"is_explicit": True}),
        (["0.0", "1.0"], ["true", "false"], {}),
        (["no", "yes"], ["1", "0"], {}),
        (["-1", "1"], ["positive", "negative"], {"is_explicit": True}),
        (["3", "7"], ["pos", "neg"], {}),
        (["1", "2"], ["good", "bad"], {}),
        (["1", "5"], ["good", "bad"], {}),
        (["0", "1"], ["spam", "ham"], {}),
        (["0", "1"], ["human", "not human"], {}),
        (["no", "yes"], ["Escalated", "not escalated"], {}),
        (["not urgent", "urgent"], ["yes", "no"], {}),
        (["nein", "ja"], ["yes", "no"], {}),
        (["1", "2"], ["Good", "bad "], {"is_explicit": True, "is_yelp_task": True}),
        (["2", "1"], ["bad", "good"], {"is_explicit": True, "is_yelp_task": True}),
    ],
)
def test_names_that_contradict_the_labels_are_refused(labels, names, options):
    with pytest.raises(ValueError, match="LABEL_NAMES = .* calls .* expected the negative class first"):
        name_classes([[label] for label in labels], names, **options)


@pytest.mark.parametrize(
    ("labels", "names", "options"),
    [
        (["ham", "spam"], ["not spam", "spam"], {}),
        (["no", "yes"], ["good", "bad"], {}),  # is there a complaint?
        (["0", "1"], ["good", "bad"], {}),  # is the loan bad?
        (["0", "1"], ["happy", "unhappy"], {}),
        (["no", "yes"], ["no escalation", "escalation"], {}),
        (["1", "2"], ["yes", "no"], {}),  # many surveys
        (["0", "1"], ["positive", "negative"], {"is_explicit": True}),
        (["1", "2"], ["good", "bad"], {"is_explicit": True}),
        (["2", "1"], ["good", "bad"], {"is_explicit": True, "is_yelp_task": True}),
        (["cat", "dog"], ["Katze", "Hund"], {}),
        (["0", "1"], ["0", "1"], {}),
        (["no", "yes"], ["0", "1"], {}),
        (["unknown", "known"], ["unknown", "known"], {}),
        (["none", "hate"], ["not hateful", "hateful"], {}),
    ],
)
def test_fitting_names_are_accepted(labels, names, options):
    assert name_classes([[label] for label in labels], names, **options) == names


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
def test_what_the_message_suggests_is_accepted(labels, names):
    labels = [[label] for label in labels]
    with pytest.raises(ValueError, match="to keep the classes") as error:
        name_classes(labels, names)
    name_classes(labels, names[::-1])
    name_classes(labels[::-1], names, is_explicit=True)
    if "if they are right" in str(error.value):
        assert name_classes(labels, names, is_explicit=True) == names
    else:
        with pytest.raises(ValueError, match="to swap them$"):
            name_classes(labels, names, is_explicit=True)


@pytest.mark.parametrize(
    "pair", [("nein", "ja"), ("non", "oui"), ("Нет", "Да"), ("否", "是"), ("not urgent", "urgent"), ("no-spam", "Spam")]
)
def test_the_label_decides_which_class_is_positive(pair):
    for labels in (pair, pair[::-1]):
        assert infer_classes(pd.Series(labels), "x.csv") == [[pair[0]], [pair[1]]]


def test_several_labels_to_a_class():
    stars = [["1", "2"], ["4", "5"]]
    assert name_classes(stars, ["no", "yes"], is_explicit=True) == ["no", "yes"]
    assert name_classes(stars, is_explicit=True) == ["1 or 2", "4 or 5"]
    with pytest.raises(ValueError, match="calls 'ham' or 'legit' 'spam'"):
        name_classes([["ham", "legit"], ["spam"]], ["spam", "ham"], is_explicit=True)


def test_yelps_labels_have_names_in_yelps_tasks_only():
    labels = [["1"], ["2"]]
    assert name_classes(labels) == ["1", "2"]
    assert name_classes(labels, is_yelp_task=True) == ["bad", "good"]
    assert name_classes(labels, ["poor", "fine"], is_yelp_task=True) == ["poor", "fine"]
    assert name_classes(labels[::-1], is_explicit=True, is_yelp_task=True) == ["good", "bad"]
    assert name_classes([["0"], ["1"]], is_yelp_task=True) == ["0", "1"]


@pytest.mark.parametrize("allow_other_labels", [False, True])
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
def test_a_test_file_without_both_classes_is_refused(labels, message, allow_other_labels):
    series = pd.Series(labels, index=range(1, len(labels) + 1))
    with pytest.raises(ValueError, match=message):
        check_classes(series, [["1", "2"], ["4", "5"]], "test.csv", "train.csv", allow_other_labels)


def test_other_labels_in_the_test_file():
    labels = pd.Series(["1", "5", "3"], index=[1, 2, 5])
    with pytest.raises(ValueError, match="1 of the 3 rows.*'3' 1 times .first in row 6"):
        check_classes(labels, [["1"], ["5"]], "test.csv", "train.csv")
    check_classes(labels, [["1"], ["5"]], "test.csv", "train.csv", True)


def test_rows_of_both_classes_must_be_left():
    check_both_classes(pd.Series([0, 1]), "x.csv")
    with pytest.raises(ValueError, match="x.csv has only rows of class 1 left"):
        check_both_classes(pd.Series([1, 1]), "x.csv")
    with pytest.raises(ValueError, match="x.csv has no rows left"):
        check_both_classes(pd.Series([], dtype=int), "x.csv")


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
def test_labels_that_look_the_same_are_equal(labels, expected):
    labels = pd.Series(labels)
    classes = infer_classes(labels, "train.csv")
    assert classes == [[label] for label in expected]
    assert len(encode_labels(labels, classes)) == len(labels)


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (["NA", "None", "NA"], r"LABEL_COLUMN, or CLASSES = \[\['NA'\], \['None'\]\] if 'NA' is the label of a class$"),
        (["yes", "", "on"], r"LABEL_COLUMN, or CLASSES = \[\[''\], \['on'\]\] if '' is the label of a class$"),
        (["NA", "na"], "labels to keep in CLASSES, or set LABEL_COLUMN$"),
    ],
)
def test_only_classes_of_the_file_are_proposed(labels, remedy):
    with pytest.raises(ValueError, match=remedy):
        infer_classes(pd.Series(labels), "train.csv")


def test_an_invisible_label_is_a_missing_one():
    with pytest.raises(ValueError, match="2 rows of train.csv have no label.*list the labels to keep in CLASSES"):
        infer_classes(pd.Series(["yes", "\u200b", "\u00a0", "no"]), "train.csv")
