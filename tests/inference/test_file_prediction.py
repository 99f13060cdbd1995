"""What predict_file reads and writes: headers detected or given, targets in two formats, and resuming."""

import csv
import io
import json
import os

import numpy as np
import pandas as pd
import pytest
from conftest import texts as any_text
from hypothesis import given
from hypothesis import strategies as st

from textbert.data.csv_reader import read_delimited
from textbert.inference.file_prediction import get_prediction_fingerprint
from textbert.inference.source_table import SourceTable
from textbert.inference.target_file import TargetFile, output_columns
from textbert.utils.errors import ReadError

LONG = ["The soup was cold, and nobody came.", "We liked it here; the tea was hot!", "Never again, I am afraid to say."]


def write(path, rows, **options):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)
    return path


def read(path, **options):
    return pd.read_csv(path, dtype=str, keep_default_na=False, **options)


# ---------- The header ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (["id", "text"], [["1", LONG[0]]]),
        (["", "Review"], [["x", LONG[0]], ["y", LONG[1]]]),
        (["2023", "text"], [["x", LONG[0]], ["y", LONG[1]]]),
        (["0", "1"], [["x", LONG[0]]]),
        (["", "0", "1"], [["0", LONG[0], "x"]]),
        (["Ticket", "Beschreibung"], [[f"T-{i}", text] for i, text in enumerate(LONG)]),
        (["created at", "Beschreibung"], [[f"2024-05-0{i}", text] for i, text in enumerate(LONG, start=1)]),
        (["stars", "opinion"], [["x", text] for text in LONG]),
        (["x", "text"], []),
    ],
)
def test_a_header_is_detected(tmp_path, header, rows):
    path = write(tmp_path / "new.csv", [header, *rows])
    table = SourceTable.open(path, "utf-8", 1)
    assert (table.has_header, table.header, table.count) == (True, header, len(rows))
    assert list(table.read_rows()) == rows


