"""Features are bit for bit those of the 2019 reference, however hard the text; files are checked before trust."""

import contextlib
import csv
import gzip
import io
import itertools
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytorch_pretrained_bert.tokenization import BertTokenizer

import tools

LABELS = {"0": 0, "1": 1}

HARD_TEXTS = [
    "",
    " ",
    "\t\r\n \u3000\u2028",
    "Good food, very good place.",
    "UNAFFABLE unaffable Unaffable!",
    "a\x85b a\x0bb a\x0cb a\x1cb a\x1db a\x1eb a\x1fb a\x00b a\ufffdb a\x7fb",  # deleted, not white space
    "a\u00a0b a\u2003b a\u202fb a\u3000b a\u2028b a\u2029b a\tb a\nb a\rb",  # white space
    "a\u200bb a\u00adb a\u200db a\ufeffb a\u180eb",  # looks like white space, is deleted
    "中文good中 文 𠀀 豈",
    "cafe\u0301 café CAFÉ é É e\u0301\u0301 İ ŉ ß ẞ ﬁ Å",
    "שלום עולם مرحبا \u202eabc\u202c",
    "😀 good😀food 👩‍👩‍👧 ❤️",
    "\ud800 a\udfffb \ud83d\ude00",  # unpaired surrogates: no text, but Python lets them be
    "[SEP] [CLS] [PAD] [MASK] [UNK] [sep] x[SEP] [SEP]x [SEP]. [SEP]\u200b [ SEP ] [CLS][SEP]",
    "a" * 100 + " " + "a" * 101 + " " + "a" * 5000,  # words over 100 characters are [UNK]
    "a." * 300,
    "don't  isn''t $5.99 <br /><br />~`^|_ “quotes” … 。、 ¿¡ ٪",
    "##ing ing## # ## ##",
    "\u0301 \u0301a \u0301\u0301",  # accents alone leave no word
    "\x00\x01\x02 \x85 \u200b",  # nothing is left of these words
    " ".join(["\x01"] * 50 + ["good"]),  # many chunks without a word piece before the first one
    "\U0010ffff \ue000 \ufdd0 \u0378",  # not assigned, for private use
    "ａｂｃ １２３ ①②③ ½ x² Ⅷ",
    "A\x85B good\x1cfood",
    "The quick Good THE the tHe",
]
# what BERT's cleaning and Python's str.split treat in ways of their own is drawn more often than by chance
unicode_texts = st.text(
    st.characters()
    | st.sampled_from("abgod GOD.,'[]#\x00\x0b\x1c\x85\t\r\n\u00a0\u2028\u200b\u0301éÉİß中豈😀\ud800")
    | st.sampled_from([chr(c) for c in range(0x3100) if chr(c).isspace()])
)
words = st.lists(
    st.sampled_from(
        ["[SEP]", "[CLS]", "[sep]", "good", "GOOD", "unaffable", "##ing", "中文", "x" * 101, "café", "\x01"]
    )
    | unicode_texts,
    max_size=12,
).map(" ".join)
any_text = unicode_texts | words


# ---------- The reference, written down once more ---------------------------------------------------------------------


def truncate_seq_pair(tokens_a, tokens_b, max_length):
    """BERT's own _truncate_seq_pair, https://github.com/google-research/bert/blob/master/run_classifier.py."""
    while True:
        total_length = len(tokens_a) + len(tokens_b)
        if total_length <= max_length:
            break
        if len(tokens_a) > len(tokens_b):
            tokens_a.pop()
        else:
            tokens_b.pop()


