"""From a table of any shape to labels and texts: nothing is lost on the way, and what is wrong or in doubt is named."""

import bz2
import csv
import errno
import gzip
import io
import json
import lzma
import sys
import zipfile

import pandas as pd
import pytest
from conftest import texts
from hypothesis import example, given
from hypothesis import strategies as st

from textbert.data import compression as data_compression
from textbert.data import file_formats, mojibake, quality, tables
from textbert.data import labels as data_labels
from textbert.data.file_formats import to_string
from textbert.data.mojibake import is_mojibake
from textbert.utils.errors import ReadError

ROWS = [
    ("1", "Cold soup, and \u201ccold\u201d staff."),
    ("2", 'We loved the "caf\u00e9", all of it \U0001f600'),
    ("1", "NA"),
    ("2", " null "),
    ("1", "C:\\new\u2028B\x85C"),
    ("2", "warm and friendly, as always"),
]


def to_csv(rows, end="\n", quoting=csv.QUOTE_MINIMAL, separator=","):
    file = io.StringIO()
    csv.writer(file, quoting=quoting, lineterminator=end, delimiter=separator).writerows(rows)
    return file.getvalue()


def to_tsv(rows):
    return "".join("\t".join(row) + "\n" for row in rows)


def to_jsonl(rows, names=("label", "text")):
    return "".join(json.dumps(dict(zip(names, row))) + "\n" for row in rows)


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside", content)
    return file.getvalue()


COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": zipped}
WRITE = {"csv": to_csv, "tsv": to_tsv, "jsonl": to_jsonl}


def rows_of(frame):
    return list(frame.itertuples(index=False, name=None))


def pick(path, **columns):
    """Read a table and return (its labels and texts as a list, what their columns were called)."""
    frame, names = tables.infer_columns(tables.read_table(path), path.name, **columns)
    return rows_of(frame), names


# ---------- Reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", WRITE)
def test_each_kind_compressed_or_not(make_file, kind, compression):
    content = COMPRESS[compression](WRITE[kind](ROWS).encode())
    for name in ("train", "My.Data"):
        assert rows_of(tables.read_table(make_file(content, f"{name}.{kind}{compression}"))) == ROWS
    assert rows_of(tables.read_table(make_file(content, f"BIG.{kind.upper()}{compression}"))) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("kind", WRITE)
def test_encodings(make_file, kind, encoding):
    path = make_file(WRITE[kind](ROWS).encode(encoding), f"train.{kind}")
    assert rows_of(tables.read_table(path, encoding)) == ROWS


@pytest.mark.parametrize("kind", WRITE)
def test_a_code_page(make_file, kind):
    rows = [("1", "caf\u00e9 \u2013 3 \u20ac"), ("2", "\u201enice\u201c")]
    content = to_jsonl(rows).encode().decode("unicode_escape") if kind == "jsonl" else WRITE[kind](rows)
    path = make_file(content.encode("cp1252"), f"train.{kind}")
    assert rows_of(tables.read_table(path, "cp1252")) == rows


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("1", "NA"), ("2", "null"), ("2", ""), ("1", "nan"), ("2", "None")], end="\n")
@example(rows=[("1", 'say "hi", twice'), ("2", "a\x00b"), ("2", "\x85"), ("1", " a ")], end="\r\n")
def test_a_csv_holds_exactly_what_was_written(tmp_path, rows, end):
    path = tmp_path / "train.csv"
    path.write_bytes(to_csv(rows, end, csv.QUOTE_ALL).encode())
    assert rows_of(tables.read_table(path)) == rows


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), ascii_only=st.booleans())
def test_json_lines_hold_exactly_what_was_written(tmp_path, rows, ascii_only):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"label": label, "text": text}, ensure_ascii=ascii_only) for label, text in rows]
    path.write_bytes("\n".join(lines).encode())
    assert rows_of(tables.read_table(path)) == rows


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("1", '"quoted" all over'), ("2", 'one " only'), ("1", '"'), ("2", "'")], end="\n")
def test_a_tsv_holds_exactly_what_was_written(tmp_path, rows, end):
    """Without quoting a text cannot hold a tab or line break, and a quotation mark is a character like any other."""
    rows = [(label, text.translate(dict.fromkeys(map(ord, "\t\r\n"), " "))) for label, text in rows]
    path = tmp_path / "train.tsv"
    path.write_bytes("".join(f"{label}\t{text}{end}" for label, text in rows).encode())
    assert rows_of(tables.read_table(path)) == rows


def test_what_spreadsheets_write(make_file):
    # a byte order mark, \r\n, blank lines, and quotes only where needed
    path = make_file('\ufeff1,cold soup\r\n\r\n"2","caf\u00e9, ""nice"""\r\n')
    assert rows_of(tables.read_table(path)) == [("1", "cold soup"), ("2", 'café, "nice"')]
    path = make_file('\ufeff"label";"text"\r\n'.replace(";", ",") + to_csv(ROWS, "\r\n"))
    assert pick(path) == (ROWS, {"label": "label", "text": "text"})


