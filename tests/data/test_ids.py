"""Ids stay with their texts; without a column of ids, rows are identified by the number that a spreadsheet shows."""

import csv
import io
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tools
from textbert.data import ids, tables, tsv
from textbert.data.columns import infer_columns
from textbert.data.labels import encode_labels, infer_classes

TEXTS = [f"a text of some length, number {i}" for i in range(9)]


def make_table(header, id_values, texts=TEXTS):
    rows = [(row_id, "bg"[i % 2], text) for i, (row_id, text) in enumerate(zip(id_values, texts))]
    return pd.DataFrame([header, *rows], dtype=object)


def infer(header, id_values, id_column=None):
    return infer_columns(make_table(header, id_values), "train.csv", None, None, id_column)


@pytest.mark.parametrize(
    "name", ["id", "ID", "Ticket ID", "review_id", "reviewId", "uuid", "GUID", "key", "doc.id", "_id"]
)
def test_a_column_of_ids_is_recognized(name):
    id_values = ["007", "1.0", "a b", "NA", "x", "y", "z", "é", "-1"]
    frame, names = infer((name, "label", "text"), id_values)
    assert names == {"label": "label", "text": "text", "id": name}
    assert frame["id"].tolist() == id_values and frame["text"].tolist() == TEXTS


@pytest.mark.parametrize("name", ["paid", "valid", "score", "idea", "monkey"])
def test_other_names_are_not_recognized(name, capsys):
    assert infer((name, "label", "text"), map(str, range(9)))[1].keys() == {"label", "text"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("id_values", "reason"),
    [
        (list("abcdefgha"), "it has duplicates in 2 rows, e.g. 2, 10"),
        (list("abcdefgh") + [" "], "it is empty in 1 rows, e.g. 10"),
        (list("abcdefgh") + ["i\tj"], "it has a tab or line break in 1 rows, e.g. 10"),
    ],
)
def test_a_column_that_does_not_identify_rows(id_values, reason, capsys):
    frame, names = infer(("user_id", "label", "text"), id_values)
    assert "id" not in frame and "id" not in names
    assert reason in (out := capsys.readouterr().out) and "ID_COLUMN" in out
    with pytest.raises(ValueError, match=f"ID_COLUMN is 'user_id', but {reason}"):
        infer(("user_id", "label", "text"), id_values, "user_id")


def test_several_columns_of_ids_need_a_choice(capsys):
    table = make_table(("review_id", "label", "text"), "abcdefghi")
    table.insert(0, "other", ["ticket_id", *"123456789"])
    table = table.set_axis(range(4), axis=1)
    assert "id" not in infer_columns(table, "train.csv", id_column=None)[0]
    assert "Set ID_COLUMN to one of ['ticket_id', 'review_id']" in capsys.readouterr().out
    for id_column in ("ticket_id", 0):
        frame, names = infer_columns(table, "train.csv", id_column=id_column)
        assert frame["id"].tolist() == list("123456789") and names["id"] == "ticket_id"


@pytest.mark.parametrize("name", ["Ticket No.", "Ticket Number", "Ticket#", "CaseNumber", "Nr", "Vorgangsnummer"])
def test_ticket_numbers_are_ids(name):
    assert infer((name, "label", "text"), "abcdefghi")[1]["id"] == name


def test_a_header_with_an_abbreviation_is_recognized():
    table = make_table(("Ticket-Nr.", "Eskaliert", "Beschreibung"), [f"INC{i}" for i in range(9)])
    assert infer_columns(table, "x.csv", id_column=None)[1]["id"] == "Ticket-Nr."


def test_a_column_called_id_comes_first(capsys):
    table = make_table(("ID", "label", "text"), "abcdefghi")
    table.insert(0, "other", ["parent_id", *"123456789"])
    assert infer_columns(table.set_axis(range(4), axis=1), "train.csv", id_column=None)[1]["id"] == "ID"
    assert capsys.readouterr().out == ""


def test_ids_that_differ_only_in_white_space_are_duplicates(capsys):
    assert "id" not in infer(("id", "label", "text"), ["1", " 1", *"2345678"])[1]
    assert "it has duplicates in 2 rows" in capsys.readouterr().out


