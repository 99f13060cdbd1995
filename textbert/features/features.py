"""Features: what BERT reads of many texts, in little memory, with a pickle that is safe to load."""

import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np

from textbert.features.tokenization import MAX_POSITIONS, cuts_by_words
from textbert.utils.errors import translate_read_errors
from textbert.utils.files import atomic_write, check_file, hash_file, is_file

IGNORE_INDEX = -100  # torch's own "ignore this label"


@dataclass
class InputFeatures:
    """What BERT reads of one example: three lists of `max_seq_length` integers, and the label.

    `input_ids` are positions in the vocabulary, `input_mask` is 1 where there is a word piece and 0 in the padding,
    `segment_ids` is 0 for the first text and 1 for the second. `label_id` is an integer, in regression a float, and
    `IGNORE_INDEX` (-100; in regression NaN) where there is no label.
    """

    input_ids: list
    input_mask: list
    segment_ids: list
    label_id: int | float


class Features(Sequence):
    """A list of InputFeatures that takes about 2 bytes of memory for each word piece.

    Padding is not kept: it is added again where an element is asked for, and where `collate` builds a batch.
    `fingerprint` says what the features were made from (see `get_fingerprint`).
    """

    __module__ = "textbert.features"  # what pickles name, whichever module of the package it stands in
    FORMAT = 1
    ARRAYS = {"ids": ("<u2", "<u4"), "lengths": ("<u2",), "first_lengths": ("<u2",), "labels": ("<i4", "<f8")}

    def __init__(self, ids, lengths, first_lengths, labels, max_seq_length, fingerprint=None):
        """Hold the features of n examples.

        ids : array of shape (sum of lengths,), uint16 or uint32; with [CLS] and [SEP]
        lengths : array of shape (n,); word pieces of each example
        first_lengths : array of shape (n,); how many of them belong to the first text
        labels : array of shape (n,), int32, or float64 in regression
        max_seq_length : what an element is padded to
        """
        self.ids = ids
        self.lengths = lengths
        self.first_lengths = first_lengths
        self.labels = labels
        self.max_seq_length = max_seq_length
        self.fingerprint = fingerprint
        self.offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))  # shape (n + 1,)

    @classmethod
    def from_list(cls, rows):
        """Pack a list of InputFeatures, such as the 2019 code pickled; ValueError if it is not sound."""
        lists = [values for r in rows for values in (r.input_ids, r.input_mask, r.segment_ids)]
        if any(set(map(type, values)) - {int, bool} for values in lists):
            raise ValueError("ids, mask and segments must be lists of integers")
        sizes = set(map(len, lists))
        if len(sizes) != 1 or max(sizes) > MAX_POSITIONS:
            raise ValueError(f"all features must be padded to one length, but they have {sorted(sizes)}")
        ids = np.array([r.input_ids for r in rows], np.uint32)  # (n, length), as are the next two
        mask = np.array([r.input_mask for r in rows], bool)
        first = mask & ~np.array([r.segment_ids for r in rows], bool)
        if not all(isinstance(r.label_id, int | float | np.number) for r in rows):
            raise ValueError("each label_id must be a number")
        given = np.array([r.label_id for r in rows])
        labels = given.astype(np.float64 if given.dtype.kind == "f" else np.int32)
        packed = cls(ids[mask], mask.sum(1, np.uint16), first.sum(1, np.uint16), labels, sizes.pop())
        same_labels = np.array_equal(labels, given, equal_nan=given.dtype.kind == "f")
        if not same_labels or any(vars(r) != vars(packed[i]) | {"label_id": r.label_id} for i, r in enumerate(rows)):
            raise ValueError("mask or segments are not those of one text or of a pair")
        return packed

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no example {index} among {len(self)}")
        index %= len(self)
        length, first = int(self.lengths[index]), int(self.first_lengths[index])
        padding = [0] * (self.max_seq_length - length)
        ids = self.ids[self.offsets[index] : self.offsets[index + 1]].tolist() + padding
        segments = [0] * first + [1] * (length - first) + padding
        return InputFeatures(ids, [1] * length + padding, segments, self.labels[index].item())

    def __getstate__(self):
        state = {"format": self.FORMAT, "max_seq_length": self.max_seq_length, "fingerprint": self.fingerprint}
        for name in self.ARRAYS:
            array = getattr(self, name)
            state |= {name: array.tobytes(), f"{name}_type": array.dtype.str}
        return state | {"checksum": self._checksum(state)}

    @classmethod
    def _checksum(cls, state):
        total = zlib.crc32(repr([state["max_seq_length"], *(state[f"{name}_type"] for name in cls.ARRAYS)]).encode())
        for name in cls.ARRAYS:
            total = zlib.crc32(state[name], total)
        return total

    def __setstate__(self, state):
        """Check what a pickle holds, then make arrays of it without copying."""
        if state.get("format") != self.FORMAT:
            raise ValueError(f"it is not of format {self.FORMAT}")
        arrays = {}
        for name, types in self.ARRAYS.items():
            if state[f"{name}_type"] not in types or type(state[name]) is not bytes:
                raise ValueError(f"{name} is not an array of {' or '.join(types)}")
            arrays[name] = np.frombuffer(state[name], state[f"{name}_type"])
        size, lengths, fingerprint = state["max_seq_length"], arrays["lengths"], state["fingerprint"]
        if type(size) is not int or not 2 <= size <= MAX_POSITIONS or type(fingerprint) not in (str, type(None)):
            raise ValueError("its max_seq_length or its fingerprint cannot be")
        if not (
            len(lengths) == len(arrays["first_lengths"]) == len(arrays["labels"])
            and lengths.max(initial=0) <= size
            and (arrays["first_lengths"] <= lengths).all()
            and lengths.sum(dtype=np.int64) == len(arrays["ids"])
        ):
            raise ValueError("the lengths of its arrays do not fit each other")
        if state["checksum"] != self._checksum(state):
            raise ValueError("its checksum is wrong: the file is damaged")
        self.__init__(max_seq_length=size, fingerprint=fingerprint, **arrays)


