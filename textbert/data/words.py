"""What counts as a word of a text: also in scripts that do not part words by spaces, where each character counts."""

import re
import unicodedata

# the ideographs of Chinese and Japanese, each of which is a word to BERT
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# kana and bopomofo; Thai, Lao, Tibetan, Burmese, Khmer and their smaller kin
UNSPACED = (
    f"{HAN}\u3005-\u3007\u3040-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
)


def _find_marks():
    """Return the signs that belong to the letter before them (vowels, tones, accents) as a regular expression has them.

    Those that only choose how a character is drawn, as after many an emoji, are left out.
    """
    drawn = re.compile("[\u20d0-\u20ff\ufe00-\ufe0f]")
    characters = map(chr, range(0x300, 0x20000))  # beyond are none but such as these
    return "".join(c for c in characters if unicodedata.category(c)[0] == "M" and not drawn.match(c))


MARKS = _find_marks()

# for scikit-learn: where words are separated by spaces, those of at least two letters, as it would find them itself
WORD = rf"[{UNSPACED}][{MARKS}]*|[^\W{UNSPACED}](?:[^\W{UNSPACED}]|[{MARKS}])+"

_unspaced = re.compile(f"[{UNSPACED}]")

_unspaced_letter = re.compile(rf"[{UNSPACED}][{MARKS}]*")

_unit = re.compile(rf"[{UNSPACED}][{MARKS}]*|[^\s{UNSPACED}\u3000-\u303f\u30fb\uff00-\uff0f]+")

_letter = re.compile(rf"(?s).[{MARKS}\u200c\u200d\u20d0-\u20ff\ufe00-\ufe0f\U000e0100-\U000e01ef]*")


def is_unspaced(text):
    """Say whether a text holds a letter of a script that does not part words by spaces."""
    return _unspaced.search(text) is not None


def count_words(text):
    """Return how many words a text has: what stands between spaces, or characters where words are not parted so."""
    return len(_unit.findall(text)) if is_unspaced(text) else len(text.split())


def separate_letters(text):
    """Return a text with spaces around each letter of a script that has none between words."""
    return text if text.isascii() else _unspaced_letter.sub(r" \g<0> ", text)


def split_letters(text):
    """Return the characters of a text, as a list, each with the marks that belong to it."""
    return _letter.findall(text)