def test_json_values_become_text_as_they_were(make_file):
    lines = [
        {"id": 12345678901234567890, "label": True, "text": "1.0", "stars": 5},
        {"id": 2, "label": False, "text": "2020-01-01", "stars": 4.0},
        {"id": 3, "label": None, "text": "half a pair: \ud83d", "extra": [1]},
    ]
    frame = tables.read_table(make_file("\n\n".join(map(json.dumps, lines)), "train.jsonl"))
    assert frame["id"].tolist() == ["12345678901234567890", "2", "3"]
    assert frame["label"].tolist() == ["True", "False", ""]
    assert frame["text"].tolist() == ["1.0", "2020-01-01", "half a pair: \ufffd"]
    assert frame["stars"].tolist() == ["5", "4", ""]
    assert frame["extra"].tolist() == ["", "", "[1]"]
    assert to_string("caf\u00e9".encode()) == "caf\u00e9"  # a Parquet file may hold bytes


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is absent: reading Parquet is not tested")
    labels = {
        "label": [1, 0, None],
        "flag": [True, False, None],
        "kind": pd.Categorical(["spam", "ham", None]),
        "stars": pd.array([5, None, 1], "Int64"),
    }
    frame = pd.DataFrame({**labels, "text": ["NA", None, "caf\u00e9 \U0001f600"]}, index=[7, 7, 3])
    frame.to_parquet(tmp_path / "train.parquet")
    found = tables.read_table(tmp_path / "train.parquet")
    assert found.to_dict("list") == {
        "label": ["1", "0", ""],
        "flag": ["True", "False", ""],
        "kind": ["spam", "ham", ""],
        "stars": ["5", "", "1"],
        "text": ["NA", "", "caf\u00e9 \U0001f600"],
    }
    assert found.index.tolist() == [0, 1, 2]
    pd.DataFrame(ROWS, columns=["label", "text"]).to_parquet(tmp_path / "test.parquet")
    assert pick(tmp_path / "test.parquet") == (ROWS, {"label": "label", "text": "text"})
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"train\.parquet: "):
        tables.read_table(tmp_path / "train.parquet")


