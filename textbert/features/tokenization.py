"""BERT's tokenization as a memo, the same word pieces to the last bit."""

import re
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from weakref import WeakKeyDictionary

import numpy as np
from pytorch_pretrained_bert.tokenization import BasicTokenizer, BertTokenizer

from textbert.utils.validation import check_type

MAX_POSITIONS = 512  # BERT has learned a vector for each of 512 positions, and for no more

TRUNCATIONS = ("head", "tail", "head+tail")


def cuts_by_words(tokenizer):
    """Return True if a tokenizer cuts each chunk between white space by itself, as BertTokenizer does.

    One with a `tokenize` of its own, or made with `do_basic_tokenize=False`, may do anything.
    """
    methods = ((tokenizer, BertTokenizer), (getattr(tokenizer, "basic_tokenizer", None), BasicTokenizer))
    return tokenizer.do_basic_tokenize and all(
        getattr(getattr(one, "tokenize", None), "__func__", None) is kind.tokenize for one, kind in methods
    )


class TokenCache(dict):
    """Memo from a chunk of text between white space to its word-piece ids, as bytes.

    BERT's tokenization looks at each such chunk alone and natural text repeats its chunks, so most are looked up;
    pytorch-pretrained-bert's own tokenizer answers the first time. Ids are kept as bytes because joining bytes is fast
    and the garbage collector has nothing to follow. Nothing is remembered for a tokenizer that does not cut by words.
    """

    MAX_ENTRIES = 500_000  # about 100 MB; a full memo starts again
    MAX_CHARACTERS = 64  # longer chunks do not come back often enough
    DELETED = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"  # str.split() splits there, BERT deletes them: "A\x85B" is one word
    ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
    # each is a word of its own, in no special token, and changes nothing before it, as a full stop does a Greek sigma
    ALONE = re.compile(r"[!-&(-\-/;-@\\_{-~\u4e00-\u9fff]")
    VERY_LONG = 100_000  # characters

    def __init__(self, tokenizer, dtype=None):
        """Begin a memo; `dtype` is that of the ids, None takes "<u2" if all ids of the vocabulary fit, else "<u4"."""
        check_type("tokenizer", tokenizer, BertTokenizer, "load_tokenizer")
        self.vocabulary, self.wordpiece = tokenizer.vocab, tokenizer.wordpiece_tokenizer
        # one that cuts by words is not referred to, so that `encode_single` does not keep it alive
        self.basic = tokenizer.basic_tokenizer if cuts_by_words(tokenizer) else None
        self.tokenize_whole = None if self.basic else tokenizer.tokenize
        self.dtype = np.dtype(dtype or ("<u2" if max(self.vocabulary.values()) < 2**16 else "<u4"))
        self.words, self.pieces = _WordMemo(self), {}  # pieces: from id to word piece, all that were met

    def to_bytes(self, pieces):
        """Return the ids of a list of word pieces as bytes."""
        # not by convert_tokens_to_ids, which writes a warning for a chunk of more ids than BERT has positions
        try:
            ids = [self.vocabulary[piece] for piece in pieces]
        except KeyError as error:
            raise ValueError(f"the tokenizer gives {error}, which is not in its vocabulary") from None
        self.pieces.update(zip(ids, pieces))
        return np.array(ids, self.dtype).tobytes()

    def __missing__(self, chunk):
        if len(chunk) > self.VERY_LONG:  # Han characters are words of their own: part by part takes less memory
            parts = re.findall(rf"(?s).{{,{self.VERY_LONG - 1}}}[\u4e00-\u9fff]|.+", chunk)
            if len(parts) > 1:
                return b"".join(map(self.__getitem__, parts))
        if chunk.isascii() and chunk.isprintable() and chunk not in self.basic.never_split:
            words = self.ASCII_WORD.findall(chunk.lower() if self.basic.do_lower_case else chunk)
            ids = b"".join(map(self.words.__getitem__, words))
        else:
            words = self.basic.tokenize(chunk)
            ids = self.to_bytes([piece for word in words for piece in self.wordpiece.tokenize(word)])
        if len(chunk) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_ENTRIES:
                self.clear()
            self[chunk] = ids
        return ids

    def encode(self, text, limit):
        """Return the ids of `text` as bytes: all of them, or at least the first `limit`."""
        if self.tokenize_whole:
            return self.to_bytes(self.tokenize_whole(text))
        if any(map(text.__contains__, self.DELETED)):
            text = text.translate(dict.fromkeys(map(ord, self.DELETED)))
        if len(text) > self.VERY_LONG > limit > 0:  # it may be without white space: read no further than is needed
            text = next((text[: match.end()] for match in islice(self.ALONE.finditer(text), limit - 1, None)), text)
        ids, missing = b"", limit
        for share in (0.75, 1, None):  # a chunk has 1.3 word pieces, now and then none: so few will do, seldom all
            count = len(text) if share is None else int(share * missing)
            chunks = text.split(None, count)
            text = chunks.pop() if len(chunks) > count else ""
            ids += b"".join(map(self.__getitem__, chunks))
            missing = limit - len(ids) // self.dtype.itemsize
            if not text or missing <= 0:
                break
        return ids


