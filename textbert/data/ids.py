"""What the rows of a table are called: by a column of ids of its own, else by their number in a spreadsheet."""

import re

# "id", "Ticket ID", "review_id", "uuid", "ticketId", "Ticket No.", "CaseNumber", but not "paid" nor "casino"
USUAL_NAME = re.compile(
    r"(?i:(?:.*[\W_])?(?:ids?|guid|uuid|uid|key|no\.?|nr\.?|number)|\w*nummer|.*#)"
    r"|.*[a-z\d](?:I[dD]|Guid|G?UUID|Uuid|Key|No|Nr|Number)"
)

# names of other columns beside the ids, in predictions.csv and in the report
TAKEN = ("label", "predicted", "probability", "text", "TF-IDF", "BERT")


def find_id_fault(ids):
    """Return why a Series of strings cannot tell rows apart, with the first such row; None if it can."""
    faults = {
        "is empty": ids.str.strip() == "",
        "has a tab or line break": ids.str.contains(r"[\t\r\n]"),
        "repeats": ids.str.strip().duplicated(keep=False),
    }
    for what, wrong in faults.items():
        if count := int(wrong.sum()):
            rows = ", ".join(str(row + 1) for row in ids.index[wrong][:5])
            return f"it {what} in {count:,} rows, such as {rows} ({ids[wrong].iat[0][:30]!r})"
    return None


def find_ids(frame, source):
    """Return the name of the column that holds the ids of a table's rows, None if there is none without doubt.

    That is the one called "id", else the only one with a usual name, whose values are all different; what is in doubt
    is printed. `frame` has strings, and the row minus 1 as its index.
    """
    named = [name for name in frame if isinstance(name, str) and USUAL_NAME.fullmatch(name.strip())]
    faults = {name: find_id_fault(frame[name]) for name in named}
    found = [name for name, fault in faults.items() if fault is None]
    best = [name for name in found if name.strip().lower() in ("id", "_id")] or found
    if len(best) == 1:
        return best[0]
    if found:
        print(f"{source}: row numbers serve as ids, as several columns could: set ID_COLUMN to one of {found}")
    elif faults:
        why = "; ".join(f"not {name!r}, {fault}" for name, fault in faults.items())
        print(f"{source}: row numbers serve as ids, {why}. ID_COLUMN takes another column")
    return None


def agree_on_ids(frames, columns):
    """Return (the frames of `infer_columns`, with ids in all or in none; what the ids' column is called, or None).

    frames, columns : dicts from "train" and "dev" to the two results of `infer_columns`

    Where only one of two tables has ids, that is printed, and both do without. Their column has the name that it has
    in the table to evaluate on.
    """
    found = {name: taken["id"] for name, taken in columns.items() if "id" in taken}
    if len(found) == len(frames):
        return frames, list(found.values())[-1]
    for name, column in found.items():
        print(f"Row numbers serve as ids: only the table for {name} has such a column, {column!r}")
    return {name: frame.drop(columns="id", errors="ignore") for name, frame in frames.items()}, None


def name_id_column(id_column):
    """Return what the ids are called in results: as in their table, "row" for None (the rows' numbers).

    It is "id" where the column has a number only, or the name of another column there.
    """
    if id_column is None:
        return "row"
    return id_column if isinstance(id_column, str) and id_column.strip() and id_column not in TAKEN else "id"
