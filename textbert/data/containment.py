"""Which texts stand word for word inside others, found in time that hardly grows faster than the texts."""

from collections import defaultdict
from itertools import chain, count

import numpy as np

MANY_WORDS = 5_000_000  # from here on it takes more than a few seconds

WIDTHS = (1, 2, 4, 8, 16)  # words by which a beginning is looked for

BLOCK_TEXTS = 1000  # at a time, for the sake of memory


def _hash_windows(texts):
    """Yield (width, a hash of that many words from each place on) for each of `WIDTHS`; texts are lists of words.

    The hashes are uint64 arrays of shape (words,); those that run over a text's end mean nothing.
    """
    hashes = np.fromiter(map(hash, chain.from_iterable(texts)), np.int64).view(np.uint64)
    for width in WIDTHS:
        yield width, hashes
        ahead = np.zeros_like(hashes)
        ahead[:-width] = hashes[width:]
        hashes = hashes * np.uint64(pow(0x9E3779B97F4A7C15, width, 2**64)) + ahead


class _Beginnings:
    """The first words of texts, as many of them as the largest of `WIDTHS` that a text has."""

    def __init__(self, texts, fold):
        self.of_text = np.zeros(len(texts), np.uint64)
        self.width = np.zeros(len(texts), int)  # 0 where a text has no words
        for start in range(0, len(texts), BLOCK_TEXTS):
            block = [fold(text).split(None, WIDTHS[-1])[: WIDTHS[-1]] for text in texts[start : start + BLOCK_TEXTS]]
            lengths = np.array(list(map(len, block)))
            places, rows = np.cumsum(lengths) - lengths, np.arange(start, start + len(block))
            for width, hashes in _hash_windows(block):
                self.of_text[rows[lengths >= width]] = hashes[places[lengths >= width]]
                self.width[rows[lengths >= width]] = width
        self.known, self.elsewhere, self.maybe = {}, {}, {}
        for width in WIDTHS:
            known, counts = np.unique(self.of_text[self.width == width], return_counts=True)
            if len(known):
                self.known[width], self.elsewhere[width] = known, counts > 1
                self.maybe[width] = np.zeros(2**20, bool)  # most hashes are in no table: this tells it at once
                self.maybe[width][known >> np.uint64(44)] = True

    def find_elsewhere(self, width, hashes, own):
        """Return the places where a text could begin, but for the places `own`; and note which beginnings they are."""
        if width not in self.known:
            return own[:0]
        hits = np.setdiff1d(np.flatnonzero(self.maybe[width][hashes >> np.uint64(44)]), own, assume_unique=True)
        number = np.minimum(np.searchsorted(self.known[width], hashes[hits]), len(self.known[width]) - 1)
        found = self.known[width][number] == hashes[hits]
        self.elsewhere[width][number[found]] = True
        return hits[found]

    def are_elsewhere(self):
        """Return for each text whether its beginning was found elsewhere."""
        found = np.zeros(len(self.width), bool)
        for width, known in self.known.items():
            rows = self.width == width
            found[rows] = self.elsewhere[width][np.searchsorted(known, self.of_text[rows])]
        return found


def _find_candidates(texts, fold):
    """Return the positions of all texts that may stand in others or have others inside, by hashes of beginnings.

    Of natural texts they are few, and what is not among them needs little memory.
    """
    beginnings = _Beginnings(texts, fold)
    around = np.zeros(len(texts), bool)  # another text may begin inside this one
    for start in range(0, len(texts), BLOCK_TEXTS):
        block = [fold(text).split() for text in texts[start : start + BLOCK_TEXTS]]
        lengths = np.array(list(map(len, block)))
        places, widths = np.cumsum(lengths) - lengths, beginnings.width[start : start + len(block)]
        owner = np.repeat(np.arange(start, start + len(block)), lengths)
        for width, hashes in _hash_windows(block):
            around[owner[beginnings.find_elsewhere(width, hashes, places[widths == width])]] = True
    return np.flatnonzero(around | beginnings.are_elsewhere())


def _number_words(texts, fold):
    """Return the words of texts as numbers from 1, one text after the other, and how many each text has.

    The arrays are int32 of shape (words,) and int64 of shape (n,).
    """
    numbers = defaultdict(count(1).__next__)
    parts, lengths = [], np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        part = [numbers[word] for word in fold(text).split()]
        parts.append(np.array(part, np.int32))
        lengths[row] = len(part)
    return np.concatenate([np.array([], np.int32), *parts]), lengths