def save_features(features, path):
    """Pickle Features, or a list of InputFeatures, to `path`, replacing the file in one step."""
    if not isinstance(features, Features):
        features = Features.from_list(features)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(features, file, protocol=4)


class _SafeUnpickler(pickle._Unpickler):
    """Unpickles plain values and our two classes; whatever else a pickle names is refused.

    This is the unpickler written in Python: unlike the faster one it reserves no memory that a hostile pickle only
    claims to need. Our classes are stood in for until all has been checked.
    """

    class Stored:
        """Stands in for Features and for the InputFeatures of 2019."""

    # what features need; among the other opcodes is one that reserves what a pickle claims before it is read, and some
    # that build tuples, whose hash lets Python crash if they are nested deeply
    OPCODES = """PROTO FRAME MARK STOP GLOBAL STACK_GLOBAL EMPTY_TUPLE NEWOBJ BUILD EMPTY_DICT SETITEM SETITEMS
        EMPTY_LIST APPEND APPENDS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
        SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE"""
    dispatch = {code: pickle._Unpickler.dispatch[code] for name in OPCODES.split() for code in getattr(pickle, name)}

    def find_class(self, module, name):
        if name in ("Features", "InputFeatures"):
            return type(name, (self.Stored,), {})
        raise ValueError(f"it names {module}.{name}, which features never need")


def load_features(path):
    """Load Features from a pickle of `save_features`, or of a list of InputFeatures as in 2019.

    A pickle can run code when it is loaded; this one cannot, since nothing but our two classes is let in. Raises
    FileNotFoundError, ReadError, and ValueError if it is damaged or holds anything else.
    """
    check_file(path, "train.ipynb or converter.py makes it")
    with translate_read_errors(path):
        return _load_features(path)


