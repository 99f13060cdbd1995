"""JSON Lines, Parquet and .xlsx, whose values have types: checked before they are read, then converted to strings."""

import importlib
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textbert.data.compression import OPEN_FUNCTIONS, split_extension
from textbert.utils.errors import translate_read_errors

MAX_CELLS = 2**25  # of a sheet or a Parquet file, empty ones included

CHUNK_BYTES, OVERLAP_BYTES = 2**20, 1000  # of a sheet's XML searched at once, and searched again with the next chunk


def to_string(value: Any) -> str:
    """Return a value of a typed table as a string.

    A missing value becomes "", 1.0 becomes "1", and a lone surrogate U+FFFD.
    """
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value  # from some programs
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def find_nested(frame: pd.DataFrame) -> dict:
    """Return the columns with lists or objects: a dict from name to (index of the first, "a list" or "an object")."""
    nested = {}
    for name in frame.select_dtypes(object):
        is_nested = frame[name].map(lambda value: isinstance(value, dict | list | tuple | set | np.ndarray))
        if is_nested.any():
            first = is_nested.idxmax()
            nested[name] = (first, "an object" if isinstance(frame[name][first], dict) else "a list")
    return nested


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the names and values of a JSON object as a dict. Raises ValueError for a name that is repeated."""
    values = dict(pairs)
    if len(values) < len(pairs):
        duplicate = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {duplicate!r} is repeated")
    return values


def _parse_json_line(line: str, number: int) -> dict[str, Any]:
    """Return the object in a line of JSON Lines. Raises ValueError, with the number of the line, if it is not one."""
    try:
        row = json.loads(line, object_pairs_hook=_to_dict)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {number} is not JSON ({error.msg}, column {error.colno}): expected one object per line, "
            "{name: value, ...}"
        ) from None
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    except RecursionError:
        raise ValueError(f"line {number} is not JSON (nested too deeply)") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not an object, {{name: value, ...}}")
    return row


def read_json_lines(path: str | Path, encoding: str) -> pd.DataFrame:
    """Return the objects of a JSON Lines file as a DataFrame whose index is the line, from 0; empty lines are skipped.

    Prints which names some lines lack. Raises ValueError for a line that is not an object.
    """
    rows, numbers = [], []
    with OPEN_FUNCTIONS[split_extension(path)[1]](path, "rt", encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            line = line if number > 1 else line.removeprefix("\ufeff")
            if line.strip():
                rows.append(_parse_json_line(line, number))
                numbers.append(number - 1)
    counts = Counter(name for row in rows for name in row)
    if missing_names := [f"{name!r} in {len(rows) - count:,}" for name, count in counts.items() if count < len(rows)]:
        print(f"{path}: some of its {len(rows):,} lines lack a name, read as empty: {', '.join(missing_names[:5])}")
    return pd.DataFrame(rows, index=numbers, columns=list(counts), dtype=object)


def _check_size(path: Path, cells: int, size: int) -> None:
    """Raise ValueError for a table with more cells, or more bytes when decompressed, than its file can hold."""
    if cells > MAX_CELLS + 100 * path.stat().st_size or size > 100 * path.stat().st_size + 2**24:
        raise ValueError(f"its decompressed size exceeds 100 times its size ({cells:,} cells of {size:,} bytes)")


def _read_parquet(path: Path) -> pd.DataFrame:
    """Return a Parquet file as a DataFrame; its size is checked first.

    Integers beside missing values stay integers, and a named index becomes a column. Raises ImportError without
    pyarrow.
    """
    parquet = pd.io.parquet.get_engine("auto").api.parquet
    with parquet.ParquetFile(path) as file:
        metadata = file.metadata
        sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
        _check_size(path, metadata.num_rows * metadata.num_columns, sum(sizes))
    frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
    index_names = [name for name in frame.index.names if name is not None and name not in frame]
    return (frame.reset_index(index_names) if index_names else frame).reset_index(drop=True)


def _find_sheet_features(path: Path) -> set[str]:
    """Return which of two features the sheets of an .xlsx file have, "formulas" and "hidden rows"."""
    patterns = {"formulas": rb"<f[ >/]", "hidden rows": rb'<row [^>]*hidden="(?:1|true)"'}
    features: set[str] = set()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if re.match(r"/?xl/worksheets/[^/]+\.xml", name):
                with archive.open(name) as file:
                    end = b""
                    while chunk := file.read(CHUNK_BYTES):
                        features |= {feature for feature, regex in patterns.items() if re.search(regex, end + chunk)}
                        end = chunk[-OVERLAP_BYTES:]
    return features


def _print_empty_cells(path: Path, reason: str, cells: list[str]) -> None:
    """Print how many cells are read as empty, and the coordinates of the first."""
    if cells:
        print(f"{path}: {len(cells):,} cells {reason} (first in {cells[0]}) and are read as empty")


def _displayed_value(cell: Any) -> Any:
    """Return a cell's value as Excel shows it: 7 is "00007" in the number format 00000, and an error is None."""
    if cell.data_type == "e":
        return None
    zeros = type(cell.value) is int and cell.value >= 0 and re.fullmatch("00+", cell.number_format)
    return f"{cell.value:0{len(zeros[0])}}" if zeros else cell.value


