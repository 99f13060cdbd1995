"""JSON Lines, Parquet and .xlsx are read as what was written, or refused with a reason."""

import errno
import json
import sys
import zipfile

import pandas as pd
import pytest
from conftest import texts
from hypothesis import given
from hypothesis import strategies as st

from textbert.data import compression, file_formats
from textbert.data.columns import infer_columns
from textbert.data.file_formats import to_string
from textbert.data.tables import read_table
from textbert.utils.errors import ReadError

ROWS = [("1", "Cold soup"), ("2", 'We loved the "caf\u00e9" \U0001f600'), ("1", "NA"), ("2", " null ")]


def rows_of(frame):
    return list(frame.itertuples(index=False, name=None))


def test_json_values_as_strings(make_file):
    lines = [
        {"id": 12345678901234567890, "label": True, "text": "1.0", "stars": 5},
        {"id": 2, "label": False, "text": "2020-01-01", "stars": 4.0},
        {"id": 3, "label": None, "text": "half a pair: \ud83d", "extra": [1]},
    ]
    frame = read_table(make_file("\n\n".join(map(json.dumps, lines)), "train.jsonl"))
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
    table = read_table(tmp_path / "train.parquet")
    assert table.to_dict("list") == {
        "label": ["1", "0", ""],
        "flag": ["True", "False", ""],
        "kind": ["spam", "ham", ""],
        "stars": ["5", "", "1"],
        "text": ["NA", "", "caf\u00e9 \U0001f600"],
    }
    assert table.index.tolist() == [0, 1, 2]
    pd.DataFrame(ROWS, columns=["label", "text"]).to_parquet(tmp_path / "test.parquet")
    columns, names = infer_columns(read_table(tmp_path / "test.parquet"), "test.parquet")
    assert rows_of(columns) == ROWS and names == {"label": "label", "text": "text"}
    (tmp_path / "train.parquet").write_bytes(b"not Parquet")
    with pytest.raises(ValueError, match=r"train\.parquet is corrupt"):
        read_table(tmp_path / "train.parquet")


