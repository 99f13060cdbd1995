"""Token ids are bitwise identical to those of the 2019 reference, however difficult the text."""

import csv
import gc
import gzip
import itertools
import multiprocessing
import pickle
import re
import unicodedata
import weakref
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from conftest import make_vocabulary
from hypothesis import example, given
from hypothesis import strategies as st
from pytorch_pretrained_bert.tokenization import BasicTokenizer, BertTokenizer, WordpieceTokenizer
from reference import HARD_TEXTS, as_tuple, convert, reference

import tools
from textbert.data import quality
from textbert.features import tokenization
from textbert.features.storage import get_fingerprint
from textbert.features.token_cache import SharedCache, TokenCache
from textbert.features.tokenization import TRUNCATIONS, measure_unknown_tokens

# characters that BERT's cleaning and Python's str.split treat differently are drawn more often than by chance
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


def check(pairs, max_seq_length, tokenizer, truncation="head"):
    """Compare the features of pairs of texts with the reference."""
    features = convert(pairs, max_seq_length, tokenizer, truncation=truncation)
    assert len(features) == len(pairs)
    for (text_a, text_b), feature in zip(pairs, features):
        expected = reference(text_a, text_b, 1, max_seq_length, tokenizer, truncation)
        assert as_tuple(feature) == expected, (text_a, text_b, max_seq_length, truncation)


def test_the_hard_texts_are_hard(tokenizers):
    """The comparisons below prove something only if the texts contain the difficulties."""
    cased, uncased = tokenizers["cased"], tokenizers["uncased"]
    assert uncased.tokenize("A\x85B good\x1cfood") == ["a", "##b", "good", "##f", "##o", "##o", "##d"]
    assert cased.tokenize("UNaffable The") == ["U", "##N", "##aff", "##able", "The"]
    assert uncased.tokenize("UNaffable CAFÉ") == ["un", "##aff", "##able", "cafe"]
    assert cased.tokenize("é e\u0301") == ["é", "e", "##\u0301"]
    assert uncased.tokenize("[SEP] x[SEP] " + "a" * 101) == ["[SEP]", "x", "[", "s", "##e", "##p", "]", "[UNK]"]
    assert uncased.tokenize("中文good") == ["中", "文", "good"]
    categories = {unicodedata.category(c) for text in HARD_TEXTS for c in text}
    assert categories >= {"Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp", "Mn", "Lo", "So", "Po", "Ps", "Sc"}


def test_single_hard_texts(tokenizer):
    check([(text, None) for text in HARD_TEXTS], 512, tokenizer)


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
    truncation = "head" if data is None else data.draw(st.sampled_from(TRUNCATIONS))
    for tokenizer in tokenizers.values():
        check([(first, second), (first, None)], size, tokenizer, truncation)
        (count,) = tools.count_tokens([first], tokenizer)
        assert count == len(tokenizer.tokenize(first)) + 2


@given(texts=st.lists(any_text, max_size=6))
def test_cached_ids_are_the_same(tokenizers, texts):
    """The same text must get the same ids the second time, after any other text."""
    for tokenizer in tokenizers.values():
        check([(text, None) for text in [*texts, *reversed(texts)]], 16, tokenizer)


@pytest.mark.parametrize("max_seq_length", [2, 3, 4, 7, 16])
def test_very_long_texts(tokenizer, max_seq_length, monkeypatch):
    monkeypatch.setattr(TokenCache, "VERY_LONG", max_seq_length)
    sigmas = ["\u0391\u03a3.\u0392,\u0391\u03a3,\u0392", "[SEP],[SEP] [SEP]", ",\u0301,", "\u4e2d\ufe00\u6587"]
    texts = [a + b for a, b in itertools.product([*HARD_TEXTS, *sigmas], repeat=2)]
    check([(text, None) for text in texts], max_seq_length, tokenizer)


@given(text=any_text, size=st.sampled_from([3, 4, 7, 16]))
def test_any_very_long_text(tokenizers, text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenCache, "VERY_LONG", size)
        for tokenizer in tokenizers.values():
            check([(text, None)], size, tokenizer)


@given(text=st.text(st.sampled_from("\u4e2d\u6587,.\u0301\u03a3[]SEPaA \u00e9"), max_size=30), size=st.integers(1, 5))
def test_all_tokens_of_a_very_long_text_are_counted(tokenizers, text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenCache, "VERY_LONG", size)
        for tokenizer in tokenizers.values():
            assert tools.count_tokens([text], tokenizer) == [len(tokenizer.tokenize(text)) + 2]


