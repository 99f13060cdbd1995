"""Splits of a data set: no data leakage, checked in O(n²), and only the seed decides."""

import json
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pytorch_pretrained_bert.tokenization import BasicTokenizer

from textbert.data.normalization import hash_text, normalize_text
from textbert.data.splits import split_folds, split_latest, split_train_validation, stratified_sample


def fold(text):
    return " ".join(text.lower().split())


def is_contained(text, other):
    """Return True if a text is contained in another word for word, with case and white space folded, or equals it."""
    text, other = fold(text), fold(other)
    return text == other or (text != "" and f" {text} " in f" {other} ")


def check_split(texts, train, validation):
    """Check all pairs for data leakage, and that a text is left out only where it would leak."""
    train, validation = train.tolist(), validation.tolist()
    assert train == sorted(set(train))
    assert validation == sorted(set(validation))
    assert not set(train) & set(validation)
    for i in train:
        for j in validation:
            assert not is_contained(texts[i], texts[j]), (texts[i], texts[j])
            assert not is_contained(texts[j], texts[i]), (texts[j], texts[i])
    for row in set(range(len(texts))) - set(train) - set(validation):
        assert any(is_contained(texts[row], texts[i]) for i in train), texts[row]
        assert any(is_contained(texts[row], texts[j]) for j in validation), texts[row]


def make_texts(n, seed=0):
    """Return n texts with labels; each has a word of its own, so that none contains another."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    return [f"text{i} word{rng.integers(5)} common" for i in range(n)], labels


def test_the_split_is_stratified_and_seeded():
    texts, labels = make_texts(300)
    train, validation = split_train_validation(texts, labels, 0.1, 42)
    assert (len(train), len(validation)) == (270, 30)
    assert labels[validation].sum() == pytest.approx(0.1 * labels.sum(), abs=1)
    check_split(texts, train, validation)
    repeated = split_train_validation(texts, labels, 0.1, 42)
    assert all(np.array_equal(a, b) for a, b in zip((train, validation), repeated))
    assert not np.array_equal(split_train_validation(texts, labels, 0.1, 43)[1], validation)
    assert len(split_train_validation(texts, labels, 0.5, 42)[1]) == 150


def test_two_fresh_processes_split_alike():
    """Python hashes strings differently in each process; the split must not depend on it."""
    program = """
