"""The rows of a delimited file in a given dialect: numbered by line, and each checked against the first."""

import csv
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textbert.data.compression import open_text
from textbert.data.dialects import DELIMITERS, Dialect, normalize_escaped_quotes

csv.field_size_limit(2**31 - 1)  # characters of a field; 131,072 by default

ESCAPE_QUOTES = 'Escape quotes inside a field by doubling them ("")'


class Row(NamedTuple):
    """A row of a file: the line in which it begins, from 1, its fields, and the lines that it was read from."""

    line: int
    fields: list[str]
    lines: list[str]

    def is_empty(self, width: int) -> bool:
        """Return True for an empty line; in a table of one column, spaces are a text."""
        return not self.fields or (width != 1 and len(self.fields) == 1 and not self.lines[0].strip())


@dataclass
class Tally:
    """How many rows and columns a file has, and which of its lines are not rows."""

    rows: int = 0
    columns: int = 0
    lines: int = 0
    line_breaks: int = 0  # within fields
    skipped_lines: int = 0  # before the first row
    empty_lines: array = field(default_factory=lambda: array("q"))  # for each, the number of rows before it

    def number_rows(self) -> np.ndarray:
        """Return each row's number in a spreadsheet, which counts empty lines, minus 1; int64 of shape (rows,)."""
        rows = np.arange(self.rows)
        if not self.empty_lines:
            return rows
        return rows + np.searchsorted(np.frombuffer(self.empty_lines, np.int64), rows, side="right")

    def describe(self, name: str | Path) -> str:
        """Return a sentence on how the lines of a file differ from its rows; "" if each line is a row."""
        counts = {
            "sep= line": self.skipped_lines,
            "empty lines": len(self.empty_lines),
            "line breaks in quoted fields": self.line_breaks,
        }
        reasons = [f"{reason}: {count:,}" for reason, count in counts.items() if count]
        if not reasons:
            return ""
        return f"{name}: {self.rows:,} rows of {self.columns} columns in {self.lines:,} lines ({'; '.join(reasons)})"


class LineTracker:
    """Keeps track of the lines that csv.reader reads, as it does not report which of them make up a row.

    first_line, last_line : numbers, from 1, of the first and the latest line of the row that is being read
    has_escaped_quote : whether a quote follows a backslash somewhere
    has_literal_quote : whether a field begins with a quote that is literal in this dialect, but not in another one
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.first_line, self.last_line = dialect.skip_lines + 1, dialect.skip_lines
        self.row_lines: list[str] = []
        self.has_escaped_quote = self.has_literal_quote = False
        delimiter = re.escape(dialect.delimiter)
        self._spaced_quote = re.compile(rf'(?:^|{delimiter}) +"(?!")')
        self._doubled_quote = re.compile(rf'(?<![\\{delimiter}])""(?![{delimiter}\r\n]|$)|(?<=[^{delimiter}])"""')

    def track(self, file: Iterator[str]) -> Iterator[str]:
        """Yield the lines of an open file, without its byte order mark, and keep those of the current row."""
        for number, line in enumerate(file, start=1):
            line = line if number > 1 else line.removeprefix("\ufeff")
            if number <= self.dialect.skip_lines:
                continue
            self.last_line = number
            if '"' in line:
                line = self._note_quotes(line)
            self.row_lines.append(line)
            yield line

    def _note_quotes(self, line: str) -> str:
        """Note the kinds of quotes in a line; return it with escaped quotes normalized if the dialect has them."""
        self.has_escaped_quote = self.has_escaped_quote or '\\"' in line
        self.has_literal_quote = self.has_literal_quote or self._begins_with_literal_quote(line)
        if self.dialect.escapechar is None:
            return line
        if self._doubled_quote.search(line):
            raise ValueError("quotes are escaped in two ways")
        return normalize_escaped_quotes(line)

    def _begins_with_literal_quote(self, line: str) -> bool:
        """Return True if a field in a line begins with a quote that does not enclose the field in this dialect."""
        if self.dialect.has_quotes:
            return ' "' in line and self._spaced_quote.search(line) is not None
        return line.startswith('"') or f'{self.dialect.delimiter}"' in line

    def end_row(self, fields: list[str]) -> Row:
        """Return the row that csv.reader has parsed from the lines since the previous row."""
        row = Row(self.first_line, fields, self.row_lines)
        self.first_line, self.row_lines = self.last_line + 1, []
        return row