def test_xlsx(tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is absent: reading .xlsx is not tested")
    book = openpyxl.Workbook()
    rows = [("label", "text", None), (1, "NA", None), (2.0, "caf\u00e9 \U0001f600", None), (None,) * 3, (1, 7.5, None)]
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["not read"])
    book.save(tmp_path / "train.xlsx")
    assert pick(tmp_path / "train.xlsx", text_column="text", label_column="label") == (
        [("1", "NA"), ("2", "caf\u00e9 \U0001f600"), ("1", "7.5")],
        {"label": "label", "text": "text"},
    )
    assert "the first sheet, 'Sheet', is read, and notes not" in capsys.readouterr().out
    whole = (tmp_path / "train.xlsx").read_bytes()
    for damaged in (b"no sheet", whole[: len(whole) // 2]):
        (tmp_path / "train.xlsx").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train\.xlsx: it is damaged, or not what its name says"):
            tables.read_table(tmp_path / "train.xlsx")


@pytest.mark.parametrize(("kind", "package"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_what_unpacks_to_far_more_than_its_size_is_not_read(tmp_path, kind, package):
    pytest.importorskip(package, reason=f"{package} is absent: reading .{kind} is not tested")
    path = tmp_path / f"train.{kind}"
    if kind == "parquet":
        pd.DataFrame({"label": 1, "text": ["x" * 50_000_000] * 2}).to_parquet(path, compression="gzip")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/workbook.xml", b" " * 100_000_000)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="unpacks to more than 100 times its size"):
        tables.read_table(path)


def test_xlsx_without_openpyxl_says_what_to_install(make_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match="install the openpyxl package"):
        tables.read_table(make_file(b"PK", "train.xlsx"))


def test_parquet_without_pyarrow_says_what_to_install(make_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(ImportError, match="install the pyarrow package"):
        tables.read_table(make_file(b"PAR1", "train.parquet"))


# ---------- What cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", b"", r"train\.csv is empty"),
        ("train.csv", b"\xef\xbb\xbf\r\n\r\n", r"train\.csv is empty"),
        ("train.tsv", b"\n\n", r"train\.tsv is empty"),
        ("train.jsonl", b"\n", r"train\.jsonl is empty"),
        ("train.csv", b"1,a,b\n2,c\n", r"train\.csv: .* line 2 has 2 columns, but the first has 3"),
        ("train.csv", b"1,a\n2,c\n1,d,e\n", r"train\.csv: .* line 3 has 3 columns.* stands in double quotes"),
        ("train.csv", b'1,"two\nlines"\n2,c,d,e\n', r"train\.csv: .* line 3 has 4 columns"),
        ("train.csv", b"1\n2,a\n", r"train\.csv: .* line 2 has 2 columns, but the first has 1"),
        ("train.csv", b"1,a\n2\n1,c\n", r"train\.csv: .* line 2 has 1 columns"),  # pandas reads an empty text here
        ("train.csv", b'1,a\n2,"b\n1,c\n', r"train\.csv, line 2: a quotation mark opens .* never closed"),
        ("train.tsv", b"1\ta\n\n2\n", r"train\.tsv: .* line 3 has 1 columns, but the first has 2 .*line 2\?"),
        ("train.tsv", b"1\ta\n2\tb\tc\n", r"train\.tsv: .* line 2 has 3 columns"),
        ("train.csv.zip", zipped(b"1,a\n2\n"), r"train\.csv\.zip: .* line 2 has 1 columns"),
        ("train.csv.gz", gzip.compress(b"1,a\n2,b,c\n"), r"train\.csv\.gz: .* line 2 has 3 columns"),
        ("train.csv", b"1,a\n2,caf\xe9\n", r"train\.csv, line 2: its byte 6 \(0xe9\) is not UTF-8.*'cp1252'"),
        ("train.csv", b"1,a\n2,caf\xe9", r"train\.csv, line 2: its byte 6 \(0xe9\)"),  # the very last
        ("train.csv", b"1,\xe2\x82\n2,b\n", r"train\.csv, line 1: its byte 3 \(0xe2\)"),
        ("train.tsv", b"1\ta\n2\tcaf\xe9\n", r"train\.tsv, line 2: its byte 6 \(0xe9\).*'cp1252'"),
        ("train.csv.gz", gzip.compress(b"1,a\n2,\xe9\n"), r"train\.csv\.gz, line 2: its byte 3 \(0xe9\)"),
        ("train.csv.zip", zipped(b"1,a\n2,\xe9\n"), r"train\.csv\.zip, line 2: its byte 3 \(0xe9\)"),
        ("train.csv", "1,a\n2,b\n".encode("utf-16"), "is not UTF-8, for it begins as UTF-16 does.*'utf-16'"),
        ("train.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"jsonl, line 2: its byte 11 \(0xe9\).*'cp1252'"),
        ("train.jsonl", b'{"text": "a"}\n\n{"text"\n', r"train\.jsonl: line 3 is no JSON"),
        ("train.jsonl", b'{"text": "a"}\n' + b"[" * 10**5, r"train\.jsonl: line 2 is no JSON"),
        ("train.jsonl", b'{"text": "a"}\n["b"]\n', r"train\.jsonl: line 2 is not of the form"),
        ("train.txt", b"1,a\n", r"train\.txt: its name must end in one of \.csv, \.tsv, \.jsonl, \.parquet"),
        ("train.xls.gz", b"", r"train\.xls\.gz: its name must end in"),
        ("train.csv.gz", b"1,a\n", r"train\.csv\.gz is damaged, or not what its name says"),
        ("train.csv.gz", gzip.compress(b"1,a\n" * 99)[:-9], r"train\.csv\.gz is damaged"),
        ("train.csv.bz2", b"1,a\n", r"train\.csv\.bz2 is damaged"),
        ("train.tsv.xz", b"1,a\n", r"train\.tsv\.xz is damaged"),
        ("train.jsonl.zip", b"1,a\n", r"train\.jsonl\.zip is damaged"),
    ],
)
def test_read_table_refuses(make_file, name, content, message):
    with pytest.raises(ValueError, match=message):
        tables.read_table(make_file(content, name))


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"1,a\n2,b\n", "utf-16", r"line 1: its byte 1 \(0x31\) is not UTF-16.*'utf-8'"),
        (b"1,a\n2,caf\xc3\x81\n", "cp1252", r"line 2: its byte 7 \(0x81\) is not CP1252.*'utf-8'"),
        (b"1,a\n2,caf\xe9\n", "ascii", r"line 2: its byte 6 \(0xe9\) is not ASCII.*'utf-8'"),
        # the encoding is right: what is wrong must still be found
        ("1,a\n2,b,c\n".encode("utf-16"), "utf-16", "line 2 has 3 columns"),
        ('1,a\n2,"b\n'.encode("utf-16-le"), "utf-16-le", "line 2: .*quote"),
    ],
)
def test_another_encoding_refused(make_file, content, encoding, message):
    with pytest.raises(ValueError, match=message):
        tables.read_table(make_file(content), encoding)


@pytest.mark.parametrize("name", ["train.parquet.gz", "train.xlsx.zip"])
def test_what_is_compressed_in_itself_is_not_unpacked(make_file, name):
    with pytest.raises(ValueError, match=r"unpack it first; \.(parquet|xlsx) files are compressed in themselves"):
        tables.read_table(make_file(b"PK", name))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv is missing"):
        tables.read_table(tmp_path / "absent.csv")


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
        # what data_prep.ipynb wrote there, what systems and editors leave, and what is no table
        (["train.csv", "train.tsv", "dev.tsv", "labels.json", "train_features.pkl"], {}, ("train.csv", None)),
        (["train.csv", "._train.csv", ".train.csv.9.tmp"], {}, ("train.csv", None)),
        (["reviews.csv", "~$reviews.csv"], {}, ("reviews.csv", None)),
        (["a.csv", "b.csv"], {"train_file": "a.csv"}, ("a.csv", None)),
        (["a.csv", "test.csv"], {"train_file": "a.csv"}, ("a.csv", "test.csv")),
        (["a.csv", "b.csv"], {"test_file": "b.csv"}, ("a.csv", "b.csv")),
        (["a.csv", "b.csv", "c.csv"], {"train_file": "c.csv", "test_file": "a.csv"}, ("c.csv", "a.csv")),
        ([], {"train_file": "absent.csv"}, ("absent.csv", None)),  # reading it says that it is missing
    ],
)
def test_find_tables(tmp_path, names, given_files, expected):
    for name in names:
        (tmp_path / name).touch()
    found = tables.find_data_files(tmp_path, **given_files)
    assert tuple(path and path.name for path in found) == expected
    assert found[0].parent == tmp_path


