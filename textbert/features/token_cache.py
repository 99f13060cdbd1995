"""A cache from chunks of text to token ids, and how one is shared by all calls with a tokenizer until that changes."""

import re
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from pytorch_pretrained_bert.tokenization import BasicTokenizer, BertTokenizer, WordpieceTokenizer

from textbert.utils.validation import check_type


def tokenizes_by_chunk(tokenizer: BertTokenizer) -> bool:
    """Return True if a tokenizer tokenizes each chunk between white space independently, as BertTokenizer does.

    One that overrides `tokenize`, or was created with `do_basic_tokenize=False`, may depend on the whole text.
    """
    methods = (tokenizer, BertTokenizer), (getattr(tokenizer, "basic_tokenizer", None), BasicTokenizer)
    return bool(tokenizer.do_basic_tokenize) and all(
        getattr(getattr(instance, "tokenize", None), "__func__", None) is cls.tokenize for instance, cls in methods
    )


def list_ids(vocabulary: Mapping[str, int]) -> list[int]:
    """Return the ids in a vocabulary; those of an OrderedDict are read as a dict's, in a tenth of the time."""
    return list(dict.values(vocabulary) if isinstance(vocabulary, dict) else vocabulary.values())


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
        # only its parts are referenced; otherwise a shared cache would keep the tokenizer alive
        self.basic: Any = tokenizer.basic_tokenizer if tokenizes_by_chunk(tokenizer) else None
        self.tokenize_whole = None if self.basic else tokenizer.tokenize
        self.dtype = np.dtype(dtype or ("<u2" if max(list_ids(tokenizer.vocab)) < 2**16 else "<u4"))
        self.words = _WordCache(tokenizer.vocab, tokenizer.wordpiece_tokenizer, self.dtype)

    def to_bytes(self, tokens: Sequence[str]) -> bytes:
        """Return the ids of a list of tokens as bytes; raise ValueError for a token that is not in the vocabulary."""
        return self.words.to_bytes(tokens)

    def __missing__(self, chunk: str) -> bytes:
        if len(chunk) > self.VERY_LONG:
            # a Chinese character is always a word, so the text can be split after one, which takes less memory
            parts = re.findall(rf"(?s).{{,{self.VERY_LONG - 1}}}[\u4e00-\u9fff]|.+", chunk)
            if len(parts) > 1:
                return b"".join(map(self.__getitem__, parts))
        if chunk.isascii() and chunk.isprintable() and chunk not in self.basic.never_split:
            words = self.ASCII_WORD.findall(chunk.lower() if self.basic.do_lower_case else chunk)
        else:
            words = self.basic.tokenize(chunk)
        ids = b"".join(map(self.words.__getitem__, words))
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
    """Cache from a word, as separated by BasicTokenizer, to the ids of its tokens."""

    def __init__(self, vocabulary: Mapping[str, int], wordpiece: WordpieceTokenizer, dtype: np.dtype) -> None:
        self.vocabulary, self.wordpiece, self.dtype = vocabulary, wordpiece, dtype
        self.is_original = getattr(wordpiece.tokenize, "__func__", None) is WordpieceTokenizer.tokenize

    def to_bytes(self, tokens: Sequence[str]) -> bytes:
        """See `TokenCache.to_bytes`."""
        # convert_tokens_to_ids would log a warning for a chunk of more ids than BERT has positions
        try:
            ids = [self.vocabulary[token] for token in tokens]
        except KeyError as error:
            raise ValueError(f"the tokenizer returned {error}, which is not in its vocabulary") from None
        return struct.pack(f"<{len(ids)}{self.dtype.char}", *ids)  # a tenth of the time of a numpy array

    def __missing__(self, word: str) -> bytes:
        ids = self.to_bytes(self._split(word) if self.is_original else self.wordpiece.tokenize(word))
        self.add(word, ids)
        return ids

    def _split(self, word: str) -> list[str]:
        """Return the tokens of a word as WordpieceTokenizer does, the longest match first, in less time."""
        if len(word) > self.wordpiece.max_input_chars_per_word:
            return [self.wordpiece.unk_token]
        vocabulary, tokens = self.wordpiece.vocab, []
        prefix = ""
        while word:
            for end in range(len(word), 0, -1):
                token = prefix + word[:end]
                if token in vocabulary:
                    break
            else:
                return [self.wordpiece.unk_token]
            tokens.append(token)
            word, prefix = word[end:], "##"
        return tokens