def cut(tokens, keep, truncation):
    """Keep so many tokens: the head, the tail, or a quarter of them from the head."""
    if len(tokens) <= keep:
        return tokens
    head = {"head": keep, "tail": 0, "head+tail": keep // 4}[truncation]
    return tokens[:head] + tokens[len(tokens) - (keep - head) :]


def reference(text_a, text_b, label_id, max_seq_length, tokenizer, truncation="head"):
    """Return (input_ids, input_mask, segment_ids, label_id) as the 2019 code made them."""
    tokens_a = tokenizer.tokenize(text_a)
    tokens_b = None
    if text_b is not None:
        tokens_b = tokenizer.tokenize(text_b)
        short_a, short_b = list(tokens_a), list(tokens_b)
        truncate_seq_pair(short_a, short_b, max_seq_length - 3)
        tokens_a = cut(tokens_a, len(short_a), truncation)
        tokens_b = cut(tokens_b, len(short_b), truncation)
    else:
        tokens_a = cut(tokens_a, max_seq_length - 2, truncation)
    tokens = ["[CLS]"] + tokens_a + ["[SEP]"]
    segment_ids = [0] * len(tokens)
    if tokens_b is not None:
        tokens += tokens_b + ["[SEP]"]
        segment_ids += [1] * (len(tokens_b) + 1)
    input_ids = [tokenizer.vocab[token] for token in tokens]
    input_mask = [1] * len(input_ids)
    padding = [0] * (max_seq_length - len(input_ids))
    return input_ids + padding, input_mask + padding, segment_ids + padding, label_id


def as_tuple(feature):
    return feature.input_ids, feature.input_mask, feature.segment_ids, feature.label_id


def convert(pairs, max_seq_length, tokenizer, **options):
    """Convert (text_a, text_b) pairs, all with the label "1"."""
    examples = [tools.InputExample(i, a, b, "1") for i, (a, b) in enumerate(pairs)]
    options = {"processes": 1, "progress": False, **options}
    return tools.convert_examples_to_features(examples, LABELS, max_seq_length, tokenizer, **options)


def check(pairs, max_seq_length, tokenizer, truncation="head"):
    """Compare the features of pairs of texts with the reference."""
    features = convert(pairs, max_seq_length, tokenizer, truncation=truncation)
    assert len(features) == len(pairs)
    for (text_a, text_b), feature in zip(pairs, features):
        expected = reference(text_a, text_b, 1, max_seq_length, tokenizer, truncation)
        assert as_tuple(feature) == expected, (text_a, text_b, max_seq_length, truncation)


def test_the_hard_texts_are_what_they_should_be(tokenizers):
    """The comparison below is worth something only if the reference meets the traps."""
    cased, uncased = tokenizers["cased"], tokenizers["uncased"]
    assert uncased.tokenize("A\x85B good\x1cfood") == ["a", "##b", "good", "##f", "##o", "##o", "##d"]
    assert cased.tokenize("UNaffable The") == ["U", "##N", "##aff", "##able", "The"]
    assert uncased.tokenize("UNaffable CAFÉ") == ["un", "##aff", "##able", "cafe"]
    assert cased.tokenize("é e\u0301") == ["é", "e", "##\u0301"]
    assert uncased.tokenize("[SEP] x[SEP] " + "a" * 101) == ["[SEP]", "x", "[", "s", "##e", "##p", "]", "[UNK]"]
    assert uncased.tokenize("中文good") == ["中", "文", "good"]
    categories = {unicodedata.category(c) for text in HARD_TEXTS for c in text}
    assert categories >= {"Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp", "Mn", "Lo", "So", "Po", "Ps", "Sc"}


@pytest.mark.parametrize("max_seq_length", [2, 3, 4, 7, 16, 512])
def test_single_hard_texts(tokenizer, max_seq_length):
    check([(text, None) for text in HARD_TEXTS], max_seq_length, tokenizer)


@pytest.mark.parametrize("max_seq_length", [3, 4, 7, 16])
def test_pairs_of_hard_texts(tokenizer, max_seq_length):
    check(list(itertools.product(HARD_TEXTS, repeat=2)), max_seq_length, tokenizer)


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
@pytest.mark.parametrize("max_seq_length", [2, 3, 4, 7, 16])
def test_truncation(tokenizer, max_seq_length, truncation):
    check([(text, None) for text in HARD_TEXTS], max_seq_length, tokenizer, truncation)
    if max_seq_length > 2:
        check(list(zip(HARD_TEXTS, reversed(HARD_TEXTS))), max_seq_length, tokenizer, truncation)


@given(first=any_text, second=st.none() | any_text, size=st.sampled_from([3, 4, 7, 16]), data=st.data())
@example(first="\x01 \x01 good", second=None, size=3, data=None)
def test_any_text(tokenizers, first, second, size, data):
    truncation = "head" if data is None else data.draw(st.sampled_from(tools.TRUNCATIONS))
    for tokenizer in tokenizers.values():
        check([(first, second), (first, None)], size, tokenizer, truncation)
        (count,) = tools.count_word_pieces([first], tokenizer)
        assert count == len(tokenizer.tokenize(first)) + 2


@given(texts=st.lists(any_text, max_size=6))
def test_what_came_before_changes_nothing(tokenizers, texts):
    """Chunks are remembered: the same text must give the same ids the second time, next to any other."""
    for tokenizer in tokenizers.values():
        check([(text, None) for text in [*texts, *reversed(texts)]], 16, tokenizer)


@pytest.mark.parametrize("max_seq_length", [2, 3, 4, 7, 16])
def test_very_long_texts(tokenizer, max_seq_length, monkeypatch):
    monkeypatch.setattr(tools.WordPieceMemo, "VERY_LONG", max_seq_length)
    sigmas = ["\u0391\u03a3.\u0392,\u0391\u03a3,\u0392", "[SEP],[SEP] [SEP]", ",\u0301,", "\u4e2d\ufe00\u6587"]
    texts = [a + b for a, b in itertools.product([*HARD_TEXTS, *sigmas], repeat=2)]
    check([(text, None) for text in texts], max_seq_length, tokenizer)


@given(text=any_text, size=st.sampled_from([3, 4, 7, 16]))
def test_any_very_long_text(tokenizers, text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools.WordPieceMemo, "VERY_LONG", size)
        for tokenizer in tokenizers.values():
            check([(text, None)], size, tokenizer)


@given(text=st.text(st.sampled_from("\u4e2d\u6587,.\u0301\u03a3[]SEPaA \u00e9"), max_size=30), size=st.integers(1, 5))
def test_all_of_a_very_long_text_can_be_counted(tokenizers, text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools.WordPieceMemo, "VERY_LONG", size)
        for tokenizer in tokenizers.values():
            assert tools.count_word_pieces([text], tokenizer) == [len(tokenizer.tokenize(text)) + 2]


def test_a_very_long_text_without_white_space_is_read_no_further_than_is_needed(tokenizer, monkeypatch):
    tokenize, lengths = tokenizer.tokenize, []
    monkeypatch.setattr(tokenizer, "tokenize", lambda text: lengths.append(len(text)) or tokenize(text))
    (feature,) = convert([("\u4e2d\u6587,\u00e9" * 500_000, None)], 16, tokenizer)
    assert as_tuple(feature) == reference("\u4e2d\u6587,\u00e9" * 10, None, 1, 16, tokenizer)
    assert 0 < max(lengths) < 100


def test_truncation_by_hand(tokenizers):
    tokenizer = tokenizers["uncased"]

    def pieces(a, b, size, truncation):
        (feature,) = convert([(a, b)], size, tokenizer, truncation=truncation)
        return " ".join(tokenizer.convert_ids_to_tokens(feature.input_ids)), feature.segment_ids

    text = "a b c d e f g h i"
    assert pieces(text, None, 10, "head") == ("[CLS] a b c d e f g h [SEP]", [0] * 10)
    assert pieces(text, None, 10, "tail") == ("[CLS] b c d e f g h i [SEP]", [0] * 10)
    assert pieces(text, None, 10, "head+tail") == ("[CLS] a b d e f g h i [SEP]", [0] * 10)
    assert pieces("a b c", "x", 8, "head") == ("[CLS] a b c [SEP] x [SEP] [PAD]", [0] * 5 + [1, 1, 0])
    # room for five: the pair loses from the longer text, and from the second when both are equally long
    assert pieces("a b c d", "x y z w", 8, "head") == ("[CLS] a b c [SEP] x y [SEP]", [0] * 5 + [1] * 3)
    assert pieces("a b c d", "x y z w", 8, "tail") == ("[CLS] b c d [SEP] z w [SEP]", [0] * 5 + [1] * 3)
    assert pieces("a", "x y z w u v", 8, "head") == ("[CLS] a [SEP] x y z w [SEP]", [0] * 3 + [1] * 5)
    assert pieces("", "", 4, "head") == ("[CLS] [SEP] [SEP] [PAD]", [0, 0, 1, 0])


@pytest.mark.parametrize("casing", ["cased", "uncased"])
def test_imdb_with_berts_own_vocabularies(test_data, casing):
    """Real reviews, with control characters and <br />: no id differs from BertTokenizer's."""
    tokenizer = BertTokenizer(str(test_data(f"vocab/bert-base-{casing}-vocab.txt")), do_lower_case=casing == "uncased")
    with gzip.open(test_data("imdb/train.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        texts = [text for _, text in itertools.islice(csv.reader(file), 2000)]
    features = convert([(text, None) for text in texts], 128, tokenizer)
    assert sum(feature.input_mask[-1] for feature in features) > 1000  # most are cut
    for text, feature in zip(texts, features):
        ids = tokenizer.convert_tokens_to_ids(["[CLS]", *tokenizer.tokenize(text)[:126], "[SEP]"])
        assert feature.input_ids == ids + [0] * (128 - len(ids)), text


# ---------- Labels, options, processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["0", "1", None])
@pytest.mark.parametrize("second", [None, "very good"])
def test_one_example_alone_gives_the_same(tokenizer, label, second):
    examples = [tools.InputExample("x", text, second, label) for text in HARD_TEXTS]
    features = tools.convert_examples_to_features(examples, LABELS, 9, tokenizer, processes=1, progress=False)
    for single, feature in zip(examples, features):
        alone = tools.convert_example_to_feature((single, LABELS, 9, tokenizer, "classification"))
        assert isinstance(alone, tools.InputFeatures)
        assert as_tuple(alone) == as_tuple(feature)
        assert type(alone.label_id) is int
        assert alone.label_id == {"0": 0, "1": 1, None: tools.UNLABELLED}[label]


def test_regression(tokenizers):
    examples = [tools.InputExample(i, "good", None, label) for i, label in enumerate(["-0.1", 2, 1e-9, None])]
    features = tools.convert_examples_to_features(examples, {}, 4, tokenizers["cased"], "regression", progress=False)
    labels = [feature.label_id for feature in features]
    assert [type(label) for label in labels] == [float] * 4
    assert labels[:3] == [-0.1, 2.0, 1e-9]
    assert np.isnan(labels[3])
    row = (examples[0], None, 4, tokenizers["cased"], "regression")
    assert tools.convert_example_to_feature(row).label_id == -0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "4"}, r"label '4', .*not in {'0': 0, '1': 1}"),
        ({"label": 1}, r"label 1, .*not in"),
        ({"label": "good", "output_mode": "regression"}, "good"),
        ({"output_mode": "ranking"}, "output_mode is 'ranking'"),
        ({"max_seq_length": 513}, "max_seq_length is 513.* 512"),
        ({"max_seq_length": 1}, "max_seq_length is 1, .*from 2"),
        ({"text_b": "x", "max_seq_length": 2}, "max_seq_length is 2, .*from 3"),
        ({"truncation": "middle"}, r"truncation is 'middle'.*head, tail, head\+tail"),
    ],
)
def test_bad_arguments(tokenizers, options, message):
    options = {"label": "1", "text_b": None, "max_seq_length": 8, **options}
    examples = [tools.InputExample("x", "good", options.pop("text_b"), options.pop("label"))]
    size = options.pop("max_seq_length")
    with pytest.raises(ValueError, match=message):
        tools.convert_examples_to_features(examples, LABELS, size, tokenizers["cased"], progress=False, **options)