@pytest.mark.parametrize(
    "rows",
    [
        [[label, text] for label, text in zip("121", LONG)],  # as Yelp's
        [[label, text] for label, text in zip(["north", "south", "west"], LONG)],
        [["n/a", LONG[0]], ["3", LONG[1]], ["4", LONG[2]], ["5", LONG[2]]],
        [["a", "good tea"], ["7", "bad soup"], ["8", "fine"], ["9", "no"]],
        [["comment", "not good"], ["question", LONG[1]], ["question", LONG[2]], ["question", LONG[0]]],
        [["label", "text"], ["bad", LONG[0]], ["label", "text"], ["good", LONG[1]]],  # two files put together
        [["Kunde", "Beschreibung"]],
        [["x", "1"], ["y", "2"]],
    ],
)
@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n", "sep=,\n"])
def test_an_ambiguous_header_is_refused(tmp_path, rows, before):
    path = write(tmp_path / "new.csv", rows, quoting=csv.QUOTE_ALL)
    path.write_text(before + path.read_text(), encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot tell whether its first row, .* Set header=True .*, header=False"):
        SourceTable.open(path, "utf-8", 1)
    with_header = SourceTable.open(path, "utf-8", 1, header=True)
    assert (with_header.header, list(with_header.read_rows())) == (rows[0], rows[1:])
    without = SourceTable.open(path, "utf-8", 1, header=False)
    assert (without.header, without.count, list(without.read_rows())) == (["0", "1"], len(rows), rows)


@given(rows=st.lists(st.lists(any_text, min_size=2, max_size=2), min_size=1, max_size=6), name=any_text)
def test_no_row_of_any_table_is_a_header_by_chance(tmp_path_factory, rows, name):
    """With a column number no row is; with a name only one that contains it."""
    path = tmp_path_factory.getbasetemp() / "any.csv"
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    path.write_text(written.getvalue(), encoding="utf-8", newline="")
    for text_column in (0, 1, name):
        try:
            table = SourceTable.open(path, "utf-8", text_column)
        except ValueError:
            continue
        assert not table.has_header or text_column == name and name.strip() in [cell.strip() for cell in table.header]
    try:
        assert SourceTable.open(path, "utf-8", 1, header=False).count == len(rows)
    except ValueError as error:
        assert "header" not in str(error)


def test_a_missing_column_is_named(tmp_path):
    path = write(tmp_path / "new.csv", [["1", LONG[0]], ["2", LONG[1] * 3]])
    with pytest.raises(ValueError, match=r"no column 'text' in its first row, '1', 'The soup.* header=False"):
        SourceTable.open(path, "utf-8", "text")
    with pytest.raises(ValueError, match="text_column is 'text', but must be a number from 0 to 1 with header=False"):
        SourceTable.open(path, "utf-8", "text", header=False)
    with pytest.raises(ValueError, match="has no column 5"):
        SourceTable.open(path, "utf-8", 5, header=True)
    for value in (0, 1, "infer"):  # pandas' 0 is a header in the first row
        with pytest.raises(ValueError, match=f"header is {value!r}, but must be True"):
            SourceTable.open(path, "utf-8", 1, header=value)
    with pytest.raises(ValueError, match="header is 'no', but must be True, False, or None"):
        SourceTable.open(path, "utf-8", 1, header="no")


@pytest.mark.parametrize(
    ("names", "requested", "trained", "column", "message"),
    [
        (["id", "text"], "text", None, 1, ""),
        (["id", "text"], "text", "text", 1, ""),
        (["id", "text"], np.int64(1), 1, 1, "new.csv: the texts are read from the column 'text'\n"),
        (["text", "mail"], "text", "mail", 0, "read from the column 'text'; in training they were in 'mail'"),
        (["id", "mail"], "text", "mail", 1, "read from the column 'mail'\n"),
        (["id", "subject", "mail"], "subject", "mail", 1, "'subject'; in training they were in 'mail'"),
    ],
)
def test_a_column_other_than_in_training_is_reported(tmp_path, capsys, names, requested, trained, column, message):
    path = write(tmp_path / "new.csv", [names, ["1", *LONG][: len(names)]])
    assert SourceTable.open(path, "utf-8", requested, trained_column=trained).columns == [column]
    out = capsys.readouterr().out
    assert message in out if message else out == ""


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path / "new.csv", [["text"], ["good"]])
    table, times = SourceTable.open(path, "utf-8", "text"), path.stat()
    path.write_bytes(path.read_bytes().replace(b"good", b"evil"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match="new.csv changed while it was read"):
        table.check_unchanged()


def test_names_of_added_columns():
    assert output_columns([0, "text"], "it") == ["label", "probability"]
    assert output_columns(["text", " probability "], "it") == ["predicted_label", "predicted_probability"]
    assert output_columns(["text"], "it", has_review=True) == ["label", "probability", "review"]
    assert output_columns(["review"], "it", has_review=True)[-1] == "predicted_review"


# ---------- The target ------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "new.csv", [["text"], ["good"]])


@pytest.mark.parametrize("name", ["a.json", "a.parquet", "a.XLSX", "a.csv.gz", "a.tsv.bz2", "a.html", "a.zst"])
def test_an_extension_of_another_format_is_refused(source, name):
    with pytest.raises(ValueError, match=r"but must be a file other than the source that ends in .csv .*, .tsv"):
        TargetFile(source.with_name(name), source)
    assert os.listdir(source.parent) == ["new.csv"]


@pytest.mark.parametrize(
    ("name", "separator"), [("a.tsv", "\t"), ("B.TSV", "\t"), ("a.csv", ","), ("a.txt", ","), ("a", ",")]
)
def test_the_extension_determines_the_delimiter(classifier, tmp_path, name, separator):
    rows = [["id", "text"], ["1", 'a "b"\tc'], ["2", "x, y; z\r\n|"], ["3", '"'], ["4", "\r"], ["5", "é\\"]]
    source = write(tmp_path / "new.csv", rows, quoting=csv.QUOTE_ALL, lineterminator="\n")
    assert classifier.predict_file(source, tmp_path / name) == 5
    with open(tmp_path / name, encoding="utf-8", newline="") as file:
        assert [row[:2] for row in csv.reader(file, delimiter=separator)] == rows
    found = read(tmp_path / name, sep=separator)
    assert list(found) == ["id", "text", "label", "probability"] and found["text"].tolist()[:2] == [
        rows[1][1],
        rows[2][1],
    ]
    kind = ".tsv" if separator == "\t" else ".csv"
    assert [row[:2] for row in read_delimited(tmp_path / name, kind)[0]] == rows


def test_existing_files_are_not_overwritten(source):
    part = source.with_name("scored.csv.part")
    part.write_text("half of a download")
    with pytest.raises(ValueError, match=r"scored.csv.part is in the way: move it"):
        TargetFile(source.with_name("scored.csv"), source)
    assert part.read_text() == "half of a download"
    other = part.rename(source.with_name("mine.csv.part"))  # a source of that name
    with pytest.raises(ValueError, match="is in the way"):
        TargetFile(source.with_name("mine.csv"), other)
    os.link(source, source.with_name("same.csv"))
    source.with_name("link.csv").symlink_to(source)
    for name in ("same.csv", "link.csv"):
        with pytest.raises(ValueError, match="must be a file other than the source"):
            TargetFile(source.with_name(name), source)


def test_a_target_that_is_a_link_is_kept(classifier, source, tmp_path):
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "scored.csv", tmp_path / "disk" / "real.csv"
    link.symlink_to(real)
    for _ in range(2):
        classifier.predict_file(source, link)
        assert link.is_symlink() and read(real)["text"].tolist() == ["good"]
    assert not list(tmp_path.rglob("*.part*"))


def refuse(path):
    raise PermissionError(13, "denied")


def test_an_unreadable_state_is_an_error(source, monkeypatch):
    target = TargetFile(source.with_name("scored.csv"), source)
    target.resume("mine")
    with open(target.partial_path, "ab") as file:
        target.write(file, [["text"], ["good"]])
        target.save_progress("mine", 1, file.tell(), {"empty": 1})
    done = target.partial_path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(
            type(target.state_path), "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(13, "denied"))
        )
        with pytest.raises(ReadError, match=r"scored.csv.part.json cannot be read \(denied\)"):
            target.resume("mine")
    assert target.partial_path.read_bytes() == done
    assert target.resume("mine") == (1, {"empty": 1})


def test_whatever_affects_predictions_is_in_the_fingerprint(classifier, source):
    table, found = SourceTable.open(source, "utf-8", "text"), []

    def note():
        found.append(get_prediction_fingerprint(classifier, table))

    note()
    classifier.settings["threshold"] = np.float32(0.25)  # as a search with numpy leaves it
    note()
    classifier.tokenizer.basic_tokenizer.never_split = ("[SEP]", "soup")
    note()
    classifier.tokenizer.wordpiece_tokenizer.max_input_chars_per_word = 3
    note()
    assert len(set(found)) == 4


CHANGES = {
    "line ends": lambda content: content.replace(b"\n", b"\r\n"),
    "a word": lambda content: content.replace(b"good", b"evil"),
    "cut short": lambda content: content[:-1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_partial_file_changed_by_an_editor_is_not_resumed(source, capsys, change):
    target = TargetFile(source.with_name("scored.csv"), source)
    target.resume("mine")
    for rows in (1, 2):  # the second after an interruption
        with open(target.partial_path, "ab") as file:
            target.write(file, [["good"]])
            target.save_progress("mine", rows, file.tell(), {})
        assert target.resume("mine") == (rows, {}) and capsys.readouterr().out == ""
    target.partial_path.write_bytes(change(target.partial_path.read_bytes()))
    assert target.resume("mine") == (0, {}) and "was changed after it was written" in capsys.readouterr().out
    assert target.partial_path.read_bytes() == b""


@pytest.mark.parametrize("state", [b"", b"[]", b'{"rows": 1}', b'{"fingerprint": "mine", "bytes": "x"}', b"\xff"])
def test_a_corrupt_state_starts_again(source, capsys, state):
    target = TargetFile(source.with_name("scored.csv"), source)
    target.partial_path.write_bytes(b"text")
    target.state_path.write_bytes(state)
    assert target.resume("mine") == (0, {})
    assert "is corrupt" in capsys.readouterr().out and target.partial_path.read_bytes() == b""
    assert json.loads(target.state_path.read_bytes())["rows"] == 0
    assert target.resume("other") == (0, {}) and "is from a run with another source" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("requested", "trained", "columns", "message"),
    [
        (["subject", "body"], ["subject", "body"], [1, 2], ""),
        (["body", "subject"], None, [2, 1], ""),
        ([" subject "], "subject", [1], "the texts are read from the column 'subject'\n"),
        ([2, "subject"], None, [2, 1], "the texts are read from the columns 'body', 'subject'\n"),
        ([1, 2], None, [1, 2], "the texts are read from the columns 'subject', 'body'\n"),
        ("text", ["subject", "body"], [1, 2], "the texts are read from the columns 'subject', 'body'\n"),
        ("body", ["subject", "body"], [2], "the column 'body'; in training they were in 'subject', 'body'\n"),
        (["body", "subject"], ["subject", "body"], [2, 1], "'body', 'subject'; in training they were in 'subject', "),
    ],
)
def test_several_columns_of_texts(tmp_path, capsys, requested, trained, columns, message):
    path = write(tmp_path / "new.csv", [["id", "subject", "body"], ["1", LONG[0], LONG[1]], ["2", LONG[1], LONG[2]]])
    table = SourceTable.open(path, "utf-8", requested, trained_column=trained)
    assert (table.columns, table.has_header, table.count) == (columns, True, 2)
    printed = capsys.readouterr().out
    assert message in printed and (message != "" or printed == "")


def test_columns_of_training_stand_for_text_only_if_the_file_has_all_of_them(tmp_path):
    path = write(tmp_path / "new.csv", [["id", "body"], ["1", LONG[0]]])
    with pytest.raises(ValueError, match="no column 'text'"):
        SourceTable.open(path, "utf-8", "text", trained_column=["subject", "body"])


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (["subject", "mail"], "no column 'mail'"),
        (["subject", 1], r"text_column is \['subject', 1\], but must be a column, or a list of different columns"),
        ([], r"text_column is \[\], but must be a column"),
        ([0, 7], "no column 7"),
    ],
)
def test_invalid_lists_of_columns_are_refused(tmp_path, requested, message):
    path = write(tmp_path / "new.csv", [["id", "subject", "body"], ["1", LONG[0], LONG[1]]])
    with pytest.raises(ValueError, match=message):
        SourceTable.open(path, "utf-8", requested)
