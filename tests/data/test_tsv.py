"""BERT's four columns: what is written is read, what would break the table is refused."""

import os
import re

import pandas as pd
import pytest
from conftest import texts
from hypothesis import example, given
from hypothesis import strategies as st

import tools
from textbert.data import tsv
from textbert.utils import files


def make_frame(rows):
    """Return what data_prep.ipynb writes, from a list of texts; labels alternate."""
    return pd.DataFrame(
        {"id": range(len(rows)), "label": [i % 2 for i in range(len(rows))], "alpha": "a", "text": rows}
    )


def test_clean_text_by_hand():
    given_texts = pd.Series(
        ["a\tb", "a\r\nb", "a\rb\n", "a\\nb", "a\\\nb", "\x85\u2028\x0b\x1c", "a \n\r b", 'NA "x" <br />']
    )
    cleaned = tools.clean_text(given_texts, True)
    assert cleaned.tolist() == ["a b", "a b", "a b ", "a b", "a\\ b", "\x85\u2028\x0b\x1c", "a    b", 'NA "x" <br />']
    assert tools.clean_text(pd.Series(["C:\\new\nd\\\r"]), escaped_newlines=False).tolist() == ["C:\\new d\\ "]


@given(rows=st.lists(texts, min_size=2))
@example(rows=["NA", "null", '"', '""a', "'", "a\x85b", "a\u2028b", "\x1c", "\x0b", "", " ", "\ufeff", "a\x00b", "\\n"])
def test_tsv_round_trip(tmp_path, rows):
    frame = make_frame(rows)
    frame["text"] = tools.clean_text(frame["text"], True)
    tsv.write_tsv(frame, tmp_path / "train.tsv")
    examples = tools.BinaryClassificationProcessor().get_train_examples(tmp_path)
    # cleaned by a second, plainer hand
    expected = [re.sub(r"\r\n|[\t\r\n]", " ", text.replace("\\n", "\t")) for text in rows]
    assert [e.text_a for e in examples] == expected
    assert [e.text_a for e in examples] == frame["text"].tolist()
    assert [e.guid for e in examples] == [str(i) for i in range(len(rows))]
    assert [e.label for e in examples] == [str(i % 2) for i in range(len(rows))]
    assert all(e.text_b is None for e in examples)


def test_the_tsv_is_plain_text_without_quoting(tmp_path):
    tsv.write_tsv(make_frame(['"quoted"', "caf\u00e9\u2028x"]), tmp_path / "dev.tsv")
    assert (tmp_path / "dev.tsv").read_bytes() == '0\t0\ta\t"quoted"\n1\t1\ta\tcafé\u2028x\n'.encode()
    examples = tools.BinaryClassificationProcessor().get_dev_examples(tmp_path)
    assert [e.text_a for e in examples] == ['"quoted"', "café\u2028x"]


@pytest.mark.parametrize("broken", ["a\tb", "a\nb", "a\rb"])
def test_write_tsv_refuses_what_would_break_the_table(tmp_path, broken):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    with pytest.raises(ValueError, match="column text holds a tab or line break"):
        tsv.write_tsv(make_frame(["fine", broken]), path)
    assert path.read_text() == "old"


