"""Any labelled table to label and text, and what may be wrong with it."""

import importlib.util
import math
from itertools import islice
from pathlib import Path

import pandas as pd

from textbert.delimited import get_codec, read_delimited
from textbert.files import require_encoding, require_file
from textbert.mojibake import DAMAGED as DAMAGED
from textbert.packed import OPENERS, require_sound, require_text, split_suffixes
from textbert.quoting import Tally, is_name, is_number
from textbert.typed import as_text, find_nested, read_json_lines, read_typed

TEST_NAMES = ("test", "dev", "valid", "validation")
FETCHED = ("yelp", "imdb", "sst2")  # the tasks of the room `datasets`
OUTPUTS = ("train.tsv", "dev.tsv")  # of data_prep.ipynb
VISIBLE = "[!.~]*"  # Excel's lock files begin with ~$
KINDS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
LABEL_COLUMNS = ("label", "labels", "class", "target", "sentiment", "polarity", "category", "stars", "rating")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "message", "body", "tweet")
# what may be wrong with a text: tags and entities; and see `mojibake`
HTML = r"</?[a-zA-Z][^<>]*>|&[a-zA-Z]{2,8};|&#\d+;"
MISSING = ("", "nan", "none", "null", "na", "n/a", "<na>")  # what an empty cell becomes on its way
POSITIVE_VALUES = ("true", "yes", "y", "pos", "positive", "good", "spam", "toxic", "relevant")


def _explain_no_table(data_dir):
    """Raise the FileNotFoundError for a folder without tables, which says why what is there is none."""
    others = [path for path in sorted(Path(data_dir).glob(VISIBLE)) if path.is_file() and path.name not in OUTPUTS]
    sheets = [path.name for path in others if split_suffixes(path)[0] == ".xlsx"]
    names = ", ".join(path.name for path in others[:9])
    raise FileNotFoundError(
        f"{data_dir} holds no table"
        + (f", but {names}: a table's name ends in {', '.join(KINDS)}" if others else "")
        + (f" (for {sheets[0]} pip install openpyxl, or save it as CSV)" if sheets else "")
        + ": put train.csv (and test.csv) there, see README; or take a task that is fetched for you: "
        f"{', '.join(FETCHED)}. {' and '.join(OUTPUTS)} are names for what data_prep.ipynb writes: "
        "call your own files otherwise"
    )


def _is_table(path):
    kind, _ = split_suffixes(path)
    readable = kind != ".xlsx" or importlib.util.find_spec("openpyxl")
    return kind in KINDS and bool(readable) and path.is_file() and path.name.lower() not in OUTPUTS


def find_tables(data_dir, train_file=None, test_file=None):
    """Return (the file to learn from, the file to judge with or None) among the tables in a folder.

    Those not given are called train.* and test.* (or dev.*, valid.*, validation.*), or there is just one table; other
    tables are printed. Raises FileNotFoundError if there is none, and ValueError in doubt or for a name that
    data_prep.ipynb will write to.
    """
    if names := [name for name in (train_file, test_file) if name and name.lower() in OUTPUTS]:
        raise ValueError(f"{names[0]} is a name for what data_prep.ipynb writes: call your own file otherwise")
    found = [path for path in sorted(Path(data_dir).glob(VISIBLE)) if _is_table(path)]
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
    require_file(path, "put the table there")
    path, (kind, compression) = Path(path), split_suffixes(path)
    if kind not in KINDS:
        raise ValueError(f"{path}: its name must end in one of {', '.join(KINDS)}, perhaps with .gz, .bz2, .xz or .zip")
    if kind in (".parquet", ".xlsx"):
        if compression:
            raise ValueError(f"{path}: unpack it first; {kind} files are compressed in themselves")
        frame = read_typed(path, kind)
    else:
        if compression:
            require_sound(path)
        require_text(path, encoding)
        frame = _read_text(path, kind, encoding)
    if frame.empty:
        raise ValueError(f"{path} is empty: it needs a row for each text")
    if kind in (".csv", ".tsv"):
        return frame
    nested = find_nested(frame)
    frame = frame.apply(lambda column: column.astype(object).map(as_text).astype(object))
    frame.attrs["nested"] = nested  # for pick_columns, which knows what is learned from
    return frame


