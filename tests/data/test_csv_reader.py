"""Delimited text is read as it was meant, or refused with the line where the trouble begins."""

import csv
import gzip
import io
import zipfile

import pytest

from textbert.data import csv_reader, tables
from textbert.data import quoting as data_quoting


def read(path, kind=".csv", encoding="utf-8"):
    return csv_reader.read_delimited(path, kind, encoding)[0]


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="new.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


ROWS = [["id", "text"], ["1", "good soup, warm"], ["2", 'he said "no"'], ["3", "two\nlines"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('id,text\n1,"good soup, warm"\n2,"he said ""no"""\n3,"two\nlines"\n', ""),
        ('id;text\n1;good soup, warm\n2;"he said ""no"""\n3;"two\nlines"\n', "semicolons"),
        ('id|text\n1|good soup, warm\n2|"he said ""no"""\n3|"two\nlines"\n', "bars"),
        ('id\ttext\n1\tgood soup, warm\n2\t"he said ""no"""\n3\t"two\nlines"\n', "tabs"),
        ('sep=;\r\nid;text\r\n1;good soup, warm\r\n2;"he said ""no"""\r\n3;"two\nlines"\r\n', "sep="),
        ('id, text\n1, "good soup, warm"\n2, "he said ""no"""\n3, "two\nlines"\n', "blanks"),
        ('id,text\n1,"good soup, warm"\n2,"he said \\"no\\""\n3,"two\nlines"\n', "backslashes"),
        ('id,text\r1,"good soup, warm"\r2,"he said ""no"""\r3,"two\nlines"', ""),
        ('\ufeff"id","text"\n"1","good soup, warm"\n"2","he said ""no"""\n"3","two\nlines"\n\n\n', ""),
    ],
)
def test_what_is_beyond_doubt_is_read_as_it_is_meant(write, capsys, content, said):
    assert read(write(content)) == ROWS
    printed = capsys.readouterr().out
    assert said in printed and bool(printed) == bool(said)