def test_a_very_long_text_without_white_space_is_tokenized_no_further_than_necessary(tokenizer, monkeypatch):
    basic, lengths = tokenizer.basic_tokenizer, []
    clean = basic._clean_text
    monkeypatch.setattr(basic, "_clean_text", lambda text: lengths.append(len(text)) or clean(text))
    (feature,) = convert([("\u4e2d\u6587,\u00e9" * 500_000, None)], 16, tokenizer)
    assert as_tuple(feature) == reference("\u4e2d\u6587,\u00e9" * 10, None, 1, 16, tokenizer)
    assert 0 < max(lengths) < 100


def test_truncation_by_hand(tokenizers):
    tokenizer = tokenizers["uncased"]

    def tokenize(a, b, size, truncation):
        (feature,) = convert([(a, b)], size, tokenizer, truncation=truncation)
        return " ".join(tokenizer.convert_ids_to_tokens(feature.input_ids)), feature.segment_ids

    text = "a b c d e f g h i"
    assert tokenize(text, None, 10, "head") == ("[CLS] a b c d e f g h [SEP]", [0] * 10)
    assert tokenize(text, None, 10, "tail") == ("[CLS] b c d e f g h i [SEP]", [0] * 10)
    assert tokenize(text, None, 10, "head+tail") == ("[CLS] a b d e f g h i [SEP]", [0] * 10)
    assert tokenize("a b c", "x", 8, "head") == ("[CLS] a b c [SEP] x [SEP] [PAD]", [0] * 5 + [1, 1, 0])
    # five tokens fit: the longer text is truncated first, the second one if both have the same length
    assert tokenize("a b c d", "x y z w", 8, "head") == ("[CLS] a b c [SEP] x y [SEP]", [0] * 5 + [1] * 3)
    assert tokenize("a b c d", "x y z w", 8, "tail") == ("[CLS] b c d [SEP] z w [SEP]", [0] * 5 + [1] * 3)
    assert tokenize("a", "x y z w u v", 8, "head") == ("[CLS] a [SEP] x y z w [SEP]", [0] * 3 + [1] * 5)
    assert tokenize("", "", 4, "head") == ("[CLS] [SEP] [SEP] [PAD]", [0, 0, 1, 0])


