"""From texts to BERT's table and to examples: nothing is lost on the way, and bad input is named."""

import re

import pandas as pd
import pytest
from conftest import texts
from hypothesis import example, given
from hypothesis import strategies as st

import tools


def make_frame(rows):
    """Return what data_prep.ipynb writes, from a list of texts; labels alternate."""
    return pd.DataFrame(
        {"id": range(len(rows)), "label": [i % 2 for i in range(len(rows))], "alpha": "a", "text": rows}
    )


def read_tsv(path):
    return tools.BinaryClassificationProcessor().get_examples(path)


# ---------- BERT's four columns ---------------------------------------------------------------------------------------


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
    tools.write_tsv(frame, tmp_path / "train.tsv")
    examples = tools.BinaryClassificationProcessor().get_train_examples(tmp_path)
    # cleaned by a second, plainer hand
    expected = [re.sub(r"\r\n|[\t\r\n]", " ", text.replace("\\n", "\t")) for text in rows]
    assert [e.text_a for e in examples] == expected
    assert [e.text_a for e in examples] == frame["text"].tolist()
    assert [e.guid for e in examples] == [str(i) for i in range(len(rows))]
    assert [e.label for e in examples] == [str(i % 2) for i in range(len(rows))]
    assert all(e.text_b is None for e in examples)


def test_the_tsv_is_plain_text_without_quoting(tmp_path):
    tools.write_tsv(make_frame(['"quoted"', "caf\u00e9\u2028x"]), tmp_path / "dev.tsv")
    assert (tmp_path / "dev.tsv").read_bytes() == '0\t0\ta\t"quoted"\n1\t1\ta\tcafé\u2028x\n'.encode()
    examples = tools.BinaryClassificationProcessor().get_dev_examples(tmp_path)
    assert [e.text_a for e in examples] == ['"quoted"', "café\u2028x"]


@pytest.mark.parametrize("broken", ["a\tb", "a\nb", "a\rb"])
def test_write_tsv_refuses_what_would_break_the_table(tmp_path, broken):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    with pytest.raises(ValueError, match="column text holds a tab or line break"):
        tools.write_tsv(make_frame(["fine", broken]), path)
    assert path.read_text() == "old"


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("old")
    # an unpaired surrogate cannot be written as UTF-8: the failure comes after some rows were
    with pytest.raises(UnicodeEncodeError):
        tools.write_tsv(make_frame(["x" * 100_000, "fine", "\ud800"]), path)
    with pytest.raises(UnicodeEncodeError):
        tools.write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]


def test_replacing_keeps_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), tools.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with tools.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_processor():
    processor = tools.BinaryClassificationProcessor()
    assert isinstance(processor, tools.DataProcessor)
    assert processor.get_labels() == ["0", "1"]
    for unwritten in (tools.DataProcessor().get_labels, lambda: tools.DataProcessor().get_dev_examples("data")):
        with pytest.raises(NotImplementedError):
            unwritten()


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_missing_tsv_names_the_notebook_that_makes_it(tmp_path, split):
    processor = tools.BinaryClassificationProcessor()
    read = {"train": processor.get_train_examples, "dev": processor.get_dev_examples}[split]
    with pytest.raises(FileNotFoundError, match=rf"{split}\.tsv is missing: data_prep\.ipynb makes it"):
        read(tmp_path)


def test_tsv_with_windows_line_ends_and_without_the_last_one(make_file):
    examples = read_tsv(make_file("0\t0\ta\tcold\r\n1\t1\ta\twarm", "train.tsv"))
    assert [(e.guid, e.label, e.text_a) for e in examples] == [("0", "0", "cold"), ("1", "1", "warm")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.tsv has 0 examples"),
        (b"0\t0\ta\tx\n1\t1\tx\n", r"train\.tsv, line 2 has 3 columns"),
        (b"0\t0\ta\tx\ty\n", r"train\.tsv, line 1 has 5 columns"),
        (b"0\t0\ta\tx\n\n", r"train\.tsv, line 2 has 1 columns"),
        (b"0,0,a,x\n", r"train\.tsv, line 1 has 1 columns"),
        (b"id\tlabel\talpha\ttext\n0\t0\ta\tx\n", r"train\.tsv, line 1 has the label 'label'.*header"),
        (b"0\t0\ta\tx\n1\t4\ta\ty\n", r"train\.tsv, line 2 has the label '4'"),
        (b"0\t1\ta\tx\n1\t2\ta\ty\n", r"train\.tsv, line 2 has the label '2'"),  # Yelp's labels, not yet turned
        (b"0\t1\ta\tx\n1\t1\ta\ty\n", r"train\.tsv has 2 examples.*\['1'\]"),
        (b"0\t1\ta\tx\n1\t0\ta\tcaf\xe9", r"train\.tsv.* line 2\b.*byte 10\b.*0xe9.*UTF-8"),
        (b"0\t1\ta\tx\n1\t0\ta\ty\xe9z\n", r"train\.tsv.* line 2\b.*byte 8\b.*0xe9.*UTF-8"),
    ],
)
def test_tsv_refuses(make_file, content, message):
    with pytest.raises(ValueError, match=message):
        read_tsv(make_file(content, "train.tsv"))


def test_regression_takes_any_finite_number(make_file):
    processor = tools.BinaryClassificationProcessor()
    path = make_file("0\t-2.5\ta\tx\n1\t1e3\ta\ty\n", "train.tsv")
    assert [float(e.label) for e in processor.get_examples(path, "regression")] == [-2.5, 1000.0]
    for bad in ("nan", "inf", "x", ""):
        path = make_file(f"0\t1.5\ta\tx\n1\t{bad}\ta\ty\n", "train.tsv")
        with pytest.raises(ValueError, match=f"line 2 has the label '{bad}'"):
            processor.get_examples(path, "regression")


def test_label_names(tmp_path):
    assert tools.read_label_names(tmp_path) == ["0", "1"]
    tools.write_text(tmp_path / "labels.json", '{"label_names": ["bad", "good"]}')
    assert tools.read_label_names(tmp_path) == ["bad", "good"]


def test_disk_space_says_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(tools.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_500_000_000}))
    tools.require_disk_space(tmp_path, 1_500_000_000)
    with pytest.raises(OSError, match=r"2,500 MB .* 1,500 MB"):
        tools.require_disk_space(tmp_path, 2_500_000_000)
