"""The columns of a table: whether its first row names them, and which of them may hold labels or texts."""

import re
from collections.abc import Collection, Hashable, Iterable, Mapping

import pandas as pd

from textbert.data.labels import NA_VALUES, is_missing, normalize_label
from textbert.data.quoting import MAX_LABEL_VALUES

LABEL_COLUMNS = ("label", "labels", "target", "sentiment", "polarity", "stars", "rating", "class", "category")

TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "message", "body", "tweet")

MAX_NAME_LENGTH, MAX_NAME_WORDS = 50, 4

SAMPLE_ROWS = 1000  # from which the content of a column is inferred


def is_number(cells: pd.Series) -> pd.Series:
    """Return which cells are numbers, dates, or empty, as a boolean Series."""
    return cells.str.fullmatch(r"[-+.,:/%\s\d]*(?:\d[-+.,:/%T\s\dZ]*)?")


def is_id(cells: pd.Series) -> pd.Series:
    """Return which cells are one word of ASCII characters with a digit, as a boolean Series."""
    return cells.str.fullmatch(r"[!-~]*\d[!-~]*")


def is_name(cell: str) -> bool:
    """Return True if a cell may be a column's name: short, and not a sentence. "Ticket No." and "Nr." are names."""
    cell = re.sub(r"\b(No|Nr)\.$", r"\1", cell.rstrip())
    is_short = len(cell) <= MAX_NAME_LENGTH and len(cell.split()) <= MAX_NAME_WORDS
    return is_short and not cell.endswith((".", "!", "?", "\u3002"))  # the last is the full stop of Chinese


def is_question(cell: str, above_numbers: bool = True) -> bool:
    """Return True if a cell is a question or an instruction, as survey forms have in the first row of their tables.

    above_numbers : also accept what has four words or more, or ends in a scale such as (0/1)
    """
    words, cell = len(cell.split()), cell.rstrip()
    if cell.endswith(("\uff1f", "\uff1a")) or (words > 2 and cell.endswith(("?", ":"))):  # full-width, and ASCII
        return True
    return above_numbers and (words >= 4 or bool(re.search(r"\w ?\([^()]*\d[^()]*\)$", cell)))


def count_values(column: pd.Series) -> int:
    """Return the number of different values; missing ones such as "n/a" do not count, unless there are many values."""
    values = column.drop_duplicates()
    return len(values) if len(values) > 50 else len(values) - is_missing(values).sum()


def find_low_cardinality_columns(frame: pd.DataFrame) -> list:
    """Return the names of the columns that may hold labels: those with two values, else with a few that repeat."""
    counts, limit = frame.agg(count_values), min(MAX_LABEL_VALUES, len(frame) / 2)
    binary, few = counts == 2, counts <= limit
    for matches in (binary, few & (counts > 2), few):
        if matches.any():
            return list(counts.index[matches])
    return []


def is_numbered(cells: list[str]) -> bool:
    """Return True if a row is pandas' default header: 0, 1, 2, ..., perhaps after an empty name for the index."""
    names = cells[1:] if cells[0] == "" else cells
    return len(names) > 1 and names == [str(i) for i in range(len(names))]


def _has_usual_name(frame: pd.DataFrame) -> bool:
    """Return True if a cell of the first row is a usual name of a column, and not a value of the same column below."""
    first = {name: frame[name].iat[0].strip().lower() for name in frame}
    first = {name: cell for name, cell in first.items() if cell in LABEL_COLUMNS + TEXT_COLUMNS}
    return any(not (frame[name][1:].str.strip().str.lower() == cell).any() for name, cell in first.items())


def _is_header_by_kind(first: dict, below: pd.DataFrame) -> bool | None:
    """Return whether the cells of a first row differ in kind from those below it; None if that is unclear.

    first : the cells that are not empty, by column
    below : the other rows
    """
    numeric_columns = {name for name in first if is_number(below[name]).mean() > 0.9 and (below[name] != "").any()}
    names_above_numbers = {
        n
        for n in numeric_columns
        if not is_number(pd.Series([first[n]])).iat[0] and normalize_label(first[n]) not in NA_VALUES
    }
    label_columns = [name for name in find_low_cardinality_columns(below) if name in first]
    values = {name: {*NA_VALUES, *map(normalize_label, below[name].unique())} for name in label_columns}
    typed_columns = {*label_columns, *numeric_columns}
    has_number = is_number(pd.Series(list(first.values()))).any()
    if has_number or len(names_above_numbers) < len(numeric_columns) or not typed_columns:
        return False
    lengths = {name: below[name].map(len) for name in first if name not in typed_columns}
    if any(normalize_label(first[name]) in values[name] for name in label_columns):
        # "spam" above labels, but the cell above the texts is a name such as "message"
        has_name = any(first[name].isidentifier() and 2 * len(first[name]) < lengths[name].min() for name in lengths)
        return None if has_name else False
    has_question = any(is_question(first[name], name in numeric_columns) for name in typed_columns)
    if has_question or (names_above_numbers and len(typed_columns) > 1):
        return True
    if all(map(is_name, first.values())):
        longest = max(lengths, key=lambda name: lengths[name].median(), default=None)
        if names_above_numbers or longest is None or len(first[longest]) < lengths[longest].median():
            return True
    return None