def _read_cells(sheet: Any, path: Path) -> list[list]:
    """Return the rows of a sheet as lists of values; cells with an error, such as #N/A, are None and are reported."""
    rows, errors, cells = [], [], 0
    sheet.reset_dimensions()  # those in the file may be wrong
    for row in sheet.iter_rows():
        cells += 1 + len(row)
        _check_size(path, cells, 0)
        errors += [cell.coordinate for cell in row if cell.data_type == "e"]
        rows.append([_displayed_value(cell) for cell in row])
    _print_empty_cells(path, "have an Excel error, such as #N/A", errors)
    return rows


def _print_missing_results(path: Path, sheet_name: str, rows: Iterable[list], openpyxl: Any) -> None:
    """Print how many cells have a formula whose result is not in the file."""
    book = openpyxl.load_workbook(path, read_only=True)
    sheet, empty = book[sheet_name], []
    sheet.reset_dimensions()
    for row, values in zip(sheet.iter_rows(), rows):
        empty += [cell.coordinate for cell, value in zip(row, values) if cell.data_type == "f" and value is None]
    book.close()
    _print_empty_cells(path, "have a formula without its result: open and save the file in Excel", empty)


def _read_first_sheet(path: Path) -> list[list]:
    """Return the rows of the first visible sheet of an .xlsx file; prints what is not read as Excel shows it."""
    openpyxl = importlib.import_module("openpyxl")
    with zipfile.ZipFile(path) as archive:
        _check_size(path, 0, sum(member.file_size for member in archive.infolist()))
    features = _find_sheet_features(path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
    name = sheets[0].title
    rows = _read_cells(sheets[0], path)
    book.close()
    if "formulas" in features:
        _print_missing_results(path, name, rows, openpyxl)
    if other_sheets := [sheet_name for sheet_name in book.sheetnames if sheet_name != name]:
        first = "first sheet" if name == book.sheetnames[0] else "first visible sheet"
        print(f"{path}: reading the {first}, {name!r}; ignored: {', '.join(other_sheets)}")
    if "hidden rows" in features:
        print(f"{path}: rows that are hidden in Excel are read as well")
    return rows


def _read_xlsx(path: Path) -> pd.DataFrame:
    """Return the first visible sheet of an .xlsx file as a DataFrame with numbered columns.

    The index is the row of the sheet, from 0. Raises ImportError without openpyxl.
    """
    rows = _read_first_sheet(path)
    unescape = importlib.import_module("openpyxl.utils.escape").unescape  # _x000D_, as Excel writes "\r"
    rows = [[unescape(value) if isinstance(value, str) else value for value in row] for row in rows]
    width = max(map(len, rows), default=0)  # rows end at their last cell
    frame = pd.DataFrame([[*row, *[None] * (width - len(row))] for row in rows], dtype=object)
    is_filled = frame.notna().any(axis=1)
    if count := (~is_filled[: is_filled[::-1].idxmax()]).sum() if is_filled.any() else 0:
        print(f"{path}: dropped {count:,} empty rows")
    return frame[is_filled]


def read_typed_table(path: Path, extension: str) -> pd.DataFrame:
    """Return a Parquet or .xlsx file as a DataFrame; `extension` is ".parquet" or ".xlsx".

    Raises ValueError if it is corrupt, ReadError if it cannot be read at the moment, and ImportError without pyarrow
    or openpyxl.
    """
    with translate_read_errors(path):
        try:
            return _read_parquet(path) if extension == ".parquet" else _read_xlsx(path)
        except ImportError as error:
            package = "pyarrow" if extension == ".parquet" else "openpyxl"
            raise ImportError(f"{path} requires {package}: pip install {package}, or save the table as CSV") from error
        except Exception as error:  # a corrupt file can raise nearly anything
            raise ValueError(f"{path} is corrupt, or its format is not what its name says: {error}") from None
