"""Texts that stand inside others: found as by looking for each in each, whatever the words are."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textbert.data import containment
from textbert.data.containment import Overlaps
from textbert.data.splits import split_folds, split_train_validation

# few words make texts that stand inside others often, and at many places
few_words = st.sampled_from([["a"], ["a", "b"], ["A", "b", "c", "d"], ["ab", "b", "a b", "\x85", "ß"]])
some_texts = few_words.flatmap(
    lambda words: st.lists(st.lists(st.sampled_from(words), max_size=40).map(" ".join), max_size=12)
)


def fold(text):
    return text.lower().split()


def stands_in(part, whole):
    """Tell whether a list of words stands in a longer one."""
    places = range(len(whole) - len(part) + 1)
    return 0 < len(part) < len(whole) and any(whole[i : i + len(part)] == part for i in places)


def find_around(texts):
    """Return for each text the positions of those around it that stand in none, found by looking at all pairs."""
    split = [fold(text) for text in texts]
    around = [{i for i, whole in enumerate(split) if stands_in(part, whole)} for part in split]
    return [{i for i in wholes if not around[i]} for wholes in around]


@given(some_texts, st.randoms(use_true_random=False))
@example(["a b a", "b a", "a", "b", ""], None)
@example(["w " * 33, "w " * 32, "w " * 17, "w " * 16, "w"], None)
@example(["a b c d e f g h i j k l m n o p q", "b c d e f g h i j k l m n o p q", "q a", "p q"], None)
def test_inside_is_what_all_pairs_say(texts, random):
    texts = list({" ".join(fold(text)): text for text in texts}.values())
    around = find_around(texts)
    found = Overlaps(texts)
    assert found.inside.tolist() == [bool(wholes) for wholes in around]
    chosen = np.array([random is not None and random.random() < 0.5 for _ in texts], bool) & ~found.inside
    shares = found.get_shares(chosen)
    for share, wholes, itself in zip(shares, around, chosen):
        among = [chosen[i] for i in wholes] or [itself]
        assert (share == 0, share == 1) == (not any(among), all(among))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=70), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_suffixes_are_sorted(words, lengths):
    words = words[: sum(lengths)]
    ends = [end for end in np.cumsum(lengths).tolist() if end < len(words)] + [len(words)]
    left = np.array([min(end for end in ends if end > place) - place for place in range(len(words))], np.int32)
    order, ranks = containment.sort_suffixes(np.array(words, np.int32), left)
    suffixes = [words[place : place + count] for place, count in enumerate(left)]
    assert [suffixes[place] for place in order] == sorted(suffixes)
    for place, suffix in enumerate(suffixes):
        assert ranks[place] == 1 + sum(other < suffix for other in suffixes)


def test_many_numbers_of_words_fit_into_one():
    texts = [" ".join(f"word{number}" for number in range(row, row + 40)) for row in range(0, 3000, 7)]
    inside = " ".join(f"word{number}" for number in range(903, 930))
    found = Overlaps([*texts, inside])
    assert found.inside.tolist() == [False] * len(texts) + [True]
    chosen = np.zeros(len(texts) + 1, bool)
    holders = [row for row, text in enumerate(texts) if inside in text]
    assert len(holders) == 2
    chosen[holders[0]] = True
    assert found.get_shares(chosen)[-1] == 0.5


def test_blocks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(3)
    texts = list({" ".join(rng.choice(["x", "y"], rng.integers(1, 20))) for _ in range(300)})
    expected = Overlaps(texts).inside
    assert 0 < expected.sum() < len(texts)
    monkeypatch.setattr(containment, "BLOCK_TEXTS", 7)
    assert (Overlaps(texts).inside == expected).all()


def test_large_data_is_announced(monkeypatch, capsys):
    monkeypatch.setattr(containment, "MANY_WORDS", 3)
    assert Overlaps(["on and on", "and on", "off"]).inside.tolist() == [False, True, False]
    assert "Looking which of 2 texts stand inside others (5 words)" in capsys.readouterr().out


@pytest.mark.parametrize("words", [2, 4])
def test_parts_of_texts_with_few_words_share_nothing(words):
    rng = np.random.default_rng(words)
    letters = np.array(list("acgt"))[:words]
    texts = [" ".join(rng.choice(letters, rng.integers(1, 30))) for _ in range(400)]
    labels = np.arange(400) % 2
    for training, validation in (split_train_validation(texts, labels, 0.2, 5), *split_folds(texts, labels, 3, 5)):
        train, held = ([fold(texts[row]) for row in rows] for rows in (training, validation))
        assert not any(stands_in(a, b) or stands_in(b, a) or a == b for a in train for b in held)
        assert len(train) + len(held) > 200


def test_the_parts_are_those_of_before():
    texts = [
        "so good",
        "Good",
        "bad  tea",
        "bad tea",
        "tea",
        "no tea today",
        "fine",
        "soup",
        "so",
        "well done",
        "x y",
        "y",
    ]
    training, validation = split_train_validation(texts, np.array([1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0]), 0.25, 11)
    assert (training.tolist(), validation.tolist()) == ([0, 1, 2, 3, 7, 8, 9, 10, 11], [5, 6])