def test_a_chunk_of_more_ids_than_positions_is_no_cause_for_a_warning(tokenizers, caplog):
    assert convert([("\u597d" * 600, None)], 16, tokenizers["uncased"]).lengths.tolist() == [16]
    assert caplog.records == []


def test_no_examples(tokenizers):
    features = convert([], 8, tokenizers["cased"])
    assert len(features) == 0
    assert list(features) == []


class OnArrival(str):
    """A text that has some Python run in the worker process that receives it; it arrives as "good"."""

    code = ""

    def __reduce__(self):
        return eval, (f"({self.code}, 'good')[1]",)


@pytest.fixture
def workers_in_time(monkeypatch):
    """Let a conversion wait until its workers have started: a short one would be done before."""
    worker_pool = tools._worker_pool

    @contextlib.contextmanager
    def wait_for_workers(*arguments):
        with worker_pool(*arguments) as pool:
            pool.result(timeout=300)
            yield pool

    monkeypatch.setattr(tools, "_worker_pool", wait_for_workers)


def test_two_processes_give_the_same_as_one(tokenizers, tmp_path, workers_in_time):
    class Traced(OnArrival):
        code = f"open({str(tmp_path)!r} + '/' + str(__import__('os').getpid()), 'w').close()"

    pairs = [("good food", "very good"), (Traced("good"), None), *zip(HARD_TEXTS, reversed(HARD_TEXTS))] * 100
    assert len(pairs) > 4 * 500  # several parcels of work
    one = convert(pairs, 16, tokenizers["cased"], processes=1, truncation="head+tail")
    assert list(tmp_path.iterdir()) == []
    two = convert(pairs, 16, tokenizers["cased"], processes=2, truncation="head+tail")
    workers = [path.name for path in tmp_path.iterdir()]
    assert workers, "no worker process was started"
    assert str(os.getpid()) not in workers
    for name in ("ids", "lengths", "first_lengths", "labels"):
        assert getattr(one, name).dtype == getattr(two, name).dtype
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_a_killed_worker_ends_in_an_error(tokenizers, tmp_path, workers_in_time):
    """As when the system is out of memory. The conversion once waited forever for such a process."""
    killed = tmp_path / "killed"

    class Deadly(OnArrival):
        code = f"(open({str(killed)!r}, 'w').close(), __import__('os').kill(__import__('os').getpid(), 9))"

    raised = []

    def run():
        try:
            convert([("good", None), (Deadly("good"), None)] * 1500, 16, tokenizers["cased"], processes=2)
        except RuntimeError as error:
            raised.append((error, time.time()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert raised, "the conversion goes on without its worker" if thread.is_alive() else "no error was raised"
    error, when = raised[0]
    assert "processes=1" in str(error)
    assert when - killed.stat().st_mtime < 10
    # and the next conversion is not hurt
    assert len(convert([("good", None)] * 1500, 16, tokenizers["cased"], processes=2)) == 1500


# ---------- Features as a list, and on disk ---------------------------------------------------------------------------


@pytest.fixture
def features(tokenizers):
    """Thirteen features of odd lengths, singles and pairs."""
    pairs = [(text, None) for text in HARD_TEXTS[3:11]] + list(zip(HARD_TEXTS[:5], HARD_TEXTS[3:8]))
    examples = [tools.InputExample(i, a, b, str(i % 2)) for i, (a, b) in enumerate(pairs)]
    return tools.convert_examples_to_features(examples, LABELS, 17, tokenizers["cased"], progress=False)


def rows_of(features):
    return [as_tuple(feature) for feature in features]


def test_features_behave_as_a_list(features):
    rows = [features[i] for i in range(13)]
    assert len(features) == 13
    assert list(features) == rows
    assert features[-1] == rows[12]
    assert features[-13] == rows[0]
    assert features[np.int64(3)] == rows[3]
    assert features[2:9:3] == rows[2:9:3]
    assert features[::-1] == rows[::-1]
    assert features[20:] == []
    assert rows[4] in features
    assert list(reversed(features)) == rows[::-1]
    assert rows[0] != rows[1]
    for index in (13, -14):
        with pytest.raises(IndexError, match=str(index)):
            features[index]
    assert all(type(value) is int for value in rows[0].input_ids + rows[0].input_mask + rows[0].segment_ids)


def test_save_and_load(features, tmp_path):
    features.fingerprint = "f" * 64
    tools.save_features(features, tmp_path / "f.pkl")
    with open(tmp_path / "f.pkl", "rb") as file:
        plainly = pickle.load(file)
    for loaded in (tools.load_features(tmp_path / "f.pkl"), plainly):
        assert isinstance(loaded, tools.Features)
        assert rows_of(loaded) == rows_of(features)
        assert loaded.fingerprint == features.fingerprint
        assert loaded.max_seq_length == 17
    assert list(tmp_path.iterdir()) == [tmp_path / "f.pkl"]


def test_a_failed_save_keeps_the_old_file(features, tmp_path):
    path = tmp_path / "f.pkl"
    tools.save_features(features, path)
    features.fingerprint = lambda: "cannot be pickled"
    with pytest.raises((AttributeError, pickle.PicklingError)):
        tools.save_features(features, path)
    assert rows_of(tools.load_features(path)) == rows_of(features)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("label", ["1", None, 0.25])
def test_a_plain_list_can_be_saved(tokenizers, tmp_path, label):
    mode = "regression" if label == 0.25 else "classification"
    examples = [tools.InputExample("x", "good", "food", label), tools.InputExample("y", "very good", None, label)]
    features = tools.convert_examples_to_features(examples, LABELS, 9, tokenizers["cased"], mode, progress=False)
    tools.save_features(features[:], tmp_path / "f.pkl")
    assert rows_of(tools.load_features(tmp_path / "f.pkl")) == rows_of(features)


def test_a_plain_list_without_labels_in_regression(tokenizers, tmp_path):
    """The label is NaN there, which is not equal to itself."""
    examples = [tools.InputExample("x", "good")]
    features = tools.convert_examples_to_features(examples, {}, 9, tokenizers["cased"], "regression", progress=False)
    tools.save_features(features[:], tmp_path / "f.pkl")
    (loaded,) = tools.load_features(tmp_path / "f.pkl")
    assert loaded.input_ids == features[0].input_ids
    assert np.isnan(loaded.label_id)


@pytest.mark.parametrize("module", [b"tools", b"__main__", b"convert_examples_to_features"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_list_pickled_as_in_2019(features, tmp_path, module, protocol):
    pickled = pickle.dumps(features[:], protocol)
    if protocol < 4:  # the module is a line of its own
        old, new = b"ctools\n", b"c" + module + b"\n"
    else:  # a short text with its length before it
        old, new = b"\x8c\x05tools", b"\x8c" + bytes([len(module)]) + module
        # the frame's length, just after the protocol, grows as well
        (frame,) = struct.unpack("<Q", pickled[3:11])
        pickled = pickled[:3] + struct.pack("<Q", frame + len(module) - 5) + pickled[11:]
    assert pickled.count(old) == 1
    (tmp_path / "f.pkl").write_bytes(pickled.replace(old, new))
    loaded = tools.load_features(tmp_path / "f.pkl")
    assert rows_of(loaded) == rows_of(features)
    assert loaded.fingerprint is None


@pytest.mark.parametrize(
    "rows",
    [
        [tools.InputFeatures([1, 2], [1, 1], [0, 0], 0), tools.InputFeatures([1], [1], [0], 0)],  # two lengths
        [tools.InputFeatures([1, 2], [1], [0, 0], 0)],
        [tools.InputFeatures([1, 2], [0, 1], [0, 0], 0)],  # padding in front
        [tools.InputFeatures([1, 2], [1, 0], [0, 0], 0)],  # an id where there is padding
        [tools.InputFeatures([1, 2], [1, 1], [1, 0], 0)],  # second text before the first
        [tools.InputFeatures([-1, 2], [1, 1], [0, 0], 0)],
        [tools.InputFeatures([1, 2], [1, 1], [0, 0], 2**40)],
        [tools.InputFeatures([1, 2], [1, 1], [0, 0], "0")],
        [tools.InputFeatures([1.5, 2], [1, 1], [0, 0], 0)],
        # BERT has 512 positions; and one long row, held a million times by reference, would be a small file
        # that takes all memory
        [tools.InputFeatures([1] * 513, [1] * 513, [0] * 513, 0)],
        [1, 2, 3],
        ["good"],
    ],
)
def test_lists_that_are_no_features(rows, tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match=r"f\.pkl is not a sound features file"):
        tools.load_features(tmp_path / "f.pkl")


def test_a_missing_features_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pkl is missing: train\.ipynb or converter\.py"):
        tools.load_features(tmp_path / "absent.pkl")


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(marker):
    """Return pickles that would create the file `marker`, or claim 8 GB, by name."""
    harm = f"open({str(marker)!r}, 'w').close()"
    touch = f"touch {marker}"
    huge = struct.pack("<Q", 2**33)
    row = tools.InputFeatures([1, 2], [1, 1], [0, 0], 0)
    row.more = Calls(eval, harm)
    with_more = tools.Features(*(np.ones(1, "<u2"),) * 3, np.ones(1, "<i4"), 2)
    with_more.fingerprint = Calls(os.system, touch)
    return {
        "os.system": pickle.dumps(Calls(os.system, touch)),
        "subprocess": pickle.dumps(Calls(subprocess.check_call, ["touch", str(marker)])),
        "builtins.eval": pickle.dumps(Calls(eval, harm)),
        "protocol 0": pickle.dumps(Calls(eval, harm), 0),
        "nested": pickle.dumps([Calls(map, Calls(getattr, Calls(__import__, "os"), "system"), [touch])]),
        "inside a row": pickle.dumps([row]),
        "inside features": pickle.dumps(with_more),
        "dotted name": b"\x80\x04\x8c\x05tools\x8c\x09os.system\x93\x8c"
        + bytes([len(touch)])
        + touch.encode()
        + b"\x85R.",
        "numpy": pickle.dumps(np.arange(3)),
        "numpy of 8 GB": b"\x80\x04cnumpy\nzeros\nJ\x00\x00\x00\x40\x85R.",
        "bytearray of 8 GB": b"\x80\x04cbuiltins\nbytearray\n\x8a\x08" + huge + b"\x85R.",
        "LONG_BINPUT": b"\x80\x04]r" + struct.pack("<I", 2**32 - 1) + b".",
        "BINBYTES8": b"\x80\x04\x8e" + huge + b".",
        "BINUNICODE8": b"\x80\x04\x8d" + huge + b".",
        "BYTEARRAY8": b"\x80\x05\x96" + huge + b".",
        "FRAME": b"\x80\x04\x95" + huge + b"].",
        "persistent id": b"\x80\x04\x8c\x01xQ.",
        "extension": b"\x80\x04\x82\x01.",
        "BUILD on a class": b"\x80\x04ctools\nFeatures\n}\x8c\x0c__setstate__\x8c\x01xs\x86b.",
        "class alone": b"\x80\x04ctools\nFeatures\n.",
        "called with too much": b"\x80\x04ctools\nFeatures\nK\x01\x85R.",
        "without state": b"\x80\x04ctools\nFeatures\n)\x81.",
        "another class": pickle.dumps(tools.InputExample("x", "y")),
        "another value": pickle.dumps({"ids": b""}),
        "recursive list": b"\x80\x04]\x94h\x00a.",
    }


@pytest.fixture
def little_memory():
    """Let this process take 1 GB more, not 8: a test that fails should not fill the machine."""
    resource = pytest.importorskip("resource")
    pages = Path("/proc/self/statm")  # elsewhere than on Linux there is no limit
    size = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 2**40
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("name", list(hostile_pickles("x")))
def test_hostile_pickles_are_refused(name, tmp_path, little_memory):
    marker = tmp_path / "marker"
    (tmp_path / "f.pkl").write_bytes(hostile_pickles(marker)[name])
    with pytest.raises(ValueError, match=r"f\.pkl is not a sound features file") as raised:
        tools.load_features(tmp_path / "f.pkl")
    assert not marker.exists()
    assert "MemoryError" not in str(raised.value), "it tried to take the memory that is claimed"


HARMFUL = ["os.system", "subprocess", "builtins.eval", "protocol 0", "inside a row", "inside features", "dotted name"]


@pytest.mark.parametrize("name", HARMFUL)
def test_the_hostile_pickles_are_hostile(name, tmp_path):
    """Python's own unpickler runs what is in them: so the test above says something."""
    marker = tmp_path / "marker"
    with contextlib.suppress(ValueError):
        pickle.loads(hostile_pickles(marker)[name])
    assert marker.exists()


def good_state():
    """Return the state of sound features of two examples, 3 and 2 word pieces long."""
    arrays = (
        np.array([5, 6, 7, 8, 9], "<u2"),
        np.array([3, 2], "<u2"),
        np.array([2, 2], "<u2"),
        np.array([0, 1], "<i4"),
    )
    return tools.Features(*arrays, 4).__getstate__()


def pickle_of(state):
    """Return a pickle of a Features object with any state."""
    inner = pickle.dumps(state, 3)[2:-1]  # without the first two bytes, the protocol, and the last, the stop
    return b"\x80\x03ctools\nFeatures\n)\x81" + inner + b"b."


def test_the_good_state_loads(tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle_of(good_state()))
    loaded = tools.load_features(tmp_path / "f.pkl")
    assert rows_of(loaded) == [([5, 6, 7, 0], [1, 1, 1, 0], [0, 0, 1, 0], 0), ([8, 9, 0, 0], [1, 1, 0, 0], [0] * 4, 1)]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"format": None},
        {"max_seq_length": 2},  # shorter than an example
        {"max_seq_length": 10**9},  # each element would be padded to 8 GB
        {"max_seq_length": "4"},
        {"max_seq_length": True},
        {"ids": b"\x01\x02\x03"},
        {"ids": b""},
        {"ids": "text"},
        {"ids": None},
        {"ids_type": "O"},
        {"ids_type": "<f8"},
        {"ids_type": "V1000000000"},
        {"ids_type": ["<u2"]},
        {"lengths": b"\x09\x00\x02\x00"},
        {"lengths": b"\x03\x00"},
        {"lengths_type": "<i8"},
        {"first_lengths": b"\x04\x00\x02\x00"},  # longer than the example
        {"first_lengths": b""},
        {"labels": b"\x00\x00\x00\x00"},
        {"labels_type": "<c16"},
        {"fingerprint": 5},
        {"fingerprint": ["x"]},
    ],
)
def test_unsound_states_are_refused(change, tmp_path):
    state = {**good_state(), **change}
    content = pickle_of(state)
    (tmp_path / "f.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"f\.pkl is not a sound features file") as raised:
        tools.load_features(tmp_path / "f.pkl")
    assert "checksum" not in str(raised.value), "a forger gets that right: shapes are refused for themselves"
    with pytest.raises(ValueError):
        pickle.loads(content)


@pytest.mark.parametrize("name", sorted(good_state()))
def test_states_that_lack_something_are_refused(name, tmp_path):
    state = good_state()
    del state[name]
    (tmp_path / "f.pkl").write_bytes(pickle_of(state))
    with pytest.raises(ValueError, match=r"f\.pkl is not a sound features file"):
        tools.load_features(tmp_path / "f.pkl")


def test_truncated_files(features, tmp_path):
    path = tmp_path / "f.pkl"
    tools.save_features(features, path)
    content = path.read_bytes()
    assert len(content) > 500
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="not a sound features file"):
            tools.load_features(path)


def test_flipped_bits(tmp_path):
    """A wrong bit is an error, or it changes nothing (at most the fingerprint, which then does not fit the data)."""
    path, fingerprint = tmp_path / "f.pkl", "0123456789abcdef" * 4
    path.write_bytes(pickle_of(good_state()))
    features = tools.load_features(path)
    features.fingerprint = fingerprint
    tools.save_features(features, path)
    content, rows = path.read_bytes(), rows_of(features)
    refused, damaged = 0, []
    for position, bit in itertools.product(range(len(content)), (0, 5)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            loaded = tools.load_features(path)
        except ValueError:
            refused += 1
            continue
        if rows_of(loaded) != rows and loaded.fingerprint == fingerprint:
            damaged.append(position)
    assert refused > len(content)
    assert not damaged, f"{len(damaged)} of {2 * len(content)} flips give other features and no error"


# ---------- The fingerprint -------------------------------------------------------------------------------------------


FIVE_TEXTS = ["good food", "bad", "The soup", "", "a b c d e f g"]


@pytest.fixture
def data_dir(tmp_path):
    """A folder with a train.tsv of five rows."""
    rows = [f"{i}\t{i % 2}\ta\t{text}\n" for i, text in enumerate(FIVE_TEXTS)]
    (tmp_path / "train.tsv").write_text("".join(rows), encoding="utf-8")
    return tmp_path


def test_the_fingerprint_tells_what_features_are_made_from(data_dir, tokenizers, tmp_path):
    tsv = data_dir / "train.tsv"
    usual = (tsv, tokenizers["uncased"], 7, "head", "classification")
    first = tools.get_fingerprint(*usual)
    assert len(first) == 64
    assert tools.get_fingerprint(*usual) == first
    # the same vocabulary, once with a piece renamed, once with two of its pieces exchanged, once with the other casing
    paths = [tmp_path / f"{i}.txt" for i in range(3)]
    pieces = list(tokenizers["uncased"].vocab)
    changed = [[*pieces[:-1], "new"], [*pieces[:-2], pieces[-1], pieces[-2]], pieces]
    for path, tokens in zip(paths, changed):
        path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    others = [BertTokenizer(str(path), do_lower_case=i < 2) for i, path in enumerate(paths)]
    fingerprints = [tools.get_fingerprint(tsv, tokenizer, *usual[2:]) for tokenizer in others]
    for place, value in ((2, 8), (3, "tail"), (3, "head+tail"), (4, "regression")):
        fingerprints.append(tools.get_fingerprint(*usual[:place], value, *usual[place + 1 :]))
    tsv.write_bytes(tsv.read_bytes().replace(b"soup", b"soap"))
    fingerprints.append(tools.get_fingerprint(*usual))
    assert len({first, *fingerprints}) == 9


def test_features_are_converted_once(data_dir, tokenizers, monkeypatch, capsys):
    usual = {"tokenizer": tokenizers["uncased"], "max_seq_length": 7, "processes": 1}
    features = tools.load_or_convert_features(data_dir, "train", **usual)
    assert "5 examples converted" in capsys.readouterr().out
    expected = [reference(text, None, i % 2, 7, tokenizers["uncased"]) for i, text in enumerate(FIVE_TEXTS)]
    assert rows_of(features) == expected
    pickled = (data_dir / "train_features.pkl").read_bytes()

    convert_really = tools._convert
    calls = []

    def count(*arguments, **options):
        calls.append(arguments)
        return convert_really(*arguments, **options)

    monkeypatch.setattr(tools, "_convert", count)
    again = tools.load_or_convert_features(data_dir, "train", **usual)
    assert (rows_of(again), len(calls)) == (expected, 0)
    assert "5 features loaded" in capsys.readouterr().out
    assert (data_dir / "train_features.pkl").read_bytes() == pickled

    changes = (
        {"max_seq_length": 6},
        {"truncation": "tail"},
        {"output_mode": "regression"},
        {"tokenizer": tokenizers["cased"]},
    )
    for number, change in enumerate(changes, start=1):
        options = {**usual, **change}
        changed = tools.load_or_convert_features(data_dir, "train", **options)
        assert len(calls) == number, change
        assert "converting again" in capsys.readouterr().out
        truncation = options.get("truncation", "head")
        label = float if options.get("output_mode") == "regression" else int
        for i, (feature, text) in enumerate(zip(changed, FIVE_TEXTS)):
            wanted = reference(text, None, label(i % 2), options["max_seq_length"], options["tokenizer"], truncation)
            assert as_tuple(feature) == wanted
            assert type(feature.label_id) is label


@pytest.mark.parametrize(("size", "parts", "processes"), [(1, 18, 1), (1, 18, 2), (60, 6, 1), (2**20, 1, 1)])
def test_a_file_read_in_parts_gives_the_features_of_its_examples(
    data_dir, tokenizers, monkeypatch, size, parts, processes
):
    texts = ["good\x85ly \u2028 soup", "", "caf\u00e9 \x0b\x1c", "the end \r", "un\u00e9 " * 9, " a \x0c b"] * 3
    lines = [f"{i}\t{i % 2}\ta\t{text}\n" for i, text in enumerate(texts)]
    (data_dir / "train.tsv").write_bytes("".join(lines)[:-1].encode())  # no line break at the end
    monkeypatch.setattr(tools._TsvPart, "BYTES", size)
    features = tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 8, processes=processes)
    examples = tools.BinaryClassificationProcessor().get_train_examples(data_dir)
    assert len(tools._TsvPart.split(data_dir / "train.tsv")) == parts
    expected = tools.convert_examples_to_features(examples, LABELS, 8, tokenizers["cased"], processes=1)
    assert rows_of(features) == rows_of(expected)


@pytest.mark.parametrize("label", ["1", "7"])
def test_workers_for_a_large_file_start_before_it_is_checked_and_end_with_a_bad_line(
    data_dir, tokenizers, monkeypatch, label
):
    lines = [f"{i}\t{i % 2}\ta\tgood soup {i}\n" for i in range(99)] + [f"99\t{label}\ta\tbad\n"]
    (data_dir / "train.tsv").write_text("".join(lines))
    monkeypatch.setattr(tools._TsvPart, "BYTES", 20)
    monkeypatch.setattr(tools._TsvPart, "MANY", 10)
    started, read_examples = [], tools.BinaryClassificationProcessor.read_examples

    def read(*arguments):
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        started.extend(multiprocessing.active_children())
        return read_examples(*arguments)

    monkeypatch.setattr(tools.BinaryClassificationProcessor, "read_examples", read)
    if label == "7":
        with pytest.raises(ValueError, match="line 100 has the label '7'"):
            tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 8, processes=2)
    else:
        features = tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 8, processes=2)
        pairs = [(f"good soup {i}", None) for i in range(99)] + [("bad", None)]
        assert np.array_equal(features.ids, convert(pairs, 8, tokenizers["cased"], processes=1).ids)
    assert len(started) == 1
    assert multiprocessing.active_children() == []