def test_xlsx(tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is absent: reading .xlsx is not tested")
    book = openpyxl.Workbook()
    rows = [("label", "text", None), (1, "NA", None), (2.0, "caf\u00e9 \U0001f600", None), (None,) * 3, (1, 7.5, None)]
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["not read"])
    book.save(tmp_path / "train.xlsx")
    columns, names = infer_columns(read_table(tmp_path / "train.xlsx"), "train.xlsx", "text", "label")
    assert rows_of(columns) == [("1", "NA"), ("2", "caf\u00e9 \U0001f600"), ("1", "7.5")]
    assert names == {"label": "label", "text": "text"}
    assert "reading the first sheet, 'Sheet'; ignored: notes" in capsys.readouterr().out
    whole = (tmp_path / "train.xlsx").read_bytes()
    for content in (b"not a sheet", whole[: len(whole) // 2]):
        (tmp_path / "train.xlsx").write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.xlsx is corrupt, or its format is not what its name says"):
            read_table(tmp_path / "train.xlsx")


@pytest.mark.parametrize(("extension", "package"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_decompression_bombs_are_not_read(tmp_path, extension, package):
    pytest.importorskip(package, reason=f"{package} is absent: reading .{extension} is not tested")
    path = tmp_path / f"train.{extension}"
    if extension == "parquet":
        pd.DataFrame({"label": 1, "text": ["x" * 50_000_000] * 2}).to_parquet(path, compression="gzip")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/workbook.xml", b" " * 100_000_000)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="decompressed size exceeds 100 times its size"):
        read_table(path)


def test_xlsx_without_openpyxl_names_the_package_to_install(make_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"train\.xlsx requires openpyxl: pip install openpyxl"):
        read_table(make_file(b"PK", "train.xlsx"))


def test_parquet_without_pyarrow_names_the_package_to_install(make_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(ImportError, match=r"train\.parquet requires pyarrow: pip install pyarrow"):
        read_table(make_file(b"PAR1", "train.parquet"))


@pytest.mark.parametrize("name", ["train.parquet.gz", "train.xlsx.zip"])
def test_compressed_parquet_and_xlsx_are_refused(make_file, name):
    with pytest.raises(ValueError, match=r"decompress it first \(\.(parquet|xlsx) is already compressed\)"):
        read_table(make_file(b"PK", name))


def test_names_missing_in_lines_of_json_are_printed(make_file, capsys):
    lines = [{"label": i % 2, "text": text} | ({"note": "x"} if i == 3 else {}) for i, text in enumerate("abcdefgh")]
    read_table(make_file("\n".join(map(json.dumps, lines)), "train.jsonl"))
    assert "some of its 8 lines lack a name, read as empty: 'note' in 7" in capsys.readouterr().out


def test_parquet_integers_beside_missing_ones(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is absent: reading Parquet is not tested")
    ids = pd.array([1234567890123456789, None], "Int64")
    frame = pd.DataFrame({"id": ids, "text": ["a", "b"]}).set_index("text")
    frame.to_parquet(tmp_path / "train.parquet")
    assert read_table(tmp_path / "train.parquet").to_dict("list") == {
        "text": ["a", "b"],
        "id": ["1234567890123456789", ""],
    }


def test_xlsx_cells_are_read_as_excel_shows_them(tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is absent: reading .xlsx is not tested")
    book = openpyxl.Workbook()
    book.active.title = "reviews"
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
    frame = read_table(tmp_path / "train.xlsx")
    printed = capsys.readouterr().out
    assert "reading the first visible sheet, 'reviews'; ignored: draft" in printed
    assert "have a formula without its result" in printed and "first in C7" in printed
    assert "rows that are hidden in Excel are read as well" in printed
    assert frame.index.tolist() == [1, 2, 3, 5, 6, 7]
    assert frame[2].tolist()[:3] == ["text", "a\r\nb", "_x000D_"] and frame[2].tolist()[-2] == ""


def test_json_names_are_stripped_and_must_be_unique(make_file):
    path = make_file('{" stars": 1, "body ": "good soup"}\n{" stars": 0, "body ": "bad soup"}\n', "train.jsonl")
    frame, _ = infer_columns(read_table(path), "train.jsonl", text_column="body", label_column="stars")
    assert frame["text"].tolist() == ["good soup", "bad soup"]
    path = make_file('{"label": 1, "text": "a"}\n{"label": 1, "text": "b", "label": 0}\n', "train.jsonl")
    with pytest.raises(ValueError, match="line 2: the name 'label' is repeated"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "package"), [("train.csv.gz", "gzip"), ("train.parquet", "pyarrow"), ("new.csv", "io")]
)
def test_a_file_that_cannot_be_read_now_is_not_called_corrupt(make_file, monkeypatch, name, package):
    def fail(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    pytest.importorskip(package)
    path = make_file(b"1,good\n", name)
    for opener in compression.OPEN_FUNCTIONS:
        monkeypatch.setitem(compression.OPEN_FUNCTIONS, opener, fail)
    monkeypatch.setattr(file_formats, "_read_parquet", fail)
    with pytest.raises(ReadError, match="cannot be read .*you need read permission") as raised:
        read_table(path)
    assert "corrupt" not in str(raised.value)


def test_leading_zeros_of_an_xlsx_number_format(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["id", "label", "text"], [7, 1, "good soup"], [123456, 0, "bad soup"]):
        book.active.append(row)
    for row in (2, 3):
        book.active.cell(row, 1).number_format = "00000"
    book.save(tmp_path / "train.xlsx")
    assert read_table(tmp_path / "train.xlsx")[0].tolist() == ["id", "00007", "123456"]


@given(rows=st.lists(st.tuples(st.sampled_from("12"), texts), min_size=1), ascii_only=st.booleans())
def test_json_lines_hold_exactly_what_was_written(tmp_path, rows, ascii_only):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"label": label, "text": text}, ensure_ascii=ascii_only) for label, text in rows]
    path.write_bytes("\n".join(lines).encode())
    assert rows_of(read_table(path)) == rows
