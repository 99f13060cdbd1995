"""A LazyTokenizer's copies are equal to it, and unpacked when they are used."""

import copy
import pickle
from multiprocessing.pool import ThreadPool

import pytest
from conftest import make_vocabulary
from pytorch_pretrained_bert.tokenization import BertTokenizer
from reference import HARD_TEXTS, as_tuple, reference

import tools
from textbert.features.lazy_tokenizer import LazyTokenizer, get_twin


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(make_vocabulary(True)) + "\n", encoding="utf-8")
    tokenizer = LazyTokenizer(str(path), do_lower_case=False, max_len=16)
    tokenizer.segments = 1
    return tokenizer


def is_packed(tokenizer):
    return vars(tokenizer).keys() == {"_packed"}


def make_copy(tokenizer):
    return pickle.loads(pickle.dumps(tokenizer))


def describe(tokenizer):
    """Return all attributes of a tokenizer, and whether its parts have the same vocabulary."""
    basic, wordpiece = vars(tokenizer.basic_tokenizer), vars(tokenizer.wordpiece_tokenizer)
    own = {name: value for name, value in vars(tokenizer).items() if not name.endswith("_tokenizer")}
    return own, basic, wordpiece, wordpiece["vocab"] is tokenizer.vocab


def rename_token(tokenizer):
    tokenizer.vocab["a\nb"] = tokenizer.vocab.pop("good")


EDITS = {
    "none": lambda t: None,
    "ids": lambda t: t.vocab.update({"good": t.vocab["food"], "food": t.vocab["good"]}),
    "a new token": lambda t: t.vocab.update({"gooder": len(t.vocab)}),
    "a token with a line break": rename_token,
    "the other vocabulary": lambda t: t.ids_to_tokens.update({7: "seven"}),
    "a plain dict": lambda t: setattr(t, "vocab", dict(t.vocab)),
    "settings": lambda t: setattr(t.basic_tokenizer, "do_lower_case", True),
    "an attribute": lambda t: setattr(t, "note", ["mine"]),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_copy_is_equal(tokenizer, edit):
    make_copy(tokenizer)
    edit(tokenizer)
    duplicate = make_copy(tokenizer)
    twice = make_copy(duplicate)
    assert is_packed(duplicate) and is_packed(twice)
    assert isinstance(duplicate, BertTokenizer)
    assert type(duplicate.vocab) is type(tokenizer.vocab)
    assert describe(duplicate) == describe(twice) == describe(copy.deepcopy(tokenizer)) == describe(tokenizer)


def test_a_copy_is_independent(tokenizer):
    first, second = make_copy(tokenizer), make_copy(tokenizer)
    first.vocab["good"] = 0
    assert second.vocab["good"] == tokenizer.vocab["good"] != 0
    assert make_copy(first).vocab["good"] == 0


def test_what_is_set_before_the_first_use_stays(tokenizer):
    duplicate = make_copy(tokenizer)
    duplicate.max_len = 5
    assert make_copy(duplicate).max_len == 5
    assert duplicate.segments == 1 and duplicate.max_len == 5


def test_an_attribute_that_does_not_exist(tokenizer):
    for instance in (tokenizer, make_copy(tokenizer)):
        assert not hasattr(instance, "nothing")
        with pytest.raises(AttributeError, match="'LazyTokenizer' object has no attribute 'nothing'"):
            instance.nothing  # noqa: B018


@pytest.mark.parametrize("attempt", range(20))
def test_a_copy_in_several_threads(tokenizer, attempt):
    duplicate = make_copy(tokenizer)
    with ThreadPool(4) as pool:
        vocabularies = pool.map(lambda _: duplicate.vocab, range(8))
    assert all(vocabulary is duplicate.vocab for vocabulary in vocabularies)


def test_an_unused_copy_has_a_twin(tokenizer):
    first, second = make_copy(tokenizer), make_copy(tokenizer)
    assert get_twin(first) is get_twin(second) is not first
    assert describe(get_twin(first)) == describe(tokenizer)
    assert is_packed(first) and get_twin(tokenizer) is tokenizer
    first.vocab["good"] = 0
    assert get_twin(first) is first and get_twin(make_copy(first)).vocab["good"] == 0


def test_features_of_copies_that_differ(tokenizer):
    """Rows of the 2019 guide's pool, each with a copy of its own, some of them edited."""
    for number, text in enumerate(HARD_TEXTS):
        if number % 3 == 0:
            EDITS["ids"](tokenizer)
        row = pickle.loads(pickle.dumps((tools.InputExample(0, text, label="1"), {"1": 1}, 12, tokenizer)))
        if number % 2:
            row[3].basic_tokenizer.do_lower_case = True
        feature = tools.convert_example_to_feature((*row, "classification"))
        assert as_tuple(feature) == reference(text, None, 1, 12, row[3]), text
