"""A file as it lies on disk: how it is compressed, whether it is sound, and whether it can be text at all."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from pathlib import Path

from textbert.files import explain_reading

MAGIC = {
    b"PK\x03\x04": "a .zip or .xlsx file",
    b"\x1f\x8b": "a .gz file",
    b"BZh": "a .bz2 file",
    b"\xfd7zXZ": "an .xz file",
    b"PAR1": "a .parquet file",
    b"\xd0\xcf\x11\xe0": "an .xls file",
}


def _open_zip(path, mode="rb", **options):
    """Open the only file in a zip file; what a Mac adds to it does not count."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        names = [name for name in names if not name.rsplit("/", 1)[-1].startswith(".")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files ({', '.join(names[:5])}), but must hold one table")
        file = archive.open(names[0])
    return io.TextIOWrapper(file, **options) if "t" in mode else file


OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}


def split_suffixes(path):
    """Return (the suffix that tells the kind of a file, how it is compressed), in small letters, "" for none."""
    *_, suffix, last = ["", "", *Path(str(path).lower()).suffixes]
    return (suffix, last) if last in OPENERS else (last, "")


def require_sound(path):
    """Raise ValueError for a compressed file that is damaged, or that unpacks to far more than a table can.

    CannotReadError for one that cannot be read just now.
    """
    _, compression = split_suffixes(path)
    room = 100 * Path(path).stat().st_size + 2**24
    with explain_reading(path):
        try:
            with OPENERS[compression](path, "rb") as file:
                while compression and (chunk := file.read(2**20)):
                    room -= len(chunk)
                    if room < 0:
                        raise ValueError("it unpacks to more than 100 times its size")
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path} is damaged, or not what its name says: {error}") from None


def require_text(path, encoding="utf-8", setting="ENCODING"):
    """Raise ValueError for a file that begins as no text does; `setting` is the parameter that says the encoding."""
    with explain_reading(path), OPENERS[split_suffixes(path)[1]](path, "rb") as file:
        start = file.read(4096)
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is no text but {what}: give it that name, or save the table as CSV")
    marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if marked or encoding.lower() not in ("utf-8", "utf8"):
        return
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        half, other = start[place::2], start[1 - place :: 2]
        if len(half) > 4 and half.count(0) > 0.7 * len(half) and other.count(0) < len(half) / 10:
            raise ValueError(f"{path} looks like UTF-16: save the file as UTF-8, or set {setting}, perhaps to {name!r}")


def open_text(path, encoding):
    """Open a file, compressed or not, as text whose line ends are left as they are."""
    return OPENERS[split_suffixes(path)[1]](path, "rt", encoding=encoding, newline="")
