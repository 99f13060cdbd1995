"""Near duplicates are those of comparing all pairs, whatever the texts are, and splits keep them together."""

import csv
import gzip
import json
import os
import subprocess
import sys
from itertools import chain, combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from textbert.data import near_duplicates, quality, task, tsv
from textbert.data.near_duplicates import (
    MIN_WORDS,
    THRESHOLD,
    describe_differences,
    extract_words,
    find_components,
    find_near_duplicates,
    jaccard_similarity,
)
from textbert.data.normalization import normalize_text
from textbert.data.splits import split_folds, split_train_validation

IMDB = Path(os.environ.get("BERT_TEST_DATA") or ROOT.parent / "shared" / "data", "imdb", "train.csv.gz")

# with few different words, many pairs of texts are near the threshold
few_words = st.sampled_from([["a", "b"], ["A", "b,", "c", "d"], list("abcdefghijkl")])
some_texts = few_words.flatmap(
    lambda words: st.lists(st.lists(st.sampled_from(words), max_size=14).map(" ".join), max_size=14)
)


def partition(groups):
    """Return the groups as a set of frozensets of positions."""
    return {frozenset(np.flatnonzero(groups == group).tolist()) for group in set(groups.tolist())}


def similarity_of_sets(items, others):
    return len(items & others) / len(items | others) if items | others else 0.0


def similarity(text, other):
    return similarity_of_sets(*(set(pairwise(extract_words(each))) for each in (text, other)))


def are_near(text, other):
    if normalize_text(text) == normalize_text(other):
        return True
    return min(len(extract_words(each)) for each in (text, other)) >= MIN_WORDS and similarity(text, other) >= THRESHOLD


def find_groups(texts):
    """Return the partition into connected components by comparing all pairs."""
    group = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if are_near(texts[i], texts[j]):
            group = [group[i] if each == group[j] else each for each in group]
    return partition(np.array(group, int))


def make_text(rng, words=60):
    return " ".join(f"w{rng.integers(2000)}" for _ in range(words))


def change_words(text, fraction, rng):
    """Return the text with other words in place of some."""
    return " ".join(f"other{rng.integers(2000)}" if rng.random() < fraction else word for word in text.split())


@given(some_texts)
@example(["a b c d e f g h i j", "a b c d x f g h i j"])  # 9 + 9 bigrams, 7 of them shared: 7 / 11
@example(["a b c d e f g h i", "a b c d x f g h i"])  # 6 / 10, exactly the threshold
@example(["a b c d e f g h", "a b c d x f g h"])  # 5 / 9
@example(["a b c d", "a b c d!", "A B C  D", "a b c d e", "a b c d e!"])
@example(["", " ", "\u200b", "👍", "👎", "!", "!!"])
def test_groups_are_those_of_all_pairs(texts):
    assert partition(find_near_duplicates(texts)) == find_groups(texts)


def test_similarity_by_hand():
    assert jaccard_similarity("The soup was good.", "the soup, was GOOD") == 1
    assert jaccard_similarity("a b c d e f g h i j", "a b c d x f g h i j") == 7 / 11
    assert jaccard_similarity("", "one") == jaccard_similarity("one", "one") == 0


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("great food", "great place", False),
        ("great food", "Great  food", True),
        ("the food is great", "the food is bad", False),
        ("so so so good", "so so good tea", False),
        ("so so so good it is", "so so good it is", True),
        ("great food :)", "great food :(", False),
        ("👍", "👎", False),
        ("", "good", False),
        ("Dear Ann, your order 17 has been shipped today.", "Dear Bob, your order 17 has been shipped today!", True),
        (
            "this place is run with so much care, I'd come again",
            "this place is run with so much care, I’d come again",
            True,
        ),
        (
            "I had not expected so much of the colour in this film",
            "I had not expected so much of the color in this film",
            True,
        ),
        ("这家餐厅的汤非常好喝我们下次还会再来", "这家餐厅的汤非常好喝我们下次一定再来", True),
        ("这家餐厅的汤非常好喝我们下次还会再来", "今天的天气不错我们去公园散步吧好吗", False),
        ("この店のスープはとてもおいしかったです", "この店のスープはとてもおいしかったよ", True),
        ("อาหารที่ร้านนี้อร่อยมากจริงๆ", "อาหารที่ร้านนี้อร่อยมากจริง", True),
        ("यह फ़िल्म बहुत अच्छी थी और मुझे पसंद आई", "यह फ़िल्म बहुत अच्छी थी और मुझे पसंद आयी", True),
        ("ha " * 100_000, "ha ha ha ha ha ha", True),
        ("ha " * 100_000, "ho " * 100_000, False),
        ("x" * 1_000_000, "x" * 999_999, False),
    ],
)
def test_pairs(text, other, expected):
    first, second = find_near_duplicates([text, other])
    assert (first == second) == expected == are_near(text, other)


