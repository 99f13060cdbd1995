"""Any labelled table to label and text, and what may be wrong with it."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from pathlib import Path

import pandas as pd

from textbert.files import require_encoding, require_file


def _open_zip(path, mode="rb", **options):
    with zipfile.ZipFile(path) as archive:
        file = archive.open(archive.namelist()[0])
    return io.TextIOWrapper(file, **options) if "t" in mode else file


OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}
TEST_NAMES = ("test", "dev", "valid", "validation")
FETCHED = ("yelp", "imdb", "sst2")  # the tasks of the room `datasets`
OUTPUTS = ("train.tsv", "dev.tsv")  # of data_prep.ipynb
KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
LABEL_COLUMNS = ("label", "labels", "class", "target", "sentiment", "polarity", "category", "stars", "rating")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "message", "body", "tweet")
# what may be wrong with a text: tags and entities; UTF-8 read as something else, or the sign for what did not fit
HTML = r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]{2,8};|&#\d+;"
DAMAGED = "\ufffd|[\u0080-\u009f]|\u00c3[\u00a0-\u00bf]|\u00e2\u20ac|\u00c2[\u00a0-\u00bf]"
POSITIVE_VALUES = ("true", "yes", "y", "pos", "positive", "good", "spam", "toxic", "relevant")


def _kind(path):
    """Return (what kind of table a file is by its name, how it is compressed), with "" for what is unknown or not."""
    *_, suffix, last = ["", "", *Path(str(path).lower()).suffixes]
    return (KINDS.get(suffix, ""), last) if last in OPENERS else (KINDS.get(last, ""), "")


def find_tables(data_dir, train_file=None, test_file=None):
    """Return (the file to learn from, the file to judge with or None) among the tables in a folder.

    Those not given are called train.* and test.* (or dev.*, valid.*, validation.*), or there is just one table. Raises
    FileNotFoundError if there is none, and ValueError in doubt or for a name that data_prep.ipynb will write to.
    """
    if names := [name for name in (train_file, test_file) if name in OUTPUTS]:
        raise ValueError(f"{names[0]} is a name for what data_prep.ipynb writes: call your own file otherwise")
    found = [path for path in sorted(Path(data_dir).glob("[!.]*")) if _kind(path)[0] and path.is_file()]
    found = [path for path in found if path.name not in (*OUTPUTS, train_file, test_file)]
    train = [path for path in found if path.name.startswith("train.")] or found
    train = [Path(data_dir, train_file)] if train_file else train
    test = [path for path in found if path.name.split(".")[0] in TEST_NAMES and path not in train]
    test = [Path(data_dir, test_file)] if test_file else test
    if not train:
        raise FileNotFoundError(
            f"{data_dir} holds no table: put train.csv (and test.csv) there, see README; or take a "
            f"task that is fetched for you: {', '.join(FETCHED)}. "
            f"{' and '.join(OUTPUTS)} are names for what data_prep.ipynb writes: call your own files otherwise"
        )
    if len(train) > 1 or len(test) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{data_dir} holds {names}: say in TRAIN_FILE and TEST_FILE which of them to use")
    return train[0], test[0] if test else None


def _require_columns(path, encoding):
    """Raise ValueError naming the first row of a CSV or TSV file that has not as many columns as the first."""
    kind, compression = _kind(path)
    form = {"strict": True} if kind == "csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    csv.field_size_limit(2**31 - 1)
    columns = None
    with OPENERS[compression](path, "rt", encoding=encoding, newline="") as file:
        rows = csv.reader(file, **form)
        try:
            for row in filter(None, rows):
                columns = columns or len(row)
                if len(row) != columns:
                    raise ValueError(
                        f"{path}: the row that ends in line {rows.line_num} has {len(row)} columns, but the first "
                        f"has {columns}" + (" (a text with commas stands in double quotes)" if kind == "csv" else "")
                    )
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}: is a quote left open?") from None


def _require_sound(path, opener):
    """Raise ValueError for a compressed file that is damaged, or that unpacks to far more than a table can."""
    room = 100 * path.stat().st_size + 2**24
    try:
        with opener(path, "rb") as file:
            while chunk := file.read(2**20):
                room -= len(chunk)
                if room < 0:
                    raise ValueError("it unpacks to more than 100 times its size")
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path} is damaged, or not what its name says: {error}") from None


def _read_json_lines(path, encoding):
    """Return the objects of a JSON Lines file as a DataFrame; ValueError for a line that is none."""
    rows = []
    with OPENERS[_kind(path)[1]](path, "rt", encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON ({error.msg}, column {error.colno})") from None
            if rows and not isinstance(rows[-1], dict):
                raise ValueError(f"line {number} is not of the form {{name: value, ...}}")
    return pd.DataFrame(rows, dtype=object)


def _as_text(value):
    """Return a value of a typed table as text: no value as "", 1.0 as "1", half a surrogate pair as U+FFFD."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_parquet(path):
    """Return a Parquet file as a DataFrame; ValueError if it is damaged, ImportError without pyarrow."""
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except OSError as error:  # of pyarrow
        raise ValueError(f"{path} is damaged, or not what its name says: {error}") from None