def _read_text(path, kind, encoding):
    """Return a CSV, TSV or JSON Lines file as a DataFrame."""
    if kind != ".jsonl":
        frame = read_delimited(path, kind, encoding, _to_frame, tally=(tally := Tally()))[0]
        if differs := tally.describe(path):
            print(differs)
        return frame.set_axis(tally.number_rows()) if tally.empty else frame
    try:
        return read_json_lines(path, get_codec(encoding))
    except ValueError as error:
        require_encoding(path, encoding, OPENERS[split_suffixes(path)[1]])
        raise ValueError(f"{path}: {error}") from None


def _count_values(column):
    """Return how many values there are, but in a column of many without those that mean none."""
    values = column.drop_duplicates()
    return len(values) if len(values) > 50 else len(values) - _is_missing(values).sum()


def _few_valued(frame):
    """Return the columns that may hold labels: two values, else a few that come again and again."""
    counts = frame.agg(_count_values)
    few = list(counts.index[counts == 2]) or list(counts.index[(counts > 2) & (counts <= min(20, len(frame) / 2))])
    return few or list(counts.index[counts <= min(20, len(frame) / 2)])


def _is_numbered(first):
    """Tell whether a row is pandas' own header, 0, 1, 2, ..., perhaps with an empty name for the index before it."""
    names = first[1:] if first[0] == "" else first
    return len(names) > 1 and names == [str(i) for i in range(len(names))]


def _has_known_name(frame):
    """Return True if the first row has a usual name that is no value of its column."""
    first = {name: frame[name].iat[0].strip().lower() for name in frame}
    first = {name: cell for name, cell in first.items() if cell in LABEL_COLUMNS + TEXT_COLUMNS}
    return any(not (frame[name][1:].str.strip().str.lower() == cell).any() for name, cell in first.items())


def _has_header(frame, source):
    """Return True if the first row names the columns; ValueError if that cannot be told.

    It does if it has a usual name, or names where others have numbers, or words that are no labels and shorter than
    texts are. It does not if it has a number or a label where the others have, too.
    """
    rest = frame[1:]
    if rest.empty or _has_known_name(frame):
        return _has_known_name(frame)
    title, *others = frame.iloc[0]
    if others and not any(others) and title not in set(rest.iloc[:, 0]):
        raise ValueError(f"{source}: its first row, {title[:50]!r}, seems to be a title: delete that row")
    first = {name: cell for name, cell in frame.iloc[0].items() if cell.strip()}
    numbers = {name for name in first if is_number(rest[name]).mean() > 0.9 and (rest[name] != "").any()}
    named = [name for name in numbers if not is_number(frame[name][:1]).iat[0]]
    few = [name for name in _few_valued(rest) if name in first]
    labels = {name: {*MISSING, *map(_label_key, rest[name].unique())} for name in few}
    if len(named) < len(numbers) or not (few or numbers) or is_number(pd.Series(list(first.values()))).any():
        return False
    lengths = {name: rest[name].map(len) for name in first if name not in {*few, *numbers}}
    if any(_label_key(first[name]) in labels[name] for name in few):
        if not any(first[name].isidentifier() and 2 * len(first[name]) < lengths[name].min() for name in lengths):
            return False
    elif all(map(is_name, first.values())):
        longest = max(lengths, key=lambda name: lengths[name].median(), default=None)
        if named or longest is None or len(first[longest]) < lengths[longest].median():
            return True
    shown = [cell[:30] for cell in first.values()]
    raise ValueError(
        f"{source}: cannot tell whether its first row, {shown}, is a header. If it is, give its names in TEXT_COLUMN "
        "and LABEL_COLUMN; if not, write a header above it, such as label,text"
    )