def test_chains_are_one_group():
    """The ends of a chain differ, but a split between them would separate two near duplicates somewhere."""
    words = [f"w{i}" for i in range(60)]
    chain = [" ".join(words[start : start + 24]) for start in range(0, 36, 4)]
    assert similarity(chain[0], chain[1]) >= THRESHOLD > similarity(chain[0], chain[2]) and not are_near(
        chain[0], chain[-1]
    )
    assert find_near_duplicates([*chain, "quite another text of a few words"]).tolist() == [0] * len(chain) + [1]


@pytest.mark.parametrize(
    ("words", "fraction", "recall"), [(130, 0.01, 1), (130, 0.05, 1), (130, 0.1, 0.85), (25, 0.05, 0.8)]
)
def test_planted_versions_are_found(words, fraction, recall):
    """Precision is 1 by construction; recall is below 1 only for versions less similar than the threshold."""
    rng = np.random.default_rng(0)
    originals = [make_text(rng, words) for _ in range(500)]
    versions = [change_words(text, fraction, rng) for text in originals]
    groups = find_near_duplicates(originals + versions)
    is_found = groups[:500] == groups[500:]
    assert is_found.tolist() == [are_near(*pair) for pair in zip(originals, versions)]
    assert is_found.mean() >= recall and len(set(groups.tolist())) == 1000 - is_found.sum()


def test_recall_near_the_threshold():
    """Of pairs with a similarity from 0.6 to 0.65, all but one in thousands are found."""
    rng = np.random.default_rng(1)
    originals = [make_text(rng, 100) for _ in range(6000)]
    versions = [change_words(text, 0.12, rng) for text in originals]
    groups = find_near_duplicates(originals + versions)
    similarities = np.array([similarity(*pair) for pair in zip(originals, versions)])
    is_found = groups[:6000] == groups[6000:]
    is_close = (similarities >= THRESHOLD) & (similarities < THRESHOLD + 0.05)
    assert is_close.sum() > 1000 and is_found[is_close].mean() >= 0.999
    assert is_found[similarities >= THRESHOLD + 0.05].all() and not is_found[similarities < THRESHOLD].any()


def test_a_template_does_not_take_quadratic_time(monkeypatch):
    """5,000 copies are one group after each is compared with few others, and so are many that are almost similar."""
    compared = 0

    def count_pairs(signatures):
        nonlocal compared
        for left, right in bucket_pairs(signatures):
            compared += len(left)
            yield left, right

    bucket_pairs = near_duplicates._bucket_pairs
    monkeypatch.setattr(near_duplicates, "_bucket_pairs", count_pairs)
    copies = [
        f"Dear customer {i}, thank you for your order, it will be sent to you on day {i % 31}." for i in range(5000)
    ]
    rng = np.random.default_rng(2)
    common = make_text(rng, 40)
    similar = [f"{common} {make_text(rng, 22)}" for _ in range(5000)]
    assert jaccard_similarity(*similar[:2]) < THRESHOLD
    groups = find_near_duplicates(copies + similar)
    assert set(groups[:5000]) == {0} and len(set(groups[5000:].tolist())) == 5000
    bound = 2 * near_duplicates.BANDS * near_duplicates.WINDOW * 10_000
    assert compared <= bound < 5000 * 4999  # two passes; all pairs would be 25 million


