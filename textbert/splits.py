"""Parts of a data set: a stratified few, and parts that share no text."""

import hashlib
import re
import unicodedata

import numpy as np

from textbert.overlaps import Overlaps
from textbert.parameters import as_columns

# scikit-learn takes a second to import, which a conversion need not wait for: each function imports what it needs


def pick_rows(labels, rows, seed):
    """Return the sorted positions of `rows` examples, drawn stratified by label; all if `rows` is None or not fewer."""
    from sklearn.utils import resample

    (labels,) = as_columns(labels)
    everything = np.arange(len(labels))
    if rows is None or rows >= len(labels):
        return everything
    return np.sort(resample(everything, replace=False, n_samples=rows, stratify=labels, random_state=seed))


_ASCII_LOWER = bytes(range(128)).lower() + bytes(range(128, 256))
_ASCII_UNSEEN = bytes([*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
_ODD = re.compile(r"[^ -~\t\n\r]+")
_HAN = re.compile(  # BasicTokenizer._is_chinese_char
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)
# U+FFFD, which BERT deletes, and default ignorable marks, such as variation selectors, which it strips like accents
_UNSEEN = re.compile("[\ufffd\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


class _SeenCharacters(dict):
    """A table for str.translate: nothing for a character that is not seen, spaces around a Chinese one."""

    def __missing__(self, code):
        char = chr(code)
        unseen = _UNSEEN.match(char) or (unicodedata.category(char)[0] == "C" and char not in "\t\n\r")
        self[code] = None if unseen else f" {char} " if _HAN.match(char) else char
        return self[code]


_SEEN_CHARACTERS = _SeenCharacters()


def fold_text(text):
    """Return a text whose words, by `str.split`, are those of `normalize_text`; its white space is as it comes."""
    if text.isascii():
        return text.encode().translate(_ASCII_LOWER, _ASCII_UNSEEN).decode()
    odd = set("".join(_ODD.findall(text)))
    if any(_SEEN_CHARACTERS[ord(char)] != char for char in odd):
        text = _ODD.sub(lambda run: run[0].translate(_SEEN_CHARACTERS), text)
    folded = unicodedata.normalize("NFC", text.casefold())
    return folded.replace("i\u0307", "i")  # a small Turkish "İ", which looks like an i


def normalize_text(text):
    """Return what texts have in common that a reader hardly tells apart, and an uncased BERT not at all.

    Two texts are the same text if this is equal; whatever compares texts does it by this or by `digest_text`. Folded
    are case (`str.casefold`: also "ß" and "ss"), composed and decomposed characters (NFC), all white space, and white
    space beside Chinese characters, which are words of their own to BERT. Left out is what BERT deletes: control and
    format characters (zero-width spaces, soft hyphens, marks of direction, a byte order mark, "\\x0b", "\\x85"),
    private use, surrogates and U+FFFD; and the variation selectors of emojis. Accents, typographic quotes, full width,
    HTML entities and spaces beside punctuation stay, for BERT or a reader sees them.
    """
    return " ".join(fold_text(text).split())


def digest_text(text, normalize=normalize_text):
    """Return a 64-bit integer, the same for texts that are the same by `normalize_text`."""
    content = normalize(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)


def _normalize_before(text):
    """Return what the digests in archives of before `normalize_text` were made of."""
    return " ".join(text.lower().split())


def find_seen(texts, digests):
    """Return which of n texts are among those of `digests`, an int64 array, as an array of n booleans.

    They may be digests of `digest_text` of today or of before, so each text is looked for by both.
    """
    found = [[digest_text(text, normalize) for text in texts] for normalize in (normalize_text, _normalize_before)]
    return np.isin(np.array(found, np.int64), digests).any(axis=0)


def _split(texts, labels, choose, remedy):
    """Yield (training rows, validation rows), sorted, for each choice of texts for validation.

    `choose` gets a list of those texts that stand in no other, and their labels, and yields the indices of those
    chosen.
    """
    from textbert.words import part_letters

    def fold(text):
        return part_letters(fold_text(text))

    texts, labels = as_columns(np.array(list(texts), object), labels)
    digests = [digest_text(text, lambda text: " ".join(fold(text).split())) for text in texts]
    different = dict(zip(digests, zip(texts, labels)))
    place = {digest: number for number, digest in enumerate(different)}
    text_of_row = np.array([place[digest] for digest in digests])
    overlaps = Overlaps([text for text, _ in different.values()], fold)
    whole = np.flatnonzero(~overlaps.inside)
    different_labels = [label for _, label in different.values()]
    try:
        choices = list(choose(whole, [different_labels[text] for text in whole]))
    except ValueError as error:
        raise ValueError(f"{len(labels)} rows cannot be split like that ({error}): {remedy}") from None
    for choice in choices:
        chosen = np.zeros(len(different), bool)
        chosen[whole[choice]] = True
        in_validation = overlaps.get_shares(chosen)[text_of_row]
        parts = np.flatnonzero(in_validation == 0), np.flatnonzero(in_validation == 1)
        for name, part in zip(("training", "validation"), parts):
            if len({labels[row] for row in part}) < 2:
                raise ValueError(f"the {name} part of {len(part)} rows has one class only: {remedy}")
        yield parts


def split_train_validation(texts, labels, share, seed):
    """Split examples into a training and a validation part that share no text, not even in part.

    About `share` of the texts, stratified by label, go to validation. Texts are compared by `normalize_text`. Equal
    texts stay together, and so does a text with those it stands inside of, word for word; one inside texts of both
    parts would leak, and is left out of both. Words are parted by white space; where a script has none between words,
    as in Chinese, Japanese or Thai, each letter is one.

    texts, labels : lists, arrays or Series of length n, taken in order whatever index they have

    Returns two sorted arrays of positions. Raises ValueError if a part would lack a class.
    """
    from sklearn.model_selection import train_test_split

    def choose(whole, stratify):
        yield train_test_split(range(len(whole)), test_size=share, random_state=seed, stratify=stratify)[1]

    return next(_split(texts, labels, choose, f"use more rows or another share than {share}"))


def split_folds(texts, labels, folds, seed):
    """Yield (training rows, validation rows) for each fold; texts are kept apart as in `split_train_validation`."""
    from sklearn.model_selection import StratifiedKFold

    def choose(whole, stratify):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return (chosen for _, chosen in splitter.split(whole, stratify))

    return _split(texts, labels, choose, f"use more rows or fewer folds than {folds}")
