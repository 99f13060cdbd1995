"""The table that `Classifier.predict_file` reads."""

import re
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from statistics import fmean

import numpy as np

from textbert.data.compression import check_integrity, check_is_text, split_extension
from textbert.data.csv_reader import read_delimited, read_rows
from textbert.data.csv_rows import Tally
from textbert.data.dialects import Dialect
from textbert.data.headers import LABEL_COLUMNS, TEXT_COLUMNS
from textbert.data.labels import NA_VALUES
from textbert.utils.files import hash_file

DELIMITER_OF_SUFFIX = {".csv": ",", ".tsv": "\t", ".txt": ",", "": ","}  # of a target, by what its name ends in

SAMPLE_ROWS = 1000  # that show whether the first one is a header

COLUMN_NAME = r"(?=[^\W\d])[\w /()#:-]{1,40}"  # a few words without a sentence's punctuation


def _is_header(sample, column):
    """Whether the first of some rows names the columns; True only where the rows below it prove that.

    Either it has 0, 1, 2, ..., as pandas writes them, or a usual name above the texts of `column`, or there a name that
    is short beside the texts, and in another column a usual name, or words above what has a digit in each row. What
    comes again in its column, or is a number like those below it, is no name.
    """
    (*first,), *rows = [[cell.strip().casefold() for cell in row] for row in sample]
    numbered = first[1:] if first[0] == "" else first
    if len(numbered) > 1 and numbered == [str(i) for i in range(len(numbered))]:
        return True
    below = [[row[i] for row in rows if row[i]] for i in range(len(first))]
    numbers = {i for i, cells in enumerate(below) if all(re.search(r"\d", cell) for cell in cells)}
    numbers.discard(column)
    if any(name in below[i] or (i in numbers and re.search(r"\d", name)) for i, name in enumerate(first)):
        return False
    if first[column] in TEXT_COLUMNS:
        return True
    names = {i for i, name in enumerate(first) if re.fullmatch(COLUMN_NAME, name) and name not in NA_VALUES}
    if column not in names or 2 * len(first[column]) > fmean([len(row[column]) for row in rows] or [0]):
        return False
    usual = {i for i in names if i != column and first[i] in ("id", *LABEL_COLUMNS)}
    return bool(usual) or any(len(below[i]) > 2 for i in names & numbers)


def _quote(cells):
    return ", ".join(repr(cell[:50]) for cell in cells[:20])


@dataclass(frozen=True)
class SourceTable:
    """A CSV or TSV file whose texts are to be classified."""

    path: Path
    form: Dialect
    header: list  # names of the columns; their numbers if the file has none
    column: int  # position of the texts
    has_header: bool
    count: int  # rows, without the header
    digest: str  # SHA-256 of the file

    @classmethod
    def open(cls, path, encoding, text_column, header=None, trained_column=None):
        """Return the table of a file, all of which is checked; `trained_column` is what the training's was called.

        Prints where the texts are read from, unless that is as asked for. See `Classifier.predict_file` for the others.
        """
        kind, compression = split_extension(path)
        if kind in (".xlsx", ".xls", ".parquet", ".jsonl", ".json"):
            raise ValueError(f"predict_file reads CSV and TSV, and {path} is neither: save the table as CSV (UTF-8)")
        if not isinstance(header, bool | np.bool_ | None):  # 0, as in pandas, would be taken for False
            raise ValueError(f"header is {header!r}, but must be True, False, or None to find out")
        if compression:
            check_integrity(path)
        check_is_text(path, encoding, "encoding")
        digest = hash_file(path)
        (sample, count), form = read_delimited(path, kind, encoding, _sample_and_count, "encoding", tally := Tally())
        if not sample:
            raise ValueError(f"{path} is empty: it needs a header, and a row for each text")
        if differs := tally.describe(path):
            print(differs)
        unusual = form.describe(kind)
        named = f"{path} ({unusual})" if unusual else path
        column, has_header = _find_texts(sample, named, text_column, header, trained_column)
        names = sample[0] if has_header else [str(i) for i in range(len(sample[0]))]
        _say_column(names[column].strip(), path, text_column, has_header, trained_column)
        return cls(path, form, names, column, has_header, count - has_header, digest)

    def read_rows(self):
        """Yield the rows below the header as lists of fields."""
        return islice(read_rows(self.path, self.form), int(self.has_header), None)

    def require_unchanged(self):
        """Raise ValueError if the file has another content than when it was opened."""
        if hash_file(self.path) != self.digest:
            raise ValueError(f"{self.path} changed while it was read: call predict_file again")


def _sample_and_count(rows):
    """Return (the first rows, how many there are)."""
    sample = list(islice(rows, SAMPLE_ROWS))
    return sample, len(sample) + sum(1 for _ in rows)


def _find_texts(sample, source, text_column, header, trained_column):
    """Return (the position of the texts, whether the first row is a header); ValueError if that cannot be told."""
    names = [name.strip() for name in sample[0]]
    if isinstance(text_column, Integral) and not isinstance(text_column, bool) and 0 <= text_column < len(names):
        has_header = _is_header(sample, text_column) if header is None else header
        if header is None and not has_header:
            raise ValueError(
                f"{source}: cannot tell whether its first row, {_quote(names)}, is a header or a row like the others. "
                "Set header=True if it names the columns, header=False if it has a text to classify"
            )
        return int(text_column), has_header
    if header is False:
        raise ValueError(
            f"text_column is {text_column!r}, but must be a number from 0 to {len(names) - 1} with header=False"
        )
    wanted = text_column.strip() if isinstance(text_column, str) else text_column
    if wanted == "text" and wanted not in names and trained_column in names:
        wanted = trained_column
    if names.count(wanted) > 1:
        places = [i for i, name in enumerate(names) if name == wanted]
        raise ValueError(
            f"{source}: the name {wanted!r} is there twice: give its number, one of {places}, in text_column"
        )
    if wanted in names:
        return names.index(wanted), True
    if header or any(_is_header(sample, i) for i in range(len(names))):
        raise ValueError(
            f"{source} has no column {text_column!r}: set text_column to one of {_quote(names)}, or to its number, "
            "from 0"
        )
    raise ValueError(
        f"{source} has no column {text_column!r} in its first row, {_quote(names)}. If this row names the columns, set "
        "text_column to one of them; if it has a text to classify, set text_column to a number from 0, and header=False"
    )


def _say_column(name, source, text_column, has_header, trained_column):
    """Print which column the texts are read from, if it was not asked for by name or is not called as in training."""
    other = has_header and isinstance(trained_column, str) and trained_column.strip() != name
    if has_header and (other or name != text_column):
        trained = f"; in training they were in {trained_column!r}" if other else ""
        print(f"{source}: the texts are read from the column {name!r}{trained}")
