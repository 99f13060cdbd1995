"""Tables whose values have types, JSON Lines, Parquet and .xlsx: looked at before they are read, and turned to text."""

import importlib
import json
import zipfile

import pandas as pd

from textbert.packed import OPENERS, split_suffixes

CELLS = 2**25  # that a sheet or a Parquet file may have, empty ones counted


def as_text(value):
    """Return a value of a typed table as text: no value as "", 1.0 as "1", half a surrogate pair as U+FFFD."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value  # so do some write Parquet
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_json_lines(path, encoding):
    """Return the objects of a JSON Lines file as a DataFrame; ValueError for a line that is none."""
    rows = []
    with OPENERS[split_suffixes(path)[1]](path, "rt", encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            line = line if number > 1 else line.removeprefix("\ufeff")
            try:
                rows += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON ({error.msg}, column {error.colno})") from None
            except RecursionError:
                raise ValueError(f"line {number} is no JSON (too deep)") from None
            if rows and not isinstance(rows[-1], dict):
                raise ValueError(f"line {number} is not of the form {{name: value, ...}}")
    return pd.DataFrame(rows, dtype=object)


def _require_room(path, cells, size):
    """Raise ValueError for a table of more cells or bytes than its file can hold."""
    if cells > CELLS + 100 * path.stat().st_size or size > 100 * path.stat().st_size + 2**24:
        raise ValueError(f"it unpacks to more than 100 times its size ({cells:,} cells of {size:,} bytes)")


def _read_parquet(path):
    """Return a Parquet file as a DataFrame; ImportError without pyarrow. Its size is looked at before it is read."""
    parquet = pd.io.parquet.get_engine("auto").api.parquet
    with parquet.ParquetFile(path) as file:
        about = file.metadata
        sizes = [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]
        _require_room(path, about.num_rows * about.num_columns, sum(sizes))
    return pd.read_parquet(path).reset_index(drop=True)


def _read_xlsx(path):
    """Return the first sheet of an .xlsx file as a DataFrame with numbered columns; ImportError without openpyxl."""
    openpyxl = importlib.import_module("openpyxl")
    with zipfile.ZipFile(path) as archive:
        _require_room(path, 0, sum(member.file_size for member in archive.infolist()))
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    sheet, rows, cells = book.worksheets[0], [], 0
    sheet.reset_dimensions()  # what the file says of them may be wrong
    for row in sheet.iter_rows(values_only=True):
        cells += 1 + len(row)
        _require_room(path, cells, 0)
        rows.append(row)
    book.close()
    if others := book.sheetnames[1:]:
        print(f"{path}: the first sheet, {book.sheetnames[0]!r}, is read, and {', '.join(others)} not")
    width = max(map(len, rows), default=0)  # rows end where their last cell is
    frame = pd.DataFrame([[*row, *[None] * (width - len(row))] for row in rows], dtype=object)
    return frame[frame.notna().any(axis=1)]


def read_typed(path, kind):
    """Return a Parquet or .xlsx file as a DataFrame of strings; ValueError if it is damaged."""
    try:
        frame = _read_parquet(path) if kind == ".parquet" else _read_xlsx(path)
    except ImportError as error:
        package = "pyarrow" if kind == ".parquet" else "openpyxl"
        raise ImportError(f"{path} needs it: install the {package} package, or save the table as CSV") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path}: it is damaged, or not what its name says: {error}") from None
    return frame
