"""Dialects of delimited text, detected from the beginning of a file."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from textbert.data.compression import normalize_encoding, open_text
from textbert.data.quoting import ColumnSummary

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}

SNIFF_CHARS = 2**18  # characters at the beginning of a file from which its dialect is detected

MIN_ROWS = 3  # needed to conclude that the delimiter is not the default one


@dataclass(frozen=True)
class Dialect:
    """How a file of delimited text is written; the names are those of the module `csv` where it has one."""

    delimiter: str
    encoding: str = "utf-8"
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL  # or csv.QUOTE_NONE: quotes are characters like any other
    skipinitialspace: bool = False  # there may be spaces before the quote that opens a field
    escapechar: str | None = None  # "\\" if quotes in a quoted field follow a backslash and are not doubled
    skip_lines: int = 0  # lines before the first row, such as "sep=;"

    @property
    def has_quotes(self) -> bool:
        """Whether quotes enclose fields."""
        return self.quoting != csv.QUOTE_NONE

    def describe(self, extension: str) -> str:
        """Return what is unusual about the dialect for an extension, ".csv" or ".tsv"; "" if nothing is."""
        is_usual = self.delimiter == default_delimiter(extension)
        features = {
            f"delimiter: {name_delimiter(self.delimiter)}": not is_usual,
            'a first line "sep="': self.skip_lines > 0,
            "quoted fields": self.has_quotes and extension == ".tsv" and is_usual,
            "spaces before quotes": self.skipinitialspace,
            "quotes escaped by backslashes": self.escapechar is not None,
        }
        unusual = [feature for feature, is_present in features.items() if is_present]
        return f"detected {', '.join(unusual)}" if unusual else ""

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Return a csv.reader of lines in which escaped quotes have been normalized."""
        return csv.reader(
            lines, delimiter=self.delimiter, quoting=self.quoting, skipinitialspace=self.skipinitialspace, strict=True
        )


def default_delimiter(extension: str) -> str:
    """Return the delimiter that the extension of a file implies: a tab for ".tsv", else a comma."""
    return "\t" if extension == ".tsv" else ","


def name_delimiter(delimiter: str) -> str:
    """Return a delimiter as a message shows it, such as "pipe (|)"."""
    name = DELIMITERS.get(delimiter)
    return f"{name} ({repr(delimiter)[1:-1]})" if name else repr(delimiter)


def normalize_escaped_quotes(text: str) -> str:
    r"""Return text with doubled quotes instead of quotes after a backslash: \" becomes "", and \\" becomes \"."""

    def normalize(match: re.Match[str]) -> str:
        backslashes = len(match[1])
        return "\\" * (backslashes // 2) + ('""' if backslashes % 2 else '"')

    return re.sub(r'(\\+)"', normalize, text)


def _split_sample(sample: str, dialect: Dialect, is_truncated: bool) -> list[list[str]]:
    """Return the rows of a sample that are not empty, followed by [] if it cannot be read to its end.

    A field that a truncated sample leaves open is not an error. Quotes after backslashes are taken as escaped where
    the rows do not fit otherwise.
    """
    for text in (sample, normalize_escaped_quotes(sample)):
        rows, error = [], ""
        try:
            for fields in dialect.reader(io.StringIO(text, newline="")):
                if any(field.strip() for field in fields):
                    rows.append(fields)
        except csv.Error as csv_error:
            error = str(csv_error)
        if '\\"' not in sample or (not error and len(set(map(len, rows))) <= 1):
            break
    is_readable = not error or (is_truncated and rows and "unexpected end" in error)
    return rows if is_readable else [*rows, []]


def _has_equal_widths(rows: list[list[str]]) -> bool:
    """Return True if all rows have the same number of columns, two or more."""
    return len(set(map(len, rows))) == 1 and len(rows[0]) > 1


def _is_prose(rows: list[list[str]]) -> bool:
    """Return True if a space follows each delimiter, as it does in a sentence."""
    return all(field[:1] == " " for row in rows for field in row[1:])


def _has_initial_spaces(rows: list[list[str]]) -> bool:
    return any(field[:1] == " " for row in rows for field in row[1:])


def _has_typed_column(rows: list[list[str]]) -> bool:
    """Return True if a column holds labels, numbers, dates or ids."""
    columns = [ColumnSummary() for _ in rows[0]]
    for row in rows:
        for column, cell in zip(columns, row):
            column.add(cell)
    return any(column.is_typed for column in columns)


def _find_plausible_delimiters(rows_by_delimiter: dict[str, list[list[str]]], default: str) -> list[str]:
    """Return the delimiters that split a sample into the columns of a table; the default one needs the least proof."""
    default_rows = rows_by_delimiter[default]
    is_small = len(default_rows) < MIN_ROWS
    consistent = [delimiter for delimiter, rows in rows_by_delimiter.items() if _has_equal_widths(rows)]
    prose = [delimiter for delimiter in consistent if _is_prose(rows_by_delimiter[delimiter])]
    if default in prose:  # such as "1;good soup, bad tea"
        plausible = [d for d in consistent if d != default and not _has_initial_spaces(rows_by_delimiter[d])]
    elif default in consistent:
        plausible = [d for d in consistent if d not in prose]
    elif len(default_rows[0]) > 1:  # the default, it seems, and one row is wrong
        plausible = [] if is_small else [d for d in consistent if d not in prose]
    else:
        plausible = consistent
    if len(plausible) > 1 and default in plausible and not is_small:
        plausible = [d for d in plausible if _has_typed_column(rows_by_delimiter[d])]
    return plausible


def detect_delimiter(sample: str, default: str, is_truncated: bool = False) -> str:
    """Return the delimiter of a sample of a file: `default` unless another one fits better.

    is_truncated : whether the file goes on after the sample

    Raises ValueError if several fit.
    """
    rows = {}
    for delimiter in DELIMITERS:
        is_plain = delimiter == default == "\t"  # quotes in a TSV file are detected by reading all of it
        dialect = Dialect(delimiter, quoting=csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL)
        rows[delimiter] = _split_sample(sample, dialect, is_truncated)
    plausible = _find_plausible_delimiters(rows, default) if rows[default] else []  # nothing but delimiters
    if len(plausible) > 1:
        names = " or ".join(f"a {DELIMITERS[delimiter]}" for delimiter in plausible)
        raise ValueError(f'cannot tell whether the delimiter is {names}. Add a first line such as "sep={plausible[0]}"')
    return plausible[0] if plausible else default


def detect_dialect(path: str | Path, extension: str, encoding: str = "utf-8") -> Dialect:
    """Return the dialect of a file, detected from its beginning.

    extension : ".tsv", or ".csv" and the like; it decides the delimiter in case of doubt

    Raises ValueError if several delimiters are possible.
    """
    codec, default = normalize_encoding(encoding), default_delimiter(extension)
    with open_text(path, codec) as file:
        sample = file.read(SNIFF_CHARS)
    is_truncated = len(sample) == SNIFF_CHARS
    sample = sample.removeprefix("\ufeff")
    if declaration := re.match(r'(?i)"?sep=(.)"?(\r\n|\r|\n)', sample):  # as Excel reads it
        return Dialect(declaration[1], codec, skip_lines=1)
    if is_truncated:
        sample = sample[: 1 + max(sample.rfind("\n"), sample.rfind("\r"))] or sample
    try:
        delimiter = detect_delimiter(sample, default, is_truncated) if sample.strip() else default
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    is_plain = delimiter == "\t" and extension == ".tsv"
    return Dialect(delimiter, codec, quoting=csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL)
