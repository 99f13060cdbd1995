"""Features behave as a list, are saved and loaded unchanged, and a file is validated before it is trusted."""

import contextlib
import itertools
import os
import pickle
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytorch_pretrained_bert.tokenization import BertTokenizer
from reference import HARD_TEXTS, LABELS, rows_of

import tools
from textbert.features import Features, InputFeatures
from textbert.features.storage import get_fingerprint
from textbert.features.tokenization import TokenizationConfig

# ---------- Features as a list, and on disk ---------------------------------------------------------------------------


@pytest.fixture
def features(tokenizers):
    """Thirteen features of different lengths, of single texts and of pairs."""
    pairs = [(text, None) for text in HARD_TEXTS[3:11]] + list(zip(HARD_TEXTS[:5], HARD_TEXTS[3:8]))
    examples = [tools.InputExample(i, a, b, str(i % 2)) for i, (a, b) in enumerate(pairs)]
    return tools.convert_examples_to_features(examples, LABELS, 17, tokenizers["cased"], progress=False)


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
        unpickled = pickle.load(file)
    for loaded in (tools.load_features(tmp_path / "f.pkl"), unpickled):
        assert isinstance(loaded, tools.Features)
        assert rows_of(loaded) == rows_of(features)
        assert loaded.fingerprint == features.fingerprint
        assert loaded.max_seq_length == 17
    assert list(tmp_path.iterdir()) == [tmp_path / "f.pkl"]


def test_pickles_name_the_classes_where_every_version_finds_them(features):
    """Files of all versions name `textbert.features` or, before the package existed, `tools`."""
    assert tools.Features is Features and tools.InputFeatures is InputFeatures
    for value in (features, features[:]):
        content = pickle.dumps(value, 2)
        name = type(value if value is features else value[0]).__name__.encode()
        assert content.count(b"ctextbert.features\n" + name + b"\n") == 1
        for module in (b"textbert.features", b"tools"):
            loaded = pickle.loads(content.replace(b"ctextbert.features\n", b"c" + module + b"\n"))
            assert type(loaded) is type(value) and rows_of(loaded) == rows_of(features)


def test_the_keys_of_a_features_file_are_those_of_every_version(features):
    names = ("ids", "lengths", "first_lengths", "labels")
    keys = {"format", "max_seq_length", "fingerprint", "checksum", *names, *(f"{name}_type" for name in names)}
    assert set(features.__getstate__()) == keys


def test_a_failed_save_leaves_the_old_file(features, tmp_path):
    path = tmp_path / "f.pkl"
    tools.save_features(features, path)
    features.fingerprint = lambda: "cannot be pickled"
    with pytest.raises((AttributeError, pickle.PicklingError)):
        tools.save_features(features, path)
    assert rows_of(tools.load_features(path)) == rows_of(features)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("label", ["1", None, 0.25])
def test_a_list_of_input_features_can_be_saved(tokenizers, tmp_path, label):
    mode = "regression" if label == 0.25 else "classification"
    examples = [tools.InputExample("x", "good", "food", label), tools.InputExample("y", "very good", None, label)]
    features = tools.convert_examples_to_features(examples, LABELS, 9, tokenizers["cased"], mode, progress=False)
    tools.save_features(features[:], tmp_path / "f.pkl")
    assert rows_of(tools.load_features(tmp_path / "f.pkl")) == rows_of(features)


def test_a_list_of_input_features_without_labels_in_regression(tokenizers, tmp_path):
    """The label is NaN there, which is not equal to itself."""
    examples = [tools.InputExample("x", "good")]
    features = tools.convert_examples_to_features(examples, {}, 9, tokenizers["cased"], "regression", progress=False)
    tools.save_features(features[:], tmp_path / "f.pkl")
    (loaded,) = tools.load_features(tmp_path / "f.pkl")
    assert loaded.input_ids == features[0].input_ids
    assert np.isnan(loaded.label_id)


@pytest.mark.parametrize("module", [b"tools", b"textbert.features", b"__main__", b"convert_examples_to_features"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_list_pickled_as_in_2019(features, tmp_path, module, protocol):
    pickled, name = pickle.dumps(features[:], protocol), b"textbert.features"
    if protocol < 4:  # the module is on a line of its own
        old, new = b"c" + name + b"\n", b"c" + module + b"\n"
    else:  # a short string after its length
        old, new = (b"\x8c" + bytes([len(module)]) + module for module in (name, module))
        # the length of the frame, just after the protocol, increases as well
        (frame,) = struct.unpack("<Q", pickled[3:11])
        pickled = pickled[:3] + struct.pack("<Q", frame + len(module) - len(name)) + pickled[11:]
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
        [tools.InputFeatures([1, 2], [0, 1], [0, 0], 0)],  # padding on the left
        [tools.InputFeatures([1, 2], [1, 0], [0, 0], 0)],  # an id in the padding
        [tools.InputFeatures([1, 2], [1, 1], [1, 0], 0)],  # the second text before the first
        [tools.InputFeatures([-1, 2], [1, 1], [0, 0], 0)],
        [tools.InputFeatures([1, 2], [1, 1], [0, 0], 2**40)],
        [tools.InputFeatures([1, 2], [1, 1], [0, 0], "0")],
        [tools.InputFeatures([1.5, 2], [1, 1], [0, 0], 0)],
        # BERT has 512 positions; and a long row with a million references to it is a small file that fills memory
        [tools.InputFeatures([1] * 513, [1] * 513, [0] * 513, 0)],
        [1, 2, 3],
        ["good"],
    ],
)
def test_lists_that_are_not_features(rows, tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match=r"f\.pkl is not a valid features file"):
        tools.load_features(tmp_path / "f.pkl")


