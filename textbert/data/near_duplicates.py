"""Find near duplicates: texts that differ by a few words, in time nearly linear in the number of words.

Two texts are near duplicates if both have at least `MIN_WORDS` words and the Jaccard similarity of their sets of word
bigrams is at least `THRESHOLD`; case, punctuation and white space do not count. Pairs that may be similar are found by
MinHash and locality-sensitive hashing (Broder 1997, On the resemblance and containment of documents; Leskovec et al.
2014, Mining of Massive Datasets, chapter 3); their similarity is then computed from the sets, so that none is an
estimate.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import chain, islice, pairwise
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from textbert.data.normalization import fold_text, hash_text, normalize_text
from textbert.data.words import separate_letters

if TYPE_CHECKING:
    from scipy.sparse import csr_array

THRESHOLD = 0.6  # from here on two texts are near duplicates; one word in eight of a long text may have been replaced

MIN_WORDS = 5  # "great food" and "great place" are two opinions, not two versions of one text

BANDS, BAND_HASHES = 64, 4  # a pair is compared if a band agrees: with 1 - (1 - 0.6**4)**64 = 99.986 % or more

MARGIN = 0.2  # below the threshold, for the similarity estimated from all hashes; its standard error is 0.03

WINDOW = 16  # texts of the same bucket that each is compared with: larger buckets do not take quadratic time

BLOCK_TEXTS, BLOCK_PAIRS = 250, 20_000  # texts split into words, and pairs compared, at a time, to bound memory

ANNOUNCED_TEXTS = 50_000  # from here on the search takes more than a few seconds

MAX_CACHED_WORDS = 2**20


class _Separators(dict[int, str]):
    """A table for `str.translate` that replaces all but letters, numbers and combining marks with spaces."""

    def __missing__(self, code: int) -> str:
        self[code] = chr(code) if unicodedata.category(chr(code))[0] in "LMN" else " "
        return self[code]


_SEPARATORS = _Separators()


def extract_words(text: str) -> list[str]:
    """Return the words of a text that are compared: without case and punctuation, letter by letter as in Chinese."""
    return separate_letters(fold_text(text)).translate(_SEPARATORS).split()


def jaccard_similarity(text: str, other: str) -> float:
    """Return the Jaccard similarity of the sets of word bigrams of two texts, from 0 to 1; 0 if both are empty."""
    bigrams, other_bigrams = (set(pairwise(extract_words(each))) for each in (text, other))
    return len(bigrams & other_bigrams) / max(len(bigrams | other_bigrams), 1)


def describe_differences(text: str, other: str, limit: int = 3) -> str:
    """Return what replaces what in the first 500 words of two texts, such as "'good' → 'great'; '' → 'and so on'".

    limit : number of differences; each side is shortened to 40 characters
    """
    words, other_words = text.split()[:500], other.split()[:500]
    changes = SequenceMatcher(None, words, other_words, autojunk=False).get_opcodes()
    differences = [(words[a:b], other_words[c:d]) for tag, a, b, c, d in changes if tag != "equal"]
    lines = (" → ".join(repr(shorten(" ".join(part), 40, placeholder=" ...")) for part in pair) for pair in differences)
    return "; ".join(islice(lines, limit)) or "nothing in their first 500 words"


class _WordHashes(dict[str, int]):
    """A cache of 64-bit hashes of words, which do not differ between processes as those of `hash` do."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        self[word] = word_hash = int.from_bytes(
            hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        )
        return word_hash


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Return uint64 hashes all of whose bits depend on all bits of the given ones (the finalizer of SplitMix64)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ hashes >> np.uint64(shift)) * np.uint64(factor)
    return hashes ^ hashes >> np.uint64(31)


def _hash_bigrams(texts: list[list[str]], word_hashes: _WordHashes) -> tuple[np.ndarray, np.ndarray]:
    """Return (hashes of the bigrams of all texts, of shape (bigrams,); where each text's begin, of shape (n + 1,)).

    texts : list of n lists of at least two words
    """
    hashes = np.fromiter(map(word_hashes.__getitem__, chain.from_iterable(texts)), np.uint64)
    ends = np.cumsum(list(map(len, texts)))
    bigrams = _mix(hashes[:-1] * np.uint64(0x9E3779B97F4A7C15) + hashes[1:])
    return np.delete(bigrams, ends[:-1] - 1), np.append(0, ends - np.arange(1, len(texts) + 1))


