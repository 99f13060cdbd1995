"""From any table to labels and texts: nothing is lost on the way, and what is wrong or ambiguous is refused by name."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile

import pandas as pd
import pytest
from conftest import texts
from hypothesis import assume, example, given
from hypothesis import strategies as st

from textbert.data.columns import infer_columns
from textbert.data.labels import encode_labels, infer_classes
from textbert.data.mojibake import MOJIBAKE
from textbert.data.quality import HTML
from textbert.data.tables import find_data_files, read_table

ROWS = [
    ("1", "Cold soup, and \u201ccold\u201d staff."),
    ("2", 'We loved the "caf\u00e9", all of it \U0001f600'),
    ("1", "NA"),
    ("2", " null "),
    ("1", "C:\\new\u2028B\x85C"),
    ("2", "warm and friendly, as always"),
]


def to_csv(rows, end="\n", quoting=csv.QUOTE_MINIMAL):
    file = io.StringIO()
    csv.writer(file, quoting=quoting, lineterminator=end).writerows(rows)
    return file.getvalue()


def to_tsv(rows):
    return "".join("\t".join(row) + "\n" for row in rows)


def to_jsonl(rows, names=("label", "text")):
    return "".join(json.dumps(dict(zip(names, row))) + "\n" for row in rows)


def compress_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside", content)
    return file.getvalue()


COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": compress_zip}
WRITE = {"csv": to_csv, "tsv": to_tsv, "jsonl": to_jsonl}


def rows_of(frame):
    return list(frame.itertuples(index=False, name=None))


def read_columns(path, **columns):
    """Read a table and return (its labels and texts as a list, the names of their columns)."""
    frame, names = infer_columns(read_table(path), path.name, **columns)
    return rows_of(frame), names


# ---------- Reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("extension", WRITE)
def test_each_extension_compressed_or_not(make_file, extension, compression):
    content = COMPRESS[compression](WRITE[extension](ROWS).encode())
    for name in ("train", "My.Data"):
        assert rows_of(read_table(make_file(content, f"{name}.{extension}{compression}"))) == ROWS
    assert rows_of(read_table(make_file(content, f"BIG.{extension.upper()}{compression}"))) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("extension", WRITE)
def test_encodings(make_file, extension, encoding):
    path = make_file(WRITE[extension](ROWS).encode(encoding), f"train.{extension}")
    assert rows_of(read_table(path, encoding)) == ROWS


@pytest.mark.parametrize("extension", WRITE)
def test_a_code_page(make_file, extension):
    rows = [("1", "caf\u00e9 \u2013 3 \u20ac"), ("2", "\u201enice\u201c")]
    content = to_jsonl(rows).encode().decode("unicode_escape") if extension == "jsonl" else WRITE[extension](rows)
    path = make_file(content.encode("cp1252"), f"train.{extension}")
    assert rows_of(read_table(path, "cp1252")) == rows


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("1", "NA"), ("2", "null"), ("2", ""), ("1", "nan"), ("2", "None")], end="\n")
@example(rows=[("1", 'say "hi", twice'), ("2", "a\x00b"), ("2", "\x85"), ("1", " a ")], end="\r\n")
def test_a_csv_holds_exactly_what_was_written(tmp_path, rows, end):
    path, content = tmp_path / "train.csv", to_csv(rows, end, csv.QUOTE_ALL).encode()
    assume(content.count(0) <= len(content) / 20)  # with more, it may be UTF-16, and is refused
    path.write_bytes(content)
    assert rows_of(read_table(path)) == rows


def test_one_nul_in_a_short_file_is_not_utf_16(make_file):
    assert rows_of(read_table(make_file(b'"1","\x00\xc2\x80"\n', "train.csv"))) == [("1", "\x00\x80")]


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("1", '"quoted" all over'), ("2", 'one " only'), ("1", '"'), ("2", "'")], end="\n")
def test_a_tsv_holds_exactly_what_was_written(tmp_path, rows, end):
    """Without quoting a text cannot hold a tab or line break, and a quote is a character like any other."""
    rows = [(label, text.translate(dict.fromkeys(map(ord, "\t\r\n"), " "))) for label, text in rows]
    path = tmp_path / "train.tsv"
    path.write_bytes("".join(f"{label}\t{text}{end}" for label, text in rows).encode())
    assert rows_of(read_table(path)) == rows


def test_csv_files_of_spreadsheets(make_file):
    # a byte order mark, \r\n, empty lines, and quotes only where necessary
    path = make_file('\ufeff1,cold soup\r\n\r\n"2","caf\u00e9, ""nice"""\r\n')
    assert rows_of(read_table(path)) == [("1", "cold soup"), ("2", 'café, "nice"')]
    path = make_file('\ufeff"label";"text"\r\n'.replace(";", ",") + to_csv(ROWS, "\r\n"))
    assert read_columns(path) == (ROWS, {"label": "label", "text": "text"})


