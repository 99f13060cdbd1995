"""The columns of a table: which of them hold labels, texts and ids, and texts joined from several columns."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from textbert.data.headers import SAMPLE_ROWS, apply_header, infer_label_columns, infer_text_columns
from textbert.data.ids import find_id_fault, find_ids

Column = str | int  # the name of a column, or its number from 0

TextColumns = Column | list[Column]  # one column, or several whose texts are joined


def list_columns(columns: TextColumns | None) -> list[Column]:
    """Return one column, several, or none as a list."""
    if columns is None:
        return []
    return columns if isinstance(columns, list) else [columns]


def join_texts(parts: Sequence[str]) -> str:
    """Return the texts that a row has in several columns as one text, for training as well as for prediction.

    They are joined by a space, and parts that are empty or white space are skipped. A single part is returned as it is.
    """
    return parts[0] if len(parts) == 1 else " ".join(part for part in parts if part.strip())


def infer_columns(
    frame: pd.DataFrame,
    source: str,
    text_column: TextColumns | None = None,
    label_column: Column | None = None,
    id_column: Column | bool | None = False,
    group_column: Column | None = None,
    time_column: Column | None = None,
) -> tuple[pd.DataFrame, dict]:
    """Find the columns of label and text in a table of `read_table`, and the ids of its rows.

    source : the name of the table, for messages
    text_column, label_column : name or number of the column, None to infer it: by a usual name, else as the one with
        by far the longest texts, or the only one with two or a few values. Several text columns are joined in the
        order given, see `join_texts`
    id_column : name or number of the column of ids, None to find one (see `ids.find_ids`), False for no ids
    group_column, time_column : name or number of the column of groups, and of that of times, None for none

    Returns (a DataFrame with the columns `label`, `text` and, if there are such columns, `group`, `time` and `id`; a
    dict from these to the names in the table, or to the list of them that `text_column` was). Its index is the row,
    counted from 0 with the header. Empty rows are dropped, and columns of texts that are not used are printed. Raises
    ValueError where it is not clear which column it is, and if ids are not unique.
    """
    roles = {"label": label_column, "text": text_column, "id": None if id_column is False else id_column}
    roles |= {"group": group_column, "time": time_column}
    requested = {role: list_columns(columns) for role, columns in roles.items()}
    frame = apply_header(_drop_empty_rows(frame, source), requested, source)
    if frame.empty:
        raise ValueError(
            f"{source} has no rows below its header {list(frame.columns)}: add some, or set TRAIN_FILE or TEST_FILE to "
            "another table"
        )
    if not frame.columns.is_unique:
        raise ValueError(f"{source} has columns of the same name, {list(frame.columns)}: rename one of them")
    extra_names = {
        role: _find_requested(frame, requested[role][0], role, source)
        for role in ("group", "time", "id")
        if requested[role]
    }
    candidates = _find_candidates(frame, requested, extra_names.values())
    if candidates.shape[1] < 2:
        cell = frame[[*candidates, *extra_names.values()][0]].iat[0][:50]
        raise ValueError(
            f"{source} has only one column, such as {cell!r}: expected label and text, separated by commas in .csv "
            "files and by tabs in .tsv files"
        )
    label, texts = _find_label_and_texts(frame, candidates, requested, source)
    labels = frame[label].str.strip().str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)  # 1.0 is 1
    columns = pd.DataFrame({"label": labels, "text": _join_columns(frame, texts)})
    names = {"label": label, "text": texts[0] if len(texts) == 1 else texts}
    if id_column is None:
        used_names = [label, *texts, *extra_names.values(), *frame.attrs.get("nested", ())]
        ids = find_ids(frame.drop(columns=used_names, errors="ignore"), source)
        extra_names |= {} if ids is None else {"id": ids}
    for role, name in extra_names.items():
        _check_role(frame, role, name, {"label": [label], "text": texts}, source)
    return columns.assign(**{role: frame[name] for role, name in extra_names.items()}), names | extra_names


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


def _join_columns(frame: pd.DataFrame, names: list) -> pd.Series:
    """Return a column, or several joined, as a Series of texts."""
    if len(names) == 1:
        return frame[names[0]]
    return pd.Series(map(join_texts, zip(*(frame[name] for name in names))), frame.index, object)


def _find_candidates(
    frame: pd.DataFrame, requested: Mapping[str, list], excluded: Collection[Hashable]
) -> pd.DataFrame:
    """Return the columns that may hold label or text: not excluded ones, such as the ids, and not empty.

    While one of the two is to be inferred, an empty column with a name stays.
    """
    infers_column = not (requested["label"] and requested["text"])
    requested_names = {name for names in requested.values() for name in names}
    names = [
        name
        for position, name in enumerate(frame)
        if (frame[name] != "").any() or name in requested_names or (infers_column and name != position)
    ]
    return frame[[name for name in names if name not in excluded]]


def _hint_unlabelled(role: str, source: str) -> str:
    if role != "label":
        return ""
    return f"; if {source} has no labels, move it out of the folder: predict_file is for such files"


def _find_requested(frame: pd.DataFrame, column: Hashable, role: str, source: str) -> Hashable:
    """Return the name of a column, given by its name or its number from 0. Raises ValueError if there is none.

    role : what it holds, such as "label" or "id", for the message
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
        + (", or to a list of them, whose texts are joined" if role == "text" else "")
        + _hint_unlabelled(role, source)
    )


