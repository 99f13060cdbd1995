"""The table that `Classifier.predict_file` reads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from statistics import fmean

import numpy as np

from textbert.data.columns import Column, TextColumns, list_columns
from textbert.data.compression import check_integrity, check_is_text, split_extension
from textbert.data.csv_reader import read_delimited, read_rows
from textbert.data.csv_rows import Tally
from textbert.data.dialects import Dialect
from textbert.data.headers import LABEL_COLUMNS, TEXT_COLUMNS
from textbert.data.labels import NA_VALUES
from textbert.utils.files import hash_file

DELIMITER_OF_SUFFIX = {".csv": ",", ".tsv": "\t", ".txt": ",", "": ","}  # of a target, by its extension
SAMPLE_ROWS = 1000  # read to detect a header
COLUMN_NAME = r"(?=[^\W\d])[\w /()#:-]{1,40}"  # a few words, without the punctuation of a sentence


def is_header(sample: list[list[str]], column: int) -> bool:
    """Return True if the first row of a sample is certainly a header, judging by the rows below it.

    `column` is the position of the texts. A header is 0, 1, 2, ..., as pandas writes it, or has a common name above the
    texts. Or it has a name above the texts that is short compared with them, and in another column a common name, or
    words above cells that all contain a digit. A row is not a header if one of its cells is repeated below it, or
    contains a digit as all cells below it do.
    """
    (*first,), *rows = [[cell.strip().casefold() for cell in row] for row in sample]
    numbered = first[1:] if first[0] == "" else first
    if len(numbered) > 1 and numbered == [str(i) for i in range(len(numbered))]:
        return True
    below = [[row[i] for row in rows if row[i]] for i in range(len(first))]
    numeric = {i for i, cells in enumerate(below) if all(re.search(r"\d", cell) for cell in cells)} - {column}
    if any(name in below[i] or (i in numeric and re.search(r"\d", name)) for i, name in enumerate(first)):
        return False
    if first[column] in TEXT_COLUMNS:
        return True
    names = {i for i, name in enumerate(first) if re.fullmatch(COLUMN_NAME, name) and name not in NA_VALUES}
    if column not in names or 2 * len(first[column]) > fmean([len(row[column]) for row in rows] or [0]):
        return False
    usual = {i for i in names if i != column and first[i] in ("id", *LABEL_COLUMNS)}
    return bool(usual) or any(len(below[i]) > 2 for i in names & numeric)


def _format_cells(cells: list[str]) -> str:
    """Format the first cells of a row for a message."""
    return ", ".join(repr(cell[:50]) for cell in cells[:20])


@dataclass(frozen=True)
class SourceTable:
    """A CSV or TSV file whose texts are to be classified."""

    path: Path
    dialect: Dialect
    header: list[str]  # names of the columns; their numbers if the file has none
    columns: list[int]  # positions of the texts, which are joined if there are several
    has_header: bool
    count: int  # rows, without the header
    digest: str  # SHA-256 of the file

    @classmethod
    def open(
        cls,
        path: Path,
        encoding: str,
        text_column: TextColumns,
        header: bool | None = None,
        trained_column: TextColumns | None = None,
    ) -> "SourceTable":
        """Check a file from its first row to its last and return its table.

        `trained_column` has the text columns used in training; see `Classifier.predict_file` for the other parameters.
        Prints which columns the texts are read from, unless they are the requested ones.
        """
        extension, compression = split_extension(path)
        if extension in (".xlsx", ".xls", ".parquet", ".jsonl", ".json"):
            raise ValueError(f"predict_file reads CSV and TSV, and {path} is neither: save the table as CSV (UTF-8)")
        if not isinstance(header, bool | np.bool_ | None):  # 0, for pandas the number of a row, would mean False
            raise ValueError(f"header is {header!r}, but must be True, False, or None to detect it")
        if compression:
            check_integrity(path)
        check_is_text(path, encoding, "encoding")
        digest, tally = hash_file(path), Tally()
        (sample, count), dialect = read_delimited(path, extension, encoding, _sample_and_count, "encoding", tally)
        if not sample:
            raise ValueError(f"{path} is empty: it needs a header, and a row for each text")
        if difference := tally.describe(path):
            print(difference)
        unusual = dialect.describe(extension)
        source = f"{path} ({unusual})" if unusual else str(path)
        columns, has_header = _find_text_columns(sample, source, text_column, header, trained_column)
        names = sample[0] if has_header else [str(i) for i in range(len(sample[0]))]
        if has_header:
            _print_text_columns([names[column].strip() for column in columns], path, text_column, trained_column)
        return cls(path, dialect, names, columns, has_header, count - has_header, digest)

    def read_rows(self) -> Iterator[list[str]]:
        """Yield the rows below the header as lists of fields."""
        return islice(read_rows(self.path, self.dialect), int(self.has_header), None)

    def check_unchanged(self) -> None:
        """Raise ValueError if the content of the file has changed since it was opened."""
        if hash_file(self.path) != self.digest:
            raise ValueError(f"{self.path} changed while it was read: call predict_file again")


def _sample_and_count(rows: Iterator[list[str]]) -> tuple[list[list[str]], int]:
    """Return the first rows, and how many there are in all."""
    sample = list(islice(rows, SAMPLE_ROWS))
    return sample, len(sample) + sum(1 for _ in rows)


def _find_text_columns(
    sample: list[list[str]],
    source: str,
    text_column: TextColumns,
    header: bool | None,
    trained_column: TextColumns | None,
) -> tuple[list[int], bool]:
    """Return the positions of the texts, and whether the first row is a header; raise ValueError if that is unclear."""
    names, trained = [name.strip() for name in sample[0]], list_columns(trained_column)
    columns = [column.strip() if isinstance(column, str) else column for column in list_columns(text_column)]
    if columns == ["text"] and "text" not in names and trained and all(column in names for column in trained):
        columns = trained
    positions = [_find_text_column(sample, source, column, header) for column in columns]
    if not positions or len(set(positions)) < len(positions):
        raise ValueError(f"text_column is {text_column!r}, but must be a column, or a list of different columns")
    if any(isinstance(column, str) for column in columns):  # a name is only found in a header
        return positions, True
    return positions, _check_header(sample, source, positions, header)


def _find_text_column(sample: list[list[str]], source: str, text_column: Column, header: bool | None) -> int:
    """Return the position of a column; raise ValueError if it is not there, or not unique."""
    names = [name.strip() for name in sample[0]]
    if isinstance(text_column, Integral) and not isinstance(text_column, bool) and 0 <= text_column < len(names):
        return int(text_column)
    if header is False:
        raise ValueError(
            f"text_column is {text_column!r}, but must be a number from 0 to {len(names) - 1} with header=False"
        )
    positions = [i for i, column in enumerate(names) if column == text_column]
    if len(positions) > 1:
        raise ValueError(
            f"{source} has more than one column {text_column!r}: set text_column to the number of one of them, "
            f"{positions}"
        )
    if positions:
        return positions[0]
    if header or any(is_header(sample, i) for i in range(len(names))):
        raise ValueError(
            f"{source} has no column {text_column!r}: set text_column to one of {_format_cells(names)}, or to its "
            "number, from 0"
        )
    raise ValueError(
        f"{source} has no column {text_column!r} in its first row, {_format_cells(names)}. If this row names the "
        "columns, set text_column to one of them; if it has a text to classify, set text_column to a number from 0, "
        "and header=False"
    )


def _check_header(sample: list[list[str]], source: str, columns: list[int], header: bool | None) -> bool:
    """Return whether the first row is a header; raise ValueError if `header` is None and it may also be a text."""
    if header is not None:
        return bool(header)
    if any(is_header(sample, column) for column in columns):
        return True
    first_row = [cell.strip() for cell in sample[0]]
    raise ValueError(
        f"{source}: cannot tell whether its first row, {_format_cells(first_row)}, is a header or a row like the "
        "others. Set header=True if it names the columns, header=False if it has a text to classify"
    )


def _print_text_columns(
    names: list[str], path: Path, text_column: TextColumns, trained_column: TextColumns | None
) -> None:
    """Print which columns the texts are read from, unless they were requested by name and were those in training."""
    trained = [column.strip() for column in list_columns(trained_column) if isinstance(column, str)]
    has_other_names = trained not in ([], names)
    if has_other_names or names != list_columns(text_column):
        columns = "the column" if len(names) == 1 else "the columns"
        in_training = f"; in training they were in {_format_cells(trained)}" if has_other_names else ""
        print(f"{path}: the texts are read from {columns} {_format_cells(names)}{in_training}")