class SharedCache(TokenCache):
    """The `TokenCache` that all calls with a tokenizer share, and by which a change of the tokenizer is noticed.

    It depends on the tokenizer's attributes, which are few; on the keys of its vocabulary, an OrderedDict, whose
    iterators refuse to continue after a change of the keys; and on the ids in it. These are copied, and after each call
    those that it has used are compared. So nothing is computed for the whole vocabulary in each call.
    """

    def __init__(self, tokenizer: BertTokenizer) -> None:
        super().__init__(tokenizer)
        self.settings = _get_settings(tokenizer)
        self.watched = tokenizer.vocab
        self.key_iterator = iter(self.watched)
        self.tokens = list(dict.keys(self.watched))  # by id; not in the order that move_to_end may have changed
        self.words.vocabulary = dict(zip(self.tokens, list_ids(self.watched)))

    def is_current(self, tokenizer: BertTokenizer) -> bool:
        """Return True if neither the attributes of the tokenizer nor the keys of its vocabulary have changed."""
        # an equal vocabulary that is another object could be edited without a trace
        if tokenizer.vocab is not self.watched or _get_settings(tokenizer) != self.settings:
            return False
        with suppress(RuntimeError):
            # at the end of the keys a new cache takes the place of this one
            return next(self.key_iterator, None) is not None
        return False

    def has_current_ids(self, ids: bytes) -> bool:
        """Return True if the tokens with these ids still have them."""
        values = np.frombuffer(ids, self.dtype).tolist()
        return list(map(self.watched.get, map(self.tokens.__getitem__, values))) == values

    @classmethod
    def find(cls, tokenizer: BertTokenizer) -> "SharedCache | None":
        """Return the cache of a tokenizer, a new one if the tokenizer has changed.

        Returns None at the first call with a tokenizer, because there may be no second one: unpickling makes a new
        tokenizer each time. Returns None, too, for a tokenizer whose changes could not be noticed.
        """
        cache = _shared_caches.get(tokenizer)
        if cache is not None and cache.is_current(tokenizer):
            return cache
        is_first = tokenizer not in _shared_caches
        _shared_caches[tokenizer] = None
        is_watchable = type(tokenizer.vocab) is OrderedDict and tokenizer.wordpiece_tokenizer.vocab is tokenizer.vocab
        if is_first or not is_watchable or not tokenizes_by_chunk(tokenizer):
            return None
        if list_ids(tokenizer.vocab) != list(range(len(tokenizer.vocab))):  # as in any vocab.txt
            return None
        cache = _shared_caches[tokenizer] = cls(tokenizer)
        return cache

    @staticmethod
    def drop(tokenizer: BertTokenizer) -> None:
        """Forget the cache of a tokenizer."""
        _shared_caches.pop(tokenizer, None)


_shared_caches: WeakKeyDictionary[BertTokenizer, SharedCache | None] = WeakKeyDictionary()


def _get_settings(tokenizer: BertTokenizer) -> list:
    """Return all that a tokenizer's results depend on except for the content of its vocabulary."""
    basic, wordpiece = getattr(tokenizer, "basic_tokenizer", None), tokenizer.wordpiece_tokenizer
    parts = [tokenizer, wordpiece, *([basic] if basic else [])]
    never_split = list(basic.never_split) if basic else []
    return [wordpiece.vocab is tokenizer.vocab, never_split, *map(type, parts), *(dict(vars(part)) for part in parts)]
