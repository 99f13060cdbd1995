"""Times of rows: dates read from strings, and which rows are the latest."""

import re
import warnings
from collections import Counter
from typing import NoReturn

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from textbert.data.headers import SAMPLE_ROWS
from textbert.data.labels import is_missing

HAS_YEAR = r"(?<!\d)(?:1[6-9]|2[0-2])\d\d(?!\d)|^\d{8}(?!\d)"  # 2025-03-28, 28 March 2025, 20250328T1405

IS_DOTTED = r"^\d{1,2}\.\s?\d{1,2}\.\s?\d"  # 28.3.2025 and 28.3.25: the day comes first

SHORT_FORMATS = ("%d.%m.%y", "%d.%m.%y %H:%M", "%d.%m.%y %H:%M:%S")  # which pandas does not recognize

MAX_FORMATS = 20  # that are tried

EXPECTED = "write all dates alike, best as 2025-03-28 14:05 (ISO 8601), or set TIME_COLUMN = None"


def _guess_formats(values: pd.Series) -> list[str]:
    """Return the formats that dates may have, ISO 8601 first, then those of most of the first values."""
    is_dotted, starts_with_year = values.str.match(IS_DOTTED).any(), values.str.match(r"\d{4}\D").any()
    orders = (True,) if is_dotted else (False,) if starts_with_year else (False, True)  # whether the day comes first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 28/4/2025 can be read in one order only
        guesses = [guess_datetime_format(value, dayfirst=order) for value in values[:SAMPLE_ROWS] for order in orders]
    counts = Counter(filter(None, guesses))
    return ["ISO8601", *(name for name, _ in counts.most_common(MAX_FORMATS)), *(SHORT_FORMATS if is_dotted else ())]


def _parse(values: pd.Series, date_format: str) -> pd.Series:
    """Return the times that strings stand for, NaT where they do not have a format."""
    return pd.to_datetime(values, format=date_format, errors="coerce", utc=True).dt.tz_localize(None)


def _quote(values: pd.Series, position: int, source: str, column: int | str) -> str:
    """Return the beginning of a message about a value."""
    return f"{source}, row {values.index[position] + 1}: TIME_COLUMN {column!r} has {values.iat[position][:40]!r}"


def _check_dates(values: pd.Series, source: str, column: int | str) -> None:
    """Raise ValueError if some strings are missing values, or have no year."""
    is_absent = is_missing(values)
    has_year = values.str.contains(HAS_YEAR) | values.str.match(IS_DOTTED)
    for is_faulty, expected, remedy in (
        (is_absent, "a date", "complete or leave out such rows"),
        (~has_year, "a date with a year", EXPECTED),
    ):
        if is_faulty.any():
            fault = _quote(values, int(np.argmax(is_faulty)), source, column)
            count = f"{is_faulty.sum():,} of {len(values):,} rows are at fault"
            raise ValueError(f"{fault}, but expected {expected} ({count}): {remedy}")


def _raise_misfit(values: pd.Series, is_misfit: pd.Series, source: str, column: int | str) -> NoReturn:
    """Raise ValueError for the first of some strings that do not have the format of the others.

    is_misfit : boolean Series, of the same length
    """
    position = int(np.argmax(is_misfit))
    fault, dates = _quote(values, position, source, column), values[~is_misfit]
    if dates.empty:
        raise ValueError(f"{fault}, which is no day, or in no known format: {EXPECTED}")
    shapes = dates.str.replace(r"\d+", "0", regex=True)
    is_alike = (shapes == re.sub(r"\d+", "0", values.iat[position])).to_numpy()
    if is_alike.any():
        example = dates[is_alike].iat[0]
        raise ValueError(
            f"{fault}, but there is no such day or time, read as {example!r} is: correct it, or {EXPECTED}"
        )
    raise ValueError(f"{fault}, but {len(dates):,} of {len(values):,} rows are like {dates.iat[0]!r}: {EXPECTED}")


def parse_times(values: pd.Series, source: str, column: int | str) -> pd.Series:
    """Return the times that strings stand for, as a Series of datetime64 in UTC, which is assumed where none is given.

    ISO 8601 is read in all its variants, and any other format that pandas recognizes, if all values have it. With dots
    the day comes first, as in 3.4.2025; otherwise some value has to tell, as 28/4/2025 does.

    values : Series of strings, whose index is the row number in a spreadsheet minus 1
    source, column : names of table and column, for messages

    Raises ValueError, with the value and its row, if one is missing or is not a date with a year, or if days and months
    could be confused.
    """

    values = values.str.strip()
    _check_dates(values, source, column)
    readings = {name: _parse(values, name) for name in _guess_formats(values)}
    best = max(readings, key=lambda name: readings[name].notna().sum())
    if (is_misfit := readings[best].isna()).any():
        _raise_misfit(values, is_misfit, source, column)
    for times in readings.values():
        if best != "ISO8601" and times.notna().all() and (differs := times != readings[best]).any():
            position = int(np.argmax(differs))
            dates = " or ".join(f"{each.iat[position]:%d %B %Y}" for each in (readings[best], times))
            fault = _quote(values, position, source, column)
            raise ValueError(f"{fault}, which may be {dates}, and no row tells which: {EXPECTED}")
    return readings[best]


def find_latest(times: pd.Series, share: float) -> np.ndarray:
    """Return which of n rows are the latest, about the fraction `share` of them, as an array of n booleans.

    Rows of the same time are on the same side. Raises ValueError if all have the same time.
    """
    starts, counts = np.unique(times.to_numpy(), return_counts=True)
    if len(starts) < 2:
        raise ValueError(f"all {len(times):,} rows have the same time, so none are the latest: set TIME_COLUMN = None")
    rows_from = counts[::-1].cumsum()[::-1][1:]  # on from each time but the first
    boundary = starts[1:][np.abs(rows_from - share * len(times)).argmin()]
    return (times >= boundary).to_numpy()


def describe_times(times: pd.Series, split: pd.Series) -> list[str]:
    """Return sentences on when train and dev begin and end, and whether they overlap.

    split : Series of "train" or "dev"
    """
    sentences = [
        f"{name}: from {part.min():%Y-%m-%d %H:%M} to {part.max():%Y-%m-%d %H:%M}"
        for name, part in times.groupby(split, sort=False)
    ]
    later = (times[split == "train"] >= times[split == "dev"].min()).sum()
    if later:
        sentences.append(f"{later:,} rows of train are not earlier than the first of dev")
    return sentences
