"""Texts in several columns of a table; test_tables.py has the rest, from the bytes of a table to its columns."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbert.data.columns import infer_columns, join_texts

HEADER = ("nr", "customer", "subject", "body", "priority", "escalated")


def make_table(rows=12):
    """Return a table of tickets as `read_table` does, with the header in its first row."""
    tickets = [
        (f"T{i}", f"customer {i % 4}", f"the printer number {i}", f"it prints nothing {i} " * 3, "high", "ny"[i % 2])
        for i in range(rows)
    ]
    return pd.DataFrame([HEADER, *tickets], dtype=object)


def test_texts_are_joined_in_the_order_given():
    table = make_table()
    table.iloc[3, 3], table.iloc[4, 2], table.iloc[5, 2:4] = " \t", "", ""
    for columns, order in ((["subject", "body"], (2, 3)), (["body", 2], (3, 2)), ([3, "subject"], (3, 2))):
        frame, names = infer_columns(table, "train.csv", columns, "escalated")
        assert names == {"label": "escalated", "text": [HEADER[i] for i in order]}
        expected = [" ".join(row[i] for i in order if row[i].strip()) for row in table[1:].to_numpy().tolist()]
        assert frame["text"].tolist() == expected and len(frame) == 12  # a ticket without a body stays
        assert frame["text"].tolist()[4] == ""
    one = infer_columns(table, "train.csv", ["body"], "escalated")
    assert one[1]["text"] == "body" and one[0].equals(infer_columns(table, "train.csv", "body", "escalated")[0])


def test_columns_that_are_not_used_are_named(capsys):
    infer_columns(make_table(), "train.csv", ["body", "subject"], "escalated")
    assert capsys.readouterr().out == ""
    infer_columns(make_table().assign(more=["note", *["call me back"] * 12]), "x", ["body", "subject"], "escalated")
    assert capsys.readouterr().out == (
        "x: BERT reads only the columns 'body', 'subject', not 'note'. "
        "TEXT_COLUMN = ['subject', 'body', 'note'] joins them\n"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["subject", "mail"], "train.csv has no column 'mail'. Columns"),
        (["subject", 2], r"TEXT_COLUMN is \['subject', 2\], but must name each column of train.csv only once"),
        (["subject", "escalated"], "label and text of train.csv cannot both be in column 'escalated'"),
    ],
)
def test_invalid_lists_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        infer_columns(make_table(), "train.csv", columns, "escalated")
    with pytest.raises(ValueError, match="ID_COLUMN is 'body', but that column holds the text"):
        infer_columns(make_table(), "train.csv", ["subject", "body"], "escalated", "body")


def test_a_name_that_occurs_twice_is_refused():
    table = make_table()
    table.iloc[0, 4] = "body"
    with pytest.raises(ValueError, match="column name 'body' is not unique: set TEXT_COLUMN to a number, 3 or 4"):
        infer_columns(table, "train.csv", ["subject", "body"], "escalated")
    assert infer_columns(table, "train.csv", [2, 3], 5)[1]["text"] == ["subject", 3]


@given(st.lists(st.text(), min_size=2))
def test_joining_skips_empty_parts_and_changes_nothing_else(parts):
    joined = join_texts(parts)
    assert joined.replace(" ", "") == "".join(part for part in parts if part.strip()).replace(" ", "")
    assert joined.split() == " ".join(parts).split()


def test_a_column_of_groups_is_neither_label_nor_text_nor_id(capsys):
    table = make_table()
    table.iloc[1:, 4] = [f"customer {i} with a very long name " * 9 for i in range(12)]  # the longest texts
    table.iloc[0, 4] = "customer_id"
    for column in ("customer_id", 4):
        frame, names = infer_columns(table, "train.csv", "body", "escalated", None, column)
        assert names == {"label": "escalated", "text": "body", "group": "customer_id", "id": "nr"}
        assert frame["group"].tolist() == table.iloc[1:, 4].tolist() and list(frame) == ["label", "text", "group", "id"]
    frame, names = infer_columns(table, "train.csv", "body", None, "nr", "customer")
    assert names["id"] == "nr" and frame["group"].nunique() == 4


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("client", "train.csv has no column 'client'"),
        ("body", "GROUP_COLUMN is 'body', but that column holds the text"),
        (5, "GROUP_COLUMN is 'escalated', but that column holds the label"),
    ],
)
def test_invalid_columns_of_groups_are_refused(column, message):
    with pytest.raises(ValueError, match=message):
        infer_columns(make_table(), "train.csv", ["subject", "body"], "escalated", group_column=column)


def test_a_column_of_times_has_no_other_role():
    table = make_table()
    table.iloc[0, 4], table.iloc[1:, 4] = "created_id", [f"2025-03-{i + 1:02}" for i in range(12)]
    frame, names = infer_columns(table, "train.csv", "body", "escalated", None, None, "created_id")
    assert names == {"label": "escalated", "text": "body", "time": "created_id", "id": "nr"}
    assert frame["time"].tolist()[0] == "2025-03-01"
    with pytest.raises(ValueError, match="TIME_COLUMN is 'body', but that column holds the text"):
        infer_columns(table, "train.csv", "body", "escalated", None, None, "body")
