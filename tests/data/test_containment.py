"""Contained texts are found as by comparing all pairs, whatever the words are."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textbert.data import containment
from textbert.data.containment import Containment
from textbert.data.splits import split_folds, split_train_validation

# with few different words, texts are often contained in others, and at many positions
few_words = st.sampled_from([["a"], ["a", "b"], ["A", "b", "c", "d"], ["ab", "b", "a b", "\x85", "ß"]])
some_texts = few_words.flatmap(
    lambda words: st.lists(st.lists(st.sampled_from(words), max_size=40).map(" ".join), max_size=12)
)


def fold(text):
    return text.lower().split()


def is_contained(words, other):
    """Return True if a list of words is contained in a longer one."""
    starts = range(len(other) - len(words) + 1)
    return 0 < len(words) < len(other) and any(other[i : i + len(words)] == words for i in starts)


def find_containers(texts):
    """Return for each text the positions of those that contain it and are contained in none, by comparing all pairs."""
    split = [fold(text) for text in texts]
    containers = [{i for i, other in enumerate(split) if is_contained(words, other)} for words in split]
    return [{i for i in rows if not containers[i]} for rows in containers]


@given(some_texts, st.randoms(use_true_random=False))
@example(["a b a", "b a", "a", "b", ""], None)
@example(["w " * 33, "w " * 32, "w " * 17, "w " * 16, "w"], None)
@example(["a b c d e f g h i j k l m n o p q", "b c d e f g h i j k l m n o p q", "q a", "p q"], None)
def test_contained_texts_are_those_of_all_pairs(texts, random):
    texts = list({" ".join(fold(text)): text for text in texts}.values())
    containers = find_containers(texts)
    result = Containment(texts)
    assert result.is_contained.tolist() == [bool(rows) for rows in containers]
    is_chosen = np.array([random is not None and random.random() < 0.5 for _ in texts], bool)
    is_chosen &= ~result.is_contained
    fractions = result.get_fractions(is_chosen)
    for fraction, rows, itself in zip(fractions, containers, is_chosen):
        chosen = [is_chosen[i] for i in rows] or [itself]
        assert (fraction == 0, fraction == 1) == (not any(chosen), all(chosen))


def test_example_of_the_docstring():
    result = Containment(["so good", "good", "good tea"])
    assert result.is_contained.tolist() == [False, True, False]
    assert result.get_fractions(np.array([True, False, False])).tolist() == [1.0, 0.5, 0.0]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=70), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_suffixes_are_sorted(words, lengths):
    words = words[: sum(lengths)]
    ends = [end for end in np.cumsum(lengths).tolist() if end < len(words)] + [len(words)]
    left = np.array([min(end for end in ends if end > i) - i for i in range(len(words))], np.int32)
    order, ranks = containment.sort_suffixes(np.array(words, np.int32), left)
    suffixes = [words[i : i + count] for i, count in enumerate(left)]
    assert [suffixes[i] for i in order] == sorted(suffixes)
    for i, suffix in enumerate(suffixes):
        assert ranks[i] == 1 + sum(other < suffix for other in suffixes)


def test_many_different_words():
    texts = [" ".join(f"word{number}" for number in range(row, row + 40)) for row in range(0, 3000, 7)]
    contained = " ".join(f"word{number}" for number in range(903, 930))
    result = Containment([*texts, contained])
    assert result.is_contained.tolist() == [False] * len(texts) + [True]
    is_chosen = np.zeros(len(texts) + 1, bool)
    containers = [row for row, text in enumerate(texts) if contained in text]
    assert len(containers) == 2
    is_chosen[containers[0]] = True
    assert result.get_fractions(is_chosen)[-1] == 0.5


def test_the_size_of_blocks_makes_no_difference(monkeypatch):
    rng = np.random.default_rng(3)
    texts = list({" ".join(rng.choice(["x", "y"], rng.integers(1, 20))) for _ in range(300)})
    expected = Containment(texts).is_contained
    assert 0 < expected.sum() < len(texts)
    monkeypatch.setattr(containment, "BLOCK_TEXTS", 7)
    assert (Containment(texts).is_contained == expected).all()


def test_no_texts():
    assert Containment([]).get_fractions(np.zeros(0, bool)).tolist() == []
    assert Containment(["", "a"]).get_fractions(np.array([True, False])).tolist() == [1.0, 0.0]


def test_a_long_search_is_announced(monkeypatch, capsys):
    monkeypatch.setattr(containment, "ANNOUNCED_WORDS", 3)
    assert Containment(["on and on", "and on", "off"]).is_contained.tolist() == [False, True, False]
    assert "Checking which of 2 texts are contained in others (5 words)" in capsys.readouterr().out


@pytest.mark.parametrize("words", [2, 4])
def test_splits_of_texts_with_few_different_words_share_nothing(words):
    rng = np.random.default_rng(words)
    letters = np.array(list("acgt"))[:words]
    texts = [" ".join(rng.choice(letters, rng.integers(1, 30))) for _ in range(400)]
    labels = np.arange(400) % 2
    for training, validation in (split_train_validation(texts, labels, 0.2, 5), *split_folds(texts, labels, 3, 5)):
        train, held_out = ([fold(texts[row]) for row in rows] for rows in (training, validation))
        assert not any(is_contained(a, b) or is_contained(b, a) or a == b for a in train for b in held_out)
        assert len(train) + len(held_out) > 200


def test_a_split_stays_what_it_was():
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
