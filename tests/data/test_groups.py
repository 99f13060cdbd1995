"""Groups of rows: which rows are in one, how groups are united, and which of them are held out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.data.groups import (
    choose_groups,
    count_classes,
    describe_groups,
    encode_groups,
    explain_scarcity,
    unite_groups,
)


def test_groups_by_hand():
    values = pd.Series(["Miller", " miller", "", "Kim", "n/a", "MILLER ", ""], [9, 9, 8, 7, 6, 5, 4], object)
    groups = encode_groups(values)
    assert groups.tolist() == [0, 0, 1, 2, 3, 0, 4]  # a row without a value is a group of its own
    split = pd.Series(["train", "dev", "train", "dev", "train", "dev", "dev"])
    assert describe_groups(values.reset_index(drop=True), groups, split) == [
        "5 groups, the largest of 3 rows",
        "3 rows have no group ('', 'n/a'): each is a group of its own",
        "1 groups are in both train and dev: 2 of the 4 rows of dev",
    ]
    assert len(describe_groups(values, groups, pd.Series(["train"] * 7))) == 2


def test_links_unite_groups_up_to_a_size():
    groups = np.array([0, 0, 1, 2, 2, 3, 4])
    links = [np.array(link) for link in ([1, 2, 3], [0, 1], [4])]  # the shorter one comes first
    assert unite_groups(groups, links, 7).tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert unite_groups(groups, links, 5).tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert unite_groups(groups, links, 2).tolist() == groups.tolist()


def test_classes_are_counted():
    counts = count_classes(np.array([0, 2, 1, 2]), np.array([1, 0, 0, 0]))
    assert counts.tolist() == [[0, 1], [1, 0], [2, 0]]


@given(
    sizes=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(any), min_size=2, max_size=8),
    share=st.sampled_from([0.1, 0.25, 0.5]),
    seed=st.integers(0, 5),
)
def test_no_other_choice_of_a_few_groups_is_better(sizes, share, seed):
    """A brute-force search over all subsets finds none; the classes are never on one side only."""
    counts = np.array(sizes)
    if not counts.sum(axis=0).all():
        return
    fractions = counts / counts.sum(axis=0)
    subsets = [[i for i in range(len(counts)) if mask >> i & 1] for mask in range(1, 2 ** len(counts) - 1)]
    held_out = np.array([fractions[subset].sum(axis=0) for subset in subsets])
    is_possible = ((held_out > 1e-9) & (held_out < 1 - 1e-9)).all(axis=1)
    try:
        chosen = choose_groups(counts, share, np.random.default_rng(seed))
    except ValueError:
        assert not is_possible.any()
        return
    best = np.abs(held_out[is_possible] - share).max(axis=1).min()
    assert np.abs(fractions[chosen].sum(axis=0) - share).max() == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("counts", [[[5, 5]], [[5, 5], [5, 0], [2, 0]], [[5, 0], [0, 5]]])
def test_an_impossible_choice_is_refused(counts):
    with pytest.raises(ValueError, match="no choice of groups has both classes on both sides"):
        choose_groups(np.array(counts), 0.2, np.random.default_rng(0))


def test_scarce_groups_are_explained():
    labels, none = np.array([0, 1, 0, 1, 0]), "or do without groups: GROUP_COLUMN = None and NEAR_DUPLICATES = 'report'"
    sentence = explain_scarcity(np.array([7] * 5), labels, "FOLDS to fewer than 5")
    assert sentence.startswith(
        f"all 5 rows are in a single group, by GROUP_COLUMN or near duplicates, so none can be held out: use more "
        f"groups, {none}"
    )
    sentence = explain_scarcity(np.array([0, 1, 2, 1, 3]), labels, "FOLDS to fewer than 5")
    assert sentence.startswith(f"label 1 is in 1 of 4 groups, which are not divided: use more groups, {none}")
    sentence = explain_scarcity(np.array([0, 1, 2, 3, 3]), labels, "FOLDS to fewer than 5")
    assert ": use more groups, set FOLDS to fewer than 5, or do without groups" in sentence
