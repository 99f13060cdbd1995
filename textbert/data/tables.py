"""Any labelled table to label and text, and what may be wrong with it."""

import importlib.util
from itertools import islice
from pathlib import Path

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
from textbert.data.file_formats import find_nested, read_json_lines, read_typed_table, to_string
from textbert.data.headers import (
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    count_values,
    find_low_cardinality_columns,
    has_header,
    is_numbered,
    name_columns,
)
from textbert.data.ids import find_id_fault, find_ids
from textbert.data.quoting import Tally, is_id, is_number
from textbert.utils.files import check_encoding, check_file, list_files

TEST_NAMES = ("test", "dev", "valid", "validation")

FETCHED = ("yelp", "imdb", "sst2")  # the tasks of the room `datasets`

OUTPUTS = ("train.tsv", "dev.tsv")  # of data_prep.ipynb

NOT_HIDDEN = "[!.~]*"  # Excel's lock files begin with ~$

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


def _explain_no_table(data_dir):
    """Raise the FileNotFoundError for a folder without tables, which says why what is there is none."""
    others = [path for path in list_files(data_dir, NOT_HIDDEN) if path.name not in OUTPUTS]
    sheets = [path.name for path in others if split_extension(path)[0] == ".xlsx"]
    names = ", ".join(path.name for path in others[:9])
    raise FileNotFoundError(
        f"{data_dir} holds no table"
        + (f", but {names}: a table's name ends in {', '.join(EXTENSIONS)}" if others else "")
        + (f" (for {sheets[0]} pip install openpyxl, or save it as CSV)" if sheets else "")
        + ": put train.csv (and test.csv) there, see docs/own-data.md; or take a task that is fetched for you: "
        f"{', '.join(FETCHED)}. {' and '.join(OUTPUTS)} are names for what data_prep.ipynb writes: "
        "call your own files otherwise"
    )


def _is_table(path):
    kind, _ = split_extension(path)
    readable = kind != ".xlsx" or importlib.util.find_spec("openpyxl")
    return kind in EXTENSIONS and bool(readable) and path.name.lower() not in OUTPUTS


def find_data_files(data_dir, train_file=None, test_file=None):
    """Return (the file to learn from, the file to judge with or None) among the tables in a folder.

    Those not given are called train.* and test.* (or dev.*, valid.*, validation.*), or there is just one table; other
    tables are printed. Raises FileNotFoundError if there is none, and ValueError in doubt or for a name that
    data_prep.ipynb will write to.
    """
    if names := [name for name in (train_file, test_file) if name and name.lower() in OUTPUTS]:
        raise ValueError(f"{names[0]} is a name for what data_prep.ipynb writes: call your own file otherwise")
    found = [path for path in list_files(data_dir, NOT_HIDDEN) if _is_table(path)]
    found = [path for path in found if path.name not in (train_file, test_file)]
    train = [path for path in found if path.name.lower().startswith("train.")] or found
    train = [Path(data_dir, train_file)] if train_file else train
    test = [path for path in found if path.name.lower().split(".")[0] in TEST_NAMES and path not in train]
    test = [Path(data_dir, test_file)] if test_file else test
    if not train:
        _explain_no_table(data_dir)
    if len(train) > 1 or len(test) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{data_dir} holds {names}: say in TRAIN_FILE and TEST_FILE which of them to use")
    for path in found:
        if path not in (*train, *test):
            print(f"{path.name} is not used: TEST_FILE = {path.name!r} would judge with it")
    return train[0], test[0] if test else None


def _to_frame(rows):
    """Return rows of fields as a DataFrame of strings, in parts, so that no two copies of all of them are there."""
    rows, frames = iter(rows), []
    while part := list(islice(rows, 50_000)):
        frames.append(pd.DataFrame(part, dtype=object))  # shared by the tables made of it, which Arrow's are not
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def read_table(path, encoding="utf-8"):
    """Read a table, compressed or not: CSV, TSV, JSON Lines, Parquet (which needs pyarrow) or .xlsx (openpyxl).

    Returns a DataFrame of strings in the file's order; "NA" and "null" are texts like any other. The columns of CSV,
    TSV and .xlsx are numbered from 0, and a header is still the first row. The index is the row as a spreadsheet shows
    it, or the line of JSON Lines, minus 1. How a CSV or TSV file is written is found, and printed where it is unusual,
    as is how many rows there are where they are not its lines; see `delimited`. Raises FileNotFoundError, ImportError
    without those packages, and ValueError for a file that is empty, of another kind or encoding, or has a row with too
    many or few columns.
    """
    check_file(path, "put the table there")
    path, (kind, compression) = Path(path), split_extension(path)
    if kind not in EXTENSIONS:
        raise ValueError(
            f"{path}: its name must end in one of {', '.join(EXTENSIONS)}, perhaps with .gz, .bz2, .xz or .zip"
        )
    if kind in (".parquet", ".xlsx"):
        if compression:
            raise ValueError(f"{path}: unpack it first; {kind} files are compressed in themselves")
        frame = read_typed_table(path, kind)
    else:
        if compression:
            check_integrity(path)
        check_is_text(path, encoding)
        frame = _read_text(path, kind, encoding)
    if frame.empty:
        raise ValueError(f"{path} is empty: it needs a row for each text")
    if kind in (".csv", ".tsv"):
        return frame
    nested = find_nested(frame)
    frame = frame.apply(lambda column: column.astype(object).map(to_string).astype(object))
    frame.attrs["nested"] = nested  # for infer_columns, which knows what is learned from
    return frame


