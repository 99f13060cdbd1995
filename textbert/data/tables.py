"""Find labelled tables in a folder, read them, and find their columns of labels, texts and ids."""

import importlib.util
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
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
from textbert.data.headers import SAMPLE_ROWS, apply_header, infer_label_columns, infer_text_columns
from textbert.data.ids import find_id_fault, find_ids
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
    frame.attrs["nested"] = nested  # for infer_columns, which knows which columns are used
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


def infer_columns(
    frame: pd.DataFrame,
    source: str,
    text_column: str | int | None = None,
    label_column: str | int | None = None,
    id_column: str | int | bool | None = False,
) -> tuple[pd.DataFrame, dict]:
    """Find the columns of label and text in a table of `read_table`, and the ids of its rows.

    source : the name of the table, for messages
    text_column, label_column : name or number of the column, None to infer it: by a usual name, else as the one with
        by far the longest texts, or the only one with two or a few values
    id_column : name or number of the column of ids, None to find one (see `ids.find_ids`), False for no ids

    Returns (a DataFrame with the columns `label`, `text` and, if there is one, `id`; a dict from these to the names in
    the table). Its index is the row, counted from 0 with the header. Empty rows are dropped, and columns of texts that
    are not used are printed. Raises ValueError where it is not clear which column it is, and if ids are not unique.
    """
    id_requested = not (id_column is None or id_column is False)
    requested = (label_column, text_column, *([id_column] if id_requested else []))
    frame = apply_header(_drop_empty_rows(frame, source), requested, source)
    if frame.empty or not frame.columns.is_unique:
        raise ValueError(f"{source} has {len(frame)} rows below a header of {list(frame.columns)}")
    ids = _find_requested(frame, id_column, "id", source) if id_requested else None
    candidates = _find_candidates(frame, requested, ids)
    if candidates.shape[1] < 2:
        cell = frame[[*candidates, ids][0]].iat[0][:50]
        raise ValueError(
            f"{source} has only one column, such as {cell!r}: expected label and text, separated by commas in .csv "
            "files and by tabs in .tsv files"
        )
    names = _find_label_and_text(frame, candidates, requested, source)
    labels = frame[names["label"]].str.strip().str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)  # 1.0 is 1
    columns = pd.DataFrame({"label": labels, "text": frame[names["text"]]})
    if id_column is None:
        remaining = frame.drop(columns=[*names.values(), *frame.attrs.get("nested", ())], errors="ignore")
        ids = find_ids(remaining, source)
    if id_column is False or ids is None:
        return columns, names
    _check_ids(frame, ids, names, source)
    return columns.assign(id=frame[ids]), names | {"id": ids}


def _drop_empty_rows(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return a table without the rows that hold only white space, and print how many are dropped.

    Raises ValueError if there are no other rows.
    """
    is_empty = np.ones(len(frame), bool)
    for number in range(frame.shape[1]):  # only rows that are empty so far: most have a text in the first column
        is_empty[is_empty] = frame.iloc[:, number][is_empty].str.strip() == ""
    if is_empty.all():
        raise ValueError(f"{source} is empty: expected one row per text")
    if is_empty.any():
        print(f"{source}: dropped {is_empty.sum():,} empty rows")
    return frame[~is_empty]


def _find_candidates(frame: pd.DataFrame, requested: Sequence, ids: Hashable) -> pd.DataFrame:
    """Return the columns that may hold label or text: not the ids, and not empty.

    While one of the two is to be inferred, an empty column with a name stays.
    """
    infers_column = None in requested
    names = [
        name
        for position, name in enumerate(frame)
        if (frame[name] != "").any() or name in requested or (infers_column and name != position)
    ]
    return frame[[name for name in names if ids is None or name != ids]]


def _hint_unlabelled(role: str, source: str) -> str:
    if role != "label":
        return ""
    return f"; if {source} has no labels, move it out of the folder: predict_file is for such files"


def _find_requested(frame: pd.DataFrame, column: Hashable, role: str, source: str) -> Hashable:
    """Return the name of a column, given by its name or its number from 0. Raises ValueError if there is none.

    role : what it holds, "label", "text" or "id", for the message
    """
    by_name = {name.strip(): name for name in frame if isinstance(name, str)}
    by_number: dict[Hashable, Hashable] = dict(enumerate(frame.columns))
    name = by_name.get(column.strip()) if isinstance(column, str) else by_number.get(column, column)
    if name in frame.columns and type(column) is not bool:
        return name
    names = list(frame.columns)
    raise ValueError(f"{source} has no column {column!r}. Columns: {names}{_hint_unlabelled(role, source)}")


def _check_unique(matches: list, candidates: pd.DataFrame, role: str, source: str) -> Hashable:
    """Return the only match. Raises ValueError, listing the options, if there is none or more than one."""
    if len(matches) == 1:
        return matches[0]
    options = [
        f"{name!r} ({candidates[name].nunique()} values, such as {candidates[name].iat[0][:30]!r})"
        for name in matches or candidates
    ]
    raise ValueError(
        f"which column of {source} holds the {role}? Set {role.upper()}_COLUMN to one of {'; '.join(options)}"
        + _hint_unlabelled(role, source)
    )


def _find_label_and_text(frame: pd.DataFrame, candidates: pd.DataFrame, requested: Sequence, source: str) -> dict:
    """Return a dict from "label" and "text" to the columns' names, as requested or inferred from the candidates."""
    if requested[0] is None:
        label = _check_unique(infer_label_columns(candidates), candidates, "label", source)
    else:
        label = _find_requested(frame, requested[0], "label", source)
    if requested[1] is None:
        text = _check_unique(infer_text_columns(candidates, label), candidates, "text", source)
    else:
        text = _find_requested(frame, requested[1], "text", source)
    if label == text:
        raise ValueError(f"label and text of {source} cannot both be in column {label!r}")
    _check_not_nested(frame, {"a label": label, "a text": text}, source)
    remaining = [name for name in candidates if name not in (label, text)]
    unused = [name for name in remaining if candidates[name][:SAMPLE_ROWS].str.split().str.len().mean() >= 3]
    if unused:
        names = ", ".join(map(repr, unused))
        print(f"{source}: BERT reads only column {text!r}, not {names}. Join them if it should read all of them")
    return {"label": label, "text": text}


def _check_not_nested(frame: pd.DataFrame, names: dict, source: str) -> None:
    """Raise ValueError if a column holds lists or objects; `names` is a dict from what is expected to the column."""
    nested = frame.attrs.get("nested", {})
    for expected, name in names.items():
        if name in nested:
            index, actual = nested[name]
            raise ValueError(f"{source}, line {index + 1}: {name} is {actual}, but must be {expected}")


def _check_ids(frame: pd.DataFrame, ids: Hashable, names: dict, source: str) -> None:
    """Raise ValueError if a column cannot serve as ids of the rows; `names` are those of label and text."""
    _check_not_nested(frame, {"an id": ids}, source)
    for role, name in names.items():
        if name == ids:
            raise ValueError(f"{source}: ID_COLUMN is {ids!r}, but that column holds the {role}")
    if fault := find_id_fault(frame[ids]):
        raise ValueError(
            f"{source}: ID_COLUMN is {ids!r}, but {fault}: expected a different id in each row. Correct them, or set "
            "ID_COLUMN = None"
        )