def test_a_table_is_never_half_written(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    # an unpaired surrogate cannot be written as UTF-8: the failure comes after some rows were
    with pytest.raises(UnicodeEncodeError):
        tsv.write_tsv(make_frame(["x" * 100_000, "fine", "\ud800"]), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]


def test_a_task_is_written_as_a_whole_or_not_at_all(tmp_path):
    tools.write_task({"train": make_frame(["one", "two"]), "dev": make_frame(["three"])}, ["bad", "good"], tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    assert written == {
        "train.tsv": b"0\t0\ta\tone\n1\t1\ta\ttwo\n",
        "dev.tsv": b"0\t0\ta\tthree\n",
        "labels.json": b'{"label_names": ["bad", "good"]}\n',
    }
    with pytest.raises(UnicodeEncodeError):
        tools.write_task({"train": make_frame(["new"]), "dev": make_frame(["\ud800"])}, ["good", "bad"], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")} == written
    assert not list(tmp_path.glob(".*.tmp"))


def test_label_names(tmp_path):
    assert tsv.read_label_names(tmp_path) == ["0", "1"]
    files.write_text(tmp_path / "labels.json", '{"label_names": ["bad", "good"]}')
    assert tsv.read_label_names(tmp_path) == ["bad", "good"]


def test_what_a_task_says_of_itself(tmp_path):
    unknown = {"label_names": ["0", "1"], "text_column": None, "id_column": "id", "classes": None, "tables": {}}
    assert tsv.read_task_info(tmp_path) == unknown
    files.write_text(
        tmp_path / "labels.json",
        '{"label_names": ["bad", "good"], "id_column": [1], "classes": [["a"], ["a"]], "tables": 3}',
    )
    assert tsv.read_task_info(tmp_path) == unknown | {"label_names": ["bad", "good"]}
    (tmp_path / "train.csv").write_text("1,a\n")
    about = {"text_column": 1, "id_column": None, "classes": [["1"], ["4", "5"]]}
    about |= {"tables": {"train": tsv.describe_table(tmp_path / "train.csv")}}
    frames = {"train": make_frame(["one", "two"])}
    tools.write_task(frames, ["bad", "good"], tmp_path, about, {tmp_path / "report.csv": "x,y\n"})
    assert tsv.read_task_info(tmp_path) == {"label_names": ["bad", "good"]} | about
    assert (tmp_path / "report.csv").read_text() == "x,y\n"
    with pytest.raises(UnicodeEncodeError):
        tools.write_task({"train": make_frame(["\ud800"])}, ["a", "b"], tmp_path, {}, {tmp_path / "report.csv": "new"})
    assert (tmp_path / "report.csv").read_text() == "x,y\n"


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "..", ["x"], None, 5])
def test_what_can_be_no_file_name_is_passed_over(tmp_path, name):
    tools.write_task({}, ["0", "1"], tmp_path, {"tables": {"train": {"file": name, "bytes": 1}}})
    assert tsv.find_changed_tables(tmp_path) == []


@pytest.mark.parametrize("content", ["1,b\n", "1,a\n1,b\n"])
def test_a_table_that_has_changed_is_noticed_by_what_it_holds(tmp_path, content):
    table = tmp_path / "train.csv"
    table.write_text("1,a\n")
    tools.write_task({}, ["0", "1"], tmp_path, {"tables": {"train": tsv.describe_table(table)}})
    assert tsv.find_changed_tables(tmp_path) == []
    time = table.stat().st_mtime_ns
    table.write_text(content)
    os.utime(table, ns=(time, time))
    (sentence,) = tsv.find_changed_tables(tmp_path)
    assert "train.csv has changed since data_prep.ipynb made train.tsv from it: run data_prep.ipynb" in sentence
    table.write_text("1,a\n")  # as it was
    assert tsv.find_changed_tables(tmp_path) == []
    table.unlink()
    assert tsv.find_changed_tables(tmp_path) == []


@pytest.mark.parametrize("size", [1, 7, 60, 2**20])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_parts_of_a_file_are_whole_lines_in_order(tmp_path, monkeypatch, size, end):
    monkeypatch.setattr(tools.TsvChunk, "BYTES", size)
    rows = ["good\x85ly \u2028 soup", "", "caf\u00e9 \x0b\x1c", "x" * 99, " a \x0c b"] * 3
    path = tmp_path / "train.tsv"
    path.write_bytes(("\n".join(f"{i}\t{i % 2}\ta\t{text}" for i, text in enumerate(rows)) + end).encode())
    parts = tools.TsvChunk.split(path)
    assert (len(parts) == 15) == (size == 1) and (len(parts) == 1) == (size == 2**20)
    assert all(size < part.stop - part.start < size + 120 for part in parts[:-1])  # no line has more than 120 bytes
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == path.stat().st_size
    assert [pair for part in parts for pair in part] == [(text, None) for text in rows]


def test_an_empty_file_has_no_parts(make_file):
    assert tools.TsvChunk.split(make_file("", "train.tsv")) == []