def _read_text(path, kind, encoding):
    """Return a CSV, TSV or JSON Lines file as a DataFrame."""
    if kind != ".jsonl":
        frame = read_delimited(path, kind, encoding, _to_frame, tally=(tally := Tally()))[0]
        if differs := tally.describe(path):
            print(differs)
        return frame.set_axis(tally.number_rows()) if tally.empty else frame
    try:
        return read_json_lines(path, normalize_encoding(encoding))
    except ValueError as error:
        check_encoding(path, encoding, OPEN_FUNCTIONS[split_extension(path)[1]])
        raise ValueError(f"{path}: {error}") from None


def _drop_empty_rows(frame, source):
    """Return a table without the rows that hold nothing but white space, and print how many those are.

    ValueError if no other is there.
    """
    empty = np.ones(len(frame), bool)
    for number in range(frame.shape[1]):  # most rows need but one look
        empty[empty] = frame.iloc[:, number][empty].str.strip() == ""
    if empty.all():
        raise ValueError(f"{source} is empty: it needs a row for each text")
    if empty.any():
        print(f"{source}: empty rows left out: {empty.sum():,}")
    return frame[~empty]


def _pick_column(frame, filled, wanted, numbers, known, fallback, what, source):
    """Return the name of a column: the wanted one (a name or a number from 0), else the one found without doubt."""
    unlabelled = f"; if there is no label in {source}, move it out of the folder: predict_file is for such files"
    unlabelled = unlabelled if what == "label" else ""
    if wanted is not None:
        stripped = {name.strip(): name for name in frame if isinstance(name, str)}
        name = stripped.get(wanted.strip()) if isinstance(wanted, str) else numbers.get(wanted, wanted)
        if name in frame.columns and type(wanted) is not bool:
            return name
        raise ValueError(f"{source} has no column {wanted!r}, but {list(frame.columns)}{unlabelled}")
    found = [name for name in filled if str(name).strip().lower() in known]
    found = found if len(found) == 1 else fallback
    if len(found) != 1:
        listed = [f"{n!r} ({frame[n].nunique()} values, such as {frame[n].iat[0][:30]!r})" for n in found or filled]
        listed = "; ".join(listed)
        raise ValueError(
            f"which column of {source} holds the {what}? Set {what.upper()}_COLUMN to one of {listed}{unlabelled}"
        )
    return found[0]


def infer_columns(frame, source, text_column=None, label_column=None, id_column=False):
    """Find text and label in a table of `read_table`, and the ids of its rows.

    Returns (a DataFrame with the columns `label` and `text`, what their names were). What is not given is found: by a
    usual name, else as the only column with two or a few values and the one with by far the longest texts. The index
    is the row, counted from 0 with the header; empty rows and columns are left out, and columns of texts that are not
    used are printed. Raises ValueError if in doubt.

    id_column : the name or number of the column of ids, None to find one (see `ids.find_ids`), False for none. Where
        there is one, the DataFrame has them as a column `id`. ValueError if the values of a given one are not all
        different.
    """
    given_id = () if id_column is None or id_column is False else (id_column,)
    wanted = (label_column, text_column, *given_id)
    frame = _drop_empty_rows(frame, source)
    if 0 in frame.columns and not frame.empty:
        filled = frame.loc[:, (frame != "").any()]
        if is_numbered(filled.iloc[0].tolist()):
            frame = frame[1:]
        elif any(isinstance(name, str) for name in wanted) or has_header(filled, source):
            frame = name_columns(frame, wanted, source)
    if frame.empty or not frame.columns.is_unique:
        raise ValueError(f"{source} has {len(frame)} rows below a header of {list(frame.columns)}")
    numbers = dict(enumerate(frame.columns))
    ids = _pick_column(frame, [], *given_id, numbers, (), [], "id", source) if given_id else None
    filled = [name for name in frame if (frame[name] != "").any() or name in wanted or numbers.get(name) in wanted]
    filled = [name for name in filled if name != ids or not given_id]
    if len(filled) < 2:
        cell = frame[(filled or [ids])[0]].iat[0][:50]
        raise ValueError(
            f"{source} has one column only, such as {cell!r}, but label and text are needed: columns stand "
            "apart by commas in .csv files and by tabs in .tsv files"
        )
    picked, names = _pick_label_and_text(frame, frame[filled], numbers, wanted, source)
    if id_column is False:
        return picked, names
    if not given_id:
        ids = find_ids(frame.drop(columns=[*names.values(), *frame.attrs.get("nested", ())], errors="ignore"), source)
    return _add_ids(picked, names, frame, ids, source)


