"""Find texts that are contained verbatim in others, in time nearly linear in the number of words."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, count

import numpy as np

ANNOUNCED_WORDS = 5_000_000  # from here on the search takes more than a few seconds

NGRAM_SIZES = (1, 2, 4, 8, 16)  # words of a text's beginning that are hashed: as many of these as the text has

BLOCK_TEXTS = 1000  # texts split into words at a time, to bound memory


def ngram_hashes(texts: list[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each of `NGRAM_SIZES` with the hashes of all n-grams of that size, one starting at each word of the texts.

    The hashes are uint64 arrays of shape (words,) over all texts; those of n-grams that run beyond the end of a text
    are meaningless.
    """
    hashes = np.fromiter(map(hash, chain.from_iterable(texts)), np.int64).view(np.uint64)
    for size in NGRAM_SIZES:
        yield size, hashes
        following = np.zeros_like(hashes)
        following[:-size] = hashes[size:]
        hashes = hashes * np.uint64(pow(0x9E3779B97F4A7C15, size, 2**64)) + following


class _HashSet:
    """A set of hashes with a fast lookup of long arrays: the first 20 bits rule out most hashes that are not in it."""

    def __init__(self, hashes: np.ndarray) -> None:
        self.members = np.unique(hashes)
        self._may_contain = np.zeros(2**20, bool)
        self._may_contain[self.members >> np.uint64(44)] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the hashes that are members, and the index of each of them in `members`."""
        positions = np.flatnonzero(self._may_contain[hashes >> np.uint64(44)])
        indices = np.minimum(np.searchsorted(self.members, hashes[positions]), len(self.members) - 1)
        is_member = self.members[indices] == hashes[positions]
        return positions[is_member], indices[is_member]


def _split_blocks(
    texts: list[str], split: Callable[[str], list[str]]
) -> Iterator[tuple[list[list[str]], np.ndarray, np.ndarray]]:
    """Yield (words of each text, positions of the texts, lengths in words) for `BLOCK_TEXTS` texts at a time."""
    for start in range(0, len(texts), BLOCK_TEXTS):
        words = [split(text) for text in texts[start : start + BLOCK_TEXTS]]
        yield words, np.arange(start, start + len(words)), np.array(list(map(len, words)))


def _hash_beginnings(texts: list[str], fold: Callable[[str], str]) -> dict[int, _HashSet]:
    """Return the hashes of the texts' beginnings by their size: the largest of `NGRAM_SIZES` that the text has."""
    beginnings: dict[int, list[np.ndarray]] = {size: [] for size in NGRAM_SIZES}
    most = NGRAM_SIZES[-1]
    for words, _, lengths in _split_blocks(texts, lambda text: fold(text).split(None, most)[:most]):
        sizes = np.array((0, *NGRAM_SIZES))[np.searchsorted(NGRAM_SIZES, lengths, side="right")]
        starts = np.cumsum(lengths) - lengths
        for size, hashes in ngram_hashes(words):
            beginnings[size].append(hashes[starts[sizes == size]])
    return {size: _HashSet(np.concatenate(parts)) for size, parts in beginnings.items() if any(map(len, parts))}


def _find_candidates(texts: list[str], fold: Callable[[str], str]) -> np.ndarray:
    """Return the sorted positions of all texts that may contain others or be contained in others.

    A text is a candidate if some text's beginning, perhaps its own, occurs anywhere in it and in another text, too. Few
    natural texts are, and only the words of candidates are kept in memory.
    """
    beginnings = _hash_beginnings(texts, fold)
    matches: dict[int, list[np.ndarray]] = {size: [] for size in beginnings}
    for words, rows, lengths in _split_blocks(texts, lambda text: fold(text).split()):
        owner = np.repeat(rows, lengths)
        for size, hashes in ngram_hashes(words):
            if size in beginnings:
                positions, indices = beginnings[size].find(hashes)
                matches[size].append(np.unique(indices * len(texts) + owner[positions]))  # pairs, each as one integer
    is_candidate = np.zeros(len(texts), bool)
    for pairs in matches.values():
        beginning, row = np.divmod(np.concatenate(pairs), len(texts))
        is_candidate[row[np.bincount(beginning)[beginning] > 1]] = True
    return np.flatnonzero(is_candidate)


