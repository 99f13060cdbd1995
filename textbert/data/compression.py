"""A file as it lies on disk: how it is compressed, whether it is sound, and whether it can be text at all."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path

from textbert.utils.errors import translate_read_errors

MAGIC = {
    b"PK\x03\x04": "a .zip or .xlsx file",
    b"\x1f\x8b": "a .gz file",
    b"BZh": "a .bz2 file",
    b"\xfd7zXZ": "an .xz file",
    b"PAR1": "a .parquet file",
    b"\xd0\xcf\x11\xe0": "an .xls file",
}

MARKS = {  # of the byte order
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def normalize_encoding(encoding):
    """Return an encoding for `open`; UTF-8 with or without a byte order mark. ValueError for an unknown name."""
    try:
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding is {encoding!r}, but must be an encoding's name, such as utf-8 or cp1252") from None
    return "utf-8-sig" if re.fullmatch(r"(?i)utf[-_]?8", encoding) else encoding


def _open_zip(path, mode="rb", **options):
    """Open the only file in a zip file; what a Mac adds to it does not count."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        names = [name for name in names if not name.rsplit("/", 1)[-1].startswith(".")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files ({', '.join(names[:5])}), but must hold one table")
        file = archive.open(names[0])
    return io.TextIOWrapper(file, **options) if "t" in mode else file


OPEN_FUNCTIONS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}


def split_extension(path):
    """Return (the suffix that tells the kind of a file, how it is compressed), in small letters, "" for none."""
    *_, suffix, last = ["", "", *Path(str(path).lower()).suffixes]
    return (suffix, last) if last in OPEN_FUNCTIONS else (last, "")


def check_integrity(path):
    """Raise ValueError for a compressed file that is damaged, or that unpacks to far more than a table can.

    ReadError for one that cannot be read just now.
    """
    _, compression = split_extension(path)
    room = 100 * Path(path).stat().st_size + 2**24
    with translate_read_errors(path):
        try:
            with OPEN_FUNCTIONS[compression](path, "rb") as file:
                while compression and (chunk := file.read(2**20)):
                    room -= len(chunk)
                    if room < 0:
                        raise ValueError("it unpacks to more than 100 times its size")
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path} is damaged, or not what its name says: {error}") from None


def check_is_text(path, encoding="utf-8", setting="ENCODING"):
    """Raise ValueError for a file that begins as no text does; `setting` is the parameter that says the encoding."""
    with translate_read_errors(path), OPEN_FUNCTIONS[split_extension(path)[1]](path, "rb") as file:
        start = file.read(4096)
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is no text but {what}: give it that name, or save the table as CSV")
    codec = codecs.lookup(normalize_encoding(encoding)).name
    if name := next((MARKS[mark] for mark in MARKS if start.startswith(mark)), None):
        if not codec.startswith(name):
            raise ValueError(
                f"{path} is not {encoding.upper()}, for it begins as {name.upper()} does: save the file as UTF-8, or "
                f"set {setting}, perhaps to {name!r}"
            )
        return
    if codec != "utf-8-sig":
        return
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        half, other = start[place::2], start[1 - place :: 2]
        most, none = half.count(0) > 0.7 * len(half), not other.count(0)  # Latin letters, or just what separates others
        if len(half) > 4 and (most and other.count(0) < len(half) / 10 or none and half.count(0) > 0.1 * len(half)):
            raise ValueError(f"{path} looks like UTF-16: save the file as UTF-8, or set {setting}, perhaps to {name!r}")


def open_text(path, encoding):
    """Open a file, compressed or not, as text whose line ends are left as they are."""
    return OPEN_FUNCTIONS[split_extension(path)[1]](path, "rt", encoding=encoding, newline="")