def _read_delimited(path, kind, encoding):
    """Return a CSV or TSV file as a DataFrame of strings, its columns numbered; a short row is an error."""
    form = {"quoting": csv.QUOTE_NONE, "sep": "\t"} if kind == "tsv" else {}
    form |= {"header": None, "dtype": str, "keep_default_na": False, "encoding": encoding}
    try:
        # left to itself pandas holds the bytes of half a million rows beside their texts
        with pd.read_csv(path, chunksize=50_000, **form) as chunks:
            frame = pd.concat(chunks)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    if (frame == "").any(axis=None):  # a short row is filled with ""
        _require_columns(path, encoding)
    return frame


def read_table(path, encoding="utf-8"):
    """Read a table, compressed or not: CSV, TSV (without quoting), JSON Lines or Parquet (which needs pyarrow).

    Returns a DataFrame of strings in the file's order; "NA" and "null" are texts like any other. The columns of CSV and
    TSV are numbered from 0, and a header is still the first row. Raises FileNotFoundError, ImportError without pyarrow,
    and ValueError for a file that is empty, of another kind or encoding, or has a row with too many or few columns.
    """
    require_file(path, "put the table there")
    kind, compression = _kind(path)
    if not kind:
        raise ValueError(f"{path}: its name must end in one of {', '.join(KINDS)}, perhaps with .gz, .bz2, .xz or .zip")
    if compression and kind != "parquet":
        _require_sound(Path(path), OPENERS[compression])
    given, encoding = encoding, encoding if codecs.lookup(encoding).name != "utf-8" else "utf-8-sig"  # drops a mark
    if kind == "parquet":
        frame = _read_parquet(path)
    else:
        if kind != "jsonl" and encoding != "utf-8-sig":  # pandas does not see what is missing at the end
            require_encoding(path, given, OPENERS[compression])
        try:
            frame = _read_json_lines(path, encoding) if kind == "jsonl" else _read_delimited(path, kind, encoding)
        except ValueError as error:
            require_encoding(path, given, OPENERS[compression])
            if kind != "jsonl":
                _require_columns(path, encoding)
            raise ValueError(f"{path}: {error}") from None
    if frame.empty:
        raise ValueError(f"{path} is empty: it needs a row for each text")
    return frame if kind in ("csv", "tsv") else frame.apply(lambda column: column.astype(object).map(_as_text))


def _few_valued(frame):
    """Return the columns that may hold labels: two values, else a few that come again and again."""
    counts = frame.nunique()
    return list(counts.index[counts == 2]) or list(counts.index[counts <= min(20, len(frame) / 2)])


def _has_header(frame):
    """Tell whether the first row names the columns: no number, but words where others have a few values again."""
    rest = frame[1:]
    few = _few_valued(rest)
    is_name = [not re.fullmatch(r"[-+.\s]*\d[-+.\d\s]*", frame[name].iat[0]) for name in frame]
    new = all(frame[name].iat[0] not in set(rest[name]) for name in few)
    known = any(frame[name].iat[0].strip().lower() in LABEL_COLUMNS + TEXT_COLUMNS for name in frame)
    return all(is_name) and new and (bool(few) or known)