def _load_features(path):
    try:
        content = Path(path).read_bytes()
        loaded = _SafeUnpickler(io.BytesIO(content)).load()
        if isinstance(loaded, list):
            values = sum(len(v) for row in loaded for v in vars(row).values() if isinstance(v, list))
            if 20 * len(loaded) + values > len(content):  # each takes 2 bytes, unless it is repeated
                raise ValueError("it holds the same again and again")
            return Features.from_list([InputFeatures(**vars(row)) for row in loaded])
        if not isinstance(loaded, _SafeUnpickler.Stored):
            raise ValueError(f"it holds a {type(loaded).__name__}")
        features = Features.__new__(Features)
        features.__setstate__(vars(loaded))
        return features
    except Exception as error:  # a damaged pickle can raise nearly anything
        what = f"{type(error).__name__}: {error}"
        ours = str(path).endswith("_features.pkl")
        remedy = "delete it, it will be made again" if ours else "give a file that save_features or converter.py wrote"
        raise ValueError(f"{path} is not a sound features file ({what}): {remedy}") from None


def load_if_current(path, fingerprint):
    """Return the Features in a pickle if they have this fingerprint; None, and say why, if not."""
    if not is_file(path):
        return None
    try:
        features = load_features(path)
    except ValueError as error:
        print(error)
        return None
    if features.fingerprint != fingerprint:
        print(f"{path} was made from other data or settings: converting again")
        return None
    return features


def get_fingerprint(tsv_path, conversion, output_mode):
    """Return the SHA-256, in hexadecimal, of all that decides what the features of a TSV file are.

    Raises TypeError for a tokenizer of which that cannot be known.
    """
    if not cuts_by_words(conversion.tokenizer):
        raise TypeError(
            "the tokenizer does not cut words as BertTokenizer does, so that a features file made with it could not be "
            "known again: use convert_examples_to_features and save_features"
        )
    data = hash_file(tsv_path)
    vocabulary = sorted(conversion.tokenizer.vocab.items(), key=lambda item: item[1])
    lower = conversion.tokenizer.basic_tokenizer.do_lower_case
    length, truncation = conversion.max_seq_length, conversion.truncation
    decides = [Features.FORMAT, data, vocabulary, lower, length, truncation, output_mode]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _read_number(example):
    """Return the label of an example as a float, NaN if it has none; ValueError if it is no number."""
    try:
        number = np.nan if example.label is None else float(example.label)
    except (ValueError, TypeError):
        number = np.inf
    if np.isinf(number):
        raise ValueError(f"example {example.guid!r} has the label {example.label!r}, but in regression it is a number")
    return number


def check_texts(examples):
    """Raise ValueError, which names the example, for what is no InputExample of one or two strings."""
    for row, example in enumerate(examples):
        if not all(hasattr(example, name) for name in ("guid", "text_a", "text_b", "label")):
            raise ValueError(f"example {row} is {example!r:.80}, but must be an InputExample")
        for name, text, kinds in (("text_a", example.text_a, str), ("text_b", example.text_b, str | None)):
            if not isinstance(text, kinds):
                raise ValueError(
                    f"example {example.guid!r} has the {name} {text!r:.80}, but it must be a string, '' if empty"
                )


def check_labels_match(features, labels, path, digest=None):
    """Raise ValueError unless features are of the rows that were read from `path`.

    labels : of those rows, an array of shape (n,)
    digest : what `hash_file` said of the file just before they were read; None where that is not known
    """
    if not np.array_equal(features.labels, labels) or digest not in (None, hash_file(path)):
        raise ValueError(
            f"{path} was written anew after its examples were read: run the cells again from where that is done"
        )


def encode_example_labels(examples, label_map, output_mode):
    """Return the labels of examples as an array of shape (n,), int32 or (in regression) float64."""
    if output_mode == "regression":
        return np.array([_read_number(example) for example in examples], "<f8")
    if output_mode != "classification":
        raise ValueError(f"output_mode is {output_mode!r}, but must be classification or regression")
    if not isinstance(label_map, Mapping) or not all(isinstance(value, Integral) for value in label_map.values()):
        raise ValueError(f"label_map is {label_map!r}, but must be a dict from label to integer, such as {{'0': 0}}")
    known = {None: IGNORE_INDEX, **label_map}
    labels = []
    for example in examples:
        if not isinstance(example.label, Hashable) or example.label not in known:
            raise ValueError(f"example {example.guid!r} has the label {example.label!r}, which is not in {label_map}")
        labels.append(known[example.label])
    return np.array(labels, "<i4")
