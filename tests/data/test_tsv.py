"""BERT's TSV: what is read is what was written, and what would break the table is refused."""

import os
import re

import numpy as np
import pandas as pd
import pytest
from conftest import texts
from hypothesis import example, given
from hypothesis import strategies as st

import tools
from textbert.data import tsv
from textbert.utils import files


def make_frame(rows):
    """Return a frame like those that data_prep.ipynb writes, from a list of texts; the labels alternate."""
    return pd.DataFrame(
        {"id": range(len(rows)), "label": [i % 2 for i in range(len(rows))], "alpha": "a", "text": rows}
    )


def test_clean_text_by_hand():
    uncleaned = pd.Series(
        ["a\tb", "a\r\nb", "a\rb\n", "a\\nb", "a\\\nb", "\x85\u2028\x0b\x1c", "a \n\r b", 'NA "x" <br />']
    )
    cleaned = tools.clean_text(uncleaned, True)
    assert cleaned.tolist() == ["a b", "a b", "a b ", "a b", "a\\ b", "\x85\u2028\x0b\x1c", "a    b", 'NA "x" <br />']
    assert tools.clean_text(pd.Series(["C:\\new\nd\\\r"]), escaped_newlines=False).tolist() == ["C:\\new d\\ "]


@given(rows=st.lists(texts, min_size=2))
@example(rows=["NA", "null", '"', '""a', "'", "a\x85b", "a\u2028b", "\x1c", "\x0b", "", " ", "\ufeff", "a\x00b", "\\n"])
def test_tsv_round_trip(tmp_path, rows):
    frame = make_frame(rows)
    frame["text"] = tools.clean_text(frame["text"], True)
    tsv.write_tsv(frame, tmp_path / "train.tsv")
    examples = tools.BinaryClassificationProcessor().get_train_examples(tmp_path)
    # an independent, plainer way to clean them
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
    with pytest.raises(ValueError, match="column text contains a tab or line break"):
        tsv.write_tsv(make_frame(["fine", broken]), path)
    assert path.read_text() == "old"


def test_a_table_is_never_half_written(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    # an unpaired surrogate cannot be written as UTF-8: this fails after some rows have been written
    with pytest.raises(UnicodeEncodeError):
        tsv.write_tsv(make_frame(["x" * 100_000, "fine", "\ud800"]), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]


def test_a_task_is_written_completely_or_not_at_all(tmp_path):
    tsv.write_task({"train": make_frame(["one", "two"]), "dev": make_frame(["three"])}, ["bad", "good"], tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    assert written == {
        "train.tsv": b"0\t0\ta\tone\n1\t1\ta\ttwo\n",
        "dev.tsv": b"0\t0\ta\tthree\n",
        "labels.json": b'{"label_names": ["bad", "good"]}\n',
    }
    with pytest.raises(UnicodeEncodeError):
        tsv.write_task({"train": make_frame(["new"]), "dev": make_frame(["\ud800"])}, ["good", "bad"], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")} == written
    assert not list(tmp_path.glob(".*.tmp"))


def test_read_tsv_rows(make_file):
    path = make_file("r1\t0\ta\tone\nr2\t1\ta\t\n", "train.tsv")
    assert list(tsv.read_tsv_rows(path)) == [("r1", "0", "one"), ("r2", "1", "")]
    path = make_file("r1\tham\ta\tone\nr2\tspam\ta\ttwo\n", "train.tsv")
    assert [label for _, label, _ in tsv.read_tsv_rows(path, labels=["ham", "spam"])] == ["ham", "spam"]
    with pytest.raises(ValueError, match="line 1 has the label 'ham', expected 0 or 1"):
        next(tsv.read_tsv_rows(path))
    path = make_file("r1\t0.5\ta\tone\n", "train.tsv")
    assert list(tsv.read_tsv_rows(path, "regression")) == [("r1", "0.5", "one")]


def test_label_names(tmp_path):
    assert tsv.read_label_names(tmp_path) == ["0", "1"]
    files.write_text(tmp_path / "labels.json", '{"label_names": ["bad", "good"]}')
    assert tsv.read_label_names(tmp_path) == ["bad", "good"]


def test_task_info(tmp_path):
    unknown = {"label_names": ["0", "1"], "text_column": None, "id_column": "id"}
    unknown |= {"group_column": None, "time_column": None, "near_duplicates": None, "classes": None, "tables": {}}
    assert tsv.read_task_info(tmp_path) == unknown
    files.write_text(
        tmp_path / "labels.json",
        '{"label_names": ["bad", "good"], "id_column": [1], "classes": [["a"], ["a"]], "tables": 3, '
        '"near_duplicates": []}',
    )
    assert tsv.read_task_info(tmp_path) == unknown | {"label_names": ["bad", "good"]}
    (tmp_path / "train.csv").write_text("1,a\n")
    about = {
        "text_column": [1, "body"],
        "id_column": None,
        "group_column": "customer",
        "time_column": 3,
        "near_duplicates": "together",
        "classes": [["1"], ["4", "5"]],
    }
    about |= {"tables": {"train": tsv.describe_table(tmp_path / "train.csv")}}
    frames = {"train": make_frame(["one", "two"])}
    tsv.write_task(frames, ["bad", "good"], tmp_path, about, {tmp_path / "report.csv": "x,y\n"})
    assert tsv.read_task_info(tmp_path) == {"label_names": ["bad", "good"]} | about
    assert (tmp_path / "report.csv").read_text() == "x,y\n"
    with pytest.raises(UnicodeEncodeError):
        tsv.write_task({"train": make_frame(["\ud800"])}, ["a", "b"], tmp_path, {}, {tmp_path / "report.csv": "new"})
    assert (tmp_path / "report.csv").read_text() == "x,y\n"


def test_groups_belong_to_their_train_tsv(tmp_path):
    """They are refused if train.tsv has changed or they are missing, and removed if there are none any more."""
    frames, about = {"train": make_frame(["one", "two", "three"])}, {"group_column": "customer"}
    assert tsv.read_groups(tmp_path) is None
    tsv.write_task(frames, ["a", "b"], tmp_path, about, groups=np.array([1, 0, 1]))
    assert tsv.read_groups(tmp_path).tolist() == [1, 0, 1] and tsv.read_groups(tmp_path, np.array([1])).tolist() == [0]
    path, train = tmp_path / tsv.GROUPS_FILE, tmp_path / "train.tsv"
    content, lines = path.read_text(), train.read_text()
    for text in (lines + "4\t0\ta\tfour\n", lines.replace("two", "six")):
        train.write_text(text)
        with pytest.raises(ValueError, match=r"train_groups\.json does not belong to .*train\.tsv, which has changed"):
            tsv.read_groups(tmp_path)
    train.write_text(lines)
    for damaged in ("", "[]", "{}", content[:-9]):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"train_groups\.json does not belong to"):
            tsv.read_groups(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"train_groups\.json is missing, which has the groups of 'customer'"):
        tsv.read_groups(tmp_path)
    path.write_text(content)
    tsv.write_task(frames, ["a", "b"], tmp_path)
    assert tsv.read_groups(tmp_path) is None and not path.exists()


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "..", ["x"], None, 5])
def test_invalid_file_names_are_skipped(tmp_path, name):
    tsv.write_task({}, ["0", "1"], tmp_path, {"tables": {"train": {"file": name, "bytes": 1}}})
    assert tsv.find_changed_tables(tmp_path) == []