def test_no_more_is_kept_than_the_model_has_positions_not_even_from_an_earlier_conversion(data_dir, bert_files, pack):
    large, small = (pack(bert_files(max_position_embeddings=n), f"{n}.tar.gz") for n in (512, 16))
    tools.load_or_convert_features(data_dir, "train", tools.load_tokenizer(large), 17)
    with pytest.raises(ValueError, match="max_seq_length is 17, but must be from 2 to 16, the last position"):
        tools.load_or_convert_features(data_dir, "train", tools.load_tokenizer(small), 17)
    assert tools.load_or_convert_features(data_dir, "train", tools.load_tokenizer(small), 16).max_seq_length == 16


@pytest.mark.parametrize("damage", ["truncated", "list", "rows"])
def test_features_that_do_not_fit_are_converted_again(data_dir, tokenizers, damage, capsys):
    pickled = data_dir / "train_features.pkl"
    first = rows_of(tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7))
    if damage == "truncated":
        pickled.write_bytes(pickled.read_bytes()[:-9])
    elif damage == "list":  # of 2019, without a fingerprint
        pickled.write_bytes(pickle.dumps(tools.load_features(pickled)[:]))
    else:
        with open(data_dir / "train.tsv", "a") as file:
            file.write("5\t1\ta\tgood place\n")
    capsys.readouterr()
    again = tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    assert "converted" in capsys.readouterr().out
    assert rows_of(again)[:5] == first
    assert len(again) == (6 if damage == "rows" else 5)
    assert rows_of(tools.load_features(pickled)) == rows_of(again)


