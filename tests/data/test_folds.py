"""A validation set if it is large enough to choose by, otherwise folds that hold out each row once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textbert.data.folds import describe_split, split_or_fold
from textbert.data.splits import split_train_validation


def make_texts(count):
    return [f"word{row} {row * 7}" for row in range(count)]


@pytest.mark.parametrize(
    ("count", "positive", "share", "num_folds"),
    [
        *((1000, 500, 0.1, 0), (999, 499, 0.1, 5), (500, 250, 0.2, 0), (499, 249, 0.2, 5)),
        *((2000, 200, 0.1, 0), (2000, 199, 0.1, 5), (2000, 1801, 0.1, 5), (60, 3, 0.1, 3), (30, 2, 0.5, 2)),
    ],
)
def test_small_validation_set_is_replaced_by_folds(count, positive, share, num_folds):
    texts, labels = make_texts(count), (np.arange(count) < positive).astype(int)
    rows = np.arange(count) * 2 + 1
    train_rows, held_out, folds = split_or_fold(rows, texts, labels, share, 0)
    assert len(folds) == num_folds
    sentence = describe_split(train_rows, held_out, folds)
    if not num_folds:
        split = split_train_validation(texts, labels, share, 0)
        assert [train_rows.tolist(), held_out.tolist()] == [rows[part].tolist() for part in split]
        assert sentence == f"{len(train_rows):,} rows to train, {len(held_out):,} to validate"
    else:
        assert train_rows.tolist() == held_out.tolist() == rows.tolist()
        assert f"{num_folds} folds hold out {count:,} rows instead" in sentence and "FOLDS = 0" in sentence


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 80), st.integers(2, 6), st.integers(0, 3))
def test_each_row_is_held_out_at_most_once_and_never_with_its_text_in_training(count, num_folds, seed):
    rng = np.random.default_rng(seed)
    texts = [f"w{number} x{number} y" for number in rng.integers(0, count, count)]
    labels = np.array([int(text.split()[0][1:]) % 2 for text in texts])
    rows = np.arange(count) + 5
    try:
        train_rows, held_out, folds = split_or_fold(rows, texts, labels, 0.1, seed, None, num_folds)
    except ValueError:  # a fold without one of the classes
        return
    assert train_rows.tolist() == rows.tolist() and len(set(held_out.tolist())) == len(held_out)
    assert held_out.tolist() == sorted(row for _, part in folds for row in part.tolist())
    for train, part in folds:
        assert not {texts[row - 5] for row in train} & {texts[row - 5] for row in part}


def test_number_of_folds_can_be_chosen_and_0_is_a_validation_set():
    texts, labels = make_texts(90), np.arange(90) % 2
    rows = np.arange(90)
    assert len(split_or_fold(rows, texts, labels, 0.1, 0, None, 3)[2]) == 3
    train_rows, held_out, folds = split_or_fold(rows, texts, labels, 0.1, 0, None, 0)
    assert not folds and len(train_rows) == 81 and len(held_out) == 9


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        *((np.arange(120) * count // 120, count) for count in (2, 3, 4)),
        (np.where(np.arange(120) % 2, np.arange(120) // 40, np.arange(120)), 3),  # label 1 is in three groups
    ],
)
def test_there_are_no_more_folds_than_groups(groups, expected, capsys):
    texts, labels = make_texts(120), np.arange(120) % 2
    assert len(split_or_fold(np.arange(120), texts, labels, 0.1, 0, groups)[2]) == expected
    assert capsys.readouterr().out.count("groups") == 1
    with pytest.raises(ValueError, match=f"label . is in {expected} of .* set FOLDS to fewer than 5, or do without"):
        split_or_fold(np.arange(120), texts, labels, 0.1, 0, groups, 5)


def test_a_single_group_cannot_be_divided():
    with pytest.raises(
        ValueError, match="^cannot split 60 rows: all 60 rows are in a single group, by GROUP_COLUMN or"
    ):
        split_or_fold(np.arange(60), make_texts(60), np.arange(60) % 2, 0.1, 0, np.zeros(60, int))


def test_groups_are_held_out_as_a_whole(capsys):
    texts, labels = make_texts(80), np.arange(80) % 2
    groups = np.arange(80) // 4
    _, _, folds = split_or_fold(np.arange(80), texts, labels, 0.1, 0, groups, None)
    assert len(folds) == 5
    for train, held_out in folds:
        assert not set(groups[train]) & set(groups[held_out])
    assert capsys.readouterr().out == (
        "groups, in each of 5 folds: 16 with 64 rows to train, 50.0% of class 1; 4 with 16 rows held out, 50.0% of "
        "class 1\n"
    )