def has_header(frame: pd.DataFrame, source: str) -> bool:
    """Return True if the first row of a table names its columns.

    It does if it has a usual name, or names where other rows have numbers, or words that are not labels and are
    shorter than the texts, or questions above numbers or labels. It does not if it has a number or a label where other
    rows have them. Raises ValueError if this is not clear.
    """
    below = frame[1:]
    if below.empty or _has_usual_name(frame):
        return _has_usual_name(frame)
    title, *cells = frame.iloc[0]
    if cells and not any(cells) and title not in set(below.iloc[:, 0]):
        raise ValueError(f"{source}: its first row, {title[:50]!r}, seems to be a title: delete that row")
    first = {name: cell for name, cell in frame.iloc[0].items() if cell.strip()}
    is_header = _is_header_by_kind(first, below)
    if is_header is None:
        preview = [cell[:30] for cell in first.values()]
        raise ValueError(
            f"{source}: cannot tell whether its first row, {preview}, is a header. If it is, set TEXT_COLUMN and "
            "LABEL_COLUMN to names in it; if not, add a header above it, such as label,text"
        )
    return is_header


def name_columns(frame: pd.DataFrame, requested: Mapping[str, list], source: str) -> pd.DataFrame:
    """Return a table without its first row, whose cells become the names of the columns.

    A column without a name, or with the name of another column, keeps its number.

    requested : dict from the roles label, text, ... to the names or numbers of their columns, [] if to be inferred

    Raises ValueError if a requested name occurs twice, or a usual one does and fewer than two numbers are requested.
    """
    names = [name.strip() for name in frame.iloc[0]]
    duplicates = {name for name in names if names.count(name) > 1 and name}
    ambiguous = duplicates & {name for columns in requested.values() for name in columns}
    if not ambiguous and sum(any(type(name) is int for name in columns) for columns in requested.values()) < 2:
        ambiguous = {name for name in duplicates if name.lower() in LABEL_COLUMNS + TEXT_COLUMNS}
    if ambiguous:
        name = min(ambiguous)
        positions = " or ".join(str(number) for number, other in zip(frame, names) if other == name)
        inferred = "label" if name.lower() in LABEL_COLUMNS else "text"
        role = next((role for role, columns in requested.items() if name in columns), inferred)
        raise ValueError(
            f"{source}: column name {name!r} is not unique: set {role.upper()}_COLUMN to a number, {positions}"
        )
    labels = [name if name and name not in duplicates else number for number, name in zip(frame, names)]
    return frame[1:].set_axis(labels, axis=1)


def apply_header(frame: pd.DataFrame, requested: Mapping[str, list], source: str) -> pd.DataFrame:
    """Return a table whose first row, if that is a header, has been removed and names the columns."""
    if 0 not in frame.columns or frame.empty:
        return frame
    columns = frame.loc[:, (frame != "").any()]  # without the empty ones
    if is_numbered(columns.iloc[0].tolist()):
        return frame[1:]
    if any(isinstance(name, str) for columns in requested.values() for name in columns) or has_header(columns, source):
        return name_columns(frame, requested, source)
    return frame


def _with_usual_name(names: Iterable, usual_names: Collection[str]) -> list:
    return [name for name in names if str(name).strip().lower() in usual_names]


def infer_label_columns(candidates: pd.DataFrame) -> list:
    """Return the columns that may hold the label: one with a usual name, else those with a few values.

    "class" and "category" are also names of other things, and do not count where another column has two values.
    """
    low_cardinality = find_low_cardinality_columns(candidates)
    counts = candidates.agg(count_values)
    is_few = (counts >= 2) & (counts <= max(2, min(MAX_LABEL_VALUES, len(candidates) / 2)))
    plausible = list(counts.index[is_few]) or low_cardinality
    plausible = [name for name in plausible if str(name).strip().lower() not in TEXT_COLUMNS] or plausible
    certain, vague = (LABEL_COLUMNS[:3], LABEL_COLUMNS[3:7]), LABEL_COLUMNS[7:]
    for usual_names in certain:
        if matches := _with_usual_name(candidates, usual_names):
            return matches
    matches = _with_usual_name(candidates, vague)
    return matches if matches and not set(plausible) - set(matches) else plausible


def infer_text_columns(candidates: pd.DataFrame, label: Hashable) -> list:
    """Return the columns that may hold the text: one with a usual name, else the one with by far the longest texts."""
    matches = _with_usual_name(candidates, set(TEXT_COLUMNS) - {label})
    if len(matches) == 1:
        return matches
    unlabelled = candidates.drop(columns=label, errors="ignore")
    head = unlabelled[:SAMPLE_ROWS]
    wordy = [name for name in unlabelled if (is_id(head[name]) | is_number(head[name])).mean() < 0.9]
    lengths = unlabelled[wordy or list(unlabelled)].map(len).mean().sort_values()
    has_longest = len(lengths) == 1 or lengths.iloc[-1] > 2 * lengths.iloc[-2]
    return list(lengths.index[-1:]) if has_longest else []