def test_order_and_processes_make_no_difference():
    rng = np.random.default_rng(3)
    originals = [make_text(rng, 30) for _ in range(300)]
    texts = [*originals, *(change_words(text, 0.1, rng) for text in originals), *originals[:50]]
    groups = find_near_duplicates(texts)
    assert 300 < groups.max() + 1 < 600 and pd.unique(groups).tolist() == list(range(groups.max() + 1))
    order = np.random.default_rng(4).permutation(len(texts))
    shuffled = find_near_duplicates([texts[row] for row in order])
    assert partition(groups) == {frozenset(order[list(rows)].tolist()) for rows in partition(shuffled)}
    # with so few bands, which pairs are found depends on the hashes
    program = "import sys; from textbert.data import near_duplicates; near_duplicates.BANDS = 4\n"
    program += "print(near_duplicates.find_near_duplicates(sys.stdin.read().split('|')).tolist())"
    outputs = set()
    for seed in ("1", "2"):  # of Python's own hashes of strings
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, input="|".join(texts), env=environment, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    (output,) = outputs
    assert groups.max() < max(json.loads(output)) < len(texts) - 50


def test_the_size_of_blocks_and_caches_makes_no_difference(monkeypatch):
    rng = np.random.default_rng(5)
    originals = [make_text(rng, int(rng.integers(2, 30))) for _ in range(200)]
    texts = [*originals, *(change_words(text, 0.08, rng) for text in originals)]
    expected = find_near_duplicates(texts)
    for name, value in (("BLOCK_TEXTS", 7), ("BLOCK_PAIRS", 3), ("MAX_CACHED_WORDS", 5)):
        monkeypatch.setattr(near_duplicates, name, value)
    assert find_near_duplicates(texts).tolist() == expected.tolist() != list(range(400))


def test_no_texts_and_a_long_search(monkeypatch, capsys):
    assert find_near_duplicates([]).tolist() == [] and capsys.readouterr().out == ""
    monkeypatch.setattr(near_duplicates, "ANNOUNCED_TEXTS", 1)
    assert find_near_duplicates(["one", "two"]).tolist() == [0, 1]
    assert capsys.readouterr().out == "Looking for near duplicates among 2 texts ...\n"


def test_differences():
    assert describe_differences("the soup was good", "the soup was very good") == "'' → 'very'"
    assert describe_differences("Dear Ann, hello", "Dear Bob, hello you") == "'Ann,' → 'Bob,'; '' → 'you'"
    assert describe_differences("a b c d e f g h", "A b C d E f G h", limit=1) == "'a' → 'A'"
    assert describe_differences("so good", "so  good") == "nothing in their first 500 words"
    assert describe_differences("x", "word " * 30) == "'x' → 'word word word word word word word ...'"


# ---------- Splits ----------------------------------------------------------------------------------------------------


def make_versions(count=120):
    """Return texts of which every third has another version, and labels."""
    rng = np.random.default_rng(6)
    originals = [make_text(rng, 30) for _ in range(count)]
    texts = originals + [change_words(text, 0.03, rng) for text in originals[::3]]
    return texts, np.array([*(np.arange(count) % 2), *(np.arange(count)[::3] % 2)])


def count_separated(texts, train, validation):
    return sum(are_near(texts[i], texts[j]) for i in train for j in validation)


def test_splits_keep_near_duplicates_together():
    texts, labels = make_versions()
    groups = find_near_duplicates(texts)
    splits = [split_train_validation(texts, labels, 0.2, 1, groups), *split_folds(texts, labels, 3, 1, groups)]
    for train, validation in splits:
        assert count_separated(texts, train, validation) == 0 and len(train) + len(validation) == len(texts)
    assert len(splits[0][1]) == pytest.approx(0.2 * len(texts), abs=6)
    assert sorted(np.concatenate([validation for _, validation in splits[1:]])) == list(range(len(texts)))
    assert count_separated(texts, *split_train_validation(texts, labels, 0.2, 1)) > 5