@pytest.mark.parametrize(
    ("names", "given_files", "error", "message"),
    [
        ([], {}, FileNotFoundError, r"holds no table: put train\.csv"),
        (["notes.txt", "train.json", "old.csv.bak"], {}, FileNotFoundError, "holds no table"),
        (["train.tsv", "dev.tsv"], {}, FileNotFoundError, r"no table.*train\.tsv and dev\.tsv are names for what"),
        (["a.csv", "b.tsv"], {}, ValueError, r"holds a\.csv, b\.tsv: say in TRAIN_FILE and TEST_FILE"),
        (["train.csv", "train.tsv.gz"], {}, ValueError, r"holds train\.csv, train\.tsv\.gz: say"),
        (["train.csv", "dev.csv", "test.csv"], {}, ValueError, r"holds dev\.csv, test\.csv, train\.csv: say"),
        (["reviews.csv", "test.csv"], {}, ValueError, r"holds reviews\.csv, test\.csv: say"),
        (["train.tsv"], {"train_file": "train.tsv"}, ValueError, r"train\.tsv is a name for what data_prep"),
        (["a.csv", "dev.tsv"], {"test_file": "dev.tsv"}, ValueError, r"dev\.tsv is a name for what data_prep"),
    ],
)
def test_find_tables_refuses(tmp_path, names, given_files, error, message):
    for name in names:
        (tmp_path / name).write_text("as it was")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=message):
        tables.find_data_files(tmp_path, **given_files)
    assert all((tmp_path / name).read_text() == "as it was" for name in names)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no table"):
        tables.find_data_files(tmp_path / "nowhere")


# ---------- Which columns ---------------------------------------------------------------------------------------------

LONG = [f"a text of some length, number {i}" for i in range(8)]


@pytest.mark.parametrize("labels", ["12", "01", ["neg", "pos"], ["ham", "spam"], ["False", "True"], ["no", "yes"]])
@pytest.mark.parametrize("header", [None, ("label", "text"), ("Sentiment", "Review"), ("x", "y")])
@pytest.mark.parametrize("label_first", [True, False])
def test_columns_find_themselves(make_file, labels, header, label_first):
    rows = [(labels[i % 2], text) for i, text in enumerate(LONG)]
    table = [header, *rows] if header else rows
    path = make_file(to_csv(row if label_first else row[::-1] for row in table))
    found, names = pick(path)
    assert found == rows
    assert names == dict(zip(("label", "text"), header or ((0, 1) if label_first else (1, 0))))


def test_other_columns_do_not_disturb(make_file):
    rows = [("id", "date", "stars", "title", "review")]
    rows += [(f"r{i}", f"2019-01-{i + 1:02}", str(i % 4 + 1), f"no. {i}", text) for i, text in enumerate(LONG)]
    found, names = pick(make_file(to_csv(rows)))
    assert names == {"label": "stars", "text": "review"}
    assert found == [(str(i % 4 + 1), text) for i, text in enumerate(LONG)]
    found, names = pick(make_file(to_csv(rows[1:])))  # the same without a header
    assert names == {"label": 2, "text": 4} and len(found) == 8


def test_columns_without_a_name(make_file):
    """The index that pandas writes first, and the empty columns that spreadsheets leave at the end."""
    rows = [("ham" if i % 3 else "spam", text) for i, text in enumerate(LONG)]
    table = [("", "text", "kind", "split")]
    table += [(str(i), text, label, "ab"[i % 2]) for i, (label, text) in enumerate(rows)]
    assert pick(make_file(to_csv(table)), label_column="kind") == (rows, {"label": "kind", "text": "text"})
    assert pick(make_file(to_csv(table)), label_column=2, text_column=1) == (rows, {"label": "kind", "text": "text"})
    path = make_file(to_csv([("v1", "v2", "", ""), *((*row, "", "") for row in rows)]))
    assert pick(path) == (rows, {"label": "v1", "text": "v2"})
    assert pick(path, text_column=3)[1] == {"label": "v1", "text": 3}


@pytest.mark.parametrize("first", ["Spam", " ham", "NaN", "null"])
def test_the_first_row_of_a_file_without_a_header_is_no_header(make_file, first):
    rows = [("ham" if i % 3 else "spam", text) for i, text in enumerate(LONG)]
    found, names = pick(make_file(to_csv([(first, "the first text"), *rows])))
    assert names == {"label": 0, "text": 1} and found == [(first.strip(), "the first text"), *rows]