def _name_columns(frame, wanted, source):
    """Return a table whose columns have the names in its first row; those without a name keep their numbers.

    So do those whose name is there twice, and asking for one of them is a ValueError.
    """
    names = [name.strip() for name in frame.iloc[0]]
    twice = {name for name in names if names.count(name) > 1 and name}
    known = {name for name in twice if name.lower() in LABEL_COLUMNS + TEXT_COLUMNS}
    numbers = [number for number in wanted if type(number) is int]
    if asked := twice & set(wanted) or (known if len(numbers) < 2 else set()):
        name = min(asked)
        places = " or ".join(str(i) for i, other in zip(frame, names) if other == name)
        which = "LABEL_COLUMN" if name == wanted[0] or name.lower() in LABEL_COLUMNS else "TEXT_COLUMN"
        raise ValueError(f"{source}: the name {name!r} is there twice: give its number, {places}, in {which}")
    return frame[1:].set_axis([n if n and n not in twice else number for number, n in zip(frame, names)], axis=1)


def _pick_column(frame, filled, wanted, numbers, known, fallback, what, source):
    """Return the name of a column: the wanted one (a name or a number from 0), else the one found without doubt."""
    unlabelled = f"; if there is no label in {source}, move it out of the folder: predict_file is for such files"
    unlabelled = unlabelled if what == "label" else ""
    if wanted is not None:
        name = wanted.strip() if isinstance(wanted, str) else numbers.get(wanted, wanted)
        if name in frame.columns and type(wanted) is not bool:
            return name
        raise ValueError(f"{source} has no column {wanted!r}, but {list(frame.columns)}{unlabelled}")
    found = [name for name in filled if str(name).strip().lower() in known]
    found = found if len(found) == 1 else fallback
    if len(found) != 1:
        listed = "; ".join(f"{n!r} ({frame[n].nunique()} values, such as {frame[n].iat[0][:30]!r})" for n in filled)
        raise ValueError(
            f"which column of {source} holds the {what}? Set {what.upper()}_COLUMN to one of {listed}{unlabelled}"
        )
    return found[0]


def pick_columns(frame, source, text_column=None, label_column=None):
    """Find text and label in a table of `read_table`.

    Returns (a DataFrame with the columns `label` and `text`, what their names were). What is not given is found: by a
    usual name, else as the only column with two (or a few) values and the one with by far the longest texts. The index
    is the row, counted from 0 with the header; empty rows and columns are left out. Raises ValueError if in doubt.
    """
    wanted = (label_column, text_column)
    frame = frame[(frame != "").any(axis=1)]
    if 0 in frame.columns and not frame.empty:
        filled = frame.loc[:, (frame != "").any()]
        if _is_numbered(filled.iloc[0].tolist()):
            frame = frame[1:]
        elif any(isinstance(name, str) for name in wanted) or _has_header(filled, source):
            frame = _name_columns(frame, wanted, source)
    if frame.empty or not frame.columns.is_unique:
        raise ValueError(f"{source} has {len(frame)} rows below a header of {list(frame.columns)}")
    numbers = dict(enumerate(frame.columns))
    filled = [name for name in frame if (frame[name] != "").any() or name in wanted or numbers.get(name) in wanted]
    if len(filled) < 2:
        raise ValueError(
            f"{source} has one column only, such as {frame[filled[0]].iat[0][:50]!r}, but label and text are needed: "
            "columns stand apart by commas in .csv files and by tabs in .tsv files"
        )
    return _pick_label_and_text(frame, frame[filled], numbers, wanted, source)


def _pick_label_and_text(frame, filled, numbers, wanted, source):
    """Return what `pick_columns` does, from a whole table with names and its columns that are not empty."""
    nested = frame.attrs.get("nested", {})
    label = _pick_column(frame, filled, wanted[0], numbers, LABEL_COLUMNS, _few_valued(filled), "label", source)
    others = filled.drop(columns=label, errors="ignore")
    lengths = others.map(len).mean().sort_values()
    longest = list(lengths.index[-1:]) if len(lengths) == 1 or lengths.iloc[-1] > 2 * lengths.iloc[-2] else []
    text = _pick_column(frame, filled, wanted[1], numbers, set(TEXT_COLUMNS) - {label}, longest, "text", source)
    if label == text:
        raise ValueError(f"label and text of {source} cannot both be in column {label!r}")
    for name, what in ((label, "label"), (text, "text")):
        if name in nested:
            raise ValueError(f"{source}, line {nested[name][0] + 1}: {name} is {nested[name][1]}, but must be a {what}")
    labels = frame[label].str.strip().str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)  # 1.0 is 1
    return pd.DataFrame({"label": labels, "text": frame[text]}), {"label": label, "text": text}