def test_bad_data_leaves_the_old_features_alone(data_dir, tokenizers):
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv is missing: data_prep\.ipynb"):
        tools.load_or_convert_features(data_dir, "dev", tokenizers["cased"], 7)
    tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    pickled = (data_dir / "train_features.pkl").read_bytes()
    with open(data_dir / "train.tsv", "a") as file:
        file.write("5\t7\ta\tgood place\n")
    with pytest.raises(ValueError, match=r"train\.tsv, line 6 has the label '7'"):
        tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    assert (data_dir / "train_features.pkl").read_bytes() == pickled
    assert sorted(path.name for path in data_dir.iterdir()) == ["train.tsv", "train_features.pkl"]


def test_a_full_disk_is_noticed_before_the_work(data_dir, tokenizers, monkeypatch):
    monkeypatch.setattr(tools.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="0 MB are free"):
        tools.load_or_convert_features(data_dir, "train", tokenizers["cased"], 7)
    assert [path.name for path in data_dir.iterdir()] == ["train.tsv"]


# ---------- Never stuck: what a user sees, and how a conversion is stopped --------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "terminal", "seen"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_progress_is_seen_where_somebody_looks(tokenizers, monkeypatch, progress, terminal, seen):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    examples = [tools.InputExample(i, f"word{i}", label="0") for i in range(1100)]
    tools.convert_examples_to_features(examples, LABELS, 9, tokenizers["cased"], processes=1, progress=progress)
    shown = sys.stderr.getvalue()
    assert ("Converting" in shown and "1100" in shown) == seen and bool(shown) == seen


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_stops_the_conversion_and_its_workers(tokenizers, tmp_path, processes):
    with open(tmp_path / "tokenizer.pkl", "wb") as file:
        pickle.dump(tokenizers["uncased"], file)
    (tmp_path / "script.py").write_text(
        "import multiprocessing, os, pickle, signal, threading, tools\n"
        "tokenizer = pickle.load(open('tokenizer.pkl', 'rb'))\n"
        "texts = (' '.join(f'w{i}x{j}' for j in range(100)) for i in range(20_000))\n"
        "examples = [tools.InputExample(i, text, label='0') for i, text in enumerate(texts)]\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background starts without it
        "threading.Timer(3, os.killpg, (0, signal.SIGINT)).start()\n"  # to all, as a terminal and Jupyter do
        "try:\n"
        f"    tools.convert_examples_to_features(examples, {{'0': 0}}, 512, tokenizer, processes={processes})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', multiprocessing.active_children())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tools.__file__).parent)}
    command = [sys.executable, "script.py"]
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False, "start_new_session": True}
    done = subprocess.run(command, cwd=tmp_path, env=environment, **options)
    assert (done.stdout, done.stderr) == ("interrupted []\n", "")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_workers_leave_ctrl_c_to_the_process_that_started_them(tokenizers):
    with tools._worker_pool((tokenizers["uncased"], 9, "head"), 2) as pool:
        of_worker = pool.result(timeout=300).submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(timeout=300)
    assert signal.SIGINT in of_worker and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
