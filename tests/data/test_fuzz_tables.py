"""Tables as other programs write them, with hostile texts: each row is read as it was, or the table is refused."""

import csv
import io
import re

import pandas as pd
from conftest import HARD, texts
from hypothesis import assume, event, given
from hypothesis import strategies as st

from textbert.data.tables import read_table

FRAGMENTS = ["\n", "\r\n", '"', '""', ",", ";", "\t", "|", "\\", '\\"', ", ", ' "', "1", "0", "\n2,0,", "\n\n", "soup"]
fragments = st.lists(st.sampled_from(FRAGMENTS) | st.sampled_from(HARD), max_size=8).map("".join)
words = st.sampled_from(["good soup", 'he said "no"', "warm, cold; both", "it was\nlate", "NA", "", 'a pizza of 12"'])
two_labels = st.sampled_from([("1", "2"), ("0", "1"), ("good", "bad"), ("no", "yes")])
id_formats = st.sampled_from([str, "r{}".format, "2026-01-{:02}".format, "{}.5".format, "id {}".format])


def write_csv(rows, delimiter, end, quoting):
    file = io.StringIO()
    csv.writer(file, quoting=quoting, lineterminator=end, delimiter=delimiter).writerows(rows)
    return file.getvalue()


def write_pandas(rows, delimiter, end, quoting):
    options = {"sep": delimiter, "lineterminator": end, "quoting": quoting}
    return pd.DataFrame(rows).to_csv(None, header=False, index=False, **options)


def write_excel(rows, delimiter, end, quoting):
    """Quote fields with a delimiter, a quote or a line break, after a first line that names the delimiter."""
    return f"sep={delimiter}\r\n" + write_csv(rows, delimiter, "\r\n", csv.QUOTE_MINIMAL)


def write_spark(rows, delimiter, end, quoting):
    """Quote fields that need it; escape quotes, and backslashes before them, by backslashes."""

    def write(text):
        if not any(character in text for character in (delimiter, '"', "\n", "\r")):
            return text
        doubled = re.sub(r'(\\+)(?="|\Z)', r"\1\1", text)
        return '"' + doubled.replace('"', '\\"') + '"'

    return "".join(delimiter.join(map(write, row)) + "\n" for row in rows)


@st.composite
def written_table(draw):
    """Return (a file's extension, its rows, its content) as a program writes them, perhaps with a header."""
    labels, format_id = draw(two_labels), draw(id_formats)
    examples = draw(st.lists(st.tuples(st.sampled_from(labels), texts | fragments | words), min_size=1, max_size=9))
    rows = [(format_id(number), label, text) for number, (label, text) in enumerate(examples, start=1)]
    order = draw(st.permutations(range(3)))[: draw(st.sampled_from([3, 3, 3, 2]))]
    rows = draw(st.sampled_from([[], [("id", "label", "text")]])) + rows
    rows = [[row[i] for i in order] for row in rows]
    delimiter = draw(st.sampled_from(",,;|\t\t"))
    extension = ".tsv" if delimiter == "\t" and draw(st.booleans()) else ".csv"
    write = draw(st.sampled_from([write_csv, write_pandas, write_excel, write_spark]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    if any("\r" in field for row in rows for field in row) and write is not write_spark:
        write, quoting = write_csv, csv.QUOTE_ALL  # before Python 3.13 csv did not quote a lone one
    return extension, rows, write(rows, delimiter, draw(st.sampled_from(["\n", "\r\n"])), quoting)


def read_or_refuse(path):
    """Return the table in a file as a DataFrame, or None if it is refused with its name in the message."""
    try:
        frame = read_table(path)
    except ValueError as error:
        assert path.name in str(error)
        event("refused")
        return None
    event("read")
    return frame


def is_ambiguous(extension, rows, content):
    """Return True if nothing in a table shows how it was written.

    Lines of a TSV file that are rows by themselves must be read as rows, even if some end within a text. Spark writes
    one backslash at the end of a text as two, which shows only if there is an escaped quote elsewhere.
    """
    lines = [line for line in re.split(r"\r\n|\r|\n", content) if line.strip()]
    has_breaks = any(character in field for row in rows for field in row for character in "\r\n")
    lines_are_rows = extension == ".tsv" and has_breaks and len({line.count("\t") for line in lines}) == 1
    return lines_are_rows or ('\\\\"' in content and not re.search(r'(?<!\\)(\\\\)*\\"', content))


@given(table=written_table())
def test_each_row_is_read_as_it_was_written(tmp_path, table):
    extension, rows, content = table
    assume(not content.startswith("\ufeff"))  # at the start of a file it is a byte order mark
    assume(not is_ambiguous(*table))
    path = tmp_path / f"new{extension}"
    path.write_bytes(content.encode())
    frame = read_or_refuse(path)
    if frame is not None:
        assert frame.to_numpy().tolist() == rows
        assert frame.index.tolist() == list(range(len(rows)))