# ---------- Files that are refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", b"", r"train\.csv is empty"),
        ("train.csv", b"\xef\xbb\xbf\r\n\r\n", r"train\.csv is empty"),
        ("train.tsv", b"\n\n", r"train\.tsv is empty"),
        ("train.jsonl", b"\n", r"train\.jsonl is empty"),
        ("train.csv", b"1,a,b\n2,c\n", r"train\.csv: .* line 2 has 2 columns, but the first has 3"),
        ("train.csv", b"1,a\n2,c\n1,d,e\n", r"train\.csv: .* line 3 has 3 columns.* \(quote fields that contain a"),
        ("train.csv", b'1,"two\nlines"\n2,c,d,e\n', r"train\.csv: .* line 3 has 4 columns"),
        ("train.csv", b"1\n2,a\n", r"train\.csv: .* line 2 has 2 columns, but the first has 1"),
        ("train.csv", b"1,a\n2\n1,c\n", r"train\.csv: .* line 2 has 1 columns"),  # pandas reads an empty text here
        ("train.csv", b'1,a\n2,"b\n1,c\n', r"train\.csv, line 2: unbalanced quote: .* never closed"),
        ("train.tsv", b"1\ta\n\n2\n", r"train\.tsv: .* line 3 has 1 columns, but the first has 2 .*line 2\?\)"),
        ("train.tsv", b"1\ta\n2\tb\tc\n", r"train\.tsv: .* line 2 has 3 columns"),
        ("train.csv.zip", compress_zip(b"1,a\n2\n"), r"train\.csv\.zip: .* line 2 has 1 columns"),
        ("train.csv.gz", gzip.compress(b"1,a\n2,b,c\n"), r"train\.csv\.gz: .* line 2 has 3 columns"),
        ("train.csv", b"1,a\n2,caf\xe9\n", r"train\.csv, line 2: its byte 6 \(0xe9\) is not UTF-8.*'cp1252'"),
        ("train.csv", b"1,a\n2,caf\xe9", r"train\.csv, line 2: its byte 6 \(0xe9\)"),  # the very last
        ("train.csv", b"1,\xe2\x82\n2,b\n", r"train\.csv, line 1: its byte 3 \(0xe2\)"),
        ("train.tsv", b"1\ta\n2\tcaf\xe9\n", r"train\.tsv, line 2: its byte 6 \(0xe9\).*'cp1252'"),
        ("train.csv.gz", gzip.compress(b"1,a\n2,\xe9\n"), r"train\.csv\.gz, line 2: its byte 3 \(0xe9\)"),
        ("train.csv.zip", compress_zip(b"1,a\n2,\xe9\n"), r"train\.csv\.zip, line 2: its byte 3 \(0xe9\)"),
        ("train.csv", "1,a\n2,b\n".encode("utf-16"), "is not UTF-8: .* the byte order mark of UTF-16.*'utf-16'"),
        ("train.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"jsonl, line 2: its byte 11 \(0xe9\).*'cp1252'"),
        ("train.jsonl", b'{"text": "a"}\n\n{"text"\n', r"train\.jsonl: line 3 is not JSON"),
        ("train.jsonl", b'{"text": "a"}\n' + b"[" * 10**5, r"train\.jsonl: line 2 is not JSON"),
        ("train.jsonl", b'{"text": "a"}\n["b"]\n', r"train\.jsonl: line 2 is not an object, \{name"),
        ("train.txt", b"1,a\n", r"train\.txt: its name must end in one of \.csv, \.tsv, \.jsonl, \.parquet"),
        ("train.xls.gz", b"", r"train\.xls\.gz: its name must end in"),
        ("train.csv.gz", b"1,a\n", r"train\.csv\.gz is corrupt, or its format is not what its name says"),
        ("train.csv.gz", gzip.compress(b"1,a\n" * 99)[:-9], r"train\.csv\.gz is corrupt"),
        ("train.csv.bz2", b"1,a\n", r"train\.csv\.bz2 is corrupt"),
        ("train.tsv.xz", b"1,a\n", r"train\.tsv\.xz is corrupt"),
        ("train.jsonl.zip", b"1,a\n", r"train\.jsonl\.zip is corrupt"),
    ],
)
def test_read_table_refuses(make_file, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_table(make_file(content, name))


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"1,a\n2,b\n", "utf-16", r"line 1: its byte 1 \(0x31\) is not UTF-16.*'utf-8'"),
        (b"1,a\n2,caf\xc3\x81\n", "cp1252", r"line 2: its byte 7 \(0x81\) is not CP1252.*'utf-8'"),
        (b"1,a\n2,caf\xe9\n", "ascii", r"line 2: its byte 6 \(0xe9\) is not ASCII.*'utf-8'"),
        # the encoding is right: other errors must still be found
        ("1,a\n2,b,c\n".encode("utf-16"), "utf-16", "line 2 has 3 columns"),
        ('1,a\n2,"b\n'.encode("utf-16-le"), "utf-16-le", "line 2: .*quote"),
    ],
)
def test_another_encoding_refused(make_file, content, encoding, message):
    with pytest.raises(ValueError, match=message):
        read_table(make_file(content), encoding)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv is missing"):
        read_table(tmp_path / "absent.csv")


