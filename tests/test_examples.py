"""From CSV to examples: nothing is lost on the way, and bad input is named."""

import csv
import re

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tools

# any text there is (surrogates are not text), with more than chance of what breaks tables
HARD = "\t\r\n\"',\\ \x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\ufeff"
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(HARD))


@pytest.fixture
def make_file(tmp_path):
    """A function that writes bytes (or text as UTF-8) to a file called `name` and returns its path."""

    def write(content, name="train.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def make_frame(rows):
    """Return what data_prep.ipynb writes, from a list of texts; labels alternate."""
    return pd.DataFrame(
        {"id": range(len(rows)), "label": [i % 2 for i in range(len(rows))], "alpha": "a", "text": rows}
    )


def read_tsv(path):
    return tools.BinaryClassificationProcessor().get_examples(path)


# ---------- The Yelp format -------------------------------------------------------------------------------------------


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("1", "NA"), ("2", "null"), ("2", ""), ("1", "nan"), ("2", "None")], end="\n")
@example(rows=[("1", 'say "hi", twice'), ("2", "a\x00b"), ("2", "\x85"), ("1", " a ")], end="\r\n")
def test_read_csv_returns_exactly_what_was_written(tmp_path, rows, end):
    path = tmp_path / "train.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
    frame = tools.read_csv(path)
    assert list(frame.columns) == ["label", "text"]
    assert list(frame.itertuples(index=False, name=None)) == rows


def test_read_csv_takes_what_spreadsheets_write(make_file):
    # a byte order mark, \r\n, blank lines, and quotes only where needed
    frame = tools.read_csv(make_file('\ufeff1,cold soup\r\n\r\n"2","caf\u00e9, ""nice"""\r\n'))
    assert frame.values.tolist() == [["1", "cold soup"], ["2", 'café, "nice"']]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.csv is empty"),
        (b"\xef\xbb\xbf\r\n\r\n", r"train\.csv is empty"),
        (b"1,a,b\n2,c\n", r"train\.csv.*line 1 has 3 columns"),
        (b"1,a\n2,c\n1,d,e\n", r"train\.csv.*line 3 has 3 columns"),
        (b'1,"two\nlines"\n2,c,d,e\n', r"train\.csv.*line 3 has 4 columns"),
        (b"1\n2\n", r"train\.csv.*line 1 has 1 columns"),
        (b"1,a\n2\n1,c\n", r"train\.csv.*line 2 has 1 columns"),  # pandas alone reads an empty text here
        (b"1\ta\n2\tb\n", r"train\.csv.*line 1 has 1 columns"),  # a TSV under another name
        (b'1,a\n2,"b\n1,c\n', r"train\.csv, line 3.*quote"),
        (b"1,a\n2,caf\xe9\n", r"train\.csv.* line 2\b.*byte 6\b.*0xe9.*UTF-8"),
        ("1,a\n2,b\n".encode("utf-16"), r"train\.csv.* line 1\b.*byte 1\b.*0xff.*UTF-8"),
    ],
)
def test_read_csv_refuses(make_file, content, message):
    with pytest.raises(ValueError, match=message):
        tools.read_csv(make_file(content))


def test_read_csv_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv is missing"):
        tools.read_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize("labels", [["1", "2", "2", "1"], ["0", "1", "1", "0"], [" 1", "2 ", "2", "1"]])
def test_binary_labels(labels):
    binary = tools.binary_labels(pd.Series(labels), "train.csv")
    assert binary.tolist() == [0, 1, 1, 0]
    assert binary.dtype.kind == "i"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "4", "2"], r"train\.csv: row 2 has the label '4'"),
        (["1", "2", "2.0"], r"row 3 has the label '2\.0'"),
        (["1", "2", ""], r"row 3 has the label ''"),
        (["label", "1", "2"], r"row 1 has the label 'label'.*header"),
        (["1", "1"], r"train\.csv: two classes.*'1' 2 times"),
        (["0"], r"'0' 1 times"),
        (["0", "1", "2", "2"], r"'0' 1 times, '1' 1 times, '2' 2 times"),
        (["0", "2"], r"'0' 1 times, '2' 1 times"),
    ],
)
def test_binary_labels_refuses(labels, message):
    with pytest.raises(ValueError, match=message):
        tools.binary_labels(pd.Series(labels), "train.csv")


@pytest.mark.parametrize("labels", [["1", "4", "2"], ["1", "2", "label"]])
def test_binary_labels_sees_a_header_in_the_first_row_only(labels):
    with pytest.raises(ValueError) as raised:
        tools.binary_labels(pd.Series(labels), "train.csv")
    assert "header" not in str(raised.value)


# ---------- BERT's four columns ---------------------------------------------------------------------------------------


def test_clean_text_by_hand():
    given_texts = pd.Series(
        ["a\tb", "a\r\nb", "a\rb\n", "a\\nb", "a\\\nb", "\x85\u2028\x0b\x1c", "a \n\r b", 'NA "x" <br />']
    )
    cleaned = tools.clean_text(given_texts)
    assert cleaned.tolist() == ["a b", "a b", "a b ", "a b", "a\\ b", "\x85\u2028\x0b\x1c", "a    b", 'NA "x" <br />']
    assert tools.clean_text(pd.Series(["a\\nb\nc"]), escaped_newlines=False).tolist() == ["a\\nb c"]


@given(rows=st.lists(texts, min_size=2))
@example(rows=["NA", "null", '"', '""a', "'", "a\x85b", "a\u2028b", "\x1c", "\x0b", "", " ", "\ufeff", "a\x00b", "\\n"])
def test_tsv_round_trip(tmp_path, rows):
    frame = make_frame(rows)
    frame["text"] = tools.clean_text(frame["text"])
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