def _label_key(label):
    """Return what labels have in common that mean the same: the number, or the word in small letters."""
    word = str(label).strip().casefold()  # of True, too, which is no 1 here
    try:
        number = float(word)
    except ValueError:
        return word
    return word if math.isnan(number) else number


def _list_labels(labels):
    """Return the labels of a Series, with how often each is there and where first, as a text."""
    counts = labels.value_counts().sort_index()
    first = {label: (labels == label).idxmax() + 1 for label in counts.index[:20]}
    return ", ".join(f"{label[:50]!r} {counts[label]} times (first in row {row})" for label, row in first.items())


def _is_missing(labels):
    return labels.str.strip().str.lower().isin(MISSING)


def pick_classes(labels, source, classes=None):
    """Return the labels of the two classes, as [[those of class 0], [those of class 1, the positive one]].

    Without `classes` there must be two labels, and no row without one; of spellings that mean the same, such as Spam
    and spam, the most frequent counts. Positive is the larger number, else one that says so ("yes", "pos", "spam",
    ...), else the later in the alphabet. Raises ValueError listing the labels with their counts.
    """
    known = sorted(set(labels))
    if classes is not None:
        keys = {_label_key(label) for label in known}
        absent = sorted({str(label) for one in classes for label in one if _label_key(label) not in keys})
        if absent:
            raise ValueError(f"CLASSES names {absent}, but the labels of {source} are {_list_labels(labels)}")
        return [[str(label) for label in one] for one in classes]
    if count := int(_is_missing(labels).sum()):
        empty, other = (next((v for v in known if (v.strip().lower() in MISSING) == e), "1") for e in (True, False))
        raise ValueError(
            f"{count:,} rows of {source} have no label: {_list_labels(labels)}. Label them, leave them out by saying "
            f"the others in CLASSES, or set CLASSES = [[{empty!r}], [{other!r}]] if no label means the other class"
        )
    known = list({_label_key(label): label for label in labels.value_counts(ascending=True).index}.values())
    if len(known) != 2:
        raise ValueError(
            f"{source} has {len(known)} different labels, but two are needed: {_list_labels(labels)}. Correct it, or "
            'say in CLASSES which make up the two classes, such as [["1", "2"], ["4", "5"]]; others are left out'
        )
    try:
        ordered = sorted(known, key=float)
    except ValueError:
        ordered = sorted(known, key=lambda label: (label.lower() in POSITIVE_VALUES, label))
    return [[label] for label in ordered]


def binary_labels(labels, classes):
    """Return the labels that belong to one of two `classes` (see `pick_classes`) as a Series of 0 and 1.

    Labels that mean the same are equal: 1 and 1.0, Spam and spam, unless both are in `classes`.
    """
    number = {label: i for i, one in enumerate(classes) for label in one}
    alike = {}
    for label, i in number.items():
        alike.setdefault(_label_key(label), set()).add(i)
    others = {label: alike.get(_label_key(label), set()) for label in set(labels) - set(number)}
    number |= {label: min(found) for label, found in others.items() if len(found) == 1}
    return labels[labels.isin(number)].map(number).astype(int)


def require_classes(labels, classes, source, train):
    """Raise ValueError if rows of the file to judge with, `source`, have labels that those of `train` do not."""
    other = labels.drop(binary_labels(labels, classes).index)
    if other.empty:
        return
    if _is_missing(other).sum() == len(labels):
        raise ValueError(f"{source} has no labels: move it out of the folder; predict_file is for such files")
    raise ValueError(
        f"{len(other):,} of the {len(labels):,} rows of {source} have other labels than {classes}, those of {train}: "
        f"{_list_labels(other)}. Correct them, or set CLASSES to {classes} to leave them out"
    )