# ---------- Which files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "given_files", "expected"),
    [
        (["train.csv", "test.csv"], {}, ("train.csv", "test.csv")),
        (["train.tsv.gz", "dev.jsonl", "README.md"], {}, ("train.tsv.gz", "dev.jsonl")),
        (["train.csv", "validation.csv"], {}, ("train.csv", "validation.csv")),
        (["train.parquet", "valid.jsonl.zip"], {}, ("train.parquet", "valid.jsonl.zip")),
        (["train.csv"], {}, ("train.csv", None)),
        (["my reviews.csv.bz2"], {}, ("my reviews.csv.bz2", None)),
        (["train.csv", "notes.csv"], {}, ("train.csv", None)),
        # outputs of data_prep.ipynb, files that systems and editors leave, and files that are not tables
        (["train.csv", "train.tsv", "dev.tsv", "labels.json", "train_features.pkl"], {}, ("train.csv", None)),
        (["train.csv", "._train.csv", ".train.csv.9.tmp"], {}, ("train.csv", None)),
        (["reviews.csv", "~$reviews.csv"], {}, ("reviews.csv", None)),
        (["a.csv", "b.csv"], {"train_file": "a.csv"}, ("a.csv", None)),
        (["a.csv", "test.csv"], {"train_file": "a.csv"}, ("a.csv", "test.csv")),
        (["a.csv", "b.csv"], {"test_file": "b.csv"}, ("a.csv", "b.csv")),
        (["a.csv", "b.csv", "c.csv"], {"train_file": "c.csv", "test_file": "a.csv"}, ("c.csv", "a.csv")),
        ([], {"train_file": "absent.csv"}, ("absent.csv", None)),  # reading it raises FileNotFoundError
    ],
)
def test_find_data_files(tmp_path, names, given_files, expected):
    for name in names:
        (tmp_path / name).touch()
    train, test = find_data_files(tmp_path, **given_files)
    assert (train.name, test and test.name) == expected
    assert train.parent == tmp_path


