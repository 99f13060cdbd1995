"""Tables as programs write them, with hostile texts: each row comes out as it was, or the table is refused."""

import csv
import io
import re

import pandas as pd
from conftest import HARD, texts
from hypothesis import assume, event, given
from hypothesis import strategies as st

from textbert.data import tables

PIECES = ["\n", "\r\n", '"', '""', ",", ";", "\t", "|", "\\", '\\"', ", ", ' "', "1", "0", "\n2,0,", "\n\n", "soup"]
lively = st.lists(st.sampled_from(PIECES) | st.sampled_from(HARD), max_size=8).map("".join)
words = st.sampled_from(["good soup", 'he said "no"', "warm, cold; both", "it was\nlate", "NA", "", 'a pizza of 12"'])
two_labels = st.sampled_from([("1", "2"), ("0", "1"), ("good", "bad"), ("no", "yes")])
makers = st.sampled_from([str, "r{}".format, "2026-01-{:02}".format, "{}.5".format, "id {}".format])


def to_csv(rows, separator, end, quoting):
    file = io.StringIO()
    csv.writer(file, quoting=quoting, lineterminator=end, delimiter=separator).writerows(rows)
    return file.getvalue()


def by_pandas(rows, separator, end, quoting):
    how = {"sep": separator, "lineterminator": end, "quoting": quoting}
    return pd.DataFrame(rows).to_csv(None, header=False, index=False, **how)


def by_excel(rows, separator, end, quoting):
    """Quote what holds a separator, a quote or a line break; a first line says what the separator is."""
    return f"sep={separator}\r\n" + to_csv(rows, separator, "\r\n", csv.QUOTE_MINIMAL)


def by_spark(rows, separator, end, quoting):
    """Quote what holds a separator, a quote or a line break, and put a backslash before a quote or one before that."""

    def write(text):
        if not any(sign in text for sign in (separator, '"', "\n", "\r")):
            return text
        doubled = re.sub(r'(\\+)(?="|\Z)', r"\1\1", text)
        return '"' + doubled.replace('"', '\\"') + '"'

    return "".join(separator.join(map(write, row)) + "\n" for row in rows)


@st.composite
def written_table(draw):
    """Return (a file's suffix, its rows, its content) as a program writes them, perhaps with a header."""
    names, make = draw(two_labels), draw(makers)
    drawn = draw(st.lists(st.tuples(st.sampled_from(names), texts | lively | words), min_size=1, max_size=9))
    rows = [(make(number), label, text) for number, (label, text) in enumerate(drawn, start=1)]
    order = draw(st.permutations(range(3)))[: draw(st.sampled_from([3, 3, 3, 2]))]
    rows = draw(st.sampled_from([[], [("id", "label", "text")]])) + rows
    rows = [[row[i] for i in order] for row in rows]
    separator = draw(st.sampled_from(",,;|\t\t"))
    suffix = ".tsv" if separator == "\t" and draw(st.booleans()) else ".csv"
    write = draw(st.sampled_from([to_csv, by_pandas, by_excel, by_spark]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    if any("\r" in field for row in rows for field in row) and write is not by_spark:
        write, quoting = to_csv, csv.QUOTE_ALL  # before Python 3.13 csv let a lone one stand without quotes
    return suffix, rows, write(rows, separator, draw(st.sampled_from(["\n", "\r\n"])), quoting)


def read_or_refuse(path):
    """Return the rows of a table, or None if it is refused with its name in the message."""
    try:
        frame = tables.read_table(path)
    except ValueError as error:
        assert path.name in str(error)
        event("refused")
        return None
    event("read")
    return frame


def has_two_readings(suffix, rows, content):
    """Whether nothing in a table can tell how it was written.

    Lines of a TSV file that are rows by themselves must be read so, though some end within a text. Two backslashes at
    the end of a text are one to Spark, which shows only where it puts one before a quote.
    """
    lines = [line for line in re.split(r"\r\n|\r|\n", content) if line.strip()]
    breaks = any(sign in field for row in rows for field in row for sign in "\r\n")
    by_lines = suffix == ".tsv" and breaks and len({line.count("\t") for line in lines}) == 1
    return by_lines or ('\\\\"' in content and not re.search(r'(?<!\\)(\\\\)*\\"', content))


@given(table=written_table())
def test_each_row_comes_out_as_it_was_written(tmp_path, table):
    suffix, rows, content = table
    assume(not content.startswith("\ufeff"))  # at the start of a file it is the mark of the byte order
    assume(not has_two_readings(*table))
    path = tmp_path / f"new{suffix}"
    path.write_bytes(content.encode())
    frame = read_or_refuse(path)
    if frame is not None:
        assert frame.to_numpy().tolist() == rows
        assert frame.index.tolist() == list(range(len(rows)))
