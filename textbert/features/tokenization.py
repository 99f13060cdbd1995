"""Turn texts into token ids, bitwise identical to those of BERT's own tokenizer, with a cache that makes it fast."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.features.token_cache import SharedCache, TokenCache
from textbert.utils.validation import check_type

MAX_POSITIONS = 512  # BERT has learned an embedding for each of 512 positions

TRUNCATIONS = ("head", "tail", "head+tail")

TextPair = tuple[str, str | None]
# ids of shape (sum of lengths,), lengths and lengths of segment A, both of shape (n,)
EncodedBatch = tuple[np.ndarray, np.ndarray, np.ndarray]


def count_tokens(texts: Iterable[str], tokenizer: BertTokenizer) -> np.ndarray:
    """Return the number of tokens of each text, including [CLS] and [SEP]: an integer array of shape (n,)."""
    cache = TokenCache(tokenizer)
    return np.array([len(cache.encode(text, len(text))) // cache.dtype.itemsize + 2 for text in texts], int)


@dataclass(frozen=True)
class TokenizationConfig:
    """Settings that decide how texts become token ids.

    tokenizer : a pytorch_pretrained_bert.BertTokenizer
    max_seq_length : maximum number of tokens, including [CLS] and [SEP]; at most 512, or what the model allows
    truncation : what to keep of longer texts, one of `TRUNCATIONS`

    Raises TypeError for another kind of tokenizer, such as one of transformers.
    """

    tokenizer: BertTokenizer
    max_seq_length: int
    truncation: str = "head"

    def __post_init__(self) -> None:
        check_type("tokenizer", self.tokenizer, BertTokenizer, "load_tokenizer")

    def validate(self, pairs: bool = False) -> None:
        """Raise ValueError for an invalid length or truncation, or for pairs of texts if the model has one segment.

        `tokenizer.segments` is the number of segments, as set by `load_tokenizer`. Pairs have a third special token.
        """
        if pairs and getattr(self.tokenizer, "segments", 2) < 2:
            raise ValueError(
                "the examples are pairs of texts, but this BERT has a single segment (its type_vocab_size is 1): pass "
                "single texts, or choose another BERT"
            )
        low, high = 3 if pairs else 2, min(MAX_POSITIONS, self.tokenizer.max_len)
        length: Any = self.max_seq_length  # whatever was passed
        if type(length) is bool or not isinstance(length, Integral) or not low <= int(length) <= high:
            raise ValueError(
                f"max_seq_length is {length!r}, but must be an integer from {low} to {high}, the last position"
            )
        if self.truncation not in TRUNCATIONS:
            raise ValueError(f"truncation is {self.truncation!r}, but must be one of {', '.join(TRUNCATIONS)}")


def head_length(max_tokens: int, truncation: str) -> int:
    """Return how many of the `max_tokens` tokens kept of a long text are its first ones; the rest are its last.

    With "head+tail" it is a quarter, as in Sun et al. 2019, https://arxiv.org/abs/1905.05583 (128 of 510).
    """
    return {"head": max_tokens, "tail": 0, "head+tail": max_tokens // 4}[truncation]


class Encoder:
    """Encodes texts and pairs of texts with one `TokenCache`; each worker process has an encoder of its own."""

    def __init__(self, config: TokenizationConfig, cache: TokenCache | None = None) -> None:
        self.cache = TokenCache(config.tokenizer) if cache is None else cache
        self.max_seq_length = config.max_seq_length
        self.truncation = config.truncation
        self.cls = self.cache.to_bytes(["[CLS]"])
        self.sep = self.cache.to_bytes(["[SEP]"])

    def _truncate(self, ids: bytes, max_tokens: int) -> bytes:
        """Return at most `max_tokens` of some ids, see `head_length`."""
        itemsize = self.cache.dtype.itemsize
        if len(ids) <= max_tokens * itemsize:
            return ids
        head = head_length(max_tokens, self.truncation)
        return ids[: head * itemsize] + ids[len(ids) - (max_tokens - head) * itemsize :]

    def encode(self, text_a: str, text_b: str | None) -> tuple[bytes, int]:
        """Return the ids of [CLS] text_a [SEP], or [CLS] text_a [SEP] text_b [SEP], and the length of segment A.

        The ids are bytes; segment A, counted in tokens, ends with the first [SEP].
        """
        itemsize = self.cache.dtype.itemsize
        available = self.max_seq_length - (2 if text_b is None else 3)
        # unless only the head is kept, the end of a text matters
        max_tokens = available if self.truncation == "head" else len(text_a) + len(text_b or "")
        a = self.cache.encode(text_a, max_tokens)
        if text_b is None:
            ids = self.cls + self._truncate(a, available) + self.sep
            return ids, len(ids) // itemsize
        b = self.cache.encode(text_b, max_tokens)
        # BERT removes tokens from the longer text, one at a time, until both fit; this is the result
        length_b = min(len(b) // itemsize, max(available - len(a) // itemsize, available // 2))
        segment_a = self.cls + self._truncate(a, available - length_b) + self.sep
        return segment_a + self._truncate(b, length_b) + self.sep, len(segment_a) // itemsize

    def encode_batch(self, pairs: Iterable[TextPair]) -> EncodedBatch:
        """Encode n pairs (text_a, text_b or None)."""
        return pack_batch([self.encode(*pair) for pair in pairs], self.cache.dtype)


def pack_batch(encoded: Sequence[tuple[bytes, int]], dtype: np.dtype) -> EncodedBatch:
    """Return arrays of what `Encoder.encode` has returned for n pairs, with ids of this dtype."""
    ids = np.frombuffer(b"".join(ids for ids, _ in encoded), dtype)
    lengths = np.array([len(ids) // dtype.itemsize for ids, _ in encoded], "<u2")
    return ids, lengths, np.array([length for _, length in encoded], "<u2")


def encode_pairs(
    config: TokenizationConfig, pairs: Iterable[TextPair], dtype: str | None = None
) -> tuple[list[tuple[bytes, int]], np.dtype]:
    """Encode a few pairs with a cache that all calls with the same tokenizer share.

    A tokenizer that has changed in between gets a new cache, see `SharedCache`; then `pairs` are read twice. Returns
    what `Encoder.encode` returns for each pair, and the dtype of the ids, which is the given one if no cache is shared.
    """
    cache = SharedCache.find(config.tokenizer)
    if cache is not None:
        encoder = Encoder(config, cache)
        encoded = [encoder.encode(*pair) for pair in pairs]
        if cache.has_current_ids(b"".join(ids for ids, _ in encoded)):
            return encoded, cache.dtype
        SharedCache.drop(config.tokenizer)
    encoder = Encoder(config, TokenCache(config.tokenizer, dtype))
    return [encoder.encode(*pair) for pair in pairs], encoder.cache.dtype


def measure_unknown_tokens(
    texts: Iterable[str], tokenizer: BertTokenizer, max_texts: int = 5000
) -> tuple[np.ndarray, float, float]:
    """Measure how well a vocabulary covers some texts, or at most `max_texts` of them, evenly spaced.

    Returns the fraction of [UNK] among the tokens of each text (0 for one without tokens), of shape (n,); the fraction
    among all tokens; and the number of tokens per word, words being separated by white space.
    """
    texts = list(texts)
    texts = texts[:: len(texts) // max_texts + 1]
    cache = TokenCache(tokenizer)
    ids = [np.frombuffer(cache.encode(text, len(text)), cache.dtype) for text in texts]
    num_unknown = np.array([np.count_nonzero(text_ids == tokenizer.vocab["[UNK]"]) for text_ids in ids])
    num_tokens = np.array([len(text_ids) for text_ids in ids])
    num_words = sum(len(text.split()) for text in texts)
    total = num_tokens.sum()
    return num_unknown / np.maximum(num_tokens, 1), num_unknown.sum() / max(total, 1), total / max(num_words, 1)