def _find_label_and_texts(
    frame: pd.DataFrame, candidates: pd.DataFrame, requested: Mapping[str, list], source: str
) -> tuple[Hashable, list]:
    """Return the column of the label and those of the text, as requested or inferred from the candidates."""
    if requested["label"]:
        label = _find_requested(frame, requested["label"][0], "label", source)
    else:
        label = _check_unique(infer_label_columns(candidates), candidates, "label", source)
    if requested["text"]:
        texts = [_find_requested(frame, column, "text", source) for column in requested["text"]]
    else:
        texts = [_check_unique(infer_text_columns(candidates, label), candidates, "text", source)]
    if label in texts:
        raise ValueError(f"label and text of {source} cannot both be in column {label!r}")
    if len(set(texts)) < len(texts):
        raise ValueError(f"TEXT_COLUMN is {requested['text']}, but must name each column of {source} only once")
    _check_not_nested(frame, [("a label", label), *(("a text", text) for text in texts)], source)
    _print_unused_texts(candidates, label, texts, source)
    return label, texts


def _print_unused_texts(candidates: pd.DataFrame, label: Hashable, texts: list, source: str) -> None:
    """Print which other columns have texts of three words or more, and how to use them."""
    remaining = [name for name in candidates if name not in (label, *texts)]
    unused = [name for name in remaining if candidates[name][:SAMPLE_ROWS].str.split().str.len().mean() >= 3]
    if unused:
        unused_names = ", ".join(map(repr, unused))
        all_texts = [name for name in candidates if name in (*texts, *unused)]
        column = f"column {texts[0]!r}" if len(texts) == 1 else f"the columns {', '.join(map(repr, texts))}"
        print(f"{source}: BERT reads only {column}, not {unused_names}. TEXT_COLUMN = {all_texts} joins them")


def _check_not_nested(frame: pd.DataFrame, names: Iterable[tuple[str, Hashable]], source: str) -> None:
    """Raise ValueError if a column holds lists or objects; `names` are pairs of what is expected and the column."""
    nested = frame.attrs.get("nested", {})
    for expected, name in names:
        if name in nested:
            index, actual = nested[name]
            raise ValueError(f"{source}, line {index + 1}: {name} is {actual}, but must be {expected}")


def _check_role(frame: pd.DataFrame, role: str, name: Hashable, names: Mapping[str, list], source: str) -> None:
    """Raise ValueError if a column cannot be that of ids, groups or times; `names` are those of label and text."""
    _check_not_nested(frame, [(f"{'an' if role == 'id' else 'a'} {role}", name)], source)
    setting = f"{role.upper()}_COLUMN"
    for other_role, columns in names.items():
        if name in columns:
            raise ValueError(f"{source}: {setting} is {name!r}, but that column holds the {other_role}")
    if role == "id" and (fault := find_id_fault(frame[name])):
        raise ValueError(
            f"{source}: {setting} is {name!r}, but {fault}: expected a different id in each row. Correct them, or set "
            f"{setting} = None"
        )
