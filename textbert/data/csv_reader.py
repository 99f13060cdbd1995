"""Read CSV and TSV, quoted or not, compressed or not, as rows of fields: strictly, in the dialect that fits."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textbert.data.compression import OPEN_FUNCTIONS, split_extension
from textbert.data.csv_rows import ESCAPE_QUOTES, LineTracker, Tally, read_checked_rows
from textbert.data.dialects import Dialect, detect_dialect
from textbert.data.quoting import QuotingProfile, SwallowedRowDetector, may_have_swallowed_rows
from textbert.utils.files import check_encoding


def _read_fields(path: str | Path, dialect: Dialect, tracker: LineTracker, tally: Tally) -> Iterator[list[str]]:
    """Yield the fields of each row, then look for swallowed rows, if there may be any."""
    is_suspicious = False
    for row in read_checked_rows(path, dialect, tracker, tally):
        if len(row.lines) > 1 and not is_suspicious:
            is_suspicious = may_have_swallowed_rows(row.fields, dialect.delimiter)
        yield row.fields
    if is_suspicious:
        _check_swallowed_rows(path, dialect)


def read_rows(path: str | Path, dialect: Dialect) -> Iterator[list[str]]:
    """Yield the rows of a file as lists of fields, the header first; empty lines are skipped.

    Raises ValueError, naming the line where the trouble begins, for a row that has more or fewer columns than the
    first, for a quote that is never closed or swallows rows, and for bytes of another encoding.
    """
    return _read_fields(path, dialect, LineTracker(dialect), Tally())


def _profile(path: str | Path, dialect: Dialect) -> QuotingProfile:
    """Return the profile of all rows of a file. Raises ValueError as `read_rows` does, except for swallowed rows."""
    profile = QuotingProfile(dialect.delimiter, dialect.skipinitialspace)
    for row in read_checked_rows(path, dialect, LineTracker(dialect), Tally()):
        profile.add(row.fields, "".join(row.lines))
    return profile


def _check_swallowed_rows(path: str | Path, dialect: Dialect) -> None:
    """Raise ValueError for the first row in which a quoted field seems to have swallowed others."""
    detector = SwallowedRowDetector(_profile(path, dialect))
    for row in read_checked_rows(path, dialect, LineTracker(dialect), Tally()):
        if len(row.lines) > 1 and detector.has_swallowed_rows(row.fields):
            raise ValueError(
                f"{path}, line {row.line}: the quoted field seems to have swallowed the following rows. "
                f"{ESCAPE_QUOTES}, or quote every field of the table"
            )


@dataclass
class _Reading:
    """The result of reading a file in one dialect."""

    dialect: Dialect
    tracker: LineTracker
    tally: Tally
    result: Any = None
    error: ValueError | None = None


def _read(path: str | Path, dialect: Dialect, consume: Callable[[Iterator[list[str]]], Any]) -> _Reading:
    """Return a _Reading with what `consume` returns for a file's rows, or with its ValueError. Raises UnicodeError."""
    reading = _Reading(dialect, LineTracker(dialect), Tally())
    try:
        reading.result = consume(_read_fields(path, dialect, reading.tracker, reading.tally))
    except UnicodeError:
        raise
    except ValueError as error:
        reading.error = error
    return reading


def _candidate_dialects(reading: _Reading) -> list[Dialect]:
    """Return the other dialects in which a file may be written, judging by the quotes in it."""
    dialect, tracker = reading.dialect, reading.tracker
    if dialect.has_quotes:
        variant = replace(dialect, skipinitialspace=True)
    else:
        variant = replace(dialect, quoting=csv.QUOTE_MINIMAL)
    variants = [variant] if tracker.has_literal_quote else []
    if not tracker.has_escaped_quote or (dialect.has_quotes and not reading.error):
        return variants
    bases = [dialect, *variants] if dialect.has_quotes else variants
    return variants + [replace(base, escapechar="\\") for base in bases]


def _is_better_dialect(path: str | Path, candidate: Dialect, reading: _Reading) -> bool:
    """Return True if a file is proven to be written in a candidate dialect, and not in that of a reading.

    Where the reading failed, a dialect that explains all quotes is better. Where it did not, the quotes must belong to
    the format, and lines that are rows by themselves are never joined, unless their column is always quoted. Raises
    ValueError if the number of columns depends on the dialect and there is no proof.
    """
    try:
        alternative = _profile(path, candidate)
    except ValueError:  # the file is not written that way
        return False
    if alternative.has_stray_quote or reading.error:
        return not alternative.has_stray_quote
    current = _profile(path, reading.dialect)
    joins_rows = alternative.rows < current.rows
    if joins_rows:
        is_proven = bool(alternative.always_quoted)
    elif candidate.skipinitialspace:
        is_proven = current.has_stray_quote
    else:
        is_proven = alternative.has_format_quotes
    if len(alternative.columns) != len(current.columns) and (joins_rows or not is_proven):
        raise ValueError(
            f"{path}: ambiguous quotes: {current.rows} rows of {len(current.columns)} columns, or {alternative.rows} "
            f"of {len(alternative.columns)} if quotes enclose fields. Save it as CSV with all fields quoted"
        )
    return is_proven


def _read_in_best_dialect(path: str | Path, dialect: Dialect, consume: Callable[..., Any]) -> _Reading:
    """Return the reading in the detected dialect, or in the first candidate that is proven to be better."""
    reading = _read(path, dialect, consume)
    for candidate in _candidate_dialects(reading):
        if _is_better_dialect(path, candidate, reading):
            alternative = _read(path, candidate, consume)
            if not alternative.error:
                return alternative
    return reading


def read_delimited(
    path: str | Path,
    extension: str,
    encoding: str = "utf-8",
    consume: Callable[[Iterator[list[str]]], Any] = list,
    setting: str = "ENCODING",
    tally: Tally | None = None,
) -> tuple[Any, Dialect]:
    """Read a file of delimited text in the dialect that it is written in, which is printed where it is unusual.

    extension : ".csv" or ".tsv"
    consume : a function of an iterator over rows, which are lists of fields; may be called more than once
    setting : the parameter that sets the encoding, for messages
    tally : an empty Tally to fill in

    Returns (what `consume` returned, the dialect). Raises ValueError; see `read_rows`.
    """
    try:
        reading = _read_in_best_dialect(path, detect_dialect(path, extension, encoding), consume)
    except UnicodeError as error:
        check_encoding(path, encoding, OPEN_FUNCTIONS[split_extension(path)[1]], setting)
        raise ValueError(f"{path}: {error}") from None
    if reading.error:
        raise reading.error
    if tally is not None:
        vars(tally).update(vars(reading.tally))
    if unusual := reading.dialect.describe(extension):
        print(f"{path}: {unusual}")
    return reading.result, reading.dialect