def test_rows_without_a_label_make_no_other_column_the_label(make_file):
    """A third value, which is none, must not leave the column with two values as the only one."""
    rows = [("01"[i % 2] if i % 4 else "", "web" if i % 3 else "app", text) for i, text in enumerate(LONG)]
    with pytest.raises(ValueError, match=r"holds the label\? Set LABEL_COLUMN to one of 'verdict'.*'source'"):
        pick(make_file(to_csv([("verdict", "source", "text"), *rows])))


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
def test_a_column_with_two_values_is_not_the_label_in_doubt(make_file, others, label):
    rows = [
        [*others, "text"],
        *([*(values[i % len(values)] for values in others.values()), f"{LONG[i % 8]} {i}"] for i in range(20)),
    ]
    if label:
        assert pick(make_file(to_csv(rows)))[1]["label"] == label
        return
    first, second = others
    with pytest.raises(ValueError, match=rf"holds the label\? Set LABEL_COLUMN to one of '{first}'.*'{second}'"):
        pick(make_file(to_csv(rows)))


def test_texts_that_are_not_used_are_named(make_file, capsys):
    rows = [("subject", "body", "label", "city")]
    rows += [(f"about thing number {i}", text * 3, "ab"[i % 2], "New York") for i, text in enumerate(LONG)]
    pick(make_file(to_csv(rows)))
    assert "reads column 'body' only, not 'subject'. Join" in capsys.readouterr().out


def test_columns_by_name_and_by_number(make_file):
    rows = [("a", "b", "text", "label"), *((str(i % 2), text, text[::-1], str(i)) for i, text in enumerate(LONG))]
    for name, content in (("train.csv", to_csv(rows)), ("train.jsonl", to_jsonl(rows[1:], rows[0]))):
        path = make_file(content, name)
        for columns in ({"label_column": "a", "text_column": "b"}, {"label_column": 0, "text_column": 1}):
            found, names = pick(path, **columns)
            assert found == [(str(i % 2), text) for i, text in enumerate(LONG)]
            assert names == {"label": "a", "text": "b"}
    found, names = pick(make_file(to_csv(rows[1:])), label_column=0, text_column=2)
    assert found[0] == ("0", LONG[0][::-1]) and names == {"label": 0, "text": 2}


def test_rows_are_numbered_as_in_the_file(make_file):
    rows = [(str(i % 2), text) for i, text in enumerate(LONG)]
    for content, first in ((to_csv(rows), 0), (to_csv([("label", "text"), *rows]), 1)):
        frame, _ = tables.infer_columns(tables.read_table(make_file(content)), "train.csv")
        assert frame.index.tolist() == list(range(first, first + 8))


def test_labels_lose_white_space_and_texts_keep_it(make_file):
    path = make_file("".join(f'" {i % 2} "," {text} "\n' for i, text in enumerate(LONG)))
    assert pick(path)[0] == [(str(i % 2), f" {text} ") for i, text in enumerate(LONG)]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "b")] * 2 + [("c", "d")] * 2, {}, r"which column of train\.csv holds the label\? Set LABEL_COLUMN"),
        ([(t, t[::-1], str(i % 2)) for i, t in enumerate(LONG)], {}, r"holds the text\? Set TEXT_COLUMN to one of 0 "),
        ([("1", t) for t in LONG], {"label_column": "label"}, r"no column 'label', but \['1', 'a text"),
        ([("1", t) for t in LONG], {"text_column": 2}, r"train\.csv has no column 2, but \[0, 1\]"),
        ([("label", "text"), ("1", "a")], {"text_column": "Text"}, r"no column 'Text', but \['label', 'text'\]"),
        ([("1", t) for t in LONG], {"text_column": 0, "label_column": 0}, r"train\.csv cannot both be in column 0"),
        ([("label", "text")], {}, r"has 0 rows below a header of \['label', 'text'\]"),
        (
            [("text", "text"), *((str(i % 2), t) for i, t in enumerate(LONG))],
            {},
            "the name 'text' is there twice: give its number, 0 or 1",
        ),
        ([("1;a",), ("2;b",)], {}, r"which column of train\.csv holds the label\? .*0 \(2 values, such as '1'\)"),
        ([("text",), ("a",)], {}, "has one column only"),
    ],
)
def test_columns_in_doubt(make_file, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        pick(make_file(to_csv(rows)), **columns)


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
        (["relevant", "spare"], ["spare", "relevant"]),  # a word that says so comes before the alphabet
        (["dog", "cat"], ["cat", "dog"]),
    ],
)
def test_which_class_is_positive(labels, expected):
    for given_labels in (labels, labels[::-1]):
        classes = data_labels.infer_classes(pd.Series(given_labels), "train.csv")
        assert classes == [[label] for label in expected]
        binary = data_labels.encode_labels(pd.Series(given_labels), classes)
        assert binary.tolist() == [expected.index(label) for label in given_labels]
        assert binary.dtype.kind == "i"


@pytest.mark.parametrize(
    ("labels", "expected"), [(["spam", "ham", "Spam", "spam"], ["ham", "spam"]), (["2.0", "1", "2", "2"], ["1", "2"])]
)
def test_spellings_that_mean_the_same_are_one_label(labels, expected):
    classes = data_labels.infer_classes(pd.Series(labels), "train.csv")
    assert classes == [[label] for label in expected]
    assert data_labels.encode_labels(pd.Series(labels), classes).tolist() == [label[0] in "sS2" for label in labels]