def test_lists_and_objects_are_not_ids(make_file):
    rows = [{"_id": {"$oid": f"a{i}"}, "label": i % 2, "text": f"the text of number {i}"} for i in range(9)]
    table = tables.read_table(make_file("".join(json.dumps(row) + "\n" for row in rows), "train.jsonl"))
    assert "id" not in infer_columns(table, "train.jsonl", id_column=None)[1]
    with pytest.raises(ValueError, match="line 1: _id is an object, but must be an id"):
        infer_columns(table, "train.jsonl", id_column="_id")


def test_a_requested_column_must_exist_and_have_no_other_role():
    with pytest.raises(ValueError, match="train.csv has no column 'nr'"):
        infer(("id", "label", "text"), "abcdefghi", "nr")
    with pytest.raises(ValueError, match="ID_COLUMN"):
        infer_columns(make_table(("id", "label", "text"), "abcdefghi"), "x", "text", "label", "text")


def test_two_tables_agree(capsys):
    with_ids, without = infer(("id", "label", "text"), "abcdefghi"), infer(("x", "label", "text"), "abcdefghi")
    frames, name = ids.agree_on_ids(
        {"train": with_ids[0], "dev": with_ids[0]}, {"train": with_ids[1], "dev": with_ids[1]}
    )
    assert name == "id" and all("id" in frame for frame in frames.values()) and capsys.readouterr().out == ""
    frames, name = ids.agree_on_ids(
        {"train": with_ids[0], "dev": without[0]}, {"train": with_ids[1], "dev": without[1]}
    )
    assert name is None and not any("id" in frame for frame in frames.values())
    assert "only the table for train has an id column, 'id'" in capsys.readouterr().out


def test_names_of_ids_in_results():
    expected = {None: "row", "ticket": "ticket", 0: "id", "text": "id", "label": "id", "probability": "id", " ": "id"}
    assert {id_column: ids.name_id_column(id_column) for id_column in expected} == expected


cells = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\x00"), min_size=1, max_size=8)


@given(
    id_values=st.lists(cells.filter(str.strip), min_size=6, max_size=12, unique=True),
    empty=st.sets(st.integers(1, 12), max_size=4),
    has_ids=st.booleans(),
    classes=st.sampled_from([None, [["bad"], ["good"]]]),
)
def test_ids_stay_with_the_text_of_their_row(tmp_path, id_values, empty, has_ids, classes):
    """To the TSV and back, also where rows are empty or have other labels."""
    labels = ["Bad", "good", "so-so" if classes else "GOOD"]
    texts = [f"the text that belongs to number {i}" for i in range(len(id_values))]
    rows = [["my id" if has_ids else "x", "label", "text"]]
    rows += [[row_id, labels[i % 3], text] for i, (row_id, text) in enumerate(zip(id_values, texts))]
    for position in sorted(empty & set(range(len(rows)))):
        rows.insert(position, ["", "", ""])
    frame, names = infer_columns(pd.DataFrame(rows, dtype=object), "x.csv", "text", "label", None)
    binary = encode_labels(frame["label"], infer_classes(frame["label"], "x.csv", classes))
    labelled = frame.loc[binary.index]
    row_ids = labelled["id"] if has_ids else labelled.index + 1
    columns = {"id": row_ids, "label": binary, "alpha": "a", "text": labelled["text"]}
    tsv.write_tsv(pd.DataFrame(columns), tmp_path / "train.tsv")
    examples = list(tools.BinaryClassificationProcessor().read_examples(tmp_path / "train.tsv"))
    row_number = {text: number for number, (_, _, text) in enumerate(rows, start=1) if text}
    for example in examples:
        number = int(example.text_a.rsplit(" ", 1)[1])
        assert example.guid == (id_values[number] if has_ids else str(row_number[example.text_a]))
        assert example.label == str(int(labels[number % 3].lower() == "good"))
    assert len(examples) == sum(label != "so-so" for label in frame["label"]) and len(frame) == len(id_values)
    assert names.get("id") == ("my id" if has_ids else None)


def test_ids_of_any_kind_survive_predictions(tmp_path):
    """A spreadsheet or pandas can merge on them, because they are written as they were in the table."""
    id_values = ["007", "a,b", 'say "hi"', "é", "1e5", "x;y", "#1", "=2", "z"]
    frame, _ = infer(("id", "label", "text"), id_values)
    csv_text = frame[["id", "text"]].to_csv(index=False)
    assert [row[0] for row in csv.reader(io.StringIO(csv_text))][1:] == id_values
