"""Features: the input of BERT for many examples, packed into little memory."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from textbert.features.tokenization import MAX_POSITIONS

IGNORE_INDEX = -100  # the label that torch's losses ignore by default


@dataclass
class InputFeatures:
    """The input of BERT for one example: three lists of `max_seq_length` integers, and the label.

    input_ids : positions of the tokens in the vocabulary
    input_mask : 1 for a token, 0 for padding
    segment_ids : 0 for the first text, 1 for the second
    label_id : an integer, or a float in regression; `IGNORE_INDEX` (NaN in regression) for an example without a label
    """

    __module__ = "textbert.features"  # as in pickles, see `Features`

    input_ids: list[int]
    input_mask: list[int]
    segment_ids: list[int]
    label_id: int | float

    @classmethod
    def pad(cls, ids: list[int], length_a: int, label_id: int | float, max_seq_length: int) -> "InputFeatures":
        """Return the InputFeatures of tokens, the first `length_a` of which belong to the first text."""
        length = len(ids)
        padding = [0] * (max_seq_length - length)
        segment_ids = [0] * length_a + [1] * (length - length_a) + padding
        return cls(ids + padding, [1] * length + padding, segment_ids, label_id)


class Features(Sequence[InputFeatures]):
    """A list of InputFeatures that takes about 2 bytes of memory for each token.

    Padding is not stored: it is added where an element is accessed, and where `collate` builds a batch.
    `fingerprint` identifies what the features were made from, see `get_fingerprint`.
    """

    __module__ = "textbert.features"  # the name in pickles, wherever in the package the class is defined
    FORMAT = 1
    # from the key of an array in a pickle to its attribute and the dtypes that it may have
    ARRAYS = {
        "ids": ("ids", ("<u2", "<u4")),
        "lengths": ("lengths", ("<u2",)),
        "first_lengths": ("segment_a_lengths", ("<u2",)),
        "labels": ("labels", ("<i4", "<f8")),
    }

    def __init__(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        segment_a_lengths: np.ndarray,
        labels: np.ndarray,
        max_seq_length: int,
        fingerprint: str | None = None,
    ) -> None:
        """Store the features of n examples.

        ids : array of shape (sum of lengths,), uint16 or uint32; with [CLS] and [SEP]
        lengths : array of shape (n,); number of tokens of each example
        segment_a_lengths : array of shape (n,); how many of these belong to the first text
        labels : array of shape (n,), int32, or float64 in regression
        max_seq_length : length that an element is padded to
        """
        self.ids = ids
        self.lengths = lengths
        self.segment_a_lengths = segment_a_lengths
        self.labels = labels
        self.max_seq_length = max_seq_length
        self.fingerprint = fingerprint
        self.offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))  # shape (n + 1,)

    @classmethod
    def from_list(cls, rows: Sequence[InputFeatures]) -> "Features":
        """Pack a list of InputFeatures, as pickled by the 2019 code; raise ValueError if it is not valid."""
        lists = [values for row in rows for values in (row.input_ids, row.input_mask, row.segment_ids)]
        if any(set(map(type, values)) - {int, bool} for values in lists):
            raise ValueError("ids, mask and segments must be lists of integers")
        sizes = set(map(len, lists))
        if len(sizes) != 1 or max(sizes) > MAX_POSITIONS:
            raise ValueError(f"all features must be padded to one length, but their lengths are {sorted(sizes)}")
        if not all(isinstance(row.label_id, int | float | np.number) for row in rows):
            raise ValueError("each label_id must be a number")
        ids = np.array([row.input_ids for row in rows], np.uint32)  # (n, length), as are the next two
        mask = np.array([row.input_mask for row in rows], bool)
        segment_a = mask & ~np.array([row.segment_ids for row in rows], bool)
        label_ids = np.array([row.label_id for row in rows])
        is_float = label_ids.dtype.kind == "f"
        labels = label_ids.astype(np.float64 if is_float else np.int32)
        packed = cls(ids[mask], mask.sum(1, np.uint16), segment_a.sum(1, np.uint16), labels, sizes.pop())
        # BERT's code makes nothing that packing would lose, such as padding in front or an id under the mask
        same_labels = np.array_equal(labels, label_ids, equal_nan=is_float)
        if not same_labels or any(
            vars(row) != vars(packed[i]) | {"label_id": row.label_id} for i, row in enumerate(rows)
        ):
            raise ValueError("mask or segments are not those of one text or of a pair")
        return packed

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> InputFeatures: ...

    @overload
    def __getitem__(self, index: slice) -> list[InputFeatures]: ...

    def __getitem__(self, index: int | slice) -> InputFeatures | list[InputFeatures]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        index %= len(self)
        ids = self.ids[self.offsets[index] : self.offsets[index + 1]].tolist()
        return InputFeatures.pad(
            ids, int(self.segment_a_lengths[index]), self.labels[index].item(), self.max_seq_length
        )

    def hash_content(self) -> str:
        """Return the SHA-256, in hexadecimal, of the tokens and labels."""
        digest = hashlib.sha256(str(self.max_seq_length).encode())
        for attribute, _ in self.ARRAYS.values():
            digest.update(getattr(self, attribute).tobytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        state = {"format": self.FORMAT, "max_seq_length": self.max_seq_length, "fingerprint": self.fingerprint}
        for key, (attribute, _) in self.ARRAYS.items():
            array = getattr(self, attribute)
            state |= {key: array.tobytes(), f"{key}_type": array.dtype.str}
        return state | {"checksum": self._checksum(state)}

    @classmethod
    def _checksum(cls, state: dict[str, Any]) -> int:
        total = zlib.crc32(repr([state["max_seq_length"], *(state[f"{key}_type"] for key in cls.ARRAYS)]).encode())
        for key in cls.ARRAYS:
            total = zlib.crc32(state[key], total)
        return total

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Check the content of a pickle, then view it as arrays without copying; ValueError if it is not valid."""
        if state.get("format") != self.FORMAT:
            raise ValueError(f"expected format {self.FORMAT}")
        arrays = {}
        for key, (attribute, dtypes) in self.ARRAYS.items():
            if state[f"{key}_type"] not in dtypes or type(state[key]) is not bytes:
                raise ValueError(f"{key} is not an array of {' or '.join(dtypes)}")
            arrays[attribute] = np.frombuffer(state[key], state[f"{key}_type"])
        size, fingerprint = state["max_seq_length"], state["fingerprint"]
        if type(size) is not int or not 2 <= size <= MAX_POSITIONS or type(fingerprint) not in (str, type(None)):
            raise ValueError("invalid max_seq_length or fingerprint")
        lengths, segment_a_lengths = arrays["lengths"], arrays["segment_a_lengths"]
        if not (
            len(lengths) == len(segment_a_lengths) == len(arrays["labels"])
            and lengths.max(initial=0) <= size
            and (segment_a_lengths <= lengths).all()
            and lengths.sum(dtype=np.int64) == len(arrays["ids"])
        ):
            raise ValueError("the lengths of its arrays are inconsistent")
        if state["checksum"] != self._checksum(state):
            raise ValueError("checksum mismatch: the file is corrupt")
        Features.__init__(self, **arrays, max_seq_length=size, fingerprint=fingerprint)