@pytest.mark.parametrize(
    ("names", "given_files", "error", "message"),
    [
        ([], {}, FileNotFoundError, r"holds no table: put train\.csv"),
        (["notes.txt", "train.json", "old.csv.bak"], {}, FileNotFoundError, "holds no table"),
        (["train.tsv", "dev.tsv"], {}, FileNotFoundError, r"no table.*train\.tsv and dev\.tsv are written"),
        (["a.csv", "b.tsv"], {}, ValueError, r"holds a\.csv, b\.tsv: set TRAIN_FILE and TEST_FILE"),
        (["train.csv", "train.tsv.gz"], {}, ValueError, r"holds train\.csv, train\.tsv\.gz: set"),
        (["train.csv", "dev.csv", "test.csv"], {}, ValueError, r"holds dev\.csv, test\.csv, train\.csv: set"),
        (["reviews.csv", "test.csv"], {}, ValueError, r"holds reviews\.csv, test\.csv: set"),
        (["train.tsv"], {"train_file": "train.tsv"}, ValueError, r"train\.tsv is written by data_prep\.ipynb"),
        (["a.csv", "dev.tsv"], {"test_file": "dev.tsv"}, ValueError, r"dev\.tsv is written by data_prep\.ipynb"),
    ],
)
def test_find_data_files_refuses(tmp_path, names, given_files, error, message):
    for name in names:
        (tmp_path / name).write_text("as it was")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=message):
        find_data_files(tmp_path, **given_files)
    assert all((tmp_path / name).read_text() == "as it was" for name in names)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no table"):
        find_data_files(tmp_path / "nowhere")


# ---------- Which columns ---------------------------------------------------------------------------------------------

LONG = [f"a text of some length, number {i}" for i in range(8)]


@pytest.mark.parametrize("labels", ["12", "01", ["neg", "pos"], ["ham", "spam"], ["False", "True"], ["no", "yes"]])
@pytest.mark.parametrize("header", [None, ("label", "text"), ("Sentiment", "Review"), ("x", "y")])
@pytest.mark.parametrize("label_first", [True, False])
def test_columns_are_inferred(make_file, labels, header, label_first):
    rows = [(labels[i % 2], text) for i, text in enumerate(LONG)]
    table = [header, *rows] if header else rows
    path = make_file(to_csv(row if label_first else row[::-1] for row in table))
    columns, names = read_columns(path)
    assert columns == rows
    assert names == dict(zip(("label", "text"), header or ((0, 1) if label_first else (1, 0))))


def test_other_columns_are_ignored(make_file):
    rows = [("id", "date", "stars", "title", "review")]
    rows += [(f"r{i}", f"2019-01-{i + 1:02}", str(i % 4 + 1), f"no. {i}", text) for i, text in enumerate(LONG)]
    columns, names = read_columns(make_file(to_csv(rows)))
    assert names == {"label": "stars", "text": "review"}
    assert columns == [(str(i % 4 + 1), text) for i, text in enumerate(LONG)]
    columns, names = read_columns(make_file(to_csv(rows[1:])))  # the same without a header
    assert names == {"label": 2, "text": 4} and len(columns) == 8


def test_columns_without_a_name(make_file):
    """The index that pandas writes first, and the empty columns that spreadsheets leave at the end."""
    rows = [("ham" if i % 3 else "spam", text) for i, text in enumerate(LONG)]
    table = [("", "text", "kind", "split")]
    table += [(str(i), text, label, "ab"[i % 2]) for i, (label, text) in enumerate(rows)]
    assert read_columns(make_file(to_csv(table)), label_column="kind") == (rows, {"label": "kind", "text": "text"})
    assert read_columns(make_file(to_csv(table)), label_column=2, text_column=1) == (
        rows,
        {"label": "kind", "text": "text"},
    )
    path = make_file(to_csv([("v1", "v2", "", ""), *((*row, "", "") for row in rows)]))
    assert read_columns(path) == (rows, {"label": "v1", "text": "v2"})
    assert read_columns(path, text_column=3)[1] == {"label": "v1", "text": 3}


@pytest.mark.parametrize("first", ["Spam", " ham", "NaN", "null"])
def test_the_first_row_of_a_file_without_a_header_is_not_a_header(make_file, first):
    rows = [("ham" if i % 3 else "spam", text) for i, text in enumerate(LONG)]
    columns, names = read_columns(make_file(to_csv([(first, "the first text"), *rows])))
    assert names == {"label": 0, "text": 1} and columns == [(first.strip(), "the first text"), *rows]


