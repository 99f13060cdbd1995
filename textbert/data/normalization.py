"""When two texts are the same text: what is compared, and its hash."""

import hashlib
import re
import unicodedata

import numpy as np

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

    Two texts are the same text if this is equal; whatever compares texts does it by this or by `hash_text`. Folded
    are case (`str.casefold`: also "ß" and "ss"), composed and decomposed characters (NFC), all white space, and white
    space beside Chinese characters, which are words of their own to BERT. Left out is what BERT deletes: control and
    format characters (zero-width spaces, soft hyphens, marks of direction, a byte order mark, "\\x0b", "\\x85"),
    private use, surrogates and U+FFFD; and the variation selectors of emojis. Accents, typographic quotes, full width,
    HTML entities and spaces beside punctuation stay, for BERT or a reader sees them.
    """
    return " ".join(fold_text(text).split())


def hash_text(text, normalize=normalize_text):
    """Return a 64-bit integer, the same for texts that are the same by `normalize_text`."""
    content = normalize(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)


def _normalize_before(text):
    """Return what the digests in archives of before `normalize_text` were made of."""
    return " ".join(text.lower().split())


def find_hashed(texts, digests):
    """Return which of n texts are among those of `digests`, an int64 array, as an array of n booleans.

    They may be digests of `hash_text` of today or of before, so each text is looked for by both.
    """
    found = [[hash_text(text, normalize) for text in texts] for normalize in (normalize_text, _normalize_before)]
    return np.isin(np.array(found, np.int64), digests).any(axis=0)