def test_classes_make_two_of_five_stars_and_leave_others_out():
    stars = pd.Series(["1", "5", "3", "2", "4", "3"], index=[1, 2, 3, 4, 5, 6])
    for classes in ([[1, 2], [4, 5]], [["1", "2"], ["4", "5"]]):
        found = data_labels.infer_classes(stars, "train.csv", classes)
        assert found == [["1", "2"], ["4", "5"]]
        binary = data_labels.encode_labels(stars, found)
        assert binary.to_dict() == {1: 0, 2: 1, 4: 0, 5: 1}
    turned = data_labels.infer_classes(pd.Series(["1", "2"]), "train.csv", [["2"], ["1"]])
    assert data_labels.encode_labels(pd.Series(["1", "2"]), turned).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["nan", "1"], [["nan"], ["1"]]), (["False", "True"], [[False], [True]]), (["0.0", "1"], [[0], [1.0]])],
)
def test_classes_that_python_takes_for_something_else(labels, classes):
    found = data_labels.infer_classes(pd.Series(labels), "train.csv", classes)
    assert data_labels.encode_labels(pd.Series(labels), found).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            list("15342153"),
            None,
            r"train\.csv has 5 different labels, but two .*'1' 2 times \(first in row 1\), '2' 1 ",
        ),
        (list("15342153"), None, r"say in CLASSES which make up the two classes, such as \[\[\"1\", \"2\"\], "),
        (["1", "1"], None, r"train\.csv has 1 different labels.*'1' 2 times \(first in row 1\)"),
        (["Spam", "spam"], None, r"train\.csv has 1 different labels.*'Spam' 1 times .*'spam' 1 times"),
        (["1", "2", ""], None, r"'' 1 times \(first in row 3\)"),
        (["label", "1", "2"], None, r"'label' 1 times \(first in row 1\)"),
        (["0", "1"], [[False], [True]], r"CLASSES names \['False', 'True'\]"),
        (["1", "2", "3"], [[1], [4, 5]], r"CLASSES names \['4', '5'\], but the labels of train\.csv are '1' 1 times"),
    ],
)
def test_classes_refused(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        data_labels.infer_classes(pd.Series(labels), "train.csv", classes)


# ---------- Real data -------------------------------------------------------------------------------------------------


def test_sst2_with_its_header(test_data, tmp_path):
    (tmp_path / "train.tsv.gz").symlink_to(test_data("sst2/train.tsv.gz"))
    (tmp_path / "test.tsv").symlink_to(test_data("sst2/dev.tsv"))  # dev.tsv itself is what data_prep.ipynb writes
    found = []
    for path in tables.find_data_files(tmp_path):
        frame, names = tables.infer_columns(tables.read_table(path), path.name)
        classes = data_labels.infer_classes(frame["label"], path.name)
        found.append((names, classes, len(frame), data_labels.encode_labels(frame["label"], classes).sum()))
        assert frame["text"].str.strip().ne("").all() and frame.index[0] == 1
    assert found == [
        ({"label": "label", "text": "sentence"}, [["0"], ["1"]], 67_349, 37_569),
        ({"label": "label", "text": "content"}, [["0"], ["1"]], 872, 444),
    ]
    assert frame["text"].iloc[0] == "one long string of cliches ."


def test_imdb(test_data):
    frame, names = tables.infer_columns(tables.read_table(test_data("imdb/test.csv.gz")), "test.csv.gz")
    assert names == {"label": 0, "text": 1} and frame["label"].value_counts().to_dict() == {"1": 12_500, "2": 12_500}
    assert frame["text"].str.contains("<br />", regex=False).sum() == 14_533
    assert frame["text"].str.contains(quality.HTML).sum() == 14_534  # one text has another tag only
    assert frame["text"].str.contains(mojibake.MOJIBAKE).sum() == 760  # such as U+0096, a dash in code page 1252


@pytest.mark.parametrize("text", ["<br />", "a</p>b", "<a href='x'>", "&nbsp;", "&#39;", "Tom &amp; I", "<B>so</B>"])
def test_html_is_found(text):
    assert pd.Series([text, "1 < 2 > 0 & <3 I&M; <-> #39;"]).str.contains(quality.HTML).tolist() == [True, False]


@pytest.mark.parametrize("original", ["caf\u00e9", "\u00e0 la carte", "it\u2019s", "\u00a310", "10\u00a0\u20ac"])
def test_damaged_characters_are_found(original):
    # read in the wrong one of two encodings, or with what does not fit replaced
    damaged = [original.encode().decode(wrong, "replace") for wrong in ("cp1252", "latin-1", "ascii")]
    sound = [original, "\u00c2ge, \u00e2ge, S\u00c3O \u00a3", "\U0001f600 \u4e2d\u6587"]
    assert pd.Series(damaged + sound).str.contains(mojibake.MOJIBAKE).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "original",
    [
        *("очень вкусный суп", "πολύ ωραίο φαγητό", "这家店很好吃，真的", "الطعام لذيذ"),
        *("האוכל היה טעים", "อาหารอร่อย", "rất ngon", "😀"),
    ],
)
@pytest.mark.parametrize("wrong", ["cp1252", "latin-1", "cp1251", "gbk"])
def test_damaged_characters_of_each_script(original, wrong):
    if (original, wrong) != ("rất ngon", "cp1251"):  # one letter of two words
        assert is_mojibake(original.encode().decode(wrong, "replace"))
    assert not is_mojibake(original)