# ---------- data_prep.ipynb -------------------------------------------------------------------------------------------


@pytest.fixture
def rows():
    """A table of one file."""
    texts, labels = make_versions()
    index = range(1000, 1000 + len(texts))
    return pd.DataFrame({"split": "train", "row": range(2, 2 + len(texts)), "text": texts, "binary": labels}, index)


@pytest.mark.parametrize(("setting", "expected"), [("report", False), ("together", True), (None, False)])
def test_held_out_texts_and_the_report(rows, setting, expected):
    groups, together = task.group_near_duplicates(rows, setting)
    data = task.hold_out_dev_set(rows, 0.25, 1, together)
    if setting != "together":
        assert data.equals(task.hold_out_dev_set(rows, 0.25, 1))
    dev, train = (data["text"][data["split"] == split] for split in ("dev", "train"))
    separated = sum(any(are_near(text, other) for other in train) for text in dev)
    assert (separated == 0) == expected
    issues = quality.find_issues(data, groups)
    lines = quality.describe_near_duplicates(data, issues, groups)
    if setting is None:
        assert lines == ["Near duplicates were not looked for: NEAR_DUPLICATES is None, or there are too many texts"]
        return
    counts = quality.count_issues(data, issues).loc[quality.HAS_NEAR_DUPLICATE]
    assert counts["dev"] == separated and "together" in counts["what to do"]
    assert f"; {separated} of {len(dev)} texts of dev ({separated / len(dev):.1%}) have one in train" in lines[0]
    assert len(lines) == 4 and all(("→" in line) and line.startswith("  ") for line in lines[1:])
    assert all(line.startswith("  dev, row ") for line in lines[1:]) != expected


def test_very_many_texts_are_only_searched_on_request(rows, monkeypatch):
    monkeypatch.setattr(task, "MAX_REPORTED_TEXTS", len(rows))
    assert task.group_near_duplicates(rows, "report")[0] is not None
    monkeypatch.setattr(task, "MAX_REPORTED_TEXTS", len(rows) - 1)
    assert task.group_near_duplicates(rows, "report") == (None, None)
    groups, together = task.group_near_duplicates(rows, "together")
    assert groups is together is not None


def test_equal_texts_are_no_near_duplicates():
    text, other = "the soup was cold and the tea was not", "the soup was cold and the tea was hot"
    rows = [
        ("train", 0, text),
        ("train", 0, text.upper()),
        ("dev", 0, text),
        ("dev", 1, other),
        ("dev", 0, "quite other"),
    ]
    data = pd.DataFrame(rows, columns=["split", "binary", "text"]).assign(row=range(1, 6))
    groups, together = task.group_near_duplicates(data, "report")
    assert together is None
    issues = quality.find_issues(data, groups)
    assert issues[quality.HAS_NEAR_DUPLICATE].tolist() == [False, False, False, True, False]
    assert quality.describe_near_duplicates(data, issues, groups) == [
        "Near duplicates: 4 texts in 1 groups, the largest of 4; 1 of 3 texts of dev (33.3%) have one in train",
        "  dev, row 4; train, row 1: 'hot' → 'not'",
    ]
    for empty in (data[:3], data[4:]):
        lines = quality.describe_near_duplicates(empty, quality.find_issues(empty, groups), groups)
        assert lines == ["Near duplicates: none"]


def test_groups_of_a_column_and_near_duplicates_are_united(rows):
    """A customer with one of two versions of a text brings the other one, and all else that its customer wrote."""
    groups = task.group_near_duplicates(rows, "together")[1]
    assert task.find_groups(rows, None) is None and task.find_groups(rows, groups).tolist() == groups.tolist()
    customers = rows.assign(group=["a", "b", "b", *map(str, range(len(rows) - 4)), "c"])
    assert partition(task.find_groups(customers, None)) == {
        frozenset(np.flatnonzero(customers["group"] == name).tolist()) for name in set(customers["group"])
    }
    united = task.find_groups(customers, groups)
    assert united[0] == united[120] and united[1] == united[2] != united[0] and united[3] == united[121]
    assert task.find_groups(customers[:0], groups[:0]).tolist() == []