def test_a_missing_features_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pkl is missing: train\.ipynb or converter\.py"):
        tools.load_features(tmp_path / "absent.pkl")


# ---------- Invalid and malicious files -------------------------------------------------------------------------------


class Calls:
    """An object that is pickled as a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious_pickles(marker):
    """Return a dict from name to a pickle that would create the file `marker`, or allocate 8 GB."""
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
        "dotted name": b"\x80\x04\x8c\x14textbert.utils.files\x8c\x09os.system\x93\x8c"
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
    """Limit this process to 1 GB more memory, not 8, so that a test that fails does not fill the machine."""
    resource = pytest.importorskip("resource")
    pages = Path("/proc/self/statm")  # only Linux has it; elsewhere there is no limit
    size = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 2**40
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("name", list(malicious_pickles("x")))
def test_malicious_pickles_are_refused(name, tmp_path, little_memory):
    marker = tmp_path / "marker"
    (tmp_path / "f.pkl").write_bytes(malicious_pickles(marker)[name])
    with pytest.raises(ValueError, match=r"f\.pkl is not a valid features file") as raised:
        tools.load_features(tmp_path / "f.pkl")
    assert not marker.exists()
    assert "MemoryError" not in str(raised.value), "it tried to allocate what the pickle claims"


EXECUTING = ["os.system", "subprocess", "builtins.eval", "protocol 0", "inside a row", "inside features", "dotted name"]


@pytest.mark.parametrize("name", EXECUTING)
def test_the_malicious_pickles_are_malicious(name, tmp_path):
    """Python's own unpickler executes them; otherwise the test above would prove nothing."""
    marker = tmp_path / "marker"
    with contextlib.suppress(ValueError):
        pickle.loads(malicious_pickles(marker)[name])
    assert marker.exists()


def valid_state():
    """Return the state of valid features of two examples, of 3 and 2 tokens."""
    arrays = (
        np.array([5, 6, 7, 8, 9], "<u2"),
        np.array([3, 2], "<u2"),
        np.array([2, 2], "<u2"),
        np.array([0, 1], "<i4"),
    )
    return tools.Features(*arrays, 4).__getstate__()


def pickle_of(state):
    """Return a pickle of a Features object with a given state."""
    inner = pickle.dumps(state, 3)[2:-1]  # without the protocol, two bytes, and the final STOP
    return b"\x80\x03ctools\nFeatures\n)\x81" + inner + b"b."


def test_the_valid_state_is_loaded(tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle_of(valid_state()))
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
def test_invalid_states_are_refused(change, tmp_path):
    state = {**valid_state(), **change}
    content = pickle_of(state)
    (tmp_path / "f.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"f\.pkl is not a valid features file") as raised:
        tools.load_features(tmp_path / "f.pkl")
    assert "checksum" not in str(raised.value), "an attacker would get that right: shapes must be checked as well"
    with pytest.raises(ValueError):
        pickle.loads(content)


@pytest.mark.parametrize("name", sorted(valid_state()))
def test_states_without_a_key_are_refused(name, tmp_path):
    state = valid_state()
    del state[name]
    (tmp_path / "f.pkl").write_bytes(pickle_of(state))
    with pytest.raises(ValueError, match=r"f\.pkl is not a valid features file"):
        tools.load_features(tmp_path / "f.pkl")


def test_truncated_files(features, tmp_path):
    path = tmp_path / "f.pkl"
    tools.save_features(features, path)
    content = path.read_bytes()
    assert len(content) > 500
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="not a valid features file"):
            tools.load_features(path)


def test_flipped_bits(tmp_path):
    """A flipped bit is an error or changes nothing, except for the fingerprint, which then does not match the data."""
    path, fingerprint = tmp_path / "f.pkl", "0123456789abcdef" * 4
    path.write_bytes(pickle_of(valid_state()))
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


def test_the_fingerprint_depends_on_everything_that_features_are_made_from(data_dir, tokenizers, tmp_path):
    tsv = data_dir / "train.tsv"
    config = TokenizationConfig(tokenizers["uncased"], 7, "head")
    first = get_fingerprint(tsv, config, "classification")
    assert len(first) == 64
    assert get_fingerprint(tsv, config, "classification") == first
    # the same vocabulary with a token renamed, with two tokens swapped, and with the other casing
    paths = [tmp_path / f"{i}.txt" for i in range(3)]
    tokens = list(tokenizers["uncased"].vocab)
    vocabularies = [[*tokens[:-1], "new"], [*tokens[:-2], tokens[-1], tokens[-2]], tokens]
    for path, vocabulary in zip(paths, vocabularies):
        path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    changed_tokenizers = [BertTokenizer(str(path), do_lower_case=i < 2) for i, path in enumerate(paths)]
    changes = [*({"tokenizer": tokenizer} for tokenizer in changed_tokenizers), {"max_seq_length": 8}]
    changes += [{"truncation": "tail"}, {"truncation": "head+tail"}]
    fingerprints = [get_fingerprint(tsv, replace(config, **change), "classification") for change in changes]
    fingerprints.append(get_fingerprint(tsv, config, "regression"))
    tsv.write_bytes(tsv.read_bytes().replace(b"soup", b"soap"))
    fingerprints.append(get_fingerprint(tsv, config, "classification"))
    assert len({first, *fingerprints}) == 9