@pytest.mark.parametrize(
    "text",
    [
        "«\u00a0Où êtes-vous\u00a0?\u00a0» L’été à\u00a0«\u00a0Zoé\u00a0»… 20\u00a0°C, œuvre, ‘café’”…",
        "»Spaß«, „Grüße“ – MENÜ“ ÄÖÜ… „Spaß“…",
        "¿Qué?¡Olé! «está»… 1º, 2ª, pingüino",
        "NÃO! SÃO PAULO, IRMÃ” coração…",
        "Çok güzel, ışık yağmur, şef İstanbul’da",
        "Zażółć gęślą jaźń. „Świetnie”…",
        "„Víš…“ Příliš žluťoučký kůň, Říš…",
        "Nhà hàng này rất ngon, đường phố",
        "Το φαγητό ήταν πολύ ωραίο, «ευχαριστώ»…",
        "РОССИЯ, СССР: «спасибо»… МІЛІЦІЯ, Рік",
        "what??? ok?? ????",
    ],
)
def test_ordinary_texts_of_many_languages_are_sound(text):
    assert not is_mojibake(text)


@pytest.mark.parametrize("text", ["????? ???", "the ï¿½", "\ufffd", "plain\x96dash", "ï»¿label", "đź‘Ť", "рџ‘Ќ"])
def test_signs_for_what_was_lost(text):
    assert is_mojibake(text)


# ---------- First rows, row numbers and typed values ------------------------------------------------------------------

SPAM = [("spam" if i % 3 else "ham", text) for i, text in enumerate(LONG)]


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (("Etikett", "Nachricht"), 1),
        (("标签", "文本"), 1),
        (("spam", "text"), 1),  # the name of a column is a label, too
        (("label", "2020"), 1),
        (("0", "1"), 1),
        (("Is this message spam?", "What did you think, and why?"), 1),
        (("这是垃圾信息吗？", "短信"), 1),
        (("spam", "another text of some length"), 0),
    ],
)
def test_a_first_row_is_a_header_or_a_row(make_file, header, number):
    frame, _ = tables.infer_columns(tables.read_table(make_file(to_csv([header, *SPAM]))), "train.csv")
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
def test_a_first_row_in_doubt_is_asked_for(make_file, rows, message):
    with pytest.raises(ValueError, match=message):
        pick(make_file(to_csv(rows)))


def test_empty_lines_count(make_file, capsys):
    lines = to_csv(SPAM).splitlines(keepends=True)
    path = make_file("label,text\n\n" + "".join(lines[:3]) + "\n\n" + "".join(lines[3:]))
    frame, _ = tables.infer_columns(tables.read_table(path), "train.csv")
    assert frame.index.tolist() == [2, 3, 4, 7, 8, 9, 10, 11]
    assert "train.csv: 9 rows of 2 columns in 12 lines (empty lines: 3)" in capsys.readouterr().out
    path = make_file("\n" + "\n\n".join(to_jsonl(SPAM).splitlines()), "train.jsonl")
    frame, _ = tables.infer_columns(tables.read_table(path), "train.jsonl")
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
def test_lists_and_objects_are_no_texts(make_file, make, message):
    path = make_file("".join(json.dumps(make(i, text)) + "\n" for i, text in enumerate(LONG)), "train.jsonl")
    with pytest.raises(ValueError, match=message):
        pick(path)


def test_names_that_lines_of_json_lack_are_said(make_file, capsys):
    lines = [{"label": i % 2, "text": text} | ({"note": "x"} if i == 3 else {}) for i, text in enumerate(LONG)]
    tables.read_table(make_file("\n".join(map(json.dumps, lines)), "train.jsonl"))
    assert "some of its 8 lines lack a name, and it is empty there: 'note' in 7" in capsys.readouterr().out


