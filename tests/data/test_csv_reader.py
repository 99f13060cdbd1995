"""Delimited text is read as it was written, or refused with the line where the trouble begins."""

import csv
import gzip
import io
import zipfile

import pytest

from textbert.data.csv_reader import read_delimited
from textbert.data.csv_rows import Tally
from textbert.data.dialects import DELIMITERS, SNIFF_CHARS, Dialect, detect_delimiter, normalize_escaped_quotes
from textbert.data.quoting import QuotingProfile, SwallowedRowDetector
from textbert.data.tables import read_table


def read(path, extension=".csv", encoding="utf-8"):
    return read_delimited(path, extension, encoding)[0]


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="new.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


SEMICOLON = "delimiter: semicolon (;)"
SWALLOWED = "the quoted field seems to have swallowed the following rows"
UNBALANCED = "unbalanced quote: the field opened here is"
COMMA_OR_SEMICOLON = 'the delimiter is a comma or a semicolon. Add a first line such as "sep=,"'

ROWS = [["id", "text"], ["1", "good soup, warm"], ["2", 'he said "no"'], ["3", "two\nlines"]]


@pytest.mark.parametrize(
    ("content", "description"),
    [
        ('id,text\n1,"good soup, warm"\n2,"he said ""no"""\n3,"two\nlines"\n', ""),
        ('id;text\n1;good soup, warm\n2;"he said ""no"""\n3;"two\nlines"\n', SEMICOLON),
        ('id|text\n1|good soup, warm\n2|"he said ""no"""\n3|"two\nlines"\n', "delimiter: pipe (|)"),
        ('id\ttext\n1\tgood soup, warm\n2\t"he said ""no"""\n3\t"two\nlines"\n', "delimiter: tab (\\t)"),
        (
            'sep=;\r\nid;text\r\n1;good soup, warm\r\n2;"he said ""no"""\r\n3;"two\nlines"\r\n',
            'delimiter: semicolon (;), a first line "sep="',
        ),
        ('id, text\n1, "good soup, warm"\n2, "he said ""no"""\n3, "two\nlines"\n', "spaces before quotes"),
        ('id,text\n1,"good soup, warm"\n2,"he said \\"no\\""\n3,"two\nlines"\n', "quotes escaped by backslashes"),
        ('id,text\r1,"good soup, warm"\r2,"he said ""no"""\r3,"two\nlines"', ""),
        ('\ufeff"id","text"\n"1","good soup, warm"\n"2","he said ""no"""\n"3","two\nlines"\n\n\n', ""),
    ],
)
def test_dialects_are_detected_and_printed_if_unusual(write, capsys, content, description):
    path = write(content)
    assert read(path) == ROWS
    assert capsys.readouterr().out == (f"{path}: detected {description}\n" if description else "")


