"""Ids of a table's own stay with their texts, or rows are called by the number that a spreadsheet shows."""

import csv
import io
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tools
from textbert.data import ids, tables, tsv
from textbert.data import labels as data_labels

TEXTS = [f"a text of some length, number {i}" for i in range(9)]


def make_table(header, own, texts=TEXTS):
    rows = [(one, "bg"[i % 2], text) for i, (one, text) in enumerate(zip(own, texts))]
    return pd.DataFrame([header, *rows], dtype=object)


def pick(header, own, id_column=None):
    return tables.infer_columns(make_table(header, own), "train.csv", None, None, id_column)


@pytest.mark.parametrize(
    "name", ["id", "ID", "Ticket ID", "review_id", "reviewId", "uuid", "GUID", "key", "doc.id", "_id"]
)
def test_a_column_of_ids_is_found(name):
    own = ["007", "1.0", "a b", "NA", "x", "y", "z", "é", "-1"]
    frame, names = pick((name, "label", "text"), own)
    assert names == {"label": "label", "text": "text", "id": name}
    assert frame["id"].tolist() == own and frame["text"].tolist() == TEXTS


@pytest.mark.parametrize("name", ["paid", "valid", "score", "idea", "monkey"])
def test_other_names_are_no_ids(name, capsys):
    assert pick((name, "label", "text"), map(str, range(9)))[1].keys() == {"label", "text"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (list("abcdefgha"), "it repeats in 2 rows, such as 2, 10"),
        (list("abcdefgh") + [" "], "it is empty in 1 rows, such as 10"),
        (list("abcdefgh") + ["i\tj"], "it has a tab or line break in 1 rows, such as 10"),
    ],
)
def test_ids_that_tell_no_rows_apart(own, why, capsys):
    frame, names = pick(("user_id", "label", "text"), own)
    assert "id" not in frame and "id" not in names
    assert why in (out := capsys.readouterr().out) and "ID_COLUMN" in out
    with pytest.raises(ValueError, match=f"ID_COLUMN is 'user_id', but {why}"):
        pick(("user_id", "label", "text"), own, "user_id")


def test_several_columns_of_ids_are_asked_about(capsys):
    table = make_table(("review_id", "label", "text"), "abcdefghi")
    table.insert(0, "other", ["ticket_id", *"123456789"])
    table = table.set_axis(range(4), axis=1)
    assert "id" not in tables.infer_columns(table, "train.csv", id_column=None)[0]
    assert "set ID_COLUMN to one of ['ticket_id', 'review_id']" in capsys.readouterr().out
    for wanted in ("ticket_id", 0):
        frame, names = tables.infer_columns(table, "train.csv", id_column=wanted)
        assert frame["id"].tolist() == list("123456789") and names["id"] == "ticket_id"


@pytest.mark.parametrize("name", ["Ticket No.", "Ticket Number", "Ticket#", "CaseNumber", "Nr", "Vorgangsnummer"])
def test_numbers_of_tickets_are_ids(name):
    assert pick((name, "label", "text"), "abcdefghi")[1]["id"] == name


def test_a_header_with_an_abbreviation_is_one():
    table = make_table(("Ticket-Nr.", "Eskaliert", "Beschreibung"), [f"INC{i}" for i in range(9)])
    assert tables.infer_columns(table, "x.csv", id_column=None)[1]["id"] == "Ticket-Nr."


def test_the_column_called_id_is_taken_before_others(capsys):
    table = make_table(("ID", "label", "text"), "abcdefghi")
    table.insert(0, "other", ["parent_id", *"123456789"])
    assert tables.infer_columns(table.set_axis(range(4), axis=1), "train.csv", id_column=None)[1]["id"] == "ID"
    assert capsys.readouterr().out == ""


def test_ids_that_only_white_space_tells_apart(capsys):
    assert "id" not in pick(("id", "label", "text"), ["1", " 1", *"2345678"])[1]
    assert "it repeats in 2 rows" in capsys.readouterr().out


