"""Find labelled tables in a folder, and read them."""

import importlib.util
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NoReturn

import pandas as pd

from textbert.data.compression import (
    OPEN_FUNCTIONS,
    check_integrity,
    check_is_text,
    normalize_encoding,
    split_extension,
)
from textbert.data.csv_reader import read_delimited
from textbert.data.csv_rows import Tally
from textbert.data.file_formats import find_nested, read_json_lines, read_typed_table, to_string
from textbert.data.public_datasets import PUBLIC_DATASETS
from textbert.utils.files import check_encoding, check_file, list_files

TEST_NAMES = ("test", "dev", "valid", "validation")

OUTPUTS = ("train.tsv", "dev.tsv")  # of data_prep.ipynb

NOT_HIDDEN = "[!.~]*"  # a glob pattern; Excel's lock files begin with ~$

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")

CHUNK_ROWS = 50_000  # converted to a DataFrame at once


def _raise_no_table(data_dir: str | Path) -> NoReturn:
    """Raise the FileNotFoundError for a folder without tables, which says why the files in it are not tables."""
    paths = [path for path in list_files(data_dir, NOT_HIDDEN) if path.name not in OUTPUTS]
    sheets = [path.name for path in paths if split_extension(path)[0] == ".xlsx"]
    names = ", ".join(path.name for path in paths[:9])
    raise FileNotFoundError(
        f"{data_dir} holds no table"
        + (f", only {names}: a table's name ends in {', '.join(EXTENSIONS)}" if paths else "")
        + (f" (for {sheets[0]} pip install openpyxl, or save it as CSV)" if sheets else "")
        + ": put train.csv (and test.csv) there, see docs/own-data.md, or use a built-in dataset: "
        f"{', '.join(PUBLIC_DATASETS)}. {' and '.join(OUTPUTS)} are written by data_prep.ipynb: choose another name "
        "for your file"
    )


def _is_table(path: Path) -> bool:
    extension, _ = split_extension(path)
    is_readable = extension != ".xlsx" or importlib.util.find_spec("openpyxl") is not None
    return extension in EXTENSIONS and is_readable and path.name.lower() not in OUTPUTS


def find_data_files(
    data_dir: str | Path, train_file: str | None = None, test_file: str | None = None
) -> tuple[Path, Path | None]:
    """Return (the file to train on, the file to evaluate on or None) among the tables in a folder.

    train_file, test_file : their names in the folder; by default train.* and test.* (or dev.*, valid.*,
        validation.*), or the only table

    Prints which other tables are ignored. Raises FileNotFoundError if there is no table, and ValueError if several are
    possible, or for a name that data_prep.ipynb will write to.
    """
    if names := [name for name in (train_file, test_file) if name and name.lower() in OUTPUTS]:
        raise ValueError(f"{names[0]} is written by data_prep.ipynb: choose another name for your file")
    tables = [path for path in list_files(data_dir, NOT_HIDDEN) if _is_table(path)]
    tables = [path for path in tables if path.name not in (train_file, test_file)]
    train = [path for path in tables if path.name.lower().startswith("train.")] or tables
    train = [Path(data_dir, train_file)] if train_file else train
    test = [path for path in tables if path.name.lower().split(".")[0] in TEST_NAMES and path not in train]
    test = [Path(data_dir, test_file)] if test_file else test
    if not train:
        _raise_no_table(data_dir)
    if len(train) > 1 or len(test) > 1:
        names = [path.name for path in tables]
        raise ValueError(f"{data_dir} holds {', '.join(names)}: set TRAIN_FILE and TEST_FILE to those to use")
    for path in tables:
        if path not in (*train, *test):
            print(f"{path.name} is ignored. Set TEST_FILE = {path.name!r} to evaluate on it")
    return train[0], test[0] if test else None


def _to_frame(rows: Iterable[list[str]]) -> pd.DataFrame:
    """Return rows of fields as a DataFrame of strings, made in chunks, so that there are never two copies of all."""
    rows, frames = iter(rows), []
    while chunk := list(islice(rows, CHUNK_ROWS)):
        frames.append(pd.DataFrame(chunk, dtype=object))  # tables made from it share its strings, unlike with Arrow
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def read_table(path: str | Path, encoding: str = "utf-8") -> pd.DataFrame:
    """Read a table, compressed or not: CSV, TSV, JSON Lines, Parquet (requires pyarrow) or .xlsx (requires openpyxl).

    Returns a DataFrame of strings in the file's order; "NA" and "null" are texts like any other. The columns of CSV,
    TSV and .xlsx are numbered from 0, and a header is still the first row. The index is the row as a spreadsheet shows
    it, or the line of JSON Lines, minus 1. The dialect of CSV and TSV is detected, and printed where it is unusual, as
    is the number of rows where lines are not rows; see `csv_reader`.

    Raises FileNotFoundError, ImportError without those packages, and ValueError for a file that is empty, has another
    format or encoding, or has a row with too many or too few columns.
    """
    check_file(path, "put the table there")
    path, (extension, compression) = Path(path), split_extension(path)
    if extension not in EXTENSIONS:
        raise ValueError(
            f"{path}: its name must end in one of {', '.join(EXTENSIONS)}, perhaps with .gz, .bz2, .xz or .zip"
        )
    if extension in (".parquet", ".xlsx"):
        if compression:
            raise ValueError(f"{path}: decompress it first ({extension} is already compressed)")
        frame = read_typed_table(path, extension)
    else:
        if compression:
            check_integrity(path)
        check_is_text(path, encoding)
        frame = _read_text(path, extension, encoding)
    if frame.empty:
        raise ValueError(f"{path} is empty: expected one row per text")
    if extension in (".csv", ".tsv"):
        return frame
    nested = find_nested(frame)
    frame = frame.apply(lambda column: column.astype(object).map(to_string).astype(object))
    frame.attrs["nested"] = nested  # for columns.infer_columns, which knows which columns are used
    return frame


def _read_text(path: Path, extension: str, encoding: str) -> pd.DataFrame:
    """Return a CSV, TSV or JSON Lines file as a DataFrame."""
    if extension != ".jsonl":
        frame, _ = read_delimited(path, extension, encoding, _to_frame, tally=(tally := Tally()))
        if differences := tally.describe(path):
            print(differences)
        return frame.set_axis(tally.number_rows()) if tally.empty_lines else frame
    try:
        return read_json_lines(path, normalize_encoding(encoding))
    except ValueError as error:
        check_encoding(path, encoding, OPEN_FUNCTIONS[split_extension(path)[1]])
        raise ValueError(f"{path}: {error}") from None
