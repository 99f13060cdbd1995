"""Mojibake, text that was decoded with the wrong encoding, as a regular expression.

In UTF-8 the first byte of a character determines how many bytes follow, and each of these has one of 64 values. Decoded
byte by byte in a code page, it becomes one of a few characters, followed by one or more of the 64 that the code page
has at these values: pairs and triples that no language uses, either at all or several times in a row.
"""

import re


def _continuation_characters(encoding: str) -> str:
    """Return what a code page decodes UTF-8's continuation bytes to, as the content of a character class."""
    characters = "".join(bytes([byte]).decode(encoding, "ignore") for byte in range(0x80, 0xC0))
    return "".join(f"\\u{ord(character):04x}" for character in sorted(characters))


def _pairs_in_gbk(*lead_bytes: int) -> str:
    """Return the Chinese characters that GBK decodes UTF-8's two-byte characters to, for some lead bytes."""
    return "".join(bytes([lead, byte]).decode("gbk", "ignore") for lead in lead_bytes for byte in range(0x80, 0xC0))


def _repeated(times: int, first: str, *following: str) -> str:
    """Return a pattern for a sequence that occurs `times` times in a row; it matches after the first character.

    first, following : the contents of the character classes that make up the sequence
    """
    rest = "".join(f"[{characters}]" for characters in following)
    return f"(?<=[{first}]){rest}(?:[{first}]{rest}){{{times - 1}}}"


def _pair(first: str, second: str) -> str:
    """Return a pattern for two characters; it matches after the first."""
    return _repeated(1, first, second)


WESTERN = r"\u0080-\u009f" + _continuation_characters("cp1252")  # Latin-1 and Windows' Western Europe

# those of them that do not follow a letter in ordinary text: no closing quotes, dashes, degrees, or letters of Czech
ODD = (
    r"\u00a1-\u00a7\u00aa\u00ac\u00af\u00b1\u00b5\u00b6\u00b8\u00ba\u00bc-\u00bf\u0152\u0153\u0160\u0178\u017d\u0192"
    r"\u02c6\u02dc\u2020\u2021\u2030\u20ac"
)

CYRILLIC, ARABIC = _continuation_characters("cp1251"), _continuation_characters("cp1256")

SMALL = (  # without capital letters, several of which are in a row in Ukrainian words
    r"\u00a0\u00a4\u00a6\u00a7\u00a9\u00ab-\u00ae\u00b0\u00b1\u00b3-\u00bb\u00be\u00bf"
    r"\u0451-\u045f\u0491\u2013-\u203a\u20ac\u2116\u2122"
)

BOXES, NO_BOX = r"\u2550-\u256c\u2580-\u259f", r"^\s\u2500-\u259f"

ACCENTS = _pairs_in_gbk(0xC3, 0xC4, 0xC5)

LETTER = r"(?<=[A-Za-z]"  # before the character after which a pattern matches