def _encode_words(texts: list[str], fold: Callable[[str], str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the words of all texts as ids from 1, one text after the other, and the number of words of each text.

    The arrays are int32 of shape (words,) and int64 of shape (n,).
    """
    ids: dict[str, int] = defaultdict(count(1).__next__)
    encoded = [np.array([ids[word] for word in fold(text).split()], np.int32) for text in texts]
    return np.concatenate([np.array([], np.int32), *encoded]), np.array(list(map(len, encoded)), np.int64)


def sort_suffixes(words: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the positions of words by the words from there to the end of the text that they are in.

    This builds a suffix array by prefix doubling. Positions are first sorted by as many words as fit into 64 bits. Each
    round then compares twice as many words, but only where positions are still tied: what follows a position's first
    words is compared by the rank that an earlier round gave to the position where it begins (Larsson and Sadakane
    2007, Faster suffix sorting).

    words : array of shape (words,), ids from 1
    left : array of shape (words,), the number of words from each position to the end of its text

    Returns (positions in sorted order, rank of each position), both of shape (words,). Ranks count from 1, and are
    equal where the same words follow up to the end of the text.
    """

    def pack_following(keys: np.ndarray, width: int, bits: int) -> np.ndarray:
        following = np.zeros_like(keys)  # 0 beyond the end of the text: a text sorts before its continuations
        following[:-width] = keys[width:]
        following[left <= width] = 0
        return keys << bits | following

    keys, width, bits = words.astype(np.int64), 1, int(words.max()).bit_length()  # a key holds `width` words
    while 2 * bits * width < 64:
        keys = pack_following(keys, width, bits * width)
        width *= 2
    order = np.argsort(keys)
    keys, slots, ranks = keys[order], np.arange(len(words)), np.empty(len(words), np.int64)
    while len(slots):  # the indices in `order` that are not final yet
        positions = order[slots]
        is_first = np.append(True, keys[1:] != keys[:-1])  # of those with its key
        ranks[positions] = np.maximum.accumulate(np.where(is_first, slots, 0)) + 1
        is_only = is_first & np.append(is_first[1:], True)
        is_tied = ~is_only & (left[positions] >= width)
        slots, positions = slots[is_tied], positions[is_tied]
        following = np.where(left[positions] > width, ranks[np.minimum(positions + width, len(words) - 1)], 0)
        keys = ranks[positions] << 32 | following
        by_key = np.argsort(keys)
        order[slots], keys = positions[by_key], keys[by_key]
        width *= 2
    return order, ranks


class Containment:
    """Finds which of n texts are contained verbatim in others of them.

    All positions of words are sorted by the words that follow. The occurrences of a text, also those inside other
    texts, are then a range that begins with the text itself. Of "so good", "good" and "good tea":

        slot 0: good      (in "so good")
        slot 1: good      (the text "good")
        slot 2: good tea  (the text "good tea")
        slot 3: so good   (the text "so good")
        slot 4: tea       (in "good tea")

    "good" occurs in slots 0 to 2 and is contained in both others; "good tea" occurs in slot 2 only.

    texts : list of n texts, no two of which have the same words
    fold : function from a text to one whose words, by `str.split`, are compared

    `is_contained` is an array of n booleans. A text without words is not contained in any.
    """

    def __init__(self, texts: list[str], fold: Callable[[str], str] = str.lower) -> None:
        self.is_contained = np.zeros(len(texts), bool)
        self._rows = rows = _find_candidates(texts, fold)
        words, lengths = _encode_words([texts[row] for row in rows], fold)
        if len(words) > ANNOUNCED_WORDS:
            print(f"Checking which of {len(rows):,} texts are contained in others ({len(words):,} words) ...")
        if not len(words):
            return
        ends = np.cumsum(lengths)
        self._words, self._lengths, self._starts = words, lengths, ends - lengths
        owner = np.repeat(np.arange(len(rows)), lengths)
        self._left = (ends[owner] - np.arange(len(words))).astype(np.int32)
        self._order, ranks = sort_suffixes(words, self._left)
        self._slot_owner = rows[owner[self._order]]  # the position in `texts` of the text of each slot

        # a text's range begins at the slot of its rank; the text is contained if the next slot belongs to it, too
        self._first_slot = ranks[self._starts] - 1
        next_slot = np.minimum(self._first_slot + 1, len(words) - 1)
        is_contained = self._begins_at(next_slot, np.arange(len(rows))) & (self._first_slot + 1 < len(words))
        self._keep_texts(is_contained)
        self.is_contained[self._rows] = True
        self._last_slot = self._find_last_slots()

    def _keep_texts(self, is_kept: np.ndarray) -> None:
        self._rows, self._first_slot = self._rows[is_kept], self._first_slot[is_kept]
        self._lengths, self._starts = self._lengths[is_kept], self._starts[is_kept]

    def _begins_at(self, slots: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Return, for slots and texts of shape (k,), whether the words from each slot on begin with its text."""
        positions, lengths, starts = self._order[slots], self._lengths[texts], self._starts[texts]
        begins = self._left[positions] >= lengths
        positions, lengths, starts = positions[begins], lengths[begins], starts[begins]
        if len(positions):
            bounds = np.cumsum(lengths) - lengths  # where the words of each text begin in the concatenation of all
            offsets = np.arange(lengths.sum()) - np.repeat(bounds, lengths)  # 0, 1, ... in each text
            is_same_word = (
                self._words[np.repeat(positions, lengths) + offsets]
                == self._words[np.repeat(starts, lengths) + offsets]
            )
            begins[begins] = np.logical_and.reduceat(is_same_word, bounds)
        return begins

    def _find_last_slots(self) -> np.ndarray:
        """Return the last slot of the range of each contained text, by bisection of all of them at once."""
        low, high = self._first_slot + 1, np.full(len(self._first_slot), len(self._order))
        while len(unfinished := np.flatnonzero(high - low > 1)):
            middle = (low[unfinished] + high[unfinished]) // 2
            begins = self._begins_at(middle, unfinished)
            low[unfinished[begins]], high[unfinished[~begins]] = middle[begins], middle[~begins]
        return low

    def get_fractions(self, is_chosen: np.ndarray) -> np.ndarray:
        """Return the fraction of each text's occurrences that are in chosen texts, as an array of shape (n,).

        Only occurrences in texts that are not contained in others count; the fraction of such a text itself is 1 or 0.

        is_chosen : array of n booleans, False for contained texts
        """
        fractions = is_chosen.astype(float)
        if len(self._rows):
            chosen, total = (
                np.append(0, np.cumsum(counted[self._slot_owner])) for counted in (is_chosen, ~self.is_contained)
            )
            first, end = self._first_slot, self._last_slot + 1
            fractions[self._rows] = (chosen[end] - chosen[first]) / (total[end] - total[first])
        return fractions

    def find_containers(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each contained text with the texts that contain it and are not contained themselves, as positions."""
        for slot, row in enumerate(self._rows):
            containers = np.unique(self._slot_owner[self._first_slot[slot] : self._last_slot[slot] + 1])
            yield int(row), containers[~self.is_contained[containers]]