@pytest.mark.parametrize("casing", ["cased", "uncased"])
def test_imdb_with_berts_own_vocabularies(test_data, casing):
    """Real reviews, with control characters and <br />: every id is BertTokenizer's."""
    tokenizer = BertTokenizer(str(test_data(f"vocab/bert-base-{casing}-vocab.txt")), do_lower_case=casing == "uncased")
    with gzip.open(test_data("imdb/train.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        texts = [text for _, text in itertools.islice(csv.reader(file), 2000)]
    features = convert([(text, None) for text in texts], 128, tokenizer)
    assert sum(feature.input_mask[-1] for feature in features) > 1000  # most are truncated
    for text, feature in zip(texts, features):
        ids = tokenizer.convert_tokens_to_ids(["[CLS]", *tokenizer.tokenize(text)[:126], "[SEP]"])
        assert feature.input_ids == ids + [0] * (128 - len(ids)), text


def test_a_chunk_of_more_ids_than_positions_logs_no_warning(tokenizers, caplog):
    assert convert([("\u597d" * 600, None)], 16, tokenizers["uncased"]).lengths.tolist() == [16]
    assert caplog.records == []


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    """A tokenizer that knows a few words."""
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nsoup\nand\na\ncat\n")
    return BertTokenizer(str(path))


@pytest.mark.parametrize(
    ("texts", "fraction", "hint"),
    [
        (["good soup", "bad soup and a cat"], 0.0, None),
        (["อาหาร อร่อย", "ห้อง สะอาด"], 1.0, "bert-base-multilingual-cased.*Thai"),
        (["ምግብ ጥሩ", "መጥፎ"], 1.0, "a BERT pre-trained on your language.*Ethiopic"),
        (["食品很好", "服务差"], 1.0, "bert-base-chinese"),
        (["とてもいい 料理", "まずい"], 1.0, "bert-base-multilingual-cased"),
        (["\U0001f600 \U0001f621", "\U0001f621"], 1.0, "write emoji"),
        (["good soup " * 20 + "อ", "bad " * 40], 0.0125, None),
        (["good soup " * 20] * 8 + ["อาหาร"], 0.003, "Thai"),  # few tokens, but all those of one text in nine
    ],
)
def test_unknown_tokens_are_measured(english, texts, fraction, hint):
    fractions, total, tokens_per_word = measure_unknown_tokens(texts, english)
    assert len(fractions) == len(texts) and total == pytest.approx(fraction, abs=0.001) and tokens_per_word >= 1
    sentences = quality.describe_unknown(texts, fractions, total, "tiny-bert")
    assert (f"{fraction:.1%} of the tokens are [UNK]" if fraction else "No token is [UNK]") in sentences[0]
    assert (len(sentences) == 1) == (hint is None)
    assert hint is None or re.search(hint, sentences[-1])


def test_unknown_tokens_of_an_empty_text_and_of_many_texts(english):
    assert measure_unknown_tokens([""], english)[1] == 0
    fractions = measure_unknown_tokens(["good"] * 101, english, 10)[0]
    assert len(fractions) == 10
    assert quality.describe_unknown(["good"] * 101, fractions, 0.0, "x")[0].startswith("No token of 10 texts is [UNK]")
    assert "Fewer than 0.1% of the tokens" in quality.describe_unknown(["good"], np.zeros(1), 1e-4, "x")[0]


def test_a_model_is_not_recommended_instead_of_itself():
    model = "bert-base-multilingual-cased"
    sentences = quality.describe_unknown(["อาหาร"], np.array([1.0]), 1.0, model)
    assert model not in sentences[-1]


@pytest.fixture
def vocabulary(tmp_path):
    """The path of a small vocabulary."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(make_vocabulary(False)) + "\n", encoding="utf-8")
    return path


class WholeTextTokenizer(BertTokenizer):
    """Depends on the whole text, as a tokenizer that segments words with a dictionary does."""

    def tokenize(self, text):
        return ["[UNK]", *super().tokenize(text)[::-1]]


@pytest.mark.parametrize("truncation", ["head", "tail"])
@pytest.mark.parametrize("kind", ["class", "instance", "basic", "none"])
def test_a_tokenizer_with_methods_of_its_own(vocabulary, kind, truncation):
    tokenizer = (WholeTextTokenizer if kind == "class" else BertTokenizer)(
        str(vocabulary), do_basic_tokenize=kind != "none"
    )
    if kind == "instance":
        tokenizer.tokenize = lambda text: ["good"] * len(text)
    if kind == "basic":
        tokenizer.basic_tokenizer.tokenize = lambda text: text.split("o")
    check([("good food", None), ("the Good, THE bad", "a good"), ("", "")], 7, tokenizer, truncation)
    with pytest.raises(TypeError, match="does not tokenize as BertTokenizer does"):
        get_fingerprint(vocabulary, tokenization.TokenizationConfig(tokenizer, 8), "classification")


def test_a_token_that_is_not_in_the_vocabulary(vocabulary):
    tokenizer = BertTokenizer(str(vocabulary))
    del tokenizer.vocab["[SEP]"]
    with pytest.raises(ValueError, match=r"the tokenizer returned '\[SEP\]', which is not in its vocabulary"):
        convert([("good", None)], 7, tokenizer)


# ---------- One example at a time -------------------------------------------------------------------------------------


def convert_one(text, tokenizer, size=30):
    feature = tools.convert_example_to_feature(
        (tools.InputExample(0, text, label="1"), {"1": 1}, size, tokenizer, "classification")
    )
    assert as_tuple(feature) == reference(text, None, 1, size, tokenizer), text
    return feature.input_ids


def swap_ids(tokenizer):
    tokenizer.vocab["good"], tokenizer.vocab["food"] = tokenizer.vocab["food"], tokenizer.vocab["good"]


def replace_token(tokenizer):
    tokenizer.vocab["goo"] = tokenizer.vocab.pop("good")


def replace_token_in_the_middle(tokenizer):
    vocabulary = tokenizer.vocab
    last, last_id = next(reversed(vocabulary.items()))
    vocabulary["goo"] = vocabulary["good"]
    del vocabulary["good"], vocabulary[last]
    vocabulary[last] = last_id


CHANGES = {
    "ids": swap_ids,
    "a token": replace_token,
    "a new token": lambda t: t.vocab.update({"[SEP]good": 7, "gooder": 8}),
    "[CLS]": lambda t: t.vocab.update({"[CLS]": 9}),
    "casing": lambda t: setattr(t.basic_tokenizer, "do_lower_case", False),
    "never_split": lambda t: setattr(t.basic_tokenizer, "never_split", ("[SEP]", "GOODER")),
    "accents": lambda t: setattr(t.basic_tokenizer, "_run_strip_accents", lambda text: text),
    "word length": lambda t: setattr(t.wordpiece_tokenizer, "max_input_chars_per_word", 3),
    # keys whose number, first and last one stay the same
    "a token in the middle": replace_token_in_the_middle,
    "a token in another order": lambda t: t.vocab.move_to_end("good") or swap_ids(t),
    "two tokens with one id": lambda t: t.vocab.update({"good": t.vocab["food"]}),
    "unknown token": lambda t: setattr(t.wordpiece_tokenizer, "unk_token", "[MASK]"),
    "another basic tokenizer": lambda t: setattr(t, "basic_tokenizer", BasicTokenizer(do_lower_case=False)),
    "another wordpiece tokenizer": lambda t: setattr(
        t, "wordpiece_tokenizer", WordpieceTokenizer(t.vocab, max_input_chars_per_word=3)
    ),
    "an equal vocabulary, which is edited": lambda t: setattr(t, "vocab", t.vocab.copy()) or swap_ids(t),
    "the vocabulary of the wordpiece tokenizer": lambda t: setattr(
        t.wordpiece_tokenizer, "vocab", {token: 0 for token in t.vocab if token != "good"}
    ),
    "another vocabulary": lambda t: setattr(t, "vocab", {token: 2 * i for token, i in t.vocab.items()}),
    "tokenize": lambda t: setattr(t, "tokenize", lambda text: ["good"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_cache_of_a_tokenizer_is_dropped_when_it_changes(vocabulary, change):
    text = "Good food café ¿ gooder GOODER [SEP]"
    tokenizer, other = BertTokenizer(str(vocabulary)), BertTokenizer(str(vocabulary))
    before = convert_one(text, tokenizer)
    for _ in range(3):  # the cache is filled at the second call
        assert convert_one(text, tokenizer) == convert_one(text, other) == before
    change(tokenizer)
    for _ in range(3):
        assert convert_one(text, tokenizer) != before
    assert convert_one(text, other) == before
    assert convert_one(text, pickle.loads(pickle.dumps(other))) == before


def test_a_cache_that_saw_an_edit_and_its_undoing(vocabulary):
    """`good` shares its id with `food` for a while; the ids in the cache are never those of that while."""
    tokenizer = BertTokenizer(str(vocabulary))
    good = tokenizer.vocab["good"]
    for token_id in (good, good, tokenizer.vocab["food"], tokenizer.vocab["food"], good, good):
        tokenizer.vocab["good"] = token_id
        convert_one("good food", tokenizer)


def test_never_split_is_a_list_that_changes(vocabulary):
    tokenizer = BertTokenizer(str(vocabulary), never_split=["[SEP]"])
    for _ in range(3):
        convert_one("GOOD food [SEP]", tokenizer)
    tokenizer.basic_tokenizer.never_split.append("GOOD")
    convert_one("GOOD food [SEP]", tokenizer)


def test_batches_and_single_examples_share_a_cache(vocabulary):
    """Several calls for one batch each, as `Classifier.predict` makes them, notice a change, too."""
    tokenizer = BertTokenizer(str(vocabulary))
    pairs = [("Good gooder", None), ("food", "the good soup")]
    for _ in range(3):
        check(pairs, 12, tokenizer, "head")
        convert_one("good", tokenizer)
    assert sorted(SharedCache.find(tokenizer)) == ["Good", "food", "good", "gooder", "soup", "the"]
    swap_ids(tokenizer)
    for _ in range(3):
        check(pairs, 12, tokenizer, "head")


def test_more_calls_than_tokens(vocabulary):
    tokenizer = BertTokenizer(str(vocabulary))
    for _ in range(2 * len(tokenizer.vocab) + 5):
        convert_one("good food", tokenizer)


def test_examples_in_threads_and_pools(tokenizers):
    rows = [
        (tools.InputExample(i, text, HARD_TEXTS[-i] if i % 2 else None, "1"), {"1": 1}, 16, tokenizer, "classification")
        for i, text in enumerate(HARD_TEXTS)
        for tokenizer in tokenizers.values()
    ]
    expected = [reference(row[0].text_a, row[0].text_b, 1, 16, row[3]) for row in rows]
    with ThreadPool(4) as threads, multiprocessing.get_context("fork").Pool(1) as processes:
        for pool in (threads, processes):
            assert list(map(as_tuple, pool.imap(tools.convert_example_to_feature, rows))) == expected


def test_the_cache_does_not_keep_a_tokenizer_alive(vocabulary):
    tokenizer = BertTokenizer(str(vocabulary))
    convert_one("good", tokenizer)
    reference_to_it = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert reference_to_it() is None