def test_a_backslash_before_anything_else_stays(write):
    content = 'id,text\n1,"C:\\new and \\"old\\""\n2,"at the end \\\\"\n3,"a \\"b\\", c"\n'
    assert read(write(content))[1:] == [["1", 'C:\\new and "old"'], ["2", "at the end \\"], ["3", 'a "b", c']]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('1\t"say ""hi"" now"\n2\tplain\n', 'say "hi" now'),
        ('1\t"a"\n2\t"b"\n', "a"),  # every text is quoted
        ('1\t"a"\n2\tb\n', '"a"'),  # as BERT's own files have it
        ('1\t"a ""b"" c"\n2\t"d" e\n', '"a ""b"" c"'),
        ('1\t"a\nb"\n2\tc\n', "a\nb"),
    ],
)
def test_quotation_marks_in_a_tsv(write, expected, content):
    assert read(write(content, "new.tsv"), ".tsv")[0][1] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('1,a\n0,"we loved it\n1,b\n0,"c" d\n', "line 2: a quotation mark opens a text and is closed in line 4"),
        ('1,a\n0,b\n0,"we\n' + "1,c\n" * 99, "line 3: a quotation mark opens a text and is never closed"),
        ('1,a\n0,b\n0,"we\n1,never again"\n1,c\n', "line 3: .* looks like rows of their own"),
        ('a,1\nb,0\n"we,0\nnever again",1\nc,1\n', "line 3: .* looks like rows of their own"),
        ("1,a\n0,b\ntorn\n", "the row in line 3 has 1 columns, but the first has 2 .* torn by a line break, in line 2"),
        ("1,a\n0,b\rtorn\n", "the row in line 3 has 1 columns"),
        ("1,a\n0,b,c\n1,d", r"the row in line 2 has 3 columns.*\(a text with commas stands in double quotes\)"),
        ("1,a\n0", "the row in line 2 has 1 columns"),
        ("text\na\n\nb\n", "line 3 is blank"),
        ("text\na\nb\rc\nd\n", "line 3 ends otherwise"),
        ("text\r\na\r\nb\nc\r\n", "line 3 ends otherwise"),
        ("1,a;b|c\n1,d;e|f\n"[:0] + "1;a|b\n2;c|d\n", "apart by semicolons or bars: say which in a first line"),
    ],
)
def test_what_is_in_doubt_is_refused_where_it_begins(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("separator", csv_reader.DELIMITERS)
def test_what_shows_the_form_may_end_within_a_text(write, separator, encoding):
    """More than is looked at to find it, texts of several lines, and one longer than csv reads by itself."""
    text = f"two{separator}\nlines, and more\n" * 20
    rows = [["label", "text"], ["good", "one\n" * 50_000], *([["bad", text]] * 900)]
    lines = [f'{label}{separator}"{text}"\n' for label, text in rows]
    path = write("\ufeff".encode(encoding) + "".join(lines).encode(encoding))
    assert path.stat().st_size > 2 * csv_reader.SAMPLE
    assert read(path, encoding=encoding) == rows


def test_blank_lines_before_the_first_row(write):
    assert read(write("  \n\nlabel,text\n1,a\n")) == [["label", "text"], ["1", "a"]]


def test_a_text_of_several_lines_stays_one(write):
    rows = [["1", "a"], ["0", "first, the soup\nthen, the tea\n1, 2, 3"], ["1", "b\r\n0,c"]]
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    assert read(write(file.getvalue())) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\n1,caf\xe9\n".encode("cp1252"), "cp1252"),
        ("id,text\n1,这家店很好吃\n".encode("gbk"), "gb18030"),
        ("id,text\n1,очень вкусный суп\n".encode("cp1251"), "cp1251"),
        ("id,text\n1,soup\n".encode("utf-16"), "utf-16"),
    ],
)
def test_a_hint_at_the_encoding_looks_at_the_bytes(write, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        tables.read_table(write(content))
    assert message == "cp1252" or "cp1252" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(write, encoding):
    path = write("id,text\n1,soup\n".encode(encoding))
    with pytest.raises(ValueError, match=f"looks like UTF-16: .*{encoding}"):
        tables.read_table(path)
    assert tables.read_table(path, encoding).to_numpy().tolist() == [["id", "text"], ["1", "soup"]]


@pytest.mark.parametrize(("content", "what"), [(gzip.compress(b"a,b\n"), r"\.gz"), (b"PK\3\4\x14\0", r"\.xlsx")])
def test_what_is_no_text(write, content, what):
    with pytest.raises(ValueError, match=f"is no text but .*{what}"):
        tables.read_table(write(content))


def test_a_zip_as_a_mac_makes_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.csv.zip", "w") as archive:
        for name, content in (("a/", ""), ("a/t.csv", "1,a\n2,b\n"), ("a/.DS_Store", "x"), ("__MACOSX/a/._t.csv", "x")):
            archive.writestr(name, content)
    assert tables.read_table(tmp_path / "new.csv.zip").to_numpy().tolist() == [["1", "a"], ["2", "b"]]
    with zipfile.ZipFile(tmp_path / "new.csv.zip", "a") as archive:
        archive.writestr("b.csv", "1,a\n")
    with pytest.raises(ValueError, match=r"holds 2 files \(a/t\.csv, b\.csv\)"):
        tables.read_table(tmp_path / "new.csv.zip")


# ---------- One plausible reading is not a proven one -----------------------------------------------------------------

TWEETS = ['"The best soup ever', "a tea", "no more", "late, again", 'a pizza of 12"', "cold", "fine", "good place"]


@pytest.mark.parametrize("columns", [["id", "text"], ["text", "id"], ["id", "label", "text"], ["text", "title"]])
def test_lines_of_a_tsv_that_are_rows_are_never_joined(write, columns):
    rows = [columns]
    for number, text in enumerate(TWEETS, start=1):
        values = {"id": f"r{number * 77}", "label": str(number % 2), "text": text, "title": f"a title {text[::-1]}"}
        rows.append([values[name] for name in columns])
    assert read(write("".join("\t".join(row) + "\n" for row in rows), "new.tsv"), ".tsv") == rows


@pytest.mark.parametrize("text", ['"all of it"', '""', '"good" it was', 'say ""hi""', '"a ""b"" c" d'])
def test_quotes_that_belong_to_the_texts_of_a_tsv_stay(write, text):
    rows = [["id", "text"], ["1", text], ["2", "plain"], ["3", 'a 12" pizza']]
    assert read(write("".join("\t".join(row) + "\n" for row in rows), "new.tsv"), ".tsv") == rows


def test_a_spreadsheet_quotes_commas_in_its_tsv(write):
    rows = [["id", "text"], *([str(i), f"soup {i}, tea"] for i in range(3)), ["4", "plain"]]
    content = "".join(f'{i}\t"{text}"\n' if "," in text else f"{i}\t{text}\n" for i, text in rows)
    assert read(write(content, "new.tsv"), ".tsv") == rows


@pytest.mark.parametrize(
    "make",
    [
        lambda i, text: f"r{i * 31},{text}",  # ids first
        lambda i, text: f"{text},2026-01-{i:02}",  # dates last
        lambda i, text: f"{i},{('yes', 'no')[i % 2]},{text}",  # the label in the middle
        lambda i, text: f"{i},{text},{i * 0.5}",
        lambda i, text: f"{text},a title of my own {i} {text[1:4]}",  # prose only
    ],
)
@pytest.mark.parametrize("separator", ",;\t|")
def test_swallowed_rows_are_noticed_whatever_the_columns_hold(write, make, separator):
    texts = ['"we loved it', "never again", "soup", 'a pizza of 12"', *(f"{word} was fine" for word in "abcdefgh")]
    lines = [make(i, text).replace(",", separator) for i, text in enumerate(texts, start=1)]
    path = write("\n".join(lines))
    if separator == "\t":  # in a .csv too
        path = write("sep=\t\n" + "\n".join(lines))
    with pytest.raises(ValueError, match=r"line [12]: .* (rows of their own|no separator follows)"):
        read(path)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("columns", [[0, 1, 2], [2, 0, 1], [1, 2], [2, 1], [2]])
def test_texts_of_several_lines_with_commas_are_no_rows(write, quoting, columns):
    texts = ["Nice, really\nGood, too", "Price:\n1,000 dollars", "one\n\ntwo, three", "a\nb", 'say "no", twice', "x"]
    rows = [[i, "yes" if i % 2 else "no", text] for i, text in enumerate(texts * 3)]
    file = io.StringIO()
    csv.writer(file, quoting=quoting).writerows([row[i] for i in columns] for row in rows)
    assert read(write(file.getvalue())) == [[str(row[i]) for i in columns] for row in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,5;good\n2,3;bad\n1,4;fine\n", "apart by commas or semicolons: say which in a first line"),
        ("1;1;a,b\n", "apart by commas or semicolons: say which in a first line"),  # one row proves nothing
        ("1,great; loved it, yes\n2,bad; hated it\n1,good; nice\n", "line 2 has 2 columns, but the first has 3"),
    ],
)
def test_another_separator_needs_proof(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(content))


def test_what_is_no_row_is_counted(write):
    content = 'sep=,\nid,text\n\n1,"two\nlines"\n  \n2,x\n'
    tally = data_quoting.Tally()
    csv_reader.read_delimited(write(content), ".csv", tally=tally)
    assert (tally.rows, tally.columns, tally.lines, tally.number_rows().tolist()) == (3, 2, 7, [0, 2, 4])
    described = tally.describe("new.csv")
    assert described.startswith("new.csv: 3 rows of 2 columns in 7 lines")
    assert "empty lines: 2; line breaks in quoted fields: 1" in described
    csv_reader.read_delimited(write("id,text\n1,x\n"), ".csv", tally=(plain := data_quoting.Tally()))
    assert plain.describe("new.csv") == ""


def test_a_tsv_whose_quotes_may_enclose_tabs_is_asked_about(write):
    with pytest.raises(ValueError, match="1 rows of 3 columns, or 1 of 2 if quotes enclose fields"):
        tables.read_table(write('1\t"good\tsoup"\n', "new.tsv"))


def test_a_separator_among_escaped_quotes(write):
    assert read(write('1;1;"\\"\n0"\n')) == [["1", "1", '"\n0']]