def _add_ids(picked, names, frame, ids, source):
    """Return what `infer_columns` does, with the ids in column `ids` of a whole table; None for no ids."""
    if ids is None:
        return picked, names
    _require_plain(frame, {"an id": ids}, source)
    if ids in names.values():
        raise ValueError(
            f"{source}: ID_COLUMN is {ids!r}, but that column holds the {min(names, key=lambda n: names[n] != ids)}"
        )
    if fault := find_id_fault(frame[ids]):
        raise ValueError(
            f"{source}: ID_COLUMN is {ids!r}, but {fault}: expected a different id in each row. Correct them, or set "
            "ID_COLUMN = None"
        )
    return picked.assign(id=frame[ids]), names | {"id": ids}


def _find_label(filled):
    """Return the columns that may hold the label: one with a usual name, else those with a few values.

    "class" and "category" are also names of other things, and do not count where another column has two values.
    """
    few = find_low_cardinality_columns(filled)
    counts = filled.agg(count_values)
    doubtful = list(counts.index[(counts == 2) | ((counts > 2) & (counts <= min(20, len(filled) / 2)))]) or few
    doubtful = [name for name in doubtful if str(name).strip().lower() not in TEXT_COLUMNS] or doubtful
    for usual in (LABEL_COLUMNS[:3], LABEL_COLUMNS[3:7], LABEL_COLUMNS[7:]):
        found = [name for name in filled if str(name).strip().lower() in usual]
        if found and (usual != LABEL_COLUMNS[7:] or not set(doubtful) - set(found)):
            return found
    return doubtful


def _say_unused(filled, names, source):
    """Print which other columns hold texts of three words or more."""
    others = [name for name in filled if name not in names.values()]
    unused = [name for name in others if filled[name][:1000].str.split().str.len().mean() >= 3]
    if unused:
        text = names["text"]
        print(f"{source}: BERT reads column {text!r} only, not {', '.join(map(repr, unused))}. Join them if it should")


def _require_plain(frame, names, source):
    """Raise ValueError if a column has lists or objects; `names` is a dict from what it must be to its name."""
    nested = frame.attrs.get("nested", {})
    for what, name in names.items():
        if name in nested:
            raise ValueError(f"{source}, line {nested[name][0] + 1}: {name} is {nested[name][1]}, but must be {what}")


def _pick_label_and_text(frame, filled, numbers, wanted, source):
    """Return what `infer_columns` does, from a whole table with names and its columns that are not empty."""
    label = _pick_column(frame, filled, wanted[0], numbers, (), _find_label(filled), "label", source)
    others = filled.drop(columns=label, errors="ignore")
    wordy = [name for name in others if (is_id(others[name][:1000]) | is_number(others[name][:1000])).mean() < 0.9]
    lengths = others[wordy or list(others)].map(len).mean().sort_values()
    longest = list(lengths.index[-1:]) if len(lengths) == 1 or lengths.iloc[-1] > 2 * lengths.iloc[-2] else []
    text = _pick_column(frame, filled, wanted[1], numbers, set(TEXT_COLUMNS) - {label}, longest, "text", source)
    if label == text:
        raise ValueError(f"label and text of {source} cannot both be in column {label!r}")
    names = {"label": label, "text": text}
    _require_plain(frame, {"a label": label, "a text": text}, source)
    _say_unused(filled, names, source)
    labels = frame[label].str.strip().str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)  # 1.0 is 1
    return pd.DataFrame({"label": labels, "text": frame[text]}), names
