"""Files, compressed or not: how to open them, whether they are intact, and whether they can be text in an encoding."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textbert.utils.errors import translate_read_errors

MAGIC_NUMBERS = {
    b"PK\x03\x04": "a .zip or .xlsx file",
    b"\x1f\x8b": "a .gz file",
    b"BZh": "a .bz2 file",
    b"\xfd7zXZ": "an .xz file",
    b"PAR1": "a .parquet file",
    b"\xd0\xcf\x11\xe0": "an .xls file",
}

BYTE_ORDER_MARKS = {  # UTF-32's begins with UTF-16's, so it comes first
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def normalize_encoding(encoding: str) -> str:
    """Return the name of an encoding for `open`; for UTF-8 one that also skips a byte order mark.

    Raises ValueError for an unknown name.
    """
    try:
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding is {encoding!r}, but must be an encoding's name, such as utf-8 or cp1252") from None
    return "utf-8-sig" if re.fullmatch(r"(?i)utf[-_]?8", encoding) else encoding


def _open_zip(path: str | Path, mode: str = "rb", **options: Any) -> Any:
    """Open the only file in a zip file, ignoring hidden files and the folder __MACOSX, which macOS adds."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        names = [name for name in names if not name.rsplit("/", 1)[-1].startswith(".")]
        if len(names) != 1:
            raise ValueError(f"expected one table in it, got {len(names)} files ({', '.join(names[:5])})")
        file = archive.open(names[0])
    return io.TextIOWrapper(file, **options) if "t" in mode else file


# by the extension of a compressed file; each takes the arguments of Python's `open`
OPEN_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "": open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _open_zip,
}


def split_extension(path: str | Path) -> tuple[str, str]:
    """Return (the extension that names a file's format, that of its compression), lowercase; "" where there is none.

    "Train.CSV.gz" gives (".csv", ".gz").
    """
    *_, extension, last = ["", "", *Path(str(path).lower()).suffixes]
    return (extension, last) if last in OPEN_FUNCTIONS else (last, "")


def check_integrity(path: str | Path) -> None:
    """Raise ValueError for a compressed file that is corrupt, or whose content is far larger than a table's can be.

    Raises ReadError for one that cannot be read at the moment.
    """
    _, compression = split_extension(path)
    bytes_left = 100 * Path(path).stat().st_size + 2**24
    with translate_read_errors(path):
        try:
            with OPEN_FUNCTIONS[compression](path, "rb") as file:
                while compression and (chunk := file.read(2**20)):
                    bytes_left -= len(chunk)
                    if bytes_left < 0:
                        raise ValueError("its decompressed size exceeds 100 times its size")
        except Exception as error:  # a corrupt file can raise nearly anything
            raise ValueError(f"{path} is corrupt, or its format is not what its name says: {error}") from None


def _looks_like_utf16(content: bytes, high_byte: int) -> bool:
    """Return True if every second byte, from `high_byte` (0 or 1) on, is often zero and the bytes between are not.

    That is typical of Latin letters and, with fewer zeros, of another script with delimiters between its letters.
    """
    high_bytes, low_bytes = content[high_byte::2], content[1 - high_byte :: 2]
    if len(high_bytes) <= 4:
        return False
    zeros, low_zeros = high_bytes.count(0), low_bytes.count(0)
    is_latin = zeros > 0.7 * len(high_bytes) and low_zeros < len(high_bytes) / 10
    return is_latin or (not low_zeros and zeros > max(1, 0.1 * len(high_bytes)))  # one may be a NUL in a text


def check_is_text(path: str | Path, encoding: str = "utf-8", setting: str = "ENCODING") -> None:
    """Raise ValueError for a file whose first bytes are not those of a text in this encoding.

    setting : the parameter that sets the encoding, for the message
    """
    with translate_read_errors(path), OPEN_FUNCTIONS[split_extension(path)[1]](path, "rb") as file:
        start = file.read(4096)
    for magic_number, description in MAGIC_NUMBERS.items():
        if start.startswith(magic_number):
            raise ValueError(
                f"{path} is not a text file but {description}. Rename it accordingly, or save the table as CSV"
            )
    codec = codecs.lookup(normalize_encoding(encoding)).name
    if name := next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), None):
        if not codec.startswith(name):
            raise ValueError(
                f"{path} is not {encoding.upper()}: it starts with the byte order mark of {name.upper()}: save the "
                f"file as UTF-8, or set {setting}, perhaps to {name!r}"
            )
        return
    if codec != "utf-8-sig":
        return
    for high_byte, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if _looks_like_utf16(start, high_byte):
            raise ValueError(f"{path} looks like UTF-16: save the file as UTF-8, or set {setting}, perhaps to {name!r}")


def open_text(path: str | Path, encoding: str) -> Any:
    """Open a file, compressed or not, as text whose line endings are kept."""
    return OPEN_FUNCTIONS[split_extension(path)[1]](path, "rt", encoding=encoding, newline="")