class _RowChecker:
    """Checks each row of a file against the first one, and counts rows in a Tally."""

    def __init__(self, path: str | Path, dialect: Dialect, tally: Tally) -> None:
        self.path, self.dialect, self.tally = path, dialect, tally
        self._line_ending = ""  # of the first row
        self._first_line = self._first_empty_line = 0
        self._last_char = ""  # of the row before

    def check(self, row: Row) -> bool:
        """Return True for a row, False for an empty line. Raises ValueError if it does not fit the first row."""
        tally, (line, fields, lines) = self.tally, row
        tally.lines = line + len(lines) - 1
        if len(fields) < 2 and row.is_empty(tally.columns):
            self._check_empty_line(row)
            tally.empty_lines.append(tally.rows)
            return False
        if not tally.columns:
            tally.columns, self._first_line = len(fields), line
            self._line_ending = lines[-1][len(lines[-1].rstrip("\r\n")) :]
        if len(fields) != tally.columns:
            self._raise_width(row)
        if tally.columns == 1:
            self._check_single_column(row)
        tally.rows += 1
        tally.line_breaks += len(lines) - 1
        self._last_char = lines[-1][-1:]
        return True

    def _check_empty_line(self, row: Row) -> None:
        if self._last_char == "\r" != self._line_ending:
            raise ValueError(
                f"{self.path}: the field in line {row.line - 1} contains an unquoted carriage return: quote it"
            )
        if self.tally.columns == 1 and not self._first_empty_line:
            self._first_empty_line = row.line

    def _check_single_column(self, row: Row) -> None:
        """Raise ValueError if a line break may be part of a text: without a delimiter the width does not show it."""
        if self._first_empty_line:
            raise ValueError(
                f'{self.path}, line {self._first_empty_line} is empty: write "" if it is an empty text, or delete it'
            )
        expected, actual = self._line_ending or "\n", row.lines[-1]
        has_other_ending = actual.endswith(("\r", "\n")) and not actual.endswith(expected)
        if has_other_ending or (self._line_ending == "\n" and actual.endswith("\r\n")):
            raise ValueError(
                f"{self.path}, line {row.line} has a different line ending from line {self._first_line}. Does a field "
                "contain an unquoted line break? Quote such fields"
            )

    def _raise_width(self, row: Row) -> None:
        width, message = self.tally.columns, f"{self.path}: the row in line {row.line} has {len(row.fields)} columns, "
        message += f"but the first has {width}"
        if len(row.fields) < width:
            hint = "is the row truncated, or does the previous row contain an unquoted line break"
            quote = " Quote such fields" if self.dialect.has_quotes else ""
            raise ValueError(f"{message} ({hint} at line {row.line - 1}?{quote})")
        name = DELIMITERS.get(self.dialect.delimiter, repr(self.dialect.delimiter))
        raise ValueError(message + (f" (quote fields that contain a {name})" if self.dialect.has_quotes else ""))


def _find_unbalanced_quote(path: str | Path, dialect: Dialect, first_line: int, last_line: int | None) -> int:
    """Return the line of the last quote that opens a field in the lines of a row."""
    opening_line, is_open = first_line, False
    with open_text(path, dialect.encoding) as file:
        for number, line in enumerate(islice(file, first_line - 1, last_line), start=first_line):
            for match in re.finditer('"', line):
                before = line[: match.start()].rstrip(" ") if dialect.skipinitialspace else line[: match.start()]
                if not is_open and (before in ("", "\ufeff") or before.endswith(dialect.delimiter)):
                    opening_line, is_open = number, True
                elif is_open:
                    is_open = line[match.end() : match.end() + 1] not in (dialect.delimiter, "\r", "\n", "")
    return opening_line


def _iterate_rows(path: str | Path, dialect: Dialect, tracker: LineTracker) -> Iterator[Row]:
    """Yield each row of a file, also empty ones. Raises ValueError for a quote that is not closed properly."""
    with open_text(path, dialect.encoding) as file:
        try:
            for fields in dialect.reader(tracker.track(file)):
                yield tracker.end_row(fields)
        except csv.Error as error:
            if "unexpected end" in str(error):
                last_line, problem = None, "unbalanced quote: the field opened here is never closed"
            else:
                last_line = tracker.last_line
                problem = f"unbalanced quote: the field opened here is closed in line {last_line} without a delimiter"
            line = _find_unbalanced_quote(path, dialect, tracker.first_line, last_line)
            raise ValueError(f"{path}, line {line}: {problem}. {ESCAPE_QUOTES} and quote the whole field") from None


def read_checked_rows(path: str | Path, dialect: Dialect, tracker: LineTracker, tally: Tally) -> Iterator[Row]:
    """Return an iterator over the rows of a file that are not empty lines, each of them checked."""
    tally.skipped_lines = dialect.skip_lines
    return filter(_RowChecker(path, dialect, tally).check, _iterate_rows(path, dialect, tracker))