def test_a_backslash_before_other_characters_stays(write):
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
def test_quotes_in_a_tsv(write, expected, content):
    assert read(write(content, "new.tsv"), ".tsv")[0][1] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # not "a comma or a semicolon": with neither can the file be read to its end
        ('1;5,good\n2;3,bad\n"1;4,fine\n', "line 3: unbalanced quote: the field opened here is never closed"),
        (
            '1,a\n0,"we loved it\n1,b\n0,"c" d\n',
            "line 2: unbalanced quote: the field opened here is closed in line 4 without a delimiter",
        ),
        ('1,a\n0,b\n0,"we\n' + "1,c\n" * 99, f"line 3: {UNBALANCED} never closed"),
        (
            '1,a\n0,b\n0,"we\n1,never again"\n1,c\n',
            "line 3: the quoted field seems to have swallowed the following rows",
        ),
        (
            'a,1\nb,0\n"we,0\nnever again",1\nc,1\n',
            "line 3: the quoted field seems to have swallowed the following rows",
        ),
        ("1,a\n0,b\ntorn\n", "the row in line 3 has 1 columns, but the first has 2 .*unquoted line break at line 2"),
        ("1,a\n0,b\rtorn\n", "the row in line 3 has 1 columns"),
        ("1,a\n0,b,c\n1,d", r"the row in line 2 has 3 columns.*\(quote fields that contain a comma\)"),
        ("1,a\n0", "the row in line 2 has 1 columns"),
        ("text\na\n\nb\n", "line 3 is empty"),
        ("text\na\nb\rc\nd\n", "line 3 has a different line ending from line 1"),
        ("text\r\na\r\nb\nc\r\n", "line 3 has a different line ending from line 1"),
        ("1;a|b\n2;c|d\n", 'the delimiter is a semicolon or a pipe. Add a first line such as "sep=;"'),
    ],
)
def test_ambiguous_or_broken_rows_are_refused_with_their_line(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_sample_for_detection_may_end_within_a_field(write, delimiter, encoding):
    """Multiline fields in a file longer than the sample, and one longer than the csv module's default limit."""
    text = f"two{delimiter}\nlines, and more\n" * 20
    rows = [["label", "text"], ["good", "one\n" * 50_000], *([["bad", text]] * 900)]
    lines = [f'{label}{delimiter}"{text}"\n' for label, text in rows]
    path = write("\ufeff".encode(encoding) + "".join(lines).encode(encoding))
    assert path.stat().st_size > 2 * SNIFF_CHARS
    assert read(path, encoding=encoding) == rows


def test_empty_lines_before_the_first_row(write):
    assert read(write("  \n\nlabel,text\n1,a\n")) == [["label", "text"], ["1", "a"]]


def test_a_multiline_field_stays_one_field(write):
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
def test_the_encoding_hint_depends_on_the_bytes(write, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_table(write(content))
    assert message == "cp1252" or "cp1252" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark(write, encoding):
    path = write("id,text\n1,soup\n".encode(encoding))
    with pytest.raises(ValueError, match=f"looks like UTF-16: .*{encoding}"):
        read_table(path)
    assert read_table(path, encoding).to_numpy().tolist() == [["id", "text"], ["1", "soup"]]


@pytest.mark.parametrize(("content", "name"), [(gzip.compress(b"a,b\n"), r"\.gz"), (b"PK\3\4\x14\0", r"\.xlsx")])
def test_binary_files_are_named(write, content, name):
    with pytest.raises(ValueError, match=f"is not a text file but .*{name}"):
        read_table(write(content))


def test_a_zip_file_made_on_macos(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.csv.zip", "w") as archive:
        for name, content in (("a/", ""), ("a/t.csv", "1,a\n2,b\n"), ("a/.DS_Store", "x"), ("__MACOSX/a/._t.csv", "x")):
            archive.writestr(name, content)
    assert read_table(tmp_path / "new.csv.zip").to_numpy().tolist() == [["1", "a"], ["2", "b"]]
    with zipfile.ZipFile(tmp_path / "new.csv.zip", "a") as archive:
        archive.writestr("b.csv", "1,a\n")
    with pytest.raises(ValueError, match=r"expected one table in it, got 2 files \(a/t\.csv, b\.csv\)"):
        read_table(tmp_path / "new.csv.zip")


# ---------- A plausible dialect is not a proven one -------------------------------------------------------------------

TWEETS = ['"The best soup ever', "a tea", "no more", "late, again", 'a pizza of 12"', "cold", "fine", "good place"]


@pytest.mark.parametrize("columns", [["id", "text"], ["text", "id"], ["id", "label", "text"], ["text", "title"]])
def test_tsv_lines_that_are_rows_are_never_joined(write, columns):
    rows = [columns]
    for number, text in enumerate(TWEETS, start=1):
        values = {"id": f"r{number * 77}", "label": str(number % 2), "text": text, "title": f"a title {text[::-1]}"}
        rows.append([values[name] for name in columns])
    assert read(write("".join("\t".join(row) + "\n" for row in rows), "new.tsv"), ".tsv") == rows


@pytest.mark.parametrize("text", ['"all of it"', '""', '"good" it was', 'say ""hi""', '"a ""b"" c" d'])
def test_literal_quotes_in_a_tsv_stay(write, text):
    rows = [["id", "text"], ["1", text], ["2", "plain"], ["3", 'a 12" pizza']]
    assert read(write("".join("\t".join(row) + "\n" for row in rows), "new.tsv"), ".tsv") == rows


def test_spreadsheets_quote_fields_with_commas_in_tsv(write):
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
@pytest.mark.parametrize("delimiter", ",;\t|")
def test_swallowed_rows_are_detected_by_columns_of_any_type(write, make, delimiter):
    texts = ['"we loved it', "never again", "soup", 'a pizza of 12"', *(f"{word} was fine" for word in "abcdefgh")]
    lines = [make(i, text).replace(",", delimiter) for i, text in enumerate(texts, start=1)]
    path = write("\n".join(lines))
    if delimiter == "\t":  # in a .csv too
        path = write("sep=\t\n" + "\n".join(lines))
    with pytest.raises(ValueError, match=r"line [12]: .*(swallowed the following rows|without a delimiter)"):
        read(path)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("columns", [[0, 1, 2], [2, 0, 1], [1, 2], [2, 1], [2]])
def test_multiline_fields_with_commas_are_not_rows(write, quoting, columns):
    texts = ["Nice, really\nGood, too", "Price:\n1,000 dollars", "one\n\ntwo, three", "a\nb", 'say "no", twice', "x"]
    rows = [[i, "yes" if i % 2 else "no", text] for i, text in enumerate(texts * 3)]
    file = io.StringIO()
    csv.writer(file, quoting=quoting).writerows([row[i] for i in columns] for row in rows)
    assert read(write(file.getvalue())) == [[str(row[i]) for i in columns] for row in rows]


def test_a_number_with_a_comma_in_the_last_line_of_a_text_is_no_row(write):
    rows = [["A good place", "It was dear:\nwe paid 1,000 euros"], ["A bad one", "Cheap"]]
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    assert read(write(file.getvalue())) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,5;good\n2,3;bad\n1,4;fine\n", COMMA_OR_SEMICOLON),
        (
            "1;1;a,b\n",
            'the delimiter is a comma or a semicolon. Add a first line such as "sep=,"',
        ),  # one row proves nothing
        ("1,great; loved it, yes\n2,bad; hated it\n1,good; nice\n", "line 2 has 2 columns, but the first has 3"),
    ],
)
def test_an_unusual_delimiter_needs_proof(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(content))


def test_lines_that_are_not_rows_are_counted(write):
    content = 'sep=,\nid,text\n\n1,"two\nlines"\n  \n2,x\n'
    tally = Tally()
    read_delimited(write(content), ".csv", tally=tally)
    assert (tally.rows, tally.columns, tally.lines, tally.number_rows().tolist()) == (3, 2, 7, [0, 2, 4])
    described = tally.describe("new.csv")
    assert described.startswith("new.csv: 3 rows of 2 columns in 7 lines")
    assert "empty lines: 2; line breaks in quoted fields: 1" in described
    read_delimited(write("id,text\n1,x\n"), ".csv", tally=(plain := Tally()))
    assert plain.describe("new.csv") == ""


def test_a_tsv_whose_quotes_may_enclose_tabs_is_refused(write):
    with pytest.raises(ValueError, match="1 rows of 3 columns, or 1 of 2 if quotes enclose fields"):
        read_table(write('1\t"good\tsoup"\n', "new.tsv"))


def test_a_delimiter_beside_escaped_quotes(write):
    assert read(write('1;1;"\\"\n0"\n')) == [["1", "1", '"\n0']]


def test_the_example_of_swallowed_rows(write):
    """The file in the docstring of SwallowedRowDetector, and the lines that it says are not rows."""
    for second_line, is_row in (("1,never again", True), ("so good", False), ("then,never again", False)):
        path = write(f'1,soup\n0,"we loved it\n{second_line}"\n0,tea\n')
        rows = [["1", "soup"], ["0", f"we loved it\n{second_line}"], ["0", "tea"]]
        profile = QuotingProfile(",")
        for fields in rows:
            profile.add(fields, ",".join(f'"{field}"' if "\n" in field else field for field in fields) + "\n")
        assert SwallowedRowDetector(profile).has_swallowed_rows(rows[1]) is is_row
        if is_row:
            with pytest.raises(ValueError, match=f"line 2: {SWALLOWED}"):
                read(path)
        else:
            assert read(path) == rows


@pytest.mark.parametrize(
    ("sample", "default", "expected"),
    [("1,a b\n", ",", ","), ("1;a\n2;b\n", ",", ";"), ("1\ta, b\n", "\t", "\t"), (",,\n,,\n", ",", ",")],
)
def test_detect_delimiter(sample, default, expected):
    assert detect_delimiter(sample, default) == expected


def test_escaped_quotes_are_normalized():
    assert normalize_escaped_quotes(r'a "\"b\" \\" \n') == r'a """b"" \" \n'
    assert Dialect("^", escapechar="\\").describe(".csv") == "detected delimiter: '^', quotes escaped by backslashes"