def test_missing_labels_do_not_make_another_column_the_label(make_file):
    """A missing value is not a third label, so this column has two values, as the other one has."""
    rows = [("01"[i % 2] if i % 4 else "", "web" if i % 3 else "app", text) for i, text in enumerate(LONG)]
    with pytest.raises(ValueError, match=r"holds the label\? Set LABEL_COLUMN to one of 'verdict'.*'source'"):
        read_columns(make_file(to_csv([("verdict", "source", "text"), *rows])))


@pytest.mark.parametrize(
    ("others", "label"),
    [
        ({"verified": "yn", "score": "12345"}, None),
        ({"label": "yn", "rating": "123", "gender": "mf"}, "label"),
        ({"rating": "123", "verified": "yn"}, "rating"),
        ({"sentiment": "yn", "rating": "12"}, None),
        ({"category": "AB", "verified": "yn"}, None),
        ({"category": "AB"}, "category"),
    ],
)
def test_a_column_with_two_values_is_not_always_the_label(make_file, others, label):
    rows = [
        [*others, "text"],
        *([*(values[i % len(values)] for values in others.values()), f"{LONG[i % 8]} {i}"] for i in range(20)),
    ]
    if label:
        assert read_columns(make_file(to_csv(rows)))[1]["label"] == label
        return
    first, second = others
    with pytest.raises(ValueError, match=rf"holds the label\? Set LABEL_COLUMN to one of '{first}'.*'{second}'"):
        read_columns(make_file(to_csv(rows)))


def test_unused_columns_of_texts_are_printed(make_file, capsys):
    rows = [("subject", "body", "label", "city")]
    rows += [(f"about thing number {i}", text * 3, "ab"[i % 2], "New York") for i, text in enumerate(LONG)]
    read_columns(make_file(to_csv(rows)))
    assert "reads only column 'body', not 'subject'. TEXT_COLUMN = ['subject', 'body'] joins" in capsys.readouterr().out


def test_columns_by_name_and_by_number(make_file):
    rows = [("a", "b", "text", "label"), *((str(i % 2), text, text[::-1], str(i)) for i, text in enumerate(LONG))]
    for name, content in (("train.csv", to_csv(rows)), ("train.jsonl", to_jsonl(rows[1:], rows[0]))):
        path = make_file(content, name)
        for columns in ({"label_column": "a", "text_column": "b"}, {"label_column": 0, "text_column": 1}):
            inferred, names = read_columns(path, **columns)
            assert inferred == [(str(i % 2), text) for i, text in enumerate(LONG)]
            assert names == {"label": "a", "text": "b"}
    columns, names = read_columns(make_file(to_csv(rows[1:])), label_column=0, text_column=2)
    assert columns[0] == ("0", LONG[0][::-1]) and names == {"label": 0, "text": 2}


def test_rows_are_numbered_as_in_the_file(make_file):
    rows = [(str(i % 2), text) for i, text in enumerate(LONG)]
    for content, first in ((to_csv(rows), 0), (to_csv([("label", "text"), *rows]), 1)):
        frame, _ = infer_columns(read_table(make_file(content)), "train.csv")
        assert frame.index.tolist() == list(range(first, first + 8))