class _WordMemo(dict):
    """Memo from a word without punctuation to the bytes of its word-piece ids."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __missing__(self, word):
        ids = self.chunks.to_bytes(self.chunks.wordpiece.tokenize(word))
        if len(word) <= TokenCache.MAX_CHARACTERS:
            if len(self) >= TokenCache.MAX_ENTRIES:
                self.clear()
            self[word] = ids
        return ids


def count_tokens(texts, tokenizer):
    """Return how many ids BERT would need for each text, [CLS] and [SEP] included: shape (n,)."""
    memo = TokenCache(tokenizer)
    return np.array([len(memo.encode(t, len(t))) // memo.dtype.itemsize + 2 for t in texts], int)


@dataclass(frozen=True)
class TokenizationConfig:
    """How texts become word-piece ids.

    tokenizer : a pytorch_pretrained_bert.BertTokenizer
    max_seq_length : word pieces kept, special ones included; at most 512, or what the tokenizer's model has
    truncation : what to keep of a text that is too long, one of `TRUNCATIONS`

    Raises TypeError for another tokenizer, such as one of transformers.
    """

    tokenizer: BertTokenizer
    max_seq_length: int
    truncation: str = "head"

    def __post_init__(self):
        check_type("tokenizer", self.tokenizer, BertTokenizer, "load_tokenizer")

    def validate(self, pairs=False):
        """Raise ValueError for a length or a truncation that cannot be; pairs need room for a third special piece.

        They need a model that knows two segments, too, as `load_tokenizer` notes it.
        """
        if pairs and getattr(self.tokenizer, "segments", 2) < 2:
            raise ValueError(
                "there are pairs of texts, but this BERT knows one segment (its type_vocab_size is 1): give single "
                "texts, or take another BERT"
            )
        if not isinstance(self.max_seq_length, Integral) or isinstance(self.max_seq_length, bool):
            raise ValueError(f"max_seq_length is {self.max_seq_length!r}, but must be an integer")
        least, most = 3 if pairs else 2, min(MAX_POSITIONS, self.tokenizer.max_len)
        if not least <= self.max_seq_length <= most:
            raise ValueError(
                f"max_seq_length is {self.max_seq_length}, but must be from {least} to {most}, the last position"
            )
        if self.truncation not in TRUNCATIONS:
            raise ValueError(f"truncation is {self.truncation!r}, but must be one of {', '.join(TRUNCATIONS)}")


def head_length(keep, truncation):
    """Return how many of the `keep` word pieces that are kept of a long text are its first; the others are its last.

    With "head+tail" it is a quarter, as in Sun et al. 2019, https://arxiv.org/abs/1905.05583 (128 of 510).
    """
    return {"head": keep, "tail": 0, "head+tail": keep // 4}[truncation]


class Encoder:
    """Encodes batches of texts with one memo; each worker process has one of its own."""

    def __init__(self, conversion, memo=None):
        self.memo = TokenCache(conversion.tokenizer) if memo is None else memo
        self.max_seq_length = conversion.max_seq_length
        self.truncation = conversion.truncation
        self.cls = self.memo.to_bytes(["[CLS]"])
        self.sep = self.memo.to_bytes(["[SEP]"])

    def _cut(self, ids, keep):
        """Return `keep` of the ids, given as bytes; see `head_length`."""
        size = self.memo.dtype.itemsize
        if len(ids) <= keep * size:
            return ids
        head = head_length(keep, self.truncation)
        return ids[: head * size] + ids[len(ids) - (keep - head) * size :]

    def encode(self, text_a, text_b):
        """Return (ids as bytes, how many of the ids belong to the first text)."""
        size = self.memo.dtype.itemsize
        room = self.max_seq_length - (2 if text_b is None else 3)
        # the end of a text matters unless its head alone is kept
        limit = room if self.truncation == "head" else len(text_a) + len(text_b or "")
        a = self.memo.encode(text_a, limit)
        if text_b is None:
            ids = self.cls + self._cut(a, room) + self.sep
            return ids, len(ids) // size
        b = self.memo.encode(text_b, limit)
        # BERT takes pieces off the longer text, one by one, until both fit: this is where that ends
        keep_b = min(len(b) // size, max(room - len(a) // size, room // 2))
        first = self.cls + self._cut(a, room - keep_b) + self.sep
        return first + self._cut(b, keep_b) + self.sep, len(first) // size

    def encode_batch(self, pairs):
        """Return the ids, lengths and first lengths of some (text_a, text_b), as three arrays."""
        encoded = [self.encode(*pair) for pair in pairs]
        size = self.memo.dtype.itemsize
        ids = np.frombuffer(b"".join(ids for ids, _ in encoded), self.memo.dtype)
        lengths = np.array([len(ids) // size for ids, _ in encoded], "<u2")
        return ids, lengths, np.array([first for _, first in encoded], "<u2")


_memos = WeakKeyDictionary()  # from a tokenizer to (its state, its memo), for `encode_single`


def _get_state(tokenizer):
    """Return what decides how a tokenizer cuts words, but for a change of ids in its vocabulary."""
    parts = (tokenizer, tokenizer.basic_tokenizer, tokenizer.wordpiece_tokenizer)
    vocabulary = tokenizer.vocab
    return [len(vocabulary), next(reversed(vocabulary), None), *(dict(vars(part)) for part in parts)]


def encode_single(conversion, text_a, text_b=None):
    """Encode one example as `Encoder.encode`, but return the ids as an array.

    Calls with the same tokenizer have one memo, unless that was changed in between: by its attributes, or by its
    vocabulary, of which those ids are looked at that are returned.
    """
    tokenizer = conversion.tokenizer
    if not cuts_by_words(tokenizer):
        memo = TokenCache(tokenizer, "<u4")
        ids, first = Encoder(conversion, memo).encode(text_a, text_b)
        return np.frombuffer(ids, memo.dtype), first
    state, (known, memo) = _get_state(tokenizer), _memos.get(tokenizer, (None, None))
    while True:
        if known != state:
            known, memo = _memos[tokenizer] = state, TokenCache(tokenizer, "<u4")
        encoded, first = Encoder(conversion, memo).encode(text_a, text_b)
        ids = np.frombuffer(encoded, memo.dtype)
        if all(memo.vocabulary.get(memo.pieces[number]) == number for number in ids.tolist()):
            return ids, first
        known = None


def measure_unknown_tokens(texts, tokenizer, most=5000):
    """Measure how well a vocabulary knows texts, on at most so many of them, evenly picked.

    Returns (the share of [UNK] among the word pieces of each text, 0 for one without any, of shape (n,); the share
    among all of them; how many word pieces there are to a word between spaces).
    """
    texts = list(texts)[:: len(texts) // most + 1]
    memo = TokenCache(tokenizer)
    ids = [np.frombuffer(memo.encode(text, len(text)), memo.dtype) for text in texts]
    unknown = np.array([np.count_nonzero(one == tokenizer.vocab["[UNK]"]) for one in ids])
    pieces = np.array([len(one) for one in ids])
    words = sum(len(text.split()) for text in texts)
    return unknown / np.maximum(pieces, 1), unknown.sum() / max(pieces.sum(), 1), pieces.sum() / max(words, 1)
