"""Turn texts into token ids, bitwise identical to those of BERT's own tokenizer, with a cache that makes it fast."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from pytorch_pretrained_bert.tokenization import BasicTokenizer, BertTokenizer

from textbert.utils.validation import check_type

MAX_POSITIONS = 512  # BERT has learned an embedding for each of 512 positions

TRUNCATIONS = ("head", "tail", "head+tail")


def tokenizes_by_chunk(tokenizer: BertTokenizer) -> bool:
    """Return True if a tokenizer tokenizes each chunk between white space independently, as BertTokenizer does.

    One that overrides `tokenize`, or was created with `do_basic_tokenize=False`, may depend on the whole text.
    """
    methods = (tokenizer, BertTokenizer), (getattr(tokenizer, "basic_tokenizer", None), BasicTokenizer)
    return bool(tokenizer.do_basic_tokenize) and all(
        getattr(getattr(instance, "tokenize", None), "__func__", None) is cls.tokenize for instance, cls in methods
    )


class _BoundedCache(dict[str, bytes]):
    """Cache from strings to token ids, as bytes, that takes about 100 MB at most: when it is full, it is emptied."""

    MAX_ENTRIES = 500_000
    MAX_CHARACTERS = 64  # longer strings are seldom repeated

    def add(self, key: str, ids: bytes) -> None:
        """Remember the ids of a string, unless it is long."""
        if len(key) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_ENTRIES:
                self.clear()
            self[key] = ids


class TokenCache(_BoundedCache):
    """Cache from a chunk of text between white space to the ids of its tokens (word pieces), as bytes.

    BERT tokenizes each such chunk independently, and natural text repeats its chunks, so most are looked up;
    pytorch-pretrained-bert's own tokenizer is called for a chunk that is not in the cache. Ids are bytes because these
    are fast to join and the garbage collector ignores them. Nothing is cached for a tokenizer with methods of its own,
    see `tokenizes_by_chunk`.
    """

    # str.split() splits at these, but BERT deletes them: "A\x85B" is one word
    CONTROL_CHARS_BERT_DROPS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
    ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
    # each is a token of its own, occurs in no special token, and does not change what precedes it, unlike a period,
    # across which the next letter decides how a capital sigma is lowercased
    SINGLE_CHAR_TOKENS = re.compile(r"[!-&(-\-/;-@\\_{-~\u4e00-\u9fff]")
    VERY_LONG = 100_000  # characters

    def __init__(self, tokenizer: BertTokenizer, dtype: str | None = None) -> None:
        """Create an empty cache. The ids have this `dtype`: by default "<u2" if the vocabulary allows, else "<u4"."""
        check_type("tokenizer", tokenizer, BertTokenizer, "load_tokenizer")
        self.vocabulary, self.wordpiece = tokenizer.vocab, tokenizer.wordpiece_tokenizer
        # only its parts are referenced; otherwise `encode_single` would keep the tokenizer alive
        self.basic: Any = tokenizer.basic_tokenizer if tokenizes_by_chunk(tokenizer) else None
        self.tokenize_whole = None if self.basic else tokenizer.tokenize
        self.dtype = np.dtype(dtype or ("<u2" if max(self.vocabulary.values()) < 2**16 else "<u4"))
        self.words = _WordCache(self)

    def to_bytes(self, tokens: Sequence[str]) -> bytes:
        """Return the ids of a list of tokens as bytes; raise ValueError for a token that is not in the vocabulary."""
        # convert_tokens_to_ids would log a warning for a chunk of more ids than BERT has positions
        try:
            ids = [self.vocabulary[token] for token in tokens]
        except KeyError as error:
            raise ValueError(f"the tokenizer returned {error}, which is not in its vocabulary") from None
        return np.array(ids, self.dtype).tobytes()

    def __missing__(self, chunk: str) -> bytes:
        if len(chunk) > self.VERY_LONG:
            # a Chinese character is always a word, so the text can be split after one, which takes less memory
            parts = re.findall(rf"(?s).{{,{self.VERY_LONG - 1}}}[\u4e00-\u9fff]|.+", chunk)
            if len(parts) > 1:
                return b"".join(map(self.__getitem__, parts))
        if chunk.isascii() and chunk.isprintable() and chunk not in self.basic.never_split:
            words = self.ASCII_WORD.findall(chunk.lower() if self.basic.do_lower_case else chunk)
            ids = b"".join(map(self.words.__getitem__, words))
        else:
            words = self.basic.tokenize(chunk)
            ids = self.to_bytes([token for word in words for token in self.wordpiece.tokenize(word)])
        self.add(chunk, ids)
        return ids

    def encode(self, text: str, max_tokens: int) -> bytes:
        """Return the ids of a text as bytes: all of them, or the first ones, but at least `max_tokens`."""
        if self.tokenize_whole:
            return self.to_bytes(self.tokenize_whole(text))
        if any(map(text.__contains__, self.CONTROL_CHARS_BERT_DROPS)):
            text = text.translate(dict.fromkeys(map(ord, self.CONTROL_CHARS_BERT_DROPS)))
        if len(text) > self.VERY_LONG > max_tokens > 0:
            text = self._shorten(text, max_tokens)
        # A long text is split no further than necessary. English has about 0.75 chunks per token: if that many chunks
        # are not enough, one more for each missing token nearly always is; only if it is not, all the rest is split
        ids, tokens_left = b"", max_tokens
        for chunks_per_token in (0.75, 1, None):
            if not text or tokens_left <= 0:
                break
            maxsplit = -1 if chunks_per_token is None else int(chunks_per_token * tokens_left)
            chunks = text.split(None, maxsplit)
            text = chunks.pop() if len(chunks) > maxsplit >= 0 else ""  # what is left to split
            ids += b"".join(map(self.__getitem__, chunks))
            tokens_left = max_tokens - len(ids) // self.dtype.itemsize
        return ids

    def _shorten(self, text: str, max_tokens: int) -> str:
        """Return the beginning of a text with `max_tokens` characters that are tokens; all of it if it has fewer.

        Used for a very long text, perhaps without any white space, so that no more of it is tokenized than necessary.
        """
        matches = islice(self.SINGLE_CHAR_TOKENS.finditer(text), max_tokens - 1, None)
        return next((text[: match.end()] for match in matches), text)


class _WordCache(_BoundedCache):
    """Cache from a word without punctuation to the ids of its tokens."""

    def __init__(self, chunk_cache: TokenCache) -> None:
        self.chunk_cache = chunk_cache

    def __missing__(self, word: str) -> bytes:
        ids = self.chunk_cache.to_bytes(self.chunk_cache.wordpiece.tokenize(word))
        self.add(word, ids)
        return ids


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

    def encode_batch(self, pairs: Iterable[tuple[str, str | None]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode n pairs (text_a, text_b or None).

        Returns the ids, of shape (sum of lengths,), the lengths and the lengths of segment A, both of shape (n,).
        """
        encoded = [self.encode(*pair) for pair in pairs]
        itemsize = self.cache.dtype.itemsize
        ids = np.frombuffer(b"".join(ids for ids, _ in encoded), self.cache.dtype)
        lengths = np.array([len(ids) // itemsize for ids, _ in encoded], "<u2")
        return ids, lengths, np.array([length for _, length in encoded], "<u2")


# from a tokenizer to (its state, its tokens by id, its cache), for `encode_single`
_caches: WeakKeyDictionary[BertTokenizer, tuple[list, dict[int, str], TokenCache]] = WeakKeyDictionary()


def _get_state(tokenizer: BertTokenizer) -> list:
    """Return what a tokenizer's results depend on, except for the ids in its vocabulary."""
    parts = (tokenizer, tokenizer.basic_tokenizer, tokenizer.wordpiece_tokenizer)
    vocabulary = tokenizer.vocab
    return [len(vocabulary), next(reversed(vocabulary), None), *(dict(vars(part)) for part in parts)]


def _encode_to_array(
    config: TokenizationConfig, cache: TokenCache, text_a: str, text_b: str | None
) -> tuple[np.ndarray, int]:
    """Return the ids as an array, and the length of segment A, see `Encoder.encode`."""
    ids, length_a = Encoder(config, cache).encode(text_a, text_b)
    return np.frombuffer(ids, cache.dtype), length_a


def encode_single(config: TokenizationConfig, text_a: str, text_b: str | None = None) -> tuple[np.ndarray, int]:
    """Encode one example as `Encoder.encode` does, but return the ids as an array.

    Calls with the same tokenizer share a cache, which is dropped when the tokenizer has changed in between: its
    attributes, or its vocabulary, of which only the returned ids are compared.
    """
    tokenizer = config.tokenizer
    if not tokenizes_by_chunk(tokenizer):
        return _encode_to_array(config, TokenCache(tokenizer, "<u4"), text_a, text_b)
    state, entry = _get_state(tokenizer), _caches.get(tokenizer)
    if entry is not None and entry[0] == state:
        _, tokens, cache = entry
        ids, length_a = _encode_to_array(config, cache, text_a, text_b)
        if all(tokenizer.vocab.get(tokens.get(token_id)) == token_id for token_id in ids.tolist()):
            return ids, length_a
    tokens = {token_id: token for token, token_id in tokenizer.vocab.items()}
    cache = TokenCache(tokenizer, "<u4")
    _caches[tokenizer] = state, tokens, cache
    return _encode_to_array(config, cache, text_a, text_b)


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