def test_labels_are_stripped_and_texts_are_not(make_file):
    path = make_file("".join(f'" {i % 2} "," {text} "\n' for i, text in enumerate(LONG)))
    assert read_columns(path)[0] == [(str(i % 2), f" {text} ") for i, text in enumerate(LONG)]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "b")] * 2 + [("c", "d")] * 2, {}, r"which column of train\.csv holds the label\? Set LABEL_COLUMN"),
        ([(t, t[::-1], str(i % 2)) for i, t in enumerate(LONG)], {}, r"holds the text\? Set TEXT_COLUMN to one of 0 "),
        ([("1", t) for t in LONG], {"label_column": "label"}, r"no column 'label'\. Columns: \['1', 'a text"),
        ([("1", t) for t in LONG], {"text_column": 2}, r"train\.csv has no column 2\. Columns: \[0, 1\]"),
        ([("label", "text"), ("1", "a")], {"text_column": "Text"}, r"no column 'Text'\. Columns: \['label', 'text'\]"),
        ([("1", t) for t in LONG], {"text_column": 0, "label_column": 0}, r"train\.csv cannot both be in column 0"),
        (
            [("label", "text")],
            {},
            r"train\.csv has no rows below its header \['label', 'text'\]: add some, or .* TRAIN_FILE",
        ),
        (
            [("text", "text"), *((str(i % 2), t) for i, t in enumerate(LONG))],
            {},
            "column name 'text' is not unique: set TEXT_COLUMN to a number, 0 or 1",
        ),
        ([("1;a",), ("2;b",)], {}, r"which column of train\.csv holds the label\? .*0 \(2 values, such as '1'\)"),
        ([("text",), ("a",)], {}, "has only one column"),
    ],
)
def test_ambiguous_columns_are_refused(make_file, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        read_columns(make_file(to_csv(rows)), **columns)


# ---------- Which classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["2", "1", "2"], ["1", "2"]),
        (["0", "1"], ["0", "1"]),
        (["1", "-1"], ["-1", "1"]),
        (["10", "9"], ["9", "10"]),
        (["pos", "neg"], ["neg", "pos"]),
        (["spam", "ham"], ["ham", "spam"]),
        (["Yes", "no"], ["no", "Yes"]),
        (["True", "False"], ["False", "True"]),
        (["toxic", "not toxic"], ["not toxic", "toxic"]),
        (["relevant", "spare"], ["spare", "relevant"]),  # a positive word comes before the alphabet
        (["dog", "cat"], ["cat", "dog"]),
    ],
)
def test_which_class_is_positive(labels, expected):
    for given_labels in (labels, labels[::-1]):
        classes = infer_classes(pd.Series(given_labels), "train.csv")
        assert classes == [[label] for label in expected]
        binary = encode_labels(pd.Series(given_labels), classes)
        assert binary.tolist() == [expected.index(label) for label in given_labels]
        assert binary.dtype.kind == "i"


@pytest.mark.parametrize(
    ("labels", "expected"), [(["spam", "ham", "Spam", "spam"], ["ham", "spam"]), (["2.0", "1", "2", "2"], ["1", "2"])]
)
def test_different_spellings_of_a_label_are_one_label(labels, expected):
    classes = infer_classes(pd.Series(labels), "train.csv")
    assert classes == [[label] for label in expected]
    assert encode_labels(pd.Series(labels), classes).tolist() == [label[0] in "sS2" for label in labels]