def _min_hash(bigrams: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the MinHash signatures of texts: uint16 of shape (n, BANDS * BAND_HASHES)."""
    count = BANDS * BAND_HASHES
    factors, offsets = _mix(np.arange(1, 2 * count + 1, dtype=np.uint64)).astype(np.uint32).reshape(2, count)
    signatures = np.empty((len(bounds) - 1, count), np.uint16)
    hashes = bigrams.astype(np.uint32)
    for column, (factor, offset) in enumerate(zip(factors | np.uint32(1), offsets)):
        minima = np.minimum.reduceat(hashes * factor + offset, bounds[:-1])
        signatures[:, column] = minima.astype(np.uint16)  # the lower half: the upper one of a minimum is nearly 0
    return signatures


def _get_identity(text: str, words: list[str]) -> str:
    return " ".join(words) if len(words) >= MIN_WORDS else normalize_text(text)


def _sign(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (hashes of n texts, which of them have `MIN_WORDS` words, the MinHash signatures of these).

    Hashes are equal for texts of the same words or, if these are too few, for texts equal by `normalize_text`.
    """
    hashes, is_long = np.empty(len(texts), np.int64), np.empty(len(texts), bool)
    signatures, signed = np.empty((len(texts), BANDS * BAND_HASHES), np.uint16), 0
    word_hashes = _WordHashes()
    for start in range(0, len(texts), BLOCK_TEXTS):
        block = slice(start, start + BLOCK_TEXTS)
        words = list(map(extract_words, texts[block]))
        is_long[block] = [len(each) >= MIN_WORDS for each in words]
        identities = map(_get_identity, texts[block], words)
        hashes[block] = [hash_text(identity, str) for identity in identities]
        if long_texts := [each for each in words if len(each) >= MIN_WORDS]:
            signatures[signed : signed + len(long_texts)] = _min_hash(*_hash_bigrams(long_texts, word_hashes))
            signed += len(long_texts)
    return hashes, is_long, signatures[:signed]


def _bucket_pairs(signatures: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of texts of which a band agrees, as two arrays of shape (pairs,) at a time.

    These are all pairs in a bucket of up to `WINDOW` + 1 texts. In a larger one they are each text and the next ones in
    the order of the next band, by which similar texts are close to each other.
    """
    keys = signatures.view(np.uint64)  # of shape (n, BANDS)
    for band in range(BANDS):
        column, by_key = keys[:, band], np.argsort(keys[:, band])
        is_repeat = np.zeros(len(keys) + 1, bool)  # whether the key of by_key[i] is that of by_key[i - 1], too
        is_repeat[1:-1] = column[by_key[1:]] == column[by_key[:-1]]
        rows = np.sort(by_key[is_repeat[:-1] | is_repeat[1:]])
        rows = rows[np.lexsort((keys[rows, (band + 1) % BANDS], column[rows]))]
        for distance in range(1, WINDOW + 1):
            first = np.flatnonzero(column[rows[distance:]] == column[rows[:-distance]])
            for start in range(0, len(first), BLOCK_PAIRS):
                block = first[start : start + BLOCK_PAIRS]
                yield rows[block], rows[block + distance]


def _find_likely_pairs(signatures: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield those of `_bucket_pairs` that are not in the same group yet and of whose hashes enough agree.

    groups : array of shape (n,), which may be changed between two yields
    """
    for left, right in _bucket_pairs(signatures):
        is_new = groups[left] != groups[right]
        left, right = left[is_new], right[is_new]
        is_likely = (signatures[left] == signatures[right]).mean(axis=1) >= THRESHOLD - MARGIN
        if is_likely.any():
            yield left[is_likely], right[is_likely]


def _build_matrix(texts: list[str]) -> "csr_array":
    """Return the sets of bigrams of n texts as a boolean matrix with a row for each text and a column for each hash."""
    from scipy.sparse import csr_array

    word_hashes = _WordHashes()
    blocks = (texts[start : start + BLOCK_TEXTS] for start in range(0, len(texts), BLOCK_TEXTS))
    parts = [_hash_bigrams(list(map(extract_words, block)), word_hashes) for block in blocks]
    columns = np.concatenate([bigrams for bigrams, _ in parts]).view(np.int64) & (2**62 - 1)
    bounds = np.append(0, np.cumsum(np.concatenate([np.diff(bounds) for _, bounds in parts])))
    matrix = csr_array((np.ones(len(columns), bool), columns, bounds), (len(texts), 2**62))
    matrix.sum_duplicates()
    return matrix


def find_components(left: np.ndarray, right: np.ndarray, size: int) -> np.ndarray:
    """Return the connected component of each of `size` nodes of a graph, numbers from 0 in the order of the nodes.

    left, right : arrays of shape (edges,), the nodes at both ends of each edge
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(left), bool), (left, right)), (size, size))
    return connected_components(edges, directed=False)[1]


def _group_similar(texts: list[str], signatures: np.ndarray) -> np.ndarray:
    """Return group numbers of n distinct texts: the connected components of the graph of near duplicates."""
    matrix, groups = _build_matrix(texts), np.arange(len(texts))
    sizes = np.diff(matrix.indptr)
    for left, right in _find_likely_pairs(signatures, groups):
        shared = np.diff(matrix[left].multiply(matrix[right]).indptr)
        is_similar = shared / (sizes[left] + sizes[right] - shared) >= THRESHOLD
        if is_similar.any():
            groups[:] = find_components(groups[left[is_similar]], groups[right[is_similar]], len(texts))[groups]
    return groups


def find_near_duplicates(texts: Iterable[str]) -> np.ndarray:
    """Return the group of each of n texts, numbers from 0 in the order of the groups' first texts, of shape (n,).

    Equal texts (by `normalize_text`) and near duplicates are in the same group. So are texts that are connected by a
    chain of near duplicates, though the ends of the chain may differ more: only so can a split keep every pair of near
    duplicates on the same side. The groups are the same in any order of the texts.
    """
    texts = list(texts)
    if len(texts) > ANNOUNCED_TEXTS:
        print(f"Looking for near duplicates among {len(texts):,} texts ...")
    hashes, is_long, signatures = _sign(texts)
    _, first, text_of_row = np.unique(hashes, return_index=True, return_inverse=True)  # distinct texts, by their hashes
    groups = np.arange(len(first))
    compared = np.flatnonzero(is_long[first])
    signatures = signatures[(np.cumsum(is_long) - 1)[first[compared]]]
    likely = np.arange(len(compared))  # -1 for texts that are in a likely pair, which need no other one
    for left, right in _find_likely_pairs(signatures, likely):
        likely[left] = likely[right] = -1
    if (is_likely := likely == -1).any():
        compared = compared[is_likely]
        similar = _group_similar([texts[row] for row in first[compared]], signatures[is_likely])
        _, representative, group = np.unique(similar, return_index=True, return_inverse=True)
        groups[compared] = compared[representative[group]]
    return pd.factorize(groups[text_of_row])[0]