PATTERNS = (
    # replacement and control characters; each letter replaced by a question mark; byte order marks
    r"(?<=[\ufffd\u0080-\u009f\u9518])",
    r"(?<=\?)(?<![\w?]\?)\?{2,}[ ,.]+\?{3,}",
    r"(?<=\u00ef)(?:\u00bb\u00bf|\u00bf\u00bd)|(?<=\u043f)(?:\u00bb\u0457|\u0457\u0405)|(?<=\u010f)[\u00bb\u017c]",
    # Western Europe: accents; quotes and emoji; Cyrillic, Greek, Hebrew, Arabic; Chinese, Thai; Polish; Vietnamese
    _pair(r"\u00c3", rf"\u00a0-\u00bf{ODD}\u0161"),
    _pair(r"\u00c2", r"\u00a0-\u00bf"),
    _pair(r"\u00e2", r"\u20ac"),
    _pair(r"\u00f0\u011f", r"\u0178"),
    _repeated(2, r"\u00c2-\u00df", WESTERN),
    _repeated(2, r"\u00e0-\u00ef", WESTERN, WESTERN),
    _repeated(1, r"\u00e0-\u00ef", ODD, WESTERN),
    _repeated(1, r"\u00e0-\u00ef", WESTERN, ODD),
    _pair(r"\u00c4\u00c5", rf"{ODD}\u00a8\u00a9\u00b0\u00b4\u0161\u017e\u2122\u203a\u201a\u201e"),
    _pair(r"\u00c6", r"\u00a1\u00b0"),
    r"(?<=\u00c4)[\u2026\u2122\u2021]\w",
    _repeated(1, r"\u00e1", r"\u00ba\u00bb", rf"{ODD}\u00a8\u00a9\u00ae\u00b0\u00b4\u0161\u017e\u2122\u2039"),
    # Central Europe, also emojis
    _pair(r"\u0111", r"\u017a"),
    _pair(r"\u0102", r"\u00a0-\u00ba\u0142\u013d\u013e\u015f"),
    _pair(r"\u0139", r"\u0082\u00a0-\u00ba\u201a\u203a\u013d\u201e\u017a"),
    # Russia: emojis; all scripts, quotes, accents beside Latin letters
    r"(?<=\u0440)\u045f[\u00a4-\u00a7\u0401\u040b-\u040f\u0452\u0490\u2018-\u201d]",
    _repeated(3, r"\u0420\u0421", CYRILLIC),
    _repeated(3, r"\u0412-\u042f", SMALL),
    _repeated(2, r"\u0430-\u043f", CYRILLIC, CYRILLIC),
    _repeated(2, r"\u0410-\u044f", rf"{BOXES}\u2500-\u254f"),
    _pair(r"\u0432", r"\u0402"),
    _pair(r"\u0413", r"\u00a9\u00b6\u00a4\u00a7\u00b1"),
    rf"{LETTER}[\u0412-\u042f])[{SMALL}][a-z]",
    # a Mac, and the DOS console
    _pair(r"\u221a", r"\u00a0-\u00ff\u2022\u2122\u2260\u221e\u2264\u2265"),
    _pair(r"\u201a", r"\u00c4"),
    _repeated(3, r"\u2013\u2014", r"\u0080-\u03ff\u2122-\u25ff"),
    _pair(r"\u251c", NO_BOX),
    _pair(r"\u0393\u00d4", r"\u00c7"),
    _repeated(2, r"\u2550-\u256c", NO_BOX),
    _pair(r"\u03b1", r"\u2555-\u256c"),
    # Greece, Israel and Arabia: accents beside Latin letters; Cyrillic
    _pair(r"\u0393", r"\u00a3\u00a4\u00a7-\u00a9\u00b1\u00b3\u00b6\u00bd"),
    rf"{LETTER}[\u05b0-\u05c7])",
    _pair(r"\u0623", r"\u00a7-\u00aa\u00ae\u00b1\u00b4\u00b6\u00bc"),
    _repeated(4, r"\u0630\u0631\u062e\u062f\u0637\u0638", ARABIC),
    # China and Japan: full-width punctuation, quotes, kana; accents beside Latin letters; scripts of two bytes in UTF-8
    r"(?<=[\u951b\u9286-\u9289\u9225\u9983\u7e3a\u7e67\u7e5d])|(?<=\u951f)\u65a4",
    rf"{LETTER}[\u8305\u9e21\u7709\u679a\u76f2\u5e3d\u8d38\u8c29\u7164\u83bd\u813d])",
    rf"{LETTER}[{ACCENTS}])[{ACCENTS}]{{0,3}}[a-z]",
    *(_repeated(4, _pairs_in_gbk(*leads)) for leads in ((0xD0, 0xD1), (0xCE, 0xCF), (0xD7,), (0xD8, 0xD9))),
    # letters of another code page decoded as Western European
    _repeated(5, r"\u00b5\u00ba\u00bc-\u00be\u00c0-\u00ff"),
    r"(?<=[\u00a1-\u00ff])(?:[\u00a1-\u00bf]{0,3}[\u00c0-\u00ff]){5}",
    rf"{LETTER}[\u00b9\u00b3\u201a])[a-z]",
)

MOJIBAKE = rf"[?\u0080-\U0010ffff](?:{'|'.join(PATTERNS)})"  # most texts have few characters of the first class

_mojibake = re.compile(MOJIBAKE)


def is_mojibake(text: str) -> bool:
    """Return True if a text contains characters that were decoded with the wrong encoding, or lost in doing so."""
    return not (text.isascii() and "??" not in text) and bool(_mojibake.search(text))