import json, numpy as np, sys
sys.path.insert(0, sys.argv[1])
from textbert.data.splits import stratified_sample, split_train_validation
rng = np.random.default_rng(0)
words = "good bad food soup place very the a and not".split()
texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(400)]
labels = np.array([i % 2 for i in range(400)])
splits = split_train_validation(texts, labels, 0.2, 7)
print(json.dumps([texts, *[rows.tolist() for rows in splits], stratified_sample(labels, 99, 7).tolist()]))
"""
    outputs = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(ROOT)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    texts, train, validation, _ = json.loads(outputs[0])
    check_split(texts, np.array(train), np.array(validation))
    assert min(len(train), len(validation), 400 - len(train) - len(validation)) > 10  # every case is there


@pytest.mark.parametrize(
    ("sentence", "letter"), [("この店のスープはおいしかった", "あ"), ("อาหารอร่อยมาก", "ก"), ("今天的汤很好", "一")]
)
def test_contained_texts_in_scripts_without_spaces(sentence, letter):
    variants = [sentence + chr(ord(letter) + i) for i in range(30)]
    texts, labels = variants + [f"{letter}{text}{letter}" for text in variants], [0, 1] * 30
    for train, validation in [split_train_validation(texts, labels, 0.2, 1), *split_folds(texts, labels, 3, 1)]:
        assert len(train) + len(validation) == 60
        assert {row % 30 for row in train}.isdisjoint({row % 30 for row in validation})


def test_contained_texts_by_hand():
    """Equal texts, contained texts, and a text that is contained in texts of both sets."""
    texts, labels = make_texts(40)
    labels[:] = np.arange(40) % 2
    train, validation = split_train_validation(texts, labels, 0.25, 3)
    in_train, in_validation = texts[train[0]], texts[validation[0]]
    more = [
        in_train.upper(),  # equal except for its case
        f"  {in_validation.replace(' ', chr(9))}\n",  # equal except for its white space
        in_train.split()[0],  # contained in a training text
        in_validation.split()[0].capitalize(),
        "common",  # contained in texts of both sets
        "comm",  # a part of a word is not contained word for word
    ]
    both = texts + more
    train, validation = split_train_validation(both, [*labels, 0, 1, 0, 1, 0, 1], 0.25, 3)
    check_split(both, train, validation)
    set_of_row = dict.fromkeys(train, "train") | dict.fromkeys(validation, "validation")
    assert set_of_row[40] == set_of_row[42] == set_of_row[texts.index(in_train)]
    assert set_of_row[41] == set_of_row[43] == set_of_row[texts.index(in_validation)]
    assert 44 not in set_of_row
    assert 45 in set_of_row
    assert len(set_of_row) == 45


fragments = st.lists(st.sampled_from(["a", "B", "b", "ab", "c"]), max_size=5).map(" ".join)


@given(texts=st.lists(fragments, max_size=40), seed=st.integers(0, 99), share=st.sampled_from([0.1, 0.3, 0.5]))
def test_no_text_leaks(texts, seed, share):
    """A tiny alphabet makes nearly every text contain another."""
    distinct, distinct_labels = make_texts(24)
    texts = [*distinct, *texts, *(" ".join([text, "c"]) for text in texts[:3])]
    labels = np.array([*distinct_labels, *(i % 2 for i in range(len(texts) - 24))])
    try:
        train, validation = split_train_validation(texts, labels, share, seed)
    except ValueError as error:  # a small set may lack a class
        assert f"label more, or set VALIDATION_SHARE to a larger fraction than {share}" in str(error)
        return
    check_split(texts, train, validation)
    for rows in (train, validation):
        assert set(labels[rows]) == {0, 1}


SCARCE = r"label {} has too few different texts \({}, without those that others contain\): label more"


@pytest.mark.parametrize(
    ("texts", "labels", "share", "message"),
    [
        (["a b", "c d", "e f"], [0, 1, 0], 0.1, f"^cannot split 3 rows: {SCARCE.format(1, 1)}$"),
        (["a", "b", "c", "d"] * 5, [0, 0, 0, 0] * 5, 0.5, r"20 rows with the labels \[0\]: expected both classes"),
        (["A", "a "] * 75, [0, 1] * 75, 0.2, "^cannot split 150 rows: all 150 texts are equal: .* set TEXT_COLUMN"),
        (["a", "b"] * 75, [0, 1] * 75, 0.2, f"^cannot split 150 rows: {SCARCE.format(0, 1)}$"),
        (["a", "so b", "b", "b"], [0, 0, 1, 1], 0.2, f"set of . rows would lack label 1: {SCARCE.format(1, 0)}$"),
        (
            [f"w{i}" for i in range(10)],
            [0, 1] * 5,
            0.1,
            f"^cannot split 10 rows: {SCARCE.format(0, 5)}, or set VALIDATION_SHARE to a larger fraction than 0.1$",
        ),
        (["a", "b"], [0, 1], 1.5, "share is 1.5, but expected a fraction between 0 and 1"),
    ],
)
def test_an_impossible_split_is_refused(texts, labels, share, message):
    with pytest.raises(ValueError, match=message):
        split_train_validation(texts, np.array(labels), share, 0)


def test_the_set_the_label_and_the_parameter_are_named():
    texts, labels = [f"w{i}" for i in range(95)], [0] * 93 + [1] * 2
    for held_out in ("dev", "validation"):
        remedy = f"set {held_out.upper()}_SHARE to a larger fraction than 0.2"
        message = f"^the {held_out} set of 19 rows would lack label 1: {SCARCE.format(1, 2)}, or {remedy}$"
        with pytest.raises(ValueError, match=message):
            split_train_validation(texts, labels, 0.2, 0, held_out=held_out)
    assert (
        93 in split_train_validation(texts, labels, 0.5, 0)[1] or 94 in split_train_validation(texts, labels, 0.5, 0)[1]
    )


def test_a_wrong_seed_or_number_of_folds_is_not_blamed_on_the_texts():
    texts, labels = make_texts(40)
    for split in (lambda: split_train_validation(texts, labels, 0.2, -1), lambda: split_folds(texts, labels, 3, -1)):
        with pytest.raises(ValueError, match="Seed must be between 0"):
            split()
    with pytest.raises(ValueError, match="n_splits=1"):
        split_folds(texts, labels, 1, 0)


@pytest.mark.parametrize("folds", [2, 5])
def test_each_text_is_held_out_once(folds):
    texts, labels = make_texts(103)
    texts += [texts[0].upper(), texts[1].split()[0], "common", f"so: {texts[2]}"]
    labels = np.append(labels, [labels[0], 0, 1, labels[2]])
    splits = list(split_folds(texts, labels, folds, 42))
    assert len(splits) == folds
    held_out = np.concatenate([validation for _, validation in splits])
    # all but the row contained in texts of several folds; one contained in a single text goes where that text goes
    assert sorted(held_out) == [row for row in range(107) if row != 105]
    for train, validation in splits:
        check_split(texts, train, validation)
        assert labels[validation].sum() == pytest.approx(labels.sum() / folds, abs=3)
        for row, related in ((0, 103), (1, 104), (2, 106)):
            assert (row in validation) == (related in validation)
    repeated = list(split_folds(texts, labels, folds, 42))
    assert all(np.array_equal(a, b) for fold1, fold2 in zip(splits, repeated) for a, b in zip(fold1, fold2))
    reseeded = list(split_folds(texts, labels, folds, 43))
    assert not np.array_equal(reseeded[0][1], splits[0][1])


@given(texts=st.lists(fragments, max_size=30), seed=st.integers(0, 99), folds=st.sampled_from([2, 3, 5]))
def test_no_text_leaks_between_folds(texts, seed, folds):
    distinct, distinct_labels = make_texts(24)
    texts = [*distinct, *texts]
    labels = np.array([*distinct_labels, *(i % 2 for i in range(len(texts) - 24))])
    held_out = []
    for train, validation in split_folds(texts, labels, folds, seed):
        check_split(texts, train, validation)
        assert set(labels[train]) == set(labels[validation]) == {0, 1}
        held_out += validation.tolist()
    assert len(held_out) == len(set(held_out))
    assert set(range(24)) <= set(held_out)


@pytest.mark.parametrize(
    ("texts", "labels", "folds", "message"),
    [
        (list("abcd"), [0, 1, 0, 1], 5, f"^cannot split 4 rows: {SCARCE.format(0, 2)}, or set FOLDS to fewer than 5$"),
        (list("abcdefgh"), [0, 0, 0, 0, 0, 0, 0, 1], 3, f" set of . rows would lack label 1: {SCARCE.format(1, 1)}$"),
        (
            list("abcdefgh"),
            [0, 0, 0, 0, 0, 0, 1, 1],
            3,
            "^the held-out set of 2 rows .*, or set FOLDS to fewer than 3$",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_too_many_folds(texts, labels, folds, message):
    with pytest.raises(ValueError, match=message):
        list(split_folds(texts, np.array(labels), folds, 0))


@pytest.mark.parametrize("rows", [10, 11, 50, 98, 99, 100, 101, 10_000, None])
def test_stratified_sample(rows):
    labels = np.array([0, 0, 0, 1] * 25)
    sample = stratified_sample(labels, rows, 5)
    expected = 100 if rows is None else min(rows, 100)
    assert len(set(sample.tolist())) == len(sample) == expected
    assert sample.tolist() == sorted(sample)
    assert labels[sample].sum() == pytest.approx(expected / 4, abs=1)
    assert np.array_equal(stratified_sample(labels, rows, 5), sample)
    if expected < 99:
        assert not np.array_equal(stratified_sample(labels, rows, 6), sample)


# ---------- Normalization: when two texts are the same ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("The SOUP was\tgood", "the soup  was good\r\n"),
        ("caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"),  # composed and decomposed
        ("a\u0323\u0307", "a\u0307\u0323"),  # combining characters in another order
        ("10\u00a0euros\u202f!", "10 euros !"),  # non-breaking spaces
        ("so\u3000good\u2028indeed\u2029", "so good indeed"),
        ("so\u200bgood", "sogood"),  # zero width
        ("\ufeffgood", "good"),  # a byte order mark
        ("restau\u00adrant", "restaurant"),  # a soft hyphen
        ("\u200fgood\u200e \u202agood\u202c", "good good"),  # direction marks
        ("I \u2764\ufe0f tea", "I \u2764 tea"),  # an emoji with and without its variation selector
        ("good\x0b\x00 tea\x1f\x7f", "good tea"),  # control characters
        ("A\x85B", "ab"),  # one word to BERT
        ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
        ("broken \ufffd\ud83d\ue001text", "broken text"),
        ("Straße", "STRASSE"),
        ("ΟΔΟΣ", "οδοσ"),
        ("İYİ", "iyi"),
        ("味道 很好 吃", "味道很好吃"),
        ("我喜欢tea", "我 喜 欢 tea"),
        ("\ufa10", "\u585a"),  # a compatibility ideograph
        ("\u200b\ufeff", ""),
    ],
)
def test_equal_texts(text, other):
    assert normalize_text(text) == normalize_text(other)
    assert hash_text(text) == hash_text(other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("no where", "nowhere"),
        ("no\u00a0where", "nowhere"),
        ("A\x85B", "A B"),
        ("cafe", "café"),
        ("it's", "it\u2019s"),
        ("good", "ｇｏｏｄ"),
        ("fish &amp; chips", "fish & chips"),
        ("good.", "good ."),
        ("good!", "good!!"),
        ("x\u00b2", "x2"),
        ("ırmak", "irmak"),
        ("\\n", "\n"),
        ("味", "未"),
        ("\U0001f44d", "\U0001f44e"),
    ],
)
def test_different_texts(text, other):
    assert hash_text(text) != hash_text(other)


odd_characters = st.sampled_from(
    [
        *"aB .é\n\t你",
        *"\x00\x0b\x1c\x85\xa0\xad\u0301\u0323\u034f\u180e\u200b\u2028\u3000\ufe0f\ufeff\ufffd",
        "İ",
        "\ue000",
    ]
)


@given(st.lists(st.one_of(st.characters(), odd_characters), max_size=30).map("".join))
def test_equal_texts_are_equal_to_bert(text):
    """Except for case foldings that `lower()` does not do, such as ß to ss."""
    assert normalize_text(normalize_text(text)) == normalize_text(text)
    assert hash_text(f" {text}\u200b\n") == hash_text(text)
    if all(char.casefold() == char.lower() for char in text) and "Σ" not in text:
        tokenize = BasicTokenizer(do_lower_case=True).tokenize
        assert tokenize(normalize_text(text)) == tokenize(text)


@given(st.lists(st.one_of(st.characters(exclude_categories=["Cs"]), odd_characters), max_size=20).map("".join))
def test_the_unicode_normal_form_makes_no_difference(text):
    for form in ("NFC", "NFD"):
        assert normalize_text(unicodedata.normalize(form, text)) == normalize_text(text)


def test_texts_with_invisible_differences_stay_together():
    """So do contained texts, even in Chinese."""
    texts, labels = make_texts(40)
    labels[:] = np.arange(40) % 2
    plain = [f"{text} 味道很好{chr(0x4E00 + row)}吃 caf\u00e9 soup" for row, text in enumerate(texts)]
    equal = [text.replace(" ", "\u00a0").replace("\u00e9", "e\u0301") + "\u200b" for text in plain]
    contained = [f"{chr(0x4E00 + row)}吃\u3000CAFE\u0301" for row in range(40)]
    both, all_labels = plain + equal + contained, [*labels] * 3
    for train, validation in (split_train_validation(both, all_labels, 0.25, 3), *split_folds(both, all_labels, 4, 3)):
        assert len(train) + len(validation) == 120
        for row in range(40):
            assert (row in train) == (row + 40 in train) == (row + 80 in train)


@pytest.mark.parametrize("index", [range(60, 0, -1), [7] * 60, pd.MultiIndex.from_product([[1, 2], range(30)])])
def test_the_index_of_a_series_does_not_matter(index):
    texts, labels = make_texts(60)
    series = pd.Series(texts, index), pd.Series(labels, index)
    pairs = [
        (split_train_validation(texts, labels, 0.25, 1), split_train_validation(*series, 0.25, 1)),
        *zip(split_folds(texts, list(labels), 3, 1), split_folds(*series, 3, 1)),
        ([stratified_sample(labels, 20, 1)], [stratified_sample(series[1], 20, 1)]),
    ]
    assert len(pairs) == 5
    assert all(np.array_equal(a, b) for expected, actual in pairs for a, b in zip(expected, actual))


def test_texts_and_labels_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(4,\), \(3,\)"):
        split_train_validation(list("abcd"), [0, 1, 0], 0.5, 0)
    with pytest.raises(ValueError, match=r"shapes \(2,\), \(1,\)"):
        next(split_folds(["a", "b"], [0], 2, 0))


# ---------- Groups ----------------------------------------------------------------------------------------------------


def check_groups(groups, train, validation):
    """Check that no group is on both sides."""
    groups = np.asarray(groups, object)
    assert not set(groups[train]) & set(groups[validation])


group_lists = st.lists(st.integers(1, 12), min_size=4, max_size=25)


@given(sizes=group_lists, seed=st.integers(0, 99), share=st.sampled_from([0.1, 0.2, 0.37, 0.5]))
def test_no_group_is_on_both_sides_and_each_row_is_used(sizes, seed, share):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    texts, labels = make_texts(len(groups), seed)
    try:
        train, validation = split_train_validation(texts, labels, share, seed, groups)
    except ValueError as error:  # a class is in too few groups
        assert ": use more groups, " in str(error) and "or do without groups: GROUP_COLUMN = None" in str(error)
        return
    check_groups(groups, train, validation)
    assert sorted([*train, *validation]) == list(range(len(groups)))
    assert set(labels[train]) == set(labels[validation]) == {0, 1}
    order = np.random.default_rng(seed).permutation(len(groups))
    names = np.array([f"customer {-group}" for group in groups], object)  # other names, and rows in another order
    shuffled = split_train_validation([texts[i] for i in order], labels[order], share, seed, names[order])
    for rows, expected in zip(shuffled, (train, validation)):
        assert sorted(order[rows]) == expected.tolist()


@given(sizes=group_lists, seed=st.integers(0, 99), folds=st.sampled_from([2, 3, 5]))
@pytest.mark.filterwarnings("error")
def test_each_group_is_held_out_in_one_fold(sizes, seed, folds):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    texts, labels = make_texts(len(groups), seed)
    try:
        splits = list(split_folds(texts, labels, folds, seed, groups))
    except ValueError as error:
        assert ": use more groups, " in str(error) and "or do without groups: GROUP_COLUMN = None" in str(error)
        return
    for train, validation in splits:
        check_groups(groups, train, validation)
        assert sorted([*train, *validation]) == list(range(len(groups)))
    assert sorted(np.concatenate([validation for _, validation in splits])) == list(range(len(groups)))
    again = split_folds(texts, labels, folds, seed, groups.tolist())
    assert all(np.array_equal(a, b) for one, other in zip(splits, again) for a, b in zip(one, other))


@given(
    rows=st.lists(st.tuples(fragments, st.integers(0, 9)), max_size=40),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.1, 0.3, 0.5]),
)
def test_neither_groups_nor_texts_leak(rows, seed, share):
    """Groups that share texts are united, or else rows are left out, but only those whose text is on both sides."""
    distinct, distinct_labels = make_texts(24)
    texts = [*distinct, *(text for text, _ in rows)]
    groups = np.array([*(i % 8 for i in range(24)), *(group for _, group in rows)])
    labels = np.array([*distinct_labels, *(i % 2 for i in range(len(rows)))])
    splits = [split_train_validation(texts, labels, share, seed, groups), *split_folds(texts, labels, 2, seed, groups)]
    for train, validation in splits:
        check_groups(groups, train, validation)
        sides = set(groups[train]), set(groups[validation])
        for i in train:
            assert not any(is_contained(texts[i], texts[j]) or is_contained(texts[j], texts[i]) for j in validation)
        for row in set(range(len(texts))) - {*train, *validation}:
            other_side = [i for i in range(len(texts)) if (groups[i] in sides[0]) != (groups[row] in sides[0])]
            assert any(is_contained(texts[row], texts[i]) for i in other_side), texts[row]


def test_groups_are_stratified_and_described(capsys):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 300, 3000)
    texts, labels = make_texts(3000), (rng.random(3000) < 0.08).astype(int)
    train, validation = split_train_validation(texts[0], labels, 0.2, 1, groups)
    assert len(validation) == pytest.approx(600, abs=10) and labels[validation].mean() == pytest.approx(0.08, abs=0.01)
    counts = [len(np.unique(groups[rows])) for rows in (train, validation)]
    shares = [f"{labels[rows].mean():.1%}" for rows in (train, validation)]
    assert capsys.readouterr().out == (
        f"groups: {counts[0]} with {len(train):,} rows to train, {shares[0]} of class 1; "
        f"{counts[1]} with {len(validation)} rows held out, {shares[1]} of class 1\n"
    )
    assert not np.array_equal(split_train_validation(texts[0], labels, 0.2, 2, groups)[1], validation)


def test_groups_that_share_texts_stay_together():
    texts, labels = make_texts(100)
    labels[:] = np.arange(100) % 2
    groups = np.arange(100) // 5
    texts[5], texts[12] = texts[0].upper(), texts[8].split()[0]  # of groups 1 and 2, equal to and contained in others
    for seed in range(5):
        for rows in split_train_validation(texts, labels, 0.2, seed, groups):
            assert (0 in groups[rows]) == (1 in groups[rows]) == (2 in groups[rows])


def test_a_text_of_too_many_groups_is_left_out_of_training(capsys):
    texts, labels = make_texts(100)
    labels[:] = np.arange(100) % 2
    texts[::5] = ["Thank you"] * 20  # of each group; all of them together cannot be divided
    train, validation = split_train_validation(texts, labels, 0.2, 1, np.arange(100) // 5)
    assert len(validation) == 20 and len(train) == 64 and not {*range(0, 100, 5)} & {*train}
    assert "; 16 rows left out, whose texts are on both sides\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 1] * 10, [7] * 20, "^cannot split 20 rows: all 20 rows are in a single group, by GROUP_COLUMN or"),
        ([0] * 15 + [1] * 5, [*range(15), *[20] * 5], "label 1 is in 1 of 16 groups, which are not divided: use more"),
        ([0] * 20, range(20), r"cannot split 20 rows with the labels \[0\]: expected both classes"),
        ([], [], "cannot split 0 rows"),
        ([0, 1] * 10, range(19), "shapes"),
    ],
)
def test_impossible_splits_of_groups_are_refused(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        split_train_validation([f"text {i} of {i * i}" for i in range(len(labels))], labels, 0.2, 0, list(groups))


@pytest.mark.filterwarnings("error")
def test_impossible_folds_of_groups_are_refused():
    texts, labels = make_texts(30)
    for groups, reason in (
        ([1] * 30, "all 30 rows are in a single group, .*: use more groups, or do without groups"),
        (
            np.arange(30) // 15,
            "label 0 is in 2 of 2 groups, .*: use more groups, set FOLDS to fewer than 5, or do without",
        ),
    ):
        with pytest.raises(ValueError, match=f"^cannot split 30 rows: {reason}"):
            split_folds(texts, labels, 5, 0, groups)


# ---------- Times -----------------------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.tuples(fragments, st.integers(0, 99)), max_size=40),
    share=st.sampled_from([0.1, 0.3, 0.5]),
    seed=st.integers(0, 99),
)
def test_the_latest_are_held_out_and_no_text_leaks(rows, share, seed):
    """Rows are left out only if their text is on the other side; the order of the rows does not matter."""
    distinct, distinct_labels = make_texts(24)
    texts = [*distinct, *(text for text, _ in rows)]
    times = pd.Series(pd.to_datetime([*range(0, 96, 4), *(day for _, day in rows)], unit="D"))
    labels = np.array([*distinct_labels, *(i % 2 for i in range(len(rows)))])
    try:
        train, validation = split_latest(texts, labels, times, share)
    except ValueError as error:
        assert "would lack label" in str(error)
        assert f": set DEV_SHARE to another fraction than {share}, or TIME_COLUMN = None" in str(error)
        return
    assert times[train].max() < times[validation].min()
    for i in train:
        assert not any(is_contained(texts[i], texts[j]) or is_contained(texts[j], texts[i]) for j in validation)
    left_out = set(range(len(texts))) - {*train, *validation}
    assert not left_out & set(range(24)) or len(rows)
    boundary = times[validation].min() if not left_out else None
    for row in left_out:
        others = [i for i in range(len(texts)) if times[i] != times[row]]
        assert any(is_contained(texts[row], texts[i]) for i in others), texts[row]
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = split_latest([texts[i] for i in order], labels[order], times.iloc[order], share)
    assert [sorted(order[part]) for part in shuffled] == [train.tolist(), validation.tolist()]
    assert boundary is None or len(train) + len(validation) == len(texts)


def test_texts_on_both_sides_of_the_boundary_by_hand(capsys):
    texts = ["so good soup", "bad tea", "thank you", "all of it was bad", "thank you", "good soup", "bad", "nice"]
    texts += [f"only {i}" for i in range(12)]
    labels, times = [0, 1] * 10, pd.Series(pd.to_datetime([1, 2, 3, 4, 91, 92, 93, 94, *range(5, 17)], unit="D"))
    train, validation = split_latest(texts, labels, times, 0.2)
    # "thank you" is left out of training; "good soup" and "bad" are contained in earlier texts
    assert train.tolist() == [0, 1, 3, *range(8, 20)] and validation.tolist() == [4, 7]
    assert capsys.readouterr().out == (
        "1 earlier rows are left out, whose text is among the later ones, too, or in one of them\n"
        "2 later rows are left out, whose text is contained in an earlier one\n"
    )


def test_impossible_splits_by_time_are_refused():
    texts, labels = make_texts(20)
    with pytest.raises(ValueError, match="^all 20 rows have the same time, .*: set TIME_COLUMN = None$"):
        split_latest(texts, labels, pd.Series(pd.to_datetime([5] * 20, unit="D")), 0.2)
    with pytest.raises(ValueError, match="^the dev set of 4 rows would lack label 1: set DEV_SHARE"):
        split_latest(texts, [0, 1] * 8 + [0] * 4, pd.Series(pd.to_datetime(range(20), unit="D")), 0.2)