def _pick_column(frame, wanted, known, fallback, what, source):
    """Return the name of a column: the wanted one (a name or a number from 0), else the one found without doubt."""
    columns = list(frame.columns)
    if wanted is not None:
        if wanted in columns:
            return wanted
        if type(wanted) is int and 0 <= wanted < len(columns):
            return columns[wanted]
        raise ValueError(f"{source} has no column {wanted!r}, but {columns}")
    found = [name for name in columns if str(name).strip().lower() in known]
    found = found if len(found) == 1 else fallback
    if len(found) != 1:
        listed = "; ".join(f"{n!r} ({frame[n].nunique()} values, such as {frame[n].iat[0][:30]!r})" for n in frame)
        raise ValueError(f"which column of {source} holds the {what}? Set {what.upper()}_COLUMN to one of {listed}")
    return found[0]


def pick_columns(frame, source, text_column=None, label_column=None):
    """Find text and label in a table of `read_table`.

    Returns (a DataFrame with the columns `label` and `text`, what their names were). What is not given is found: by a
    usual name, else as the only column with two (or a few) values and the one with by far the longest texts. The index
    is the row, counted from 0 with the header. Raises ValueError if in doubt.
    """
    by_name = any(isinstance(name, str) for name in (text_column, label_column))
    if 0 in frame.columns and (by_name or _has_header(frame)):
        # a column without a name, such as the index that pandas writes, keeps its number
        frame = frame[1:].set_axis([name.strip() or number for number, name in frame.iloc[0].items()], axis=1)
    if frame.empty or not frame.columns.is_unique:
        raise ValueError(f"{source} has {len(frame)} rows below a header of {list(frame.columns)}")
    if len(frame.columns) < 2:
        raise ValueError(
            f"{source} has one column only, such as {frame.iat[0, 0][:50]!r}, but label and text are needed: columns "
            "stand apart by commas in .csv files and by tabs in .tsv files"
        )
    label = _pick_column(frame, label_column, LABEL_COLUMNS, _few_valued(frame), "label", source)
    lengths = frame.drop(columns=label).map(len).mean().sort_values()
    longest = list(lengths.index[-1:]) if len(lengths) == 1 or lengths.iloc[-1] > 2 * lengths.iloc[-2] else []
    text = _pick_column(frame, text_column, set(TEXT_COLUMNS) - {label}, longest, "text", source)
    if label == text:
        raise ValueError(f"label and text of {source} cannot both be in column {label!r}")
    return pd.DataFrame({"label": frame[label].str.strip(), "text": frame[text]}), {"label": label, "text": text}


def pick_classes(labels, source, classes=None):
    """Return the labels of the two classes, as [[those of class 0], [those of class 1, the positive one]].

    Without `classes` there must be two labels. Positive is the larger number, else one that says so ("yes", "pos",
    "spam", ...), else the later in the alphabet. Raises ValueError listing the labels with their counts.
    """
    counts = labels.value_counts().sort_index()
    first = {label: (labels == label).idxmax() + 1 for label in counts.index[:20]}
    listed = ", ".join(f"{label[:50]!r} {counts[label]} times (first in row {row})" for label, row in first.items())
    if classes is not None:
        classes = [[str(label) for label in one] for one in classes]
        if absent := sorted({label for one in classes for label in one} - set(counts.index)):
            raise ValueError(f"CLASSES names {absent}, but the labels of {source} are {listed}")
        return classes
    if len(counts) != 2:
        raise ValueError(
            f"{source} has {len(counts)} different labels, but two are needed: {listed}. Correct it, or say in CLASSES "
            'which make up the two classes, such as [["1", "2"], ["4", "5"]]; others are left out'
        )
    try:
        ordered = sorted(counts.index, key=float)
    except ValueError:
        ordered = sorted(counts.index, key=lambda label: (label.lower() in POSITIVE_VALUES, label))
    return [[label] for label in ordered]


def binary_labels(labels, classes):
    """Return the labels that belong to one of two `classes` (see `pick_classes`) as a Series of 0 and 1."""
    number = {label: i for i, one in enumerate(classes) for label in one}
    return labels[labels.isin(number)].map(number).astype(int)
