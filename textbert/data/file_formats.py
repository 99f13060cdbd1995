"""Tables whose values have types, JSON Lines, Parquet and .xlsx: looked at before they are read, and turned to text."""

import importlib
import json
import re
import zipfile
from collections import Counter

import numpy as np
import pandas as pd

from textbert.data.compression import OPEN_FUNCTIONS, split_extension
from textbert.utils.errors import translate_read_errors

MAX_CELLS = 2**25  # that a sheet or a Parquet file may have, empty ones counted


def to_string(value):
    """Return a value of a typed table as text: no value as "", 1.0 as "1", half a surrogate pair as U+FFFD."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value  # so do some write Parquet
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def find_nested(frame):
    """Return which columns hold lists or objects, as a dict from their names to (index of the first, what it is)."""
    found = {}
    for name in frame.select_dtypes(object):
        nested = frame[name].map(lambda value: isinstance(value, dict | list | tuple | set | np.ndarray))
        if nested.any():
            first = nested.idxmax()
            found[name] = (first, "an object" if isinstance(frame[name][first], dict) else "a list")
    return found


def _make_object(pairs):
    """Return the names and values of a JSON object as a dict; ValueError for a name that is there twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r} is there twice")
    return made


def read_json_lines(path, encoding):
    """Return the objects of a JSON Lines file as a DataFrame whose index is the line, from 0.

    ValueError for a line that is none.
    """
    rows, numbers = [], []
    with OPEN_FUNCTIONS[split_extension(path)[1]](path, "rt", encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            line = line if number > 1 else line.removeprefix("\ufeff")
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line, object_pairs_hook=_make_object))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"line {number} is no JSON ({error.msg}, column {error.colno}): each line must be an object of its "
                    "own, {name: value, ...}"
                ) from None
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            except RecursionError:
                raise ValueError(f"line {number} is no JSON (too deep)") from None
            if not isinstance(rows[-1], dict):
                raise ValueError(f"line {number} is not of the form {{name: value, ...}}")
            numbers.append(number - 1)
    counts = Counter(name for row in rows for name in row)
    if lacking := [f"{name!r} in {len(rows) - count:,}" for name, count in counts.items() if count < len(rows)]:
        print(f"{path}: some of its {len(rows):,} lines lack a name, and it is empty there: {', '.join(lacking[:5])}")
    return pd.DataFrame(rows, index=numbers, columns=list(counts), dtype=object)


def _require_room(path, cells, size):
    """Raise ValueError for a table of more cells or bytes than its file can hold."""
    if cells > MAX_CELLS + 100 * path.stat().st_size or size > 100 * path.stat().st_size + 2**24:
        raise ValueError(f"it unpacks to more than 100 times its size ({cells:,} cells of {size:,} bytes)")


def _read_parquet(path):
    """Return a Parquet file as a DataFrame; ImportError without pyarrow. Its size is looked at before it is read.

    Integers beside missing values stay integers, and an index that has a name is a column.
    """
    parquet = pd.io.parquet.get_engine("auto").api.parquet
    with parquet.ParquetFile(path) as file:
        about = file.metadata
        sizes = [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]
        _require_room(path, about.num_rows * about.num_columns, sum(sizes))
    frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
    named = [name for name in frame.index.names if name is not None and name not in frame]
    return (frame.reset_index(named) if named else frame).reset_index(drop=True)


def _scan_sheets(path):
    """Return which of some marks of the format its sheets hold, as a set: formulas, hidden rows."""
    marks = {"formulas": rb"<f[ >/]", "hidden rows": rb'<row [^>]*hidden="(?:1|true)"'}
    found = set()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if re.match(r"/?xl/worksheets/[^/]+\.xml", name):
                with archive.open(name) as file:
                    before = b""
                    while part := file.read(2**20):
                        found |= {what for what, mark in marks.items() if re.search(mark, before + part)}
                        before = part[-1000:]
    return found