def test_train_reads_the_groups(make_file, tmp_path):
    texts, labels = make_versions()
    make_file("label,text\n" + "".join(f"{label},{text}\n" for label, text in zip(labels, texts)))
    tables = task.read_tables(tmp_path)
    classes, names = task.choose_classes(tables)
    labelled = task.add_binary_labels(tables.rows, classes)
    near_groups = task.group_near_duplicates(labelled, "together")[1]
    data = task.hold_out_dev_set(labelled, 0.3, 1, near_groups)
    bert_rows = data.assign(label=data["binary"], alpha="a", id=data["row"])
    arguments = tables, bert_rows, classes, names, pd.DataFrame(), tmp_path / "report.csv"
    task.write_files(*arguments, near_groups)
    train = data[data["split"] == "train"]
    assert partition(tsv.read_groups(tmp_path)) == partition(near_groups[train.index].to_numpy())
    assert 0 < len(partition(tsv.read_groups(tmp_path))) < len(train)
    (tmp_path / tsv.GROUPS_FILE).unlink()
    with pytest.raises(ValueError, match="is missing, which has the groups .*Run data_prep.ipynb again"):
        tsv.read_groups(tmp_path)
    task.write_files(*arguments)
    assert tsv.read_groups(tmp_path) is None


# ---------- Real data -------------------------------------------------------------------------------------------------


def join_exactly(texts):
    """Return all pairs of texts with a similarity of `THRESHOLD`, by prefix filtering (Chaudhuri et al. 2006).

    Of the bigrams that two such texts share, the k rarest are among the rarest |x| - 0.6 |x| + k of either text x.
    """
    words = [extract_words(text) for text in texts]
    ids, ends = pd.factorize(np.array(list(chain.from_iterable(words)), object))[0], np.cumsum(list(map(len, words)))
    bigrams = np.delete(ids[:-1] * len(ids) + ids[1:], ends[:-1] - 1)  # each as one number
    _, column, frequency = np.unique(bigrams, return_inverse=True, return_counts=True)
    column = np.argsort(np.argsort(frequency, kind="stable"))[column]  # rare ones first
    bounds = np.append(0, ends - np.arange(1, len(texts) + 1))
    sets = csr_array((np.ones(len(column), np.int32), column, bounds))
    sets.sum_duplicates()
    sizes, k = np.diff(sets.indptr), 5
    assert sizes.min() * THRESHOLD >= k
    limits = sizes - np.ceil(THRESHOLD * sizes).astype(int) + k
    is_rare = np.arange(sets.nnz) - np.repeat(sets.indptr[:-1], sizes) < np.repeat(limits, sizes)
    rare = csr_array((is_rare.astype(np.int32), sets.indices, sets.indptr))
    rare.eliminate_zeros()
    holders, pairs = rare.T.tocsr(), []
    for start in range(0, len(texts), 500):
        shared = (rare[start : start + 500] @ holders).tocoo()
        is_candidate = (shared.data >= k) & (shared.row + start < shared.col)
        pairs += zip((shared.row[is_candidate] + start).tolist(), shared.col[is_candidate].tolist())
    return [(i, j) for i, j in pairs if similarity(texts[i], texts[j]) >= THRESHOLD]


def test_groups_of_imdb_are_those_of_an_exact_join():
    """Reviews that people sent in twice, corrected, or for two films."""
    if not IMDB.is_file():
        pytest.skip(f"{IMDB} is absent: set BERT_TEST_DATA to the folder that holds imdb/")
    with gzip.open(IMDB, "rt", encoding="utf-8", newline="") as file:
        texts = list({" ".join(extract_words(text)): text for _, text in csv.reader(file)}.values())
    groups = find_near_duplicates(texts)
    pairs = join_exactly(texts)
    assert len(pairs) > 10
    expected = find_components(*np.array(sorted(pairs)).T, len(texts))
    assert partition(groups) == partition(expected)