def test_whole_numbers_of_parquet_beside_missing_ones(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is absent: reading Parquet is not tested")
    ids = pd.array([1234567890123456789, None], "Int64")
    frame = pd.DataFrame({"id": ids, "text": ["a", "b"]}).set_index("text")
    frame.to_parquet(tmp_path / "train.parquet")
    assert tables.read_table(tmp_path / "train.parquet").to_dict("list") == {
        "text": ["a", "b"],
        "id": ["1234567890123456789", ""],
    }


def test_cells_of_xlsx_are_what_excel_shows(tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is absent: reading .xlsx is not tested")
    book = openpyxl.Workbook()
    book.active.title = "kept"
    rows = [(), (None, "label", "text"), (None, 1, "a_x000D_\nb"), (None, 0, "_x005F_x000D_"), (), (None, 1.0, "#N/A")]
    for row in rows:
        book.active.append(row)
    book.active["C7"], book.active["B7"] = "=B3&C3", 0
    book.active["C8"], book.active["B8"] = "#REF!", 1
    book.active["C8"].data_type = "e"
    book.active.row_dimensions[4].hidden = True
    book.create_sheet("draft", 0).sheet_state = "hidden"
    book.active = 1
    book.save(tmp_path / "train.xlsx")
    frame = tables.read_table(tmp_path / "train.xlsx")
    printed = capsys.readouterr().out
    assert "the first visible sheet, 'kept', is read, and draft not" in printed
    assert "hold a formula without its result" in printed and "first in C7" in printed
    assert "hidden rows are read as well" in printed
    assert frame.index.tolist() == [1, 2, 3, 5, 6, 7]
    assert frame[2].tolist()[:3] == ["text", "a\r\nb", "_x000D_"] and frame[2].tolist()[-2] == ""


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (("Submitted", "Rating (1-2)", "What should we do in another way?"), 1),
        (("Submitted", "How content are you with us?", "Why?"), 1),
        (("n/a", "?", "another text of some length"), 0),  # what is not known is no name
    ],
)
def test_a_first_row_above_numbers(make_file, header, number):
    rows = [(f"2026-05-{i + 1:02} 10:30:00", i % 2 + 1, f"{text} (in short)") for i, text in enumerate(LONG[:20])]
    rows += [("", 1, text) for text in LONG[20:]]
    frame, names = tables.infer_columns(tables.read_table(make_file(to_csv([header, *rows]))), "train.csv")
    assert frame.index[0] == number and len(frame) == len(rows) + (number == 0)
    assert list(names.values()) == (list(header[1:]) if number else [1, 2])


def test_what_is_no_text_however_long(make_file):
    rows = [(f"{i:032x}", "2026-05-01 10:30:00.000", i % 2, text[:20]) for i, text in enumerate(LONG)]
    frame, names = tables.infer_columns(tables.read_table(make_file(to_csv(rows))), "train.csv")
    assert names == {"label": 2, "text": 3} and frame["text"].tolist() == [text[:20] for text in LONG]


def test_empty_rows_are_counted(make_file, capsys):
    rows = [("label", "text"), ("1", "good soup"), ("", ""), (" ", "\u00a0"), ("0", "bad soup"), ("", "")]
    frame, _ = tables.infer_columns(tables.read_table(make_file(to_csv(rows))), "train.csv")
    assert frame.index.tolist() == [1, 4]
    assert "train.csv: empty rows left out: 3\n" in capsys.readouterr().out
    for nothing in (",\n,\n", '"",""\n'):
        with pytest.raises(ValueError, match="is empty: it needs a row for each text"):
            pick(make_file(nothing))


def test_names_of_json_have_no_spaces_around_them_and_come_once(make_file):
    path = make_file('{" stars": 1, "body ": "good soup"}\n{" stars": 0, "body ": "bad soup"}\n', "train.jsonl")
    frame, _ = tables.infer_columns(tables.read_table(path), "train.jsonl", text_column="body", label_column="stars")
    assert frame["text"].tolist() == ["good soup", "bad soup"]
    path = make_file('{"label": 1, "text": "a"}\n{"label": 1, "text": "b", "label": 0}\n', "train.jsonl")
    with pytest.raises(ValueError, match="line 2: the name 'label' is there twice"):
        tables.read_table(path)


@pytest.mark.parametrize(
    ("name", "package"), [("train.csv.gz", "gzip"), ("train.parquet", "pyarrow"), ("new.csv", "io")]
)
def test_what_cannot_be_read_just_now_is_not_called_damaged(make_file, monkeypatch, name, package):
    def fail(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    pytest.importorskip(package)
    path = make_file(b"1,good\n", name)
    for opener in data_compression.OPEN_FUNCTIONS:
        monkeypatch.setitem(data_compression.OPEN_FUNCTIONS, opener, fail)
    monkeypatch.setattr(file_formats, "_read_parquet", fail)
    with pytest.raises(ReadError, match="cannot be read .*you need read permission") as raised:
        tables.read_table(path)
    assert "damaged" not in str(raised.value)


def test_ids_with_leading_zeros_of_a_format(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["id", "label", "text"], [7, 1, "good soup"], [123456, 0, "bad soup"]):
        book.active.append(row)
    for row in (2, 3):
        book.active.cell(row, 1).number_format = "00000"
    book.save(tmp_path / "train.xlsx")
    assert tables.read_table(tmp_path / "train.xlsx")[0].tolist() == ["id", "00007", "123456"]


@pytest.mark.parametrize(
    ("content", "encoding", "name"),
    [
        ("label,text\n1,gr\u00fcn\n".encode("utf-8-sig"), "cp1252", "utf-8"),
        ("label,text\n1,gr\u00fcn\n".encode("utf-16"), "latin-1", "utf-16"),
        ("label,text\n1,gr\u00fcn\n".encode("utf-32"), "utf-8", "utf-32"),
        ("\u6807\u7b7e,\u6587\u672c\n1,\u5f88\u597d\u5403\n".encode("utf-16-le"), "utf-8", "utf-16-le"),
    ],
)
def test_the_first_bytes_say_the_encoding(make_file, content, encoding, name):
    with pytest.raises(ValueError, match=f"save the file as UTF-8, or set ENCODING, perhaps to '{name}'"):
        tables.read_table(make_file(content), encoding)
    assert tables.read_table(make_file(content), name)[1].iloc[0] in ("text", "\u6587\u672c")