def _say_cells(path, what, cells):
    """Print how many cells are not read as they are shown, and where the first is."""
    if cells:
        print(f"{path}: {len(cells):,} cells {what} (first in {cells[0]}) and are read as empty")


def _as_shown(cell):
    """Return a cell's value, None for an error of Excel's; 7 is "00007" where the format is 00000, as for ids."""
    if cell.data_type == "e":
        return None
    zeros = type(cell.value) is int and cell.value >= 0 and re.fullmatch("00+", cell.number_format)
    return f"{cell.value:0{len(zeros[0])}}" if zeros else cell.value


def _read_cells(sheet, path):
    """Return the rows of a sheet as lists of values; cells with an Excel error, such as #N/A, are None, and printed."""
    rows, errors, cells = [], [], 0
    sheet.reset_dimensions()  # what the file says of them may be wrong
    for row in sheet.iter_rows():
        cells += 1 + len(row)
        _require_room(path, cells, 0)
        errors += [cell.coordinate for cell in row if cell.data_type == "e"]
        rows.append([_as_shown(cell) for cell in row])
    _say_cells(path, "hold an error of Excel's, such as #N/A", errors)
    return rows


def _say_formulas(path, name, rows, openpyxl):
    """Print which cells hold a formula whose result is not in the file."""
    book = openpyxl.load_workbook(path, read_only=True)
    sheet, empty = book[name], []
    sheet.reset_dimensions()
    for row, values in zip(sheet.iter_rows(), rows):
        empty += [cell.coordinate for cell, value in zip(row, values) if cell.data_type == "f" and value is None]
    book.close()
    _say_cells(path, "hold a formula without its result: open and save it in Excel", empty)


def _read_xlsx(path):
    """Return the first visible sheet of an .xlsx file as a DataFrame with numbered columns.

    The index is the row of the sheet, from 0; what is not read as Excel shows it is printed. ImportError without
    openpyxl.
    """
    openpyxl = importlib.import_module("openpyxl")
    unescape = importlib.import_module("openpyxl.utils.escape").unescape  # _x000D_, as Excel writes "\r"
    with zipfile.ZipFile(path) as archive:
        _require_room(path, 0, sum(member.file_size for member in archive.infolist()))
    found = _scan_sheets(path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
    rows = _read_cells(sheets[0], path)
    book.close()
    if "formulas" in found:
        _say_formulas(path, sheets[0].title, rows, openpyxl)
    if others := [name for name in book.sheetnames if name != sheets[0].title]:
        first = "first sheet" if sheets[0].title == book.sheetnames[0] else "first visible sheet"
        print(f"{path}: the {first}, {sheets[0].title!r}, is read, and {', '.join(others)} not")
    if "hidden rows" in found:
        print(f"{path}: it has rows that are hidden in Excel; hidden rows are read as well")
    width = max(map(len, rows), default=0)  # rows end where their last cell is
    rows = [[unescape(value) if isinstance(value, str) else value for value in row] for row in rows]
    frame = pd.DataFrame([[*row, *[None] * (width - len(row))] for row in rows], dtype=object)
    filled = frame.notna().any(axis=1)
    if empty := (~filled[: filled[::-1].idxmax()]).sum() if filled.any() else 0:
        print(f"{path}: empty rows left out: {empty:,}")
    return frame[filled]


def read_typed_table(path, kind):
    """Return a Parquet or .xlsx file as a DataFrame.

    Raises ValueError if it is damaged, ReadError if it cannot be read just now, and ImportError without pyarrow
    or openpyxl.
    """
    with translate_read_errors(path):
        try:
            return _read_parquet(path) if kind == ".parquet" else _read_xlsx(path)
        except ImportError as error:
            package = "pyarrow" if kind == ".parquet" else "openpyxl"
            raise ImportError(f"{path} needs it: install the {package} package, or save the table as CSV") from error
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path}: it is damaged, or not what its name says: {error}") from None