def test_classes_group_five_stars_into_two_and_leave_others_out():
    stars = pd.Series(["1", "5", "3", "2", "4", "3"], index=[1, 2, 3, 4, 5, 6])
    for classes in ([[1, 2], [4, 5]], [["1", "2"], ["4", "5"]]):
        pair = infer_classes(stars, "train.csv", classes)
        assert pair == [["1", "2"], ["4", "5"]]
        binary = encode_labels(stars, pair)
        assert binary.to_dict() == {1: 0, 2: 1, 4: 0, 5: 1}
    turned = infer_classes(pd.Series(["1", "2"]), "train.csv", [["2"], ["1"]])
    assert encode_labels(pd.Series(["1", "2"]), turned).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["nan", "1"], [["nan"], ["1"]]), (["False", "True"], [[False], [True]]), (["0.0", "1"], [[0], [1.0]])],
)
def test_classes_of_other_types_than_string(labels, classes):
    pair = infer_classes(pd.Series(labels), "train.csv", classes)
    assert encode_labels(pd.Series(labels), pair).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            list("15342153"),
            None,
            r"train\.csv has 5 different labels, but two .*'1' 2 times \(first in row 1\), '2' 1 ",
        ),
        (list("15342153"), None, r"group them into two classes with CLASSES, e\.g\. \[\[\"1\", \"2\"\], "),
        (["1", "1"], None, r"train\.csv has 1 different labels.*'1' 2 times \(first in row 1\)"),
        (["Spam", "spam"], None, r"train\.csv has 1 different labels.*'Spam' 1 times .*'spam' 1 times"),
        (list("15342153"), None, "If they are no labels, set LABEL_COLUMN"),
        (["1", "2", ""], None, r"'' 1 times \(first in row 3\)"),
        (["label", "1", "2"], None, r"'label' 1 times \(first in row 1\)"),
        (["0", "1"], [[False], [True]], r"CLASSES names \['False', 'True'\]"),
        (["1", "2", "3"], [[1], [4, 5]], r"CLASSES names \['4', '5'\], but the labels of train\.csv are '1' 1 times"),
    ],
)
def test_classes_refused(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        infer_classes(pd.Series(labels), "train.csv", classes)


# ---------- Real data -------------------------------------------------------------------------------------------------


def test_sst2_with_its_header(test_data, tmp_path):
    (tmp_path / "train.tsv.gz").symlink_to(test_data("sst2/train.tsv.gz"))
    (tmp_path / "test.tsv").symlink_to(test_data("sst2/dev.tsv"))  # dev.tsv itself is what data_prep.ipynb writes
    results = []
    for path in find_data_files(tmp_path):
        frame, names = infer_columns(read_table(path), path.name)
        classes = infer_classes(frame["label"], path.name)
        results.append((names, classes, len(frame), encode_labels(frame["label"], classes).sum()))
        assert frame["text"].str.strip().ne("").all() and frame.index[0] == 1
    assert results == [
        ({"label": "label", "text": "sentence"}, [["0"], ["1"]], 67_349, 37_569),
        ({"label": "label", "text": "content"}, [["0"], ["1"]], 872, 444),
    ]
    assert frame["text"].iloc[0] == "one long string of cliches ."


def test_imdb(test_data):
    frame, names = infer_columns(read_table(test_data("imdb/test.csv.gz")), "test.csv.gz")
    assert names == {"label": 0, "text": 1} and frame["label"].value_counts().to_dict() == {"1": 12_500, "2": 12_500}
    assert frame["text"].str.contains("<br />", regex=False).sum() == 14_533
    assert frame["text"].str.contains(HTML).sum() == 14_534  # one text has another tag only
    assert frame["text"].str.contains(MOJIBAKE).sum() == 760  # such as U+0096, a dash in code page 1252


@pytest.mark.parametrize("text", ["<br />", "a</p>b", "<a href='x'>", "&nbsp;", "&#39;", "Tom &amp; I", "<B>so</B>"])
def test_html_is_found(text):
    assert pd.Series([text, "1 < 2 > 0 & <3 I&M; <-> #39;"]).str.contains(HTML).tolist() == [True, False]


# ---------- Headers and row numbers -----------------------------------------------------------------------------------

SPAM = [("spam" if i % 3 else "ham", text) for i, text in enumerate(LONG)]


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (("Etikett", "Nachricht"), 1),
        (("标签", "文本"), 1),
        (("spam", "text"), 1),  # the column's name is also a label
        (("label", "2020"), 1),
        (("0", "1"), 1),
        (("Is this message spam?", "What did you think, and why?"), 1),
        (("Kind of short message", "Nachricht"), 1),  # a name has at most four words
        (("这是垃圾信息吗？", "短信"), 1),
        (("spam", "another text of some length"), 0),
    ],
)
def test_a_first_row_is_a_header_or_a_row(make_file, header, number):
    frame, _ = infer_columns(read_table(make_file(to_csv([header, *SPAM]))), "train.csv")
    assert frame.index[0] == number and len(frame) == len(SPAM) + (number == 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("neutral", "another text of some length, number 9"), *SPAM], "cannot tell whether its first row.*a header"),
        ([("unsure?", "another text of some length, number 9"), *SPAM], "cannot tell whether its first row"),
        ([("spam", "nachricht"), *SPAM], "cannot tell whether its first row.*TEXT_COLUMN"),
        ([("Export of May", ""), ("label", "text"), *SPAM], "'Export of May', seems to be a title: delete that row"),
    ],
)
def test_a_doubtful_first_row_is_refused(make_file, rows, message):
    with pytest.raises(ValueError, match=message):
        read_columns(make_file(to_csv(rows)))


def test_the_rows_of_a_long_table_are_numbered_to_its_end(make_file):
    """A long table is made of chunks, whose rows must not be numbered from 0 each."""
    rows = [(str(i % 2), f"text {i}") for i in range(50_003)]
    frame = read_table(make_file(to_csv(rows)))
    assert frame.index.tolist() == list(range(50_003)) and frame.iloc[-1].tolist() == ["0", "text 50002"]


