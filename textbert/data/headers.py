"""The first row of a table: does it name the columns, and which of them may hold labels."""

import pandas as pd

from textbert.data.labels import NA_VALUES, is_missing, label_key
from textbert.data.quoting import is_name, is_number, is_question

LABEL_COLUMNS = ("label", "labels", "target", "sentiment", "polarity", "stars", "rating", "class", "category")

TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "message", "body", "tweet")


def count_values(column):
    """Return how many values there are, but in a column of many without those that mean none."""
    values = column.drop_duplicates()
    return len(values) if len(values) > 50 else len(values) - is_missing(values).sum()


def find_low_cardinality_columns(frame):
    """Return the columns that may hold labels: two values, else a few that come again and again."""
    counts = frame.agg(count_values)
    few = list(counts.index[counts == 2]) or list(counts.index[(counts > 2) & (counts <= min(20, len(frame) / 2))])
    return few or list(counts.index[counts <= min(20, len(frame) / 2)])


def is_numbered(first):
    """Tell whether a row is pandas' own header, 0, 1, 2, ..., perhaps with an empty name for the index before it."""
    names = first[1:] if first[0] == "" else first
    return len(names) > 1 and names == [str(i) for i in range(len(names))]


def _has_known_name(frame):
    """Return True if the first row has a usual name that is no value of its column."""
    first = {name: frame[name].iat[0].strip().lower() for name in frame}
    first = {name: cell for name, cell in first.items() if cell in LABEL_COLUMNS + TEXT_COLUMNS}
    return any(not (frame[name][1:].str.strip().str.lower() == cell).any() for name, cell in first.items())


def has_header(frame, source):
    """Return True if the first row names the columns; ValueError if that cannot be told.

    It does if it has a usual name, or names where others have numbers, or words that are no labels and shorter than
    texts are, or questions above numbers or labels. It does not if it has a number or a label where the others have.
    """
    rest = frame[1:]
    if rest.empty or _has_known_name(frame):
        return _has_known_name(frame)
    title, *others = frame.iloc[0]
    if others and not any(others) and title not in set(rest.iloc[:, 0]):
        raise ValueError(f"{source}: its first row, {title[:50]!r}, seems to be a title: delete that row")
    first = {name: cell for name, cell in frame.iloc[0].items() if cell.strip()}
    numbers = {name for name in first if is_number(rest[name]).mean() > 0.9 and (rest[name] != "").any()}
    named = [n for n in numbers if not is_number(frame[n][:1]).iat[0] and label_key(first[n]) not in NA_VALUES]
    few = [name for name in find_low_cardinality_columns(rest) if name in first]
    labels = {name: {*NA_VALUES, *map(label_key, rest[name].unique())} for name in few}
    if len(named) < len(numbers) or not (few or numbers) or is_number(pd.Series(list(first.values()))).any():
        return False
    lengths = {name: rest[name].map(len) for name in first if name not in {*few, *numbers}}
    if any(label_key(first[name]) in labels[name] for name in few):
        if not any(first[name].isidentifier() and 2 * len(first[name]) < lengths[name].min() for name in lengths):
            return False
    elif (named and len({*few, *numbers}) > 1) or any(is_question(first[n], n in numbers) for n in {*few, *numbers}):
        return True
    elif all(map(is_name, first.values())):
        longest = max(lengths, key=lambda name: lengths[name].median(), default=None)
        if named or longest is None or len(first[longest]) < lengths[longest].median():
            return True
    shown = [cell[:30] for cell in first.values()]
    raise ValueError(
        f"{source}: cannot tell whether its first row, {shown}, is a header. If it is, give its names in TEXT_COLUMN "
        "and LABEL_COLUMN; if not, write a header above it, such as label,text"
    )


def name_columns(frame, wanted, source):
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
        which = "ID_COLUMN" if name in wanted[2:] else which
        raise ValueError(f"{source}: the name {name!r} is there twice: give its number, {places}, in {which}")
    return frame[1:].set_axis([n if n and n not in twice else number for number, n in zip(frame, names)], axis=1)
