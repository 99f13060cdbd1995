"""Normalization and hashing of texts, which decide whether two texts count as equal."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

_ASCII_LOWER = bytes(range(128)).lower() + bytes(range(128, 256))

_ASCII_INVISIBLE = bytes([*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])

_UNUSUAL = re.compile(r"[^ -~\t\n\r]+")

_HAN = re.compile(  # BasicTokenizer._is_chinese_char
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)

# U+FFFD, which BERT deletes, and default ignorable characters that it strips like accents, e.g. variation selectors
_INVISIBLE = re.compile("[\ufffd\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


class _VisibleCharacters(dict[int, str | None]):
    """A table for `str.translate` that deletes invisible characters and puts spaces around Chinese ones."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        is_invisible = _INVISIBLE.match(char) or (unicodedata.category(char)[0] == "C" and char not in "\t\n\r")
        self[code] = None if is_invisible else f" {char} " if _HAN.match(char) else char
        return self[code]


_VISIBLE_CHARACTERS = _VisibleCharacters()


def fold_text(text: str) -> str:
    """Return a text whose words, by `str.split`, are those of `normalize_text`; its white space is left as it is."""
    if text.isascii():
        return text.encode().translate(_ASCII_LOWER, _ASCII_INVISIBLE).decode()
    unusual = set("".join(_UNUSUAL.findall(text)))
    if any(_VISIBLE_CHARACTERS[ord(char)] != char for char in unusual):
        text = _UNUSUAL.sub(lambda run: run[0].translate(_VISIBLE_CHARACTERS), text)
    folded = unicodedata.normalize("NFC", text.casefold())
    return folded.replace("i\u0307", "i")  # lowercase of the Turkish "İ", which looks like an i


def normalize_text(text: str) -> str:
    """Return a text in the form in which texts are compared: equal for two texts that a reader can hardly tell apart.

    All comparisons of texts use this form or `hash_text`. Case is folded (`str.casefold`, which also equates
    "ß" and "ss"), characters are composed (NFC), each run of white space becomes one space, and Chinese characters,
    which are words of their own to BERT, are separated by spaces. What BERT deletes is deleted: control and format
    characters (zero-width spaces, soft hyphens, direction marks, a byte order mark, "\\x0b", "\\x85"), private use,
    surrogates and U+FFFD; and so are the variation selectors of emoji. Accents, typographic quotes, full-width
    characters, HTML entities and spaces beside punctuation stay, because BERT or a reader sees them.
    """
    return " ".join(fold_text(text).split())


def hash_text(text: str, normalize: Callable[[str], str] = normalize_text) -> int:
    """Return a signed 64-bit hash of a text (BLAKE2b), equal for texts that `normalize` makes equal."""
    content = normalize(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)


def _legacy_normalize_text(text: str) -> str:
    """Return the form of a text whose hashes are in archives older than `normalize_text`."""
    return " ".join(text.lower().split())


def find_hashed(texts: Iterable[str], hashes: np.ndarray) -> np.ndarray:
    """Return for each of n texts whether its hash is among `hashes`, as an array of n booleans.

    hashes : int64 array, of `hash_text` with today's or the older normalization: each text is looked up by both
    """
    pairs = [(hash_text(text), hash_text(text, _legacy_normalize_text)) for text in texts]
    is_known = np.isin(np.array(pairs, np.int64).reshape(-1, 2), hashes)
    return is_known[:, 0] | is_known[:, 1]
