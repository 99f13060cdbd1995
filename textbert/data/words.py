"""Words of a text, also in scripts written without spaces, where each character counts as a word."""

import re
import unicodedata

# the ideographs of Chinese and Japanese, each of which is a word to BERT
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# kana and bopomofo; Thai, Lao, Tibetan, Burmese, Khmer and smaller scripts of the region
UNSPACED = (
    f"{HAN}\u3005-\u3007\u3040-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
)


def _find_combining_marks() -> str:
    """Return all characters that belong to the letter before them (vowels, tones, accents).

    Those that only choose how a character is drawn, such as the variation selectors of emoji, are left out.
    """
    presentation = re.compile("[\u20d0-\u20ff\ufe00-\ufe0f]")
    characters = map(chr, range(0x300, 0x20000))  # beyond these are only variation selectors
    return "".join(c for c in characters if unicodedata.category(c)[0] == "M" and not presentation.match(c))


COMBINING_MARKS = _find_combining_marks()

# a token pattern for scikit-learn: where words are separated by spaces, its own, words of at least two letters
WORD = rf"[{UNSPACED}][{COMBINING_MARKS}]*|[^\W{UNSPACED}](?:[^\W{UNSPACED}]|[{COMBINING_MARKS}])+"

_unspaced = re.compile(f"[{UNSPACED}]")

_unspaced_letter = re.compile(rf"[{UNSPACED}][{COMBINING_MARKS}]*")

_word = re.compile(rf"[{UNSPACED}][{COMBINING_MARKS}]*|[^\s{UNSPACED}\u3000-\u303f\u30fb\uff00-\uff0f]+")

_letter = re.compile(rf"(?s).[{COMBINING_MARKS}\u200c\u200d\u20d0-\u20ff\ufe00-\ufe0f\U000e0100-\U000e01ef]*")


def is_unspaced(text: str) -> bool:
    """Return True if a text has a letter of a script that is written without spaces between words."""
    return _unspaced.search(text) is not None


def count_words(text: str) -> int:
    """Return the number of words of a text: separated by spaces or, in scripts without spaces, letters."""
    return len(_word.findall(text)) if is_unspaced(text) else len(text.split())


def separate_letters(text: str) -> str:
    """Return a text with spaces around each letter of a script that is written without spaces."""
    return text if text.isascii() else _unspaced_letter.sub(r" \g<0> ", text)


def split_letters(text: str) -> list[str]:
    """Return the characters of a text, each with the combining marks that belong to it."""
    return _letter.findall(text)
