"""Ids of the rows of a table: a column of ids, or else the row numbers that a spreadsheet shows."""

import re

import pandas as pd

# "id", "Ticket ID", "review_id", "uuid", "ticketId", "Ticket No.", "CaseNumber", but not "paid" nor "casino"
ID_COLUMN_NAME = re.compile(
    r"(?i:(?:.*[\W_])?(?:ids?|guid|uuid|uid|key|no\.?|nr\.?|number)|\w*nummer|.*#)"
    r"|.*[a-z\d](?:I[dD]|Guid|G?UUID|Uuid|Key|No|Nr|Number)"
)

# names of other columns beside the ids, in predictions.csv and in the report
RESERVED_NAMES = ("label", "predicted", "probability", "text", "TF-IDF", "BERT")


def find_id_fault(ids: pd.Series) -> str | None:
    """Return why a Series of strings cannot identify rows, with the first rows at fault; None if it can."""
    faults = {
        "is empty": ids.str.strip() == "",
        "has a tab or line break": ids.str.contains(r"[\t\r\n]"),
        "has duplicates": ids.str.strip().duplicated(keep=False),
    }
    for fault, is_faulty in faults.items():
        if count := int(is_faulty.sum()):
            rows = ", ".join(str(row + 1) for row in ids.index[is_faulty][:5])
            return f"it {fault} in {count:,} rows, e.g. {rows} ({ids[is_faulty].iat[0][:30]!r})"
    return None


def find_ids(frame: pd.DataFrame, source: str) -> int | str | None:
    """Return the name of the column of ids of a table, None if there is none or more than one.

    It is the one called "id" or "_id", else the only one that has a name usual for ids and no faults. If a column is
    rejected, the reason is printed.

    frame : table of strings, whose index is the row number in a spreadsheet minus 1
    source : name of the table, for messages
    """
    names = [name for name in frame if isinstance(name, str) and ID_COLUMN_NAME.fullmatch(name.strip())]
    faults = {name: find_id_fault(frame[name]) for name in names}
    faultless = [name for name, fault in faults.items() if fault is None]
    candidates = [name for name in faultless if name.strip().lower() in ("id", "_id")] or faultless
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        print(f"{source}: using row numbers as ids; several columns could be ids. Set ID_COLUMN to one of {faultless}")
    elif faults:
        reasons = "; ".join(f"not {name!r}: {fault}" for name, fault in faults.items())
        print(f"{source}: using row numbers as ids, {reasons}. Set ID_COLUMN to use another column")
    return None


def agree_on_ids(
    frames: dict[str, pd.DataFrame], columns: dict[str, dict[str, int | str]]
) -> tuple[dict[str, pd.DataFrame], int | str | None]:
    """Return (the tables with ids in all of them or in none, the name of the column of ids or None).

    If only one of two tables has ids, that is printed, and both use row numbers. The name is that in the table to
    evaluate on.

    frames, columns : dicts from "train" and "dev" to the two results of `infer_columns`
    """
    names = {table: roles["id"] for table, roles in columns.items() if "id" in roles}
    if len(names) == len(frames):
        return frames, list(names.values())[-1]
    for table, name in names.items():
        print(f"Using row numbers as ids: only the table for {table} has an id column, {name!r}")
    return {table: frame.drop(columns="id", errors="ignore") for table, frame in frames.items()}, None


def name_id_column(id_column: int | str | None) -> str:
    """Return the name of the id column in results: its name in the table, or "row" for None (row numbers).

    It is "id" if the column has only a number, or if results have another column of that name.
    """
    if id_column is None:
        return "row"
    return id_column if isinstance(id_column, str) and id_column.strip() and id_column not in RESERVED_NAMES else "id"