def sort_suffixes(words, left):
    """Sort the places in texts by the words that follow there, up to the end of the text they are in.

    Places are first sorted by as many words as a whole number of 64 bits can hold; each round then looks twice as far
    ahead, through the ranks that the round before has given, at those places that are not yet told apart (Larsson and
    Sadakane 2007, Faster suffix sorting).

    words, left : arrays of shape (words,); the number of each word, and how many there are from it to its text's end
    Returns (the places in order, the rank of each place from 1, the same where the same words follow to the end).
    """

    def look_ahead(values, width):  # 0 beyond the text's end
        ahead = np.zeros_like(values)
        ahead[:-width] = values[width:]
        ahead[left <= width] = 0
        return ahead

    keys, width, bits = words.astype(np.int64), 1, int(words.max()).bit_length()
    while 2 * bits * width < 64:
        keys = keys << bits * width | look_ahead(keys, width)
        width *= 2
    order = np.argsort(keys)
    keys, slots, ranks = keys[order], np.arange(len(words)), np.empty(len(words), np.int64)
    while len(slots):
        first = np.append(True, keys[1:] != keys[:-1])
        places = order[slots]
        ranks[places] = np.maximum.accumulate(np.where(first, slots, 0)) + 1
        alone = first & np.append(first[1:], True)
        open_ = ~alone & (left[places] >= width)
        slots, places = slots[open_], places[open_]
        ahead = np.where(left[places] > width, ranks[np.minimum(places + width, len(words) - 1)], 0)
        keys = ranks[places] << 32 | ahead
        by_key = np.argsort(keys)
        order[slots], keys = places[by_key], keys[by_key]
        width *= 2
    return order, ranks


class Overlaps:
    """Which of some texts stand word for word inside others of them.

    texts : list of n texts, no two of which have the same words
    fold : function from a text to one whose words, by `str.split`, are compared
    `inside` is an array of n booleans: whether the text stands inside another one. A text without words never does.
    """

    def __init__(self, texts, fold=str.lower):
        rows = _find_candidates(texts, fold)
        words, lengths = _number_words([texts[row] for row in rows], fold)
        if len(words) > MANY_WORDS:
            print(f"Looking which of {len(rows):,} texts stand inside others ({len(words):,} words) ...")
        ends = np.cumsum(lengths)
        self.inside = np.zeros(len(texts), bool)
        self._rows = rows
        if not len(words):
            return
        self._words, self._lengths, self._starts = words, lengths, ends - lengths
        owner = np.repeat(np.arange(len(rows)), lengths)
        self._left = (ends[owner] - np.arange(len(words))).astype(np.int32)
        self._order, ranks = sort_suffixes(words, self._left)
        self._owner = rows[owner[self._order]]  # the text of each place, in order
        # a text comes first of all that begins with it, and is inside another one if there is anything else
        self._low = ranks[self._starts] - 1
        follows = np.minimum(self._low + 1, len(words) - 1)
        found = (self._low + 1 < len(words)) & self._begins(follows, np.arange(len(self._rows)))
        self._rows, self._low = self._rows[found], self._low[found]
        self._lengths, self._starts = self._lengths[found], self._starts[found]
        self.inside[self._rows] = True
        self._high = self._find_last()

    def _begins(self, slots, texts):
        """Tell for some slots of the order whether there begins the text of the same position in `texts`."""
        places, lengths, starts = self._order[slots], self._lengths[texts], self._starts[texts]
        fits = self._left[places] >= lengths
        places, lengths, starts = places[fits], lengths[fits], starts[fits]
        before = np.cumsum(lengths) - lengths
        step = np.arange(lengths.sum()) - np.repeat(before, lengths)
        same = self._words[np.repeat(places, lengths) + step] == self._words[np.repeat(starts, lengths) + step]
        if len(before):
            fits[fits] = np.logical_and.reduceat(same, before)
        return fits

    def _find_last(self):
        """Return for each text that is inside another the last slot where it begins, by bisection."""
        low, high = self._low + 1, np.full(len(self._low), len(self._order))
        while len(search := np.flatnonzero(high - low > 1)):
            middle = (low[search] + high[search]) // 2
            begins = self._begins(middle, search)
            low[search[begins]], high[search[~begins]] = middle[begins], middle[~begins]
        return low

    def get_shares(self, chosen):
        """Return for each text how much of it is among chosen ones, from 0 to 1, as an array of shape (n,).

        chosen : array of n booleans, False for texts inside others. Those have the share of the places where they stand
            in texts that are inside no other.
        """
        shares = chosen.astype(float)
        if len(self._rows):
            counts = [np.append(0, np.cumsum(kind[self._owner])) for kind in (chosen, ~self.inside)]
            ours, all_ = (total[self._high + 1] - total[self._low] for total in counts)
            shares[self._rows] = ours / all_
        return shares