def test_lists_and_objects_are_no_ids(make_file):
    rows = [{"_id": {"$oid": f"a{i}"}, "label": i % 2, "text": f"the text of number {i}"} for i in range(9)]
    table = tables.read_table(make_file("".join(json.dumps(row) + "\n" for row in rows), "train.jsonl"))
    assert "id" not in tables.infer_columns(table, "train.jsonl", id_column=None)[1]
    with pytest.raises(ValueError, match="line 1: _id is an object, but must be an id"):
        tables.infer_columns(table, "train.jsonl", id_column="_id")


def test_a_given_column_must_be_there_and_be_another():
    with pytest.raises(ValueError, match="train.csv has no column 'nr'"):
        pick(("id", "label", "text"), "abcdefghi", "nr")
    with pytest.raises(ValueError, match="ID_COLUMN"):
        tables.infer_columns(make_table(("id", "label", "text"), "abcdefghi"), "x", "text", "label", "text")


def test_two_tables_agree(capsys):
    with_ids, without = pick(("id", "label", "text"), "abcdefghi"), pick(("x", "label", "text"), "abcdefghi")
    frames, name = ids.agree_on_ids(
        {"train": with_ids[0], "dev": with_ids[0]}, {"train": with_ids[1], "dev": with_ids[1]}
    )
    assert name == "id" and all("id" in frame for frame in frames.values()) and capsys.readouterr().out == ""
    frames, name = ids.agree_on_ids(
        {"train": with_ids[0], "dev": without[0]}, {"train": with_ids[1], "dev": without[1]}
    )
    assert name is None and not any("id" in frame for frame in frames.values())
    assert "only the table for train has such a column, 'id'" in capsys.readouterr().out


def test_what_ids_are_called_in_results():
    named = {None: "row", "ticket": "ticket", 0: "id", "text": "id", "label": "id", "probability": "id", " ": "id"}
    assert {one: ids.name_id_column(one) for one in named} == named


cells = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\x00"), min_size=1, max_size=8)


@given(
    own=st.lists(cells.filter(str.strip), min_size=6, max_size=12, unique=True),
    empty=st.sets(st.integers(1, 12), max_size=4),
    has_ids=st.booleans(),
    classes=st.sampled_from([None, [["bad"], ["good"]]]),
)
def test_ids_belong_to_the_text_of_the_same_row(tmp_path, own, empty, has_ids, classes):
    """Also where rows are empty or have other labels: to the TSV and back."""
    labels = ["Bad", "good", "so-so" if classes else "GOOD"]
    texts = [f"the text that belongs to number {i}" for i in range(len(own))]
    rows = [["my id" if has_ids else "x", "label", "text"]]
    rows += [[one, labels[i % 3], text] for i, (one, text) in enumerate(zip(own, texts))]
    for place in sorted(empty & set(range(len(rows)))):
        rows.insert(place, ["", "", ""])
    frame, names = tables.infer_columns(pd.DataFrame(rows, dtype=object), "x.csv", "text", "label", None)
    binary = data_labels.encode_labels(frame["label"], data_labels.infer_classes(frame["label"], "x.csv", classes))
    kept = frame.loc[binary.index]
    own_id = kept["id"] if has_ids else kept.index + 1
    columns = {"id": own_id, "label": binary, "alpha": "a", "text": kept["text"]}
    tsv.write_tsv(pd.DataFrame(columns), tmp_path / "train.tsv")
    read = list(tools.BinaryClassificationProcessor().read_examples(tmp_path / "train.tsv"))
    place = {text: number for number, (_, _, text) in enumerate(rows, start=1) if text}
    for example in read:
        number = int(example.text_a.rsplit(" ", 1)[1])
        assert example.guid == (own[number] if has_ids else str(place[example.text_a]))
        assert example.label == str(int(labels[number % 3].lower() == "good"))
    assert len(read) == sum(label != "so-so" for label in frame["label"]) and len(frame) == len(own)
    assert names.get("id") == ("my id" if has_ids else None)


def test_ids_of_any_kind_survive_predictions(tmp_path):
    """What a spreadsheet or pandas merges on is what stood in the table."""
    own = ["007", "a,b", 'say "hi"', "é", "1e5", "x;y", "#1", "=2", "z"]
    frame, _ = pick(("id", "label", "text"), own)
    written = frame[["id", "text"]].to_csv(index=False)
    assert [row[0] for row in csv.reader(io.StringIO(written))][1:] == own