def test_empty_lines_count(make_file, capsys):
    lines = to_csv(SPAM).splitlines(keepends=True)
    path = make_file("label,text\n\n" + "".join(lines[:3]) + "\n\n" + "".join(lines[3:]))
    frame, _ = infer_columns(read_table(path), "train.csv")
    assert frame.index.tolist() == [2, 3, 4, 7, 8, 9, 10, 11]
    assert "train.csv: 9 rows of 2 columns in 12 lines (empty lines: 3)" in capsys.readouterr().out
    path = make_file("\n" + "\n\n".join(to_jsonl(SPAM).splitlines()), "train.jsonl")
    frame, _ = infer_columns(read_table(path), "train.jsonl")
    assert frame.index.tolist() == list(range(1, 17, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i, text: {"text": [text, text], "label": i % 2}, "jsonl, line 1: text is a list, but must be a text"),
        (lambda i, text: {"data": {"text": text}, "label": i % 2}, "line 1: data is an object, but must be a text"),
        (lambda i, text: {"text": text if i != 4 else [text], "label": i % 2}, "line 5: text is a list"),
        (lambda i, text: {"text": text, "label": [i % 2]}, "line 1: label is a list, but must be a label"),
    ],
)
def test_lists_and_objects_are_not_texts(make_file, make, message):
    path = make_file("".join(json.dumps(make(i, text)) + "\n" for i, text in enumerate(LONG)), "train.jsonl")
    with pytest.raises(ValueError, match=message):
        read_columns(path)


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (("Submitted", "Rating (1-2)", "What should we do in another way?"), 1),
        (("Submitted", "How content are you with us?", "Why?"), 1),
        (("n/a", "?", "another text of some length"), 0),  # a missing value is not a name
    ],
)
def test_a_first_row_above_numbers(make_file, header, number):
    rows = [(f"2026-05-{i + 1:02} 10:30:00", i % 2 + 1, f"{text} (in short)") for i, text in enumerate(LONG[:20])]
    rows += [("", 1, text) for text in LONG[20:]]
    frame, names = infer_columns(read_table(make_file(to_csv([header, *rows]))), "train.csv")
    assert frame.index[0] == number and len(frame) == len(rows) + (number == 0)
    assert list(names.values()) == (list(header[1:]) if number else [1, 2])


def test_long_ids_and_dates_are_not_texts(make_file):
    rows = [(f"{i:032x}", "2026-05-01 10:30:00.000", i % 2, text[:20]) for i, text in enumerate(LONG)]
    frame, names = infer_columns(read_table(make_file(to_csv(rows))), "train.csv")
    assert names == {"label": 2, "text": 3} and frame["text"].tolist() == [text[:20] for text in LONG]


def test_empty_rows_are_dropped_and_counted(make_file, capsys):
    rows = [("label", "text"), ("1", "good soup"), ("", ""), (" ", "\u00a0"), ("0", "bad soup"), ("", "")]
    frame, _ = infer_columns(read_table(make_file(to_csv(rows))), "train.csv")
    assert frame.index.tolist() == [1, 4]
    assert "train.csv: dropped 3 empty rows\n" in capsys.readouterr().out
    for nothing in (",\n,\n", '"",""\n'):
        with pytest.raises(ValueError, match="is empty: expected one row per text"):
            read_columns(make_file(nothing))


@pytest.mark.parametrize(
    ("content", "encoding", "name"),
    [
        ("label,text\n1,gr\u00fcn\n".encode("utf-8-sig"), "cp1252", "utf-8"),
        ("label,text\n1,gr\u00fcn\n".encode("utf-16"), "latin-1", "utf-16"),
        ("label,text\n1,gr\u00fcn\n".encode("utf-32"), "utf-8", "utf-32"),
        ("\u6807\u7b7e,\u6587\u672c\n1,\u5f88\u597d\u5403\n".encode("utf-16-le"), "utf-8", "utf-16-le"),
    ],
)
def test_the_first_bytes_show_the_encoding(make_file, content, encoding, name):
    with pytest.raises(ValueError, match=f"save the file as UTF-8, or set ENCODING, perhaps to '{name}'"):
        read_table(make_file(content), encoding)
    assert read_table(make_file(content), name)[1].iloc[0] in ("text", "\u6587\u672c")