@pytest.mark.parametrize("content", ["1,b\n", "1,a\n1,b\n"])
def test_a_changed_table_is_noticed_by_its_content(tmp_path, content):
    table = tmp_path / "train.csv"
    table.write_text("1,a\n")
    tsv.write_task({}, ["0", "1"], tmp_path, {"tables": {"train": tsv.describe_table(table)}})
    assert tsv.find_changed_tables(tmp_path) == []
    time = table.stat().st_mtime_ns
    table.write_text(content)
    os.utime(table, ns=(time, time))
    (sentence,) = tsv.find_changed_tables(tmp_path)
    assert "train.csv has changed since data_prep.ipynb made train.tsv from it. Run data_prep.ipynb" in sentence
    table.write_text("1,a\n")  # its first content again
    assert tsv.find_changed_tables(tmp_path) == []
    table.unlink()
    assert tsv.find_changed_tables(tmp_path) == []


@pytest.mark.parametrize("size", [1, 7, 60, 2**20])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_chunks_of_a_file_are_whole_lines_in_order(tmp_path, monkeypatch, size, end):
    monkeypatch.setattr(tsv.TsvChunk, "CHUNK_BYTES", size)
    rows = ["good\x85ly \u2028 soup", "", "caf\u00e9 \x0b\x1c", "x" * 99, " a \x0c b"] * 3
    path = tmp_path / "train.tsv"
    path.write_bytes(("\n".join(f"{i}\t{i % 2}\ta\t{text}" for i, text in enumerate(rows)) + end).encode())
    chunks = tsv.TsvChunk.split(path)
    assert (len(chunks) == 15) == (size == 1) and (len(chunks) == 1) == (size == 2**20)
    assert all(size < chunk.stop - chunk.start < size + 120 for chunk in chunks[:-1])  # lines have at most 120 bytes
    assert [chunk.start for chunk in chunks] == [0, *(chunk.stop for chunk in chunks[:-1])]
    assert chunks[-1].stop == path.stat().st_size
    assert [pair for chunk in chunks for pair in chunk] == [(text, None) for text in rows]


def test_an_empty_file_has_no_chunks(make_file):
    assert tsv.TsvChunk.split(make_file("", "train.tsv")) == []
